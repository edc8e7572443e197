//! A pool's address as people write it.

use std::fmt;
use std::str::FromStr;

const SCHEME: &str = "stratum+tcp://";
/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;

/// `stratum+tcp://HOST:PORT`, where HOST is a name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUrl {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The text is no pool's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed pool URL {0:?}: expected stratum+tcp://HOST:PORT")]
pub struct UrlError(String);

impl FromStr for PoolUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        parse(text).ok_or_else(|| UrlError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PoolUrl> {
    let scheme = text.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME))?;
    let rest = &text[scheme.len()..];
    let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':')?;
    // `u16` would also take a sign.
    let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
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
    let right = (1..=MAX_HOST).contains(&host.len()) && port != 0;
    right.then(|| PoolUrl { host: host.to_owned(), port })
}

impl fmt::Display for PoolUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "{SCHEME}[{host}]:{port}")
        } else {
            write!(f, "{SCHEME}{host}:{port}")
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
            ("stratum+tcp://[::1]:65535", "::1", 65535),
        ] {
            let url: PoolUrl = text.parse().unwrap();
            assert_eq!((&*url.host, url.port), (host, port));
            assert_eq!(url.to_string(), text);
            assert_eq!(format!("{text}/").to_ascii_uppercase().parse::<PoolUrl>().unwrap().port, port);
        }
    }

    #[test]
    fn what_is_no_pools_address_is_named_with_what_was_expected() {
        let long = format!("stratum+tcp://{}:1", "a".repeat(254));
        for text in [
            "",
            "pool:3333",
            "http://pool:3333",
            "stratum+ssl://pool:3333",
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
            assert_eq!(line, format!("malformed pool URL {text:?}: expected stratum+tcp://HOST:PORT"));
        }
    }
}
