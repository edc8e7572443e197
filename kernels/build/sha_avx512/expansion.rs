//! Computes message words with code that is the same for all of them, so that it is not repeated for each.
//!
//! What lives here: the next words, at the places that pointers give. What does not: moving the pointers. Constants are
//! words like others, the same in all lanes. (`message.rs` computes a message's words one by one, without constants.)

use crate::flow::{Flow, Value};
use crate::page::{Constant, Slot};

/// The i-th of the next words, which goes i registers after where the pointer `words` stands.
fn word(flow: &mut Flow, words: &'static str, i: usize) -> Value {
    let at = |before: i64| Slot::Behind(words, i as i64 - before);
    let [older, newer] = [(15, [7, 18], 3), (2, [17, 19], 10)].map(|(before, rotations, shift)| {
        let word = flow.load(at(before));
        flow.small_sigma(word.into(), rotations, shift)
    });
    let sum = flow.add(older, at(16));
    let sum = flow.add(sum, at(7));
    let word = flow.add(sum, newer);
    flow.store(word, at(0));
    word
}

/// The same, plus its round constant, which is i words after where the pointer `constants` stands.
pub(crate) fn sum(flow: &mut Flow, words: &'static str, constants: &'static str, i: usize) -> Value {
    let word = word(flow, words, i);
    flow.add(word, Constant::Behind(constants, i))
}

/// The same, and stores the sum `registers` registers after the word.
pub(crate) fn sum_behind(
    flow: &mut Flow,
    words: &'static str,
    constants: &'static str,
    i: usize,
    registers: usize,
) {
    let sum = sum(flow, words, constants, i);
    flow.store(sum, Slot::Behind(words, (i + registers) as i64));
}
