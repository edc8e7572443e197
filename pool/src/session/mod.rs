//! Stratum connections.
//!
//! Here: the listener ([`listener`]), the task of a connection and the state it shares ([`connection`]), byte transport
//! with its limits (`link`, [`limits`], [`tls`]), and the pool's half of the dialogue with a miner ([`miner`], without
//! any socket). Not here: the protocol's messages (`iop-stratum`), the verdict on a share ([`crate::judge`]). Path:
//! socket → lines → [`miner::Miner`] → verdict, counters, perhaps a block; snapshot → [`round`] → job → all sockets.

pub mod connection;
pub mod limits;
mod link;
pub mod listener;
pub mod miner;
mod pace;
pub mod round;
pub mod tls;
mod user;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use iop_consensus::address::Prefixes;
use iop_mining::bans::{Bans, Offence, host_of};
use tokio::sync::watch;
use tracing::info;

use crate::blocks::Blocks;
use crate::config::DifficultyBounds;
use crate::follow::Snapshot;
use crate::job::{JobNumbers, random};
use crate::ledger::Ledger;
use crate::session::round::Round;
use crate::workers::Workers;

/// State shared by all connections.
#[derive(Debug)]
pub struct Shared {
    /// The network's address prefixes.
    pub prefixes: Prefixes,
    /// The start difficulty and the bounds.
    pub difficulty: DifficultyBounds,
    /// The seconds between shares that vardiff aims at. If `None`, a connection's difficulty is the one its client
    /// suggests.
    pub vardiff: Option<f64>,
    /// Limits of each connection.
    pub limits: limits::Limits,
    /// Addresses that are banned.
    pub bans: Bans,
    /// Says that clients speak plain TCP where TLS is expected.
    pub plain_hint: tls::PlainHint,
    /// Numbers for variants of jobs.
    pub numbers: Arc<JobNumbers>,
    /// The latest work from the follower.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Share counters of all workers.
    pub workers: Workers,
    /// Found blocks.
    pub blocks: Arc<Blocks>,
    /// The share log and what follows from it.
    pub ledger: Arc<Ledger>,
    /// Connections in use and their extranonces.
    pub slots: Arc<Slots>,
    /// The connections that are told of new work.
    pub round: Round,
}

impl Shared {
    /// Counts an offence of an address, and logs the ban if that causes one.
    pub fn offend(&self, ip: IpAddr, offence: Offence) {
        if let Some(time) = self.bans.offend(ip, offence, Instant::now()) {
            info!("{ip} is banned for {} s, the last of its offences: {offence:?}", time.as_secs());
        }
    }
}

/// Connection slots, each with an extranonce1 that no other live connection has.
#[derive(Debug)]
pub struct Slots {
    max: usize,
    max_per_ip: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    live: HashSet<u32>,
    by_host: HashMap<IpAddr, usize>,
    next: u32,
}

/// A connection's slot. It is freed when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    extranonce1: u32,
    host: IpAddr,
}

/// Why there is no free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The pool's total is reached.
    #[error("{0} connections, no more are taken")]
    All(usize),
    /// The limit for this address and its neighbours is reached.
    #[error("{1} has {0} connections, no more are taken from there")]
    Address(usize, IpAddr),
}

impl Slots {
    /// Allows `max` connections at a time in all and `max_per_ip` from one host ([`host_of`]). The first extranonce1 is
    /// random, so that pools with the same license, and runs of one pool, do not hand out the same ones.
    #[must_use]
    pub fn new(max: usize, max_per_ip: usize) -> Arc<Self> {
        let taken = Taken { live: HashSet::new(), by_host: HashMap::new(), next: random() };
        Arc::new(Self { max, max_per_ip, taken: Mutex::new(taken) })
    }

    /// Takes a slot for a connection from `ip`. Extranonces are assigned in a cycle, so that one is reused as late as
    /// possible. Loopback has no per-host limit: proxies and tunnels connect from there.
    ///
    /// # Errors
    /// No slot is free.
    pub fn take(self: &Arc<Self>, ip: IpAddr) -> Result<Slot, Full> {
        let (ip, host) = (ip.to_canonical(), host_of(ip));
        let mut taken = self.taken.lock().expect("no panic while the lock is held");
        let Taken { live, by_host, next } = &mut *taken;
        if live.len() >= self.max {
            return Err(Full::All(live.len()));
        }
        let from_there = by_host.get(&host).copied().unwrap_or(0);
        if from_there >= self.max_per_ip && !ip.is_loopback() {
            return Err(Full::Address(from_there, ip));
        }
        by_host.insert(host, from_there + 1);
        let extranonce1 = loop {
            let candidate = *next;
            *next = next.wrapping_add(1);
            if live.insert(candidate) {
                break candidate;
            }
        };
        Ok(Slot { slots: Arc::clone(self), extranonce1, host })
    }

    /// The number of connections.
    #[must_use]
    pub fn count(&self) -> usize {
        self.taken.lock().expect("no panic while the lock is held").live.len()
    }
}

impl Slot {
    /// The extranonce1 of this connection.
    #[must_use]
    pub fn extranonce1(&self) -> u32 {
        self.extranonce1
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().expect("no panic while the lock is held");
        taken.live.remove(&self.extranonce1);
        if let Entry::Occupied(mut count) = taken.by_host.entry(self.host) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
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
    fn no_two_live_connections_share_an_extranonce() {
        let slots = Slots::new(3, 1);
        slots.taken.lock().unwrap().next = u32::MAX;
        let live: Vec<Slot> = (0..3).map(|_| slots.take(HERE).unwrap()).collect();
        assert_eq!(live.iter().map(Slot::extranonce1).collect::<Vec<_>>(), [u32::MAX, 0, 1]);
        assert_eq!(slots.take(HERE).unwrap_err(), Full::All(3));
        assert_eq!(slots.count(), 3);
        drop(live);
        assert_eq!(slots.count(), 0);
        let kept = slots.take(HERE).unwrap();
        slots.taken.lock().unwrap().next = kept.extranonce1();
        assert_ne!(slots.take(HERE).unwrap().extranonce1(), kept.extranonce1());
    }

    #[test]
    fn pools_begin_at_different_extranonces() {
        let first = |_| Slots::new(1, 1).take(HERE).unwrap().extranonce1();
        let firsts: HashSet<u32> = (0..4).map(first).collect();
        assert!(firsts.len() > 1, "{firsts:x?}");
    }

    #[test]
    fn one_address_cannot_lock_out_all_others() {
        let slots = Slots::new(5, 2);
        let [hog, hog_in_v6, other] =
            ["9.9.9.9", "::ffff:9.9.9.9", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let held = [slots.take(hog).unwrap(), slots.take(hog_in_v6).unwrap()];
        assert_eq!(slots.take(hog).unwrap_err(), Full::Address(2, hog));
        let _others = [slots.take(other).unwrap(), slots.take(HERE).unwrap()];
        drop(held);
        let again = [slots.take(hog).unwrap(), slots.take(hog).unwrap()];
        assert!(slots.take(hog).is_err());
        drop(again);
        assert_eq!(slots.taken.lock().unwrap().by_host.len(), 2, "who is gone is forgotten");
    }

    #[test]
    fn one_subscriber_of_ipv6_is_one_however_many_addresses_it_has() {
        let slots = Slots::new(10, 2);
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let held = ["2001:db8:1:1::1", "2001:db8:1:1:ffff::2"].map(|ip| slots.take(at(ip)).unwrap());
        let third = at("2001:db8:1:1:1:2:3:4");
        assert_eq!(slots.take(third).unwrap_err(), Full::Address(2, third));
        let _neighbour = slots.take(at("2001:db8:1:2::1")).unwrap();
        let _loopback = [(); 5].map(|()| slots.take(at("::1")).unwrap());
        drop(held);
        slots.take(third).unwrap();
    }
}
