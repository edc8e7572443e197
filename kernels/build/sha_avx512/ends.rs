//! How the hashes of `sha-avx512` begin and end.
//!
//! What lives here: what the rounds read of messages that AVX-512 has computed for eight nonces at once, the state that
//! they begin with, and where their result goes. What does not: the rounds (`chains.rs`), the messages (`message.rs`),
//! and where each slot is (`places.rs`).

use super::places::{read, written};
use crate::chains::{Ends, Hash, NONCES, State, Step};
use crate::emit::address;
use crate::message::LAST_ROUND;
use crate::page::{Constant, IN_FOURS, Slot};
use crate::sha_page::{LANES, REGISTER};

const _: () = assert!(NONCES == LANES, "a message is of an iteration's nonces");

/// The mask register that selects a and e.
const A_AND_E: &str = "k2";

/// Hashes whose messages are stored by word, not by nonce.
pub(crate) struct ByWord;

/// Before the first iteration: sets the mask. Overwrites eax.
pub(crate) fn begin() -> String {
    let mask = [0, 4].into_iter().fold(0, |mask, word| mask | 1 << IN_FOURS[word]);
    format!("mov eax, {mask}\nkmovw {A_AND_E}, eax\n")
}

/// Where a second hash's last f and e go: e to the nonce's place among the last words, and f before it.
pub(crate) fn last_word(nonce: usize) -> String {
    let (slot, byte) =
        if nonce == 0 { (Slot::BeforeLastWords, REGISTER - 4) } else { (Slot::LastWords, 4 * (nonce - 1)) };
    written(slot, byte)
}

/// Four words of the nonce, in one of four registers.
fn words(nonce: usize, slot: impl Fn(usize) -> Slot) -> String {
    format!("xmmword ptr {}", read(slot(nonce % 4), nonce / 4 * 16))
}

/// The address of what the step adds.
fn place(Step { hash, number, is_late }: Step) -> String {
    let byte = hash.nonce / 4 * 16 + hash.nonce % 2 * 8;
    let half = hash.nonce % 4 / 2;
    let t = 2 * number + if hash.is_second { 1 } else { 4 };
    match (hash.is_second, t) {
        (true, 8..15) => address(Constant::SecondRound(t)),
        // By now the pointers have been swapped: the copy that was read is the one being written.
        (true, _) if is_late => written(Slot::SecondPair(t, half), byte),
        (true, _) => read(Slot::SecondPair(t, half), byte),
        (false, ..18) => address(Constant::FirstRound(t)),
        (false, _) => read(Slot::FirstPair(t, half), byte),
    }
}

impl Ends for ByWord {
    /// From round 1 on, since round 0 only adds a word to a known state.
    const SECOND_STEPS: usize = LAST_ROUND / 2;

    fn begin(Hash { nonce, is_second, .. }: Hash, State { abef, cdgh }: State) -> Vec<String> {
        let ([four, other], added) = if is_second {
            ([0, 1].map(|i| address(Constant::SecondFour(i))), read(Slot::SecondAdded, 4 * nonce))
        } else {
            ([0, 16].map(|byte| format!("[r11 + {byte}]")), read(Slot::Added, 4 * nonce))
        };
        vec![
            format!("vmovdqa xmm{abef}, xmmword ptr {four}"),
            // The message word of the previous round is added to a and e.
            format!("vpaddd xmm{abef} {{{A_AND_E}}}, xmm{abef}, dword ptr {added}{{1to4}}"),
            format!("vmovdqa xmm{cdgh}, xmmword ptr {other}"),
        ]
    }

    fn sums(step: Step) -> String {
        // The EVEX form scales its displacement by eight, so that one byte suffices.
        format!("{{evex}} vmovq xmm0, qword ptr {}", place(step))
    }

    fn end(Step { hash, .. }: Step, State { abef, cdgh }: State) -> Vec<String> {
        if hash.is_second {
            // The lower half is f and e, and e of round 60 decides. f overwrites the place of the previous nonce's
            // word. Later nonces end first, so that word is written afterwards.
            return vec![format!("vmovq qword ptr {}, xmm{abef}", last_word(hash.nonce))];
        }
        vec![
            format!("vmovdqa {}, xmm{abef}", words(hash.nonce, Slot::State)),
            format!("vmovdqa {}, xmm{cdgh}", words(hash.nonce, |i| Slot::State(4 + i))),
        ]
    }
}
