#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

fn work(number: u8) -> WorkHash {
    [number; 32]
}

/// Prefixes of one byte, and a current work.
fn of_a_byte() -> (Arc<Prefixes>, u64) {
    let prefixes = Arc::<Prefixes>::default();
    let first = prefixes.begin(1, &work(0));
    (prefixes, first)
}

/// Takes a prefix and announces a job with it.
fn told(prefixes: &Arc<Prefixes>, host: IpAddr, work: u64) -> Result<Prefix, Spent> {
    let mut prefix = prefixes.take(host, 1, work)?;
    prefix.tell(work);
    Ok(prefix)
}

#[test]
fn a_byte_does_for_255_machines_and_what_a_job_was_announced_with_is_spent_until_the_next() {
    let (prefixes, first) = of_a_byte();
    let mut live: Vec<Prefix> = (0..255).map(|_| told(&prefixes, HERE, first).unwrap()).collect();
    assert_eq!(prefixes.take(HERE, 1, first).unwrap_err(), Spent::All);
    live.pop();
    assert_eq!(prefixes.take(HERE, 1, first).unwrap_err(), Spent::All, "its machine has worked");
    assert_eq!(prefixes.begin(1, &work(0)), first, "the same work again is the same");
    assert_eq!(prefixes.take(HERE, 1, first).unwrap_err(), Spent::All);
    let second = prefixes.begin(1, &work(1));
    let again = told(&prefixes, HERE, second).unwrap();
    assert_eq!(prefixes.take(HERE, 1, second).unwrap_err(), Spent::All);
    drop(live);
    let held: Vec<Prefix> = (0..254).map(|_| told(&prefixes, HERE, second).unwrap()).collect();
    assert!(held.iter().all(|prefix| prefix.number() != again.number()), "those of before were free at once");
}

#[test]
fn what_no_job_was_announced_with_is_free_at_once() {
    let (prefixes, first) = of_a_byte();
    for _ in 0..10_000 {
        drop(prefixes.take(host(1), 1, first).unwrap());
    }
    // The upstream's extranonces changed: a machine that must reconnect gives its prefix back first.
    let all = || (0..255).map(|_| prefixes.take(HERE, 1, first).unwrap());
    let mut live: Vec<Prefix> = all().collect();
    for number in 1..100 {
        live.iter_mut().for_each(|prefix| prefix.tell(first));
        let next = prefixes.begin(1, &work(number));
        live = live
            .into_iter()
            .map(|old| {
                drop(old);
                prefixes.take(HERE, 1, next).unwrap()
            })
            .collect();
    }
}

#[test]
fn a_host_has_three_quarters_of_what_others_leave_however_often_it_comes() {
    let (prefixes, first) = of_a_byte();
    let refused = (0..1000).find_map(|_| told(&prefixes, host(1), first).err());
    assert_eq!(
        refused,
        Some(Spent::Host(192, host(1))),
        "three times the 63 that are left, and the one above"
    );
    let most = |from: IpAddr| std::iter::from_fn(|| told(&prefixes, from, first).ok()).collect::<Vec<_>>();
    let second = most(host(2));
    assert_eq!(second.len(), 63 - 31);
    for late in 3..9 {
        assert_eq!(most(host(late)).len(), 4, "number {late} finds some");
    }
    let next = prefixes.begin(1, &work(1));
    assert!(told(&prefixes, host(1), next).is_ok(), "with other work it begins anew");
}

#[test]
fn neighbours_in_ipv6_are_one_host_and_this_machine_is_no_host() {
    let (prefixes, first) = of_a_byte();
    let address = |number| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number));
    let held: Vec<_> = (0..1000).map_while(|number| told(&prefixes, address(number), first).ok()).collect();
    assert_eq!(held.len(), 192);
    let rest: Vec<_> = (0..63).map(|_| told(&prefixes, HERE, first).unwrap()).collect();
    assert_eq!(rest.len(), 63);
}

#[test]
fn widths_have_prefixes_of_their_own_also_when_they_come_back() {
    let (prefixes, first) = of_a_byte();
    let old = told(&prefixes, HERE, first).unwrap();
    let wide = prefixes.begin(2, &work(1));
    assert!(!old.fits(2, wide));
    let new = prefixes.take(HERE, 2, wide).unwrap();
    assert_eq!((old.number(), new.number()), (1, 1));
    drop(old);
    assert!(new.fits(2, wide));
    let again = prefixes.begin(1, &work(0));
    let held: Vec<_> = (0..254).map(|_| told(&prefixes, HERE, again).unwrap().number()).collect();
    assert!(!held.contains(&1), "it was had in this work");
    assert_eq!(prefixes.take(HERE, 1, again).unwrap_err(), Spent::All);
}

#[test]
fn what_is_remembered_is_bounded() {
    let prefixes = Arc::<Prefixes>::default();
    for number in 0..3 {
        let work = prefixes.begin(4, &work(number));
        let count = (0..)
            .map_while(|_| prefixes.take(HERE, 4, work).ok())
            .map(|mut prefix| prefix.tell(work))
            .count();
        assert_eq!(count, MAX_USED as usize);
        let pools = prefixes.lock();
        assert!(pools[&4].spent.len() <= 2 * MAX_USED as usize && pools[&4].works.len() <= 2);
    }
}

/// A machine: its prefix and its number.
struct Machine {
    prefix: Prefix,
    number: usize,
}

/// The machine that had each prefix in each work.
#[derive(Default)]
struct Had(HashMap<(usize, u8, u32), usize>);

impl Had {
    fn announce(&mut self, machine: &mut Machine, bytes: usize, key: u8, work: u64) {
        let before = self.0.insert((bytes, key, machine.prefix.number()), machine.number);
        assert!(before.is_none_or(|before| before == machine.number), "{} twice", machine.prefix.number());
        machine.prefix.tell(work);
    }
}

proptest! {
    /// Machines and works come and go, and works may repeat; each machine works on each work that comes while it is
    /// present and on the current one when it joins, unless it leaves first.
    #[test]
    fn no_two_machines_ever_have_one_prefix_in_one_work(
        events in proptest::collection::vec((0..16u8, any::<prop::sample::Index>()), 1..1500),
    ) {
        let prefixes = Arc::<Prefixes>::default();
        let (mut machines, mut had, mut count) = (Vec::<Machine>::new(), Had::default(), 0);
        let (mut bytes, mut key, mut newest) = (1, 0, 0u8);
        let mut at_hand = prefixes.begin(bytes, &work(key));
        for (event, index) in events {
            match event {
                0 if !machines.is_empty() => drop(machines.swap_remove(index.index(machines.len()))),
                1 if !machines.is_empty() => machines.truncate(index.index(machines.len())),
                2..=4 => {
                    if event == 2 {
                        newest = newest.wrapping_add(1);
                        key = newest;
                    } else {
                        // One of the last few, possibly the current one.
                        key = newest.saturating_sub(index.index(6) as u8);
                        bytes = if event == 4 { 3 - bytes } else { bytes };
                    }
                    at_hand = prefixes.begin(bytes, &work(key));
                    for mut machine in std::mem::take(&mut machines) {
                        if !machine.prefix.fits(bytes, at_hand) {
                            drop(machine.prefix);
                            let Ok(prefix) = prefixes.take(HERE, bytes, at_hand) else { continue };
                            count += 1;
                            machine = Machine { prefix, number: count };
                        }
                        had.announce(&mut machine, bytes, key, at_hand);
                        machines.push(machine);
                    }
                }
                _ => if let Ok(prefix) = prefixes.take(host(event % 3), bytes, at_hand) {
                    count += 1;
                    let mut machine = Machine { prefix, number: count };
                    if event > 5 {
                        had.announce(&mut machine, bytes, key, at_hand);
                        machines.push(machine);
                    }
                },
            }
            let numbers: HashSet<_> = machines.iter().map(|machine| (machine.prefix.bytes, machine.prefix.number())).collect();
            prop_assert_eq!(numbers.len(), machines.len());
            prop_assert!(!numbers.iter().any(|(bytes, number)| *number == 0 || number >> (8 * bytes) != 0));
            for pool in prefixes.lock().values() {
                prop_assert_eq!(pool.used, pool.by_host.values().sum::<u32>());
                let spent = pool.spent.values().filter(|(work, _)| *work >= pool.current).count();
                prop_assert_eq!(pool.used as usize, pool.live.len() + spent);
            }
        }
    }
}
