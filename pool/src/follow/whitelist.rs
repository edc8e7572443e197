//! Tells when the chain lets a license mine or no longer does.
//!
//! Here: what is logged of two states of the licenses, one after the other. Not here: which one signs (`mod.rs`), and
//! actions that have yet to take effect (`announced.rs`). Most of those are announced; but one that its block takes in
//! at once is in no template.

use iop_mining::template::LicenseInfo;
use tracing::{info, warn};

/// Logs what has changed from one state to the other; with none `before`, every license.
pub(super) fn tell(before: &[LicenseInfo], now: &[LicenseInfo]) {
    for (license, whitelisted) in changes(before, now) {
        if whitelisted {
            info!(license, "this license is whitelisted");
        } else {
            warn!(license, "this license is not whitelisted, no block of it counts");
        }
    }
}

/// The licenses that are or are not whitelisted now, where that has changed.
fn changes<'a>(before: &[LicenseInfo], now: &'a [LicenseInfo]) -> impl Iterator<Item = (&'a str, bool)> {
    let was: Vec<Option<bool>> = now.iter().map(|license| was_whitelisted(before, license)).collect();
    now.iter()
        .zip(was)
        .filter(|(license, was)| *was != Some(license.whitelisted))
        .map(|(license, _)| (license.address.as_str(), license.whitelisted))
}

fn was_whitelisted(before: &[LicenseInfo], license: &LicenseInfo) -> Option<bool> {
    before.iter().find(|other| other.address == license.address).map(|other| other.whitelisted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn license(address: &str, whitelisted: bool) -> LicenseInfo {
        LicenseInfo {
            address: address.to_owned(),
            whitelisted,
            admin: false,
            blocks_in_window: 0,
            cap: None,
            remaining: None,
            last_block: None,
            eligible_next: whitelisted,
            eligible_from_height: None,
        }
    }

    #[test]
    fn every_license_is_told_once_and_then_each_change() {
        let first = [license("one", true), license("two", false)];
        let all: Vec<_> = changes(&[], &first).collect();
        assert_eq!(all, [("one", true), ("two", false)]);
        assert_eq!(changes(&first, &first).count(), 0);
        let then = [license("one", false), license("two", false)];
        assert_eq!(changes(&first, &then).collect::<Vec<_>>(), [("one", false)]);
        assert_eq!(changes(&then, &first).collect::<Vec<_>>(), [("one", true)]);
    }
}
