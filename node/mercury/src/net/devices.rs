//! The connected devices and what is in progress with each, so that a slow device harms only itself.
//!
//! Here: counts, and queued events. Not here: sockets; the host sends what this returns.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use libp2p::PeerId;
use libp2p::request_response::InboundRequestId;
use libp2p::swarm::ConnectionId;

use super::codec::Message;
use super::quotas::Address;
use crate::limits::{
    EVENTS_UNDER_WAY, MAX_ANSWERS, MAX_EVENT_BYTES, MAX_EVENTS, MAX_REFUSED, MAX_REQUESTS,
    MAX_REQUESTS_IN_ALL, MAX_REQUESTS_OF_PEER,
};
use crate::wire::{Answer, Event};

/// All connected devices. `R` identifies requests.
#[derive(Debug)]
pub(super) struct Devices<R = InboundRequestId> {
    devices: HashMap<PeerId, Device>,
    /// Requests from arrival until their answers are taken: the peer, and the answer's size once there is one.
    requests: HashMap<R, (PeerId, usize)>,
    /// Bytes of all answers.
    answers: usize,
}

/// A connected device.
#[derive(Debug, Default)]
pub(super) struct Device {
    connections: Vec<(ConnectionId, Option<Address>)>,
    requests: usize,
    /// Bytes of its answers.
    answers: usize,
    /// Consecutive requests that were refused for their rate.
    refused: u32,
    /// Whether its idle connections are kept open.
    pub(super) kept: bool,
    /// Whether it does not support events.
    deaf: bool,
    events: Option<Box<Waiting>>,
}

/// Events queued for a device.
#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Event>,
    bytes: usize,
    under_way: usize,
}

/// The device must be disconnected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disconnect;

impl<R: Eq + Hash> Devices<R> {
    pub(super) fn new() -> Self {
        Self { devices: HashMap::new(), requests: HashMap::new(), answers: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.devices.values().map(|device| device.connections.len()).sum()
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn connected(&mut self, peer: PeerId, connection: ConnectionId, address: Option<Address>) {
        self.devices.entry(peer).or_default().connections.push((connection, address));
    }

    /// A connection was closed; returns whether it was the device's last.
    pub(super) fn disconnected(&mut self, peer: PeerId, connection: ConnectionId) -> bool {
        let Some(device) = self.devices.get_mut(&peer) else { return false };
        device.connections.retain(|(other, _)| *other != connection);
        let last = device.connections.is_empty();
        if last {
            self.devices.remove(&peer);
        }
        last
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Device> {
        self.devices.get_mut(&peer)
    }

    /// The address of a device's connection, if it counts towards quotas.
    pub(super) fn address(&self, peer: PeerId, connection: ConnectionId) -> Option<Address> {
        let device = self.devices.get(&peer)?;
        device.connections.iter().find(|(other, _)| *other == connection).and_then(|(_, address)| *address)
    }

    /// Counts a request; returns whether there is room for it. It is counted either way, since it is answered
    /// either way.
    pub(super) fn request(&mut self, id: R, peer: PeerId) -> bool {
        let Some(device) = self.devices.get_mut(&peer) else { return false };
        let room = device.requests < MAX_REQUESTS_OF_PEER && self.requests.len() < MAX_REQUESTS_IN_ALL;
        device.requests += 1;
        self.requests.insert(id, (peer, 0));
        room
    }

    /// Notes the answer to a request as queued. Returns the peer with the most queued bytes if all answers together
    /// exceed the limit.
    pub(super) fn answer(&mut self, id: R, bytes: usize) -> Option<PeerId> {
        let (peer, known) = self.requests.get_mut(&id)?;
        *known += bytes;
        self.answers += bytes;
        if let Some(device) = self.devices.get_mut(peer) {
            device.answers += bytes;
        }
        let most = || self.devices.iter().max_by_key(|(_, device)| device.answers).map(|(peer, _)| *peer);
        (self.answers > MAX_ANSWERS).then(most).flatten()
    }

    /// An answer was taken, or never will be.
    pub(super) fn answered(&mut self, id: R) {
        let Some((peer, bytes)) = self.requests.remove(&id) else { return };
        self.answers -= bytes;
        if let Some(device) = self.devices.get_mut(&peer) {
            device.requests = device.requests.saturating_sub(1);
            device.answers = device.answers.saturating_sub(bytes);
        }
    }
}

impl Device {
    pub(super) fn rate_kept(&mut self) {
        self.refused = 0;
    }

    /// Notes that a request was refused for its rate.
    pub(super) fn rate_exceeded(&mut self) -> Result<(), Disconnect> {
        self.refused += 1;
        if self.refused > MAX_REFUSED { Err(Disconnect) } else { Ok(()) }
    }

    /// Queues an event. Older events that it makes obsolete are removed.
    pub(super) fn push(&mut self, event: Event) -> Result<(), Disconnect> {
        if self.deaf {
            return Ok(());
        }
        let waiting = self.events.get_or_insert_default();
        if let Some(place) = waiting.queue.iter().position(|older| replaces(&event, older)) {
            let older = waiting.queue.remove(place).expect("it was found there");
            waiting.bytes -= weight(&older);
        }
        if is_request(&event) {
            waiting.make_room_for_request();
            // The request is also stored at the home, so dropping its event must not disconnect the device.
            if waiting.is_full(&event) {
                return Ok(());
            }
        } else if waiting.is_full(&event) {
            return Err(Disconnect);
        }
        waiting.bytes += weight(&event);
        waiting.queue.push_back(event);
        Ok(())
    }

    /// The next event that may be sent now.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        let waiting = self.events.as_mut()?;
        if waiting.under_way >= EVENTS_UNDER_WAY {
            return None;
        }
        let event = waiting.queue.pop_front()?;
        waiting.bytes -= weight(&event);
        waiting.under_way += 1;
        Some(event)
    }

    /// An event was confirmed.
    pub(super) fn event_arrived(&mut self) {
        let Some(waiting) = self.events.as_mut() else { return };
        waiting.under_way = waiting.under_way.saturating_sub(1);
        if waiting.under_way == 0 && waiting.queue.is_empty() {
            self.events = None;
        }
    }

    /// The device does not support the event protocol.
    pub(super) fn no_events(&mut self) {
        self.deaf = true;
        self.events = None;
    }
}

impl Waiting {
    fn is_full(&self, next: &Event) -> bool {
        self.queue.len() >= MAX_EVENTS || self.bytes + weight(next) > MAX_EVENT_BYTES
    }

    /// Strangers may send any number of requests. As the home keeps only this many, the oldest is obsolete.
    fn make_room_for_request(&mut self) {
        if self.queue.iter().filter(|event| is_request(event)).count() < MAX_REQUESTS {
            return;
        }
        let oldest = self.queue.iter().position(is_request);
        if let Some(oldest) = oldest.and_then(|place| self.queue.remove(place)) {
            self.bytes -= weight(&oldest);
        }
    }
}

fn is_request(event: &Event) -> bool {
    matches!(event, Event::Request(_))
}

fn replaces(event: &Event, older: &Event) -> bool {
    match (event, older) {
        (Event::Mail(_), Event::Mail(_)) => true,
        (Event::Request(one), Event::Request(other)) => one == other,
        (Event::Presence(one), Event::Presence(other)) => one.persona == other.persona,
        _ => false,
    }
}

/// Approximate memory of an event, bytes.
fn weight(event: &Event) -> usize {
    let names = match event {
        Event::Presence(presence) => presence.applications.iter().flatten().map(|name| name.len() + 24).sum(),
        Event::Call(_) => 512,
        Event::Mail(_) | Event::Request(_) | Event::Ended => 0,
    };
    size_of::<Event>() + names
}

/// Memory of an answer while it is queued, bytes; always short fields count as a constant.
pub(super) fn answer_weight(answer: &Answer) -> usize {
    match answer {
        Answer::Done
        | Answer::Refused(..)
        | Answer::Challenge(_)
        | Answer::Session(_)
        | Answer::Next(_)
        | Answer::Invitation(_)
        | Answer::BackedUp(_) => 512,
        _ => answer.to_bytes().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Key;
    use crate::wire::Presence;

    fn presence(number: usize, applications: Option<Vec<String>>) -> Event {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&number.to_be_bytes());
        Event::Presence(Presence { persona: Key::from_secret(&secret).id(), applications })
    }

    fn request(number: usize) -> Event {
        match presence(number, None) {
            Event::Presence(presence) => Event::Request(presence.persona),
            _ => unreachable!("it is one"),
        }
    }

    #[test]
    fn where_answers_are_too_much_it_is_the_peer_with_most_of_them_that_is_named() {
        let mut devices = Devices::<u32>::new();
        let [modest, greedy] = [0; 2].map(|_| PeerId::random());
        for (peer, number) in [(modest, 0), (greedy, 1)] {
            devices.connected(peer, ConnectionId::new_unchecked(number), None);
        }
        assert!(devices.request(0, modest));
        assert_eq!(devices.answer(0, MAX_ANSWERS / 4), None, "the oldest");
        for id in 1..4 {
            assert!(devices.request(id, greedy));
            let named = devices.answer(id, MAX_ANSWERS / 4);
            assert_eq!(named, None, "{id}");
        }
        assert!(devices.request(4, modest));
        assert_eq!(devices.answer(4, 1), Some(greedy));
        // Answers that were taken no longer count.
        (1..4).for_each(|id| devices.answered(id));
        assert!(devices.request(5, greedy));
        assert_eq!(devices.answer(5, MAX_ANSWERS), Some(greedy));
        devices.answered(5);
        devices.answered(0);
        assert_eq!((devices.answers, devices.requests()), (1, 1));
    }

    #[test]
    fn few_events_are_under_way_at_once_and_the_others_follow_in_order() {
        let mut device = Device::default();
        let events: Vec<_> = (0..EVENTS_UNDER_WAY + 2).map(|number| presence(number, None)).collect();
        for event in &events {
            assert_eq!(device.push(event.clone()), Ok(()));
        }
        let mut sent: Vec<_> = std::iter::from_fn(|| device.next_event()).collect();
        assert_eq!(sent.len(), EVENTS_UNDER_WAY);
        device.event_arrived();
        sent.extend(std::iter::from_fn(|| device.next_event()));
        assert_eq!(sent, events[..=EVENTS_UNDER_WAY]);
    }

    #[test]
    fn a_long_answer_counts_by_its_bytes() {
        let one = |number| match presence(number, Some(vec!["x".repeat(64); 50])) {
            Event::Presence(presence) => presence,
            _ => unreachable!("it is one"),
        };
        let long = Answer::Presence((0..256).map(one).collect(), true);
        assert_eq!(answer_weight(&long), long.to_bytes().len());
        assert!(answer_weight(&long) > 256 * 50 * 64);
        assert_eq!(answer_weight(&Answer::Done), 512);
    }

    #[test]
    fn newer_news_of_the_same_replace_older_ones() {
        let mut device = Device::default();
        let there = presence(1, Some(vec!["chat".to_owned()]));
        let gone = presence(1, None);
        for event in [Event::Mail(1), there, presence(2, None), Event::Mail(7), gone.clone()] {
            assert_eq!(device.push(event), Ok(()));
        }
        let sent: Vec<_> = std::iter::from_fn(|| device.next_event()).collect();
        assert_eq!(sent, [presence(2, None), Event::Mail(7), gone]);
    }

    #[test]
    fn strangers_who_ask_again_and_again_cut_nobody_off() {
        let mut device = Device::default();
        assert_eq!(device.push(Event::Mail(1)), Ok(()));
        for round in 0..3 {
            for number in 0..MAX_EVENTS / 2 {
                assert_eq!(device.push(request(number)), Ok(()), "{number} in round {round}");
            }
        }
        for number in [0, 1, 0, 1] {
            assert_eq!(device.push(request(number)), Ok(()));
        }
        let waiting = device.events.as_ref().expect("they wait");
        assert_eq!(
            (waiting.queue.len(), waiting.bytes),
            (MAX_REQUESTS + 1, (MAX_REQUESTS + 1) * weight(&request(0)))
        );
        assert_eq!(waiting.queue[0], Event::Mail(1), "it is not driven out");
        assert_eq!(
            waiting.queue.iter().skip(MAX_REQUESTS - 1).collect::<Vec<_>>(),
            [&request(0), &request(1)]
        );
    }

    #[test]
    fn a_device_that_takes_no_events_is_cut_off_at_the_limit_and_not_before() {
        let mut device = Device::default();
        for number in 0..MAX_EVENTS {
            assert_eq!(device.push(presence(number, None)), Ok(()), "{number}");
        }
        assert_eq!(device.push(request(0)), Ok(()), "it is dropped");
        assert_eq!(device.push(Event::Ended), Err(Disconnect));
        let mut device = Device::default();
        let long = || Some(vec!["x".repeat(64); 50]);
        let weight = weight(&presence(0, long()));
        for number in 0..MAX_EVENT_BYTES / weight {
            assert_eq!(device.push(presence(number, long())), Ok(()), "{number}");
        }
        assert_eq!(device.push(presence(MAX_EVENTS, long())), Err(Disconnect));
    }

    #[test]
    fn a_device_without_the_protocol_gets_none_and_is_not_cut_off() {
        let mut device = Device::default();
        assert_eq!(device.push(Event::Ended), Ok(()));
        device.no_events();
        for _ in 0..=MAX_EVENTS {
            assert_eq!(device.push(Event::Ended), Ok(()));
        }
        assert_eq!(device.next_event(), None);
    }

    #[test]
    fn so_many_requests_too_fast_in_a_row_and_then_the_end() {
        let mut device = Device::default();
        for _ in 0..MAX_REFUSED {
            assert_eq!(device.rate_exceeded(), Ok(()));
        }
        device.rate_kept();
        for _ in 0..MAX_REFUSED {
            assert_eq!(device.rate_exceeded(), Ok(()));
        }
        assert_eq!(device.rate_exceeded(), Err(Disconnect));
    }
}
