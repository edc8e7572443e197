//! Stratum connections.
//!
//! Here: the listener with its limits ([`listener`]), a connection's socket with its time-outs and its bounded
//! queue ([`connection`]), and what the pool says to a miner ([`miner`], without any socket). Not here: the
//! protocol's messages (`iop-stratum`), the verdict on a share ([`crate::judge`]).
//! Path: socket → lines → [`miner::Miner`] → verdict, counters, perhaps a block; snapshot → job → socket.

pub mod connection;
pub mod listener;
pub mod miner;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use iop_consensus::address::Prefixes;
use tokio::sync::watch;

use crate::blocks::Blocks;
use crate::config::DifficultyBounds;
use crate::follow::Snapshot;
use crate::workers::Workers;

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// How addresses are written.
    pub prefixes: Prefixes,
    /// Start and bounds.
    pub difficulty: DifficultyBounds,
    /// What there is to do.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Counters.
    pub workers: Workers,
    /// Found blocks.
    pub blocks: Arc<Blocks>,
    /// Connections and their extranonces.
    pub places: Arc<Places>,
}

/// Places for connections, each with an extranonce1 that no other live connection has.
#[derive(Debug)]
pub struct Places {
    max: usize,
    taken: Mutex<(HashSet<u32>, u32)>,
}

/// A connection's place. Free again when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    extranonce1: u32,
}

impl Places {
    /// Room for so many connections at a time.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// A place, if one is free. Extranonces go round, so that one is used again as late as can be.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken.lock().expect("no panic while the lock is held");
        let (live, next) = &mut *taken;
        if live.len() >= self.max {
            return None;
        }
        let extranonce1 = loop {
            let candidate = *next;
            *next = next.wrapping_add(1);
            if live.insert(candidate) {
                break candidate;
            }
        };
        Some(Place { places: Arc::clone(self), extranonce1 })
    }

    /// Connections now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.taken.lock().expect("no panic while the lock is held").0.len()
    }
}

impl Place {
    /// This connection's.
    #[must_use]
    pub fn extranonce1(&self) -> u32 {
        self.extranonce1
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().expect("no panic while the lock is held").0.remove(&self.extranonce1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_two_live_connections_share_an_extranonce() {
        let places = Places::new(3);
        places.taken.lock().unwrap().1 = u32::MAX;
        let live: Vec<Place> = (0..3).map(|_| places.take().unwrap()).collect();
        assert_eq!(live.iter().map(Place::extranonce1).collect::<Vec<_>>(), [u32::MAX, 0, 1]);
        assert!(places.take().is_none() && places.count() == 3);
        drop(live);
        assert_eq!(places.count(), 0);
        let kept = places.take().unwrap();
        places.taken.lock().unwrap().1 = kept.extranonce1();
        assert_ne!(places.take().unwrap().extranonce1(), kept.extranonce1());
    }
}
