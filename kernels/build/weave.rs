//! How the rounds by the SHA instructions and all that goes on beside them become one program.
//!
//! What lives here: which instructions come between which steps. What does not: the instructions.
//!
//! Two of Zen 4's units can do a step, each every other cycle, so half of the steps must go to each. Which one it will be is
//! told when an instruction is taken up: those that follow each other go to the one half of the units and to the other in
//! turn, whatever they are. So there is an even number of instructions from each step to the next.

/// What goes on beside the steps: lines in their order, and before which slot none comes.
pub(crate) struct Beside {
    pub(crate) lines: Vec<String>,
    pub(crate) begin: usize,
}

/// Does nothing, and needs none of the vector units. (What is called a no-operation is taken up with the instruction
/// before, and does not count.)
const FILLER: &str = "test eax, eax";
/// Goes on with the next instruction. Where code is read as it is and not as the CPU has kept it decoded, Zen 4 goes on like
/// that until it comes to a jump, at half the speed.
const JUMP: &str = "jmp 40f\n40:";

impl Beside {
    /// How many of the lines should have come when this slot is through, and how near the next one is.
    fn due(&self, slot: usize, slots: usize) -> (usize, usize) {
        let share = (slot + 1).saturating_sub(self.begin) * self.lines.len();
        (share / (slots - self.begin), share % (slots - self.begin))
    }
}

/// All of it, a line each, with a jump whenever so many slots are through.
///
/// # Panics
/// When a slot has no step.
pub(crate) fn woven(slots: &[Vec<String>], streams: &[Beside], straight: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut come = vec![0; streams.len()];
    let is_step = |line: &String| line.starts_with("sha256rnds2");
    let step = |slot: &Vec<String>| slot.iter().position(is_step).expect("a slot has a step");
    let jumps = |at: usize| usize::from(at > 0 && at.is_multiple_of(straight));
    for (at, slot) in slots.iter().enumerate() {
        lines.extend(std::iter::repeat_n(JUMP.to_owned(), jumps(at)));
        lines.extend_from_slice(slot);
        let due = |i: usize| streams[i].due(at, slots.len());
        let mut left: Vec<usize> = (0..streams.len()).map(|i| due(i).0.saturating_sub(come[i])).collect();
        // What comes before the next step besides.
        let next = slots.get(at + 1).map_or(0, |slot| jumps(at + 1) + step(slot));
        let others = slot.len() - step(slot) - 1 + next;
        let is_odd = !(others + left.iter().sum::<usize>()).is_multiple_of(2);
        if is_odd {
            let has_more =
                |i: &usize| at >= streams[*i].begin && come[*i] + left[*i] < streams[*i].lines.len();
            let is_not_ahead = |i: &usize| come[*i] <= due(*i).0;
            let more = (0..streams.len()).filter(has_more).filter(is_not_ahead).max_by_key(|i| due(*i).1);
            if let Some(i) = more {
                left[i] += 1;
            } else {
                lines.push(FILLER.to_owned());
            }
        }
        while let Some(i) = (0..streams.len()).filter(|i| left[*i] > 0).max_by_key(|i| left[*i]) {
            lines.push(streams[i].lines[come[i]].clone());
            come[i] += 1;
            left[i] -= 1;
        }
    }
    let all = streams.iter().zip(come).all(|(stream, come)| come == stream.lines.len());
    assert!(all, "all that goes on beside the steps has come");
    lines
}
