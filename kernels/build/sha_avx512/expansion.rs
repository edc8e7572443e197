//! Message words by code that is the same for all of them, so that it need not be there for each.
//!
//! What lives here: the next words, where pointers say. What does not: who moves the pointers. Constants are words like
//! others, in all lanes alike. (`message.rs` has a message's words one by one, without what is constant.)

use crate::flow::{Flow, Value};
use crate::page::{Constant, Slot};

/// The i-th of the next words, which comes so many registers behind where the pointer stands.
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

/// The same, and what its round adds: the constant is as far behind its own pointer.
pub(crate) fn sum(flow: &mut Flow, words: &'static str, constants: &'static str, i: usize) -> Value {
    let word = word(flow, words, i);
    flow.add(word, Constant::Behind(constants, i))
}

/// The same, with the sum so many registers behind the word.
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
