//! A device that sends arbitrary bytes instead of a request.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iop_mercury::net::codec::Message as _;
use iop_mercury::wire::{Answer, MAX_ANSWER, REQUESTS};
use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, Message, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, StreamProtocol, Swarm, identity, noise, tcp, yamux};

use super::{Running, within};

pub struct Raw(pub Vec<u8>);

/// How it sends a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Completely, and closes the stream.
    Whole,
    /// Partly, and never closes the stream.
    Half,
}

#[derive(Clone)]
pub struct RawCodec {
    half: Arc<AtomicBool>,
}

impl request_response::Codec for RawCodec {
    type Protocol = StreamProtocol;
    type Request = Raw;
    type Response = Answer;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Raw> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        io.take(MAX_ANSWER as u64).read_to_end(&mut bytes).await?;
        Answer::read(Ok(&bytes))
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        Raw(bytes): Raw,
    ) -> io::Result<()> {
        io.write_all(&bytes).await?;
        io.flush().await?;
        if self.half.load(Ordering::Relaxed) {
            // Until the home closes the stream.
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                io.flush().await?;
                if io.write(&[]).await.is_err() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
        Ok(())
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Answer,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub struct RawDevice {
    swarm: Swarm<request_response::Behaviour<RawCodec>>,
    home: PeerId,
    half: Arc<AtomicBool>,
    answers: HashMap<OutboundRequestId, Option<Answer>>,
}

impl RawDevice {
    pub async fn at(home: &Running, behaviour: Behaviour) -> Self {
        Self::speaking(REQUESTS, home, behaviour).await
    }

    /// A device that speaks a protocol other than the usual one.
    pub async fn speaking(protocol: &'static str, home: &Running, behaviour: Behaviour) -> Self {
        let half = Arc::new(AtomicBool::new(behaviour == Behaviour::Half));
        let codec = RawCodec { half: Arc::clone(&half) };
        // Longer than the home waits for the rest of a request; but if the home stops reading, nothing ends it.
        let patience = Duration::from_secs(if behaviour == Behaviour::Half { 45 } else { 15 });
        let config = request_response::Config::default().with_request_timeout(patience);
        let protocols = [(StreamProtocol::new(protocol), ProtocolSupport::Outbound)];
        let requests = request_response::Behaviour::with_codec(codec, protocols, config);
        let mut swarm = libp2p::SwarmBuilder::with_existing_identity(identity::Keypair::generate_ed25519())
            .with_tokio()
            .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| requests)
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(super::LIMIT))
            .build();
        swarm.dial(home.address.clone()).unwrap();
        let peer = within(async {
            loop {
                if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
                    return peer_id;
                }
            }
        })
        .await;
        Self { swarm, home: peer, half, answers: HashMap::new() }
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.half.store(behaviour == Behaviour::Half, Ordering::Relaxed);
    }

    pub fn send(&mut self, bytes: Raw) -> OutboundRequestId {
        self.swarm.behaviour_mut().send_request(&self.home, bytes)
    }

    /// The answer; `None` if the stream ended without one.
    pub async fn answer(&mut self, wanted: OutboundRequestId) -> Option<Answer> {
        within(async {
            loop {
                if let Some(answer) = self.answers.remove(&wanted) {
                    return answer;
                }
                match self.swarm.select_next_some().await {
                    SwarmEvent::Behaviour(request_response::Event::Message {
                        message: Message::Response { request_id, response },
                        ..
                    }) => self.answers.insert(request_id, Some(response)),
                    SwarmEvent::Behaviour(request_response::Event::OutboundFailure {
                        request_id, ..
                    }) => self.answers.insert(request_id, None),
                    _ => None,
                };
            }
        })
        .await
    }

    pub async fn ask(&mut self, bytes: Raw) -> Option<Answer> {
        let id = self.send(bytes);
        self.answer(id).await
    }
}
