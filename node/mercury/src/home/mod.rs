//! A home: what it does about each request. One thread owns it; it knows no sockets and no clock.
//!
//! Here: the state and the dispatch; each kind of request has a file. Not here: how requests come and answers go
//! (the network), what is signed ([`crate::envelope`]), how it is kept ([`crate::store`]).
//! Path: [`Home::handle`] → verified → one batch → [`Home::outputs`]: answers and events, each with the ticket of the
//! batch that has to be safe before it may leave.

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

/// What a home's owner decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The network's name: envelopes of others are refused.
    pub network: String,
    /// Whom it takes.
    pub hosting: Hosting,
    /// Personas that it hosts at most, up to [`crate::limits::MAX_HOSTED`]. The redirects of those who have left are
    /// bounded by it too: [`crate::limits::REDIRECTS_FOR_EACH`].
    pub max_hosted: usize,
    /// The persona that may invite, ban, and back up.
    pub owner: Option<Id>,
    /// Multiaddresses at which others reach it, with its peer id.
    pub addresses: Vec<String>,
    /// The folder that backups go into.
    pub backups: std::path::PathBuf,
}

/// When something happens.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Seconds since 1970: what is signed is judged by it.
    pub wall: u64,
    /// What deadlines in memory are judged by: a clock that is set has no effect on them.
    pub instant: Instant,
}

/// Tells requests apart, for their answers: the caller chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What has to leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Not before this batch is safe.
    pub after: Option<Ticket>,
    /// What.
    pub what: What,
}

/// An answer or an event.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The answer to a request.
    Answer(RequestId, Answer),
    /// An event for a device. It may get lost with the connection: what matters is also stored.
    Event(PeerId, Event),
}

/// What a request leads to: its answer and the batch that has to be safe before, or an answer that comes later.
#[allow(clippy::large_enum_variant, reason = "each lives for one request")]
enum Reply {
    Now(Answer, Option<Ticket>),
    /// An answer by [`Home::say`], to the request's id.
    Later,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Now(answer, None)
    }
}

impl Reply {
    /// It is done when the batch is safe.
    fn done(ticket: Ticket) -> Self {
        Self::Now(Answer::Done, Some(ticket))
    }
}

/// Of whom a request is, and when it came.
#[derive(Debug, Clone, Copy)]
struct Asked {
    id: RequestId,
    from: PeerId,
    now: Now,
}

/// Why a request is not done.
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
    /// Personas hosted now.
    hosted: usize,
    redirects: Redirects,
    /// Personas banned now.
    banned: usize,
    counters: Counters,
    /// Personas that have come or left since the directory looked.
    moved: Vec<Id>,
    outputs: Vec<Output>,
}

impl Home {
    /// A home on what its store holds.
    ///
    /// # Errors
    /// The store cannot be read.
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

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// Who may use the relay, kept up to date by what happens here.
    #[must_use]
    pub fn permits(&self) -> Permits {
        self.permits.clone()
    }

    /// The home's identity on the network.
    #[must_use]
    pub fn peer_key(&self) -> libp2p::identity::Keypair {
        self.key.peer_key()
    }

    /// Where one sees which tickets are due.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.store.durable()
    }

    /// Multiaddresses at which others reach it from now on, with its peer id.
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

    /// Devices that are logged in.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.count()
    }

    /// Personas that are hosted.
    #[must_use]
    pub fn hosted(&self) -> usize {
        self.hosted
    }

    /// Does what a device asks. Answers and events come by [`Self::outputs`], once for each request.
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

    /// A device has no connection any more.
    pub fn gone(&mut self, device: PeerId) {
        self.end_session(device);
        self.sessions.forget(device);
    }

    /// What time alone brings about: a call is not answered, mail is too old. To be called every second or so.
    pub fn tick(&mut self, now: Now) {
        self.permits.tick(now.instant);
        self.space.look();
        self.tick_calls(now);
        self.sweep(now);
    }

    /// What has to leave since the last call, in order.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    fn say(&mut self, id: RequestId, answer: Answer, after: Option<Ticket>) {
        self.outputs.push(Output { after, what: What::Answer(id, answer) });
    }

    fn tell(&mut self, device: PeerId, event: Event, after: Option<Ticket>) {
        self.outputs.push(Output { after, what: What::Event(device, event) });
    }

    /// Tells all devices of a hosted persona.
    fn tell_all(&mut self, persona: Id, event: &Event, after: Option<Ticket>) {
        for device in self.sessions.hosted_devices(persona) {
            self.tell(device, event.clone(), after);
        }
    }

    /// Verifies an envelope by this home's network and the time.
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

    /// The record of a persona that is hosted here now.
    fn hosted_record(&self, persona: Id) -> Result<Option<Hosted>, StoreError> {
        let record: Option<Hosted> = self.store.get(Column::Hosted, persona.digest())?;
        Ok(record.filter(|record| record.departure.is_none()))
    }

    fn commit(&self, batch: Batch) -> Result<Ticket, StoreError> {
        self.store.commit(batch)
    }
}

/// The nonce of an envelope's order.
fn nonce<B>(envelope: &Verified<B>) -> Result<Bytes32, Failure> {
    match envelope.order() {
        Order::Nonce(nonce) => Ok(nonce),
        Order::Sequence(_) => refuse(Code::Envelope, "a sequence where a nonce is expected"),
    }
}
