//! Bytes written on a connection's streams that its socket has not taken, and when writers have to wait.
//!
//! Yamux keeps ten frames per stream and reports them as written at once, so an answer would count as taken
//! although nobody reads it. Here: the account of a connection. Not here: received bytes ([`super::unread`]). Path:
//! written on a stream → charged → kept by yamux → [`super::charged`] → credited → waiting writers continue.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::limits::{FRAME_COST, FRAME_PLACE, MAX_UNSENT, SHORT_WRITE, UNSENT_RESERVE};

/// The account, shared by the socket, the muxer and the streams.
#[derive(Clone, Default)]
pub(super) struct Unsent(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    /// Bytes that yamux keeps, and the cost of keeping them in frames.
    cost: usize,
    /// Tasks that want to write.
    waiting: Vec<Waker>,
    /// The connection has ended: nothing is sent any more.
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

    /// Writes up to this many bytes on a stream as one frame, if there is room; otherwise the task is woken when
    /// there is. After the end there always is room: yamux reports the end then.
    pub(super) fn write(
        &self,
        bytes: usize,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        // Locked during the write, since the socket's task may send at once what yamux is given.
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

    /// The socket has taken this many bytes of a frame; `last` is whether they complete it.
    pub(super) fn sent(&self, bytes: usize, last: bool) {
        let mut queue = self.queue();
        let frame = if last { FRAME_COST + FRAME_PLACE } else { 0 };
        queue.cost = queue.cost.saturating_sub(bytes + frame);
        if queue.cost < MAX_UNSENT {
            Self::wake(queue);
        }
    }

    /// The connection has ended: waiting writers are woken to learn it.
    pub(super) fn end(&self) {
        let mut queue = self.queue();
        queue.ended = true;
        Self::wake(queue);
    }

    /// Unlocks the account before it wakes the tasks.
    fn wake(mut queue: MutexGuard<'_, Queue>) {
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
    }
}
