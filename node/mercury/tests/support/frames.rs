//! A peer that writes the multiplexer's frames itself and ignores the multiplexer's rules.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version};
use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, future};
use libp2p::{Multiaddr, Transport, identity, noise, tcp};

pub const DATA: u8 = 0;
pub const SYN: u16 = 1;
pub const RST: u16 = 8;
const GO_AWAY: u8 = 3;

pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// An encrypted connection on which yamux was negotiated, and nothing sent.
pub struct Frames(Box<dyn Socket>);

#[derive(Clone)]
struct Bare;

impl UpgradeInfo for Bare {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: Socket + 'static> InboundConnectionUpgrade<C> for Bare {
    type Output = Frames;
    type Error = Infallible;
    type Future = future::Ready<Result<Frames, Infallible>>;

    fn upgrade_inbound(self, socket: C, _: &'static str) -> Self::Future {
        future::ready(Ok(Frames(Box::new(socket))))
    }
}

impl<C: Socket + 'static> OutboundConnectionUpgrade<C> for Bare {
    type Output = Frames;
    type Error = Infallible;
    type Future = future::Ready<Result<Frames, Infallible>>;

    fn upgrade_outbound(self, socket: C, _: &'static str) -> Self::Future {
        future::ready(Ok(Frames(Box::new(socket))))
    }
}

/// A transport needs a muxer; this one is never used.
impl StreamMuxer for Frames {
    type Substream = Box<dyn Socket>;
    type Error = Infallible;

    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Box<dyn Socket>, Infallible>> {
        Poll::Pending
    }

    fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Box<dyn Socket>, Infallible>> {
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Infallible>> {
        Poll::Pending
    }
}

impl Frames {
    pub async fn at(address: &Multiaddr) -> Self {
        let key = identity::Keypair::generate_ed25519();
        let mut transport = tcp::tokio::Transport::new(tcp::Config::new())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(Bare)
            .map(|(_, frames), _| frames)
            .boxed();
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let mut address = address.clone();
        address.pop();
        transport.dial(address, options).unwrap().await.unwrap()
    }

    /// Queues one frame, which is sent with others or on flush. Fails if the home has closed the connection.
    pub async fn send(&mut self, flags: u16, stream: u32, body: &[u8]) -> std::io::Result<()> {
        let mut frame = vec![0, DATA];
        frame.extend(flags.to_be_bytes());
        frame.extend(stream.to_be_bytes());
        frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend(body);
        self.0.write_all(&frame).await
    }

    /// Reads until a stream is reset, and returns its number; `None` when the connection is closed.
    pub async fn next_reset(&mut self) -> Option<u32> {
        self.0.flush().await.ok()?;
        loop {
            let mut head = [0; 12];
            self.0.read_exact(&mut head).await.ok()?;
            let flags = u16::from_be_bytes([head[2], head[3]]);
            let stream = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
            match head[1] {
                DATA if flags & RST != 0 => return Some(stream),
                DATA => self.0.read_exact(&mut vec![0; length as usize]).await.ok()?,
                GO_AWAY => return None,
                _ => {}
            }
        }
    }
}
