//! The handshake of an encrypted connection: Noise XX as in libp2p, with the proof of identity.
//!
//! libp2p's own implementation keeps eighteen kilobytes of buffers per connection; a home has ten thousand idle
//! ones. Here: the upgrade, and the payload with keys and signatures. Not here: the messages afterwards
//! ([`super::sealed`]). Path: socket → three messages → the remote's identity has signed its Noise key → its peer
//! id, and the session.

use std::io;
use std::pin::Pin;

use libp2p::PeerId;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::identity::{Keypair, PublicKey};
use snow::resolvers::{CryptoResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{HandshakeState, TransportState};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::Zeroizing;

use super::sealed::{Sealed, invalid};

const PROTOCOL: &str = "Noise_XX_25519_ChaChaPoly_SHA256";
/// Prefix of the signed bytes, followed by the Noise key.
const DOMAIN: &[u8] = b"noise-libp2p-static-key:";
/// Maximum length in bytes of a handshake message: keys, a signature, and room for extensions of others.
const MAX_MESSAGE: usize = 4 * 1024;
/// Field tags of the payload, a protobuf of byte fields.
const KEY_FIELD: u8 = 0x0a;
const SIGNATURE_FIELD: u8 = 0x12;

/// The upgrade of all connections: our Noise key, and our identity's signature of it.
#[derive(Clone)]
pub(super) struct Config {
    secret: Zeroizing<[u8; 32]>,
    payload: Vec<u8>,
}

impl Config {
    /// Generates a Noise key for this identity.
    ///
    /// # Errors
    /// The system provides no random numbers, or the identity cannot sign.
    pub(super) fn new(identity: &Keypair) -> io::Result<Self> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret).map_err(io::Error::other)?;
        let public = x25519(*secret, X25519_BASEPOINT_BYTES);
        let signature = identity.sign(&[DOMAIN, &public].concat()).map_err(io::Error::other)?;
        let mut payload = Vec::new();
        for (field, bytes) in [(KEY_FIELD, identity.public().encode_protobuf()), (SIGNATURE_FIELD, signature)]
        {
            // For Ed25519, every length fits one byte of seven bits.
            let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 0x80);
            payload.extend([field, length.ok_or_else(|| invalid("an identity of this kind is not spoken"))?]);
            payload.extend(bytes);
        }
        Ok(Self { secret, payload })
    }

    fn state(&self, initiator: bool) -> Result<HandshakeState, snow::Error> {
        let builder = snow::Builder::with_resolver(PROTOCOL.parse()?, Box::new(Resolver));
        let builder = builder.local_private_key(&*self.secret)?;
        if initiator { builder.build_initiator() } else { builder.build_responder() }
    }

    async fn accept<C: AsyncRead + AsyncWrite + Unpin>(self, socket: C) -> io::Result<(PeerId, Sealed<C>)> {
        let mut handshake = Handshake { socket, state: self.state(false).map_err(invalid)? };
        handshake.receive_nothing().await?;
        handshake.send(&self.payload).await?;
        let payload = handshake.receive().await?;
        handshake.finish(&payload)
    }

    async fn connect<C: AsyncRead + AsyncWrite + Unpin>(self, socket: C) -> io::Result<(PeerId, Sealed<C>)> {
        let mut handshake = Handshake { socket, state: self.state(true).map_err(invalid)? };
        handshake.send(&[]).await?;
        let payload = handshake.receive().await?;
        handshake.send(&self.payload).await?;
        handshake.finish(&payload)
    }
}

/// A handshake in progress.
struct Handshake<C> {
    socket: C,
    state: HandshakeState,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Handshake<C> {
    async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut message = [0; 2 + MAX_MESSAGE];
        let length = self.state.write_message(payload, &mut message[2..]).map_err(invalid)?;
        message[..2].copy_from_slice(&u16::try_from(length).map_err(invalid)?.to_be_bytes());
        self.socket.write_all(&message[..2 + length]).await?;
        self.socket.flush().await
    }

    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        self.socket.read_exact(&mut length).await?;
        let length = usize::from(u16::from_be_bytes(length));
        if length > MAX_MESSAGE {
            return Err(invalid("a message of a handshake is too long"));
        }
        let (mut message, mut payload) = (vec![0; length], vec![0; length]);
        self.socket.read_exact(&mut message).await?;
        let length = self.state.read_message(&message, &mut payload).map_err(invalid)?;
        payload.truncate(length);
        Ok(payload)
    }

    async fn receive_nothing(&mut self) -> io::Result<()> {
        if self.receive().await?.is_empty() {
            Ok(())
        } else {
            Err(invalid("a handshake begins with too much"))
        }
    }

    /// Verifies the remote: its identity in the payload must have signed the key used in the handshake.
    fn finish(self, payload: &[u8]) -> io::Result<(PeerId, Sealed<C>)> {
        let (identity, signature) =
            identity(payload).ok_or_else(|| invalid("what a handshake brings is no identity"))?;
        let identity = PublicKey::try_decode_protobuf(identity).map_err(invalid)?;
        let key = self.state.get_remote_static().ok_or_else(|| invalid("a handshake without a key"))?;
        if !identity.verify(&[DOMAIN, key].concat(), signature) {
            return Err(invalid("an identity has not signed the key of its handshake"));
        }
        let session: TransportState = self.state.into_transport_mode().map_err(invalid)?;
        Ok((identity.to_peer_id(), Sealed::new(self.socket, session)))
    }
}

/// The identity and its signature in a payload; unknown fields are skipped, and of repeated ones the last counts.
fn identity(mut payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut key, mut signature) = (None, None);
    while let Some((&tag, rest)) = payload.split_first() {
        // All defined fields hold bytes, and their numbers are small.
        if tag & 7 != 2 || tag >= 0x80 {
            return None;
        }
        let (&low, rest) = rest.split_first()?;
        let (length, rest) = if low < 0x80 {
            (usize::from(low), rest)
        } else {
            let (&high, rest) = rest.split_first()?;
            (usize::from(low & 0x7f) | usize::from((high < 0x80).then_some(high)?) << 7, rest)
        };
        let (bytes, rest) = rest.split_at_checked(length)?;
        match tag {
            KEY_FIELD => key = Some(bytes),
            SIGNATURE_FIELD => signature = Some(bytes),
            _ => {}
        }
        payload = rest;
    }
    Some((key?, signature?))
}

/// Ring's ciphers and random numbers, as in libp2p, and Dalek's curve.
pub(super) struct Resolver;

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        RingResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &snow::params::DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, snow::params::DHChoice::Curve25519).then(|| Box::<Pair>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &snow::params::HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &snow::params::CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

/// A key pair for one exchange.
#[derive(Default)]
struct Pair {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Dh for Pair {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        self.public = x25519(*self.secret, X25519_BASEPOINT_BYTES);
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        random.try_fill_bytes(&mut *secret)?;
        self.set(&*secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    fn dh(&self, public: &[u8], shared: &mut [u8]) -> Result<(), snow::Error> {
        let public = public.get(..32).and_then(|bytes| bytes.try_into().ok()).ok_or(snow::Error::Dh)?;
        shared.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&x25519(*self.secret, public));
        Ok(())
    }
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/noise")
    }
}

type Upgrade<C> = Pin<Box<dyn Future<Output = io::Result<(PeerId, Sealed<C>)>> + Send>>;

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, Sealed<C>);
    type Error = io::Error;
    type Future = Upgrade<C>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        Box::pin(self.accept(socket))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, Sealed<C>);
    type Error = io::Error;
    type Future = Upgrade<C>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        Box::pin(self.connect(socket))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use libp2p::noise;
    use libp2p::tcp::tokio::TcpStream;

    use super::*;

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let (one, other) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        (TcpStream(one.expect("connected")), TcpStream(other.expect("connected").0))
    }

    /// Sends all of these bytes through a connection, in pieces of various lengths.
    async fn through<A, B>(from: &mut A, to: &mut B)
    where
        A: AsyncWrite + Unpin,
        B: AsyncRead + Unpin,
    {
        let bytes: Vec<u8> = (0..400_000_u32).map(|number| (number % 251) as u8).collect();
        let write = async {
            let mut left = &bytes[..];
            for length in (1..).map(|step: usize| step * step * 7) {
                let (now, later) = left.split_at(length.min(left.len()));
                from.write_all(now).await.expect("it is written");
                from.flush().await.expect("it is written");
                left = later;
                if left.is_empty() {
                    return;
                }
            }
        };
        let mut come = vec![0; bytes.len()];
        let ((), read) = tokio::join!(write, to.read_exact(&mut come));
        read.expect("all of it comes");
        assert_eq!(come, bytes);
    }

    #[tokio::test]
    async fn libp2ps_own_understands_us_whoever_begins() {
        let [ours, theirs] = [0; 2].map(|_| Keypair::generate_ed25519());
        let we = Config::new(&ours).expect("a key");
        let they = noise::Config::new(&theirs).expect("a key");
        let (one, other) = sockets().await;
        let (a, b) = tokio::join!(we.clone().connect(one), they.clone().upgrade_inbound(other, "/noise"));
        let ((peer, mut a), (own, mut b)) = (a.expect("agreed"), b.expect("agreed"));
        assert_eq!((peer, own), (theirs.public().to_peer_id(), ours.public().to_peer_id()));
        through(&mut a, &mut b).await;
        through(&mut b, &mut a).await;
        let (one, other) = sockets().await;
        let (a, b) = tokio::join!(we.accept(one), they.upgrade_outbound(other, "/noise"));
        let ((peer, mut a), (own, mut b)) = (a.expect("agreed"), b.expect("agreed"));
        assert_eq!((peer, own), (theirs.public().to_peer_id(), ours.public().to_peer_id()));
        through(&mut b, &mut a).await;
        through(&mut a, &mut b).await;
        let nothing = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut a).poll_read(cx, &mut [0]))).await;
        assert!(nothing.is_pending());
        assert_eq!(a.buffers(), 0, "an idle connection has none");
        b.close().await.expect("closed");
        assert_eq!(a.read(&mut [0]).await.expect("an end"), 0);
    }

    #[tokio::test]
    async fn an_identity_that_has_not_signed_the_key_is_refused_on_either_side() {
        let [ours, theirs] = [0; 2].map(|_| Keypair::generate_ed25519());
        let we = Config::new(&ours).expect("a key");
        let mut liar = Config::new(&theirs).expect("a key");
        // The signature of another key.
        liar.secret = Config::new(&theirs).expect("a key").secret;
        for honest_begins in [true, false] {
            let (one, other) = sockets().await;
            let refused = if honest_begins {
                tokio::join!(we.clone().connect(one), liar.clone().accept(other)).0.err()
            } else {
                tokio::join!(we.clone().accept(one), liar.clone().connect(other)).0.err()
            };
            assert!(refused.expect("refused").to_string().contains("has not signed"));
        }
    }

    #[test]
    fn a_payload_is_read_to_its_end_or_not_at_all() {
        let payload =
            [&[KEY_FIELD, 2, 1, 2][..], &[0x22, 1, 9], &[SIGNATURE_FIELD, 0x81, 1], &[7; 129]].concat();
        assert_eq!(identity(&payload), Some((&[1, 2][..], &[7; 129][..])));
        for cut in 0..payload.len() {
            assert_eq!(identity(&payload[..cut]), None, "{cut} bytes");
        }
        assert_eq!(
            identity(&[KEY_FIELD, 0, SIGNATURE_FIELD, 0x80, 0x80, 1]),
            None,
            "a length of three bytes"
        );
        assert_eq!(identity(&[0x08, 1]), None, "a number");
    }
}
