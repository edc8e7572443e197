//! Lines on their way to stderr. A thread of its own writes them, so that whoever logs never waits for a stderr that
//! nobody reads: what has no room is lost, and its number is written in its place.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most bytes that wait, lines and what they cost besides: some thousand lines.
const MAX_BYTES: usize = 256 * 1024;
/// What a line costs besides its bytes.
const LINE: usize = 64;

/// Whole lines, or what stands in place of some that are lost.
#[derive(Debug)]
struct Entry {
    text: Vec<u8>,
    /// How many lines are lost where this cannot be written.
    lines: u64,
}

impl Entry {
    fn of_lost(lines: u64) -> Self {
        let text = format!("({lines} lines of the log are lost here: stderr did not take them in time)\n");
        Self { text: text.into_bytes(), lines }
    }

    fn cost(&self) -> usize {
        self.text.len() + LINE
    }
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Entry>,
    /// What those that wait cost.
    bytes: usize,
    /// Lines that were lost after the last one that waits.
    lost: u64,
    /// Whether one is being written.
    writing: bool,
    /// Whether the last one could not be written: nothing is tried again for its own sake.
    failed: bool,
}

impl State {
    fn add(&mut self, entry: Entry) {
        self.bytes += entry.cost();
        self.waiting.push_back(entry);
    }

    /// The next to be written; what is lost is told as soon as there is nothing before it.
    fn next(&mut self) -> Option<Entry> {
        if self.waiting.is_empty() && self.lost > 0 && !self.failed {
            return Some(Entry::of_lost(std::mem::take(&mut self.lost)));
        }
        let entry = self.waiting.pop_front()?;
        self.bytes -= entry.cost();
        Some(entry)
    }
}

/// The lines that wait.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told when a line comes, and when one is written.
    changed: Condvar,
}

impl Queue {
    pub(super) const fn new() -> Self {
        let state = State { waiting: VecDeque::new(), bytes: 0, lost: 0, writing: false, failed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Takes lines, or counts them as lost where there is no room.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut state = self.lock();
        state.failed = false;
        if state.bytes + lines.len() + LINE > MAX_BYTES {
            state.lost += 1;
        } else {
            if state.lost > 0 {
                let lost = Entry::of_lost(std::mem::take(&mut state.lost));
                state.add(lost);
            }
            state.add(Entry { text: lines.to_vec(), lines: 1 });
        }
        self.changed.notify_all();
    }

    /// Writes whatever comes, for ever.
    pub(super) fn write(&self, out: &mut impl Write) {
        loop {
            let entry = self.next();
            let written = out.write_all(&entry.text).and_then(|()| out.flush());
            let mut state = self.lock();
            state.writing = false;
            state.failed = written.is_err();
            if state.failed {
                state.lost += entry.lines;
            }
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Entry {
        let mut state = self.lock();
        loop {
            if let Some(entry) = state.next() {
                state.writing = true;
                return entry;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all is written that came, so long at most.
    pub(super) fn flush(&self, limit: Duration) {
        let busy = |state: &mut State| {
            let more = !state.waiting.is_empty() || (state.lost > 0 && !state.failed);
            more || state.writing
        };
        // Poisoned or not, it was waited for.
        drop(self.changed.wait_timeout_while(self.lock(), limit, busy));
    }

    /// Nothing that could panic is done with the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Takes a line for each leave that it gets, or fails.
    struct Slow {
        leaves: Receiver<bool>,
        taken: Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.leaves.recv() {
                Ok(true) => self.taken.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap(),
                Ok(false) => return Err(io::Error::other("full")),
                // The test is over: the thread stays behind.
                Err(_) => loop {
                    thread::park();
                },
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Arc<Queue>, Sender<bool>, Receiver<String>) {
        let (queue, (leave, leaves), (taken, lines)) = (Arc::new(Queue::new()), channel(), channel());
        let writer = Arc::clone(&queue);
        thread::spawn(move || writer.write(&mut Slow { leaves, taken }));
        (queue, leave, lines)
    }

    #[test]
    fn lines_without_room_are_lost_and_their_number_stands_in_their_place() {
        let (queue, leave, lines) = slow();
        queue.push(b"first");
        while !queue.lock().writing {
            thread::yield_now();
        }
        let line = [b'x'; 1000];
        (1..10_000).for_each(|_| queue.push(&line));
        assert!(queue.lock().bytes <= MAX_BYTES);
        let mut taken = 0;
        let lost = loop {
            leave.send(true).unwrap();
            let text = lines.recv_timeout(PATIENCE).unwrap();
            match text.strip_prefix('(') {
                None => taken += 1,
                Some(text) => break text.split(' ').next().unwrap().parse::<u64>().unwrap(),
            }
        };
        assert_eq!(taken + lost, 10_000);
        queue.push(b"after");
        leave.send(true).unwrap();
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), "after");
        queue.flush(PATIENCE);
        let state = queue.lock();
        assert_eq!((state.bytes, state.lost), (0, 0));
    }

    #[test]
    fn a_line_that_has_room_again_stands_after_the_number_of_those_that_had_none() {
        let (queue, leave, lines) = slow();
        let waits = |number: usize| {
            while queue.lock().waiting.len() != number {
                thread::yield_now();
            }
        };
        queue.push(b"first");
        waits(0);
        let half = [b'x'; MAX_BYTES / 2 - LINE];
        for line in [&half[..], &half, b"lost", b"lost"] {
            queue.push(line);
        }
        leave.send(true).unwrap();
        waits(1);
        queue.push(b"after");
        (0..4).for_each(|_| leave.send(true).unwrap());
        let taken: Vec<String> = (0..5).map(|_| lines.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(taken.iter().map(String::len).collect::<Vec<_>>()[..3], [5, half.len(), half.len()]);
        assert!(
            taken[3].starts_with("(2 lines of the log are lost here") && taken[4] == "after",
            "{taken:?}"
        );
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_when_it_can() {
        let (queue, leave, lines) = slow();
        // With a line comes the note on those before it, which fails as well.
        for writes in [1, 2, 2] {
            queue.push(b"lost");
            (0..writes).for_each(|_| leave.send(false).unwrap());
            queue.flush(PATIENCE);
        }
        assert_eq!(queue.lock().lost, 3);
        queue.push(b"after");
        (0..2).for_each(|_| leave.send(true).unwrap());
        assert!(lines.recv_timeout(PATIENCE).unwrap().starts_with("(3 lines of the log are lost here"));
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), "after");
    }

    #[test]
    fn a_flush_ends_though_nothing_is_taken() {
        let (queue, _leave, _lines) = slow();
        queue.push(b"never");
        queue.flush(Duration::from_millis(10));
        let state = queue.lock();
        assert!(state.writing || !state.waiting.is_empty());
    }
}
