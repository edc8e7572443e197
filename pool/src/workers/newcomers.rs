//! How many new user names each host may bring. The ledger keeps a name for ever once it has a share, so names that
//! the pool does not know yet come at a rate; those that it knows come freely.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::Instant;

use iop_mining::bans::host_of;

/// Names that a host may bring at once, and in a day from then on: a farm of 4,096 machines of which each has a name
/// of its own is known after its first minute. With some 300 bytes for each name in memory and on disk, a host that
/// makes them up for a year costs 450 MB, and a share for each.
const NAMES: f64 = 4096.0;
/// The same for all who come through proxies on this machine, who cannot be told apart: as many as workers are listed.
const NAMES_OF_MANY: f64 = 100_000.0;
/// Seconds in which so many more may come.
const DAY: f64 = 86_400.0;
/// Hosts that are remembered, some 100 bytes each. One is forgotten when it could bring [`NAMES`] again; hosts that
/// find no place are counted together.
const MAX_HOSTS: usize = 16_384;
/// All of this machine's own addresses.
const THIS_MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Hosts that found no place.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What each host brought of late.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Mutex<HashMap<IpAddr, Brought>>);

#[derive(Debug)]
struct Brought {
    /// Names, less those that may have come since.
    names: f64,
    /// When that was right.
    at: Instant,
}

impl Brought {
    fn settle(&mut self, most: f64, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.names = (self.names - seconds * most / DAY).max(0.0);
        self.at = self.at.max(now);
    }
}

impl Newcomers {
    /// Counts a new name from an address; whether it may come.
    pub(super) fn admit(&self, ip: IpAddr, now: Instant) -> bool {
        let mut hosts = self.0.lock().expect("no panic while the lock is held");
        let (host, most) = if ip.to_canonical().is_loopback() {
            (THIS_MACHINE, NAMES_OF_MANY)
        } else {
            Self::place(&mut hosts, host_of(ip), now)
        };
        let brought = hosts.entry(host).or_insert(Brought { names: 0.0, at: now });
        brought.settle(most, now);
        let may_come = brought.names + 1.0 <= most;
        if may_come {
            brought.names += 1.0;
        }
        may_come
    }

    fn place(hosts: &mut HashMap<IpAddr, Brought>, host: IpAddr, now: Instant) -> (IpAddr, f64) {
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(&host) {
            hosts.retain(|&host, brought| {
                let most = if [THIS_MACHINE, OTHERS].contains(&host) { NAMES_OF_MANY } else { NAMES };
                brought.settle(most, now);
                brought.names >= 1.0
            });
            if hosts.len() >= MAX_HOSTS {
                return (OTHERS, NAMES_OF_MANY);
            }
        }
        (host, NAMES)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv6Addr;
    use std::time::Duration;

    use super::*;

    fn admitted(newcomers: &Newcomers, ip: &str, names: u32, now: Instant) -> u32 {
        let ip = ip.parse().unwrap();
        (0..names).map(|_| u32::from(newcomers.admit(ip, now))).sum()
    }

    #[test]
    fn a_farm_brings_all_its_names_at_once_and_nobody_brings_names_without_end() {
        let (newcomers, now) = (Newcomers::default(), Instant::now());
        assert_eq!(admitted(&newcomers, "9.9.9.9", 10_000, now), 4096);
        assert_eq!(admitted(&newcomers, "9.9.9.8", 10, now), 10, "others are others");
        let later = now + Duration::from_secs(86_400 / 4);
        assert_eq!(admitted(&newcomers, "9.9.9.9", 10_000, later), 1024);
        let later = now + Duration::from_secs(10 * 86_400);
        assert_eq!(admitted(&newcomers, "9.9.9.9", 10_000, later), 4096, "no more is saved up");
    }

    #[test]
    fn neighbours_in_ipv6_and_proxies_here_are_one_each() {
        let (newcomers, now) = (Newcomers::default(), Instant::now());
        assert_eq!(admitted(&newcomers, "2001:db8::1", 4000, now), 4000);
        assert_eq!(admitted(&newcomers, "2001:db8::2", 4000, now), 96);
        assert_eq!(admitted(&newcomers, "127.0.0.1", 60_000, now), 60_000);
        assert_eq!(admitted(&newcomers, "127.0.0.2", 60_000, now), 40_000);
    }

    #[test]
    fn hosts_are_bounded_and_those_without_a_place_count_together() {
        let (newcomers, now) = (Newcomers::default(), Instant::now());
        for number in 0..MAX_HOSTS as u16 {
            let host = Ipv6Addr::new(0x2001, 0xdb8, 1, number, 0, 0, 0, 1);
            assert!(newcomers.admit(IpAddr::V6(host), now));
        }
        assert_eq!(admitted(&newcomers, "9.9.9.9", 50_000, now), 50_000, "not for it alone");
        assert_eq!(admitted(&newcomers, "9.9.9.8", 60_000, now), 50_000);
        assert_eq!(newcomers.0.lock().unwrap().len(), MAX_HOSTS + 1);
        let later = now + Duration::from_secs(86_400);
        assert_eq!(admitted(&newcomers, "9.9.9.9", 10_000, later), 4096);
        assert_eq!(newcomers.0.lock().unwrap().len(), 1, "who could bring all again is forgotten");
    }
}
