//! Warnings that strangers can bring about, machines or pools: one a minute, or they could fill the disk.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::warn;

/// How often strangers can make us say something.
const REMIND: Duration = Duration::from_secs(60);

/// Warnings of one kind.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    /// Says it, if nothing was said for long.
    pub fn say(&self, text: &str) {
        let mut said = self.0.lock().expect("nothing panics while it holds the lock");
        if said.is_none_or(|at| at.elapsed() > REMIND) {
            warn!("{text}");
            *said = Some(Instant::now());
        }
    }
}
