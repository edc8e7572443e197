//! What the code for AVX-512 alone computes: a nonce's two hashes up to the deciding word, sixteen nonces at a time.
//!
//! What lives here: SHA-256's rounds, without anything that is constant or not used. What does not: the message words
//! (`message.rs`), and the constants' values (`src/simd/wide.rs`). One iteration of the loop runs the first hash of one
//! item (a batch of nonces in one version) beside the second hash of the previous item, so that there are always two
//! independent streams. The second hash is split once more: its rounds from `cut` on run one iteration later, so that
//! the streams do not begin and end together.

use crate::flow::{Flow, Source, Stream, Value};
use crate::message::{Hash, LAST_ROUND, Words, first_words, message_word, nonces};
use crate::page::{Constant, Slot};

/// A state: a to h.
type State = [Source; 8];

/// From this round on a is not computed, since no e that is needed depends on it.
const E_ALONE: usize = LAST_ROUND - 3;

/// What a round adds to h, besides functions of the state.
struct Terms {
    /// Added to h; if h is a constant, the sum of h and it.
    constant: Source,
    /// If h and d are constants: the sum above plus d.
    constant_and_d: Option<Constant>,
    word: Option<Value>,
}

/// One round. Without `with_a`, only the new e is computed.
fn round(flow: &mut Flow, [a, b, c, d, e, f, g, h]: State, terms: &Terms, with_a: bool) -> State {
    let choose = |flow: &mut Flow| flow.ternary([e, f, g], |e, f, g| if e == 1 { f } else { g });
    let (t1, new_e);
    if let Some(constant_and_d) = terms.constant_and_d {
        let (sigma, choice) = (flow.big_sigma(e, [6, 11, 25]), choose(flow));
        let mut sum = flow.add(sigma, choice);
        if let Some(word) = terms.word {
            sum = flow.add(sum, word);
        }
        new_e = flow.add(sum, constant_and_d);
        t1 = if with_a { flow.add(sum, terms.constant) } else { sum };
    } else {
        let h = h.value().expect("h is a constant only where its sum is given");
        let mut sum = flow.add(h, terms.constant);
        if let Some(word) = terms.word {
            sum = flow.add(sum, word);
        }
        let (sigma, choice) = (flow.big_sigma(e, [6, 11, 25]), choose(flow));
        // Σ1 is ready last, so it is added last.
        sum = flow.add(sum, choice);
        t1 = flow.add(sum, sigma);
        new_e = flow.add(t1, d);
    }
    // Without `with_a` the value of a is never read.
    let mut new_a = t1;
    if with_a {
        let majority = flow.ternary([a, b, c], |a, b, c| (a + b + c) / 2);
        let sigma = flow.big_sigma(a, [2, 13, 22]);
        new_a = flow.add(new_a, majority);
        new_a = flow.add(new_a, sigma);
    }
    [new_a.into(), a, b, c, new_e.into(), e, f, g]
}

/// The first hash, starting from the nonces.
fn first_hash(flow: &mut Flow, several_versions: bool) {
    flow.on(Stream::First);
    let mut words = Words::default();
    let (nonces, two) = if several_versions {
        (flow.load(Slot::Nonces), [None; 2])
    } else {
        let nonces = nonces(flow, Slot::Counter);
        let two = first_words(flow, nonces);
        two.into_iter().for_each(|word| words.push(word));
        (nonces, two.map(Some))
    };
    // Round 3 adds the nonce to a and e.
    let (e, a) = (flow.add(nonces, Constant::E), flow.add(nonces, Constant::A));
    let constant = Source::from;
    // For rounds 4 to 6 the constants d and h are part of the sums, and this placeholder is never read.
    let none = constant(Constant::A);
    let [b, c, f, g] = [Constant::B, Constant::C, Constant::F, Constant::G].map(constant);
    let mut state = [a.into(), b, c, none, e.into(), f, g, none];
    for t in 4..64 {
        let terms = match t {
            ..7 => Terms {
                constant: Constant::FirstH(t).into(),
                constant_and_d: Some(Constant::FirstDH(t)),
                word: None,
            },
            16.. if several_versions => {
                Terms { constant: Slot::Sum(t).into(), constant_and_d: None, word: None }
            }
            _ => Terms {
                constant: Constant::FirstRound(t).into(),
                constant_and_d: None,
                word: match t {
                    ..18 => None,
                    18 | 19 => two[t - 18],
                    _ => Some(message_word(flow, Hash::First, t, &mut words)),
                },
            },
        };
        state = round(flow, state, &terms, true);
    }
    for (i, word) in state.into_iter().enumerate() {
        let word = word.value().expect("after so many rounds nothing is a constant");
        let sum = flow.add(word, Constant::Midstate(i));
        flow.store(sum, Slot::Hash(i));
    }
}

fn second_hash_round(flow: &mut Flow, state: State, t: usize, words: &mut Words) -> State {
    let word = match t {
        ..8 => Some(flow.load(Slot::Hash(t))),
        8..16 => None,
        _ => Some(message_word(flow, Hash::Second, t, words)),
    };
    let terms = match t {
        ..4 => {
            Terms { constant: Constant::SecondH(t).into(), constant_and_d: Some(Constant::SecondDH(t)), word }
        }
        _ => Terms { constant: Constant::SecondRound(t).into(), constant_and_d: None, word },
    };
    round(flow, state, &terms, t < E_ALONE)
}

/// The second hash's rounds before the cut, on a first hash of the previous iteration.
fn second_hash_earlier(flow: &mut Flow, cut: usize) {
    flow.on(Stream::SecondEarlier);
    // Round 0: everything but the message word is constant.
    let word = flow.load(Slot::Hash(0));
    let (e, a) = (flow.add(word, Constant::SecondE), flow.add(word, Constant::SecondA));
    let none = Source::from(Constant::Initial(0));
    let [b, c, f, g] = [0, 1, 4, 5].map(|i| Source::from(Constant::Initial(i)));
    let mut state = [a.into(), b, c, none, e.into(), f, g, none];
    let mut words = Words::default();
    for t in 1..cut {
        state = second_hash_round(flow, state, t, &mut words);
    }
    let newest = [words.before, words.two_before].map(|word| word.expect("the cut is after round 17"));
    let state = state.map(|word| word.value().expect("after so many rounds nothing is a constant"));
    for (i, word) in state.into_iter().chain(newest).enumerate() {
        flow.store(word, Slot::Carried(i));
    }
}

/// The second hash's rounds from the cut on, and the test of its last word.
fn second_hash_later(flow: &mut Flow, cut: usize) {
    flow.on(Stream::SecondLater);
    let mut state: State = std::array::from_fn(|i| flow.load(Slot::Carried(i)).into());
    let (before, two_before) = (flow.load(Slot::Carried(8)), flow.load(Slot::Carried(9)));
    let mut words = Words::new(before, two_before);
    for t in cut..=LAST_ROUND {
        state = second_hash_round(flow, state, t, &mut words);
    }
    let e = state[4].value().expect("a round makes a new e");
    flow.test(e, Constant::Zeros);
}

/// One iteration. Each part comes before those that overwrite what it reads.
pub(crate) fn iteration(several_versions: bool) -> Flow {
    // Found by trial; see docs/kernels.md.
    let cut = if several_versions { 48 } else { 30 };
    let mut flow = Flow::new();
    second_hash_later(&mut flow, cut);
    second_hash_earlier(&mut flow, cut);
    first_hash(&mut flow, several_versions);
    flow
}
