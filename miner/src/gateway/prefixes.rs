//! Which machine has which part of the extranonce2: its first bytes, the prefix.
//!
//! Here: who has which prefix, who may have another one, and when one may be given out again. Not here: how wide they are
//! ([`crate::split`]), what machines do with them. They are given back when they are dropped.
//!
//! One that a job was announced with is spent for that job's work: machines of one prefix would hash the same headers. With
//! other work it is free again; works are remembered, as an upstream may come back to one. One that no job was announced
//! with is free at once. Prefixes go round, so that one is used again as late as can be; 0 belongs to the devices here.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use iop_mining::bans::{host_of, is_this_machine};

/// Works that are remembered, the latest that were new: with a job every half minute, eight minutes of them. When one
/// comes again, what was spent since it was new is taken for spent in it.
const MAX_WORKS: usize = 16;
/// Prefixes that are given out for one work, where there are more; four times as many as there may be machines. Each is
/// remembered, some 40 bytes, until the last work that it was used in is forgotten.
const MAX_USED: u32 = 1 << 18;
/// A host may have so many times as many as it leaves: three quarters of all where it is the only one.
const HOST_SHARE: u32 = 3;
/// The last eighth is for hosts that have less than a 64th, so that it takes many hosts to lock others out.
const RESERVE: u32 = 8;
const FEW: u32 = 64;

/// All headers that a prefix stands for: those of two works are different. A hash of what a job's headers are made of, but
/// for the time and the version, which machines may roll.
pub type WorkHash = [u8; 32];

/// The prefixes of all machines.
#[derive(Debug, Default)]
pub struct Prefixes {
    /// By their width in bytes: upstreams change, and may change back.
    pools: Mutex<HashMap<usize, Pool>>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Spent {
    /// For nobody.
    #[error("the upstream's extranonces have no room for another machine before its next job")]
    All,
    /// For this host.
    #[error("{1} has {0} parts of the upstream's extranonces, the rest is for machines from elsewhere")]
    Host(u32, IpAddr),
}

/// A prefix that no other machine has.
#[derive(Debug)]
pub struct Prefix {
    prefixes: Arc<Prefixes>,
    bytes: usize,
    number: u32,
    /// The latest work of which a job was announced with it.
    told: Option<u64>,
}

impl Prefixes {
    /// Work has come whose prefixes have this many bytes. Gives its number: works count up, and one that comes again has
    /// the number that it had.
    pub fn begin(&self, bytes: usize, work: &WorkHash) -> u64 {
        self.lock().entry(bytes).or_insert_with(|| Pool::new(bytes)).begin(work)
    }

    /// A prefix of this width for a machine that is to get a job of this work. This machine's own address may have all: it is
    /// where proxies and tunnels come from.
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
    /// As a number: 1 or more, the first bytes of an extranonce2 that counts.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether jobs of this work may be announced with it: it has their prefixes' width, and nobody else has had it in this
    /// work, should that have come again.
    #[must_use]
    pub fn fits(&self, bytes: usize, work: u64) -> bool {
        let pools = self.prefixes.lock();
        let pool = pools.get(&bytes).filter(|_| bytes == self.bytes);
        pool.is_some_and(|pool| !pool.is_spent(self.number, work))
    }

    /// A job of this work was announced with it.
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
    /// The greatest one.
    last: u32,
    next: u32,
    /// The latest works with their numbers, oldest first.
    works: VecDeque<(WorkHash, u64)>,
    /// The number of the newest work, and of the one at hand: less where that has come again.
    newest: u64,
    current: u64,
    /// Which machines' hosts have which.
    live: HashMap<u32, IpAddr>,
    /// Given back after a job was announced with them: the latest work of it, and whose they were.
    spent: HashMap<u32, (u64, IpAddr)>,
    /// How many each host has, or has spent in the work at hand; and all of them.
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
            // What is spent in few works stays known for long; what is spent in a rush, for less.
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

    /// Counts who has how many, for the work at hand.
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

    /// Whether somebody who is gone may have had it in this work. Only the latest one that it was had in is known, which
    /// errs to this side.
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
        // The job at hand may have changed since the one was looked at that this is for.
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
        // Two hosts count for it, where work has come again that another one had it in.
        let was_spent = self.is_spent(number, self.current);
        if let Some(told) = told {
            let spent = self.spent.entry(number).or_insert((told, host));
            spent.0 = spent.0.max(told);
            if !was_spent {
                spent.1 = host;
            }
        }
        // Else it counts on, as spent.
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
