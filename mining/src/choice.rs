//! Which license mines the next block.

use std::fmt;

use serde::Serialize;

use crate::template::LicenseInfo;

/// No license may mine the next block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoLicense {
    /// Height of that block.
    pub height: u32,
    /// The reason for each license.
    pub reasons: Vec<String>,
    /// The lowest height at which a license may mine again, as far as known.
    pub resumes_from_height: Option<u64>,
}

impl fmt::Display for NoLicense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no license may mine block {}: {}", self.height, self.reasons.join("; "))?;
        match self.resumes_from_height {
            Some(height) => write!(f, "; work resumes from height {height}"),
            None => f.write_str("; when work resumes is not known"),
        }
    }
}

/// Index in `licenses` of the one to sign with.
///
/// Of the licenses that may mine the next block, it is the one with the most room in its window. Of those that tie, it
/// is the one whose last block is oldest, so that they take turns; after that, the one configured first. While the
/// chain does not require a license, any license may sign.
/// # Errors
/// [`NoLicense`] if none may mine. The caller must then give out no work, since every hash would be wasted.
pub fn choose(licenses: &[LicenseInfo], required: bool, height: u32) -> Result<usize, NoLicense> {
    let eligible = licenses.iter().enumerate().filter(|(_, license)| license.eligible_next || !required);
    // `min_by_key` returns the first of equal minima. No limit counts as the most room.
    let rank = |license: &LicenseInfo| {
        let room = license.remaining.unwrap_or(u64::MAX);
        (std::cmp::Reverse(room), license.last_block)
    };
    eligible.min_by_key(|(_, license)| rank(license)).map(|(index, _)| index).ok_or_else(|| NoLicense {
        height,
        reasons: licenses.iter().map(why_not).collect(),
        resumes_from_height: licenses.iter().filter_map(|license| license.eligible_from_height).min(),
    })
}

fn why_not(license: &LicenseInfo) -> String {
    let LicenseInfo { address, blocks_in_window, last_block, .. } = license;
    match (license.whitelisted, license.cap, license.remaining) {
        (false, ..) => format!("{address} is not whitelisted"),
        (true, Some(cap), Some(0)) => {
            format!("{address} has {blocks_in_window} blocks in the window, cap {cap}")
        }
        _ => match last_block {
            Some(last) => format!("{address} mined block {last}, too short ago"),
            None => format!("{address} may not mine this block"),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn license(address: &str, remaining: Option<u64>, last_block: Option<u64>) -> LicenseInfo {
        LicenseInfo {
            address: address.into(),
            whitelisted: true,
            admin: false,
            blocks_in_window: 3,
            cap: remaining.map(|left| left + 3),
            remaining,
            last_block,
            eligible_next: remaining != Some(0),
            eligible_from_height: (remaining == Some(0)).then_some(77),
        }
    }

    #[test]
    fn most_room_wins_and_no_limit_is_most() {
        let two = [license("a", Some(5), None), license("b", Some(6), Some(1))];
        assert_eq!(choose(&two, true, 9), Ok(1));
        let with_admin = [two[0].clone(), two[1].clone(), license("c", None, Some(8))];
        assert_eq!(choose(&with_admin, true, 9), Ok(2));
    }

    #[test]
    fn equals_take_turns_by_their_last_block() {
        let mut licenses = [license("a", None, None), license("b", None, None), license("c", None, None)];
        let mut order = Vec::new();
        for height in 1..=6u32 {
            let chosen = choose(&licenses, true, height).unwrap();
            licenses[chosen].last_block = Some(height.into());
            order.push(chosen);
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn one_that_may_not_mine_is_skipped_whatever_its_room() {
        let mut licenses = [license("a", Some(100), None), license("b", Some(1), None)];
        licenses[0].eligible_next = false;
        assert_eq!(choose(&licenses, true, 9), Ok(1));
        assert_eq!(choose(&licenses, false, 9), Ok(0), "before the activation every one may");
    }

    #[test]
    fn when_none_may_mine_it_says_why_and_from_when() {
        let mut licenses =
            [license("a", Some(0), Some(5)), license("b", Some(0), None), license("c", None, Some(8))];
        licenses[1].whitelisted = false;
        licenses[2].eligible_next = false;
        licenses[2].eligible_from_height = Some(11);
        let reason = choose(&licenses, true, 9).unwrap_err();
        assert_eq!(reason.resumes_from_height, Some(11));
        assert_eq!(
            reason.to_string(),
            "no license may mine block 9: a has 3 blocks in the window, cap 3; b is not whitelisted; \
             c mined block 8, too short ago; work resumes from height 11"
        );
    }
}
