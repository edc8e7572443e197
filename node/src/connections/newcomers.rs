//! Connections that have not sent a whole request yet: where places run out, the oldest gives way, so that whoever
//! sends nothing, or a byte now and then, keeps nobody who asks away.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::oneshot;

/// The newcomers, by the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Mutex<BTreeMap<u64, oneshot::Sender<()>>>);

impl Newcomers {
    /// Adds one; it must leave when it is told to.
    pub(super) fn add(&self, number: u64) -> oneshot::Receiver<()> {
        let (leave, told) = oneshot::channel();
        self.lock().insert(number, leave);
        told
    }

    /// One has sent a request or is gone: it is told nothing any more.
    pub(super) fn remove(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Tells the oldest one, if there is any, to leave.
    pub(super) fn close_oldest(&self) {
        let oldest = self.lock().pop_first();
        if let Some((_, leave)) = oldest {
            let _ = leave.send(()); // in vain if it is just leaving
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<()>>> {
        self.0.lock().expect("no panic while the lock is held")
    }
}
