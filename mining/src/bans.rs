//! Temporary bans for addresses that misbehave or connect too often.
//!
//! An offence adds points to its address; points decay over time. At a threshold, new connections from the address are
//! refused for a time that doubles with each ban. Existing connections are not closed: the machines of a farm share one
//! address, and one faulty machine must not cut off the others. The table is bounded. 127.0.0.1 and ::1 are never
//! banned, because proxies and tunnels connect from there. Also here: why a connection ends ([`End`]).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use iop_stratum::server::Fatal;

/// Points at which an address is banned.
const THRESHOLD: f64 = 100.0;
/// Time in which points decay by half.
const HALF_LIFE: Duration = Duration::from_secs(10 * 60);
/// The first ban. Each further one takes twice as long.
const FIRST_BAN: Duration = Duration::from_secs(60);
/// The longest ban.
const LONGEST_BAN: Duration = Duration::from_secs(60 * 60);
/// How long after a ban has ended the next one is still longer.
const REMEMBERED: Duration = Duration::from_secs(6 * 60 * 60);
/// Most addresses in the table, some 100 bytes each.
const MAX_ADDRESSES: usize = 16_384;
/// New connections that may come at once, in seconds' worth of the rate: a farm reconnects after a power cut.
pub const BURST_SECONDS: f64 = 8.0;

/// What an address did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// It does not speak Stratum: too many malformed lines, an endless line, or something other than TLS on a TLS port.
    Nonsense,
    /// It speaks plain TCP on a TLS port, as it seems; otherwise as [`Self::Nonsense`].
    Plaintext,
    /// It sent an HTTP request: a web browser or a health check, possibly an honest mistake.
    Http,
    /// It did not subscribe and authorise a user in time.
    Silent,
    /// It did not read what was sent to it.
    Unread,
    /// It sent more requests in a second than are accepted.
    Flood,
    /// It sent a long run of invalid shares.
    BadShares,
    /// It sent many shares of an easy job although it had been given a far harder one.
    EasyShares,
}

impl From<Fatal> for Offence {
    fn from(fatal: Fatal) -> Self {
        match fatal {
            Fatal::Http => Self::Http,
            Fatal::Malformed => Self::Nonsense,
        }
    }
}

impl Offence {
    fn points(self) -> f64 {
        match self {
            Self::Nonsense | Self::Plaintext => 34.0,
            Self::BadShares => 25.0,
            Self::Silent | Self::Unread | Self::EasyShares => 10.0,
            Self::Flood | Self::Http => 5.0,
        }
    }
}

/// Why a connection ends.
#[derive(Debug)]
pub struct End {
    /// The reason, for the log.
    pub reason: String,
    /// What the other side did wrong, if that is the reason.
    pub offence: Option<Offence>,
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self { reason, offence: None }
    }
}

impl End {
    /// The end for this reason, which may be an offence.
    #[must_use]
    pub fn new(reason: &str, offence: impl Into<Option<Offence>>) -> Self {
        Self { reason: reason.to_owned(), offence: offence.into() }
    }
}

/// Every so many shares of too easy jobs on one connection count as one offence, except the first time. A miner a
/// thousand times as fast as the starting difficulty expects has some hundred shares in flight when the harder job
/// arrives; but each new connection begins at the starting difficulty.
pub const EASY_SHARES: u32 = 1024;
/// Every so many invalid shares in a row count as one offence.
pub const BAD_RUN: u32 = 200;
/// Invalid shares in a row after which the connection is closed: each costs us as much as a valid one.
pub const HOPELESS_RUN: u32 = 1000;

/// One connection's run of invalid shares. Stale shares do not count.
#[derive(Debug, Clone, Copy, Default)]
pub struct BadRun(u32);

impl BadRun {
    /// Counts an invalid share. Every [`BAD_RUN`]th in a row is an offence.
    pub fn bad(&mut self) -> Option<Offence> {
        self.0 = self.0.saturating_add(1);
        self.0.is_multiple_of(BAD_RUN).then_some(Offence::BadShares)
    }

    /// A valid share ends the run.
    pub fn good(&mut self) {
        self.0 = 0;
    }

    /// Whether the connection should be closed.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.0 >= HOPELESS_RUN
    }
}

/// Why a new connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The address has misbehaved.
    #[error("{0} is banned")]
    Banned(IpAddr),
    /// Too many new connections in a short time.
    #[error("too many new connections a second from {0}")]
    TooMany(IpAddr),
}

/// All addresses with points or recent connections.
#[derive(Debug)]
pub struct Bans {
    /// New connections per second and address.
    rate: f64,
    known: Mutex<HashMap<IpAddr, Record>>,
}

#[derive(Debug)]
struct Record {
    points: f64,
    /// Recent new connections; they decay at the rate.
    come: f64,
    /// When `points` and `come` were last brought up to date.
    at: Instant,
    bans: u32,
    until: Option<Instant>,
}

impl Bans {
    /// An empty table. Each address may open `rate` new connections a second, and eight seconds' worth at once.
    #[must_use]
    pub fn new(rate: f64) -> Self {
        Self { rate, known: Mutex::default() }
    }

    /// Admits a new connection and counts it.
    ///
    /// # Errors
    /// The address is banned or connects too often.
    pub fn admit(&self, ip: IpAddr, now: Instant) -> Result<(), Refused> {
        if is_this_machine(ip) {
            return Ok(());
        }
        let host = host_of(ip);
        let mut known = self.known.lock().expect("no panic while the lock is held");
        let Some(record) = self.record(&mut known, host, now) else { return Ok(()) };
        if record.until.is_some_and(|until| now < until) {
            return Err(Refused::Banned(ip));
        }
        // Tests and benches connect from all over 127/8; the rate does not apply to them.
        if record.come + 1.0 > self.rate * BURST_SECONDS && !ip.is_loopback() {
            return Err(Refused::TooMany(ip));
        }
        record.come += 1.0;
        Ok(())
    }

    /// Counts an offence of an address. Returns the length of the ban if it starts one.
    pub fn offend(&self, ip: IpAddr, offence: Offence, now: Instant) -> Option<Duration> {
        if is_this_machine(ip) {
            return None;
        }
        let mut known = self.known.lock().expect("no panic while the lock is held");
        let record = self.record(&mut known, host_of(ip), now)?;
        if record.until.is_some_and(|until| now < until) {
            return None; // from connections made before the ban
        }
        record.points += offence.points();
        if record.points < THRESHOLD {
            return None;
        }
        let time = LONGEST_BAN.min(FIRST_BAN * 2u32.saturating_pow(record.bans.min(16)));
        record.bans += 1;
        record.points = 0.0;
        record.until = Some(now + time);
        Some(time)
    }

    /// Addresses that are banned now.
    #[must_use]
    pub fn count(&self, now: Instant) -> usize {
        let known = self.known.lock().expect("no panic while the lock is held");
        known.values().filter(|record| record.until.is_some_and(|until| now < until)).count()
    }

    /// The record of an address, decayed until `now`; `None` if the table is full of records that are still needed.
    fn record<'a>(
        &self,
        known: &'a mut HashMap<IpAddr, Record>,
        ip: IpAddr,
        now: Instant,
    ) -> Option<&'a mut Record> {
        if known.len() >= MAX_ADDRESSES && !known.contains_key(&ip) {
            known.retain(|_, record| {
                record.decay(self.rate, now);
                !record.is_clean(now)
            });
            if known.len() >= MAX_ADDRESSES {
                return None;
            }
        }
        let fresh = Record { points: 0.0, come: 0.0, at: now, bans: 0, until: None };
        let record = known.entry(ip).or_insert(fresh);
        record.decay(self.rate, now);
        Some(record)
    }
}

impl Record {
    fn decay(&mut self, rate: f64, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.points *= (-seconds / HALF_LIFE.as_secs_f64()).exp2();
        self.come = (self.come - seconds * rate).max(0.0);
        self.at = self.at.max(now);
        if self.until.is_some_and(|until| now >= until + REMEMBERED) {
            (self.bans, self.until) = (0, None);
        }
    }

    fn is_clean(&self, now: Instant) -> bool {
        self.points < 1.0 && self.come < 1.0 && self.until.is_none_or(|until| now >= until)
    }
}

/// Whether `ip` is 127.0.0.1 or ::1, the addresses from which local proxies and tunnels connect.
#[must_use]
pub fn is_this_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// The address that stands for all addresses of a host: an IPv6 subscriber has at least 2^64.
#[must_use]
pub fn host_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn offences_add_up_to_bans_that_grow_and_end() {
        let (bans, bad, other) = (Bans::new(4.0), ip("9.9.9.9"), ip("9.9.9.8"));
        let mut now = Instant::now();
        for expected in [60, 120, 240] {
            assert_eq!(bans.offend(bad, Offence::Nonsense, now), None);
            assert_eq!(bans.offend(bad, Offence::Nonsense, now), None);
            assert_eq!(bans.admit(bad, now), Ok(()), "not yet");
            assert_eq!(bans.offend(bad, Offence::Nonsense, now), Some(Duration::from_secs(expected)));
            assert_eq!(bans.admit(bad, now), Err(Refused::Banned(bad)));
            assert_eq!((bans.admit(other, now), bans.count(now)), (Ok(()), 1));
            assert_eq!(bans.offend(bad, Offence::Nonsense, now), None, "no ban on top of a ban");
            now += Duration::from_secs(expected);
            assert_eq!(bans.admit(bad, now), Ok(()), "it is over");
        }
        now += REMEMBERED * 2;
        for expected in [None, None, Some(FIRST_BAN)] {
            assert_eq!(bans.offend(bad, Offence::Nonsense, now), expected, "forgotten");
        }
    }

    #[test]
    fn points_decay() {
        let (bans, bad) = (Bans::new(4.0), ip("9.9.9.9"));
        let mut now = Instant::now();
        for _ in 0..1000 {
            assert_eq!(bans.offend(bad, Offence::Nonsense, now), None);
            now += HALF_LIFE;
        }
    }

    #[test]
    fn this_machine_is_never_banned_and_its_other_addresses_are() {
        let (bans, now) = (Bans::new(4.0), Instant::now());
        for (text, banned) in
            [("127.0.0.1", false), ("::1", false), ("::ffff:127.0.0.1", false), ("127.0.0.2", true)]
        {
            for _ in 0..3 {
                bans.offend(ip(text), Offence::Nonsense, now);
            }
            assert_eq!(bans.admit(ip(text), now).is_err(), banned, "{text}");
        }
    }

    #[test]
    fn an_address_that_comes_too_often_waits() {
        let (bans, eager, mut now) = (Bans::new(4.0), ip("9.9.9.9"), Instant::now());
        let mut admitted = || {
            let count = (0..100).filter(|_| bans.admit(eager, now).is_ok()).count();
            now += Duration::from_secs(1);
            count
        };
        assert_eq!([admitted(), admitted(), admitted()], [32, 4, 4]);
        assert_eq!(bans.admit(ip("9.9.9.8"), now), Ok(()));
    }

    #[test]
    fn neighbours_in_ipv6_are_one_and_the_table_is_bounded() {
        let (bans, now) = (Bans::new(4.0), Instant::now());
        for host in 0..3u16 {
            bans.offend(
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 1, host, 0, 0, host)),
                Offence::Nonsense,
                now,
            );
        }
        let neighbour = ip("2001:db8:1:1::77");
        assert_eq!(bans.admit(neighbour, now), Err(Refused::Banned(neighbour)));
        for number in 0..2 * MAX_ADDRESSES as u32 {
            assert_eq!(bans.admit(IpAddr::V4(Ipv4Addr::from_bits(number)), now), Ok(()));
        }
        assert_eq!(bans.known.lock().unwrap().len(), MAX_ADDRESSES);
        assert!(bans.admit(neighbour, now).is_err(), "who is banned is not pushed out");
        let later = now + LONGEST_BAN * 100;
        assert_eq!(bans.admit(ip("9.9.9.9"), later), Ok(()));
        assert_eq!(bans.known.lock().unwrap().len(), 1, "who is clean is forgotten");
    }
}
