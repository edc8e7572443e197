//! Vector hashes: computed by AVX-512 alone, beside those whose rounds use the SHA instructions.
//!
//! What lives here: their rounds, and the code before, between and after their two hashes. What does not: how message
//! words are computed (`expansion.rs`), and the loop (`mod.rs`).
//!
//! The units of the SHA instructions are always busy, and the others are not. So every eight iterations process one
//! vector item more: a batch of nonces in one version. Each iteration does fifteen of its rounds and six words of a
//! second message; moving pointers determine which. Four iterations do the first hash's rounds 4 to 63, and four the
//! second hash's rounds 1 to 60 of the previous item, whose words were computed in the last eight.
//!
//! Register names are the CPU's own: r9 points to what the next rounds add, r10 to the next words, rcx to their round
//! constants; rax is free between iterations. No vector register holds a value from one iteration to the next.

use super::expansion;
use super::places::{as_written, point, point_to, written};
use crate::emit::{self, joined};
use crate::flow::{Flow, Value};
use crate::page::{Constant, IN_FOURS, Slot};
use crate::sha_page::{ITEMS, LANES, Part, REGISTER, VECTOR_ROUNDS as ROUNDS, VECTOR_SUMS};

/// Iterations that the rounds of one hash take.
pub(crate) const ITERATIONS: usize = ITEMS / 2;
pub(crate) const WORDS: usize = 48 / ITEMS;
const _: () =
    assert!(ROUNDS * ITERATIONS == 60 && 16 + WORDS * ITEMS == VECTOR_SUMS, "a hash is whole in its time");

/// The state before a round. c and d are needed only to add d to e, so they are kept in memory.
struct State {
    a: Value,
    b: Value,
    e: Value,
    f: Value,
    g: Value,
    h: Value,
    /// The bits in which b and c differ: those in which a and b differed a round before.
    b_and_c_differ: Value,
    /// The slots of a to d.
    stored: [Slot; 4],
}

impl State {
    /// Loads the state that the previous iteration left.
    fn load(flow: &mut Flow) -> Self {
        let [a, b, c, e, f, g, h] = [0, 1, 2, 4, 5, 6, 7].map(|i| flow.load(Slot::VectorState(i)));
        let stored = std::array::from_fn(Slot::VectorState);
        Self { a, b, e, f, g, h, b_and_c_differ: flow.xor(b, c), stored }
    }

    fn round(self, flow: &mut Flow, i: usize) -> Self {
        let Self { a, b, e, f, g, h, b_and_c_differ, stored } = self;
        let h = flow.add(h, Slot::Behind("r9", i as i64));
        // f or g, as e chooses.
        let choice = flow.xor(f, g);
        let choice = flow.and(choice, e);
        let choice = flow.xor(choice, g);
        let h = flow.add(h, choice);
        let sigma = flow.big_sigma(e.into(), [6, 11, 25]);
        let h = flow.add(h, sigma);
        let next_e = flow.add(h, stored[3]);
        let a_and_b_differ = flow.xor(a, b);
        let majority = flow.and(a_and_b_differ, b_and_c_differ);
        let majority = flow.xor(majority, b);
        let h = flow.add(h, majority);
        let sigma = flow.big_sigma(a.into(), [2, 13, 22]);
        let next_a = flow.add(h, sigma);
        let stored = [Slot::VectorPast(i), stored[0], stored[1], stored[2]];
        // Three rounds later it will be d; the last rounds' values are stored elsewhere.
        if i + 2 < ROUNDS {
            flow.store(next_a, stored[0]);
        }
        Self { a: next_a, b: a, e: next_e, f: e, g: f, h: g, b_and_c_differ: a_and_b_differ, stored }
    }

    /// Stores the state for the next iteration.
    fn store(self, flow: &mut Flow) {
        let [c, d] = [2, 3].map(|i| flow.load(self.stored[i]));
        let words = [self.a, self.b, c, d, self.e, self.f, self.g, self.h];
        words.into_iter().enumerate().for_each(|(i, word)| flow.store(word, Slot::VectorState(i)));
    }
}

/// An iteration's rounds and words, with `times` calls of `other` spread evenly between them; each gets its number.
pub(crate) fn rounds_and_words(times: usize, mut other: impl FnMut(&mut Flow, usize)) -> Flow {
    let mut flow = Flow::beside_rounds();
    let mut state = State::load(&mut flow);
    let due = |rounds: usize| (rounds * times + ROUNDS / 2) / ROUNDS;
    for i in 0..ROUNDS {
        state = state.round(&mut flow, i);
        for i in i * WORDS / ROUNDS..(i + 1) * WORDS / ROUNDS {
            expansion::sum_behind(&mut flow, "r10", "rcx", i, VECTOR_SUMS);
        }
        (due(i)..due(i + 1)).for_each(|time| other(&mut flow, time));
    }
    state.store(&mut flow);
    flow
}

/// Advances the pointers.
pub(crate) fn move_on() -> String {
    format!("add r9, {}\nadd r10, {}\nadd rcx, {}\n", ROUNDS * REGISTER, WORDS * REGISTER, WORDS * 4)
}

/// Computes a first message, from word 18 on. `count` is a place for a counter.
pub(crate) fn first_message(count: &str) -> String {
    const AT_ONCE: usize = 2;
    let mut words = Flow::beside_rounds();
    (0..AT_ONCE).for_each(|i| expansion::sum_behind(&mut words, "r9", "rax", i, VECTOR_SUMS));
    point("r9", Part::VectorFirst.first(0) + 18)
        + &point_to("rax", Constant::FirstRound(18))
        + &format!("mov {count}, {}\n35:\n", (64 - 18) / AT_ONCE)
        + &joined(as_written(&words))
        + &format!("add r9, {}\nadd rax, {}\ndec {count}\njnz 35b\n", AT_ONCE * REGISTER, AT_ONCE * 4)
}

/// Begins a first hash at round 4, from the version's state at rax and the nonces.
pub(crate) fn begin_first() -> String {
    let mut flow = Flow::beside_rounds();
    for (i, place) in IN_FOURS.into_iter().enumerate() {
        let mut word = flow.load(Constant::Behind("rax", place));
        if i % 4 == 0 {
            word = flow.add(word, Slot::VectorNonces);
        }
        flow.store(word, Slot::VectorState(i));
    }
    joined(as_written(&flow)) + &point("r9", Part::VectorFirst.first(0) + VECTOR_SUMS + 4)
}

/// Goes from a first hash to the second hash of the previous item. The version's words are at rax. The item's second
/// message will be computed where r9 points; r10 has reached the end of the previous one.
pub(crate) fn begin_second() -> String {
    let mut flow = Flow::beside_rounds();
    let here = |register: usize| Slot::Behind("r9", register as i64);
    for i in 0..8 {
        let word = flow.load(Slot::VectorState(i));
        let word = flow.add(word, Constant::Behind("rax", Constant::Midstate(i).number()));
        flow.store(word, here(i));
        if i > 0 {
            let sum = flow.add(word, Constant::SecondRound(i));
            flow.store(sum, here(VECTOR_SUMS + i));
        }
    }
    // Round 0 starts from constants, and shifts all names by one place.
    for i in [0, 1, 2, 4, 5, 6] {
        let word = flow.load(Constant::Initial(i));
        flow.store(word, Slot::VectorState(i + 1));
    }
    let first = flow.load(Slot::Behind("r10", -(VECTOR_SUMS as i64)));
    for (i, known) in [(0, Constant::SecondA), (4, Constant::SecondE)] {
        let word = flow.add(first, known);
        flow.store(word, Slot::VectorState(i));
    }
    joined(as_written(&flow))
        + &format!("lea rax, [r9 + {}]\nlea r9, [r10 + {REGISTER}]\nmov r10, rax\n", 16 * REGISTER)
        + &point_to("rcx", Constant::SecondRound(16))
}

/// Ends a second hash: e after round 60 is the deciding word. The mask goes to where rax points.
pub(crate) fn test() -> String {
    const WORD: &str = "ymm31";
    let load = format!("vmovdqa32 {WORD}, ymmword ptr {}\n", written(Slot::VectorState(4), 0));
    load + &joined(emit::test(WORD, &emit::in_all_lanes(Constant::Zeros, LANES), "rax"))
}
