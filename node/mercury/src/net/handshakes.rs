//! Handshakes that can be aborted: libp2p can close a connection only when its peer is known.
//!
//! Here: a wrapping transport, and the abort handle of the newest handshake. Not here: which one is aborted
//! ([`super::gate`]). Path: a connection arrives → its abort handle is stored → the gate takes it when it admits
//! the connection → if the gate aborts it, the socket is closed at once.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt};
use libp2p::{Multiaddr, Transport};

/// The newest handshake and its remote address. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Newest(Arc<Mutex<Option<(Multiaddr, AbortHandle)>>>);

impl Newest {
    fn set(&self, newest: Option<(Multiaddr, AbortHandle)>) -> Option<(Multiaddr, AbortHandle)> {
        std::mem::replace(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), newest)
    }

    /// Takes its abort handle. The swarm asks about a connection before it hears of the next one.
    pub(super) fn take(&self, remote: &Multiaddr) -> Option<AbortHandle> {
        self.set(None).filter(|(from, _)| from == remote).map(|(_, handle)| handle)
    }
}

/// A transport whose incoming handshakes can be aborted.
pub(super) struct Breakable<T> {
    pub(super) inner: T,
    pub(super) newest: Newest,
}

impl<T> Transport for Breakable<T>
where
    T: Transport<Error = io::Error> + Unpin,
    T::ListenerUpgrade: Send + 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<T::Output>>;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let this = self.get_mut();
        Pin::new(&mut this.inner).poll(cx).map(|event| {
            let TransportEvent::Incoming { send_back_addr: remote, .. } = &event else {
                return event.map_upgrade(FutureExt::boxed);
            };
            let (handle, registration) = AbortHandle::new_pair();
            this.newest.set(Some((remote.clone(), handle)));
            event.map_upgrade(|upgrade| {
                let broken_off = || Err(io::Error::from(io::ErrorKind::ConnectionAborted));
                let upgrade = Abortable::new(upgrade, registration);
                upgrade.map(move |done| done.unwrap_or_else(|_| broken_off())).boxed()
            })
        })
    }
}
