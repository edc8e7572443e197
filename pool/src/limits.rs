//! The limit of open files, and the number of connections that fit under it.

use crate::api::MAX_CONNECTIONS;
use crate::config::ConfigError;
use crate::ledger::files::MAX_OPEN_FILES;

/// Files that are open under any configuration: standard streams, listeners, the runtime's own, locks, an API connection
/// that waits for a place, found blocks being written. API connections and the ledger's tables come on top.
const RESERVE: u64 = 32;
/// Files per node: a long poll, a call, and a few found blocks being submitted.
const RESERVE_PER_NODE: u64 = 8;

/// The number of Stratum connections that fits under a limit of open files: the requested one, or the default lowered
/// to fit.
///
/// # Errors
/// More was requested than fits, or the limit leaves no room at all.
pub fn connections(
    asked: Option<usize>,
    default: usize,
    open_files: Option<u64>,
    nodes: usize,
) -> Result<usize, ConfigError> {
    let wanted = asked.unwrap_or(default);
    let Some(limit) = open_files else { return Ok(wanted) };
    let reserve = RESERVE
        + MAX_CONNECTIONS as u64
        + u64::from(MAX_OPEN_FILES)
        + RESERVE_PER_NODE.saturating_mul(nodes as u64);
    let room = usize::try_from(limit.saturating_sub(reserve)).unwrap_or(usize::MAX);
    if room == 0 || asked.is_some_and(|asked| asked > room) {
        return Err(ConfigError(format!(
            "max_connections is {wanted}, at most {room} expected: the system allows {limit} open files, \
             {reserve} are kept for other uses"
        )));
    }
    Ok(wanted.min(room))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn connections_fit_under_the_limit_of_open_files() {
        assert_eq!(connections(None, 10_000, None, 1), Ok(10_000));
        assert_eq!(connections(None, 10_000, Some(1_000_000), 1), Ok(10_000));
        assert_eq!(connections(None, 10_000, Some(1024), 2), Ok(1024 - 224 - 16), "the default is lowered");
        assert_eq!(connections(Some(784), 10_000, Some(1024), 2), Ok(784));
        let error = connections(Some(785), 10_000, Some(1024), 2).unwrap_err().to_string();
        assert!(error.contains("max_connections is 785, at most 784 expected"), "{error}");
        assert!(connections(None, 10_000, Some(232), 1).is_err(), "no room for even one");
        assert_eq!(connections(Some(7), 10_000, None, 1), Ok(7));
    }
}
