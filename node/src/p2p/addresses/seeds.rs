//! DNS seeds: names that resolve to addresses of nodes (`ThreadDNSAddressSeed`).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::secp256k1::rand::Rng;

use super::ip::{Ip, TimedAddress};

/// Timeout of a DNS query.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Maximum number of addresses taken from one answer, so that one seed cannot fill the table.
const MAX_ADDRESSES: usize = 256;
/// The services of the nodes that seeds list: full nodes (`NODE_NETWORK`).
const SERVICES: u64 = 1;
const DAY: u64 = 24 * 60 * 60;

/// The answer of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The source under which they are added to the table.
    pub source: Ip,
    /// The addresses, aged three to seven days, since addresses from peers are more recent.
    pub addresses: Vec<TimedAddress>,
}

/// Queries one seed. If `private` is set, on a private chain, addresses that only this machine or its network can
/// reach are accepted too.
///
/// # Errors
/// When the name does not exist, there is no answer within `limit`, or no address in it; the text names the seed.
pub async fn resolve(
    name: &str,
    port: u16,
    private: bool,
    limit: Duration,
    now: u64,
    random: &mut (impl Rng + Send),
) -> io::Result<Answer> {
    let failed = |why: &dyn std::fmt::Display| io::Error::other(format!("seed {name}: {why}"));
    let found = tokio::time::timeout(limit, tokio::net::lookup_host((name, port)))
        .await
        .map_err(|_| failed(&format_args!("no answer within {} s", limit.as_secs())))?
        .map_err(|error| failed(&error))?;
    let answer = answer(name, found, private, now, random);
    if answer.addresses.is_empty() {
        return Err(failed(&"its answer has no address that can be reached"));
    }
    Ok(answer)
}

fn answer(
    name: &str,
    found: impl Iterator<Item = SocketAddr>,
    private: bool,
    now: u64,
    random: &mut impl Rng,
) -> Answer {
    let found = found.take(MAX_ADDRESSES).map(|socket| TimedAddress {
        address: socket.into(),
        services: SERVICES,
        time: now.saturating_sub(random.gen_range(3 * DAY..7 * DAY)),
    });
    let of_use = |ip: &Ip| if private { ip.is_valid() } else { ip.is_routable() };
    let addresses = found.filter(|found| of_use(&found.address.ip)).collect();
    Answer { source: Ip::of_name(name), addresses }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bitcoin::secp256k1::rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn an_answer_is_bounded_and_some_days_old() {
        let now = 1_600_000_000;
        let sockets = (0..1_000u32).map(|n| SocketAddr::from(((0x0808_0000 + n).to_be_bytes(), 4877)));
        let with_private = sockets.chain(std::iter::once(SocketAddr::from(([127, 0, 0, 1], 4877))));
        let answer = answer("seed", with_private, false, now, &mut StdRng::seed_from_u64(1));
        assert_eq!(answer.addresses.len(), MAX_ADDRESSES);
        assert!(answer.addresses.iter().all(|found| (3 * DAY..7 * DAY).contains(&(now - found.time))));
        assert!(!answer.source.is_valid());
    }

    #[tokio::test]
    async fn a_seed_of_a_private_chain_may_name_this_machine() {
        let mut random = StdRng::seed_from_u64(1);
        let answer = resolve("127.0.0.1", 4877, true, LIMIT, 1_600_000_000, &mut random).await.unwrap();
        let addresses: Vec<_> = answer.addresses.iter().map(|found| found.address.socket_addr()).collect();
        assert_eq!(addresses, [Some(SocketAddr::from(([127, 0, 0, 1], 4877)))]);
    }

    #[tokio::test]
    async fn a_seed_that_gives_nothing_is_named() {
        let mut random = StdRng::seed_from_u64(1);
        let error = resolve("localhost", 1, false, LIMIT, 0, &mut random).await.unwrap_err();
        assert_eq!(error.to_string(), "seed localhost: its answer has no address that can be reached");
        let error = resolve("no.such.host.invalid", 1, false, LIMIT, 0, &mut random).await.unwrap_err();
        assert!(error.to_string().starts_with("seed no.such.host.invalid: "), "{error}");
    }
}
