//! The socket below yamux, which charges incoming bytes and credits outgoing ones.
//!
//! Here: yamux's frames in both directions, whose headers are parsed, and the end of the connection after a
//! protocol violation. Not here: the accounts ([`super::unread`], [`super::unsent`]). Path: socket → frame header →
//! charged as unread → yamux; yamux → socket → the bytes it took are no longer unsent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::futures::{AsyncRead, AsyncWrite, ready};

use super::unread::{Account, wrong};
use super::unsent::Unsent;

/// Bytes of a frame header: version, type, flags in two, stream and length in four each.
pub(super) const HEAD: usize = 12;
pub(super) const DATA: u8 = 0;
pub(super) const WINDOW: u8 = 1;
const GO_AWAY: u8 = 3;
pub(super) const SYN: u16 = 1;
pub(super) const RST: u16 = 8;

/// A frame header.
pub(super) struct Head([u8; HEAD]);

impl Head {
    pub(super) fn kind(&self) -> u8 {
        self.0[1]
    }

    pub(super) fn flags(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    pub(super) fn stream(&self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    pub(super) fn length(&self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// Length of the body that follows, bytes.
    fn body(&self) -> usize {
        if self.kind() == DATA { self.length() as usize } else { 0 }
    }
}

/// The position within the frames of one direction.
#[derive(Default)]
struct Place {
    head: [u8; HEAD],
    /// Bytes of the header that have passed.
    passed: usize,
    /// Bytes of the body that are left.
    body: usize,
}

impl Place {
    /// Whether it is between two frames.
    fn is_between(&self) -> bool {
        self.passed == 0 && self.body == 0
    }

    /// Bytes to the end of the header or the body.
    fn left(&self) -> usize {
        if self.body > 0 { self.body } else { HEAD - self.passed }
    }

    /// Passes bytes that must not extend beyond that end; returns the header if they complete one.
    fn pass(&mut self, bytes: &[u8]) -> Option<Head> {
        if self.body > 0 {
            self.body -= bytes.len();
            return None;
        }
        self.head[self.passed..self.passed + bytes.len()].copy_from_slice(bytes);
        self.passed += bytes.len();
        if self.passed < HEAD {
            return None;
        }
        let head = Head(self.head);
        (self.passed, self.body) = (0, head.body());
        Some(head)
    }
}

/// The socket.
pub(super) struct Charged<C> {
    socket: C,
    unread: Account,
    unsent: Unsent,
    server: bool,
    coming: Place,
    going: Place,
    /// Whether the last write was accepted by the socket.
    written: bool,
    /// Whether yamux has told the remote that it violated the protocol.
    over: bool,
}

impl<C> Charged<C> {
    pub(super) fn new(socket: C, unread: Account, unsent: Unsent, server: bool) -> Self {
        let (coming, going) = (Place::default(), Place::default());
        Self { socket, unread, unsent, server, coming, going, written: true, over: false }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Charged<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.over {
            // Yamux itself would continue, and log a line for each violation.
            return Poll::Ready(Err(wrong("it breaks the rules of streams")));
        }
        if this.coming.is_between() && !this.unread.has_room(this.written, cx) {
            return Poll::Pending;
        }
        let most = this.coming.left().min(buffer.len());
        let count = ready!(Pin::new(&mut this.socket).poll_read(cx, &mut buffer[..most]))?;
        if let Some(head) = this.coming.pass(&buffer[..count]) {
            this.unread.frame(&head, this.server)?;
        }
        Poll::Ready(Ok(count))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Charged<C> {
    /// Yamux writes headers and bodies separately, so parsing them one by one costs nothing.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes = &bytes[..bytes.len().min(this.going.left())];
        let result = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.written = result.is_ready();
        if let Poll::Ready(Ok(count)) = result {
            let in_body = this.going.body > 0;
            // The length of a go-away frame is a code: 0 is a normal close.
            let head = this.going.pass(&bytes[..count]);
            this.over |= head.is_some_and(|head| head.kind() == GO_AWAY && head.length() != 0);
            if in_body {
                this.unsent.sent(count, this.going.body == 0);
            }
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_close(cx)
    }
}
