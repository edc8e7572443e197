//! Whether miners are being told of a job. What can wait until they have it, waits: to parse a template of thousands of
//! transactions takes milliseconds, and a pool may have one core.
//!
//! Here: the mark and how long it counts. Not here: who tells them ([`crate::session::round`]).
//! Path: a node's offer of a new tip → `begin` → a job, or nothing new → round → [`Telling::over`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long anything waits at most: what telling ten thousand sessions takes. Meanwhile no newer tip is noticed.
const LONGEST: Duration = Duration::from_millis(250);

/// Whether miners are being told of a job.
#[derive(Debug, Clone)]
pub struct Telling(Arc<watch::Sender<bool>>);

impl Default for Telling {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Telling {
    /// They are to be told.
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Everybody has been told, or there was nothing to tell.
    pub fn over(&self) {
        self.0.send_replace(false);
    }

    #[cfg(test)]
    pub(crate) fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Until it is over, a quarter of a second at most.
    pub(super) async fn wait(&self) {
        let mut told = self.0.subscribe();
        // Who has waited for so long goes on.
        let _ = timeout(LONGEST, told.wait_for(|telling| !telling)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_can_wait_waits_until_all_are_told_and_not_for_ever() {
        let telling = Telling::default();
        let waits = async || timeout(Duration::ZERO, telling.wait()).await.is_err();
        assert!(!waits().await);
        telling.begin();
        assert!(waits().await);
        let told = async {
            tokio::task::yield_now().await;
            telling.over();
        };
        tokio::join!(telling.wait(), told);
        assert!(!waits().await);
        telling.begin();
        telling.wait().await;
        assert!(waits().await, "who comes later waits as long");
    }
}
