//! Interleaves the rounds by the SHA instructions with everything that runs beside them.
//!
//! What lives here: which instructions come between which steps. What does not: the instructions.
//!
//! Two of Zen 4's units can do a step, each every other cycle, so half of the steps must go to each. The unit is chosen
//! when an instruction is dispatched: consecutive instructions go to the two halves of the units alternately, whatever
//! they are. So there is an even number of instructions from each step to the next.

use crate::chains::FILLER;

/// Jumps to the next instruction. When code is fetched and decoded anew instead of coming from the cache of decoded
/// instructions, Zen 4 continues that way, at half the speed, until it meets a jump.
const JUMP: &str = "jmp 40f\n40:";

/// All instructions, a line each: the slots, with the lines of `beside` spread evenly between their steps from slot
/// `begin` on, and a jump after every `straight` slots.
///
/// # Panics
/// A slot has no step.
pub(crate) fn woven(slots: &[Vec<String>], beside: &[String], begin: usize, straight: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = beside.iter();
    let is_step = |line: &String| line.starts_with("sha256rnds2");
    let step = |slot: &Vec<String>| slot.iter().position(is_step).expect("a slot has a step");
    let jumps = |at: usize| usize::from(at > 0 && at.is_multiple_of(straight));
    for (at, slot) in slots.iter().enumerate() {
        lines.extend(std::iter::repeat_n(JUMP.to_owned(), jumps(at)));
        lines.extend_from_slice(slot);
        // How many should be left after this slot.
        let due = beside.len() * (slots.len() - (at + 1).max(begin)) / (slots.len() - begin);
        let mut count = left.len().saturating_sub(due);
        // The instructions up to the next step apart from those.
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
