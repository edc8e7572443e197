//! An IP address in the protocol's 16 bytes, and its classification (`CNetAddr`, `CService`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bitcoin::hashes::{Hash, sha256};

/// The prefix of a mapped IPv4 address.
const IPV4_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/// The prefix of a version 2 onion address (OnionCat).
const ONION_PREFIX: [u8; 6] = [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43];
/// The prefix of a hashed name, which is a source of addresses, never an address itself.
const NAME_PREFIX: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24];

/// IPv6, mapped IPv4, a version 2 onion address, or a hashed name; in network byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip(pub [u8; 16]);

/// Kinds of addresses, as far as they matter for reachability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unroutable,
    V4,
    V6,
    Teredo,
    Onion,
}

/// First byte of a group: its kind (Core's `enum Network`).
const GROUP_UNROUTABLE: u8 = 0;
const GROUP_V4: u8 = 1;
const GROUP_V6: u8 = 2;
const GROUP_ONION: u8 = 3;
const GROUP_NAME: u8 = 4;

impl Ip {
    /// The pseudo-address of a name, used as the source of addresses from its DNS answer (`SetInternal`).
    pub fn of_name(name: &str) -> Self {
        let hash = sha256::Hash::hash(name.as_bytes()).to_byte_array();
        let mut ip = [0; 16];
        ip[..6].copy_from_slice(&NAME_PREFIX);
        ip[6..].copy_from_slice(&hash[..10]);
        Self(ip)
    }

    fn v4(&self) -> Option<[u8; 4]> {
        self.0.strip_prefix(&IPV4_PREFIX).map(|v4| v4.try_into().expect("16 bytes less 12 are 4"))
    }

    fn starts_with(&self, prefix: &[u8]) -> bool {
        self.0.starts_with(prefix)
    }

    /// Whether this is an onion address: stored and relayed, but never dialled.
    pub fn is_onion(&self) -> bool {
        self.starts_with(&ONION_PREFIX)
    }

    fn is_name(&self) -> bool {
        self.starts_with(&NAME_PREFIX)
    }

    /// Whether this is loopback or in IPv4 network 0 (`IsLocal`).
    pub fn is_local(&self) -> bool {
        matches!(self.v4(), Some([127 | 0, ..])) || self.0 == Ipv6Addr::LOCALHOST.octets()
    }

    /// Whether this can be a node's address at all (`IsValid`).
    pub fn is_valid(&self) -> bool {
        // An `addr` message of a version before 0.2.9, read three bytes too early.
        let shifted = self.starts_with(&IPV4_PREFIX[3..]);
        let documentation = self.starts_with(&[0x20, 0x01, 0x0d, 0xb8]);
        let nobody = self.0 == [0; 16] || matches!(self.v4(), Some([0, 0, 0, 0] | [255, 255, 255, 255]));
        !shifted && !documentation && !nobody && !self.is_name()
    }

    /// Whether this is reachable over the public internet or Tor (`IsRoutable`).
    pub fn is_routable(&self) -> bool {
        let private_v4 = matches!(
            self.v4(),
            Some(
                [10, ..] // RFC 1918
                    | [192, 168, ..]
                    | [172, 16..=31, ..]
                    | [198, 18 | 19, ..] // RFC 2544
                    | [169, 254, ..] // RFC 3927
                    | [100, 64..=127, ..] // RFC 6598
                    | [192, 0, 2, _] // RFC 5737
                    | [198, 51, 100, _]
                    | [203, 0, 113, _]
            )
        );
        let link_local = self.starts_with(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]); // RFC 4862
        let unique_local = self.0[0] & 0xfe == 0xfc && !self.is_onion(); // RFC 4193
        let orchid = self.starts_with(&[0x20, 0x01, 0x00]) && self.0[3] & 0xf0 == 0x10; // RFC 4843
        self.is_valid() && !(private_v4 || link_local || unique_local || orchid || self.is_local())
    }

    fn is_teredo(&self) -> bool {
        self.starts_with(&[0x20, 0x01, 0, 0]) // RFC 4380
    }

    fn is_6to4(&self) -> bool {
        self.starts_with(&[0x20, 0x02]) // RFC 3964
    }

    /// An IPv4 address translated to IPv6: RFC 6052 and RFC 6145.
    fn is_translated_v4(&self) -> bool {
        self.starts_with(&[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0])
            || self.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0])
    }

    /// The group: addresses that likely have one owner. IPv4 by the first 16 bits, IPv6 by 32, onion by 4
    /// (`GetGroup`). There is at most one outbound connection per group, and a group fills few buckets.
    pub fn group(&self) -> Vec<u8> {
        let ip = &self.0;
        if self.is_name() {
            [&[GROUP_NAME], &ip[6..]].concat()
        } else if !self.is_routable() {
            vec![GROUP_UNROUTABLE]
        } else if self.v4().is_some() || self.is_translated_v4() {
            vec![GROUP_V4, ip[12], ip[13]]
        } else if self.is_6to4() {
            vec![GROUP_V4, ip[2], ip[3]]
        } else if self.is_teredo() {
            vec![GROUP_V4, ip[12] ^ 0xff, ip[13] ^ 0xff]
        } else if self.is_onion() {
            vec![GROUP_ONION, ip[6] | 0x0f]
        } else if self.starts_with(&[0x20, 0x01, 0x04, 0x70]) {
            // he.net gives each customer a /48 of its /32: groups of 36 bits.
            vec![GROUP_V6, ip[0], ip[1], ip[2], ip[3], ip[4] | 0x0f]
        } else {
            vec![GROUP_V6, ip[0], ip[1], ip[2], ip[3]]
        }
    }

    fn kind(&self) -> Kind {
        if self.is_teredo() {
            Kind::Teredo
        } else if !self.is_routable() {
            Kind::Unroutable
        } else if self.v4().is_some() {
            Kind::V4
        } else if self.is_onion() {
            Kind::Onion
        } else {
            Kind::V6
        }
    }

    /// How well `partner` can reach this address: 0 for not at all, higher is better (`GetReachabilityFrom`).
    pub fn reachability_from(&self, partner: &Self) -> u8 {
        const DEFAULT: u8 = 1;
        const TEREDO: u8 = 2;
        const V6_TUNNEL: u8 = 3;
        const V4: u8 = 4;
        const V6: u8 = 5;
        const PRIVATE: u8 = 6;
        if !self.is_routable() {
            return 0;
        }
        match (partner.kind(), self.kind()) {
            (Kind::V4 | Kind::V6 | Kind::Onion | Kind::Teredo, Kind::V4) => V4,
            (Kind::V6 | Kind::Teredo | Kind::Unroutable, Kind::Teredo) => TEREDO,
            (Kind::V6, Kind::V6) if self.is_6to4() || self.is_translated_v4() => V6_TUNNEL,
            (Kind::V6, Kind::V6) => V6,
            (Kind::Teredo, Kind::V6) => V6_TUNNEL,
            (Kind::Unroutable, Kind::V4) => V4,
            (Kind::Onion | Kind::Unroutable, Kind::Onion) => PRIVATE,
            _ => DEFAULT,
        }
    }
}

impl From<IpAddr> for Ip {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(v4) = self.v4() {
            Ipv4Addr::from(v4).fmt(f)
        } else if self.is_onion() {
            write!(f, "{}.onion", base32(&self.0[6..]))
        } else {
            Ipv6Addr::from(self.0).fmt(f)
        }
    }
}

/// RFC 4648 base32 in lower case; the length must be a multiple of five bytes.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digits = bytes.chunks_exact(5).flat_map(|five| {
        let bits = five.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        (0..8).rev().map(move |place| char::from(DIGITS[(bits >> (5 * place)) as usize & 31]))
    });
    digits.collect()
}

/// An address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetAddress {
    /// The IP address.
    pub ip: Ip,
    /// TCP port.
    pub port: u16,
}

impl NetAddress {
    /// The address to dial; `None` for onion addresses and hashed names.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        if self.ip.is_onion() || self.ip.is_name() {
            return None;
        }
        let v6 = |ip| IpAddr::V6(Ipv6Addr::from(ip));
        let ip = self.ip.v4().map_or_else(|| v6(self.ip.0), |v4| IpAddr::V4(Ipv4Addr::from(v4)));
        Some(SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for NetAddress {
    fn from(socket: SocketAddr) -> Self {
        Self { ip: socket.ip().into(), port: socket.port() }
    }
}

impl fmt::Display for NetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket_addr() {
            Some(socket) => socket.fmt(f),
            None => write!(f, "{}:{}", self.ip, self.port),
        }
    }
}

/// An address in an `addr` message (`CAddress`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedAddress {
    /// The address.
    pub address: NetAddress,
    /// The services it is said to offer, as a bit field.
    pub services: u64,
    /// When it was last seen, seconds since 1970.
    pub time: u64,
}

/// The unit for limits per address: an IPv4 address, or an IPv6 network (/64), which usually has one owner.
pub(crate) fn one_network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::from((ip.to_bits() & !u128::from(u64::MAX)).to_be_bytes()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> Ip {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// The onion address of Core's own test (`netbase_tests.cpp`: 5wyqrzbvrdsumnok.onion).
    const ONION: &str = "fd87:d87e:eb43:edb1:8e4:3588:e546:35ca";

    #[test]
    fn private_and_impossible_addresses_are_not_routable() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "169.254.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.2.7",
            "198.51.100.1",
            "203.0.113.9",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00::1",
            "2001:10::1",
            "2001:db8::1",
        ] {
            assert!(!ip(text).is_routable(), "{text}");
        }
        for text in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001::1", "2002:808:808::1", "2a00:1450::1", ONION]
        {
            assert!(ip(text).is_routable(), "{text}");
        }
        assert!(!Ip::of_name("main1.iop.cash").is_valid());
    }

    /// The cases of Core's `netbase_getgroup`.
    #[test]
    fn groups_are_those_of_the_reference() {
        for (text, group) in [
            ("127.0.0.1", vec![GROUP_UNROUTABLE]),
            ("10.0.0.1", vec![GROUP_UNROUTABLE]),
            ("169.254.1.1", vec![GROUP_UNROUTABLE]),
            ("1.2.3.4", vec![GROUP_V4, 1, 2]),
            ("::ffff:0:102:304", vec![GROUP_V4, 1, 2]),
            ("64:ff9b::102:304", vec![GROUP_V4, 1, 2]),
            ("2002:102:304:9999:9999:9999:9999:9999", vec![GROUP_V4, 1, 2]),
            ("2001:0:9999:9999:9999:9999:fefd:fcfb", vec![GROUP_V4, 1, 2]),
            ("2001:470:abcd:9999:9999:9999:9999:9999", vec![GROUP_V6, 32, 1, 4, 112, 175]),
            ("2001:2001:9999:9999:9999:9999:9999:9999", vec![GROUP_V6, 32, 1, 32, 1]),
            (ONION, vec![GROUP_ONION, 0xef]),
        ] {
            assert_eq!(ip(text).group(), group, "{text}");
        }
        assert_eq!(Ip::of_name("a").group().len(), 11);
    }

    #[test]
    fn onion_addresses_are_shown_as_such_and_not_dialled() {
        let address = NetAddress { ip: ip(ONION), port: 4877 };
        assert_eq!(address.to_string(), "5wyqrzbvrdsumnok.onion:4877");
        assert_eq!(address.socket_addr(), None);
        assert_eq!(NetAddress { ip: Ip::of_name("a"), port: 1 }.socket_addr(), None);
    }

    #[test]
    fn a_peer_is_told_the_address_that_it_can_reach_best() {
        let (v4, v6, onion, tunnel) = (ip("8.8.8.8"), ip("2a00::1"), ip(ONION), ip("2002:808:808::1"));
        assert_eq!(ip("10.0.0.1").reachability_from(&v4), 0);
        assert!(v4.reachability_from(&v4) > v6.reachability_from(&v4));
        assert!(v6.reachability_from(&v6) > v4.reachability_from(&v6));
        assert!(v4.reachability_from(&v6) > tunnel.reachability_from(&v6));
        assert!(onion.reachability_from(&onion) > v4.reachability_from(&onion));
        assert!(onion.reachability_from(&v4) < v4.reachability_from(&v4));
    }

    proptest! {
        #[test]
        fn socket_addresses_survive_and_no_bytes_panic(bytes in any::<[u8; 16]>(), port in any::<u16>()) {
            let address = NetAddress { ip: Ip(bytes), port };
            let _ = (address.to_string(), address.ip.group(), address.ip.reachability_from(&Ip(bytes)));
            if let Some(socket) = address.socket_addr() {
                prop_assert_eq!(NetAddress::from(socket), address);
            }
        }
    }
}
