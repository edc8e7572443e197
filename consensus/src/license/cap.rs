//! The arithmetic of windows and caps (`minerwhitelist.cpp`). Stateless: heights and counts in, answers out.
//!
//! There are two systems. Below the change height a window lies between multiples of 2,016, and the counters restart at
//! each. From the change height on, the window slides over the last 2,016 blocks.

use crate::WINDOW;
use crate::params::LicenseParams;

/// Blocks that a license may have in the window when it mines, for a factor and a number of licenses. The rule compares
/// the count *before* the new block, so a license can reach this number plus one (`GetCap`).
///
/// `parent` is the height of the block built upon. With no licenses at all the cap is a whole window.
pub fn cap(factor: u32, whitelisted: u32, parent: u32, params: &LicenseParams) -> u32 {
    if parent < params.cap_change_height {
        WINDOW.checked_div(whitelisted).map_or(WINDOW, |share| factor * share)
    } else {
        (factor * WINDOW).checked_div(whitelisted).unwrap_or(WINDOW)
    }
}

/// Whether the counters of all licenses restart at `height`. That block itself is not counted in the new window
/// (`MineBlock`).
pub fn resets_at(height: u32, params: &LicenseParams) -> bool {
    height < params.cap_change_height && height.is_multiple_of(WINDOW)
}

/// The height of the block that leaves the sliding window when the block at `height` is counted. Blocks from before the
/// last reset were not counted and do not leave (`MineBlock`).
pub fn drops_out_at(height: u32, params: &LicenseParams) -> Option<u32> {
    if height < params.cap_change_height {
        return None;
    }
    let dropped = height.checked_sub(WINDOW)?;
    let change = params.cap_change_height;
    let first_counted = change - change.saturating_sub(1) % WINDOW;
    (dropped >= 1 && dropped >= first_counted).then_some(dropped)
}

/// First height of the window, as the reference reports it at `height` (`GetWindowStart`).
pub fn window_start(height: u32, params: &LicenseParams) -> u32 {
    if height <= WINDOW {
        1
    } else if height < params.cap_change_height {
        height - height % WINDOW
    } else {
        height - WINDOW + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Params;

    #[test]
    fn the_two_systems_round_differently() {
        let main = Params::main().license;
        assert_eq!(cap(3, 50, 40_319, &main), 120);
        assert_eq!(cap(3, 50, 40_320, &main), 120);
        assert_eq!(cap(3, 100, 40_319, &main), 60);
        assert_eq!(cap(3, 1000, 40_319, &main), 6);
        assert_eq!(cap(1, 1500, 40_320, &main), 1);
        assert_eq!(cap(2, 1500, 40_319, &main), 2);
        assert_eq!(cap(3, 1500, 40_320, &main), 4);
        assert_eq!(cap(0, 10, 50_000, &main), 0);
    }

    #[test]
    fn nothing_drops_out_that_was_not_counted() {
        // The reference's own examples: main's first drop is 38305, test's 6049.
        let main = Params::main().license;
        assert_eq!(drops_out_at(40_319, &main), None);
        assert_eq!(drops_out_at(40_320, &main), None);
        assert_eq!(drops_out_at(40_321, &main), Some(38_305));
        let test = Params::test().license;
        assert_eq!(drops_out_at(7_800, &test), None);
        assert_eq!(drops_out_at(6_048 + 2_016, &test), None);
        assert_eq!(drops_out_at(6_049 + 2_016, &test), Some(6_049));
    }

    #[test]
    fn resets_end_with_the_old_system() {
        let main = Params::main().license;
        assert!(resets_at(38_304, &main));
        assert!(!resets_at(38_305, &main));
        assert!(!resets_at(40_320, &main));
        assert_eq!(window_start(2_016, &main), 1);
        assert_eq!(window_start(2_017, &main), 2_016);
        assert_eq!(window_start(40_320, &main), 38_305);
    }
}
