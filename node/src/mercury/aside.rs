//! Pauses the relay while the node validates a block.
//!
//! Lives here: a task that blocks the relay's only runtime thread, for part of the time at most. Does not live
//! here: when blocks are validated (`chain`), and the thread's priority (`supervised.rs`). Priority alone is not
//! enough with few cores: the relay gives up a busy core late and has filled its caches by then. Data goes: a block
//! begins or ends -> [`step_aside`] -> the thread sleeps or continues.

use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Longest pause for one block: calls pass through the relay, and a shorter gap is not audible.
const LONGEST: Duration = Duration::from_millis(200);
/// How often a pausing thread checks whether the block is done.
const STEP: Duration = Duration::from_millis(1);

/// Blocks the thread that polls it while a block is validated. Afterwards the relay runs at least as long as it was
/// blocked, whatever blocks come, so that a node catching up with the chain does not silence it. Ends with the
/// sender.
pub(super) async fn step_aside(mut validating: watch::Receiver<bool>) {
    while validating.wait_for(|now| *now).await.is_ok() {
        let since = Instant::now();
        while *validating.borrow() && since.elapsed() < LONGEST {
            thread::sleep(STEP);
        }
        // A dropped sender leaves its last value in place.
        if validating.has_changed().is_err() {
            return;
        }
        tokio::time::sleep(since.elapsed()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A relay thread that counts its work until the sender is dropped.
    fn relay(validating: watch::Receiver<bool>) -> (Arc<AtomicU64>, thread::JoinHandle<()>) {
        let done = Arc::new(AtomicU64::new(0));
        let counted = done.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime").block_on(async {
                let work = async {
                    loop {
                        counted.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_micros(100)).await;
                    }
                };
                tokio::select! { () = step_aside(validating) => {}, () = work => {} }
            });
        });
        (done, thread)
    }

    /// Waits until the count increases.
    fn goes_on(done: &AtomicU64) {
        let before = done.load(Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < before + 3 {
            thread::sleep(STEP);
        }
    }

    #[test]
    fn nothing_is_done_beside_a_block_and_all_goes_on_after_it() {
        let (validate, validating) = watch::channel(false);
        let (done, thread) = relay(validating);
        goes_on(&done);
        validate.send_replace(true);
        // Paused if two readings are equal.
        let still = || {
            let before = done.load(Ordering::SeqCst);
            thread::sleep(5 * STEP);
            done.load(Ordering::SeqCst) == before
        };
        while !still() {}
        validate.send_replace(false);
        goes_on(&done);
        drop(validate);
        thread.join().expect("it ends with the sender");
    }

    #[test]
    fn a_block_without_end_does_not_hold_it_up_for_ever() {
        let (validate, validating) = watch::channel(true);
        let (done, thread) = relay(validating);
        for _ in 0..3 {
            goes_on(&done);
        }
        drop(validate);
        thread.join().expect("it ends with the sender");
    }
}
