//! Rounds by the SHA instructions, on messages that AVX-512 computes for eight nonces at once.
//!
//! What lives here: the loops: which iteration computes what, and which pointer stands where. What does not: the rounds
//! (`chains.rs`, `ends.rs`), the messages' instructions (`message.rs`), the vector hashes (`vector.rs`), and how
//! everything is interleaved (`weave.rs`).
//!
//! One instruction does two rounds of a hash; one can start each cycle (Zen 4), and takes four. The SHA instructions
//! for messages occupy the units longer than the rounds do, and AVX-512 alone is slower in the rounds; together they
//! use different units, provided AVX-512 keeps to half registers and to operations of two sources (docs/kernels.md).
//! The rounds have registers 0 to 14, since their instruction can address only 16; everything else has the others.
//!
//! An iteration processes an item, a batch of nonces in one version. It runs the item's first hashes, computes the
//! second message of the previous item, and begins the second hashes of the item before that, which end in the next
//! iteration. With one version it also computes the next item's first message. With several versions, each computes an
//! eighth of the next batch's, by code that is the same for each eighth, so that the whole loop fits into the CPU's
//! cache of decoded instructions. Everything beside the rounds is interleaved: where one part waits, another does not.
//!
//! Register names are the CPU's own: rsi points into the constants; rdi, r12, r13, rbp and rbx into the memory
//! (`places.rs`); r11 to the version's state before round 4, rdx to the words of the previous item's version; r8 to
//! where the next mask goes. With one version rcx counts iterations. With several, r13, r14 and r15 point to the next
//! sums of the first message being computed, to its words and to their round constants; rax is the number of versions
//! of the batch left; r9, r10 and rcx belong to the vector hashes. What changes less often is on the stack.

mod ends;
mod even;
mod expansion;
mod places;
mod vector;
mod weave;

use std::ops::Range;

use self::ends::ByWord;
use self::even::Pace;
use self::places::{MACHINE, as_written, point, point_to, written};
use crate::chains;
use crate::emit::{self, joined};
use crate::flow::Flow;
use crate::message::{self, Pairs};
use crate::page::{Constant, Slot, VERSION_WORDS};
use crate::schedule::Latencies;
use crate::sha_page::{ITEMS, LANES, PAIRS, PARTS, Part, REGISTER, VECTOR_SUMS};

/// How the other instructions are spread between the rounds' steps.
struct Spread {
    latencies: Latencies,
    window: usize,
    /// Number of slots that pass before they start.
    begin: usize,
    /// Slots from one jump to the next.
    straight: usize,
}

// These numbers gave the best code of those tried.

const ONE_VERSION: Spread = Spread {
    latencies: Latencies { arithmetic: 4, load: 6, forwarded: 8 },
    window: 238,
    begin: 2,
    straight: 81,
};
const SEVERAL_VERSIONS: Spread = Spread {
    latencies: Latencies { arithmetic: 3, load: 3, forwarded: 8 },
    window: 222,
    begin: 4,
    straight: 100,
};

/// When the last words are tested, as a part of the iteration: after the last of them is written.
const TEST: Range<f64> = 0.55..0.56;

/// An iteration without the pointers: the rounds, with the flow's instructions spread evenly between them.
fn body(flow: &Flow, Spread { latencies, window, begin, straight }: &Spread) -> String {
    let rounds = chains::rounds::<ByWord>();
    let in_a_cycle = flow.instructions.len() as f64 / rounds.slots.len() as f64;
    let pace = Pace { in_a_cycle, latencies, window: *window, registers: MACHINE.registers.len() };
    let beside = emit::emit(flow, &even::order(flow, &pace), &MACHINE);
    let lines = weave::woven(&rounds.slots, &beside, *begin, *straight);
    check(&lines, rounds.late);
    [lines, rounds.moves].concat().join("\n")
}

/// The code before and after the loop. The rounds' instructions use the legacy encoding, which is slow while the upper
/// halves of their registers are in use. (Register 15 is not one of them.)
fn begin_and_end() -> (String, String) {
    const KEPT: [&str; 6] = ["rbx", "rbp", "r12", "r13", "r14", "r15"];
    let mut begin = format!("vzeroupper\n{}", ends::begin());
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

pub(crate) fn one_version() -> String {
    let flow = Flow::side_by_side([
        (message::second_message(true), 0.0..1.0),
        (message::first_message(), 0.0..1.0),
        (test(), TEST),
    ]);
    let body = body(&flow, &ONE_VERSION);
    let (begin, end) = begin_and_end();
    let start = point("r11", Part::Starts.first(0));
    format!(
        "{begin}{start}.p2align 6\n2:\n{body}\nxchg rbx, rbp\nxchg r12, r13\nadd r8, 2\ndec rcx\njnz 2b\n{end}"
    )
}

/// Computes the mask of the last words.
fn test() -> Flow {
    let mut flow = Flow::beside_rounds();
    let words = flow.load(Slot::LastWords);
    flow.test(words, Constant::Zeros);
    flow
}

/// Checks that nothing is read before it is complete, nor overwritten before it is read. First messages need no check:
/// the rounds read the copy that is not being written, all within one iteration.
///
/// # Panics
/// The check fails.
fn check(lines: &[String], late: usize) {
    let is_end = |line: &String| line.starts_with("vmovq qword");
    let is_state_end = |line: &String| line.starts_with("vmovdqa xmmword");
    let names = |line: &String, slot| line.contains(&written(slot, 0));
    let state_read =
        lines.iter().rposition(|line| !is_state_end(line) && (0..8).any(|i| names(line, Slot::State(i))));
    let state_stored = lines.iter().position(is_state_end);
    assert!(state_read.is_some() && state_read < state_stored, "states are read in time");
    let tested = lines.iter().position(|line| !is_end(line) && names(line, Slot::LastWords));
    let before = &lines[..tested.expect("last words are tested")];
    assert!(before.iter().filter(|line| is_end(line)).count() == late, "last words are tested in time");
    // The end of a hash overwrites the word of the previous nonce. The late hashes are the last of an iteration's.
    let ends: Vec<&String> = lines[before.len()..].iter().chain(before).filter(|line| is_end(line)).collect();
    let in_order = (0..LANES).rev().zip(&ends).all(|(nonce, line)| line.contains(&ends::last_word(nonce)));
    assert!(ends.len() == LANES && in_order, "no last word is written over");
    // Second messages are written where the second hashes of the previous iteration still read.
    let offset = |line: &str| {
        let (_, rest) = line.split_once("[rbx + ")?;
        Some(rest.split_once(']')?.0.parse::<i64>().expect("an address is a number"))
    };
    let is_read = |line: &str| line.contains("xmm");
    assert!(lines.iter().any(|line| is_read(line) && offset(line).is_some()), "there are such reads");
    for (place, line) in lines.iter().enumerate().filter(|(_, line)| !is_read(line)) {
        let Some(first) = offset(line) else { continue };
        let register = first..first + REGISTER as i64;
        let reads =
            |line: &String| is_read(line) && offset(line).is_some_and(|byte| register.contains(&byte));
        assert!(!lines[place..].iter().any(reads), "a second message is read in time");
    }
    assert!(
        !lines.iter().any(|line| is_read(line) && line.contains("[r13 ")),
        "first messages have two copies"
    );
}

/// The values kept on the stack.
#[derive(Clone, Copy)]
enum Kept {
    /// The number of versions, and the words of the first one.
    Versions,
    FirstWords,
    /// The words of the item's version.
    Words,
    /// The end of the first message's words.
    WordsEnd,
    /// The sum of both first messages' addresses, and that of the vector hashes' two second messages.
    FirstMessages,
    VectorMessages,
    /// How many times the vector hashes' two phases are still to run.
    Periods,
    /// How many iterations their phase has left, and where to continue then.
    PhaseLeft,
    Next,
    /// For the vector hashes' batch: the versions left; the version's words and state; where the next mask goes.
    VectorVersionsLeft,
    VectorWords,
    VectorStart,
    VectorMask,
    /// A counter, and a place to save rax.
    Count,
    Rax,
}

impl Kept {
    const BYTES: usize = 8 * (Self::Rax as usize + 1);

    fn place(self) -> String {
        format!("qword ptr [rsp + {}]", 8 * self as usize)
    }

    /// The address from within a called function.
    fn place_in_call(self) -> String {
        format!("qword ptr [rsp + {}]", 8 * self as usize + 8)
    }
}

/// Begins a phase of the vector hashes, after which the code continues at label `next`.
fn phase(next: &str) -> String {
    let (left, place, rax) = (Kept::PhaseLeft.place(), Kept::Next.place(), Kept::Rax.place());
    format!(
        "mov {left}, {}\nlea rax, [rip + {next}]\nmov {place}, rax\nmov rax, {rax}\njmp 7b\n",
        vector::ITERATIONS
    )
}

/// The code between the vector hashes' phases, which preserves rax: from the first hashes to the second (30), and from
/// those to the next first hashes (31); the next item (32), of a new batch of nonces (33) or of the same (34).
fn between_phases() -> String {
    let [versions, first_words, periods] = [Kept::Versions, Kept::FirstWords, Kept::Periods].map(Kept::place);
    let [left, words, start] =
        [Kept::VectorVersionsLeft, Kept::VectorWords, Kept::VectorStart].map(Kept::place);
    let [mask, messages, count] = [Kept::VectorMask, Kept::VectorMessages, Kept::Count].map(Kept::place);
    let nonces = as_written(&message::next_vector_nonces()).join("\n");
    let first_start = point("rax", Part::Starts.first(0));
    [
        format!("30:\nmov rax, {words}\nmov r9, {messages}\nsub r9, r10\n"),
        vector::begin_second(),
        phase("31f"),
        format!("31:\nmov rax, {mask}\n"),
        vector::test(),
        format!("add {mask}, 2\ndec {periods}\njz 5f\n"),
        format!("32:\ndec {left}\njz 33f\n"),
        format!("add {words}, {}\nadd {start}, {REGISTER}\njmp 34f\n", 4 * VERSION_WORDS),
        format!("33:\nmov rax, {versions}\nmov {left}, rax\nmov rax, {first_words}\nmov {words}, rax\n"),
        format!("{first_start}mov {start}, rax\n{nonces}\n"),
        vector::first_message(&count),
        format!("34:\nmov rax, {start}\n"),
        vector::begin_first(),
        phase("30b"),
    ]
    .concat()
}

/// One of the pairs of the next batch's first message that each item computes.
fn first_pair(flow: &mut Flow, pair: usize) {
    let mut pairs = Pairs::default();
    for i in [2 * pair, 2 * pair + 1] {
        let sum = expansion::sum(flow, "r14", "r15", i);
        pairs.give(flow, i, sum, |even, half| Slot::Behind("r13", (even + half) as i64));
    }
}

/// Advances the pointers to the first message.
fn next_pairs() -> String {
    let registers = 2 * PAIRS;
    format!("add r13, {0}\nadd r14, {0}\nadd r15, {1}\n", registers * REGISTER, registers * 4)
}

/// A function that starts the next batch's first message, and gives the one just completed to the rounds.
fn next_batch() -> String {
    let nonces = as_written(&message::next_nonces()).join("\n");
    let to_pairs = Part::First.middle(0) - Part::First.first(0);
    format!("mov r13, r12\nmov r12, {}\nsub r12, r13\n{nonces}\n", Kept::FirstMessages.place_in_call())
        + &format!("sub r13, {}\n", to_pairs * REGISTER)
        + &point("r14", Part::Words.first(0) + 18)
        + &point_to("r15", Constant::FirstRound(18))
        + "ret\n"
}

/// The code before the first iteration with several versions: rcx is the number of periods of [`ITEMS`] iterations, r9
/// the number of versions.
fn begin_several() -> String {
    let [versions, first_words, periods] = [Kept::Versions, Kept::FirstWords, Kept::Periods].map(Kept::place);
    let [left, mask, rax, end] =
        [Kept::VectorVersionsLeft, Kept::VectorMask, Kept::Rax, Kept::WordsEnd].map(Kept::place);
    let both = |part: Part, register: usize, sum: Kept| {
        let place = sum.place();
        let [one, other] = [0, 1].map(|copy| point("rax", part.first(copy) + register));
        format!("{one}mov {place}, rax\n{other}add {place}, rax\n")
    };
    // As if one of the second messages were half computed; it is never read.
    let words_made = 16 + vector::ITERATIONS * vector::WORDS;
    [
        format!("sub rsp, {}\nmov {versions}, r9\nmov {first_words}, rdx\nmov {periods}, rcx\n", Kept::BYTES),
        format!("imul rax, rcx, {}\nadd rax, r8\nmov {mask}, rax\n", 2 * ITEMS),
        both(Part::First, Part::First.len() / 2, Kept::FirstMessages),
        // The start of one and the end of the other: where r10 is then.
        both(Part::VectorSecond, VECTOR_SUMS / 2, Kept::VectorMessages),
        point("r10", Part::VectorSecond.first(0) + words_made),
        point_to("rcx", Constant::SecondRound(16)),
        point("rax", Part::Words.first(0) + 18 + PARTS * 2 * PAIRS),
        format!("mov {end}, rax\nmov {left}, 1\nmov {rax}, 1\ncall 36f\njmp 32f\n"),
    ]
    .concat()
}

/// The loop for several versions. The versions of a batch of nonces follow each other.
pub(crate) fn several_versions() -> String {
    let flow = Flow::side_by_side([
        (message::second_message(false), 0.0..1.0),
        (vector::rounds_and_words(PAIRS, first_pair), 0.0..1.0),
        (test(), TEST),
    ]);
    let body = body(&flow, &SEVERAL_VERSIONS);
    let (begin, end) = begin_and_end();
    let start = point("r11", Part::Starts.first(0));
    let [versions, first_words, words, words_end] =
        [Kept::Versions, Kept::FirstWords, Kept::Words, Kept::WordsEnd].map(Kept::place);
    let [phase_left, next, rax] = [Kept::PhaseLeft, Kept::Next, Kept::Rax].map(Kept::place);
    let mut first_pairs = Flow::beside_rounds();
    (0..PAIRS).for_each(|pair| first_pair(&mut first_pairs, pair));
    let first_pairs = joined(as_written(&first_pairs));
    let next_pairs = next_pairs();
    [
        begin,
        begin_several(),
        format!("3:\ncmp r14, {words_end}\nje 4f\n{first_pairs}{next_pairs}jmp 3b\n"),
        format!("4:\ncall 36f\n{start}mov rax, {first_words}\nmov {words}, rax\nmov rax, {versions}\n"),
        format!(".p2align 6\n2:\n{body}\nxchg rbx, rbp\n"),
        format!("mov rdx, {words}\nadd {words}, {}\nadd r11, {REGISTER}\nadd r8, 2\n", 4 * VERSION_WORDS),
        vector::move_on(),
        format!("cmp r14, {words_end}\nje 8f\n{next_pairs}8:\n"),
        format!("dec {phase_left}\njz 6f\n7:\ndec rax\njnz 2b\njmp 3b\n6:\nmov {rax}, rax\njmp {next}\n"),
        between_phases(),
        format!("5:\nadd rsp, {}\n{end}36:\n{}", Kept::BYTES, next_batch()),
    ]
    .concat()
}
