//! Bytes received for a connection's streams and not read yet, and when reading from the socket pauses.
//!
//! Here: the account of a connection, and the purse of a peer. Not here: the socket below yamux, which parses frame
//! headers ([`super::charged`]), and the streams above it ([`super::muxer`]). Path: socket → frame header → charged
//! to its stream → kept by yamux → read from the stream → credited.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use super::charged::{DATA, Head, RST, SYN, WINDOW};
use crate::limits::{FRAME_COST, FRAME_PLACE, MAX_FRAME, MAX_STREAMS};

/// The allowance of one peer's connections: a fixed amount each, and more while all together hold little.
pub(super) struct Purse(Mutex<Sum>);

struct Sum {
    each: usize,
    together: usize,
    held: usize,
    /// Tasks of sockets whose reading is paused.
    waiting: Vec<Waker>,
}

impl Purse {
    pub(super) fn new(each: usize, together: usize) -> Self {
        Self(Mutex::new(Sum { each, together, held: 0, waiting: Vec::new() }))
    }

    fn sum(&self) -> MutexGuard<'_, Sum> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how much the connections may hold together from now on.
    pub(super) fn set_together(&self, together: usize) {
        let mut sum = self.sum();
        sum.together = together;
        Self::wake(sum);
    }

    /// Whether a connection that holds `own` may read more; otherwise its task is woken when it may.
    fn has_room(&self, own: usize, cx: &Context<'_>) -> bool {
        let mut sum = self.sum();
        if sum.has_room(own) {
            return true;
        }
        if !sum.waiting.iter().any(|other| other.will_wake(cx.waker())) {
            sum.waiting.push(cx.waker().clone());
        }
        false
    }

    /// A connection now holds `now` instead of `before`.
    fn change(&self, before: usize, now: usize) {
        let mut sum = self.sum();
        sum.held = sum.held - before + now;
        if now < before && sum.has_room(now) {
            Self::wake(sum);
        }
    }

    /// Unlocks the purse before it wakes the tasks.
    fn wake(mut sum: MutexGuard<'_, Sum>) {
        let waiting = std::mem::take(&mut sum.waiting);
        drop(sum);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Sum {
    fn has_room(&self, own: usize) -> bool {
        own < self.each || self.held < self.together
    }
}

/// The account of one connection, shared by its socket, its muxer and its streams.
#[derive(Clone)]
pub(super) struct Account(Arc<Mutex<Held>>);

struct Held {
    purse: Arc<Purse>,
    /// Unread bytes, and the cost of keeping them in frames.
    cost: usize,
    streams: HashMap<u32, Frames>,
    /// Open streams of the remote.
    inbound: usize,
    /// Streams that were dropped here. Yamux may keep their frames until it could tell the remote.
    dropped: Vec<u32>,
}

impl Held {
    fn set_cost(&mut self, cost: usize) {
        self.purse.change(self.cost, cost);
        self.cost = cost;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.purse.change(self.cost, 0);
    }
}

/// The frames of a stream that yamux keeps: their lengths, and how much of the first one was read.
#[derive(Default)]
struct Frames {
    lengths: VecDeque<u32>,
    /// The greatest number there ever was: the capacity of its lists.
    places: usize,
    read: usize,
    inbound: bool,
}

impl Frames {
    fn cost(&self) -> usize {
        let frames = self.lengths.iter().map(|length| *length as usize + FRAME_COST);
        frames.sum::<usize>() + self.places * FRAME_PLACE
    }
}

impl Account {
    pub(super) fn new(purse: Arc<Purse>) -> Self {
        Self(Arc::new(Mutex::new(Held {
            purse,
            cost: 0,
            streams: HashMap::new(),
            inbound: 0,
            dropped: Vec::new(),
        })))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream that we opened.
    pub(super) fn opened(&self, stream: u32) {
        self.held().streams.insert(stream, Frames::default());
    }

    /// Number of open streams of the remote.
    pub(super) fn inbound(&self) -> usize {
        self.held().inbound
    }

    /// This many bytes were read from a stream. Yamux keeps a frame that was read completely until more is
    /// requested.
    pub(super) fn read(&self, stream: u32, mut bytes: usize) {
        let held = &mut *self.held();
        let Some(frames) = held.streams.get_mut(&stream) else { return };
        let mut cost = held.cost;
        while let Some(&length) = frames.lengths.front() {
            let left = length as usize - frames.read;
            if left == 0 {
                frames.lengths.pop_front();
                frames.read = 0;
                cost -= length as usize + FRAME_COST;
                continue;
            }
            let part = left.min(bytes);
            frames.read += part;
            bytes -= part;
            if bytes == 0 {
                break;
            }
        }
        if cost < held.cost {
            held.set_cost(cost);
        }
    }

    /// The stream was dropped here.
    pub(super) fn dropped(&self, stream: u32) {
        let held = &mut *self.held();
        if held.streams.get(&stream).is_some_and(|frames| frames.inbound) {
            held.inbound -= 1;
        }
        held.dropped.push(stream);
        // The socket's task continues and removes it.
        Purse::wake(held.purse.sum());
    }

    /// Accounts for the remote's next frame. `server` means that we are the server, so that its streams have odd
    /// numbers.
    pub(super) fn frame(&self, head: &Head, server: bool) -> io::Result<()> {
        let (kind, flags, stream, length) = (head.kind(), head.flags(), head.stream(), head.length());
        let held = &mut *self.held();
        // Numbers need not increase: yamux announces a stream with the first frame written to it. It keeps nothing
        // of a stream that is opened and reset in one frame.
        if flags & SYN != 0 && flags & RST == 0 && matches!(kind, DATA | WINDOW) {
            if held.streams.contains_key(&stream) || (stream % 2 == 1) != server {
                return Err(wrong("it opens a stream whose number is not its to take"));
            }
            if held.streams.len() >= MAX_STREAMS {
                return Err(wrong("it opens too many streams"));
            }
            held.inbound += 1;
            held.streams.insert(stream, Frames { inbound: true, ..Frames::default() });
        }
        if kind == DATA && length > 0 {
            if length as usize > MAX_FRAME {
                return Err(wrong("its frame is too long"));
            }
            // Yamux discards frames for a closed stream.
            if let Some(frames) = held.streams.get_mut(&stream) {
                frames.lengths.push_back(length);
                let mut cost = held.cost + length as usize + FRAME_COST;
                if frames.lengths.len() > frames.places {
                    frames.places += 1;
                    cost += FRAME_PLACE;
                }
                held.set_cost(cost);
            }
        }
        Ok(())
    }

    /// Whether to read the next frame now; otherwise the task is woken when it may be read.
    pub(super) fn has_room(&self, written: bool, cx: &Context<'_>) -> bool {
        let held = &mut *self.held();
        if written {
            // Yamux removes dropped streams before it reads, unless its writes are stuck.
            for stream in std::mem::take(&mut held.dropped) {
                let frames = held.streams.remove(&stream).unwrap_or_default();
                held.set_cost(held.cost - frames.cost());
            }
        }
        held.purse.has_room(held.cost, cx)
    }
}

pub(super) fn wrong(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use libp2p::futures::AsyncRead;
    use libp2p::futures::io::Cursor;
    use libp2p::futures::task::noop_waker_ref;

    use super::*;
    use crate::limits::MAX_UNREAD;
    use crate::net::charged::{Charged, HEAD};
    use crate::net::unsent::Unsent;

    fn frame(flags: u16, stream: u32, body: usize) -> Vec<u8> {
        let length = u32::try_from(body).expect("a short body");
        let head =
            [&[0, DATA][..], &flags.to_be_bytes(), &stream.to_be_bytes(), &length.to_be_bytes()].concat();
        [head, vec![0; body]].concat()
    }

    /// Reads the accepted part of these frames, as yamux does, and returns the number of bytes.
    fn take(account: &Account, frames: &[Vec<u8>]) -> io::Result<usize> {
        let bytes = frames.concat();
        let mut charged = Charged::new(Cursor::new(&bytes), account.clone(), Unsent::default(), true);
        let (mut taken, mut buffer) = (0, [0; 1_000]);
        loop {
            match Pin::new(&mut charged).poll_read(&mut Context::from_waker(noop_waker_ref()), &mut buffer) {
                Poll::Ready(Ok(0)) | Poll::Pending => return Ok(taken),
                Poll::Ready(Ok(count)) => taken += count,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }

    fn account() -> Account {
        Account::new(Arc::new(Purse::new(MAX_UNREAD, 0)))
    }

    fn reason(frames: &[Vec<u8>]) -> String {
        take(&account(), frames).expect_err("it is wrong").to_string()
    }

    #[test]
    fn no_more_is_taken_than_may_be_unread_however_small_its_frames_are() {
        for length in [1, 1_000, MAX_FRAME] {
            let account = account();
            let frames: Vec<_> =
                (0..300_000 / length + 10).map(|number| frame(u16::from(number == 0), 1, length)).collect();
            let taken = take(&account, &frames).expect("they are frames");
            let count = taken / (HEAD + length);
            assert!(
                taken.is_multiple_of(HEAD + length) && count < frames.len(),
                "{taken} bytes in frames of {length}"
            );
            let one = length + FRAME_COST + FRAME_PLACE;
            assert!((MAX_UNREAD..MAX_UNREAD + one).contains(&(count * one)));
            // A frame that was read completely is kept until more is requested.
            account.read(1, count * length);
            assert_eq!(account.held().cost, length + FRAME_COST + count * FRAME_PLACE);
            account.read(1, 0);
            assert_eq!(account.held().cost, count * FRAME_PLACE);
        }
    }

    #[test]
    fn half_a_frame_that_was_read_is_kept_as_a_whole() {
        let account = account();
        take(&account, &[frame(SYN, 1, 100), frame(SYN, 3, 50), frame(0, 1, 100)]).expect("they are frames");
        let all = 250 + 3 * (FRAME_COST + FRAME_PLACE);
        for (bytes, left) in [(99, all), (1, all), (1, all - 100 - FRAME_COST), (99, all - 100 - FRAME_COST)]
        {
            account.read(1, bytes);
            assert_eq!(account.held().cost, left);
        }
        account.read(1, 0);
        assert_eq!(account.held().cost, 50 + FRAME_COST + 3 * FRAME_PLACE);
    }

    /// Bytes of the lists of frames: yamux's and ours, which grow in the same way.
    fn lists(account: &Account) -> usize {
        account.held().streams.values().map(|frames| frames.lengths.capacity() * 36).sum()
    }

    #[test]
    fn lists_of_frames_that_were_read_count_until_their_streams_have_gone() {
        let account = account();
        let streams: Vec<_> = (0..MAX_STREAMS as u32 / 2).map(|index| 2 * index + 1).collect();
        for stream in &streams {
            // As many small ones as fit, read one stream after the other.
            let frames: Vec<_> = (0..3_000).map(|number| frame(u16::from(number == 0), *stream, 1)).collect();
            take(&account, &frames).expect("they are frames");
            account.read(*stream, 3_000);
            account.read(*stream, 0);
        }
        assert!(lists(&account) <= MAX_UNREAD + 4 * FRAME_PLACE * streams.len(), "{}", lists(&account));
        let cx = Context::from_waker(noop_waker_ref());
        streams.iter().for_each(|stream| account.dropped(*stream));
        assert!(account.has_room(true, &cx));
        assert_eq!((lists(&account), account.held().cost), (0, 0));
    }

    #[test]
    fn places_in_lists_are_charged_once_however_often_they_are_used() {
        let account = account();
        for round in 0..10 {
            let flags = u16::from(round == 0);
            take(&account, &[frame(flags, 1, 100), frame(0, 1, 100)]).expect("they are frames");
            account.read(1, 200);
            account.read(1, 0);
            assert_eq!(account.held().cost, 2 * FRAME_PLACE);
        }
    }

    #[test]
    fn connections_of_a_peer_hold_so_much_together_and_each_a_little_in_any_case() {
        let purse = Arc::new(Purse::new(MAX_UNREAD, 0));
        let [one, other] = [0; 2].map(|_| Account::new(Arc::clone(&purse)));
        let many =
            |number: u32, count| (0..count).map(move |_| frame(0, number, MAX_FRAME)).collect::<Vec<_>>();
        let cost = |account: &Account| account.held().cost;
        for account in [&one, &other] {
            take(account, &[frame(SYN, 1, 0)]).expect("a frame");
        }
        purse.set_together(8 * MAX_UNREAD);
        take(&one, &many(1, 100)).expect("they are frames");
        assert!((8 * MAX_UNREAD..9 * MAX_UNREAD).contains(&cost(&one)));
        take(&other, &many(1, 100)).expect("they are frames");
        assert!((MAX_UNREAD..2 * MAX_UNREAD).contains(&cost(&other)), "{}", cost(&other));
        let taken = one.held().streams[&1].lengths.len();
        one.read(1, taken * MAX_FRAME);
        take(&other, &many(1, 100)).expect("they are frames");
        assert!((7 * MAX_UNREAD..9 * MAX_UNREAD).contains(&cost(&other)), "there is room again");
        drop(other);
        assert_eq!(purse.sum().held, cost(&one), "who has gone holds nothing");
        purse.set_together(0);
        take(&one, &many(1, 100)).expect("they are frames");
        assert!((MAX_UNREAD..2 * MAX_UNREAD).contains(&cost(&one)), "no circuit any more");
    }

    #[test]
    fn what_came_for_a_stream_is_charged_until_the_other_side_was_told_that_it_is_gone() {
        let account = account();
        take(&account, &[frame(SYN, 1, 100), frame(SYN, 3, 0)]).expect("they are frames");
        assert_eq!(account.inbound(), 2);
        account.dropped(1);
        assert_eq!(account.inbound(), 1);
        let cx = Context::from_waker(noop_waker_ref());
        assert!(account.has_room(false, &cx));
        assert_eq!(account.held().cost, 100 + FRAME_COST + FRAME_PLACE, "what is to be written is stuck");
        assert!(account.has_room(true, &cx));
        assert_eq!(account.held().cost, 0);
        assert_eq!(take(&account, &[frame(0, 1, 100)]).expect("a frame"), HEAD + 100);
        assert_eq!(account.held().cost, 0, "yamux throws it away");
    }

    #[test]
    fn what_is_opened_and_reset_at_once_and_what_is_opened_out_of_order_leaves_the_account_right() {
        let account = account();
        take(&account, &[frame(SYN, 3, 10), frame(SYN | RST, 5, 10), frame(SYN, 1, 10)])
            .expect("they are frames");
        assert_eq!((account.inbound(), account.held().cost), (2, 2 * (10 + FRAME_COST + FRAME_PLACE)));
    }

    #[test]
    fn streams_have_numbers_of_their_own_and_are_so_many() {
        assert!(reason(&[frame(SYN, 3, 0), frame(SYN, 3, 0)]).contains("number"));
        assert!(reason(&[frame(SYN, 2, 0)]).contains("number"), "ours");
        assert!(reason(&[frame(SYN, 0, 0)]).contains("number"), "no stream's");
        assert!(reason(&[frame(SYN, 1, MAX_FRAME + 1)]).contains("too long"));
        let many =
            |count: usize| (0..count).map(|index| frame(SYN, 2 * index as u32 + 1, 0)).collect::<Vec<_>>();
        take(&account(), &many(MAX_STREAMS)).expect("so many may be");
        assert!(reason(&many(MAX_STREAMS + 1)).contains("too many"));
    }
}
