//! How the rounds by the SHA instructions and all that goes on beside them become one program.
//!
//! What lives here: which instructions come between which steps. What does not: the instructions.
//!
//! Two of Zen 4's units can do a step, each every other cycle, so half of the steps must go to each. Which one it will be is
//! told when an instruction is taken up: those that follow each other go to the one half of the units and to the other in
//! turn, whatever they are. So there is an even number of instructions from each step to the next.

use crate::chains::FILLER;

/// Goes on with the next instruction. Where code is read as it is and not as the CPU has kept it decoded, Zen 4 goes on like
/// that until it comes to a jump, at half the speed.
const JUMP: &str = "jmp 40f\n40:";

/// All of it, a line each: the slots, and the lines beside them evenly between their steps from one of the slots on, with a
/// jump whenever so many slots are through.
///
/// # Panics
/// When a slot has no step.
pub(crate) fn woven(slots: &[Vec<String>], beside: &[String], begin: usize, straight: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = beside.iter();
    let is_step = |line: &String| line.starts_with("sha256rnds2");
    let step = |slot: &Vec<String>| slot.iter().position(is_step).expect("a slot has a step");
    let jumps = |at: usize| usize::from(at > 0 && at.is_multiple_of(straight));
    for (at, slot) in slots.iter().enumerate() {
        lines.extend(std::iter::repeat_n(JUMP.to_owned(), jumps(at)));
        lines.extend_from_slice(slot);
        // So many should be left when this slot is through.
        let due = beside.len() * (slots.len() - (at + 1).max(begin)) / (slots.len() - begin);
        let mut count = left.len().saturating_sub(due);
        // What comes before the next step besides.
        let next = slots.get(at + 1).map_or(0, |slot| jumps(at + 1) + step(slot));
        let others = slot.len() - step(slot) - 1 + next;
        if !(others + count).is_multiple_of(2) {
            if at >= begin && due <= left.len() && left.len() > count {
                count += 1;
            } else {
                lines.push(FILLER.to_owned());
            }
        }
        lines.extend(left.by_ref().take(count).cloned());
    }
    assert!(left.len() == 0, "all that goes on beside the steps has come");
    lines
}
