//! This machine's clock: read for people, and compared with the nodes'.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use iop_mining::clocks::{Clocks, Words};
use tracing::{info, warn};

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What is to be said where this machine's clock is hours from a template's time, in seconds since 1970.
pub(crate) fn doubt(template_time: u32) -> Option<String> {
    match Clocks::default().compare(template_time, now(), Instant::now()) {
        Some(Words::Wrong(words)) => Some(advice(&words)),
        _ => None,
    }
}

/// Logs the same, now and then, and once when the clocks agree again.
pub(crate) fn tell(clocks: &mut Clocks, template_time: u32) {
    match clocks.compare(template_time, now(), Instant::now()) {
        Some(Words::Wrong(words)) => warn!("{}", advice(&words)),
        Some(Words::Right) => info!("the clocks of this machine and of the node agree again"),
        None => {}
    }
}

fn advice(words: &str) -> String {
    format!(
        "{words}. By its own clock the pool judges the times of shares and dates its books: have the time set by NTP"
    )
}
