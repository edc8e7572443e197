//! The socket below yamux: what comes is charged, what goes is credited.
//!
//! Here: yamux's frames as they pass, both ways, of which the heads are looked at, and the end after a breach of their
//! rules. Not here: what is charged
//! ([`super::unread`], [`super::unsent`]).
//! Path: socket → head of a frame → charged as unread → yamux; yamux → socket → the bytes that it took are unsent no more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::futures::{AsyncRead, AsyncWrite, ready};

use super::unread::{Account, wrong};
use super::unsent::Unsent;

/// Bytes of a frame's head: version, kind, flags in two, stream and length in four each.
pub(super) const HEAD: usize = 12;
pub(super) const DATA: u8 = 0;
pub(super) const WINDOW: u8 = 1;
const GO_AWAY: u8 = 3;
pub(super) const SYN: u16 = 1;
pub(super) const RST: u16 = 8;

/// The head of a frame.
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

    /// Bytes that follow it.
    fn body(&self) -> usize {
        if self.kind() == DATA { self.length() as usize } else { 0 }
    }
}

/// Where in a row of frames one direction of a connection is.
#[derive(Default)]
struct Place {
    head: [u8; HEAD],
    /// How much of a frame's head has passed.
    passed: usize,
    /// How much of its body has not.
    body: usize,
}

impl Place {
    /// Whether a frame has not begun.
    fn is_between(&self) -> bool {
        self.passed == 0 && self.body == 0
    }

    /// Bytes to the end of the head or the body.
    fn left(&self) -> usize {
        if self.body > 0 { self.body } else { HEAD - self.passed }
    }

    /// Bytes have passed that do not reach over that end; gives back the head that they complete.
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
    /// Whether the socket took what was last written.
    written: bool,
    /// Whether yamux has told the other side that it broke the rules.
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
            // Yamux itself would go on, and write a line of the log for each breach.
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
    /// Yamux writes heads and bodies by themselves, so to look at them one by one costs nothing.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes = &bytes[..bytes.len().min(this.going.left())];
        let result = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.written = result.is_ready();
        if let Poll::Ready(Ok(count)) = result {
            let in_body = this.going.body > 0;
            // Its length is a code: 0 is a connection that is closed in order.
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
