//! The limit of open files, and so of connections, and how many of them Mercury may use.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files reserved for the chain: its database (256), peers, RPC, metrics; and for Mercury's own database (64).
const RESERVE: u64 = 1_024;

/// Raises the soft limit of open files to the hard one. If that fails, the limit stays as it is.
pub(crate) fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }); // then what is now must do
}

/// The soft limit of open files; `None` if unlimited.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many of `most` connections are possible under a limit of open files, leaving enough for the chain.
pub(crate) fn connections(limit: Option<u64>, most: usize) -> usize {
    let Some(limit) = limit else { return most };
    // Under the usual limit of 1,024, a quarter: the rest is enough for the chain.
    let room = limit.saturating_sub(RESERVE).max(limit / 4);
    usize::try_from(room).map_or(most, |room| room.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_keeps_its_files() {
        for (limit, expected) in [
            (None, 24_000),
            (Some(1_000_000), 24_000),
            (Some(25_024), 24_000),
            (Some(8_192), 7_168),
            (Some(1_024), 256),
            (Some(0), 0),
        ] {
            assert_eq!(connections(limit, 24_000), expected, "{limit:?}");
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise();
        assert_eq!(limit(), getrlimit(Resource::Nofile).maximum);
    }
}
