//! Keeps a device running: one that panics has failed, one that may come back is retried.
//!
//! Here: what happens once [`Device::run`] ends. Not here: the other devices, which are not affected ([`crate::rig`]).

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{Device, Feed};

/// How often to check for the end of the miner while waiting for a device.
const LOOK: Duration = Duration::from_millis(100);

/// When to retry a device.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The wait after a failure.
    pub first: Duration,
    /// The wait doubles with each failed try, up to this.
    pub longest: Duration,
    /// Tries without a hash after which it is given up.
    pub tries: u32,
}

impl Default for Retry {
    /// Unplugging a card and plugging it in again takes a minute; one that is away for half a day is gone.
    fn default() -> Self {
        Self { first: Duration::from_secs(60), longest: Duration::from_secs(15 * 60), tries: 50 }
    }
}

/// Runs a device until it ends for good: because there is no more work, or with an error.
///
/// # Errors
/// The device's error, if it cannot work, panics, or has too many wrong finds.
pub fn keep_running(device: &dyn Device, feed: &Feed, retry: Retry) -> io::Result<()> {
    let (mut wait, mut tries, mut has_worked) = (retry.first, 0, false);
    loop {
        let before = feed.hashes();
        let ended = catch_unwind(AssertUnwindSafe(|| device.run(feed)));
        let error = match (ended, feed.fault()) {
            (_, Some(reason)) => return Err(io::Error::other(reason)),
            (Ok(Ok(())), None) => return Ok(()),
            (Ok(Err(error)), None) => error,
            (Err(panic), None) => return Err(io::Error::other(format!("it panicked: {}", words(&*panic)))),
        };
        if feed.hashes() > before {
            (wait, tries, has_worked) = (retry.first, 0, true);
        }
        // A device that never worked is misconfigured, and its owner is still there to read the error.
        if !device.may_come_back() || !has_worked || tries == retry.tries {
            return Err(error);
        }
        let text = format!("{error}; trying again in {} s", wait.as_secs());
        warn!("{}: {text}", device.name());
        feed.set_ailing(text);
        if !waited(feed, wait) {
            return Ok(());
        }
        (wait, tries) = ((wait * 2).min(retry.longest), tries + 1);
    }
}

/// Waits; returns false, possibly early, if the miner ends.
fn waited(feed: &Feed, wait: Duration) -> bool {
    let end = Instant::now() + wait;
    while !feed.is_over() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(LOOK));
    }
    false
}

/// The message of a panic.
pub(super) fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say why")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::device::tests::feed;

    const SOON: Retry =
        Retry { first: Duration::from_millis(1), longest: Duration::from_millis(2), tries: 3 };

    /// A card that is pulled out each time it has hashed something, this many times.
    struct Loose {
        times: u32,
        starts: AtomicU32,
        comes_back: bool,
    }

    impl Loose {
        fn new(times: u32, comes_back: bool) -> Self {
            Self { times, starts: AtomicU32::new(0), comes_back }
        }
    }

    impl Device for Loose {
        fn name(&self) -> &'static str {
            "loose"
        }

        fn run(&self, feed: &Feed) -> io::Result<()> {
            if self.starts.fetch_add(1, Ordering::Relaxed) < self.times {
                feed.add_hashes(1);
            }
            Err(io::Error::other("out of its slot"))
        }

        fn may_come_back(&self) -> bool {
            self.comes_back
        }
    }

    fn ended(device: &impl Device) -> String {
        let (feed, _shares) = feed(1e9);
        keep_running(device, &feed, SOON).unwrap_err().to_string()
    }

    #[test]
    fn a_device_that_vanishes_is_tried_again_and_given_up_in_the_end() {
        let device = Loose::new(5, true);
        assert_eq!(ended(&device), "out of its slot");
        // Five successful starts, then the retries allowed in a row.
        assert_eq!(device.starts.into_inner(), 5 + SOON.tries);
    }

    #[test]
    fn a_device_that_never_worked_or_cannot_come_back_is_not_tried_again() {
        for device in [Loose::new(0, true), Loose::new(5, false)] {
            assert_eq!(ended(&device), "out of its slot");
            assert_eq!(device.starts.into_inner(), 1);
        }
    }

    #[test]
    fn the_end_of_the_miner_ends_the_wait() {
        let (feed, shares) = feed(1e9);
        let never = Retry { first: Duration::from_secs(3600), ..SOON };
        thread::scope(|scope| {
            let kept = scope.spawn(|| keep_running(&Loose::new(1, true), &feed, never));
            drop(shares);
            kept.join().unwrap().unwrap();
        });
    }

    struct Panics;

    impl Device for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }

        fn run(&self, _: &Feed) -> io::Result<()> {
            panic!("index {} of {}", 7, 3)
        }
    }

    #[test]
    fn a_panic_is_a_failure_with_its_words() {
        assert_eq!(ended(&Panics), "it panicked: index 7 of 3");
    }

    /// Has only wrong finds.
    struct Liar;

    impl Device for Liar {
        fn name(&self) -> &'static str {
            "liar"
        }

        fn run(&self, feed: &Feed) -> io::Result<()> {
            while let Some(assignment) = feed.next(1) {
                feed.add_hashes(1);
                feed.found(&assignment, iop_kernels::Found { nonce: 0, version: 0 });
            }
            Ok(())
        }

        fn may_come_back(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_device_that_is_wrong_again_and_again_is_stopped_for_good() {
        let (feed, _shares) = feed(1e9);
        let error = keep_running(&Liar, &feed, SOON).unwrap_err();
        assert_eq!(error.to_string(), "10 wrong finds in a row: stopped");
        assert_eq!(feed.hashes(), 10);
    }
}
