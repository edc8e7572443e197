//! What a user's name and password say.

use iop_consensus::address::{Address, Prefixes};
use iop_stratum::difficulty::Difficulty;
use iop_stratum::message::is_printing;
use iop_stratum::verdict::Reject;

/// Who is paid for a user's shares: `ADDRESS[.worker]`, the address one of this network.
///
/// # Errors
/// The name is none, code 24 with what is wrong.
pub(super) fn check(user: &str, prefixes: &Prefixes) -> Result<Address, Reject> {
    if !user.chars().all(is_printing) {
        return Err(Reject::Unauthorized("the user name has characters that do not print".into()));
    }
    let (address, worker) =
        user.split_once('.').map_or((user, None), |(address, name)| (address, Some(name)));
    if worker == Some("") {
        return Err(Reject::Unauthorized("the worker name after the dot is empty".into()));
    }
    match Address::parse(address, prefixes) {
        Ok(member) => Ok(member),
        Err(error) => Err(Reject::Unauthorized(format!("user must be ADDRESS[.worker]: {error}").into())),
    }
}

/// `d=N` or `diff=N` among the password's comma-separated options, as rented hash power and proxies send it.
pub(super) fn difficulty_in(password: &str) -> Option<Difficulty> {
    let value =
        |option: &str| Some(option.strip_prefix("d=").or_else(|| option.strip_prefix("diff="))?.to_owned());
    password.split(',').map(str::trim).find_map(value)?.parse().ok().and_then(Difficulty::new)
}
