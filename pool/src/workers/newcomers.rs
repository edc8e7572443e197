//! Limits on new user names and payout addresses per host. The ledger keeps both for ever once they have a share, and
//! the amount it owes an address is written with every block: so unknown ones are admitted at a limited rate, and known
//! ones freely.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Instant;

use iop_mining::bans::host_of;

use super::NotTaken;

/// Names that a host may bring at once, and per day from then on: a farm of 4,096 machines, each with its own name, is
/// known after its first minute. A name takes some 300 bytes in memory and on disk, so a host that invents names for a
/// year costs 450 MB of names, and a share for each.
const NAMES: Allowance = Allowance { of_one: 4096.0, of_many: 100_000.0 };
/// Payout addresses: a farm has one, and of the users that share an IPv4 address or an IPv6 network few start on one
/// day. Each address that is owed something takes 65 bytes in every block's record from then on, and some time in every
/// template. A host that invents them for a year brings 23,000 and 1.5 MB a block; at the rate of names it would be 1.5
/// million.
const ADDRESSES: Allowance = Allowance { of_one: 64.0, of_many: 4096.0 };
/// Seconds in which an allowance is renewed.
const DAY: f64 = 86_400.0;
/// The most hosts remembered of each kind, some 100 bytes each. One is forgotten once it has its full allowance again;
/// hosts that find no place are counted together.
const MAX_HOSTS: usize = 16_384;
/// Stands for all of this machine's own addresses.
const THIS_MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Stands for the hosts that found no place.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Number allowed at once, and per day from then on.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    /// For one host.
    of_one: f64,
    /// For all clients together that come through proxies on this machine and cannot be told apart, or found no place.
    of_many: f64,
}

impl Allowance {
    fn of(self, host: IpAddr) -> f64 {
        if [THIS_MACHINE, OTHERS].contains(&host) { self.of_many } else { self.of_one }
    }
}

/// What each host brought recently.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Mutex<Hosts>);

#[derive(Debug, Default)]
struct Hosts {
    names: HashMap<IpAddr, Brought>,
    addresses: HashMap<IpAddr, Brought>,
}

#[derive(Debug)]
struct Brought {
    /// The number brought, less what the elapsed time has renewed.
    count: f64,
    /// The time that `count` refers to.
    at: Instant,
}

impl Brought {
    fn settle(&mut self, most: f64, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.count = (self.count - seconds * most / DAY).max(0.0);
        self.at = self.at.max(now);
    }
}

impl Newcomers {
    /// Counts a new name from an address, and its new payout address if there is one.
    ///
    /// # Errors
    /// Its host has brought too many. Nothing is counted then.
    pub(super) fn admit(&self, ip: IpAddr, brings_address: bool, now: Instant) -> Result<(), NotTaken> {
        let mut hosts = self.0.lock().expect("no panic while the lock is held");
        let Hosts { names, addresses } = &mut *hosts;
        let is_here = ip.to_canonical().is_loopback();
        let [host, network] = if is_here { [THIS_MACHINE; 2] } else { [host_of(ip), network_of(ip)] };
        let name = room(names, host, NAMES, now).ok_or(NotTaken::TooManyNames)?;
        if brings_address {
            let address = room(addresses, network, ADDRESSES, now);
            address.ok_or(NotTaken::TooManyAddresses)?.count += 1.0;
        }
        name.count += 1.0;
        Ok(())
    }
}

/// The counter of a host, if it may bring one more.
fn room(
    hosts: &mut HashMap<IpAddr, Brought>,
    host: IpAddr,
    allowance: Allowance,
    now: Instant,
) -> Option<&mut Brought> {
    let host = place(hosts, host, allowance, now);
    let (brought, most) = (hosts.entry(host).or_insert(Brought { count: 0.0, at: now }), allowance.of(host));
    brought.settle(most, now);
    (brought.count + 1.0 <= most).then_some(brought)
}

/// The key that a host is counted under.
fn place(hosts: &mut HashMap<IpAddr, Brought>, host: IpAddr, allowance: Allowance, now: Instant) -> IpAddr {
    if host != THIS_MACHINE && hosts.len() >= MAX_HOSTS && !hosts.contains_key(&host) {
        hosts.retain(|&host, brought| {
            brought.settle(allowance.of(host), now);
            brought.count >= 1.0
        });
        if hosts.len() >= MAX_HOSTS {
            return OTHERS;
        }
    }
    host
}

/// The network that all addresses of one owner may come from: in IPv6 a /48, which is what a site gets and some
/// providers give away. 65,536 times as many names as a /64 may bring are tolerable as a nuisance, so many payout
/// addresses are not.
fn network_of(ip: IpAddr) -> IpAddr {
    match host_of(ip) {
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
        host => host,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn admitted(newcomers: &Newcomers, ip: &str, names: u32, now: Instant) -> u32 {
        let ip = ip.parse().unwrap();
        (0..names).map(|_| u32::from(newcomers.admit(ip, false, now).is_ok())).sum()
    }

    fn addresses(newcomers: &Newcomers, ip: &str, count: usize, now: Instant) -> usize {
        let ip = ip.parse().unwrap();
        (0..count).filter(|_| newcomers.admit(ip, true, now).is_ok()).count()
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
    fn few_payout_addresses_come_from_a_host_and_names_of_known_ones_still_do() {
        let (newcomers, now) = (Newcomers::default(), Instant::now());
        assert_eq!(addresses(&newcomers, "9.9.9.9", 100, now), 64);
        assert_eq!(newcomers.admit(IpAddr::from([9, 9, 9, 9]), true, now), Err(NotTaken::TooManyAddresses));
        assert_eq!(
            admitted(&newcomers, "9.9.9.9", 5000, now),
            4096 - 64,
            "what is refused counts as no name"
        );
        assert_eq!(addresses(&newcomers, "9.9.9.8", 100, now), 64, "others are others");
        let later = now + Duration::from_secs(86_400 / 4);
        assert_eq!(addresses(&newcomers, "9.9.9.9", 100, later), 16);
        assert_eq!(addresses(&newcomers, "2001:db8:1::1", 40, now), 40);
        assert_eq!(addresses(&newcomers, "2001:db8:1:ffff::1", 40, now), 24, "one site in IPv6");
        assert_eq!(addresses(&newcomers, "2001:db8:2::1", 100, now), 64);
        assert_eq!(addresses(&newcomers, "::1", 5000, now), 4096, "through a proxy here");
        assert_eq!(addresses(&newcomers, "127.0.0.1", 1, now), 0);
    }

    #[test]
    fn hosts_are_bounded_and_those_without_a_place_count_together() {
        let (newcomers, now) = (Newcomers::default(), Instant::now());
        for number in 0..MAX_HOSTS as u16 {
            let host = Ipv6Addr::new(0x2001, 0xdb8, 1, number, 0, 0, 0, 1);
            assert_eq!(newcomers.admit(IpAddr::V6(host), false, now), Ok(()));
        }
        assert_eq!(admitted(&newcomers, "9.9.9.9", 50_000, now), 50_000, "not for it alone");
        assert_eq!(admitted(&newcomers, "9.9.9.8", 60_000, now), 50_000);
        assert_eq!(newcomers.0.lock().unwrap().names.len(), MAX_HOSTS + 1);
        let later = now + Duration::from_secs(86_400);
        assert_eq!(admitted(&newcomers, "9.9.9.9", 10_000, later), 4096);
        assert_eq!(newcomers.0.lock().unwrap().names.len(), 1, "who could bring all again is forgotten");
    }
}
