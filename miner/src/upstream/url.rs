//! A pool's address as users write it.

use std::fmt;
use std::str::FromStr;

/// Schemes that users and other miners write, and whether they mean TLS. The first of each kind is the one we write.
const SCHEMES: [(&str, bool); 7] = [
    ("stratum+tcp", false),
    ("stratum", false),
    ("tcp", false),
    ("stratum+ssl", true),
    ("stratum+tls", true),
    ("ssl", true),
    ("tls", true),
];
/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;

/// `stratum+tcp://HOST:PORT`, or `stratum+ssl://HOST:PORT` for TLS, where HOST is a name, an IPv4 address, or an IPv6
/// address in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUrl {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether to use TLS.
    pub tls: bool,
}

/// The text is not a pool's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed pool URL {0:?}: expected stratum+tcp://HOST:PORT, or stratum+ssl://HOST:PORT for TLS")]
pub struct UrlError(String);

impl FromStr for PoolUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // The text before an @ may be a password.
        let shown = text.rsplit_once('@').map_or(text, |(_, place)| place);
        parse(text).ok_or_else(|| UrlError(shown.to_owned()))
    }
}

impl PoolUrl {
    /// The same scheme at another port, and at another host if one is given. `None` if that is not a valid host.
    pub(super) fn moved(&self, host: Option<&str>, port: u16) -> Option<Self> {
        let host = match host {
            None => self.host.clone(),
            Some(host) => checked_host(host)?,
        };
        Some(Self { host, port, tls: self.tls })
    }
}

fn parse(text: &str) -> Option<PoolUrl> {
    let (scheme, rest) = text.split_once("://")?;
    let (_, tls) = SCHEMES.into_iter().find(|(known, _)| scheme.eq_ignore_ascii_case(known))?;
    let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':')?;
    // `u16` would also accept a sign.
    let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
    let host = checked_host(host)?;
    (port != 0).then_some(PoolUrl { host, port, tls })
}

/// A name, an IPv4 address, or an IPv6 address in brackets, which are removed.
fn checked_host(host: &str) -> Option<String> {
    let host = match host.strip_prefix('[') {
        Some(bracketed) => {
            let host = bracketed.strip_suffix(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            host
        }
        None => {
            Some(host).filter(|host| host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)))?
        }
    };
    (1..=MAX_HOST).contains(&host.len()).then(|| host.to_owned())
}

impl fmt::Display for PoolUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, tls } = self;
        let scheme = if *tls { "stratum+ssl" } else { "stratum+tcp" };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_addresses_of_both_kinds_are_read_and_printed() {
        for (text, host, port) in [
            ("stratum+tcp://pool.example.org:3333", "pool.example.org", 3333),
            ("stratum+tcp://127.0.0.1:1", "127.0.0.1", 1),
            ("stratum+ssl://[::1]:65535", "::1", 65535),
        ] {
            let url: PoolUrl = text.parse().unwrap();
            assert_eq!((&*url.host, url.port, url.tls), (host, port, text.contains("ssl")));
            assert_eq!(url.to_string(), text);
            assert_eq!(format!("{text}/").to_ascii_uppercase().parse::<PoolUrl>().unwrap().port, port);
        }
    }

    #[test]
    fn every_scheme_in_use_is_read_and_printed_as_one_of_two() {
        for (scheme, printed) in [
            ("stratum", "stratum+tcp"),
            ("tcp", "stratum+tcp"),
            ("stratum+tls", "stratum+ssl"),
            ("ssl", "stratum+ssl"),
            ("TLS", "stratum+ssl"),
        ] {
            let url: PoolUrl = format!("{scheme}://pool:3333").parse().unwrap();
            assert_eq!(url.to_string(), format!("{printed}://pool:3333"));
        }
    }

    #[test]
    fn a_pool_moves_to_a_port_or_a_host_and_keeps_its_way_of_speaking() {
        let url: PoolUrl = "stratum+ssl://pool:1".parse().unwrap();
        assert_eq!(url.moved(None, 2).unwrap().to_string(), "stratum+ssl://pool:2");
        assert_eq!(url.moved(Some("[::1]"), 2).unwrap().to_string(), "stratum+ssl://[::1]:2");
        assert_eq!(url.moved(Some("a]b"), 2), None);
    }

    #[test]
    fn what_is_no_pools_address_is_named_with_what_was_expected() {
        let long = format!("stratum+tcp://{}:1", "a".repeat(254));
        for text in [
            "",
            "pool:3333",
            "http://pool:3333",
            "stratum+udp://pool:3333",
            "stratum+tcp://",
            "stratum+tcp://pool",
            "stratum+tcp://:3333",
            "stratum+tcp://pool:",
            "stratum+tcp://pool:0",
            "stratum+tcp://pool:65536",
            "stratum+tcp://pool:+33",
            "stratum+tcp://user:secret@pool:3333",
            "stratum+tcp://pool:3333/path",
            "stratum+tcp://po ol:3333",
            "stratum+tcp://::1:3333",
            "stratum+tcp://[::1:3333",
            "stratum+tcp://[pool]:3333",
            "stratum+tcp:\u{e9}pool:3333",
            &long,
        ] {
            let line = text.parse::<PoolUrl>().unwrap_err().to_string();
            let expected = "expected stratum+tcp://HOST:PORT, or stratum+ssl://HOST:PORT for TLS";
            // A possible password is never repeated.
            let shown = text.replace("stratum+tcp://user:secret@", "");
            assert_eq!(line, format!("malformed pool URL {shown:?}: {expected}"));
        }
    }
}
