//! Rounds by the SHA instructions, on messages that AVX-512 makes for eight nonces at once.
//!
//! What lives here: the rounds, the order in which those of several hashes take turns, and how a message's instructions
//! come between. What does not: those instructions (`message.rs`), and where values lie (`src/simd/sha_page.rs`).
//!
//! Two rounds of one hash are one instruction that starts each cycle (Zen 4) and takes four: five or six chains of them
//! take turns. Its own kind makes messages with more instructions than a cycle can take in, and AVX-512 alone is slower
//! in the rounds; together they need different units, if AVX-512 keeps to half registers and to operations of two sources
//! (docs/kernels.md). Rounds have registers 0 to 15, since their instruction can name no others, messages those above.
//!
//! An iteration is of an item, a batch of nonces in one version. It ends the second hashes of the item before last and
//! makes the first hashes of its own, and between them the second message of the item before.

use std::fmt::Write;
use std::ops::Range;

use crate::emit::{self, Machine, of_constant};
use crate::flow::Flow;
use crate::message::{self, LAST_ROUND};
use crate::page::{Constant, SLOT, Slot, VERSION_WORDS};
use crate::sha_page::{self, LANES, Part, REGISTER};

// The numbers below make the best code of those that were tried.

/// Hashes whose rounds take turns: of the second hashes, which come first, and then of the first ones. Each needs two of
/// fifteen registers.
const TURNS: [usize; 3] = [6, 5, 5];
/// Messages' instructions come in groups, after so many of the rounds': for one version, and for several.
const GROUPED: [usize; 2] = [6, 4];
/// The second message begins when so many of the rounds' instructions are through: what it reads was stored just before.
const BEGIN: usize = 20;
/// Of several versions, each makes a part of the next batch's first message.
const PARTS: usize = 8;

const ALL: Range<usize> = 16..32;
/// Of several versions, each message has registers of its own.
const OF_FIRST: Range<usize> = 25..32;
const OF_SECOND: Range<usize> = 16..25;

/// Halves of AVX-512's registers.
fn machine(registers: Range<usize>) -> Machine {
    Machine { name: "ymm", registers, lanes: LANES, slot: |slot| written(slot, 0) }
}

/// A byte of the slot. rdi points at the rest; what the rounds read is at r12 and rbp, what messages write at r13 and rbx.
fn at(slot: Slot, byte: usize, [first, second]: [&str; 2]) -> String {
    let (part, register) = sha_page::place(slot);
    let pointer = match part {
        Part::Rest => "rdi",
        Part::First => first,
        Part::Second => second,
    };
    format!("[{pointer} + {}]", (register * REGISTER + byte) as i64 - (part.middle() * REGISTER) as i64)
}

fn written(slot: Slot, byte: usize) -> String {
    at(slot, byte, ["r13", "rbx"])
}

fn read(slot: Slot, byte: usize) -> String {
    at(slot, byte, ["r12", "rbp"])
}

/// One hash's rounds: its state's registers change names with every two of them.
struct Chain {
    nonce: usize,
    is_second: bool,
    abef: usize,
    cdgh: usize,
}

impl Chain {
    /// Four words of the nonce, in one of four registers.
    fn words(&self, slot: impl Fn(usize) -> Slot) -> String {
        format!("xmmword ptr {}", read(slot(self.nonce % 4), self.nonce / 4 * 16))
    }

    fn begin(&self, lines: &mut Vec<String>) {
        let Self { abef, cdgh, .. } = self;
        let constant = |constant| format!("xmmword ptr {}", of_constant(constant, "r11"));
        if self.is_second {
            lines.push(format!("vmovdqa xmm{abef}, {}", constant(Constant::InitialHalf(0))));
            lines.push(format!("vmovdqa xmm{cdgh}, {}", constant(Constant::InitialHalf(1))));
        } else {
            lines.push(format!("vmovdqa xmm{abef}, {}", self.words(Slot::Added)));
            lines.push(format!("vpaddd xmm{abef}, xmm{abef}, {}", constant(Constant::StartHalf(0))));
            lines.push(format!("vmovdqa xmm{cdgh}, {}", constant(Constant::StartHalf(1))));
        }
    }

    /// The first of the step's two rounds: the first hash begins with round 4.
    fn round(&self, step: usize) -> usize {
        2 * step + if self.is_second { 0 } else { 4 }
    }

    /// What the step's rounds add: where the address is, and whether it is the same for all hashes of the kind. `None`
    /// after the last.
    fn sums(&self, step: usize) -> Option<(String, bool)> {
        let t = self.round(step);
        let own = |slot: fn(usize, usize) -> Slot| {
            (read(slot(t, self.nonce % 4 / 2), self.nonce / 4 * 16 + self.nonce % 2 * 8), false)
        };
        let same = |constant: Constant| (of_constant(constant, "r11"), true);
        match (self.is_second, t) {
            (true, 8..16) => Some(same(Constant::SecondRound(t))),
            (true, ..=LAST_ROUND) => Some(own(Slot::SecondPair)),
            (false, ..18) => Some(same(Constant::FirstRound(t))),
            (false, ..64) => Some(own(Slot::FirstPair)),
            _ => None,
        }
    }

    fn two_rounds(&mut self, lines: &mut Vec<String>) {
        lines.push(format!("sha256rnds2 xmm{}, xmm{}", self.cdgh, self.abef));
        std::mem::swap(&mut self.abef, &mut self.cdgh);
    }

    fn end(&self, lines: &mut Vec<String>) {
        let Self { abef, cdgh, .. } = self;
        if self.is_second {
            // f after round 61 is e after round 60.
            lines.push(format!("vmovd dword ptr {}, xmm{abef}", read(Slot::LastWords, 4 * self.nonce)));
        } else {
            lines.push(format!("vmovdqa {}, xmm{abef}", self.words(Slot::State)));
            lines.push(format!("vmovdqa {}, xmm{cdgh}", self.words(|i| Slot::State(4 + i))));
        }
    }
}

/// All rounds of an iteration. The version's words are at r11.
fn rounds() -> Vec<String> {
    let mut hashes =
        [true, false].into_iter().flat_map(|is_second| (0..LANES).map(move |nonce| (is_second, nonce)));
    let mut lines = Vec::new();
    for turns in TURNS {
        let pairs = (1..).step_by(2).zip(hashes.by_ref().take(turns));
        let mut chains: Vec<Chain> = pairs
            .map(|(abef, (is_second, nonce))| Chain { nonce, is_second, abef, cdgh: abef + 1 })
            .collect();
        chains.iter().for_each(|chain| chain.begin(&mut lines));
        for step in 0..=LAST_ROUND / 2 {
            let mut loaded = String::new();
            for chain in &mut chains {
                let Some((sums, is_same)) = chain.sums(step) else { continue };
                if !is_same || loaded != sums {
                    // The longer form of the instruction has the shorter form of the address.
                    lines.push(format!("{{evex}} vmovq xmm0, qword ptr {sums}"));
                }
                loaded = sums;
                chain.two_rounds(&mut lines);
            }
        }
        chains.iter().for_each(|chain| chain.end(&mut lines));
    }
    assert!(hashes.next().is_none(), "all hashes have their turn");
    lines
}

fn message(flow: &Flow, registers: Range<usize>) -> Vec<String> {
    // Its chains are short: it stays as it is written.
    let order: Vec<usize> = (0..flow.instructions.len()).collect();
    emit::emit(flow, &order, &machine(registers))
}

/// The second message of the item before, whose version's words are at rdx, and the test of the one before that.
fn second_message(registers: Range<usize>) -> Vec<String> {
    let mut flow = message::second_message();
    let last = flow.load(Slot::LastWords);
    flow.test(last, Constant::Zeros);
    message(&flow, registers)
}

/// Both, each in its order; what comes between is spread evenly, in groups.
fn woven(mut rounds: Vec<String>, between: Vec<String>, begin: usize, grouped: usize) -> String {
    let (all, others) = (rounds.len() - begin, between.len());
    for (i, line) in between.into_iter().enumerate().rev() {
        rounds.insert((begin + i * all / others) / grouped * grouped, line);
    }
    rounds.join("\n")
}

/// The code from its first instruction on, and what ends it.
fn begin_and_end() -> (String, &'static str) {
    let mut text = "vzeroupper\npush rbx\npush rbp\npush r12\npush r13\npush r14\n".to_owned();
    let mut before = Part::Rest.len();
    for (pointer, part) in
        [("rbp", Part::Second), ("rbx", Part::Second), ("r12", Part::First), ("r13", Part::First)]
    {
        let registers = before + part.middle() - Part::Rest.middle();
        writeln!(text, "lea {pointer}, [rdi + {}]", registers * REGISTER).expect("a string takes all");
        before += part.len();
    }
    (text, "pop r14\npop r13\npop r12\npop rbp\npop rbx\nvzeroupper\nret\n")
}

/// rcx: iterations.
pub(crate) fn one_version() -> String {
    let messages = [message(&message::first_message(), ALL), second_message(ALL)].concat();
    let body = woven(rounds(), messages, 0, GROUPED[0]);
    let (begin, end) = begin_and_end();
    // The first message is made while the second hashes have their rounds, and then read.
    format!(
        "{begin}mov r13, r12\nmov r11, rdx\n.p2align 6\n2:\n{body}\nxchg rbx, rbp\nadd r8, 2\ndec rcx\njnz 2b\n{end}"
    )
}

/// The label of the first part of the first message. Some assemblers take labels of zeros and ones for binary numbers.
const FIRST_PART: usize = 20;

/// rcx: iterations, r9: versions. Those of a batch of nonces follow each other. r14: the next part of the next batch's
/// first message; a label for each part, the last of which makes nothing.
pub(crate) fn several_versions() -> String {
    let first = message(&message::first_message(), OF_FIRST);
    let body = woven(rounds(), second_message(OF_SECOND), BEGIN, GROUPED[1]);
    let stride = VERSION_WORDS * SLOT / 16;
    let (begin, end) = begin_and_end();
    let parts: Vec<&[String]> = first.chunks(first.len().div_ceil(PARTS)).collect();
    let none = FIRST_PART + parts.len();
    let parts = parts.into_iter().map(|part| part.join("\n")).zip(FIRST_PART..);
    let parts: String =
        parts.map(|(part, n)| format!("{n}:\n{part}\nlea r14, [rip + {}f]\nret\n", n + 1)).collect();
    format!(
        "{begin}mov r10, rdx\nlea r14, [rip + {FIRST_PART}f]\n\
         3:\nlea rax, [rip + {none}f]\ncmp rax, r14\nje 4f\ncall r14\njmp 3b\n\
         4:\nxchg r12, r13\nlea r14, [rip + {FIRST_PART}f]\nmov r11, r10\nmov rax, r9\n\
         .p2align 6\n2:\n{body}\ncall r14\nxchg rbx, rbp\nmov rdx, r11\nadd r11, {stride}\nadd r8, 2\n\
         dec rcx\njz 5f\ndec rax\njnz 2b\njmp 3b\n5:\n{end}{parts}{none}:\nret\n"
    )
}
