//! Bounded yamux: limits the streams of a connection, and the bytes waiting on them in both directions.
//!
//! Here: the upgrade of a connection, and its streams. libp2p's own upgrade would let anybody make it keep a window
//! of 256 KiB for each of hundreds of unread streams. Not here: the accounts ([`super::unread`],
//! [`super::unsent`]). Path: encrypted connection → [`Config`] → [`Muxer`] → a stream of the remote → opened, or
//! reset beyond the limit.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::futures::{AsyncRead, AsyncWrite, future, ready};
use yamux::{Connection, ConnectionError, DEFAULT_CREDIT, Mode};

use super::charged::Charged;
use super::unread::{Account, Purse};
use super::unsent::Unsent;
use crate::limits::{
    CLOSE_TIME, INBOUND_STREAMS, MAX_STREAMS, MAX_UNREAD, MAX_UNREAD_OF_CARRIER, WINDOW_GROWTH,
};

/// The ends of all circuits: bytes through a circuit wait here for the slower end. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Carriers(Arc<Mutex<Lists>>);

#[derive(Default)]
struct Lists {
    carriers: HashSet<PeerId>,
    /// The purses of peers, possibly including some that have disconnected.
    purses: HashMap<PeerId, Weak<Purse>>,
    /// When there are this many, purses of disconnected peers are removed.
    sweep: usize,
}

impl Lists {
    fn together(&self, peer: &PeerId) -> usize {
        if self.carriers.contains(peer) { MAX_UNREAD_OF_CARRIER } else { 0 }
    }
}

impl Carriers {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the ends of all circuits.
    pub(super) fn set<'a>(&self, circuits: impl Iterator<Item = &'a (PeerId, PeerId)>) {
        let mut lists = self.lists();
        let new = circuits.flat_map(|(from, to)| [*from, *to]).collect();
        let old = std::mem::replace(&mut lists.carriers, new);
        for peer in old.symmetric_difference(&lists.carriers) {
            if let Some(purse) = lists.purses.get(peer).and_then(Weak::upgrade) {
                purse.set_together(lists.together(peer));
            }
        }
    }

    /// The purse shared by a peer's connections.
    fn purse(&self, peer: PeerId) -> Arc<Purse> {
        let lists = &mut *self.lists();
        if let Some(purse) = lists.purses.get(&peer).and_then(Weak::upgrade) {
            return purse;
        }
        if lists.purses.len() >= lists.sweep {
            lists.purses.retain(|_, purse| purse.strong_count() > 0);
            lists.purses.shrink_to(lists.purses.len());
            lists.sweep = 2 * lists.purses.len() + 1;
        }
        let purse = Arc::new(Purse::new(MAX_UNREAD, lists.together(&peer)));
        lists.purses.insert(peer, Arc::downgrade(&purse));
        purse
    }
}

/// The upgrade of one connection.
#[derive(Clone)]
pub(crate) struct Config {
    /// The peer, and the ends of circuits, which may have more waiting; `None` on a device, which chose its peer.
    carrier: Option<(PeerId, Carriers)>,
}

impl Config {
    /// For a home: little may wait, except at the ends of circuits.
    pub(super) fn of_home(peer: PeerId, carriers: Carriers) -> Self {
        Self { carrier: Some((peer, carriers)) }
    }

    /// For a device: each stream's window may be full, since the local application may read slowly.
    pub(crate) fn of_device() -> Self {
        Self { carrier: None }
    }

    fn purse(self) -> Arc<Purse> {
        match self.carrier {
            Some((peer, carriers)) => carriers.purse(peer),
            None => Arc::new(Purse::new(MAX_STREAMS * DEFAULT_CREDIT as usize + WINDOW_GROWTH, 0)),
        }
    }

    fn start<C: AsyncRead + AsyncWrite + Unpin>(self, socket: C, mode: Mode) -> Muxer<C> {
        // Twice as many as can occur: yamux closes connections beyond that without a reason.
        let streams = 2 * MAX_STREAMS;
        let mut config = yamux::Config::default();
        // In this order: yamux requires the connection window to be large enough for its number of streams.
        config.set_max_num_streams(streams);
        config.set_max_connection_receive_window(Some(streams * DEFAULT_CREDIT as usize + WINDOW_GROWTH));
        let account = Account::new(self.purse());
        let (unsent, server) = (Unsent::default(), matches!(mode, Mode::Server));
        let socket = Charged::new(socket, account.clone(), unsent.clone(), server);
        Muxer {
            connection: Connection::new(socket, config, mode),
            account,
            unsent,
            inbound: VecDeque::new(),
            waker: None,
            closing: None,
        }
    }
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        future::ready(Ok(self.start(socket, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        future::ready(Ok(self.start(socket, Mode::Client)))
    }
}

/// A connection with its streams.
pub(crate) struct Muxer<C> {
    connection: Connection<Charged<C>>,
    account: Account,
    unsent: Unsent,
    /// Streams of the remote that were not taken yet.
    inbound: VecDeque<Stream>,
    waker: Option<Waker>,
    /// Timer until which the remote may take what is left.
    closing: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<C> Drop for Muxer<C> {
    fn drop(&mut self) {
        self.unsent.end();
    }
}

impl<C> Muxer<C> {
    fn stream(&self, inner: yamux::Stream) -> Stream {
        Stream { inner, account: self.account.clone(), unsent: self.unsent.clone() }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    /// Drives all streams; ready with a new stream of the remote if it may have one. Others are reset.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        loop {
            let inner = ready!(self.connection.poll_next_inbound(cx)).ok_or(ConnectionError::Closed)??;
            let stream = self.stream(inner);
            if self.account.inbound() <= INBOUND_STREAMS {
                return Poll::Ready(Ok(stream));
            }
            tracing::trace!("{} is one too many", stream.inner);
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let this = self.get_mut();
        if let Some(stream) = this.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        // An idle connection keeps no memory for streams.
        this.inbound = VecDeque::new();
        if let Poll::Ready(result) = this.drive(cx) {
            return Poll::Ready(result);
        }
        this.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let this = self.get_mut();
        let inner = ready!(this.connection.poll_new_outbound(cx))?;
        this.account.opened(inner.id().val());
        Poll::Ready(Ok(this.stream(inner)))
    }

    /// Waits at most [`CLOSE_TIME`] for a peer that does not take the rest.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let this = self.get_mut();
        this.inbound.clear();
        let closing = this.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_TIME)));
        if closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        this.connection.poll_close(cx)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let this = self.get_mut();
        let stream = ready!(this.drive(cx))?;
        this.inbound.push_back(stream);
        if let Some(waker) = this.waker.take() {
            waker.wake();
        }
        // There may be more, but others have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A stream, which counts until it is dropped.
pub(crate) struct Stream {
    inner: yamux::Stream,
    account: Account,
    unsent: Unsent,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.account.dropped(self.inner.id().val());
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_read(cx, buffer);
        let count = if let Poll::Ready(Ok(count)) = result { count } else { 0 };
        this.account.read(this.inner.id().val(), count);
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let inner = Pin::new(&mut this.inner);
        this.unsent.write(bytes.len(), cx, |cx| inner.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use libp2p::futures::task::noop_waker_ref;

    use super::*;
    use crate::limits::{MAX_UNSENT, SHORT_WRITE, UNSENT_RESERVE};
    use crate::net::charged::{HEAD, WINDOW};

    /// A socket that accepts this many more bytes, and provides none.
    struct Stuck(Arc<Mutex<usize>>);

    impl AsyncRead for Stuck {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let mut room = self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            *room -= count;
            if count > 0 { Poll::Ready(Ok(count)) } else { Poll::Pending }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A connection with this many streams, and the bytes that its socket accepts: none yet.
    fn stuck(streams: usize) -> (Muxer<Stuck>, Vec<Stream>, Arc<Mutex<usize>>) {
        let room = Arc::new(Mutex::new(0));
        let config = Config::of_home(PeerId::random(), Carriers::default());
        let mut muxer = config.start(Stuck(Arc::clone(&room)), Mode::Client);
        let open = |_| {
            let cx = &mut Context::from_waker(noop_waker_ref());
            match Pin::new(&mut muxer).poll_outbound(cx) {
                Poll::Ready(stream) => stream.unwrap(),
                Poll::Pending => panic!("it may open so many"),
            }
        };
        let streams = (0..streams).map(open).collect();
        (muxer, streams, room)
    }

    /// Writes this many bytes at a time on all streams until none accepts more; returns how many were accepted.
    fn fill(muxer: &mut Muxer<Stuck>, streams: &mut [Stream], bytes: &[u8]) -> usize {
        let cx = &mut Context::from_waker(noop_waker_ref());
        let mut all = 0;
        loop {
            let _ = Pin::new(&mut *muxer).poll(cx);
            let mut taken = 0;
            for stream in &mut *streams {
                if let Poll::Ready(written) = Pin::new(stream).poll_write(cx, bytes) {
                    taken += written.unwrap();
                }
            }
            if taken == 0 {
                return all;
            }
            all += taken;
        }
    }

    #[test]
    fn what_the_socket_does_not_take_is_bounded_on_however_many_streams_it_is_written() {
        let (mut muxer, mut streams, room) = stuck(MAX_STREAMS);
        let answer = vec![0; 120 * 1024];
        let written = fill(&mut muxer, &mut streams, &answer);
        assert!((MAX_UNSENT / 2..MAX_UNSENT + 16 * 1024).contains(&written), "{written}");
        // A ping, or the acceptance of a stream, is not held up by a long answer.
        let short = fill(&mut muxer, &mut streams, &[0; SHORT_WRITE]);
        assert!((UNSENT_RESERVE / 2..UNSENT_RESERVE + SHORT_WRITE).contains(&short), "{short}");
        // The remote reads slowly: as much as it takes is written again.
        *room.lock().unwrap() = 100_000;
        let more = fill(&mut muxer, &mut streams, &answer);
        assert!((10_000..150_000).contains(&more), "{more}");
        *room.lock().unwrap() = usize::MAX;
        assert!(fill(&mut muxer, &mut streams, &answer) > 8 * MAX_UNSENT);
        assert_eq!(muxer.unsent.cost(), 0);
    }

    /// A socket that provides these bytes, and accepts all.
    struct Bringing(Arc<Mutex<VecDeque<u8>>>);

    impl AsyncRead for Bringing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            match io::Read::read(&mut *self.0.lock().unwrap(), buffer)? {
                0 => Poll::Pending,
                count => Poll::Ready(Ok(count)),
            }
        }
    }

    impl AsyncWrite for Bringing {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn after_a_breach_of_the_rules_nothing_more_is_read() {
        const OPEN: [u8; HEAD] = [0, WINDOW, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
        let too_much = [0, WINDOW, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        let pong = [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9];
        for breach in [too_much, pong] {
            let frames: VecDeque<u8> = OPEN.into_iter().chain(breach.repeat(1_000)).collect();
            let frames = Arc::new(Mutex::new(frames));
            let config = Config::of_home(PeerId::random(), Carriers::default());
            let mut muxer = config.start(Bringing(Arc::clone(&frames)), Mode::Server);
            let cx = &mut Context::from_waker(noop_waker_ref());
            let ended = (0..10).any(|_| matches!(Pin::new(&mut muxer).poll(cx), Poll::Ready(Err(_))));
            let left = frames.lock().unwrap().len() / HEAD;
            assert!(ended && left >= 998, "ended: {ended}, {left} frames left");
        }
    }

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_to_write_goes_on_when_the_socket_takes_more_or_the_connection_has_ended() {
        for ends in [false, true] {
            let (mut muxer, mut streams, room) = stuck(8);
            fill(&mut muxer, &mut streams, &[0; 16 * 1024]);
            let flag = Arc::new(Flag(AtomicBool::new(false)));
            let waker = Arc::clone(&flag).into();
            let mut write = || {
                Pin::new(&mut streams[0]).poll_write(&mut Context::from_waker(&waker), &[0; 2 * SHORT_WRITE])
            };
            assert!(write().is_pending());
            if ends {
                drop(muxer);
            } else {
                *room.lock().unwrap() = 64 * 1024;
                let _ = Pin::new(&mut muxer).poll(&mut Context::from_waker(noop_waker_ref()));
            }
            assert!(flag.0.load(Ordering::Relaxed), "ends: {ends}");
            assert!(matches!(write(), Poll::Ready(written) if written.is_err() == ends));
        }
    }

    #[test]
    fn connections_of_a_peer_have_one_purse_and_those_who_have_gone_are_forgotten() {
        let (carriers, peer, other) = (Carriers::default(), PeerId::random(), PeerId::random());
        let [one, same] = [0; 2].map(|_| carriers.purse(peer));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &carriers.purse(other)));
        for _ in 0..100 {
            carriers.purse(PeerId::random());
        }
        assert!(carriers.lists().purses.len() < 10, "{}", carriers.lists().purses.len());
        assert!(Arc::ptr_eq(&one, &carriers.purse(peer)));
    }
}
