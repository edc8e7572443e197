//! The table's limits, its slot conflicts, and its consistency after any sequence of events.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_600_000_000;

impl AddressTable {
    /// Checks that all indexes agree (Core's `Check_`).
    pub(in super::super) fn check(&self) {
        let ids: BTreeSet<u32> = self.shuffled.iter().copied().collect();
        assert_eq!(ids.len(), self.shuffled.len());
        assert_eq!(self.entries.iter().flatten().count(), ids.len());
        assert_eq!(self.entries.len(), ids.len() + self.free.len());
        assert_eq!(self.by_ip.len(), ids.len());
        let mut in_new = BTreeMap::<u32, u8>::new();
        for (bucket, id) in self.new.holders() {
            *in_new.entry(id).or_default() += 1;
            let place = self.placement.new_place(bucket, &self.entry(id).address);
            assert_eq!(self.new.get(bucket, place), Some(id));
        }
        let tried: BTreeMap<u32, usize> = self.tried.holders().map(|(bucket, id)| (id, bucket)).collect();
        assert_eq!(tried.len(), self.tried_count);
        for (at, id) in self.shuffled.iter().enumerate() {
            let entry = self.entry(*id);
            assert_eq!(entry.shuffled_at as usize, at);
            assert_eq!(self.by_ip[&entry.address.ip], *id);
            assert_eq!(in_new.get(id).copied().unwrap_or(0), entry.in_new);
            assert_eq!(tried.contains_key(id), entry.tried);
            assert!(entry.tried != (1..=NEW_BUCKETS_PER_ADDRESS).contains(&entry.in_new));
            if entry.tried {
                let (bucket, place) = self.placement.tried_place(&entry.address);
                assert_eq!(self.tried.get(bucket, place), Some(*id));
            }
        }
        assert!(self.tried_count <= TRIED_BUCKETS * BUCKET_SIZE);
        assert!(self.len() - self.tried_count <= NEW_BUCKETS * BUCKET_SIZE);
    }
}

fn table() -> AddressTable {
    AddressTable::new([3; 32])
}

fn at(ip: u32) -> NetAddress {
    SocketAddr::from((Ipv4Addr::from(ip), 4877)).into()
}

fn at_port(ip: u32, port: u16) -> NetAddress {
    NetAddress { port, ..at(ip) }
}

fn heard(ip: u32) -> TimedAddress {
    TimedAddress { address: at(ip), services: 1, time: NOW }
}

/// Sources in many groups.
fn far(n: u32) -> NetAddress {
    at(0x1000_0000 + n % 20_000 * 104_729)
}

#[test]
fn what_is_heard_is_new_and_what_answered_is_tried() {
    let mut table = table();
    assert_eq!(table.select(false, NOW), None);
    assert!(table.add(&heard(0x0808_0808), at(0x0101_0101).ip, 0, NOW));
    assert!(!table.add(&heard(0x0808_0808), at(0x0101_0101).ip, 0, NOW), "known");
    assert!(!table.add(&heard(0x0a00_0001), at(0x0101_0101).ip, 0, NOW), "not routable");
    assert_eq!(table.select(true, NOW).unwrap().address, at(0x0808_0808));
    table.good(&NetAddress { port: 1, ..at(0x0808_0808) }, NOW);
    assert_eq!((table.len(), table.tried()), (1, 0), "another port is another node");
    table.good(&at(0x0808_0808), NOW);
    table.check();
    assert_eq!((table.len(), table.tried()), (1, 1));
    assert_eq!(table.select(true, NOW), None);
    assert_eq!(table.select(false, NOW + DAY).unwrap().address, at(0x0808_0808));
}

/// An address is identified by its IP alone. Slots that belonged to another port were left behind when the address
/// became tried, and a later conflict over such a slot crashed the node.
#[test]
fn an_address_told_of_under_many_ports_stands_in_the_places_of_its_own_port() {
    let mut table = table();
    let (ip, source) = (0x0909_0909, at(0x0909_0909).ip);
    for port in 0..40 {
        let (address, time) = (at_port(ip, 4_877 + port), NOW - 31 * DAY + u64::from(port));
        table.add(&TimedAddress { address, services: 1, time }, source, 0, NOW);
    }
    table.check();
    table.good(&at(ip), NOW);
    table.check();
    assert_eq!((table.len(), table.tried()), (1, 1));
    for n in 0..8_000 {
        table.add(&heard(0x1000_0000 + n * 1_031), source, 0, NOW);
    }
    table.check();
}

/// One group of sources can fill 64 buckets of 64 slots: here 250,000 addresses of 250 groups are added.
#[test]
fn one_source_fills_a_sixteenth_of_the_table_at_most() {
    let mut table = table();
    let source = at(0x0909_0909).ip;
    for n in 0..250_000u32 {
        table.add(&heard(0x1000_0000 + n * 1_031), source, 0, NOW);
    }
    table.check();
    assert!(table.len() <= 4_096, "{}", table.len());
    assert!(table.len() > 3_500, "{}", table.len());
    let buckets: BTreeSet<usize> = table.new.holders().map(|(bucket, _)| bucket).collect();
    assert!(buckets.len() <= 64);
}

#[test]
fn a_full_table_stays_within_its_places_and_its_memory() {
    let mut table = table();
    for n in 0..400_000u32 {
        let address = heard(0x1000_0000 + n * 2_621);
        table.add(&address, far(n).ip, 0, NOW);
        if n < 25_000 {
            table.good(&address.address, NOW);
        }
    }
    table.check();
    assert!(table.tried() > 11_000 && table.len() > 70_000, "{} {}", table.tried(), table.len());
    let places = 4 * MAX_ADDRESSES;
    let entries = table.entries.capacity() * size_of::<Option<Entry>>();
    let lists = 4 * (table.shuffled.capacity() + table.free.capacity());
    // A hash map has a control byte per slot and is at most 7/8 full.
    let index = table.by_ip.capacity() * 8 / 7 * (size_of::<(Ip, u32)>() + 1);
    let bytes = places + entries + lists + index;
    assert!(bytes <= MAX_MEMORY, "{bytes} of {MAX_MEMORY}");
    println!("a full table: {} addresses, {} tried, {bytes} bytes", table.len(), table.tried());
}

#[test]
fn an_address_that_fails_is_chosen_less_and_forgotten_first() {
    let mut table = table();
    let (bad, good) = (at(0x0808_0808), at(0x0909_0909));
    for address in [bad, good] {
        table.add(&TimedAddress { address, services: 1, time: NOW }, at(0x0101_0101).ip, 0, NOW);
    }
    for n in 1..=3 {
        // Each failure counts, since another address was good before it.
        table.attempt(&bad, true, NOW + n * HOUR);
        table.attempt(&bad, true, NOW + n * HOUR + 1);
        table.good(&at(0x0b0b_0b0b), NOW + n * HOUR + 2);
    }
    let now = NOW + 5 * HOUR;
    let id = table.find(&bad).unwrap();
    assert_eq!(table.entry(id).failures, 3);
    assert!(table.entry(id).is_terrible(now));
    let of_bad = (0..1_000).filter(|_| table.select(false, now).unwrap().address == bad).count();
    assert!((100..400).contains(&of_bad), "0.29 against 1: {of_bad} of 1,000");
    table.attempt(&bad, true, now);
    assert!(!table.entry(id).is_terrible(now), "tried in the last minute");
    let of_bad = (0..1_000).filter(|_| table.select(false, now).unwrap().address == bad).count();
    assert!(of_bad < 50, "{of_bad} of 1,000");
}

#[test]
fn times_of_hearsay_are_put_back_and_brought_forward_with_care() {
    let mut table = table();
    let (address, source) = (at(0x0808_0808), at(0x0101_0101).ip);
    let tell = |table: &mut AddressTable, source, time| {
        table.add(&TimedAddress { address, services: 4, time }, source, 2 * HOUR, NOW);
        let id = table.find(&address).unwrap();
        table.entry(id).time
    };
    assert_eq!(tell(&mut table, source, NOW - 3 * DAY), NOW - 3 * DAY - 2 * HOUR);
    assert_eq!(tell(&mut table, source, NOW - 3 * DAY + HOUR), NOW - 3 * DAY - 2 * HOUR, "little news");
    assert_eq!(tell(&mut table, source, NOW - HOUR), NOW - 3 * HOUR);
    assert_eq!(tell(&mut table, address.ip, NOW), NOW, "of itself");
    table.connected(&address, NOW + HOUR);
    assert_eq!(table.entry(table.find(&address).unwrap()).time, NOW + HOUR);
}

#[test]
fn getaddr_gets_a_part_without_the_terrible() {
    let mut table = table();
    for n in 0..20_000u32 {
        let old = if n % 2 == 0 { NOW } else { NOW - 31 * DAY };
        let address = TimedAddress { time: old, ..heard(0x1000_0000 + n * 65_537) };
        table.add(&address, far(n).ip, 0, NOW);
    }
    let known = table.len();
    assert!(known > 12_000);
    let (first, second) = (table.sample(NOW), table.sample(NOW));
    table.check();
    assert_eq!(first.len(), 2_500);
    assert!(first.iter().all(|address| address.time == NOW));
    let distinct: BTreeSet<_> = first.iter().map(|found| found.address).collect();
    assert_eq!(distinct.len(), first.len());
    assert_ne!(first, second);
    let mut small = super::AddressTable::new([1; 32]);
    for n in 0..100 {
        small.add(&heard(0x1000_0000 + n * 65_537), far(n).ip, 0, NOW);
    }
    assert_eq!(small.sample(NOW).len(), small.len() * 23 / 100);
}

#[derive(Debug, Clone)]
enum Event {
    Add { address: NetAddress, source: u32, age: u64 },
    Good(NetAddress),
    Attempt(NetAddress),
    Connected(u32),
    Select,
    Sample,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    // Few groups, so that there are few buckets and many conflicts.
    let ip = || (0..4u32, 0..300u32).prop_map(|(group, host)| 0x0800_0000 + (group << 16) + host);
    let address = || (ip(), 4_877..4_880u16).prop_map(|(ip, port)| at_port(ip, port));
    prop_oneof![
        10 => (address(), ip(), 0..40 * DAY)
            .prop_map(|(address, source, age)| Event::Add { address, source, age }),
        4 => address().prop_map(Event::Good),
        3 => address().prop_map(Event::Attempt),
        1 => ip().prop_map(Event::Connected),
        1 => Just(Event::Select),
        1 => Just(Event::Sample),
        1 => (0..3 * DAY).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_index_agrees_after_any_events(events in prop::collection::vec(event(), 1..1_500)) {
        let (mut table, mut now) = (table(), NOW);
        for event in events {
            match event {
                Event::Add { address, source, age } => {
                    let told = TimedAddress { address, services: 1, time: now - age };
                    table.add(&told, at(source).ip, 0, now);
                }
                Event::Good(address) => table.good(&address, now),
                Event::Attempt(address) => table.attempt(&address, true, now),
                Event::Connected(ip) => table.connected(&at(ip), now),
                Event::Select => prop_assert_eq!(table.select(false, now).is_none(), table.is_empty()),
                Event::Sample => prop_assert!(table.sample(now).len() <= table.len() * 23 / 100),
                Event::Wait(seconds) => now += seconds,
            }
        }
        table.check();
    }
}
