//! Framing of requests, answers and events on streams, shared by homes and devices.
//!
//! Here: the framing: one CBOR value that fills the stream, and nothing else. Not here: what they mean
//! ([`crate::wire`]), and rates ([`super::quotas`]). Path: stream → a limited number of bytes → a whole value, or
//! the reason why not, which the home answers.

use std::future::Future;
use std::io;
use std::marker::PhantomData;

use libp2p::StreamProtocol;
use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::request_response::{self, ProtocolSupport};

use crate::cbor;
use crate::limits::{MAX_EVENT, REQUEST_TIMEOUT, STREAMS_OF_CONNECTION};
use crate::wire::{Answer, EVENTS, Event, MAX_ANSWER, MAX_REQUEST, REQUESTS, Request};

/// Why received bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Longer than anything of its kind may be: the limit, in bytes.
    #[error("more than {0} bytes")]
    TooLong(usize),
    /// Not exactly one CBOR value of its kind.
    #[error("not one value of its kind")]
    Malformed,
}

/// A received request. A device sends `Ok`.
pub type Asked = Result<Request, Unreadable>;

/// Confirms an event: an empty answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived;

/// A value that has a stream of its own.
pub trait Message: Send + Sized + 'static {
    /// Maximum length in bytes.
    const MAX: usize;

    /// The encoded form.
    fn to_bytes(&self) -> Vec<u8>;

    /// Decodes the received bytes, or converts the reason why not.
    ///
    /// # Errors
    /// When it cannot be decoded and nothing can be answered.
    fn read(bytes: Result<&[u8], Unreadable>) -> io::Result<Self>;
}

fn strict<T: for<'b> minicbor::Decode<'b, ()>>(bytes: Result<&[u8], Unreadable>) -> io::Result<T> {
    let value = bytes.and_then(|bytes| cbor::from_slice(bytes).ok_or(Unreadable::Malformed));
    value.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl Message for Asked {
    const MAX: usize = MAX_REQUEST;

    fn to_bytes(&self) -> Vec<u8> {
        self.as_ref().map(cbor::to_vec).unwrap_or_default()
    }

    fn read(bytes: Result<&[u8], Unreadable>) -> io::Result<Self> {
        Ok(bytes.and_then(|bytes| cbor::from_slice(bytes).ok_or(Unreadable::Malformed)))
    }
}

impl Message for Answer {
    const MAX: usize = MAX_ANSWER;

    fn to_bytes(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    fn read(bytes: Result<&[u8], Unreadable>) -> io::Result<Self> {
        strict(bytes)
    }
}

impl Message for Event {
    const MAX: usize = MAX_EVENT;

    fn to_bytes(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    fn read(bytes: Result<&[u8], Unreadable>) -> io::Result<Self> {
        strict(bytes)
    }
}

impl Message for Arrived {
    const MAX: usize = 0;

    fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }

    fn read(bytes: Result<&[u8], Unreadable>) -> io::Result<Self> {
        bytes.map(|_| Self).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// The codec of requests `Q` and answers `A`.
#[derive(Debug)]
pub struct Codec<Q, A>(PhantomData<fn() -> (Q, A)>);

impl<Q, A> Default for Codec<Q, A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Q, A> Clone for Codec<Q, A> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<Q: Message, A: Message> request_response::Codec for Codec<Q, A> {
    type Protocol = StreamProtocol;
    type Request = Q;
    type Response = A;

    fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> impl Future<Output = io::Result<Q>> + Send {
        read(io)
    }

    fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> impl Future<Output = io::Result<A>> + Send {
        read(io)
    }

    fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Q,
    ) -> impl Future<Output = io::Result<()>> + Send {
        write(io, request)
    }

    fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        answer: A,
    ) -> impl Future<Output = io::Result<()>> + Send {
        write(io, answer)
    }
}

/// Reads to the stream's end, or to one byte beyond the limit. Memory grows only with the bytes received.
async fn read<M: Message>(io: &mut (impl AsyncRead + Unpin + Send)) -> io::Result<M> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(M::MAX).unwrap_or(u64::MAX).saturating_add(1);
    io.take(limit).read_to_end(&mut bytes).await?;
    M::read(if bytes.len() > M::MAX { Err(Unreadable::TooLong(M::MAX)) } else { Ok(&bytes) })
}

async fn write<M: Message>(io: &mut (impl AsyncWrite + Unpin + Send), message: M) -> io::Result<()> {
    let bytes = message.to_bytes();
    drop(message);
    io.write_all(&bytes).await
}

/// The behaviour for requests to homes and their answers.
pub type Requests = request_response::Behaviour<Codec<Asked, Answer>>;
/// The behaviour for events of homes.
pub type Events = request_response::Behaviour<Codec<Event, Arrived>>;

/// Makes the behaviour for requests: a home receives them (`Inbound`), a device sends them (`Outbound`).
#[must_use]
pub fn requests(support: ProtocolSupport) -> Requests {
    Requests::new([(StreamProtocol::new(REQUESTS), support)], config())
}

/// Makes the behaviour for events: a home sends them (`Outbound`), a device receives them (`Inbound`).
#[must_use]
pub fn events(support: ProtocolSupport) -> Events {
    Events::new([(StreamProtocol::new(EVENTS), support)], config())
}

fn config() -> request_response::Config {
    request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(STREAMS_OF_CONNECTION)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use libp2p::futures::executor::block_on;
    use libp2p::futures::io::Cursor;

    use super::*;

    fn come<M: Message>(bytes: Vec<u8>) -> io::Result<M> {
        block_on(read(&mut Cursor::new(bytes)))
    }

    #[test]
    fn requests_answers_and_events_arrive_as_they_were_sent() {
        let request = Request::Fetch(7);
        assert_eq!(come::<Asked>(Ok(request.clone()).to_bytes()).unwrap(), Ok(request));
        let answer = Answer::Session(true);
        assert_eq!(come::<Answer>(answer.to_bytes()).unwrap(), answer);
        assert_eq!(come::<Event>(Event::Ended.to_bytes()).unwrap(), Event::Ended);
        assert_eq!(come::<Arrived>(Vec::new()).unwrap(), Arrived);
    }

    #[test]
    fn only_one_whole_value_is_a_request() {
        let whole = Message::to_bytes(&Ok::<_, Unreadable>(Request::Fetch(7)));
        for wrong in [&whole[1..], &whole[..whole.len() - 1], &[&whole[..], &[0]].concat(), b""] {
            assert_eq!(come::<Asked>(wrong.to_vec()).unwrap(), Err(Unreadable::Malformed), "{wrong:?}");
        }
        assert!(come::<Answer>(b"\xff".to_vec()).is_err());
    }

    #[test]
    fn the_longest_are_read_and_one_byte_more_is_not() {
        let chunk = |length: usize| Request::Chunk([0; 32].into(), 0, vec![0; length].into());
        let around = Ok::<_, Unreadable>(chunk(65_536)).to_bytes().len() - 65_536;
        let longest: Asked = Ok(chunk(MAX_REQUEST - around));
        assert_eq!(longest.to_bytes().len(), MAX_REQUEST);
        assert_eq!(come::<Asked>(longest.to_bytes()).unwrap(), longest);
        let longer: Asked = Ok(chunk(MAX_REQUEST - around + 1));
        assert_eq!(come::<Asked>(longer.to_bytes()).unwrap(), Err(Unreadable::TooLong(MAX_REQUEST)));
        assert!(come::<Arrived>(vec![0]).is_err());
        assert!(come::<Event>(vec![0; MAX_EVENT + 1]).unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn a_bomb_takes_no_memory_that_it_does_not_bring() {
        // Nested arrays and texts that claim 2^62 items.
        for head in [0x9b, 0x5b, 0x7b, 0xbb] {
            let bomb = [&[0x82, 0x18, 50, 0x81][..], &[head, 0x40, 0, 0, 0, 0, 0, 0, 0]].concat();
            assert_eq!(come::<Asked>(bomb).unwrap(), Err(Unreadable::Malformed));
        }
        let nested = [vec![0x82, 0x03, 0x82], vec![0x81; MAX_REQUEST - 3]].concat();
        assert_eq!(come::<Asked>(nested).unwrap(), Err(Unreadable::Malformed));
    }
}
