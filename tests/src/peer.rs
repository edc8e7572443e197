//! A peer of a node, on one TCP connection, honest or not.
//!
//! Lives here: [`Peer`], which frames, reads and writes with the `bitcoin` crate's own codec, so that its messages do
//! not depend on the node's code. Does not live here: what a peer should send; tests decide that. Reading has a time
//! limit, and pings are answered on the way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::p2p::message::{CommandString, NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Address, Magic, ServiceFlags};
use tokio::net::TcpSocket;

/// Time limit for what an honest node does at once, on a loaded machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Time limit for writing to a node that does not read.
const WRITE: Duration = Duration::from_secs(10);
/// Bytes of a message header.
const HEADER: usize = 24;

/// The outcome of reading from the node.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(NetworkMessage),
    /// Nothing before the time limit.
    Nothing,
    /// The node closed the connection.
    Closed,
}

/// A connection to a node.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    magic: Magic,
    buffer: Vec<u8>,
}

impl Peer {
    /// Connects and sends nothing.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn connect(address: SocketAddr, magic: [u8; 4]) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, SOON)?, magic)
    }

    /// The same from another address of this machine.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn connect_from(own: IpAddr, address: SocketAddr, magic: [u8; 4]) -> io::Result<Self> {
        // The standard library binds no socket before it connects.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let stream = runtime.block_on(async {
            let socket = if own.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind((own, 0).into())?;
            socket.connect(address).await?.into_std()
        })?;
        stream.set_nonblocking(false)?;
        Self::over(stream, magic)
    }

    fn over(stream: TcpStream, magic: [u8; 4]) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE))?;
        Ok(Self { stream, magic: Magic::from_bytes(magic), buffer: Vec::new() })
    }

    /// Connects and completes the handshake as an honest full node.
    ///
    /// # Panics
    /// When the node does not do its part.
    pub fn establish(address: SocketAddr, magic: [u8; 4]) -> Self {
        let mut peer = Self::connect(address, magic).expect("the node takes connections");
        peer.send(Self::version(rand())).expect("the node reads");
        peer.expect(|message| matches!(message, NetworkMessage::Version(_)).then_some(()));
        peer.send(NetworkMessage::Verack).expect("the node reads");
        peer.expect(|message| matches!(message, NetworkMessage::Verack).then_some(()));
        peer
    }

    /// The version message of a full node.
    pub fn version(nonce: u64) -> NetworkMessage {
        Self::version_ahead(nonce, 0)
    }

    /// The same from a peer whose clock is this many seconds ahead of this machine's.
    pub fn version_ahead(nonce: u64, seconds: i64) -> NetworkMessage {
        let nowhere = Address::new(&(Ipv4Addr::UNSPECIFIED, 0).into(), ServiceFlags::NONE);
        let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
        NetworkMessage::Version(VersionMessage {
            version: 70_015,
            relay: true,
            ..VersionMessage::new(
                services,
                now.cast_signed() + seconds,
                nowhere.clone(),
                nowhere,
                nonce,
                "/test-peer/".to_owned(),
                0,
            )
        })
    }

    /// A message as bytes.
    pub fn bytes(&self, message: NetworkMessage) -> Vec<u8> {
        serialize(&RawNetworkMessage::new(self.magic, message))
    }

    /// A frame with any payload and the matching checksum.
    pub fn frame(&self, command: &str, payload: &[u8]) -> Vec<u8> {
        let mut name = [0; 12];
        name[..command.len()].copy_from_slice(command.as_bytes());
        let checksum = sha256d::Hash::hash(payload).to_byte_array();
        let length = (payload.len() as u32).to_le_bytes();
        [&self.magic.to_bytes()[..], &name, &length, &checksum[..4], payload].concat()
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection is closed, or the node does not read.
    pub fn send(&mut self, message: NetworkMessage) -> io::Result<()> {
        self.send_bytes(&self.bytes(message))
    }

    /// Writes raw bytes.
    ///
    /// # Errors
    /// When the connection is closed, or the node does not read.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next message; a ping is answered, and also returned.
    ///
    /// # Panics
    /// When the node's bytes are no message of this network.
    pub fn receive(&mut self, limit: Duration) -> Received {
        let end = Instant::now() + limit;
        loop {
            if let Some(message) = self.take_message() {
                if let NetworkMessage::Ping(nonce) = message {
                    // If the node has closed the connection, the next read shows it.
                    let _ = self.send(NetworkMessage::Pong(nonce));
                }
                return Received::Message(message);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Received::Nothing;
            }
            let mut piece = [0; 64 * 1024];
            self.stream.set_read_timeout(Some(left)).expect("the time left is not zero");
            match self.stream.read(&mut piece) {
                Ok(0) => return Received::Closed,
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Received::Closed,
            }
        }
    }

    fn take_message(&mut self) -> Option<NetworkMessage> {
        let length = self.buffer.get(16..20)?.try_into().expect("four bytes");
        let end = HEADER + u32::from_le_bytes(length) as usize;
        let bytes = self.buffer.get(..end)?;
        let message = match deserialize::<RawNetworkMessage>(bytes) {
            Ok(message) => message,
            // The crate only supports rejects with a hash; those of messages have none.
            Err(_) if bytes[4..].starts_with(b"reject\0") => {
                let (command, payload) = (
                    CommandString::try_from_static("reject").expect("six letters"),
                    bytes[HEADER..].to_vec(),
                );
                RawNetworkMessage::new(self.magic, NetworkMessage::Unknown { command, payload })
            }
            Err(error) => panic!("the node writes what is no message: {error}"),
        };
        assert_eq!(*message.magic(), self.magic, "the node writes its network's magic");
        self.buffer.drain(..end);
        Some(message.payload().clone())
    }

    /// Reads until `pick` takes a message, at most [`SOON`].
    ///
    /// # Panics
    /// When none comes, or the node hangs up.
    pub fn expect<T>(&mut self, mut pick: impl FnMut(&NetworkMessage) -> Option<T>) -> T {
        let (end, mut seen) = (Instant::now() + SOON, Vec::new());
        loop {
            match self.receive(end.saturating_duration_since(Instant::now())) {
                Received::Message(message) => match pick(&message) {
                    Some(picked) => return picked,
                    None => seen.push(message.cmd()),
                },
                Received::Nothing => panic!("not within {SOON:?}; came: {seen:?}"),
                Received::Closed => panic!("the node hung up; came: {seen:?}"),
            }
        }
    }

    /// Whether a ping is answered in time. Other messages are discarded.
    pub fn answers_ping(&mut self) -> bool {
        let nonce = rand();
        if self.send(NetworkMessage::Ping(nonce)).is_err() {
            return false;
        }
        let end = Instant::now() + SOON;
        loop {
            match self.receive(end.saturating_duration_since(Instant::now())) {
                Received::Message(NetworkMessage::Pong(answer)) if answer == nonce => return true,
                Received::Message(_) => {}
                Received::Nothing | Received::Closed => return false,
            }
        }
    }

    /// Whether the node closes the connection in time. Messages are discarded.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            match self.receive(end.saturating_duration_since(Instant::now())) {
                Received::Message(_) => {}
                Received::Nothing => return false,
                Received::Closed => return true,
            }
        }
    }
}

/// A unique number.
fn rand() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(Instant::now())
}
