//! What each machine has to itself: a place among the connections, a prefix of the extranonce2, a name.
//!
//! Here: how many there are and who has which. Not here: what they do with it. All are given back when they are dropped.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// The places, prefixes and names of all machines.
#[derive(Debug)]
pub struct Seats {
    max: usize,
    max_per_address: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    connections: usize,
    by_address: HashMap<IpAddr, usize>,
    prefixes: Prefixes,
    names: Names,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// For nobody.
    #[error("{0} machines are connected, no more are taken")]
    All(usize),
    /// For this address.
    #[error("{1} has {0} connections, no more are taken from there")]
    Address(usize, IpAddr),
}

/// A connection's place.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

/// A prefix that no other machine has.
#[derive(Debug)]
pub struct Prefix {
    seats: Arc<Seats>,
    number: u32,
    /// Of the widths that prefixes have had.
    generation: u64,
    /// Which work was at hand when it was given out.
    work: u64,
}

/// A machine's name, which no other has.
#[derive(Debug)]
pub struct Name {
    seats: Arc<Seats>,
    base: Arc<str>,
    number: usize,
    full: String,
}

impl Seats {
    /// Room for so many connections, in all and from one address, and for as many names besides those of devices.
    #[must_use]
    pub fn new(max: usize, max_per_address: usize, devices: impl IntoIterator<Item = String>) -> Arc<Self> {
        let names = Names { taken: devices.into_iter().collect(), ..Names::default() };
        let inner = Inner { names, ..Inner::default() };
        Arc::new(Self { max, max_per_address, inner: Mutex::new(inner) })
    }

    /// A place for a connection from an address. Loopback is not bounded on its own: it is where proxies and tunnels
    /// come from.
    ///
    /// # Errors
    /// None is free.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        let address = address.to_canonical();
        let mut inner = self.lock();
        if inner.connections >= self.max {
            return Err(Full::All(inner.connections));
        }
        let from_there = inner.by_address.get(&address).copied().unwrap_or(0);
        if from_there >= self.max_per_address && !address.is_loopback() {
            return Err(Full::Address(from_there, address));
        }
        inner.by_address.insert(address, from_there + 1);
        inner.connections += 1;
        Ok(Seat { seats: Arc::clone(self), address })
    }

    /// Work has come whose prefixes have this many bytes: other work, or the same again, whose prefixes stay spent.
    pub fn begin(&self, bytes: usize, is_same_work: bool) {
        self.lock().prefixes.begin(bytes, is_same_work);
    }

    /// A prefix for a machine. `None` where each that there is belongs to a machine, or did since the work at hand came.
    pub fn prefix(self: &Arc<Self>) -> Option<Prefix> {
        let mut inner = self.lock();
        let number = inner.prefixes.take()?;
        let Prefixes { generation, work, .. } = inner.prefixes;
        Some(Prefix { seats: Arc::clone(self), number, generation, work })
    }

    /// A name for a user's machine: the user's, with a number behind it where another machine has that. `None` where
    /// there are as many names as there may be connections.
    pub fn name(self: &Arc<Self>, user: &Arc<str>) -> Option<Name> {
        let (number, full) = self.lock().names.take(user, self.max)?;
        Some(Name { seats: Arc::clone(self), base: Arc::clone(user), number, full })
    }

    /// Connections now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().connections
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the lock")
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.seats.lock();
        inner.connections -= 1;
        if let Entry::Occupied(mut count) = inner.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Prefix {
    /// As a number: 1 or more, the first bytes of an extranonce2 that counts.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether it still has the width that prefixes have.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.generation == self.seats.lock().prefixes.generation
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        self.seats.lock().prefixes.give_back(self.number, self.generation, self.work);
    }
}

impl Name {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.full
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.seats.lock().names.give_back(&self.base, self.number, &self.full);
    }
}

/// Prefixes go round, so that one is used again as late as can be; 0 belongs to the devices here.
#[derive(Debug, Default)]
struct Prefixes {
    /// The greatest one.
    last: u32,
    generation: u64,
    work: u64,
    next: u32,
    /// How many numbers from `next` on were not looked at since the work at hand came.
    unseen: u64,
    live: HashSet<u32>,
    /// Given back during the work at hand, by those who had them before it: as many as there were machines at most.
    spent: HashSet<u32>,
}

impl Prefixes {
    fn begin(&mut self, bytes: usize, is_same_work: bool) {
        let last = match bytes {
            1..=3 => (1 << (8 * bytes)) - 1,
            _ => u32::MAX,
        };
        if last != self.last {
            (self.last, self.next) = (last, 1);
            self.generation += 1;
            self.live = HashSet::new();
        } else if is_same_work {
            return;
        }
        self.work += 1;
        self.unseen = u64::from(last);
        self.spent = HashSet::new();
    }

    fn take(&mut self) -> Option<u32> {
        while self.unseen > 0 {
            let candidate = self.next;
            self.unseen -= 1;
            self.next = if candidate == self.last { 1 } else { candidate + 1 };
            if !self.spent.contains(&candidate) && self.live.insert(candidate) {
                return Some(candidate);
            }
        }
        None
    }

    fn give_back(&mut self, number: u32, generation: u64, work: u64) {
        if generation == self.generation {
            self.live.remove(&number);
            // One that was given out during this work lies behind `next` and is not looked at again.
            if work != self.work {
                self.spent.insert(number);
            }
        }
    }
}

/// Names in use, and where to look for a free number behind each user's.
#[derive(Debug, Default)]
struct Names {
    taken: HashSet<String>,
    /// Machines of each user, and a number below which none is free.
    users: HashMap<Arc<str>, (usize, usize)>,
    machines: usize,
}

impl Names {
    fn take(&mut self, user: &Arc<str>, max: usize) -> Option<(usize, String)> {
        if self.machines >= max {
            return None;
        }
        let (machines, first) = self.users.entry(Arc::clone(user)).or_insert((0, 1));
        let mut number = *first;
        let name = loop {
            let name = if number == 1 { user.to_string() } else { format!("{user}#{number}") };
            if self.taken.insert(name.clone()) {
                break name;
            }
            number += 1;
        };
        (*machines, *first) = (*machines + 1, number + 1);
        self.machines += 1;
        Some((number, name))
    }

    fn give_back(&mut self, user: &Arc<str>, number: usize, name: &str) {
        self.taken.remove(name);
        self.machines -= 1;
        if let Some((machines, first)) = self.users.get_mut(user) {
            (*machines, *first) = (*machines - 1, number.min(*first));
            if *machines == 0 {
                self.users.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn seats() -> Arc<Seats> {
        Seats::new(1000, 1000, [])
    }

    #[test]
    fn one_address_cannot_lock_out_all_others() {
        let seats = Seats::new(5, 2, []);
        let [hog, hog_in_v6, other] =
            ["9.9.9.9", "::ffff:9.9.9.9", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let held = [seats.take(hog).unwrap(), seats.take(hog_in_v6).unwrap()];
        assert_eq!(seats.take(hog).unwrap_err(), Full::Address(2, hog));
        let _others = [seats.take(other).unwrap(), seats.take(HERE).unwrap(), seats.take(HERE).unwrap()];
        assert_eq!(seats.take(HERE).unwrap_err(), Full::All(5));
        drop(held);
        assert_eq!(seats.count(), 3);
        let _again = [seats.take(hog).unwrap(), seats.take(hog).unwrap()];
    }

    #[test]
    fn two_machines_of_one_name_are_two_and_a_name_that_is_free_again_is_used_again() {
        let seats = Seats::new(4, 4, ["cpu".to_owned()]);
        let user: Arc<str> = "rig".into();
        let [first, second, third] = [(); 3].map(|()| seats.name(&user).unwrap());
        assert_eq!([first.as_str(), second.as_str(), third.as_str()], ["rig", "rig#2", "rig#3"]);
        drop(second);
        assert_eq!(seats.name(&user).unwrap().as_str(), "rig#2");
        let odd = seats.name(&"rig#2".into()).unwrap();
        assert_eq!(odd.as_str(), "rig#2");
        let fourth = seats.name(&user).unwrap();
        assert_eq!(fourth.as_str(), "rig#4", "somebody calls himself like another's second machine");
        assert!(seats.name(&user).is_none(), "as many as connections");
        drop(odd);
        assert_eq!(seats.name(&"cpu".into()).unwrap().as_str(), "cpu#2", "a device's name is taken");
        drop((first, third, fourth));
        assert!(seats.lock().names.users.is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn a_byte_of_prefixes_does_for_255_machines_and_for_each_once_a_job() {
        let seats = seats();
        seats.begin(1, false);
        let mut live: Vec<Prefix> = (0..255).map(|_| seats.prefix().unwrap()).collect();
        assert!(seats.prefix().is_none());
        live.pop();
        assert!(seats.prefix().is_none(), "its machine has worked on the job at hand");
        seats.begin(1, true);
        assert!(seats.prefix().is_none(), "the same work again is the same job");
        seats.begin(1, false);
        assert!(seats.prefix().is_some());
        live.pop();
        assert!(seats.prefix().is_none());
    }

    #[test]
    fn prefixes_of_another_width_are_others_and_old_ones_free_none_of_them() {
        let seats = seats();
        seats.begin(1, false);
        let old = seats.prefix().unwrap();
        seats.begin(2, false);
        assert!(!old.is_current());
        let new = seats.prefix().unwrap();
        assert_eq!((old.number(), new.number()), (1, 1));
        drop(old);
        assert_eq!(seats.lock().prefixes.live.len(), 1);
        assert!(new.is_current());
    }

    proptest! {
        /// Machines come and go, jobs too; each machine works on every job that comes while it is there and on the one at
        /// hand when it comes.
        #[test]
        fn no_two_machines_ever_have_one_prefix_in_one_job(
            bytes in 1..3usize,
            events in proptest::collection::vec((0..12u8, any::<prop::sample::Index>()), 1..1500),
        ) {
            let seats = seats();
            let (mut machines, mut used) = (Vec::<Prefix>::new(), HashSet::new());
            seats.begin(bytes, false);
            for (event, index) in events {
                match event {
                    0 if !machines.is_empty() => drop(machines.swap_remove(index.index(machines.len()))),
                    1 if !machines.is_empty() => machines.truncate(index.index(machines.len())),
                    2 => {
                        seats.begin(bytes, false);
                        used = machines.iter().map(Prefix::number).collect();
                        prop_assert_eq!(used.len(), machines.len());
                    }
                    3 => seats.begin(bytes, true),
                    _ => match seats.prefix() {
                        Some(prefix) => {
                            prop_assert!(prefix.number() > 0 && prefix.number() >> (8 * bytes) == 0);
                            prop_assert!(used.insert(prefix.number()), "{} twice", prefix.number());
                            machines.push(prefix);
                        }
                        None => prop_assert_eq!(used.len(), (1 << (8 * bytes)) - 1, "all were used"),
                    },
                }
            }
        }
    }
}
