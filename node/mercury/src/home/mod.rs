//! A home: how it handles each request. One thread owns it; it uses no sockets and no clock.
//!
//! Here: the state and the dispatch; each kind of request has a file. Not here: transport (the network), signatures
//! ([`crate::envelope`]), storage ([`crate::store`]). Path: [`Home::handle`] → verified → one batch →
//! [`Home::outputs`]: answers and events, each with the ticket of the batch that must be on disk before it may be
//! sent.

mod admin;
mod blobs;
mod calls;
mod hosting;
mod mail;
mod permits;
mod profiles;
mod redirects;
mod relations;
mod requests;
mod sessions;
mod space;
mod sweep;
#[cfg(test)]
pub(crate) mod testing;

pub use permits::Permits;

use std::sync::Arc;
use std::time::Instant;

use libp2p::PeerId;

use crate::envelope::{Body, Bytes32, Envelope, EnvelopeError, Expected, Order, Verified};
use crate::id::{Id, Key};
use crate::store::{Batch, Column, Durable, Hosted, Store, StoreError, Ticket};
use crate::wire::{Answer, Code, Event, Hosting, Refusal, Request};
use admin::Counters;
use calls::Calls;
use redirects::Redirects;
use sessions::Sessions;
use space::Space;
use sweep::Sweep;

/// The owner's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The network's name; envelopes of other networks are refused.
    pub network: String,
    /// Which personas it hosts.
    pub hosting: Hosting,
    /// Maximum number of personas that it hosts, up to [`crate::limits::MAX_HOSTED`]. It also limits the redirects
    /// of those that left: [`crate::limits::REDIRECTS_FOR_EACH`].
    pub max_hosted: usize,
    /// The persona that may invite, ban, and back up.
    pub owner: Option<Id>,
    /// Multiaddresses at which it can be reached, with its peer id.
    pub addresses: Vec<String>,
    /// The directory for backups.
    pub backups: std::path::PathBuf,
}

/// The current time.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Seconds since 1970, used for signed times.
    pub wall: u64,
    /// Used for deadlines in memory; not affected by changes to the system clock.
    pub instant: Instant,
}

/// Identifies a request for its answer; chosen by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Must not be sent before this batch is on disk.
    pub after: Option<Ticket>,
    /// The answer or event.
    pub what: What,
}

/// An answer or an event.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The answer to a request.
    Answer(RequestId, Answer),
    /// An event for a device. It may be lost with the connection; anything important is also stored.
    Event(PeerId, Event),
}

/// The outcome of a request: an answer with the batch that must be on disk before, or an answer that comes later.
#[allow(clippy::large_enum_variant, reason = "each lives for one request")]
enum Reply {
    Now(Answer, Option<Ticket>),
    /// The answer follows through [`Home::say`], with the request's id.
    Later,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Now(answer, None)
    }
}

impl Reply {
    /// It is done once the batch is on disk.
    fn done(ticket: Ticket) -> Self {
        Self::Now(Answer::Done, Some(ticket))
    }
}

/// A request's id, its sender, and the time it arrived.
#[derive(Debug, Clone, Copy)]
struct Asked {
    id: RequestId,
    from: PeerId,
    now: Now,
}

/// Why a request fails.
#[derive(Debug)]
enum Failure {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<EnvelopeError> for Failure {
    fn from(error: EnvelopeError) -> Self {
        Self::Refused(Refusal::new(Code::Envelope, error.to_string()))
    }
}

fn refuse<T>(code: Code, reason: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Refused(Refusal::new(code, reason)))
}

/// The home.
#[derive(Debug)]
pub struct Home {
    store: Arc<Store>,
    key: Key,
    id: Id,
    settings: Settings,
    sessions: Sessions,
    permits: Permits,
    calls: Calls,
    sweep: Sweep,
    space: Space,
    /// Number of personas hosted now.
    hosted: usize,
    redirects: Redirects,
    /// Number of personas banned now.
    banned: usize,
    counters: Counters,
    /// Personas that came or left since the directory last asked.
    moved: Vec<Id>,
    outputs: Vec<Output>,
}

impl Home {
    /// Loads a home from its store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new(store: Arc<Store>, key: Key, settings: Settings) -> Result<Self, StoreError> {
        let (mut hosted, mut redirects) = (0, Redirects::default());
        for row in store.rows(Column::Hosted, b"", b"") {
            let (key, value) = row?;
            let record: Hosted = store.record(Column::Hosted, &value)?;
            hosted += usize::from(record.departure.is_none());
            redirects.note(sweep::owner_of(&key), &record);
        }
        let banned = store.rows(Column::Bans, b"", b"").map(|row| row.map(|_| 1)).sum::<Result<_, _>>()?;
        let id = key.id();
        let sessions = Sessions::default();
        let disk = Arc::clone(&store);
        let space = Space::new(move || disk.free_space());
        Ok(Self {
            store,
            id,
            key,
            settings,
            sessions,
            permits: Permits::default(),
            calls: Calls::default(),
            sweep: Sweep::default(),
            space,
            hosted,
            redirects,
            banned,
            counters: Counters::default(),
            moved: Vec::new(),
            outputs: Vec::new(),
        })
    }

    /// The home's id.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// The relay's permits, which the home keeps up to date.
    #[must_use]
    pub fn permits(&self) -> Permits {
        self.permits.clone()
    }

    /// The home's identity on the network.
    #[must_use]
    pub fn peer_key(&self) -> libp2p::identity::Keypair {
        self.key.peer_key()
    }

    /// Tells which tickets are on disk.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.store.durable()
    }

    /// Sets the multiaddresses at which it can be reached, with its peer id.
    pub fn set_addresses(&mut self, addresses: Vec<String>) {
        self.settings.addresses = addresses;
    }

    /// Whether a device is logged in.
    #[must_use]
    pub fn has_session(&self, device: PeerId) -> bool {
        self.sessions.of(device).is_some()
    }

    /// The network's name.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.settings.network
    }

    /// Number of logged-in devices.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.count()
    }

    /// Number of hosted personas.
    #[must_use]
    pub fn hosted(&self) -> usize {
        self.hosted
    }

    /// Handles a device's request. Answers and events come from [`Self::outputs`], one answer per request.
    pub fn handle(&mut self, id: RequestId, from: PeerId, request: Request, now: Now) {
        let asked = Asked { id, from, now };
        self.counters.requests += 1;
        match self.dispatch(&asked, request) {
            Ok(Reply::Now(answer, after)) => self.say(id, answer, after),
            Ok(Reply::Later) => {}
            Err(Failure::Refused(refusal)) => {
                self.counters.refused += 1;
                self.say(id, Answer::Refused(refusal), None);
            }
            Err(Failure::Store(error)) => {
                self.counters.faults += 1;
                tracing::error!("{error}");
                self.say(id, Answer::refused(Code::Fault, "the home has a fault"), None);
            }
        }
    }

    fn dispatch(&mut self, asked: &Asked, request: Request) -> Result<Reply, Failure> {
        self.check_space(&request)?;
        match request {
            Request::About => Ok(self.about(asked).into()),
            Request::Challenge => self.challenge(asked),
            Request::Register(registration) => self.register(asked, &registration),
            Request::LogIn(login, applications) => self.log_in(asked, &login, applications),
            Request::LogOut => Ok(self.log_out(asked)),
            Request::Claim => self.claim(asked),
            Request::Unregister(departure, upto) => self.unregister(asked, &departure, upto),
            Request::Announce(applications) => self.announce(asked, applications),
            Request::GetProfile(persona) => self.get_profile(asked, persona),
            Request::SetProfile(profile) => self.set_profile(asked, &profile),
            Request::Offer(blob) => self.offer(asked, blob),
            Request::Chunk(hash, number, bytes) => self.chunk(asked, &hash, number, &bytes),
            Request::GetChunk(owner, hash, number) => self.get_chunk(asked, owner, &hash, number),
            Request::Discard(hash) => self.discard(asked, &hash),
            Request::Blobs => self.blobs(asked),
            Request::Invite(seconds) => self.invite(asked, seconds),
            Request::Ban(persona, why) => self.ban(asked, persona, &why),
            Request::Unban(persona) => self.unban(asked, persona),
            Request::Bans(after) => self.bans(asked, after),
            Request::Figures => self.tell_figures(asked),
            Request::Expel(persona) => self.expel(asked, persona),
            Request::BackUp => self.back_up(asked),
            Request::Call(offer) => self.call(asked, &offer),
            Request::Answer(answer) => self.answer_call(asked, &answer),
            Request::Presence(personas) => self.presence(asked, &personas),
            Request::Relate(request) => self.relate(asked, &request),
            Request::Requests => self.requests(asked),
            Request::Dismiss(sender) => self.dismiss(asked, sender),
            Request::Related(request, acceptance) => self.relate_both(asked, &request, &acceptance),
            Request::Revoke(revocation) => self.revoke(asked, &revocation),
            Request::Relations(after) => self.relations(asked, after),
            Request::Put(message) => self.put(asked, &message),
            Request::Fetch(after) => self.fetch(asked, after),
            Request::Acknowledge(upto) => self.acknowledge(asked, upto),
        }
    }

    /// A device has no connection left.
    pub fn gone(&mut self, device: PeerId) {
        self.end_session(device);
        self.sessions.forget(device);
    }

    /// Handles timeouts: unanswered calls, expired mail. To be called about once a second.
    pub fn tick(&mut self, now: Now) {
        self.permits.tick(now.instant);
        self.space.look();
        self.tick_calls(now);
        self.sweep(now);
    }

    /// The outputs since the last call, in order.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    fn say(&mut self, id: RequestId, answer: Answer, after: Option<Ticket>) {
        self.outputs.push(Output { after, what: What::Answer(id, answer) });
    }

    fn tell(&mut self, device: PeerId, event: Event, after: Option<Ticket>) {
        self.outputs.push(Output { after, what: What::Event(device, event) });
    }

    /// Sends an event to all devices of a hosted persona.
    fn tell_all(&mut self, persona: Id, event: &Event, after: Option<Ticket>) {
        for device in self.sessions.hosted_devices(persona) {
            self.tell(device, event.clone(), after);
        }
    }

    /// Verifies an envelope for this home's network at the current time.
    fn verify<B: Body>(
        &self,
        asked: &Asked,
        envelope: &Envelope,
        about: Option<Id>,
        signer: Option<Id>,
    ) -> Result<Verified<B>, Failure> {
        let expected = Expected { network: &self.settings.network, about, signer, now: asked.now.wall };
        Ok(envelope.verify(&expected)?)
    }

    /// The record of a persona that is currently hosted here.
    fn hosted_record(&self, persona: Id) -> Result<Option<Hosted>, StoreError> {
        let record: Option<Hosted> = self.store.get(Column::Hosted, persona.digest())?;
        Ok(record.filter(|record| record.departure.is_none()))
    }

    fn commit(&self, batch: Batch) -> Result<Ticket, StoreError> {
        self.store.commit(batch)
    }
}

/// The nonce in an envelope's order.
fn nonce<B>(envelope: &Verified<B>) -> Result<Bytes32, Failure> {
    match envelope.order() {
        Order::Nonce(nonce) => Ok(nonce),
        Order::Sequence(_) => refuse(Code::Envelope, "a sequence where a nonce is expected"),
    }
}
