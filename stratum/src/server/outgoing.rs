//! Lines to be sent to a client, and the queue in which they wait for the socket.
//!
//! Here: how many bytes are queued, and which lines go out in one write. Not here: what the lines say
//! ([`super::Session`]), and how many bytes are too many (the owner's).
//! Path: line → [`Queue::push`] → [`Queue::pop_joined`] → socket.

use std::collections::VecDeque;
use std::sync::Arc;

/// Lines are joined into one write up to this many bytes; a longer line is written alone.
const JOIN: usize = 4096;

/// A line to send, including its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// Encoded for this connection.
    Own(Vec<u8>),
    /// Encoded once for all connections.
    Shared(Arc<[u8]>),
}

impl AsRef<[u8]> for Outgoing {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// The queued lines.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Stored inline, so that a job for all connections, which usually finds the queue empty, allocates nothing.
    first: Option<Outgoing>,
    rest: VecDeque<Outgoing>,
    bytes: usize,
}

impl Queue {
    pub(super) fn push(&mut self, line: Outgoing) {
        self.bytes += line.as_ref().len();
        match &self.first {
            None => self.first = Some(line),
            Some(_) => self.rest.push_back(line),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        let line = self.first.take()?;
        self.bytes -= line.as_ref().len();
        self.first = self.rest.pop_front();
        if self.rest.is_empty() {
            // An idle connection should cost next to nothing.
            self.rest = VecDeque::new();
        }
        Some(line)
    }

    /// The next line, joined with those after it that fit into the same write. A long line, as a job for all may be,
    /// gets a write of its own and is not copied for each connection.
    pub(super) fn pop_joined(&mut self) -> Option<Outgoing> {
        let first = self.pop()?;
        if first.as_ref().len() > JOIN || !self.has_short() {
            return Some(first);
        }
        let mut joined = first.as_ref().to_vec();
        while joined.len() < JOIN
            && self.has_short()
            && let Some(line) = self.pop()
        {
            joined.extend_from_slice(line.as_ref());
        }
        Some(Outgoing::Own(joined))
    }

    /// Whether the next line is short enough to be joined with others.
    fn has_short(&self) -> bool {
        self.first.as_ref().is_some_and(|line| line.as_ref().len() <= JOIN)
    }

    /// Total bytes of the queued lines.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(byte: u8, length: usize) -> Outgoing {
        Outgoing::Own(vec![byte; length])
    }

    #[test]
    fn lines_come_out_in_order_and_are_counted() {
        let mut queue = Queue::default();
        for round in 0..3 {
            for byte in 0..5 {
                queue.push(line(byte, 10));
            }
            assert_eq!(queue.bytes(), 50);
            for byte in 0..5 {
                assert_eq!(queue.pop(), Some(line(byte, 10)), "round {round}");
            }
            assert_eq!((queue.pop(), queue.bytes()), (None, 0));
        }
    }

    #[test]
    fn a_job_for_all_is_not_copied_and_others_are_joined_up_to_a_bound() {
        let (mut queue, shared): (_, Arc<[u8]>) = (Queue::default(), Arc::from(&b"job\n"[..]));
        queue.push(Outgoing::Shared(Arc::clone(&shared)));
        let Some(Outgoing::Shared(sent)) = queue.pop_joined() else { panic!("a job") };
        assert!(Arc::ptr_eq(&sent, &shared));
        let long: Arc<[u8]> = vec![b'j'; JOIN + 1].into();
        for around in [10, JOIN] {
            queue.push(line(1, around));
            queue.push(Outgoing::Shared(Arc::clone(&long)));
            queue.push(line(2, around));
            assert_eq!(queue.pop_joined(), Some(line(1, around)));
            let Some(Outgoing::Shared(sent)) = queue.pop_joined() else { panic!("a copy, {around} around") };
            assert!(Arc::ptr_eq(&sent, &long));
            assert_eq!((queue.pop_joined(), queue.bytes()), (Some(line(2, around)), 0));
        }
        for byte in 0..4 {
            queue.push(line(byte, JOIN / 2));
        }
        assert_eq!(queue.pop_joined().map(|lines| lines.as_ref().len()), Some(JOIN));
        assert_eq!((queue.pop_joined().map(|lines| lines.as_ref().len()), queue.bytes()), (Some(JOIN), 0));
    }
}
