//! Yamux, bounded: how many streams a connection has, and how much of what came for them waits to be read.
//!
//! Here: the upgrade of a connection, and its streams. libp2p's own would keep a window of 256 KiB for each of hundreds
//! of streams that nobody reads, for anybody. Not here: what is charged ([`super::unread`]).
//! Path: encrypted connection → [`Config`] → [`Muxer`] → a stream of the other side → opened, or reset beyond so many.

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

use super::unread::{Account, Charged, Purse};
use crate::limits::{
    CLOSE_TIME, INBOUND_STREAMS, MAX_STREAMS, MAX_UNREAD, MAX_UNREAD_OF_CARRIER, WINDOW_GROWTH,
};

/// Those between whom circuits are open: what goes through them waits here for whoever is slower. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Carriers(Arc<Mutex<Lists>>);

#[derive(Default)]
struct Lists {
    carriers: HashSet<PeerId>,
    /// What the connections of each peer may hold, also of some that have gone.
    purses: HashMap<PeerId, Weak<Purse>>,
    /// When there are so many, those who have gone are thrown out.
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

    /// These are the ends of all circuits.
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

    /// What the connections of a peer may hold.
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
    /// The peer, and those who may have more waiting for them; none where we are a device, which chose its peer.
    carrier: Option<(PeerId, Carriers)>,
}

impl Config {
    /// For a home: what waits is little, except for the ends of circuits.
    pub(super) fn of_home(peer: PeerId, carriers: Carriers) -> Self {
        Self { carrier: Some((peer, carriers)) }
    }

    /// For a device: each stream's window may be full, since whoever calls may read slowly.
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
        // Twice as many as ever come so far: it closes connections beyond without saying why.
        let streams = 2 * MAX_STREAMS;
        let mut config = yamux::Config::default();
        // In this order: the windows together are not less than those of its default number of streams.
        config.set_max_num_streams(streams);
        config.set_max_connection_receive_window(Some(streams * DEFAULT_CREDIT as usize + WINDOW_GROWTH));
        let account = Account::new(self.purse());
        let socket = Charged::new(socket, account.clone(), matches!(mode, Mode::Server));
        Muxer {
            connection: Connection::new(socket, config, mode),
            account,
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
    /// Streams of the other side that nobody has taken yet.
    inbound: VecDeque<Stream>,
    waker: Option<Waker>,
    /// Until when the other side may take what is left.
    closing: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    /// Goes on with all streams; ready with a new one that the other side may have. Others it resets.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        loop {
            let inner = ready!(self.connection.poll_next_inbound(cx)).ok_or(ConnectionError::Closed)??;
            let stream = Stream { inner, account: self.account.clone() };
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
        // An idle connection keeps no room for streams.
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
        Poll::Ready(Ok(Stream { inner, account: this.account.clone() }))
    }

    /// A peer that does not take the rest is not waited for longer than [`CLOSE_TIME`].
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
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
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
    use super::*;

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
