//! Lines to be written to stderr. A separate thread writes them, so that logging never waits for a stderr that is not
//! read: lines without room are dropped, and their number is written in their place.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most bytes queued, lines and their overhead: some thousand lines.
const MAX_BYTES: usize = 256 * 1024;
/// Overhead of a line in bytes.
const LINE: usize = 64;
/// Most lines queued regardless of room: each contains a found block, up to some megabytes, that exists nowhere else.
pub(super) const MAX_WHOLE: usize = 16;
/// Size of a single write: small enough for a slow terminal to take one within the time that the end waits for it.
const PIECE: usize = 16 * 1024;

/// Complete lines, or the note about dropped ones.
#[derive(Debug)]
struct Entry {
    text: Vec<u8>,
    /// Number of lines that are lost if this cannot be written.
    lines: u64,
    /// Whether it is queued regardless of room.
    whole: bool,
}

impl Entry {
    fn of_lost(lines: u64) -> Self {
        let text = format!("({lines} lines of the log are lost here: stderr did not take them in time)\n");
        Self { text: text.into_bytes(), lines, whole: false }
    }

    /// Its share of the common room.
    fn cost(&self) -> usize {
        if self.whole { 0 } else { self.text.len() + LINE }
    }
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Entry>,
    /// Total cost of the waiting entries.
    bytes: usize,
    /// Lines queued regardless of room, including one being written; and the number of pieces written so far.
    whole: usize,
    pieces: u64,
    /// Lines that must not be lost but could not be written: retried when a line comes, and at the end.
    again: VecDeque<Entry>,
    /// Lines dropped after the last waiting entry.
    lost: u64,
    /// Whether an entry is being written.
    writing: bool,
    /// Whether the last write failed: then nothing is retried until another line comes.
    failed: bool,
}

impl State {
    fn has_room(&self, entry: &Entry) -> bool {
        if entry.whole { self.whole < MAX_WHOLE } else { self.bytes + entry.cost() <= MAX_BYTES }
    }

    fn add(&mut self, entry: Entry) {
        self.bytes += entry.cost();
        self.whole += usize::from(entry.whole);
        self.waiting.push_back(entry);
    }

    /// Whether there is something to write.
    fn is_busy(&self) -> bool {
        let may_go_on = !self.failed && (self.lost > 0 || !self.again.is_empty());
        !self.waiting.is_empty() || may_go_on || self.writing
    }

    /// The next entry; a note about dropped lines as soon as nothing is queued before it.
    fn next(&mut self) -> Option<Entry> {
        if self.waiting.is_empty() && self.lost > 0 && !self.failed {
            return Some(Entry::of_lost(std::mem::take(&mut self.lost)));
        }
        if let Some(entry) = self.waiting.pop_front() {
            self.bytes -= entry.cost();
            return Some(entry);
        }
        if self.failed { None } else { self.again.pop_front() }
    }

    /// Handles an entry that could not be written, for example because a disk is full.
    fn failed(&mut self, mut entry: Entry) {
        self.failed = true;
        if !entry.whole {
            self.lost += entry.lines;
            return;
        }
        // A part of it may already be written.
        if !entry.text.starts_with(b"\n") {
            entry.text.insert(0, b'\n');
        }
        self.again.push_front(entry);
    }
}

/// The queue of lines.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Notified when a line comes, and when one is written.
    changed: Condvar,
}

impl Queue {
    pub(super) const fn new() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            bytes: 0,
            whole: 0,
            pieces: 0,
            again: VecDeque::new(),
            lost: 0,
            writing: false,
            failed: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Queues lines, or counts them as dropped if there is no room.
    pub(super) fn push(&self, lines: &[u8]) {
        self.enter(Entry { text: lines.to_vec(), lines: 1, whole: false });
    }

    /// Queues a line of any length that must not be lost, regardless of what is queued.
    pub(super) fn push_whole(&self, line: &[u8]) {
        self.enter(Entry { text: line.to_vec(), lines: 1, whole: true });
    }

    fn enter(&self, entry: Entry) {
        let mut state = self.lock();
        state.failed = false;
        if !state.has_room(&entry) {
            state.lost += 1;
        } else {
            if state.lost > 0 {
                let lost = Entry::of_lost(std::mem::take(&mut state.lost));
                state.add(lost);
            }
            state.add(entry);
        }
        self.changed.notify_all();
    }

    /// Writes all entries; never returns.
    pub(super) fn write(&self, out: &mut impl Write) {
        loop {
            let entry = self.next();
            let written = self.put(&entry, out);
            let mut state = self.lock();
            state.writing = false;
            match written {
                Ok(()) => {
                    state.failed = false;
                    state.whole -= usize::from(entry.whole);
                }
                Err(_) => state.failed(entry),
            }
            self.changed.notify_all();
        }
    }

    /// Writes a long entry in pieces, so that a waiting flush sees progress.
    fn put(&self, entry: &Entry, out: &mut impl Write) -> io::Result<()> {
        for piece in entry.text.chunks(if entry.whole { PIECE } else { MAX_BYTES }) {
            out.write_all(piece)?;
            self.lock().pieces += 1;
        }
        out.flush()
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

    /// Waits until everything is written, up to `limit`; for a line that must not be lost, as long as there is
    /// progress. An entry that could not be written is retried once.
    pub(super) fn flush(&self, limit: Duration) {
        let mut state = self.lock();
        state.failed &= state.again.is_empty();
        self.changed.notify_all();
        loop {
            let before = state.pieces;
            // A poisoned lock does not matter.
            let waited = self.changed.wait_timeout_while(state, limit, |state| state.is_busy());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !state.is_busy() || state.whole == 0 || state.pieces == before {
                return;
            }
        }
    }

    /// Whether a line that must not be lost is still to be written.
    pub(super) fn has_whole(&self) -> bool {
        self.lock().whole > 0
    }

    /// Nothing that could panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Accepts a line each time it is allowed to, or fails.
    struct Slow {
        leaves: Receiver<bool>,
        taken: Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.leaves.recv() {
                Ok(true) => self.taken.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap(),
                Ok(false) => return Err(io::Error::other("full")),
                // The test is over: park the thread.
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
    fn a_line_that_must_not_be_lost_and_could_not_be_written_is_tried_again() {
        let (queue, leave, lines) = slow();
        queue.push_whole(b"block");
        leave.send(false).unwrap();
        while !queue.lock().failed {
            thread::yield_now();
        }
        assert!(queue.has_whole());
        // It is retried with the next line, which it does not delay.
        queue.push(b"next");
        for (expected, goes) in [("next", true), ("", false)] {
            leave.send(goes).unwrap();
            if goes {
                assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), expected);
            }
        }
        while !queue.lock().failed {
            thread::yield_now();
        }
        // And retried at the end.
        leave.send(true).unwrap();
        queue.flush(PATIENCE);
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), "\nblock");
        assert!(!queue.has_whole() && queue.lock().lost == 0);
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
        // With a line comes the note about earlier ones, which fails as well.
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
    fn a_whole_line_has_room_whatever_waits_and_is_written_to_its_end() {
        let (queue, leave, lines) = slow();
        queue.push(b"first");
        let line = [b'x'; 1000];
        (0..1000).for_each(|_| queue.push(&line));
        let big = vec![b'y'; 3 * PIECE + 1];
        (0..MAX_WHOLE + 2).for_each(|_| queue.push_whole(&big));
        (0..2000).for_each(|_| leave.send(true).unwrap());
        let mut taken = Vec::new();
        while taken.last().is_none_or(|line: &String| !line.starts_with("(2 lines")) {
            taken.push(lines.recv_timeout(PATIENCE).unwrap());
        }
        let bytes: usize = taken.iter().filter(|piece| piece.starts_with('y')).map(String::len).sum();
        assert_eq!(bytes, MAX_WHOLE * big.len());
        queue.flush(PATIENCE);
        assert!(!queue.has_whole());
    }

    #[test]
    fn a_flush_waits_for_a_whole_line_to_its_end() {
        let (queue, leave, lines) = slow();
        queue.push_whole(&vec![b'y'; 3 * PIECE]);
        let (waits, waited) = (Arc::clone(&queue), channel());
        thread::spawn(move || {
            waits.flush(PATIENCE);
            waited.0.send(waits.has_whole()).unwrap();
        });
        for _ in 0..3 {
            assert!(waited.1.try_recv().is_err(), "it is not over");
            leave.send(true).unwrap();
            lines.recv_timeout(PATIENCE).unwrap();
        }
        assert!(!waited.1.recv_timeout(PATIENCE).unwrap());
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
