//! Limits of connections: times and rates. They are settings, so that tests need not wait for minutes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use iop_mining::open_files;
use tracing::warn;

/// Limits of connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Time from when there is work to the first user. A machine introduces itself at once.
    pub handshake: Duration,
    /// Silence after which a machine with work is considered gone. It is long, since a slow one at a high difficulty
    /// may find no share for a long time. A lost network is usually noticed earlier, by `write` or by the system.
    pub idle: Duration,
    /// Time in which some of the queued bytes must be taken.
    pub write: Duration,
    /// Time between two pings to a machine while there is no work for it.
    pub ping: Duration,
    /// Time without work after which a machine is let go. Firmware turns to its other pools when a connection ends, or
    /// is silent; our pings and refusals are no silence.
    pub workless: Duration,
    /// Requests a second, above zero; a second's worth may come at once. Requests beyond that are read later.
    pub requests_per_second: f64,
    /// New connections a second from one address; eight seconds' worth may come at once. It is more if an address may
    /// have more machines than that: after a power failure or a change of extranonces all of them may connect at once.
    pub new_connections: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(30),
            idle: Duration::from_secs(60 * 60),
            write: Duration::from_secs(30),
            ping: Duration::from_secs(30),
            workless: Duration::from_secs(120),
            requests_per_second: 1_000.0,
            new_connections: 32.0,
        }
    }
}

/// Most shares of all machines that are remembered to detect duplicates: some 40 MiB, as each takes 16 bytes and a
/// table is half empty at times. It suffices for 10,000 machines with a share every five seconds, over the eight
/// minutes for which their jobs are known. A limit per connection alone would not bound the total.
const MAX_SHARES: usize = 1 << 20;

/// The common memory for the machines' shares.
#[derive(Debug)]
pub struct Memory {
    max: usize,
    taken: AtomicUsize,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(MAX_SHARES)
    }
}

impl Memory {
    /// Room for `max` shares, and a quarter more that is reserved for shares for the upstream.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, taken: AtomicUsize::new(0) }
    }

    /// Takes room for one more share of a machine that `has` this many. A machine may not have more than it leaves to
    /// others: if n machines want all they can get, each gets 1/(n + 1), and the last part is left for newcomers.
    /// Shares for the upstream are worth money, so they are exempt from this.
    #[must_use]
    pub fn take(&self, has: usize, is_for_upstream: bool) -> bool {
        let allows = |taken: usize| {
            if is_for_upstream {
                taken < self.max + self.max / 4
            } else {
                has < self.max.saturating_sub(taken)
            }
        };
        let taken = |taken| allows(taken).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Releases the room of this many shares.
    pub fn give_back(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::Relaxed);
    }

    /// Number of shares remembered now.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Files that the miner needs besides machines' connections: pools or nodes, an API with its clients, a spool.
const OWN_FILES: u64 = 160;

/// Raises the limit of open files as far as the system allows, and returns how many of `machines` fit under it.
#[must_use]
pub fn room(machines: usize) -> usize {
    open_files::raise();
    let Some(limit) = open_files::limit() else { return machines };
    let room = usize::try_from(limit.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX).max(1);
    if room < machines {
        warn!("room for {room} machines, not {machines}: the system allows {limit} open files");
    }
    room.min(machines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes room in turns until no machine gets any more.
    fn share_out(memory: &Memory, machines: usize) -> Vec<usize> {
        let mut has = vec![0; machines];
        while has
            .iter_mut()
            .map(|has| {
                let took = memory.take(*has, false);
                *has += usize::from(took);
                took
            })
            .fold(false, |any, took| any | took)
        {}
        has
    }

    #[test]
    fn greedy_machines_share_the_memory_and_leave_a_part_to_others() {
        let memory = Memory::new(1000);
        assert_eq!(share_out(&memory, 1), [500]);
        memory.give_back(500);
        assert_eq!(share_out(&memory, 9), [100; 9]);
        assert!(memory.take(99, false) && !memory.take(100, false));
        memory.give_back(memory.taken());
        assert_eq!(
            share_out(&memory, 4000).iter().sum::<usize>(),
            1000,
            "one each, as long as there are some"
        );
    }

    #[test]
    fn shares_for_the_upstream_have_room_of_their_own() {
        let memory = Memory::new(100);
        while memory.take(0, false) {}
        assert_eq!((0..1000).filter(|_| memory.take(1_000_000, true)).count(), 25);
        assert_eq!(memory.taken(), 125);
    }
}
