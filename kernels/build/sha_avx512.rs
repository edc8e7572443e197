//! Rounds by the SHA instructions, on messages that AVX-512 makes for eight nonces at once.
//!
//! What lives here: the rounds, the order in which those of several hashes take turns, and how a message's instructions
//! come between. What does not: those instructions (`message.rs`), and where values lie (`src/simd/sha_page.rs`).
//!
//! Two rounds of one hash are one instruction that starts each cycle (Zen 4) and takes four: five or six chains of them
//! take turns. The SHA instructions' own messages take more of the units than the rounds do, and AVX-512 alone is
//! slower in the rounds; together they need different units, if AVX-512 keeps to half registers and to operations of two sources
//! (docs/kernels.md). Rounds have registers 0 to 15, since their instruction can name no others, messages those above.
//!
//! An iteration is of an item, a batch of nonces in one version. It runs the second hashes of the item before last and
//! the first hashes of its own, and between them it makes the second message of the item before.
//!
//! Register names are the CPU's own: rsi points into the constants, rdi at the middle of the memory's part that is there
//! once; r12 and rbp at the messages that the rounds read, r13 and rbx at those that are written; r11 at the version's
//! state before round 4, rdx at the words of the version of the item before, r8 at the place of the next mask; rcx counts
//! iterations. With several versions r10 points at the words of the first, r15 at the version's own, r14 at the next part
//! of the next batch's first message; r9 is their number, and rax how many of the batch are left.

use std::ops::Range;

use crate::emit::{self, Machine, address};
use crate::flow::Flow;
use crate::message::{self, LAST_ROUND};
use crate::page::{Constant, Slot, VERSION_WORDS};
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

/// A byte of the slot. Some parts have a pointer for each use.
fn at(slot: Slot, byte: usize, [first, second]: [&str; 2]) -> String {
    let (part, register) = sha_page::place(slot);
    let pointer = match part {
        Part::Rest => "rdi",
        Part::First => first,
        Part::Second => second,
        Part::Starts => unreachable!("no slot lies there"),
    };
    let register = (part.first(0) + register) as i64 - part.middle(0) as i64;
    format!("[{pointer} + {}]", register * REGISTER as i64 + byte as i64)
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
        if self.is_second {
            lines.push(format!("vmovdqa xmm{abef}, xmmword ptr {}", address(Constant::InitialFour(0))));
            lines.push(format!("vmovdqa xmm{cdgh}, xmmword ptr {}", address(Constant::InitialFour(1))));
        } else {
            lines.push(format!("vmovdqa xmm{abef}, {}", self.words(Slot::Added)));
            lines.push(format!("vpaddd xmm{abef}, xmm{abef}, xmmword ptr [r11]"));
            lines.push(format!("vmovdqa xmm{cdgh}, xmmword ptr [r11 + 16]"));
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
        let same = |constant: Constant| (address(constant), true);
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

/// All rounds of an iteration.
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
                    // The longer form of the instruction counts its address in eights, so that a byte suffices.
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
    emit::emit_as_written(flow, &machine(registers))
}

/// The second message of the item before, whose version's words are at rdx, and the test of the one before that.
fn second_message(registers: Range<usize>) -> Vec<String> {
    let mut flow = message::second_message();
    let last = flow.load(Slot::LastWords);
    flow.test(last, Constant::Zeros);
    message(&flow, registers)
}

/// Both, each in its order; what comes between is spread evenly, in groups.
///
/// # Panics
/// When it does not begin where a group does, or when [`check`] finds something.
fn woven(mut rounds: Vec<String>, between: Vec<String>, begin: usize, grouped: usize) -> String {
    assert!(begin.is_multiple_of(grouped), "it begins where a group does");
    let (all, others) = (rounds.len() - begin, between.len());
    for (i, line) in between.into_iter().enumerate().rev() {
        rounds.insert((begin + i * all / others) / grouped * grouped, line);
    }
    check(&rounds);
    rounds.join("\n")
}

/// That nothing is read before it is whole, nor overwritten before it is read. The second message cannot be: it has two
/// copies.
///
/// # Panics
/// When it is not so.
fn check(lines: &[String]) {
    // The states are read before the first hashes end, and the last words when all second hashes have ended.
    let is_end = |line: &str| line.starts_with("vmovdqa xmmword") || line.starts_with("vmovd dword");
    let names = |line: &str, slot| !is_end(line) && line.contains(&written(slot, 0));
    let state_read = lines.iter().rposition(|line| (0..8).any(|i| names(line, Slot::State(i))));
    let state_stored = lines.iter().position(|line| line.starts_with("vmovdqa xmmword"));
    assert!(state_read < state_stored && state_read.is_some(), "states are read in time");
    let tested = lines.iter().position(|line| names(line, Slot::LastWords));
    let ended = lines.iter().rposition(|line| line.starts_with("vmovd dword"));
    assert!(ended < tested && ended.is_some(), "last words are tested when they are there");
    // With one version the same first message is written and read; with several, none is written here.
    let offset = |line: &str, pointer: &str| {
        let (_, rest) = line.split_once(&format!("[{pointer} + "))?;
        Some(rest.split_once(']')?.0.parse::<i64>().expect("an address is a number"))
    };
    let stores = lines.iter().enumerate().filter_map(|(place, line)| Some((place, offset(line, "r13")?)));
    let stores: Vec<(usize, i64)> = stores.collect();
    assert!(stores.is_empty() || stores.len() == Part::First.len(), "all of a message or nothing is written");
    for (place, first) in stores {
        let register = first..first + REGISTER as i64;
        let reads = |line: &String| offset(line, "r12").is_some_and(|byte| register.contains(&byte));
        assert!(!lines[..place].iter().any(reads), "the first message is there when it is read");
        assert!(lines[place..].iter().any(reads), "what is written is read");
    }
}

/// The code from its first instruction on, and what ends it. The rounds' instructions are of the old form, which is slow
/// while upper halves of registers 0 to 15 hold something.
fn begin_and_end() -> (String, String) {
    const KEPT: [&str; 6] = ["rbx", "rbp", "r12", "r13", "r14", "r15"];
    let mut begin = "vzeroupper\n".to_owned();
    let mut end = "vzeroupper\nret\n".to_owned();
    for register in KEPT {
        begin += &format!("push {register}\n");
        end = format!("pop {register}\n{end}");
    }
    for (pointer, part, copy) in
        [("rbp", Part::Second, 0), ("rbx", Part::Second, 1), ("r12", Part::First, 0), ("r13", Part::First, 1)]
    {
        begin += &point(pointer, part.middle(copy));
    }
    (begin, end)
}

/// Lets the pointer stand at the register.
fn point(pointer: &str, register: usize) -> String {
    format!("lea {pointer}, [rdi + {}]\n", (register - Part::Rest.middle(0)) * REGISTER)
}

pub(crate) fn one_version() -> String {
    let messages = [message(&message::first_message(), ALL), second_message(ALL)].concat();
    let body = woven(rounds(), messages, 0, GROUPED[0]);
    let (begin, end) = begin_and_end();
    let start = point("r11", Part::Starts.first(0));
    // The item's own first message: each of its words is there before its round.
    format!(
        "{begin}mov r13, r12\n{start}.p2align 6\n2:\n{body}\nxchg rbx, rbp\nadd r8, 2\ndec rcx\njnz 2b\n{end}"
    )
}

/// The label of the first part of the first message. Some assemblers take labels of zeros and ones for binary numbers.
const FIRST_PART: usize = 20;

/// The versions of a batch of nonces follow each other. The parts of the first message each have a label; that after the
/// last makes nothing.
pub(crate) fn several_versions() -> String {
    let first = message(&message::first_message(), OF_FIRST);
    let body = woven(rounds(), second_message(OF_SECOND), BEGIN, GROUPED[1]);
    let (begin, end) = begin_and_end();
    let start = point("r11", Part::Starts.first(0));
    let parts: Vec<&[String]> = first.chunks(first.len().div_ceil(PARTS)).collect();
    let none = FIRST_PART + parts.len();
    let parts = parts.into_iter().map(|part| part.join("\n")).zip(FIRST_PART..);
    let parts: String =
        parts.map(|(part, n)| format!("{n}:\n{part}\nlea r14, [rip + {}f]\nret\n", n + 1)).collect();
    let stride = 4 * VERSION_WORDS;
    format!(
        "{begin}mov r10, rdx\nlea r14, [rip + {FIRST_PART}f]\n\
         3:\nlea rax, [rip + {none}f]\ncmp rax, r14\nje 4f\ncall r14\njmp 3b\n\
         4:\nxchg r12, r13\nlea r14, [rip + {FIRST_PART}f]\n{start}mov r15, r10\nmov rax, r9\n\
         .p2align 6\n2:\n{body}\ncall r14\nxchg rbx, rbp\nmov rdx, r15\nadd r15, {stride}\nadd r11, {REGISTER}\nadd r8, 2\n\
         dec rcx\njz 5f\ndec rax\njnz 2b\njmp 3b\n5:\n{end}{parts}{none}:\nret\n"
    )
}
