//! Calls to and from related people's applications.
//!
//! Here: offers, answers, the token, and the stream that both ends get. Not here: opening streams
//! ([`super::streams`]), and their content. Path of a call: offer → the callee's home → its answer, signed by the
//! callee → a circuit to the device named in the answer → a direct connection if possible → a stream → token and
//! offer shown → [`CallStream`]. A stream begins with a length (2 bytes, big-endian), a [`Head`] of that many bytes
//! in CBOR, and then the callee's byte 1.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{PeerId, Stream};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;

use super::device::{Device, locked, now};
use super::driver::Command;
use super::error::ClientError;
use super::seal::random;
use crate::body::{CallAnswer, CallOffer, Taken};
use crate::envelope::{Bytes32, Envelope, Verified};
use crate::id::Id;
use crate::limits::{JOIN_TIME, MAX_LABEL};
use crate::wire::{Answer, Request};

/// How long to wait for a direct connection before the relay is used.
const DIRECT_WAIT: Duration = Duration::from_secs(4);
/// Timeout for sending or checking the head of a stream.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Maximum length in bytes of a head: an offer and a token.
const MAX_HEAD: usize = 1024;
/// Maximum number of calls that were accepted and not joined yet.
const MAX_EXPECTED: usize = 16;
/// Maximum number of offers that are remembered, so that none rings twice.
const MAX_RUNG: usize = 256;

/// The first data that a caller sends.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Head {
    /// The offer that was answered.
    #[n(0)]
    offer: Envelope,
    /// The token of the answer.
    #[n(1)]
    token: ByteArray<32>,
}

/// The calls of a device.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// By the hashes of their offers, since a device may call twice.
    expected: HashMap<Bytes32, Expected>,
    rung: Vec<(Bytes32, u64)>,
}

/// A call that was accepted and that the caller's device has to join, once.
#[derive(Debug)]
struct Expected {
    peer: PeerId,
    token: Bytes32,
    offer: Envelope,
    until: Instant,
    joined: oneshot::Sender<(Stream, bool)>,
}

impl Calls {
    /// Removes and returns the expected call of a peer with this offer.
    fn take(&mut self, peer: PeerId, offer: &Envelope) -> Option<Expected> {
        let hash = offer.hash();
        self.expected.get(&hash).is_some_and(|one| one.peer == peer).then(|| self.expected.remove(&hash))?
    }
}

/// An established call: what is written at one end is read at the other.
#[derive(Debug)]
pub struct CallStream {
    /// The persona at the other end.
    pub other: Id,
    /// The application.
    pub application: String,
    /// Whether the connection is direct; otherwise it goes through a relay, which cannot read it and ends it at its
    /// limits.
    pub direct: bool,
    peer: PeerId,
    stream: Stream,
}

impl CallStream {
    /// The peer id of the other device, for [`Device::hang_up`].
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

impl AsyncRead for CallStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CallStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// An incoming call, which can be accepted or refused within ten seconds.
#[derive(Debug)]
pub struct IncomingCall {
    /// The caller.
    pub from: Id,
    /// The application.
    pub application: String,
    device: Device,
    peer: PeerId,
    offer: Envelope,
    verified: Verified<CallOffer>,
}

/// Whether a name is a valid application name.
#[must_use]
pub fn is_application(name: &str) -> bool {
    crate::body::is_label(name)
}

impl Device {
    /// Calls a related person's application, and waits for the answer.
    ///
    /// # Errors
    /// The other person is not found, does not answer, refuses, or is unreachable; or a home lies.
    pub async fn call(&self, persona: Id, application: &str) -> Result<CallStream, ClientError> {
        if !is_application(application) {
            let expected = format!("an application's name has 1 to {MAX_LABEL} visible characters");
            return Err(ClientError::Wrong(expected));
        }
        let (home, _) = self.locate(persona).await?;
        let body = CallOffer { application: application.to_owned(), device: self.peer().to_bytes().into() };
        let offer = self.sign(persona, Self::nonce()?, &body);
        let sent = self.verify::<CallOffer>("the offer", &offer, persona, self.id())?;
        let Answer::Answered(answer) = self.ask_as_me(&home, Request::Call(offer.clone())).await? else {
            return Err(ClientError::unasked());
        };
        let (peer, token) = self.believe_answer(persona, &sent, &answer)?;
        self.command(Command::Expect { peer, time: Duration::from_secs(JOIN_TIME) }).await?;
        self.driver(|reply| Command::Circuit { peer, home, reply }).await?;
        if self.0.settings.direct {
            let (reply, direct) = oneshot::channel();
            self.command(Command::Direct { peer, reply }).await?;
            // Whatever the outcome, the best connection available then is used.
            let _ = tokio::time::timeout(DIRECT_WAIT, direct).await;
        }
        let (mut stream, direct) = self.driver(|reply| Command::Open { peer, reply }).await?;
        let head = Head { offer, token: token.into() };
        match tokio::time::timeout(HEAD_TIME, show(&mut stream, &head)).await {
            Ok(Ok(())) => {
                Ok(CallStream { other: persona, application: body.application, direct, peer, stream })
            }
            Ok(Err(_)) => Err(ClientError::Unreachable("the other device does not let us join".to_owned())),
            Err(_) => Err(ClientError::TimedOut("the other device")),
        }
    }

    /// Ends a call with a device, after sending what was written.
    ///
    /// # Errors
    /// When the device has been stopped.
    pub async fn hang_up(&self, peer: PeerId) -> Result<(), ClientError> {
        self.leave(peer).await
    }

    /// Verifies an answer: it must be the callee's own, to this offer. Returns its device and token.
    fn believe_answer(
        &self,
        persona: Id,
        offer: &Verified<CallOffer>,
        answer: &Envelope,
    ) -> Result<(PeerId, Bytes32), ClientError> {
        let answer = self.verify::<CallAnswer>("the answer to the call", answer, self.id(), persona)?;
        if *answer.body().offer != offer.hash() || answer.order() != offer.order() {
            return Err(ClientError::Lie("an answer to another call".to_owned()));
        }
        let refused = || ClientError::Wrong(format!("{persona} does not take the call"));
        let taken = answer.body().taken.as_ref().ok_or_else(refused)?;
        let peer = PeerId::from_bytes(&taken.device)
            .map_err(|_| ClientError::Lie("an answer of a device that cannot be".to_owned()))?;
        Ok((peer, *taken.token))
    }

    /// Verifies a call that the home reports: from a related person, for one of our applications, and not seen
    /// before.
    pub(super) fn believe_call(
        &self,
        offer: &Envelope,
        applications: &[String],
    ) -> Result<IncomingCall, ClientError> {
        let me = Some(self.id());
        let verified = self.verify_at::<CallOffer>("a call", offer, me, None, now())?;
        let from = verified.signer();
        let lie = |what: &str| Err(ClientError::Lie(what.to_owned()));
        if !self.folder().state()?.holds(from) {
            return lie("a call of somebody to whom no relation holds");
        }
        let application = verified.body().application.clone();
        if !applications.contains(&application) {
            return lie("a call for an application that was not announced");
        }
        let Ok(peer) = PeerId::from_bytes(&verified.body().device) else {
            return lie("a call of a device that cannot be");
        };
        let mut calls = locked(&self.0.calls);
        let now = now();
        calls.rung.retain(|(_, until)| *until >= now);
        if calls.rung.len() >= MAX_RUNG || calls.rung.iter().any(|(hash, _)| *hash == verified.hash()) {
            return lie("a call that has rung before, or too many calls");
        }
        calls.rung.push((verified.hash(), verified.expires()));
        drop(calls);
        Ok(IncomingCall { from, application, device: self.clone(), peer, offer: offer.clone(), verified })
    }

    /// Handles a stream that a peer opened. If a call from it is expected, it has one chance to show the call's
    /// token.
    pub(super) fn come(&self, peer: PeerId, mut stream: Stream, direct: bool) {
        if !locked(&self.0.calls).expected.values().any(|one| one.peer == peer) {
            return tracing::debug!("{peer} opens a stream that nobody waits for");
        }
        let device = self.clone();
        tokio::spawn(async move {
            let expected = |offer: &Envelope| locked(&device.0.calls).take(peer, offer);
            match tokio::time::timeout(HEAD_TIME, check(&mut stream, expected)).await {
                // The waiting task may be gone.
                Ok(Ok(joined)) => drop(joined.send((stream, direct))),
                Ok(Err(error)) => tracing::warn!("{peer} does not join: {error}"),
                Err(_) => tracing::warn!("{peer} does not join in time"),
            }
        });
    }
}

impl IncomingCall {
    /// Accepts the call. Only the caller's device may join it, within thirty seconds.
    ///
    /// # Errors
    /// The home is unreachable or refuses, or the caller does not join.
    pub async fn accept(self) -> Result<CallStream, ClientError> {
        let Self { from, application, device, peer, offer, verified } = self;
        let (token, time) = (random()?, Duration::from_secs(JOIN_TIME));
        let (joined, stream) = oneshot::channel();
        let until = Instant::now() + time;
        {
            let mut calls = locked(&device.0.calls);
            calls.expected.retain(|_, one| one.until > Instant::now());
            if calls.expected.len() >= MAX_EXPECTED {
                return Err(ClientError::Wrong("too many calls are being joined".to_owned()));
            }
            calls.expected.insert(offer.hash(), Expected { peer, token, offer, until, joined });
        }
        device.command(Command::Expect { peer, time }).await?;
        let taken = Taken { device: device.peer().to_bytes().into(), token: token.into() };
        answer(&device, &verified, Some(taken)).await?;
        match tokio::time::timeout(time, stream).await {
            Ok(Ok((stream, direct))) => Ok(CallStream { other: from, application, direct, peer, stream }),
            Ok(Err(_)) => Err(ClientError::Unreachable("the caller's device shows a wrong token".to_owned())),
            Err(_) => Err(ClientError::TimedOut("the caller")),
        }
    }

    /// Refuses the call, and tells the caller.
    ///
    /// # Errors
    /// The home is unreachable or refuses.
    pub async fn refuse(self) -> Result<(), ClientError> {
        answer(&self.device, &self.verified, None).await
    }
}

async fn answer(
    device: &Device,
    offer: &Verified<CallOffer>,
    taken: Option<Taken>,
) -> Result<(), ClientError> {
    let body = CallAnswer { offer: offer.hash().into(), taken };
    let answer = device.sign(offer.signer(), offer.order(), &body);
    device.ask_done(&device.own_home()?, Request::Answer(answer)).await
}

async fn show<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, head: &Head) -> io::Result<()> {
    let bytes = crate::cbor::to_vec(head);
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    let mut joined = [0];
    stream.read_exact(&mut joined).await?;
    if joined == [1] { Ok(()) } else { Err(io::Error::other("not let in")) }
}

/// Admits a peer that shows the token of an expected call; returns the waiting task's channel.
async fn check<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    expected: impl FnOnce(&Envelope) -> Option<Expected>,
) -> io::Result<oneshot::Sender<(Stream, bool)>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_HEAD {
        return Err(io::Error::other(format!("a head of {length} bytes, at most {MAX_HEAD} expected")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    let head: Head = crate::cbor::from_slice(&bytes).ok_or_else(|| io::Error::other("no head"))?;
    let expected = expected(&head.offer).ok_or_else(|| io::Error::other("a call that is not waited for"))?;
    let good = bool::from(head.token.ct_eq(&expected.token)) && head.offer == expected.offer;
    if !good || Instant::now() >= expected.until {
        return Err(io::Error::other("another token or offer, or too late"));
    }
    stream.write_all(&[1]).await?;
    stream.flush().await?;
    Ok(expected.joined)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::envelope::{Body, Order};
    use crate::id::Key;
    use libp2p::futures::executor::block_on;
    use libp2p::futures::io::Cursor;

    /// What a peer sends, and the answer it gets.
    struct Wire(Cursor<Vec<u8>>, Vec<u8>);

    impl AsyncRead for Wire {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Wire {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn offer(nonce: u8) -> Envelope {
        let (caller, callee) = (Key::from_secret(&[1; 32]), Key::from_secret(&[2; 32]).id());
        let body = CallOffer { application: "chat".into(), device: PeerId::random().to_bytes().into() };
        let times = (now(), now() + CallOffer::LIFE);
        Envelope::sign(&caller, "test", callee, Order::Nonce([nonce; 32]), times, &body)
    }

    /// Expects a call of a peer with this token.
    fn expect(calls: &mut Calls, peer: PeerId, offer: &Envelope, token: Bytes32, time: Duration) {
        let (joined, _) = oneshot::channel();
        let until = Instant::now() + time;
        calls.expected.insert(offer.hash(), Expected { peer, token, offer: offer.clone(), until, joined });
    }

    /// Shows these bytes while one call is expected; returns whether they are admitted, and the answer.
    fn shown(bytes: Vec<u8>, offer: &Envelope, time: Duration) -> (bool, Vec<u8>) {
        let (mut calls, peer) = (Calls::default(), PeerId::random());
        expect(&mut calls, peer, offer, [5; 32], time);
        let mut wire = Wire(Cursor::new(bytes), Vec::new());
        (block_on(check(&mut wire, |offer| calls.take(peer, offer))).is_ok(), wire.1)
    }

    fn head(offer: &Envelope, token: Bytes32) -> Vec<u8> {
        // Captures only the head's own bytes: the peer waits for an answer in vain.
        let mut wire = Wire(Cursor::new(Vec::new()), Vec::new());
        let head = Head { offer: offer.clone(), token: token.into() };
        assert!(block_on(show(&mut wire, &head)).is_err());
        wire.1
    }

    #[test]
    fn the_token_of_this_call_joins_it_in_time_and_nothing_else_does() {
        let (offer, other) = (offer(1), offer(2));
        let minute = Duration::from_secs(60);
        let good = head(&offer, [5; 32]);
        assert!(good.len() <= MAX_HEAD, "{}", good.len());
        assert_eq!(shown(good.clone(), &offer, minute), (true, vec![1]));
        assert_eq!(shown(good.clone(), &offer, Duration::ZERO), (false, Vec::new()), "late");
        let mut endless = (MAX_HEAD as u16 + 1).to_be_bytes().to_vec();
        endless.resize(5000, 0);
        for wrong in [
            head(&offer, [6; 32]),
            head(&other, [5; 32]),
            good[..good.len() - 1].to_vec(),
            vec![0, 0],
            vec![0, 4, 0x9b, 0xff, 0xff, 0xff],
            endless,
            Vec::new(),
        ] {
            assert_eq!(shown(wrong.clone(), &offer, minute), (false, Vec::new()), "{wrong:?}");
        }
    }

    #[test]
    fn two_calls_of_one_device_are_joined_each_by_its_own_token_once() {
        let (mut calls, peer, minute) = (Calls::default(), PeerId::random(), Duration::from_secs(60));
        let all = [(offer(1), [1; 32]), (offer(2), [2; 32])];
        for (offer, token) in &all {
            expect(&mut calls, peer, offer, *token, minute);
        }
        let mut joins = |peer, (offer, token): &(Envelope, Bytes32)| {
            let mut wire = Wire(Cursor::new(head(offer, *token)), Vec::new());
            block_on(check(&mut wire, |offer| calls.take(peer, offer))).is_ok()
        };
        assert!(!joins(PeerId::random(), &all[0]), "another device");
        assert!(joins(peer, &all[0]) && joins(peer, &all[1]));
        assert!(!joins(peer, &all[0]) && !joins(peer, &all[1]), "once");
    }

    #[tokio::test]
    async fn an_offer_rings_once_and_only_of_who_is_related_for_what_is_announced() {
        use crate::client::folder::{Folder, Standing};
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("me"), "test").unwrap();
        let (device, _told) = Device::start(folder, crate::client::Settings::default()).unwrap();
        let caller = Key::from_secret(&[1; 32]);
        let offer = |about: Id, nonce: u8| {
            let body = CallOffer { application: "chat".into(), device: PeerId::random().to_bytes().into() };
            let times = (now(), now() + CallOffer::LIFE);
            Envelope::sign(&caller, "test", about, Order::Nonce([nonce; 32]), times, &body)
        };
        let (me, chat) = (device.id(), ["chat".to_owned()]);
        assert!(device.believe_call(&offer(me, 1), &chat).is_err(), "a stranger");
        device.folder().update(|state| state.contact_mut(caller.id()).standing = Standing::Held).unwrap();
        assert!(device.believe_call(&offer(me, 2), &[]).is_err(), "not announced");
        assert!(device.believe_call(&offer(caller.id(), 3), &chat).is_err(), "about somebody else");
        let good = offer(me, 4);
        let call = device.believe_call(&good, &chat).unwrap();
        assert_eq!((call.from, call.application.as_str()), (caller.id(), "chat"));
        assert!(device.believe_call(&good, &chat).is_err(), "again");
        assert!(device.believe_call(&offer(me, 5), &chat).is_ok());
    }

    #[test]
    fn a_caller_that_is_not_let_in_knows_it() {
        let head = Head { offer: offer(1), token: [5; 32].into() };
        for (answered, joined) in [(vec![1], true), (vec![0], false), (Vec::new(), false)] {
            let mut wire = Wire(Cursor::new(answered), Vec::new());
            assert_eq!(block_on(show(&mut wire, &head)).is_ok(), joined);
        }
    }
}
