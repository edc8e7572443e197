//! The peers' clocks compared with ours (`timedata.cpp`).
//!
//! Lives here: the median offset of the first 200 addresses, used as in the reference, except that all addresses of
//! one IPv6 network (/64) count as one, since they usually have one owner. The offset is 0 until there are five
//! samples, and 0 again when the median is more than 70 minutes off: then the operator has to look into it.

use std::collections::HashSet;
use std::net::IpAddr;

use super::addresses::ip::one_network;

/// Maximum number of peers that are sampled (`IOP_TIMEDATA_MAX_SAMPLES`).
const MAX_SAMPLES: usize = 200;
/// Maximum seconds by which peers may shift our time (`DEFAULT_MAX_TIME_ADJUSTMENT`).
const MAX_OFFSET: u64 = 70 * 60;

/// Offsets of peers' clocks.
#[derive(Debug)]
pub(crate) struct PeerClocks {
    known: HashSet<IpAddr>,
    offsets: Vec<i64>,
    offset: i64,
}

impl Default for PeerClocks {
    fn default() -> Self {
        // Our own clock counts too.
        Self { known: HashSet::new(), offsets: vec![0], offset: 0 }
    }
}

impl PeerClocks {
    /// How many seconds the peers' clocks are ahead of ours.
    pub(crate) fn offset(&self) -> i64 {
        self.offset
    }

    /// Adds a peer's clock offset: seconds ahead of ours (`AddTimeData`).
    pub(crate) fn add(&mut self, ip: IpAddr, offset: i64) {
        if self.offsets.len() > MAX_SAMPLES || !self.known.insert(one_network(ip)) {
            return;
        }
        self.offsets.push(offset);
        if self.offsets.len() >= 5 && self.offsets.len() % 2 == 1 {
            self.offsets.sort_unstable();
            let median = self.offsets[self.offsets.len() / 2];
            // The offset may be any number, including `i64::MIN`, which cannot be negated.
            let believable = median.unsigned_abs() <= MAX_OFFSET;
            self.offset = if believable { median } else { 0 };
            if !believable {
                tracing::warn!(
                    "the peers' clocks differ from this machine's by {median} s: is its time right?"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_of_ipv6_counts_once_whatever_addresses_it_has() {
        let mut clocks = PeerClocks::default();
        (0..250).for_each(|n| clocks.add(IpAddr::from([0x2001, 0xdb8, 0, 0, n, 0, 0, 1]), 600));
        assert_eq!(clocks.offset(), 0);
        (1..4).for_each(|n| clocks.add(IpAddr::from([0x2001, 0xdb8, 0, n, 0, 0, 0, 1]), 600));
        assert_eq!(clocks.offset(), 600);
        (1..250).for_each(|n| clocks.add(IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0102, n]), 900));
        assert_eq!(clocks.offset(), 900, "IPv4 in IPv6 is many places");
    }

    #[test]
    fn five_clocks_are_needed_and_one_address_counts_once() {
        let mut clocks = PeerClocks::default();
        for _ in 0..10 {
            clocks.add(IpAddr::from([1, 2, 3, 4]), 600);
        }
        assert_eq!(clocks.offset(), 0);
        (0..3).for_each(|n| clocks.add(IpAddr::from([1, 2, 3, n]), 500));
        assert_eq!(clocks.offset(), 500);
    }

    #[test]
    fn clocks_that_are_hours_away_change_nothing() {
        let mut clocks = PeerClocks::default();
        (0..50).for_each(|n| clocks.add(IpAddr::from([1, 2, 3, n]), 100_000));
        assert_eq!(clocks.offset(), 0);
    }

    #[test]
    fn no_clock_is_too_far_away_to_be_disbelieved() {
        for extreme in [i64::MIN, i64::MAX] {
            let mut clocks = PeerClocks::default();
            (0..250).for_each(|n| clocks.add(IpAddr::from([1, 2, 3, n]), extreme));
            assert_eq!(clocks.offset(), 0);
        }
    }
}
