//! The rounds by the SHA instructions: seven hashes that take turns, and never stop.
//!
//! What lives here: which round of which hash comes when, in which registers. What does not: what comes between
//! (`weave.rs`), and the messages that the rounds read.
//!
//! Two rounds of one hash are one instruction, a step. It has a slot of its own in the iteration, and the hash's next step
//! is seven slots later; after its last the chain begins another hash, and what is begun in one iteration may end in the
//! next. Seven has no divisor in common with the number of slots, so that one path of such strides comes through all of
//! them: the hashes lie along it, one behind the other. First hashes begin in the first half of the iteration and end in
//! it, second hashes begin in the second half.
//!
//! Registers 1 to 14 hold the states, register 0 what the next step adds: the instruction knows no other place for it.
//! Register 15 is free but between iterations.

use crate::emit::address;
use crate::message::LAST_ROUND;
use crate::page::{Constant, IN_FOURS, Slot};
use crate::places::{read, written};
use crate::sha_page::{LANES, REGISTER};

/// Hashes that take turns.
const CHAINS: usize = 7;
/// Steps of a first hash, from round 4 on, and of a second, from round 1 on. The round before only adds a word to what is known.
const FIRST_STEPS: usize = 30;
const SECOND_STEPS: usize = LAST_ROUND / 2;
/// A register that holds nothing between iterations.
const SPARE: usize = 15;
/// The mask that has a and e.
const A_AND_E: &str = "k2";
/// Slots in an iteration.
pub(crate) const SLOTS: usize = LANES * (FIRST_STEPS + SECOND_STEPS);

/// Before the first iteration: makes the mask. eax is free afterwards.
pub(crate) fn begin() -> String {
    let mask = [0, 4].into_iter().fold(0, |mask, word| mask | 1 << IN_FOURS[word]);
    format!("mov eax, {mask}\nkmovw {A_AND_E}, eax\n")
}

/// The rounds of an iteration.
pub(crate) struct Rounds {
    /// A step each, with what it reads, and what begins and ends its hash.
    pub(crate) slots: Vec<Vec<String>>,
    /// The chains' registers as the next iteration's first slots want them.
    pub(crate) moves: Vec<String>,
    /// How many of the second hashes end in the next iteration.
    pub(crate) late: usize,
}

/// One of the hashes that begin in an iteration.
#[derive(Clone, Copy)]
struct Hash {
    nonce: usize,
    is_second: bool,
    /// The slot of its first step.
    first: usize,
}

impl Hash {
    fn steps(self) -> usize {
        steps_of(self.is_second)
    }
}

fn steps_of(is_second: bool) -> usize {
    if is_second { SECOND_STEPS } else { FIRST_STEPS }
}

/// A step of a hash.
#[derive(Clone, Copy)]
struct Step {
    hash: Hash,
    number: usize,
    /// Whether the hash began in the iteration before.
    is_late: bool,
}

/// All hashes, so that each kind begins in its half of the iteration. The later nonces come first, since a second hash's
/// end writes over what is before its own word (see [`Step::end`]).
fn hashes() -> Vec<Hash> {
    let along = |path: usize| {
        let mut begin = path;
        let mut firsts = [const { Vec::new() }; 2];
        while begin < path + SLOTS {
            let first = begin * CHAINS % SLOTS;
            let is_second = first >= SLOTS / 2;
            firsts[usize::from(is_second)].push(first);
            begin += steps_of(is_second);
        }
        firsts.iter().all(|firsts| firsts.len() == LANES).then_some(firsts)
    };
    let mut firsts = (0..SLOTS).find_map(along).expect("there is such a place to begin");
    let mut hashes = Vec::new();
    for (is_second, firsts) in [false, true].into_iter().zip(&mut firsts) {
        firsts.sort_unstable();
        let nonces = (0..LANES).rev().zip(firsts);
        hashes.extend(nonces.map(|(nonce, first)| Hash { nonce, is_second, first: *first }));
    }
    hashes
}

/// What is in each slot.
fn steps() -> Vec<Step> {
    let mut slots = vec![None; SLOTS];
    for hash in hashes() {
        for number in 0..hash.steps() {
            let slot = hash.first + number * CHAINS;
            let step = Step { hash, number, is_late: slot >= SLOTS };
            assert!(slots[slot % SLOTS].replace(step).is_none(), "a slot has one step");
        }
    }
    slots.into_iter().map(|step| step.expect("the path comes through all slots")).collect()
}

/// Where a second hash's last f and e go: e to the nonce's place among the last words, and f before it.
pub(crate) fn last_word(nonce: usize) -> String {
    let (slot, byte) =
        if nonce == 0 { (Slot::BeforeLastWords, REGISTER - 4) } else { (Slot::LastWords, 4 * (nonce - 1)) };
    written(slot, byte)
}

/// A chain's state. Its registers change names with every step.
#[derive(Clone, Copy)]
struct State {
    abef: usize,
    cdgh: usize,
}

impl State {
    /// That of the chain whose turn is in one of an iteration's first slots, when it begins.
    fn of_chain(chain: usize) -> Self {
        Self { abef: 2 * chain + 1, cdgh: 2 * chain + 2 }
    }
}

impl Step {
    /// Four words of the nonce, in one of four registers.
    fn words(self, slot: impl Fn(usize) -> Slot) -> String {
        format!("xmmword ptr {}", read(slot(self.hash.nonce % 4), self.hash.nonce / 4 * 16))
    }

    fn begin(self, State { abef, cdgh }: State, lines: &mut Vec<String>) {
        let ([four, other], added) = if self.hash.is_second {
            ([0, 1].map(|i| address(Constant::SecondFour(i))), read(Slot::SecondAdded, 4 * self.hash.nonce))
        } else {
            ([0, 16].map(|byte| format!("[r11 + {byte}]")), read(Slot::Added, 4 * self.hash.nonce))
        };
        lines.push(format!("vmovdqa xmm{abef}, xmmword ptr {four}"));
        // The message word of the round before goes into a and e.
        lines.push(format!("vpaddd xmm{abef} {{{A_AND_E}}}, xmm{abef}, dword ptr {added}{{1to4}}"));
        lines.push(format!("vmovdqa xmm{cdgh}, xmmword ptr {other}"));
    }

    /// Where what its rounds add is.
    fn sums(self) -> String {
        let nonce = self.hash.nonce;
        let byte = nonce / 4 * 16 + nonce % 2 * 8;
        let half = nonce % 4 / 2;
        let t = 2 * self.number + if self.hash.is_second { 1 } else { 4 };
        match (self.hash.is_second, t) {
            (true, 8..15) => address(Constant::SecondRound(t)),
            // By now, what was read is what is being written.
            (true, _) if self.is_late => written(Slot::SecondPair(t, half), byte),
            (true, _) => read(Slot::SecondPair(t, half), byte),
            (false, ..18) => address(Constant::FirstRound(t)),
            (false, _) => read(Slot::FirstPair(t, half), byte),
        }
    }

    fn end(self, State { abef, cdgh }: State, lines: &mut Vec<String>) {
        if self.hash.is_second {
            // The lower half is f and e, and e of round 60 decides. f goes where the nonce before has its word, or will.
            lines.push(format!("vmovq qword ptr {}, xmm{abef}", last_word(self.hash.nonce)));
        } else {
            lines.push(format!("vmovdqa {}, xmm{abef}", self.words(Slot::State)));
            lines.push(format!("vmovdqa {}, xmm{cdgh}", self.words(|i| Slot::State(4 + i))));
        }
    }
}

/// All rounds of an iteration.
pub(crate) fn rounds() -> Rounds {
    let mut states: Vec<State> = (0..CHAINS).map(State::of_chain).collect();
    let mut slots = Vec::new();
    let mut late = 0;
    for (slot, step) in steps().into_iter().enumerate() {
        let state = &mut states[slot % CHAINS];
        let mut lines = Vec::new();
        if step.number == 0 {
            assert!(!step.is_late, "a hash begins in its own iteration");
            step.begin(*state, &mut lines);
        }
        // The longer form of the instruction counts its address in eights, so that a byte suffices.
        lines.push(format!("{{evex}} vmovq xmm0, qword ptr {}", step.sums()));
        lines.push(format!("sha256rnds2 xmm{}, xmm{}", state.cdgh, state.abef));
        std::mem::swap(&mut state.abef, &mut state.cdgh);
        if step.number + 1 == step.hash.steps() {
            step.end(*state, &mut lines);
            late += usize::from(step.is_late);
        }
        slots.push(lines);
    }
    Rounds { slots, moves: moves(&states), late }
}

/// Whose turn is first in the next iteration is another chain than in this one.
fn moves(states: &[State]) -> Vec<String> {
    let moves = (0..CHAINS).flat_map(|chain| {
        let (from, to) = (states[(SLOTS + chain) % CHAINS], State::of_chain(chain));
        [(from.abef, to.abef), (from.cdgh, to.cdgh)]
    });
    let mut left: Vec<(usize, usize)> = moves.filter(|(from, to)| from != to).collect();
    let mut lines = Vec::new();
    let mut from_to = |from, to| lines.push(format!("vmovdqa xmm{to}, xmm{from}"));
    // They form circles, and of each circle one value waits in a spare register.
    while let Some((_, first)) = left.first().copied() {
        from_to(first, SPARE);
        let mut to = first;
        while let Some(at) = left.iter().position(|(_, moved)| *moved == to) {
            let (from, _) = left.swap_remove(at);
            from_to(if from == first { SPARE } else { from }, to);
            to = from;
        }
    }
    lines
}
