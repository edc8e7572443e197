//! What the AVX-512 code computes: a nonce's two hashes up to the word that decides, sixteen nonces at a time.
//!
//! What lives here: SHA-256's rounds and message words, with everything dropped that is constant or that nobody reads.
//! What does not: the constants' values (`src/simd/avx512.rs`). One iteration of the loop runs the first hash of one
//! item (a batch of nonces in one version) beside the second hash of the item before, so that there are always two
//! streams that do not wait for each other. The second hash is cut once more: its rounds from [`CUT`] on run in the
//! next iteration but one, so that the streams do not begin and end together.

use crate::flow::{Flow, Source, Stream, Value};
use crate::page::{Constant, Slot};

/// A state: a to h.
type State = [Source; 8];

/// One hash or the other: what is constant in its message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hash {
    /// The header's second block: words 0 to 2 and 4 to 15 are constants, and so are 16 and 17.
    First,
    /// The first hash: words 8 to 15 are constants.
    Second,
}

impl Hash {
    fn is_constant(self, t: usize) -> bool {
        match self {
            Self::First => t != 3 && t < 18,
            Self::Second => (8..16).contains(&t),
        }
    }

    /// The constant that goes into message word t, if it is not 0.
    fn constant(self, t: usize) -> Option<Constant> {
        match (self, t) {
            (Self::First, 18..=20 | 22..=24 | 30..=33) => Some(Constant::FirstWord(t)),
            (Self::Second, 17 | 22..=24 | 30 | 31) => Some(Constant::SecondWord(t)),
            _ => None,
        }
    }

    /// Where message word t is kept.
    fn slot(self, t: usize) -> Slot {
        match self {
            Self::First => Slot::FirstWord(t),
            Self::Second if t < 8 => Slot::Hash(t),
            Self::Second => Slot::SecondWord(t),
        }
    }

    /// The last message word that is needed.
    fn last(self) -> usize {
        if self == Self::First { 63 } else { LAST_ROUND }
    }
}

/// The second hash's last word is e of this round.
const LAST_ROUND: usize = 60;
/// From this round on, a is not needed: no e that is will ever see it.
const E_ALONE: usize = LAST_ROUND - 3;

/// The newest message words, which are still in registers.
#[derive(Default)]
struct Words {
    before: Option<Value>,
    two_before: Option<Value>,
}

impl Words {
    fn push(&mut self, word: Value) {
        self.two_before = self.before.replace(word);
    }
}

/// Message word t, from 16 on: `W[t-16] + σ0(W[t-15]) + W[t-7] + σ1(W[t-2])`.
fn message_word(flow: &mut Flow, hash: Hash, t: usize, words: &mut Words) -> Value {
    let mut sum: Option<Value> = None;
    if !hash.is_constant(t - 15) {
        sum = Some(flow.small_sigma(hash.slot(t - 15).into(), [7, 18], 3));
    }
    let mut others: Vec<Source> =
        [t - 16, t - 7].iter().filter(|&&t| !hash.is_constant(t)).map(|&t| hash.slot(t).into()).collect();
    others.extend(hash.constant(t).map(Source::from));
    if let Some(first) = &mut sum {
        others.drain(..).for_each(|other| *first = flow.add(*first, other));
    }
    // What was made last comes last: its round is the nearest.
    if !hash.is_constant(t - 2) {
        let recent = words.two_before.expect("two words before any that needs them were made");
        let sigma = flow.small_sigma(recent.into(), [17, 19], 10);
        sum = Some(sum.map_or(sigma, |sum| flow.add(sum, sigma)));
    }
    let word = sum.expect("no word depends on constants alone");
    let word = others.into_iter().fold(word, |sum, other| flow.add(sum, other));
    words.push(word);
    if t + 7 <= hash.last() {
        flow.store(word, hash.slot(t));
    }
    word
}

/// What a round adds to h besides functions of the state.
struct Terms {
    /// Added to h, or where h is a constant, h and it.
    constant: Source,
    /// Where h and d are constants: the same and d.
    constant_and_d: Option<Constant>,
    word: Option<Value>,
}

/// One round; without the new a where only e is needed.
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
    // Nobody looks at an a that is not made.
    let mut new_a = t1;
    if with_a {
        let majority = flow.ternary([a, b, c], |a, b, c| (a + b + c) / 2);
        let sigma = flow.big_sigma(a, [2, 13, 22]);
        new_a = flow.add(new_a, majority);
        new_a = flow.add(new_a, sigma);
    }
    [new_a.into(), a, b, c, new_e.into(), e, f, g]
}

/// The header's words for the next sixteen nonces; the counter moves on. A header holds its nonce little-endian, and
/// SHA-256 reads its words big-endian: rotated by 8 to the left bytes 0 and 2 are in place, by 24 bytes 1 and 3.
fn nonces(flow: &mut Flow) -> Value {
    let counter = flow.load(Slot::Counter);
    let next = flow.add(counter, Constant::Batch);
    flow.store(next, Slot::Counter);
    let (by_8, by_24) = (flow.rotate_right(counter, 24), flow.rotate_right(counter, 8));
    let sources = [by_8.into(), by_24.into(), Constant::EvenBytes.into()];
    flow.ternary(sources, |by_8, by_24, even| if even == 1 { by_8 } else { by_24 })
}

/// Message words 18 and 19 of the first hash, the first that depend on the nonces.
fn first_words(flow: &mut Flow, nonces: Value) -> [Value; 2] {
    let sigma = flow.small_sigma(nonces.into(), [7, 18], 3);
    let words = [flow.add(sigma, Constant::FirstWord(18)), flow.add(nonces, Constant::FirstWord(19))];
    flow.store(words[0], Slot::FirstWord(18));
    flow.store(words[1], Slot::FirstWord(19));
    words
}

/// The first hash, from the nonces on.
fn first_hash(flow: &mut Flow, several_versions: bool) {
    flow.on(Stream::First);
    let mut words = Words::default();
    let (nonces, two) = if several_versions {
        (flow.load(Slot::Nonces), [None; 2])
    } else {
        let nonces = nonces(flow);
        let two = first_words(flow, nonces);
        two.into_iter().for_each(|word| words.push(word));
        (nonces, two.map(Some))
    };
    // Round 3 adds the nonce to a and e.
    let (e, a) = (flow.add(nonces, Constant::E), flow.add(nonces, Constant::A));
    let constant = Source::from;
    // The constants d and h of rounds 4 to 6 are in their sums; what stands for them here is never looked at.
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

/// The second hash's rounds before the cut, from a first hash of the iteration before.
fn second_hash_earlier(flow: &mut Flow, cut: usize) {
    flow.on(Stream::SecondEarlier);
    // Round 0: all but the message word is constant.
    let word = flow.load(Slot::Hash(0));
    let (e, a) = (flow.add(word, Constant::SecondE), flow.add(word, Constant::SecondA));
    let none = Source::from(Constant::InitialA);
    let [b, c, f, g] =
        [Constant::InitialA, Constant::InitialB, Constant::InitialE, Constant::InitialF].map(Source::from);
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
    let mut words = Words { before: Some(before), two_before: Some(two_before) };
    for t in cut..=LAST_ROUND {
        state = second_hash_round(flow, state, t, &mut words);
    }
    let e = state[4].value().expect("a round makes a new e");
    flow.test(e, Constant::Zeros);
}

/// One iteration. Each part comes before those that overwrite what it reads.
pub(crate) fn iteration(several_versions: bool) -> Flow {
    // Found by trial: see docs/kernels.md.
    let cut = if several_versions { 48 } else { 30 };
    let mut flow = Flow::new();
    second_hash_later(&mut flow, cut);
    second_hash_earlier(&mut flow, cut);
    first_hash(&mut flow, several_versions);
    flow
}

/// For several versions, once for all of them: the next nonces, and what rounds 16 to 63 of the first hash add.
pub(crate) fn expansion() -> Flow {
    let mut flow = Flow::new();
    let nonces = nonces(&mut flow);
    let mut words = Words::default();
    let two = first_words(&mut flow, nonces);
    two.into_iter().for_each(|word| words.push(word));
    for t in 16..64 {
        let sum = match t {
            // All of it is constant.
            16 | 17 => flow.load(Constant::FirstRound(t)),
            18 | 19 => flow.add(two[t - 18], Constant::FirstRound(t)),
            _ => {
                let word = message_word(&mut flow, Hash::First, t, &mut words);
                flow.add(word, Constant::FirstRound(t))
            }
        };
        flow.store(sum, Slot::Sum(t));
    }
    // In the place of a message word.
    flow.store(nonces, Slot::Nonces);
    flow
}
