//! Whether miners are being told of a new tip. What can wait until they know it, waits: to parse a template of thousands
//! of transactions takes milliseconds, and a pool may have one core.
//!
//! Here: the marks and how long they count. Not here: who tells miners ([`crate::session::round`]).
//! Path: a node's offer of a new tip → `begin` → nothing new, or a job → `tell` → round →
//! [`Telling::over`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long anything waits at most: what telling ten thousand sessions takes. Meanwhile no newer tip is noticed.
const LONGEST: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Marks {
    /// Offers of new tips that nobody has looked at yet.
    offers: u32,
    /// How often there was something to tell, and up to which of these all have been told.
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
    /// There may be something to tell, until this is dropped.
    pub(crate) fn begin(&self) -> Begun {
        self.0.send_modify(|marks| marks.offers += 1);
        Begun(self.clone())
    }

    /// How often there was something to tell.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.borrow().tells
    }

    /// Everybody has been told what there was when [`Self::count`] gave this.
    pub fn over(&self, count: u64) {
        self.0.send_modify(|marks| marks.told = count);
    }

    #[cfg(test)]
    pub(crate) fn is_on(&self) -> bool {
        self.0.borrow().are_on()
    }

    /// Until it is over, a quarter of a second at most.
    pub(super) async fn wait(&self) {
        let mut told = self.0.subscribe();
        // Who has waited for so long goes on.
        let _ = timeout(LONGEST, told.wait_for(|marks| !marks.are_on())).await;
    }
}

/// An offer of a new tip is on its way.
#[derive(Debug)]
pub(crate) struct Begun(Telling);

impl Begun {
    /// There is something to tell: to be called while it is published.
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
