//! Syncs: one for all batches that were written while the last one ran.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rocksdb::DB;
use tokio::sync::watch;

/// A batch's position in the order of all batches since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The database's journal can no longer be synced, so nothing may be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Mercury's database cannot be synced")]
pub struct NotDurable;

/// Tells up to which batch everything is on disk.
#[derive(Debug, Clone)]
pub struct Durable(watch::Receiver<u64>);

impl Durable {
    /// Waits until a batch would survive a power failure.
    ///
    /// # Errors
    /// When that can never happen.
    pub async fn wait(&mut self, ticket: Ticket) -> Result<(), NotDurable> {
        self.0.wait_for(|synced| *synced >= ticket.0).await.map(drop).map_err(|_| NotDurable)
    }

    /// Whether a batch would survive a power failure.
    #[must_use]
    pub fn is_safe(&self, ticket: Ticket) -> bool {
        *self.0.borrow() >= ticket.0
    }

    /// Like [`Self::wait`], for a thread that may block.
    ///
    /// # Errors
    /// When that can never happen.
    pub fn wait_blocking(&mut self, ticket: Ticket) -> Result<(), NotDurable> {
        while *self.0.borrow_and_update() < ticket.0 {
            if self.0.has_changed().is_err() {
                return Err(NotDurable);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }
}

pub(super) struct Syncer {
    /// Number of batches written. Each wakes the thread, which ends when `wake` is dropped.
    written: Arc<AtomicU64>,
    wake: Option<std::sync::mpsc::SyncSender<()>>,
    synced: watch::Receiver<u64>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(db: Arc<DB>) -> io::Result<Self> {
        let written = Arc::new(AtomicU64::new(0));
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        let (done, synced) = watch::channel(0);
        let thread = std::thread::Builder::new().name("mercury-sync".into()).spawn({
            let written = Arc::clone(&written);
            move || {
                while woken.recv().is_ok() {
                    let upto = written.load(Ordering::Acquire);
                    // Without a sync nothing more is acknowledged: waiters see the channel close.
                    if db.flush_wal(true).is_err() {
                        return;
                    }
                    done.send_replace(upto);
                }
            }
        })?;
        Ok(Self { written, wake: Some(wake), synced, thread: Some(thread) })
    }

    /// Counts a batch that was written, and returns its ticket.
    pub(super) fn written(&self) -> Ticket {
        let ticket = Ticket(self.written.fetch_add(1, Ordering::Release) + 1);
        if let Some(wake) = &self.wake {
            // If full, the thread is about to look, and will see this batch too.
            let _ = wake.try_send(());
        }
        ticket
    }

    /// The ticket of the last batch that was written.
    pub(super) fn so_far(&self) -> Ticket {
        Ticket(self.written.load(Ordering::Acquire))
    }

    pub(super) fn durable(&self) -> Durable {
        Durable(self.synced.clone())
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
