//! What a user's name says.

use iop_consensus::address::{Address, Prefixes};
use iop_stratum::message::is_printing;
use iop_stratum::verdict::Reject;

/// What a user is called, `ADDRESS[.worker]` without blanks around it and without the dot before an empty worker, and who
/// is paid for its shares: the address, one of this network.
///
/// # Errors
/// The name is none, code 24 with what is wrong.
pub(super) fn check<'a>(user: &'a str, prefixes: &Prefixes) -> Result<(&'a str, Address), Reject> {
    let name = user.trim();
    if !name.chars().all(is_printing) {
        return Err(Reject::Unauthorized("the user name has characters that do not print".into()));
    }
    let (address, worker) = name.split_once('.').unwrap_or((name, ""));
    match Address::parse(address, prefixes) {
        Ok(member) => Ok((if worker.is_empty() { address } else { name }, member)),
        Err(error) => Err(Reject::Unauthorized(format!("user must be ADDRESS[.worker]: {error}").into())),
    }
}
