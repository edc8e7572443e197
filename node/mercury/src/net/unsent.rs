//! What was written on a connection's streams and its socket has not taken: how much it is, and when nobody writes more.
//!
//! Yamux keeps ten frames of each stream and says at once that they are written: an answer would count as taken that
//! nobody reads. Here: the account of one connection. Not here: what has come for its streams ([`super::unread`]).
//! Path: written on a stream → charged → yamux keeps it → [`super::charged`] → credited → who waits to write goes on.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::limits::{FRAME_COST, FRAME_PLACE, MAX_UNSENT, SHORT_WRITE, UNSENT_RESERVE};

/// The account. The socket, the muxer and the streams share it.
#[derive(Clone, Default)]
pub(super) struct Unsent(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    /// Bytes that yamux keeps, and what it costs to keep them in frames.
    cost: usize,
    /// Tasks that want to write.
    waiting: Vec<Waker>,
    /// Nothing is sent any more.
    ended: bool,
}

impl Unsent {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn cost(&self) -> usize {
        self.queue().cost
    }

    /// Writes on a stream so many bytes or fewer, as one frame, if there is room; otherwise the task is woken when there
    /// is. Where all has ended there is: yamux says that it has.
    pub(super) fn write(
        &self,
        bytes: usize,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        // Locked meanwhile, since the socket's task may send at once what yamux is given.
        let mut queue = self.queue();
        let reserve = if bytes <= SHORT_WRITE { UNSENT_RESERVE } else { 0 };
        if !queue.ended && queue.cost >= MAX_UNSENT + reserve {
            if !queue.waiting.iter().any(|other| other.will_wake(cx.waker())) {
                queue.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let result = write(cx);
        if let Poll::Ready(Ok(count @ 1..)) = result {
            queue.cost += count + FRAME_COST + FRAME_PLACE;
        }
        result
    }

    /// The socket has taken so many bytes of a frame; whether these were its last.
    pub(super) fn sent(&self, bytes: usize, last: bool) {
        let mut queue = self.queue();
        let frame = if last { FRAME_COST + FRAME_PLACE } else { 0 };
        queue.cost = queue.cost.saturating_sub(bytes + frame);
        if queue.cost < MAX_UNSENT {
            Self::wake(queue);
        }
    }

    /// The connection has ended: who waits to write learns it.
    pub(super) fn end(&self) {
        let mut queue = self.queue();
        queue.ended = true;
        Self::wake(queue);
    }

    /// The account is not locked while tasks are woken.
    fn wake(mut queue: MutexGuard<'_, Queue>) {
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
    }
}
