//! Decides when a device with too many wrong finds must stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// This many wrong finds in a row are no bad luck, whatever came before.
const IN_A_ROW: u32 = 10;
/// Number of finds looked back at.
const WINDOW: u32 = 100;
/// If more of them are wrong, the device stops: one that is wrong half of the time is wrong about the rest as well.
const MOST_WRONG: u32 = WINDOW / 2;

/// The outcome of a device's last finds.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Read between chunks without the lock.
    condemned: AtomicBool,
    finds: Mutex<Finds>,
}

#[derive(Debug, Default)]
struct Finds {
    /// The last `WINDOW` finds, the newest in the lowest bit; 1 is a wrong one.
    wrong: u128,
    in_a_row: u32,
    reason: Option<String>,
}

impl Faults {
    /// Records a find. Returns whether the device must stop because of it.
    pub(super) fn note(&self, wrong: bool) -> bool {
        let mut finds = self.finds.lock().expect("nothing panics while it holds the lock");
        finds.wrong = (finds.wrong << 1 | u128::from(wrong)) & ((1 << WINDOW) - 1);
        finds.in_a_row = if wrong { finds.in_a_row + 1 } else { 0 };
        let of_window = finds.wrong.count_ones();
        if finds.reason.is_some() {
            return false;
        }
        if finds.in_a_row >= IN_A_ROW {
            finds.reason = Some(format!("{IN_A_ROW} wrong finds in a row: stopped"));
        } else if of_window > MOST_WRONG {
            finds.reason = Some(format!("{of_window} of the last {WINDOW} finds are wrong: stopped"));
        }
        let condemned = finds.reason.is_some();
        self.condemned.store(condemned, Ordering::Relaxed);
        condemned
    }

    /// Whether the device must stop. Cheap.
    pub(super) fn condemned(&self) -> bool {
        self.condemned.load(Ordering::Relaxed)
    }

    /// Why it must stop, if it must.
    pub(super) fn reason(&self) -> Option<String> {
        self.finds.lock().expect("nothing panics while it holds the lock").reason.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_wrong_in_a_row_are_the_end_and_nine_are_not() {
        let faults = Faults::default();
        for wrong in [vec![true; 9], vec![false], vec![true; 9]].concat() {
            assert!(!faults.note(wrong));
        }
        assert!(!faults.condemned());
        assert!(faults.note(true));
        assert!(faults.condemned());
        assert_eq!(faults.reason().as_deref(), Some("10 wrong finds in a row: stopped"));
        assert!(!faults.note(true), "it ends once");
    }

    #[test]
    fn more_than_half_of_the_last_hundred_are_the_end() {
        let faults = Faults::default();
        // Half of them wrong, indefinitely.
        assert!(!(0..1000).any(|i| faults.note(i % 2 == 0)));
        // Now two of three are wrong: the limit is passed after some tens.
        let end = (0..200).position(|i| faults.note(i % 3 != 0));
        assert!(end.is_some_and(|end| end < 60), "{end:?}");
        assert_eq!(faults.reason().as_deref(), Some("51 of the last 100 finds are wrong: stopped"));
    }
}
