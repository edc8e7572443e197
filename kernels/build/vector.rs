//! Vector hashes: by AVX-512 alone, beside those whose rounds are the SHA instructions'.
//!
//! What lives here: their rounds, and what comes before, between and after their two hashes. What does not: how message
//! words are made (`expansion.rs`), and the loop (`sha_avx512.rs`).
//!
//! The SHA instructions' units are always busy, and the others are not. So in eight iterations there is one vector item more:
//! a batch of nonces in one version. Each iteration has fifteen of its rounds and six words of a second message, and
//! which ones they are is told by pointers that move on: four iterations for the first hash's rounds 4 to 63, and four for
//! the second hash's rounds 1 to 60 of the item before, whose words were made in the last eight.
//!
//! Register names are the CPU's own: r9 points at what the next rounds add, r10 at the next words, rcx at their round
//! constants; rax is free between iterations. Other instructions keep off the vector registers from [`FIRST`] on.

use crate::emit::{self, joined, word};
use crate::expansion::{ONE, TWO, behind, point_to, sum_behind};
use crate::moves;
use crate::page::{Constant, IN_FOURS};
use crate::places::point;
use crate::sha_page::{ITEMS, LANES, Part, REGISTER, VECTOR_SUMS};

/// Iterations in which a hash's rounds are.
pub(crate) const ITERATIONS: usize = ITEMS / 2;
const ROUNDS: usize = 60 / ITERATIONS;
pub(crate) const WORDS: usize = 48 / ITEMS;
const _: () =
    assert!(ROUNDS * ITERATIONS == 60 && 16 + WORDS * ITEMS == VECTOR_SUMS, "a hash is whole in its time");
/// The first of its registers: eight for the state, two to compute with.
pub(crate) const FIRST: usize = 22;

/// The register of a state's word, 0 to 7 for a to h, before the round. A round changes two of them, and all names.
fn state(word: usize, round: usize) -> String {
    format!("ymm{}", FIRST + (word + 8 - round % 8) % 8)
}

fn round(i: usize) -> Vec<String> {
    let [a, b, c, d, e, f, g, h]: [String; 8] = std::array::from_fn(|word| state(word, i));
    let add = |to: &str, what: &str| format!("vpaddd {to}, {to}, {what}");
    let mut lines = vec![
        add(&h, &behind("r9", i as i64)),
        // Choose f or g.
        format!("vpxord {ONE}, {f}, {g}"),
        format!("vpandd {ONE}, {ONE}, {e}"),
        format!("vpxord {ONE}, {ONE}, {g}"),
        add(&h, ONE),
    ];
    lines.extend(big_sigma(&e, [6, 11, 25]));
    lines.extend([
        add(&h, ONE),
        add(&d, &h),
        // The majority.
        format!("vpxord {ONE}, {a}, {b}"),
        format!("vpxord {TWO}, {b}, {c}"),
        format!("vpandd {ONE}, {ONE}, {TWO}"),
        format!("vpxord {ONE}, {ONE}, {b}"),
        add(&h, ONE),
    ]);
    lines.extend(big_sigma(&a, [2, 13, 22]));
    lines.push(add(&h, ONE));
    lines
}

/// Σ0 or Σ1, in [`ONE`]. No ternary operations: they would need the units of the SHA instructions.
fn big_sigma(source: &str, [a, b, c]: [u32; 3]) -> [String; 5] {
    [
        format!("vprord {ONE}, {source}, {a}"),
        format!("vprord {TWO}, {source}, {b}"),
        format!("vpxord {ONE}, {ONE}, {TWO}"),
        format!("vprord {TWO}, {source}, {c}"),
        format!("vpxord {ONE}, {ONE}, {TWO}"),
    ]
}

/// An iteration's rounds and words, and other groups of lines evenly between them, which may use [`ONE`] and [`TWO`] too.
pub(crate) fn rounds_and_words<const GROUPS: usize>(others: &[Vec<String>; GROUPS]) -> Vec<String> {
    let due = |rounds: usize| (rounds * GROUPS + ROUNDS / 2) / ROUNDS;
    let mut lines = Vec::new();
    for i in 0..ROUNDS {
        lines.extend(round(i));
        for i in i * WORDS / ROUNDS..(i + 1) * WORDS / ROUNDS {
            lines.extend(sum_behind("r10", "rcx", i, VECTOR_SUMS));
        }
        lines.extend(others[due(i)..due(i + 1)].iter().flatten().cloned());
    }
    // The next iteration's code is the same, and so are its names.
    lines.extend(moves::in_circles("vmovdqa32", (0..8).map(|i| (state(i, ROUNDS), state(i, 0))), ONE));
    lines
}

/// Moves the pointers on.
pub(crate) fn move_on() -> String {
    format!("add r9, {}\nadd r10, {}\nadd rcx, {}\n", ROUNDS * REGISTER, WORDS * REGISTER, WORDS * 4)
}

/// Makes a first message, from word 18 on. `count` is a place to count in.
pub(crate) fn first_message(count: &str) -> String {
    const AT_ONCE: usize = 2;
    let words = (0..AT_ONCE).flat_map(|i| sum_behind("r9", "rax", i, VECTOR_SUMS));
    point("r9", Part::VectorFirst.first(0) + 18)
        + &point_to("rax", Constant::FirstRound(18))
        + &format!("mov {count}, {}\n35:\n", (64 - 18) / AT_ONCE)
        + &joined(words)
        + &format!("add r9, {}\nadd rax, {}\ndec {count}\njnz 35b\n", AT_ONCE * REGISTER, AT_ONCE * 4)
}

/// Begins a first hash with round 4, from the version's state at rax and the nonces.
pub(crate) fn begin_first(nonces: &str) -> String {
    let mut lines: Vec<String> = (0..8)
        .map(|i| format!("vpbroadcastd {}, dword ptr [rax + {}]", state(i, 0), 4 * IN_FOURS[i]))
        .collect();
    lines.extend([0, 4].map(|i| format!("vpaddd {0}, {0}, ymmword ptr {nonces}", state(i, 0))));
    joined(lines) + &point("r9", Part::VectorFirst.first(0) + VECTOR_SUMS + 4)
}

/// From a first hash to the second one of the item before. The version's words are at rax; the item's second message is to
/// be made where r9 points, that of the one before is where r10 has moved to the end of.
pub(crate) fn begin_second() -> String {
    let here = |register: usize| behind("r9", register as i64);
    let mut lines = Vec::new();
    for i in 0..8 {
        let word = state(i, 0);
        let midstate = 4 * Constant::Midstate(i).number();
        lines.push(format!("vpaddd {word}, {word}, dword ptr [rax + {midstate}]{{1to8}}"));
        lines.push(format!("vmovdqa32 {}, {word}", here(i)));
        if i > 0 {
            lines.push(format!("vpaddd {word}, {word}, {}", constant(Constant::SecondRound(i))));
            lines.push(format!("vmovdqa32 {}, {word}", here(VECTOR_SUMS + i)));
        }
    }
    // Round 0 starts from constants, and moves all names on by one place.
    for i in [0, 1, 2, 4, 5, 6] {
        lines.push(format!("vpbroadcastd {}, {}", state(i + 1, 0), word(Constant::Initial(i))));
    }
    lines.push(format!("vmovdqa32 {ONE}, {}", behind("r10", -(VECTOR_SUMS as i64))));
    for (i, sum) in [(0, Constant::SecondA), (4, Constant::SecondE)] {
        lines.push(format!("vpaddd {}, {ONE}, {}", state(i, 0), constant(sum)));
    }
    joined(lines)
        + &format!("lea rax, [r9 + {}]\nlea r9, [r10 + {REGISTER}]\nmov r10, rax\n", 16 * REGISTER)
        + &point_to("rcx", Constant::SecondRound(16))
}

fn constant(constant: Constant) -> String {
    emit::in_all_lanes(constant, LANES)
}

/// Ends a second hash: e after round 60 is the word that decides. The mask goes to where rax points.
pub(crate) fn test() -> String {
    joined(emit::test(&state(4, 0), &constant(Constant::Zeros), "rax"))
}
