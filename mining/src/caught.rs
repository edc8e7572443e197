//! Turns a panic into an error, so that a caller that waits for a task learns of it.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::time::Duration;

/// Wait before a task that panicked is restarted: its input may be the same, and each panic logs an error.
pub const PANIC_PAUSE: Duration = Duration::from_secs(10);

/// The output of a future, or the message of its panic. After a panic the future is not polled again, only dropped.
///
/// # Errors
/// The future panicked.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    let polled = poll_fn(|context| {
        // State shared with other tasks is behind locks, which a panic poisons.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        polled.map_or_else(|panic| std::task::Poll::Ready(Err(said(&*panic))), |poll| poll.map(Ok))
    });
    polled.await
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_also_after_a_wait() {
        let panics = async |number: u32| {
            tokio::task::yield_now().await;
            assert!(number < 2, "number {number}");
            number
        };
        assert_eq!(caught(panics(1)).await, Ok(1));
        assert_eq!(caught(panics(2)).await, Err("number 2".to_owned()));
        assert_eq!(caught(async { panic!("word") }).await, Err::<(), _>("word".to_owned()));
    }
}
