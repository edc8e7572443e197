//! An encrypted connection after its handshake, with buffers only while data is in transit.
//!
//! Here: the messages on the wire: a length in two bytes, then the encrypted bytes. Not here: the handshake
//! ([`super::noise`]). Path: bytes → up to a whole message → encrypted → socket; socket → a whole message →
//! decrypted → bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::futures::{AsyncRead, AsyncWrite, ready};
use snow::TransportState;

/// Maximum length in bytes of a message in the protocol.
const MAX_MESSAGE: usize = 65_535;
/// Bytes that encryption adds.
const TAG: usize = 16;
/// Maximum plaintext bytes of a message that we send, as in libp2p.
const MAX_CLEAR: usize = MAX_MESSAGE - 1_024;
/// Bytes to read when no message has begun: most are short.
const FIRST: usize = 1_024;

/// The connection.
pub(super) struct Sealed<C> {
    socket: C,
    session: TransportState,
    /// Received encrypted bytes of the next messages.
    coming: Vec<u8>,
    /// The current decrypted message; `read` is how much of it was read.
    come: Vec<u8>,
    read: usize,
    /// Bytes to send that are not encrypted yet.
    going: Vec<u8>,
    /// Encrypted bytes to send; `taken` is how many the socket has accepted.
    gone: Vec<u8>,
    taken: usize,
}

impl<C> Sealed<C> {
    pub(super) fn new(socket: C, session: TransportState) -> Self {
        Self {
            socket,
            session,
            coming: Vec::new(),
            come: Vec::new(),
            read: 0,
            going: Vec::new(),
            gone: Vec::new(),
            taken: 0,
        }
    }

    /// Total capacity of the buffers.
    #[cfg(test)]
    pub(super) fn buffers(&self) -> usize {
        [&self.coming, &self.come, &self.going, &self.gone].map(Vec::capacity).iter().sum()
    }

    /// Decrypts the next message if it is complete; otherwise returns how many bytes to read.
    fn open(&mut self) -> io::Result<Result<(), usize>> {
        let Some((length, rest)) = self.coming.split_first_chunk::<2>() else {
            return Ok(Err(FIRST));
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(message) = rest.get(..length) else {
            return Ok(Err((length - rest.len()).max(FIRST)));
        };
        self.come.resize(length, 0);
        self.read = 0;
        let opened = self.session.read_message(message, &mut self.come);
        // Unauthenticated bytes must never be readable, even by a later call.
        self.come.truncate(*opened.as_ref().unwrap_or(&0));
        opened.map_err(invalid)?;
        self.coming.drain(..2 + length);
        Ok(Ok(()))
    }

    /// Encrypts the bytes to send.
    fn seal(&mut self) -> io::Result<()> {
        let length = self.going.len() + TAG;
        self.gone.resize(2 + length, 0);
        let prefix = u16::try_from(length).map_err(invalid)?;
        self.gone[..2].copy_from_slice(&prefix.to_be_bytes());
        self.session.write_message(&self.going, &mut self.gone[2..]).map_err(invalid)?;
        self.going.clear();
        self.taken = 0;
        Ok(())
    }
}

impl<C: AsyncWrite + Unpin> Sealed<C> {
    /// Writes the encrypted bytes to the socket.
    fn give(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken < self.gone.len() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.gone[self.taken..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += count;
        }
        self.gone.clear();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Sealed<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // A message may be empty.
        while this.read == this.come.len() {
            let Err(missing) = this.open()? else { continue };
            let held = this.coming.len();
            // While a message trickles in, its buffer grows by at most half each time, so little is copied
            // repeatedly.
            let asked = match this.coming.capacity() - held {
                0 => missing,
                spare => missing.min(spare),
            };
            this.coming.resize(held + asked, 0);
            let result = Pin::new(&mut this.socket).poll_read(cx, &mut this.coming[held..]);
            let count = if let Poll::Ready(Ok(count)) = result { count } else { 0 };
            this.coming.truncate(held + count);
            match result {
                Poll::Ready(Ok(0)) if held == 0 => return Poll::Ready(Ok(0)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // Nothing is in transit, so no buffers are kept.
                    this.come = Vec::new();
                    this.read = 0;
                    this.coming.shrink_to(held + held / 2);
                    return Poll::Pending;
                }
            }
        }
        let count = buffer.len().min(this.come.len() - this.read);
        buffer[..count].copy_from_slice(&this.come[this.read..this.read + count]);
        this.read += count;
        Poll::Ready(Ok(count))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Sealed<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.going.len() == MAX_CLEAR {
            ready!(this.give(cx))?;
            this.seal()?;
        }
        let count = bytes.len().min(MAX_CLEAR - this.going.len());
        this.going.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.give(cx))?;
        if !this.going.is_empty() {
            this.seal()?;
            ready!(this.give(cx))?;
        }
        this.going = Vec::new();
        this.gone = Vec::new();
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().socket).poll_close(cx)
    }
}

/// An error for data that violates the protocol, or a session that cannot continue.
pub(super) fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use libp2p::futures::task::noop_waker_ref;
    use snow::Builder;

    use super::*;
    use crate::net::noise::Resolver;

    /// A socket that provides one byte at a time.
    struct Trickle {
        bytes: std::vec::IntoIter<u8>,
        dry: bool,
    }

    impl AsyncRead for Trickle {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            to: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.dry = !self.dry;
            if self.dry {
                return Poll::Pending;
            }
            let Some(byte) = self.bytes.next() else { return Poll::Ready(Ok(0)) };
            to[0] = byte;
            Poll::Ready(Ok(1))
        }
    }

    /// Two sides after a handshake.
    fn agreed() -> [TransportState; 2] {
        let protocol = "Noise_NN_25519_ChaChaPoly_SHA256";
        let builder = || Builder::with_resolver(protocol.parse().expect("a protocol"), Box::new(Resolver));
        let mut one = builder().build_initiator().expect("a side");
        let mut other = builder().build_responder().expect("a side");
        let (mut message, mut payload) = ([0; 100], [0; 100]);
        let length = one.write_message(&[], &mut message).expect("a message");
        other.read_message(&message[..length], &mut payload).expect("it is right");
        let length = other.write_message(&[], &mut message).expect("a message");
        one.read_message(&message[..length], &mut payload).expect("it is right");
        [one, other].map(|side| side.into_transport_mode().expect("they have agreed"))
    }

    #[test]
    fn a_message_that_trickles_in_is_not_copied_with_every_byte_and_takes_what_has_come_of_it() {
        let [mut from, to] = agreed();
        let (clear, mut message) = (vec![7; 60_000], vec![0; 60_000 + TAG]);
        from.write_message(&clear, &mut message).expect("a message");
        let length = u16::try_from(message.len()).expect("a short message").to_be_bytes();
        let bytes = [&length[..], &message].concat();
        let mut sealed = Sealed::new(Trickle { bytes: bytes.into_iter(), dry: false }, to);
        let (mut come, mut buffer, mut sizes) = (0, [0; 1_000], BTreeSet::new());
        loop {
            match Pin::new(&mut sealed).poll_read(&mut Context::from_waker(noop_waker_ref()), &mut buffer) {
                Poll::Pending => {
                    assert!(sealed.buffers() <= 2 * sealed.coming.len(), "{}", sealed.buffers());
                    sizes.insert(sealed.buffers());
                }
                Poll::Ready(count) => match count.expect("it is read") {
                    0 => break,
                    count => come += count,
                },
            }
        }
        assert_eq!(come, clear.len());
        assert!(sizes.len() < 40, "{} times", sizes.len());
    }
}
