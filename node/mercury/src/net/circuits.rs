//! The relay, and the number of circuits per persona and address.
//!
//! Here: a layer around the relay's behaviour that follows each circuit by its two connections, from request to
//! end. Not here: who may open one ([`crate::home::Permits`]), and circuits without a permit ([`super::host`]).
//! Path: request → the relay asks [`Limits`] → pending → open → ended by its handler or one of its connections.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use libp2p::core::Multiaddr;
use libp2p::swarm::{
    ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, relay};

use super::layer::{Layer, Layered};
use super::quotas::{Address, Quotas};
use crate::home::Permits;
use crate::id::Id;

/// The persona and address that a circuit counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    persona: Id,
    address: Option<Address>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The callee's side has not accepted it.
    Pending,
    /// The callee's side has accepted; the caller is being told.
    Taken,
    Open,
    /// The callee's connection was lost while the caller was being told; the caller's handler will report whether
    /// it was.
    Lost,
    /// The callee's connection was lost; the caller's handler will report that once more.
    Ended,
}

/// A circuit, with the connections to its two ends.
#[derive(Debug, Clone, Copy)]
struct Circuit {
    from: (PeerId, ConnectionId),
    to: (PeerId, ConnectionId),
    holder: Holder,
    state: State,
}

#[derive(Debug, Default)]
struct Circuits {
    all: Vec<Circuit>,
    /// The holder of the request that the relay just checked and allowed.
    asked: Option<Holder>,
}

impl Circuits {
    fn held(&self, by: impl Fn(&Holder) -> bool) -> usize {
        self.all.iter().filter(|circuit| circuit.state != State::Ended && by(&circuit.holder)).count()
    }

    /// The first circuit in one of these states, identified by the connection to one end and the peer at the other.
    fn find(&self, from: ConnectionId, to: PeerId, states: &[State]) -> Option<usize> {
        let fits = |state, one: &Circuit| one.from.1 == from && one.to.0 == to && one.state == state;
        states.iter().find_map(|state| self.all.iter().position(|one| fits(*state, one)))
    }

    fn remove(&mut self, place: Option<usize>) {
        if let Some(place) = place {
            self.all.remove(place);
        }
    }

    /// Applies an event from a connection's handler. The event does not say which circuit to this peer it is about:
    /// among circuits that differ only in the peer's connection, the wrong one may change. But each is reported as
    /// accepted and closed once, or as failed, so open circuits are never undercounted.
    fn say(&mut self, from: ConnectionId, event: &relay::Event) {
        match event {
            relay::Event::CircuitReqAccepted { dst_peer_id, .. } => {
                if let Some(place) = self.find(from, *dst_peer_id, &[State::Taken, State::Lost]) {
                    let circuit = &mut self.all[place];
                    circuit.state = if circuit.state == State::Taken { State::Open } else { State::Ended };
                }
            }
            #[expect(deprecated, reason = "nothing else says so")]
            relay::Event::CircuitReqAcceptFailed { dst_peer_id, .. } => {
                let states = [State::Lost, State::Taken, State::Open];
                self.remove(self.find(from, *dst_peer_id, &states));
            }
            relay::Event::CircuitClosed { dst_peer_id, .. } => {
                let states = [State::Ended, State::Lost, State::Open];
                self.remove(self.find(from, *dst_peer_id, &states));
            }
            _ => {}
        }
    }

    /// The other side's connection has answered a request; `taken` is whether it accepted.
    fn answered(&mut self, from: ConnectionId, to: ConnectionId, taken: bool) {
        let fits = |one: &Circuit| one.from.1 == from && one.to.1 == to && one.state == State::Pending;
        let place = self.all.iter().position(fits);
        match place {
            Some(place) if taken => self.all[place].state = State::Taken,
            _ => self.remove(place),
        }
    }

    /// The connection to one end was lost, and with it a request that waited for an answer there.
    fn depart(&mut self, connection: ConnectionId) {
        self.all.retain(|circuit| {
            circuit.from.1 != connection && (circuit.to.1 != connection || circuit.state != State::Pending)
        });
        for circuit in self.all.iter_mut().filter(|circuit| circuit.to.1 == connection) {
            circuit.state = match circuit.state {
                State::Taken => State::Lost,
                State::Open => State::Ended,
                other => other,
            };
        }
    }
}

/// The limits on circuits: the relay asks them, and the layer around it counts.
#[derive(Clone)]
pub(super) struct Limits {
    circuits: Arc<Mutex<Circuits>>,
    permits: Permits,
    quotas: Quotas,
}

impl Limits {
    pub(super) fn new(permits: &Permits, quotas: &Quotas) -> Self {
        Self { circuits: Arc::default(), permits: permits.clone(), quotas: quotas.clone() }
    }

    fn circuits(&self) -> MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a peer has business at the relay: it may be reached through it, may call, or is in a call.
    pub(super) fn knows(&self, peer: PeerId, now: Instant) -> bool {
        let is_end = |circuit: &Circuit| circuit.from.0 == peer || circuit.to.0 == peer;
        self.permits.knows(peer, now) || self.circuits().all.iter().any(is_end)
    }

    /// Whether a peer at this address may open one more circuit.
    pub(super) fn may_open(&self, peer: PeerId, address: &Multiaddr, now: Instant) -> bool {
        let Some(persona) = self.permits.caller(peer, now) else { return false };
        let holder = Holder { persona, address: self.quotas.address(address) };
        let mut circuits = self.circuits();
        let of_persona = circuits.held(|other| other.persona == persona);
        let of_address = circuits.held(|other| other.address.is_some() && other.address == holder.address);
        let room =
            of_persona < self.quotas.circuits_of_persona && of_address < self.quotas.circuits_of_address;
        circuits.asked = room.then_some(holder);
        room
    }
}

type Action = ToSwarm<relay::Event, THandlerInEvent<relay::Behaviour>>;

/// The relay with its circuit tracking.
pub(super) type Relay = Layered<relay::Behaviour, Follower>;

/// Follows the relay's circuits.
pub(super) struct Follower {
    limits: Limits,
    /// The peers of the connections on which the relay was asked for something.
    peers: HashMap<ConnectionId, PeerId>,
    /// The relay's actions, after they were looked at.
    actions: VecDeque<Action>,
}

impl Relay {
    /// The two ends of every open circuit, each pair once.
    pub(super) fn open(&self) -> Vec<(PeerId, PeerId)> {
        let circuits = self.layer.limits.circuits();
        let open = circuits.all.iter().filter(|circuit| circuit.state == State::Open);
        open.map(|circuit| (circuit.from.0, circuit.to.0)).collect()
    }
}

impl Follower {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, peers: HashMap::new(), actions: VecDeque::new() }
    }

    /// Takes the relay's actions right after an event on a connection, so that each can be attributed to it.
    fn take_actions(&mut self, relay: &mut relay::Behaviour, happened: Option<(PeerId, ConnectionId)>) {
        // The relay is polled again before the swarm rests.
        let mut cx = Context::from_waker(Waker::noop());
        let mut answer = None;
        while let Poll::Ready(action) = relay.poll(&mut cx) {
            if let Some(source) = happened {
                self.look_at(source, &action, &mut answer);
            }
            self.actions.push_back(action);
        }
        let mut circuits = self.limits.circuits();
        circuits.asked = None;
        if let (Some(from), Some((_, to))) = (answer, happened) {
            circuits.answered(from, to, true);
        }
    }

    /// `answer` is the connection that was just sent the answer to its request; the relay's next event tells
    /// whether it was a refusal.
    fn look_at(
        &self,
        (peer, connection): (PeerId, ConnectionId),
        action: &Action,
        answer: &mut Option<ConnectionId>,
    ) {
        let mut circuits = self.limits.circuits();
        match action {
            ToSwarm::GenerateEvent(event) => match event {
                #[expect(deprecated, reason = "nothing else says so")]
                relay::Event::CircuitReqOutboundConnectFailed { .. } => {
                    if let Some(from) = answer.take() {
                        circuits.answered(from, connection, false);
                    }
                }
                _ => circuits.say(connection, event),
            },
            // An allowed request is passed on to the other side; a refused one, and the other side's answer, go
            // back.
            ToSwarm::NotifyHandler { handler: NotifyHandler::One(other), .. } if *other != connection => {
                let Some(holder) = circuits.asked.take() else {
                    *answer = Some(*other);
                    return;
                };
                if let Some(to) = self.peers.get(other) {
                    let (from, to) = ((peer, connection), (*to, *other));
                    circuits.all.push(Circuit { from, to, holder, state: State::Pending });
                }
            }
            _ => {}
        }
    }
}

impl Layer<relay::Behaviour> for Follower {
    fn on_swarm_event(&mut self, relay: &mut relay::Behaviour, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = &event {
            self.peers.remove(&closed.connection_id);
            self.limits.circuits().depart(closed.connection_id);
        }
        relay.on_swarm_event(event);
        self.take_actions(relay, None);
    }

    fn on_handler_event(
        &mut self,
        relay: &mut relay::Behaviour,
        (peer, connection): (PeerId, ConnectionId),
        event: THandlerOutEvent<relay::Behaviour>,
    ) {
        self.peers.insert(connection, peer);
        relay.on_connection_handler_event(peer, connection, event);
        self.take_actions(relay, Some((peer, connection)));
    }

    fn poll(&mut self, relay: &mut relay::Behaviour, cx: &mut Context<'_>) -> Poll<Action> {
        match self.actions.pop_front() {
            Some(action) => Poll::Ready(action),
            None => relay.poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Key;

    fn holder() -> Holder {
        Holder { persona: Key::from_secret(&[1; 32]).id(), address: None }
    }

    /// Circuits between the same two peers, over one connection of the caller and several of the callee.
    struct Pair {
        circuits: Circuits,
        from: (PeerId, ConnectionId),
        to: PeerId,
    }

    impl Pair {
        fn new() -> Self {
            let from = (PeerId::random(), ConnectionId::new_unchecked(1));
            Self { circuits: Circuits::default(), from, to: PeerId::random() }
        }

        fn ask(&mut self, to: usize) {
            let to = (self.to, ConnectionId::new_unchecked(to));
            let (from, state) = (self.from, State::Pending);
            self.circuits.all.push(Circuit { from, to, holder: holder(), state });
        }

        fn answer(&mut self, to: usize, taken: bool) {
            self.circuits.answered(self.from.1, ConnectionId::new_unchecked(to), taken);
        }

        fn take(&mut self, to: usize) {
            self.ask(to);
            self.answer(to, true);
        }

        fn say_accepted(&mut self) {
            let (src_peer_id, dst_peer_id) = (self.from.0, self.to);
            self.circuits.say(self.from.1, &relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id });
        }

        #[expect(deprecated, reason = "nothing else says so")]
        fn say_failed(&mut self) {
            let (src_peer_id, dst_peer_id) = (self.from.0, self.to);
            let error = relay::inbound::hop::Error::StreamClosed;
            let event = relay::Event::CircuitReqAcceptFailed { src_peer_id, dst_peer_id, error };
            self.circuits.say(self.from.1, &event);
        }

        fn open(&mut self, to: usize) {
            self.take(to);
            self.say_accepted();
        }

        fn open_ones(&self) -> usize {
            self.circuits.all.iter().filter(|circuit| circuit.state == State::Open).count()
        }

        fn say_closed(&mut self) {
            let (src_peer_id, dst_peer_id) = (self.from.0, self.to);
            let event = relay::Event::CircuitClosed { src_peer_id, dst_peer_id, error: None };
            self.circuits.say(self.from.1, &event);
        }

        fn depart(&mut self, connection: usize) {
            self.circuits.depart(ConnectionId::new_unchecked(connection));
        }

        fn count(&self) -> usize {
            self.circuits.held(|_| true)
        }
    }

    #[test]
    fn a_circuit_that_ends_with_its_connection_is_said_to_end_again_and_counts_once() {
        let mut pair = Pair::new();
        for connection in [2, 2, 3] {
            pair.open(connection);
        }
        assert_eq!(pair.count(), 3);
        pair.depart(2);
        assert_eq!(pair.count(), 1);
        pair.say_closed();
        pair.say_closed();
        assert_eq!((pair.count(), pair.circuits.all.len()), (1, 1), "what was known already");
        pair.say_closed();
        assert_eq!(pair.count(), 0);
    }

    #[test]
    fn nothing_is_left_when_the_caller_has_gone_or_what_was_asked_for_comes_to_nothing() {
        let mut pair = Pair::new();
        pair.open(2);
        pair.open(3);
        pair.depart(2);
        pair.take(3);
        pair.depart(1);
        assert!(pair.circuits.all.is_empty(), "nobody says anything any more");
        pair.ask(4);
        assert_eq!(pair.count(), 1, "it counts from when it is asked for");
        pair.depart(4);
        assert!(pair.circuits.all.is_empty());
        pair.take(5);
        pair.depart(5);
        assert_eq!(pair.count(), 1, "the caller may have been told");
        pair.say_failed();
        assert!(pair.circuits.all.is_empty());
    }

    #[test]
    fn a_refusal_ends_the_request_of_the_connection_that_asked_and_no_other() {
        let mut pair = Pair::new();
        pair.ask(2);
        let first = pair.from.1;
        pair.from.1 = ConnectionId::new_unchecked(9);
        pair.ask(2);
        pair.answer(2, false);
        assert_eq!((pair.count(), pair.circuits.all[0].from.1), (1, first));
        pair.answer(2, false);
        assert_eq!(pair.count(), 1, "its own has ended already");
        pair.from.1 = first;
        pair.answer(2, true);
        pair.say_accepted();
        assert_eq!(pair.open_ones(), 1);
    }

    #[test]
    fn one_whose_callee_goes_while_the_caller_is_told_takes_no_others_place() {
        let mut pair = Pair::new();
        pair.open(3);
        pair.take(2);
        pair.depart(2);
        pair.say_accepted();
        pair.say_closed();
        assert_eq!((pair.count(), pair.open_ones()), (1, 1), "the other one is open");
        pair.say_closed();
        assert!(pair.circuits.all.is_empty());
    }

    #[test]
    fn in_whatever_order_two_are_told_as_many_are_counted_as_are_open() {
        // The callee's connection of one circuit is lost: it closes, or fails. The other circuit stays.
        let lost: [&[fn(&mut Pair)]; 2] = [&[Pair::say_accepted, Pair::say_closed], &[Pair::say_failed]];
        for lost in lost {
            for before in 0..=lost.len() {
                let mut pair = Pair::new();
                pair.take(2);
                pair.take(3);
                pair.depart(2);
                lost[..before].iter().for_each(|say| say(&mut pair));
                pair.say_accepted();
                assert!(pair.count() > 0);
                lost[before..].iter().for_each(|say| say(&mut pair));
                assert_eq!((pair.count(), pair.open_ones()), (1, 1), "{before} of {}", lost.len());
                pair.say_closed();
                assert!(pair.circuits.all.is_empty());
            }
        }
    }
    #[test]
    fn who_is_in_a_call_has_business_at_the_relay_until_it_ends() {
        let limits = Limits::new(&Permits::default(), &Quotas::default());
        let (mut pair, now) = (Pair::new(), Instant::now());
        pair.open(2);
        limits.circuits().all.clone_from(&pair.circuits.all);
        assert!(limits.knows(pair.from.0, now) && limits.knows(pair.to, now));
        assert!(!limits.knows(PeerId::random(), now));
        pair.say_closed();
        limits.circuits().all = pair.circuits.all;
        assert!(!limits.knows(pair.from.0, now) && !limits.knows(pair.to, now));
    }
}
