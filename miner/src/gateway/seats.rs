//! Connection places and names of machines.
//!
//! Here: how many there are, and who has which. Not here: their use, and the parts of the extranonce2
//! ([`super::prefixes`]). A place or name is given back when it is dropped.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use iop_mining::bans::host_of;

/// A host with many addresses may have this many times as many places as are left: three quarters of all if it is the
/// only one.
const HOST_SHARE: usize = 3;

/// The places and names of all machines.
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
    /// In IPv6 a host has 2^64 addresses.
    by_host: HashMap<IpAddr, usize>,
    names: Names,
}

/// The reason why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The total is reached.
    #[error("{0} machines are connected, no more are taken")]
    All(usize),
    /// The address has reached its limit.
    #[error("{1} has {0} connections, no more are taken from there")]
    Address(usize, IpAddr),
    /// The addresses of this host together have reached their limit.
    #[error("{1}/64 has {0} connections, the rest is for machines from elsewhere")]
    Host(usize, IpAddr),
}

/// A connection's place.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
    host: IpAddr,
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
    /// Allows `max` connections in all and `max_per_address` from one address, and as many names in addition to those
    /// of devices.
    #[must_use]
    pub fn new(max: usize, max_per_address: usize, devices: impl IntoIterator<Item = String>) -> Arc<Self> {
        let names = Names { taken: devices.into_iter().collect(), ..Names::default() };
        let inner = Inner { names, ..Inner::default() };
        Arc::new(Self { max, max_per_address, inner: Mutex::new(inner) })
    }

    /// Takes a place for a connection from an address. Loopback has no limit of its own: proxies and tunnels connect
    /// from there. All addresses of one host together may have as many places as a single one, and more while enough
    /// are left for others.
    ///
    /// # Errors
    /// No place is free.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        let (address, host) = (address.to_canonical(), host_of(address));
        let mut inner = self.lock();
        if inner.connections >= self.max {
            return Err(Full::All(inner.connections));
        }
        let of = |counts: &HashMap<IpAddr, usize>, whose| counts.get(whose).copied().unwrap_or(0);
        let (from_there, of_host) = (of(&inner.by_address, &address), of(&inner.by_host, &host));
        if from_there >= self.max_per_address && !address.is_loopback() {
            return Err(Full::Address(from_there, address));
        }
        let left = self.max - inner.connections;
        let is_full = of_host >= self.max_per_address && of_host >= left.saturating_mul(HOST_SHARE);
        if is_full && !address.is_loopback() {
            return Err(Full::Host(of_host, host));
        }
        inner.by_address.insert(address, from_there + 1);
        inner.by_host.insert(host, of_host + 1);
        inner.connections += 1;
        Ok(Seat { seats: Arc::clone(self), address, host })
    }

    /// A name for a user's machine: the user name, followed by a number if another machine has it. `None` if there are
    /// as many names as there may be connections, and it is not the connection's first one.
    pub fn name(self: &Arc<Self>, user: &Arc<str>, first: bool) -> Option<Name> {
        let (number, full) = self.lock().names.take(user, first, self.max)?;
        Some(Name { seats: Arc::clone(self), base: Arc::clone(user), number, full })
    }

    /// The number of connections.
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
        give_back(&mut inner.by_address, self.address);
        give_back(&mut inner.by_host, self.host);
    }
}

/// Decrements the count of this key.
fn give_back(counts: &mut HashMap<IpAddr, usize>, place: IpAddr) {
    if let Entry::Occupied(mut count) = counts.entry(place) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
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

/// Names in use, and where to start looking for a free number for each user.
#[derive(Debug, Default)]
struct Names {
    taken: HashSet<String>,
    /// Machines of each user, and a number below which none is free.
    users: HashMap<Arc<str>, (usize, usize)>,
    machines: usize,
}

impl Names {
    /// The first name of a connection is never refused, since connections themselves are limited: a connection with
    /// many names leaves one to each of the others.
    fn take(&mut self, user: &Arc<str>, first: bool, max: usize) -> Option<(usize, String)> {
        if self.machines >= max && !first {
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
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

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
    fn one_host_of_many_addresses_leaves_places_to_others_and_has_as_many_as_an_address_may_have() {
        let address = |host: u32, number: u32| -> IpAddr {
            format!("2001:db8:0:{host:x}::{number:x}").parse().unwrap()
        };
        let seats = Seats::new(100, 8, []);
        let take = |host| -> Vec<Seat> {
            (0..100).map_while(|number| seats.take(address(host, number)).ok()).collect()
        };
        let (farm, other, third) = (take(1), take(2), take(3));
        assert_eq!(
            (farm.len(), other.len(), third.len()),
            (75, 19, 6),
            "no less than 8, if there are so many"
        );
        assert_eq!(seats.take(HERE).unwrap_err(), Full::All(100));
        drop(other);
        assert_eq!(seats.take(address(1, 0)).unwrap_err(), Full::Host(75, address(1, 0)));
        let _here: Vec<_> = (0..19).map(|_| seats.take(HERE).unwrap()).collect();
        drop((farm, third));
        assert_eq!(seats.lock().by_host.len(), 1, "who is gone is forgotten");
        // If it has no more places than one address may have, there is no reserve.
        let small = Seats::new(4, 4, []);
        let _all: Vec<_> = (0..4).map(|number| small.take(address(1, number)).unwrap()).collect();
    }

    #[test]
    fn two_machines_of_one_name_are_two_and_a_name_that_is_free_again_is_used_again() {
        let seats = Seats::new(4, 4, ["cpu".to_owned()]);
        let user: Arc<str> = "rig".into();
        let [first, second, third] = [(); 3].map(|()| seats.name(&user, false).unwrap());
        assert_eq!([first.as_str(), second.as_str(), third.as_str()], ["rig", "rig#2", "rig#3"]);
        drop(second);
        assert_eq!(seats.name(&user, false).unwrap().as_str(), "rig#2");
        let odd = seats.name(&"rig#2".into(), false).unwrap();
        assert_eq!(odd.as_str(), "rig#2");
        let fourth = seats.name(&user, false).unwrap();
        assert_eq!(fourth.as_str(), "rig#4", "somebody calls himself like another's second machine");
        assert!(seats.name(&user, false).is_none(), "as many as connections");
        assert!(seats.name(&"late".into(), true).is_some(), "whoever is here has one name");
        drop(odd);
        assert_eq!(seats.name(&"cpu".into(), false).unwrap().as_str(), "cpu#2", "a device's name is taken");
        drop((first, third, fourth));
        assert!(seats.lock().names.users.is_empty(), "who is gone is forgotten");
    }
}
