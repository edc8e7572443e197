//! Several versions of a work by the SHA instructions: one first message for all of them.
//!
//! What lives here: the loop: all messages, between the rounds (`chains.rs`). What does not: the memory and the caller
//! of the loop (`src/simd/sha_ni/several.rs`): names in braces are offsets into the memory that it fills in. The code
//! for one version is in `one.rs`.
//!
//! A message has sixteen groups of four words and is stored by nonce, and so are its sums of round constant and word:
//! one row each. `sha256msg1` computes σ0 of a group and adds, `sha256msg2` does σ1. On Zen 4 the latter is microcode
//! of four operations. Both need the units of the rounds, for a cycle per group: twelve cycles a hash, and twelve more
//! if each version computed its own first message. An iteration processes an item, a batch of nonces in one version:
//! its first hashes, the second message of the previous item, and the second hashes of the item before that, which end
//! in the next iteration. It also computes the first message of one nonce of the next batch.
//!
//! rdi: memory; rsi: the row of last words for the second hashes that begin; edx: the nonce after the next batch; rcx:
//! iterations left; r8: versions; eax: versions of the batch left; r11: the version. There are two copies of the first
//! messages: the rounds read at r12, r10 is the message being computed, r13 is after the last. There are three copies
//! of the second hashes' sums: rbx is where they are written, rbp where hashes that begin read them, r9 where those
//! read that began in the previous iteration.

use crate::chains::{self, Ends, FILLER, Hash, State, Step};
use crate::emit::joined;
use crate::sha_ni_layout::{AT_ONCE, FIRST_MESSAGE, GROUP, LAST_WORDS, NONCES, ROW, VERSION};

const _: () = assert!(NONCES == chains::NONCES, "a batch is what an iteration has");

/// An instruction in the computation of a group's words and sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Starts with `W[t-16]`; the next ones add σ0 of `W[t-15]`, `W[t-7]`, and σ1 of `W[t-2]`.
    Load,
    Sigma0,
    Add,
    Sigma1,
    Store,
    /// Adds the round constants.
    Sum,
    StoreSum,
    /// Does nothing, but shifts what follows to another position among the instructions that the CPU dispatches in a
    /// cycle (`sha_avx512/weave.rs`).
    Filler,
}

use Part::{Add, Filler, Load, Sigma0, Sigma1, Store, StoreSum, Sum};

const GROUP_PARTS: [Part; 7] = [Load, Sigma0, Add, Sigma1, Store, Sum, StoreSum];
/// What comes in the slots, repeated for every two groups: the best of some thousands tried. Without the two fillers it
/// takes 7 cycles a hash more on Zen 4.
const PATTERN: [&[Part]; 9] = [
    &[Load, Sigma0, Add],
    &[],
    &[Sigma1],
    &[Store, Sum, StoreSum],
    &[Load, Sigma0],
    &[Add],
    &[],
    &[Sigma1, Filler, Store],
    &[Sum, Filler, StoreSum],
];
/// The slot at which the pattern begins.
const BEGIN: usize = 1;
/// Groups of a second message that are the first hash.
const MADE: usize = 2;
/// The first group that is computed from others, and the end of the groups.
const FIRST: usize = 4;
const END: usize = 16;

/// A nonce's message.
struct Message {
    /// The addresses of its words and of its sums.
    words: String,
    sums: String,
    constants: &'static str,
}

impl Message {
    /// A first message, `number` after the one that is computed next.
    fn first(number: usize) -> Self {
        let words = FIRST_MESSAGE * number;
        let [words, sums] = [words, words + ROW].map(|byte| format!("r10 + {byte}"));
        Self { words, sums, constants: "rdi + {first_constants}" }
    }

    fn second(nonce: usize) -> Self {
        Self {
            words: format!("rdi + {{second_words}} + {}", ROW * nonce),
            sums: format!("rbx + {}", ROW * nonce),
            constants: "rdi + {second_constants}",
        }
    }

    fn words(&self, group: usize) -> String {
        format!("[{} + {}]", self.words, GROUP * group)
    }

    fn sums(&self, group: usize) -> String {
        format!("[{} + {}]", self.sums, GROUP * group)
    }

    fn constants(&self, group: usize) -> String {
        format!("[{} + {}]", self.constants, GROUP * group)
    }

    /// The part's instruction, if one is needed.
    fn part(&self, group: usize, part: Part) -> Option<String> {
        Some(match part {
            Load => format!("vmovdqa xmm15, {}", self.words(group - 4)),
            Sigma0 => format!("sha256msg1 xmm15, {}", self.words(group - 3)),
            // Four words, starting with the seventh before.
            Add => format!("vpaddd xmm15, xmm15, [{} + {}]", self.words, GROUP * group - 4 * 7),
            Sigma1 => format!("sha256msg2 xmm15, {}", self.words(group - 1)),
            // Nothing is computed from the last group's words.
            Store if group + 1 == END => return None,
            Store => format!("vmovdqa {}, xmm15", self.words(group)),
            Sum => format!("vpaddd xmm15, xmm15, {}", self.constants(group)),
            StoreSum => format!("vmovdqa {}, xmm15", self.sums(group)),
            Filler => FILLER.to_owned(),
        })
    }

    /// Computes the sums of a group whose words are complete.
    fn sum(&self, group: usize) -> [String; 3] {
        [
            format!("vmovdqa xmm0, {}", self.words(group)),
            format!("vpaddd xmm0, xmm0, {}", self.constants(group)),
            format!("vmovdqa {}, xmm0", self.sums(group)),
        ]
    }
}

/// Hashes whose messages are stored by nonce.
struct ByNonce;

impl Ends for ByNonce {
    /// The last word is e of round 60, the first round of the last step.
    const SECOND_STEPS: usize = 31;

    fn begin(Hash { nonce, is_second, .. }: Hash, State { abef, cdgh }: State) -> Vec<String> {
        if is_second {
            return vec![
                format!("vmovdqa xmm{abef}, [rdi + {{initial}}]"),
                format!("vmovdqa xmm{cdgh}, [rdi + {{initial}} + {GROUP}]"),
            ];
        }
        vec![
            format!("vmovdqa xmm{abef}, [r11]"),
            format!("vpaddd xmm{abef}, xmm{abef}, [r12 + {}]", FIRST_MESSAGE * nonce + ROW),
            format!("vmovdqa xmm{cdgh}, [r11 + {GROUP}]"),
        ]
    }

    fn sums(Step { hash: Hash { nonce, is_second, .. }, number, is_late }: Step) -> String {
        let step = 8 * number;
        let place = match (is_second, is_late) {
            // It begins with round 4.
            (false, _) => format!("[r12 + {}]", FIRST_MESSAGE * nonce + ROW + GROUP + step),
            (true, false) => format!("[rbp + {}]", ROW * nonce + step),
            (true, true) => format!("[r9 + {}]", ROW * nonce + step),
        };
        format!("vmovq xmm0, qword ptr {place}")
    }

    fn end(
        Step { hash: Hash { nonce, is_second, .. }, is_late, .. }: Step,
        State { abef, cdgh }: State,
    ) -> Vec<String> {
        if is_second {
            let row = if is_late { -(LAST_WORDS as i64) } else { 0 };
            return vec![format!("vmovd dword ptr [rsi + {}], xmm{abef}", row + 4 * nonce as i64)];
        }
        let message = Message::second(nonce);
        vec![
            format!("vpaddd xmm{abef}, xmm{abef}, [r11 + {}]", 2 * GROUP),
            format!("vpaddd xmm{cdgh}, xmm{cdgh}, [r11 + {}]", 3 * GROUP),
            format!("vpshufd xmm{abef}, xmm{abef}, 0x1b"),
            format!("vpshufd xmm{cdgh}, xmm{cdgh}, 0x1b"),
            format!("vpunpcklqdq xmm0, xmm{abef}, xmm{cdgh}"),
            format!("vmovdqa {}, xmm0", message.words(0)),
            format!("vpunpckhqdq xmm{abef}, xmm{abef}, xmm{cdgh}"),
            format!("vmovdqa {}, xmm{abef}", message.words(1)),
        ]
    }
}

/// What comes in each slot after its step: the second messages, and one first message.
fn messages() -> Vec<Vec<String>> {
    let parts = PATTERN.iter().flat_map(|parts| *parts).filter(|part| **part != Filler);
    assert!(parts.eq([GROUP_PARTS; 2].as_flattened()), "the pattern makes two groups");
    let all = || (0..NONCES).map(Message::second).chain([Message::first(0)]);
    let mut groups = (FIRST..END).flat_map(|group| all().map(move |message| (group, message)));
    let mut beside = vec![Vec::new(); chains::slots::<ByNonce>()];
    let mut parts = PATTERN.iter().cycle();
    let mut group = groups.next();
    for lines in beside.iter_mut().skip(BEGIN) {
        for part in *parts.next().expect("the pattern has no end") {
            let Some((number, message)) = &group else { break };
            lines.extend(message.part(*number, *part));
            if *part == StoreSum {
                group = groups.next();
            }
        }
    }
    assert!(group.is_none(), "all groups are made");
    // The groups that the first hashes have produced, later nonces first, since the next first hashes end in that
    // order.
    let made = (0..NONCES).rev().flat_map(|nonce| (0..MADE).map(move |group| (nonce, group)));
    let half = beside.len() / 2;
    for (i, (nonce, group)) in made.enumerate() {
        beside[BEGIN + i * half / (MADE * NONCES)].extend(Message::second(nonce).sum(group));
    }
    beside
}

/// Checks that the words produced by first hashes are read before the next ones overwrite them.
///
/// # Panics
/// The check fails.
fn check(lines: &[String]) {
    for (nonce, group) in (0..NONCES).flat_map(|nonce| (0..MADE).map(move |group| (nonce, group))) {
        let words = Message::second(nonce).words(group);
        let is_write = |line: &str| line.starts_with("vmovdqa [");
        let mut uses: Vec<&String> = lines.iter().filter(|line| line.contains(&words)).collect();
        assert!(uses.pop().is_some_and(|line| is_write(line)), "what comes last is the write");
        assert!(!uses.is_empty() && !uses.iter().any(|line| is_write(line)), "there is one write");
    }
}

/// Before a batch of nonces: gives the rounds the completed first messages, and starts those of the nonces that come
/// next.
fn next_batch() -> String {
    let messages = NONCES * FIRST_MESSAGE;
    let mut lines = vec![
        format!("lea r10, [r13 - {messages}]"),
        "xchg r10, r12".to_owned(),
        format!("lea r13, [r10 + {messages}]"),
    ];
    for nonce in 0..NONCES {
        let at = FIRST_MESSAGE * nonce;
        lines.extend([
            // The header holds its nonce in little-endian order, and SHA-256 reads words in big-endian order.
            format!("lea eax, [rdx + {nonce}]"),
            "bswap eax".to_owned(),
            format!("mov dword ptr [r10 + {}], eax", at + 4 * 3),
            // Round 3 adds it to a and e. It is stored where rounds 0 to 3 would have their sums.
            "vmovd xmm15, eax".to_owned(),
            "vpshufd xmm15, xmm15, 0x11".to_owned(),
            format!("vmovdqa [r10 + {}], xmm15", at + ROW),
        ]);
    }
    lines.push(format!("add edx, {NONCES}\nlea r11, [rdi + {{versions}}]\nmov eax, r8d"));
    joined(lines)
}

/// Computes the first messages that the batch's versions have not, several at once, since each one is a dependency
/// chain. It may compute a few more, of nonces that are not scanned.
fn first_messages() -> String {
    let groups = (FIRST..END).flat_map(|group| (0..AT_ONCE).map(move |number| (group, number)));
    let lines = groups.flat_map(|(group, number)| {
        GROUP_PARTS.iter().filter_map(move |part| Message::first(number).part(group, *part))
    });
    let lines = joined(lines);
    format!("3:\ncmp r10, r13\njae 6f\n{lines}add r10, {}\njmp 3b\n6:\n", AT_ONCE * FIRST_MESSAGE)
}

pub(crate) fn code() -> String {
    let rounds = chains::rounds::<ByNonce>();
    let slots = rounds.slots.into_iter().zip(messages());
    let lines: Vec<String> = slots.flat_map(|(slot, beside)| [slot, beside].concat()).collect();
    check(&lines);
    let rows = NONCES * ROW;
    [
        "vzeroupper\npush rbx\npush rbp\npush r12\npush r13\n".to_owned(),
        format!("lea rbx, [rdi + {{second_sums}}]\nlea rbp, [rbx + {rows}]\nlea r9, [rbp + {rows}]\n"),
        // As if the second copy had been computed, for nonces that are not scanned.
        "lea r12, [rdi + {first_messages}]\n".to_owned(),
        format!("lea r13, [rdi + {{other_first_messages}} + {}]\n", NONCES * FIRST_MESSAGE),
        next_batch(),
        first_messages(),
        next_batch(),
        ".p2align 6\n2:\n".to_owned(),
        joined(lines),
        joined(rounds.moves),
        format!("cmp r10, r13\nje 5f\nadd r10, {FIRST_MESSAGE}\n5:\n"),
        format!("xchg rbx, rbp\nxchg rbx, r9\nadd rsi, {LAST_WORDS}\nadd r11, {VERSION}\n"),
        "dec rcx\njz 4f\ndec eax\njnz 2b\njmp 3b\n4:\npop r13\npop r12\npop rbp\npop rbx\nret\n".to_owned(),
    ]
    .concat()
}
