//! The directory: which home a persona is at, in a Kademlia DHT of all homes.
//!
//! Here: a persona's record and its verification, which foreign records a home keeps, and publishing its own. Not
//! here: the DHT protocol (libp2p's kad), and who is hosted ([`crate::home`]). Path: a hosted persona → record →
//! the homes closest to its id; a received record → verified → kept if it is the newest. A client verifies a record
//! that it finds with [`read`] again, so no home has to be trusted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::kad::store::{MemoryStore, MemoryStoreConfig, RecordStore};
use libp2p::kad::{self, Quorum, Record, RecordKey, StoreInserts};
use libp2p::{PeerId, StreamProtocol};
use minicbor::{Decode, Encode};

use super::queue::Queue;
use super::quotas::{Address, Meter, Rates};
use crate::body::{Contact, Hosting, Registration};
use crate::cbor;
use crate::envelope::{Envelope, EnvelopeError, Expected, Order};
use crate::home::Home;
use crate::id::Id;
use crate::limits::{
    MAX_FOREIGN_RECORDS, MAX_HOSTED, MAX_PUBLICATIONS, MAX_RECORD, PUBLISH_EACH_SECOND, RECORD_TIME,
};

/// The name of the directory's protocol.
pub const DIRECTORY: StreamProtocol = StreamProtocol::new("/iop/mercury/kad/1");

/// A persona's record, in wire form.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Entry {
    /// The persona's half of the hosting proof.
    #[n(0)]
    pub(crate) registration: Envelope,
    /// The home's half.
    #[n(1)]
    pub(crate) hosting: Envelope,
    /// Where the home can be reached.
    #[n(2)]
    pub(crate) contact: Envelope,
}

/// A verified record: where a persona is hosted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its home.
    pub home: Id,
    /// The home's multiaddresses.
    pub addresses: Vec<String>,
    /// Time of the persona's registration there, of the home's confirmation, and of its contact; the greatest wins.
    pub age: (u64, u64, u64),
    /// Until when the home's contact is valid, in seconds since 1970.
    pub expires: u64,
}

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than a record may be.
    #[error("a record of {0} bytes, at most {MAX_RECORD} expected")]
    TooLong(usize),
    /// The bytes are not a record.
    #[error("malformed record")]
    Malformed,
    /// One of its envelopes does not verify.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// Its parts are not of one hosting, or are about another persona.
    #[error("its parts do not belong together")]
    Parts,
}

/// The key of a persona's record.
#[must_use]
pub fn key(persona: Id) -> RecordKey {
    RecordKey::from(persona.to_bytes().to_vec())
}

/// Verifies a record that was found for a persona. Of several records the one with the greatest age wins: it is the
/// persona's own last word, since the first part of the age is signed by itself.
///
/// # Errors
/// When it is not valid.
pub fn read(network: &str, persona: Id, value: &[u8], now: u64) -> Result<Place, RecordError> {
    if value.len() > MAX_RECORD {
        return Err(RecordError::TooLong(value.len()));
    }
    let entry: Entry = cbor::from_slice(value).ok_or(RecordError::Malformed)?;
    let expected = Expected { network, about: Some(persona), signer: None, now };
    let hosting = entry.hosting.verify::<Hosting>(&expected)?;
    let home = hosting.signer();
    // A registration is valid for an hour, within which the home must confirm it: judge it at that time.
    let then = Expected { network, about: Some(home), signer: Some(persona), now: hosting.issued() };
    let registration = entry.registration.verify::<Registration>(&then)?;
    let expected = Expected { network, about: Some(home), signer: Some(home), now };
    let contact = entry.contact.verify::<Contact>(&expected)?;
    if *hosting.body().registration != registration.hash() {
        return Err(RecordError::Parts);
    }
    let (Order::Sequence(confirmed), Order::Sequence(reached)) = (hosting.order(), contact.order()) else {
        return Err(RecordError::Parts);
    };
    Ok(Place {
        home,
        addresses: contact.body().addresses.clone(),
        age: (registration.issued(), confirmed, reached),
        expires: contact.expires(),
    })
}

/// A kad behaviour for a device: it queries, but does not answer.
#[must_use]
pub fn client(peer: PeerId) -> kad::Behaviour<MemoryStore> {
    let mut kad = behaviour(peer);
    kad.set_mode(Some(kad::Mode::Client));
    kad
}

/// A kad behaviour for a home.
pub(super) fn server(peer: PeerId) -> kad::Behaviour<MemoryStore> {
    let mut kad = behaviour(peer);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

fn behaviour(peer: PeerId) -> kad::Behaviour<MemoryStore> {
    let store = MemoryStoreConfig {
        max_records: MAX_FOREIGN_RECORDS + MAX_HOSTED,
        // The store's limit is exclusive.
        max_value_bytes: MAX_RECORD + 1,
        max_providers_per_key: 1,
        max_provided_keys: 1,
    };
    let mut config = kad::Config::new(DIRECTORY);
    // Received records are verified before they are kept; we publish our own ourselves, with a fresh contact.
    config
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_record_ttl(Some(RECORD_TIME))
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_query_timeout(Duration::from_secs(20));
    kad::Behaviour::with_config(peer, MemoryStore::with_config(peer, store), config)
}

/// The home's part in the directory.
pub(super) struct Directory {
    network: String,
    /// The home's position in the key space.
    place: kad::KBucketKey<PeerId>,
    queue: Queue,
    next_sweep: Instant,
    /// Foreign records, by their distance from the home.
    foreign: BTreeMap<kad::KBucketDistance, RecordKey>,
    /// Maximum number of foreign records.
    most: usize,
    rate: Meter,
}

impl Directory {
    pub(super) fn new(network: String, home: PeerId, rates: Rates, now: Instant) -> Self {
        Self {
            network,
            place: home.into(),
            queue: Queue::new(now),
            next_sweep: now,
            foreign: BTreeMap::new(),
            most: MAX_FOREIGN_RECORDS,
            rate: Meter::new(rates),
        }
    }

    /// Number of foreign records.
    pub(super) fn foreign(&self) -> usize {
        self.foreign.len()
    }

    /// Handles a record from a peer. It is kept if it is valid, no newer one is known, and it is among those
    /// nearest to the home.
    pub(super) fn put(
        &mut self,
        store: &mut MemoryStore,
        (source, address): (PeerId, Option<Address>),
        record: Record,
        now: (u64, Instant),
    ) {
        if !self.rate.take(source, address, now.1) {
            return;
        }
        let Ok(persona) = Id::from_bytes(record.key.as_ref()) else { return };
        let known = store.get(&record.key);
        let new = known.is_none();
        let distance = self.place.distance(&kad::KBucketKey::new(record.key.clone()));
        if new && !self.has_room(&distance) {
            return;
        }
        let place = match read(&self.network, persona, &record.value, now.0) {
            Ok(place) => place,
            Err(error) => return tracing::debug!("Mercury: a record of {source} is refused: {error}"),
        };
        let newer = known.is_none_or(|known| {
            read(&self.network, persona, &known.value, now.0).map_or(true, |known| known.age < place.age)
        });
        if !newer {
            return;
        }
        if new {
            self.make_room(store);
        }
        // The sender does not state a lifetime, and its claim of the publisher is not trusted.
        let time = RECORD_TIME.min(Duration::from_secs(place.expires.saturating_sub(now.0)));
        let key = record.key.clone();
        let record = Record { publisher: None, expires: Some(now.1 + time), ..record };
        if store.put(record).is_ok() {
            self.foreign.insert(distance, key);
        }
    }

    /// Whether there is room for a record at this distance: if full, a farther one must make room.
    fn has_room(&self, distance: &kad::KBucketDistance) -> bool {
        let farthest = self.foreign.last_key_value();
        self.foreign.len() < self.most || farthest.is_some_and(|(farthest, _)| distance < farthest)
    }

    fn make_room(&mut self, store: &mut MemoryStore) {
        while self.foreign.len() >= self.most
            && let Some((_, key)) = self.foreign.pop_last()
        {
            // A record that has become our own is not counted here.
            if is_foreign(store, &key) {
                store.remove(&key);
            }
        }
    }

    /// Publishes some records each second; withdraws those of personas that left; drops expired ones.
    pub(super) fn tick(
        &mut self,
        kad: &mut kad::Behaviour<MemoryStore>,
        home: &mut Home,
        (wall, now): (u64, Instant),
    ) {
        for persona in home.moved() {
            match home.entry(persona, wall) {
                Ok(Some(_)) => self.queue.push(persona),
                // The persona has left: other homes drop the record within a day, or when its new home publishes
                // one.
                Ok(None) => kad.remove_record(&key(persona)),
                Err(error) => tracing::error!("{error}"),
            }
        }
        if now >= self.next_sweep {
            self.next_sweep = now + Duration::from_secs(60);
            let store = kad.store_mut();
            store.retain(|_, record| !record.is_expired(now));
            self.foreign.retain(|_, key| is_foreign(store, key));
        }
        let free = MAX_PUBLICATIONS.saturating_sub(kad.iter_queries().count());
        for _ in 0..free.min(PUBLISH_EACH_SECOND) {
            let Some(persona) = self.queue.next(now, |after, most| home.hosted_after(after, most)) else {
                return;
            };
            self.publish(kad, home, persona, (wall, now));
        }
    }

    fn publish(
        &self,
        kad: &mut kad::Behaviour<MemoryStore>,
        home: &Home,
        persona: Id,
        (wall, now): (u64, Instant),
    ) {
        let key = key(persona);
        let entry = match home.entry(persona, wall) {
            Ok(Some(entry)) => entry,
            // The persona has left in the meantime.
            Ok(None) => return kad.remove_record(&key),
            Err(error) => return tracing::error!("{error}"),
        };
        let value = cbor::to_vec(&entry);
        let age = |value: &[u8]| read(&self.network, persona, value, wall).map(|place| place.age);
        let known = kad.store_mut().get(&key).and_then(|known| age(&known.value).ok());
        if age(&value).map_or(true, |own| known.is_some_and(|known| known > own)) {
            tracing::debug!("Mercury: {persona} has a newer home, or this one has no address yet");
            return;
        }
        let record = Record { key, value, publisher: None, expires: Some(now + RECORD_TIME) };
        if let Err(error) = kad.put_record(record, Quorum::One) {
            tracing::warn!("Mercury: the record of {persona} is not published: {error}");
        }
    }
}

/// Whether the store has a record that was published elsewhere.
fn is_foreign(store: &MemoryStore, key: &RecordKey) -> bool {
    store.get(key).is_some_and(|record| record.publisher.is_none())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::home::testing::{Bench, NETWORK, Person};
    use crate::id::Key;
    use crate::limits::{PUBLISH_INTERVAL, RECORDS_OF_ADDRESS, RECORDS_OF_PEER};
    use crate::net::quotas::Quotas;
    use crate::wire::Answer;

    fn entry(bench: &Bench, person: &Person) -> Entry {
        bench.home.entry(person.id(), bench.now.wall).unwrap().unwrap()
    }

    fn record(person: &Person, entry: &Entry) -> Record {
        Record { key: key(person.id()), value: cbor::to_vec(entry), publisher: None, expires: None }
    }

    fn store() -> MemoryStore {
        MemoryStore::new(PeerId::random())
    }

    fn put(directory: &mut Directory, store: &mut MemoryStore, record: Record, bench: &Bench) {
        directory.put(store, (PeerId::random(), None), record, (bench.now.wall, bench.now.instant));
    }

    fn directory(bench: &Bench) -> Directory {
        let home = bench.home.peer_key().public().to_peer_id();
        Directory::new(NETWORK.into(), home, Quotas::default().records, bench.now.instant)
    }

    #[test]
    fn a_record_says_where_a_persona_is_and_nothing_else_passes_for_it() {
        let mut bench = Bench::new(|_| {});
        let (person, other) = (bench.resident(1), bench.resident(2));
        let good = entry(&bench, &person);
        let now = bench.now.wall;
        let read = |id, entry: &Entry, now| read(NETWORK, id, &cbor::to_vec(entry), now);
        let place = read(person.id(), &good, now).unwrap();
        assert_eq!((place.home, place.age.0), (bench.home.id(), now));
        assert_eq!(place.addresses, ["/ip4/127.0.0.1/tcp/1"]);
        assert!(read(person.id(), &good, now + 2 * 3600).is_ok(), "long after the registration's hour");
        assert!(read(person.id(), &good, place.expires + 1).is_err(), "not after the contact's time");
        assert!(read(other.id(), &good, now).is_err(), "of another persona");
        let foreign = entry(&bench, &other);
        for mixed in [
            Entry { registration: foreign.registration.clone(), ..good.clone() },
            Entry { hosting: foreign.hosting.clone(), ..good.clone() },
            Entry { contact: foreign.hosting, ..good.clone() },
        ] {
            assert!(read(person.id(), &mixed, now).is_err());
        }
        // A home's contact with another home's proof.
        let elsewhere = Key::from_secret(&[201; 32]);
        let contact = Contact { addresses: vec!["/ip4/192.0.2.6/tcp/1".into()] };
        let times = (now, now + 60);
        let contact =
            Envelope::sign(&elsewhere, NETWORK, elsewhere.id(), Order::Sequence(now), times, &contact);
        assert!(read(person.id(), &Entry { contact, ..good.clone() }, now).is_err());
        // A home at which nobody has registered.
        let hosting = Hosting { registration: [7; 32].into() };
        let hosting = Envelope::sign(&elsewhere, NETWORK, person.id(), Order::Sequence(now), times, &hosting);
        assert!(read(person.id(), &Entry { hosting, ..good.clone() }, now).is_err());
        let value = cbor::to_vec(&good);
        for place in (0..value.len()).step_by(7) {
            let mut flipped = value.clone();
            flipped[place] ^= 1;
            assert!(super::read(NETWORK, person.id(), &flipped, now).is_err(), "byte {place}");
        }
    }

    #[test]
    fn the_longest_record_fits_and_one_byte_more_is_not_looked_at() {
        let mut bench = Bench::new(|_| {});
        let person = bench.resident(1);
        let address = format!("/dns4/{}/tcp/1", "x".repeat(crate::limits::MAX_ADDRESS - 12));
        bench.home.set_addresses(vec![address; crate::limits::MAX_ADDRESSES]);
        let value = cbor::to_vec(&entry(&bench, &person));
        assert!(value.len() <= MAX_RECORD, "{}", value.len());
        assert!(read(NETWORK, person.id(), &value, bench.now.wall).is_ok());
        let longer = vec![0; MAX_RECORD + 1];
        assert_eq!(read(NETWORK, person.id(), &longer, 0), Err(RecordError::TooLong(MAX_RECORD + 1)));
        assert_eq!(read(NETWORK, person.id(), &longer[1..], 0), Err(RecordError::Malformed));
    }

    #[test]
    fn the_registration_that_was_signed_last_wins_whatever_an_older_home_says() {
        let mut old = Bench::new(|_| {});
        let mut new = Bench::new(|_| {});
        let person = Person::new(1);
        old.register(&person);
        new.wait(100);
        new.register(&person);
        let moved = record(&person, &entry(&new, &person));
        // The old home signs a later contact.
        old.wait(200);
        let stale = record(&person, &entry(&old, &person));
        let (mut directory, mut store) = (directory(&old), store());
        put(&mut directory, &mut store, moved.clone(), &old);
        put(&mut directory, &mut store, stale.clone(), &old);
        assert_eq!(store.get(&moved.key).unwrap().value, moved.value);
        let (mut directory, mut store) = (self::directory(&old), self::store());
        put(&mut directory, &mut store, stale, &old);
        put(&mut directory, &mut store, moved.clone(), &old);
        assert_eq!(store.get(&moved.key).unwrap().value, moved.value);
        let kept = store.get(&moved.key).unwrap().into_owned();
        assert!(kept.publisher.is_none() && kept.expires.is_some());
    }

    #[test]
    fn one_peer_and_one_address_put_so_many_records_and_not_one_more() {
        let mut bench = Bench::new(|_| {});
        let person = bench.resident(1);
        let good = record(&person, &entry(&bench, &person));
        let wrong = Record { value: vec![0], ..good.clone() };
        let quotas = Quotas::default();
        let address = |number: u8| quotas.address(&format!("/ip4/192.0.2.{number}/tcp/1").parse().unwrap());
        let now = (bench.now.wall, bench.now.instant);
        let one = PeerId::random();
        let one_peer = |number: u32| (one, address(u8::try_from(number % 8).unwrap()));
        let one_address = |_| (PeerId::random(), address(1));
        for (same_peer, burst) in [(true, RECORDS_OF_PEER.burst), (false, RECORDS_OF_ADDRESS.burst)] {
            let source = |number| if same_peer { one_peer(number) } else { one_address(number) };
            let (mut directory, mut store) = (directory(&bench), store());
            for number in 1..burst {
                directory.put(&mut store, source(number), wrong.clone(), now);
            }
            directory.put(&mut store, source(burst), good.clone(), now);
            assert!(store.get(&good.key).is_some(), "the last one");
            store.remove(&good.key);
            directory.put(&mut store, source(burst), good.clone(), now);
            assert!(store.get(&good.key).is_none(), "one more");
            directory.put(&mut store, (PeerId::random(), address(9)), good.clone(), now);
            assert!(store.get(&good.key).is_some(), "others are not concerned");
        }
    }

    #[test]
    fn so_many_records_of_others_are_kept_and_then_the_farthest_gives_way_to_a_nearer_one() {
        let mut bench = Bench::new(|_| {});
        let mut records: Vec<_> = (1..=4)
            .map(|number| {
                let person = bench.resident(number);
                record(&person, &entry(&bench, &person))
            })
            .collect();
        let (mut directory, mut store) = (directory(&bench), store());
        directory.most = 2;
        let place = directory.place;
        records.sort_by_key(|record| place.distance(&kad::KBucketKey::new(record.key.clone())));
        let kept = |store: &MemoryStore| {
            records.iter().map(|record| store.get(&record.key).is_some()).collect::<Vec<_>>()
        };
        for number in [1, 2, 3] {
            put(&mut directory, &mut store, records[number].clone(), &bench);
        }
        assert_eq!(kept(&store), [false, true, true, false], "two, and the third is farther away");
        put(&mut directory, &mut store, records[0].clone(), &bench);
        assert_eq!(kept(&store), [true, true, false, false]);
        assert_eq!(directory.foreign(), 2);
        // A record that has become the home's own does not count and is not evicted.
        store.put(Record { publisher: Some(PeerId::random()), ..records[1].clone() }).unwrap();
        directory.most = 1;
        store.remove(&records[0].key);
        put(&mut directory, &mut store, records[0].clone(), &bench);
        assert_eq!((kept(&store), directory.foreign()), (vec![true, true, false, false], 1));
    }

    #[test]
    fn a_home_publishes_whom_it_hosts_and_takes_it_back_when_they_leave() {
        let mut bench = Bench::new(|_| {});
        let (person, other) = (bench.resident(1), bench.resident(2));
        let mut kad = server(PeerId::random());
        let mut directory = self::directory(&bench);
        let now = (bench.now.wall, bench.now.instant);
        directory.tick(&mut kad, &mut bench.home, now);
        let published = |kad: &mut kad::Behaviour<MemoryStore>, one: &Person| {
            kad.store_mut().get(&key(one.id())).is_some()
        };
        assert!(published(&mut kad, &person) && published(&mut kad, &other));
        let order = bench.challenge(person.device);
        let departure = bench.sign(&person, bench.home.id(), order, &crate::body::Departure { to: None });
        let left = bench.ask(person.device, crate::wire::Request::Unregister(departure, None));
        assert_eq!(left, Answer::Done);
        directory.tick(&mut kad, &mut bench.home, now);
        assert!(!published(&mut kad, &person) && published(&mut kad, &other));
        // After the interval all records are published again, with a new contact.
        let before = kad.store_mut().get(&key(other.id())).unwrap().value.clone();
        bench.wait(PUBLISH_INTERVAL.as_secs() + 1);
        for _ in 0..3 {
            directory.tick(&mut kad, &mut bench.home, (bench.now.wall, bench.now.instant));
        }
        assert_ne!(kad.store_mut().get(&key(other.id())).unwrap().value, before);
    }
}
