//! Assignment of the prefixes, which are the first bytes of the extranonce2, to machines.
//!
//! Here: who has which prefix, the limits per host, and when a prefix may be reused. Not here: their width
//! ([`crate::split`]), and their use by machines. A prefix is given back when it is dropped.
//!
//! A prefix under which a job was announced is spent for that job's work: another machine with it would hash the same
//! headers. For other work it is free again; works are remembered, as an upstream may return to one. A prefix without
//! an announced job is free at once. Prefixes are assigned in a cycle, so that one is reused as late as possible; 0
//! belongs to the local devices.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use iop_mining::bans::{host_of, is_this_machine};

/// The most works remembered, the newest ones: eight minutes at a job every half minute. If one is repeated, all
/// prefixes spent since it was new count as spent for it.
const MAX_WORKS: usize = 16;
/// Most prefixes assigned for one work; four times the greatest number of machines. Each is remembered, in some 40
/// bytes, until the last work that it was used for is forgotten.
const MAX_USED: u32 = 1 << 18;
/// A host may have this many times as many as are left: three quarters of all if it is the only one.
const HOST_SHARE: u32 = 3;
/// The last eighth is for hosts that have less than a 64th, so that it takes many hosts to lock others out.
const RESERVE: u32 = 8;
const FEW: u32 = 64;

/// Identifies the headers of a prefix: those of two works are different. A hash of everything that a job's headers are
/// made of, except time and version, which machines may roll.
pub type WorkHash = [u8; 32];

/// The prefixes of all machines.
#[derive(Debug, Default)]
pub struct Prefixes {
    /// By width in bytes: upstreams change, and may change back.
    pools: Mutex<HashMap<usize, Pool>>,
}

/// The reason why there is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Spent {
    /// All are used.
    #[error(
        "the upstream's extranonces have no room for another machine before its next job; if they have 4 or 5 bytes, that \
         is 255 machines, and many more with a --max-machines above 255"
    )]
    All,
    /// The host has reached its limit.
    #[error("{1} has {0} parts of the upstream's extranonces, the rest is for machines from elsewhere")]
    Host(u32, IpAddr),
}

/// A prefix that no other machine has.
#[derive(Debug)]
pub struct Prefix {
    prefixes: Arc<Prefixes>,
    bytes: usize,
    number: u32,
    /// The latest work for which a job was announced with it.
    told: Option<u64>,
}

impl Prefixes {
    /// Starts a work with prefixes of this width. Returns its number: numbers increase, and a repeated work keeps its
    /// number.
    pub fn begin(&self, bytes: usize, work: &WorkHash) -> u64 {
        self.lock().entry(bytes).or_insert_with(|| Pool::new(bytes)).begin(work)
    }

    /// Takes a prefix of this width for a machine that is about to get a job of this work. Loopback has no limit:
    /// proxies and tunnels connect from there.
    ///
    /// # Errors
    /// None is left, or none for this host.
    pub fn take(self: &Arc<Self>, host: IpAddr, bytes: usize, work: u64) -> Result<Prefix, Spent> {
        let number = self.lock().get_mut(&bytes).ok_or(Spent::All)?.take(host, work)?;
        Ok(Prefix { prefixes: Arc::clone(self), bytes, number, told: None })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Pool>> {
        self.pools.lock().expect("nothing panics while it holds the lock")
    }
}

impl Prefix {
    /// Its number, 1 or more: the first bytes of the extranonce2, big-endian.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether jobs of this work may be announced with it: it has the right width, and no other machine has had it for
    /// this work, which may be a repeated one.
    #[must_use]
    pub fn fits(&self, bytes: usize, work: u64) -> bool {
        let pools = self.prefixes.lock();
        let pool = pools.get(&bytes).filter(|_| bytes == self.bytes);
        pool.is_some_and(|pool| !pool.is_spent(self.number, work))
    }

    /// Records that a job of this work was announced with it.
    pub fn tell(&mut self, work: u64) {
        self.told = self.told.max(Some(work));
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        if let Some(pool) = self.prefixes.lock().get_mut(&self.bytes) {
            pool.give_back(self.number, self.told);
        }
    }
}

/// Prefixes of one width.
#[derive(Debug, Default)]
struct Pool {
    /// The greatest prefix.
    last: u32,
    next: u32,
    /// The newest works with their numbers, oldest first.
    works: VecDeque<(WorkHash, u64)>,
    /// Numbers of the newest work and of the current one, which is lower if it was repeated.
    newest: u64,
    current: u64,
    /// Prefixes in use, with their hosts.
    live: HashMap<u32, IpAddr>,
    /// Prefixes given back after a job was announced with them: the latest such work, and their hosts.
    spent: HashMap<u32, (u64, IpAddr)>,
    /// Prefixes that each host uses or has spent for the current work; and their total.
    by_host: HashMap<IpAddr, u32>,
    used: u32,
}

impl Pool {
    fn new(bytes: usize) -> Self {
        Self { last: if bytes < 4 { (1 << (8 * bytes)) - 1 } else { u32::MAX }, next: 1, ..Self::default() }
    }

    fn begin(&mut self, work: &WorkHash) -> u64 {
        if let Some((_, number)) = self.works.iter().find(|(known, _)| known == work) {
            if *number == self.current {
                return self.current;
            }
            self.current = *number;
        } else {
            self.newest += 1;
            self.current = self.newest;
            self.works.push_back((*work, self.newest));
            // With few works, spent prefixes are remembered for long; in a rush, for less.
            while self.works.len() > MAX_WORKS || self.works.len() > 1 && self.spent.len() > MAX_USED as usize
            {
                self.works.pop_front();
                let oldest = self.works[0].1;
                self.spent.retain(|_, (last, _)| *last >= oldest);
            }
        }
        self.count();
        self.current
    }

    /// Recounts the prefixes per host for the current work.
    fn count(&mut self) {
        self.by_host.clear();
        let current = self.current;
        let spent = self.spent.values().filter(|(work, _)| *work >= current).map(|(_, host)| host);
        self.used = 0;
        for host in self.live.values().chain(spent) {
            *self.by_host.entry(*host).or_default() += 1;
            self.used += 1;
        }
    }

    /// Whether a machine that is gone may have used it for this work. Only the latest such work is known, which errs on
    /// the safe side.
    fn is_spent(&self, number: u32, work: u64) -> bool {
        self.spent.get(&number).is_some_and(|(last, _)| *last >= work)
    }

    fn take(&mut self, host: IpAddr, work: u64) -> Result<u32, Spent> {
        let place = host_of(host);
        let all = self.last.min(MAX_USED);
        let left = all.saturating_sub(self.used);
        let has = self.by_host.get(&place).copied().unwrap_or(0);
        if left == 0 {
            return Err(Spent::All);
        }
        let is_full = has >= left.saturating_mul(HOST_SHARE) || left <= all / RESERVE;
        if is_full && has > all / FEW && !is_this_machine(host) {
            return Err(Spent::Host(has, host));
        }
        // The current job may have changed since the caller looked at it.
        let work = work.min(self.current);
        for _ in 0..self.last {
            let number = self.next;
            self.next = if number == self.last { 1 } else { number + 1 };
            if !self.is_spent(number, work)
                && let Entry::Vacant(free) = self.live.entry(number)
            {
                free.insert(place);
                *self.by_host.entry(place).or_default() += 1;
                self.used += 1;
                return Ok(number);
            }
        }
        Err(Spent::All)
    }

    fn give_back(&mut self, number: u32, told: Option<u64>) {
        let Some(host) = self.live.remove(&number) else { return };
        // Two hosts are counted for it if a repeated work had it under another host.
        let was_spent = self.is_spent(number, self.current);
        if let Some(told) = told {
            let spent = self.spent.entry(number).or_insert((told, host));
            spent.0 = spent.0.max(told);
            if !was_spent {
                spent.1 = host;
            }
        }
        // Otherwise it remains counted, as spent.
        if was_spent || !self.is_spent(number, self.current) {
            self.used -= 1;
            if let Entry::Occupied(mut count) = self.by_host.entry(host) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
