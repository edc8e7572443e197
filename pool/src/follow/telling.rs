//! Tracks whether miners are being told of a new tip. Other work waits until they are: parsing a template with
//! thousands of transactions takes milliseconds, and a pool may have one core.
//!
//! Here: the marks and how long they count. Not here: the task that tells miners ([`crate::session::round`]).
//! Path: a node's offer of a new tip → `begin` → nothing new, or a job → `tell` → round → [`Telling::over`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The longest wait: the time to tell ten thousand sessions. Meanwhile no newer tip is noticed.
const LONGEST: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Marks {
    /// Offers of new tips that were not handled yet.
    offers: u32,
    /// Counts news to tell; `told` is the count up to which all miners have been told.
    tells: u64,
    told: u64,
}

impl Marks {
    fn are_on(&self) -> bool {
        self.offers > 0 || self.told < self.tells
    }
}

/// Whether miners are being told of a new tip.
#[derive(Debug, Clone)]
pub struct Telling(Arc<watch::Sender<Marks>>);

impl Default for Telling {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Marks::default())))
    }
}

impl Telling {
    /// Marks that there may be news, until the guard is dropped.
    pub(crate) fn begin(&self) -> Begun {
        self.0.send_modify(|marks| marks.offers += 1);
        Begun(self.clone())
    }

    /// How often there was news to tell.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.borrow().tells
    }

    /// Marks that all miners have been told the news up to the value of [`Self::count`].
    pub fn over(&self, count: u64) {
        self.0.send_modify(|marks| marks.told = count);
    }

    #[cfg(test)]
    pub(crate) fn is_on(&self) -> bool {
        self.0.borrow().are_on()
    }

    /// Waits until miners have been told, a quarter of a second at most.
    pub(super) async fn wait(&self) {
        let mut told = self.0.subscribe();
        // After this long the waiting task continues anyway.
        let _ = timeout(LONGEST, told.wait_for(|marks| !marks.are_on())).await;
    }
}

/// An offer of a new tip that is being handled.
#[derive(Debug)]
pub(crate) struct Begun(Telling);

impl Begun {
    /// Marks that there is news: to be called while it is published.
    pub(crate) fn tell(&self) {
        self.0.0.send_modify(|marks| marks.tells += 1);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.0.send_modify(|marks| marks.offers -= 1);
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
        let [first, second] = [telling.begin(), telling.begin()];
        first.tell();
        drop(first);
        assert!(waits().await);
        drop(second);
        assert!(waits().await, "a second node's offer of the tip, which is nothing new, does not end it");
        let told = async {
            tokio::task::yield_now().await;
            telling.over(telling.count());
        };
        tokio::join!(telling.wait(), told);
        assert!(!waits().await);
        drop(telling.begin());
        assert!(!waits().await, "there was nothing to tell");
        let before = telling.count();
        telling.begin().tell();
        telling.over(before);
        assert!(waits().await, "a round of something older does not end it");
        telling.wait().await;
        assert!(waits().await, "who comes later waits as long");
    }
}
