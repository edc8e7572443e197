//! How many files, and so connections, the system lets the node have open, and how many of them Mercury may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are the chain's: its database (256), peers, RPC, metrics; and Mercury's own database (64).
const RESERVE: u64 = 1_024;

/// Raises the soft limit of open files to the hard one. Where that fails, the limit stays what it is.
pub(crate) fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }); // then what is now must do
}

/// The soft limit of open files; none where nothing limits them.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many of `most` connections fit below a limit of open files, so that the chain has enough left.
pub(crate) fn connections(limit: Option<u64>, most: usize) -> usize {
    let Some(limit) = limit else { return most };
    // Under the usual 1,024 a quarter: the chain needs no more than the rest.
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
