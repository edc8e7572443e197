//! SHA-256's message words, for a register of nonces at a time.
//!
//! What lives here: the words of both hashes' blocks, without anything that is constant. What does not: the rounds that
//! use them (`scan.rs`, `sha_avx512/`), and the constants' values (`src/simd/wide.rs`).

use crate::flow::{Flow, Source, Unpack, Value};
use crate::page::{Constant, Slot};

/// The first or the second hash, which differ in what is constant in their messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    /// Hashes the header's second block: words 0 to 2 and 4 to 15 are constants, and so are 16 and 17.
    First,
    /// Hashes the first hash: words 8 to 15 are constants.
    Second,
}

impl Hash {
    fn is_constant(self, t: usize) -> bool {
        match self {
            Self::First => t != 3 && t < 18,
            Self::Second => (8..16).contains(&t),
        }
    }

    /// The constant to be added to message word t, if it is not 0.
    fn constant(self, t: usize) -> Option<Constant> {
        match (self, t) {
            (Self::First, 18..=20 | 22..=24 | 30..=33) => Some(Constant::FirstWord(t)),
            (Self::Second, 17 | 22..=24 | 30 | 31) => Some(Constant::SecondWord(t)),
            _ => None,
        }
    }

    /// The slot of message word t.
    fn slot(self, t: usize) -> Slot {
        match self {
            Self::First => Slot::FirstWord(t),
            Self::Second if t < 8 => Slot::Hash(t),
            Self::Second => Slot::SecondWord(t),
        }
    }

    /// The number of the last message word needed.
    fn last(self) -> usize {
        if self == Self::First { 63 } else { LAST_ROUND }
    }
}

/// The last word of the second hash is e of this round.
pub(crate) const LAST_ROUND: usize = 60;

/// The latest message words, which are still in registers.
#[derive(Default)]
pub(crate) struct Words {
    pub(crate) before: Option<Value>,
    pub(crate) two_before: Option<Value>,
    /// If `keeps_older`: the older word that σ0 was last computed from, and its number. The next word adds it
    /// unchanged.
    older: Option<(usize, Value)>,
    keeps_older: bool,
}

impl Words {
    pub(crate) fn new(before: Value, two_before: Value) -> Self {
        Self { before: Some(before), two_before: Some(two_before), ..Self::default() }
    }

    pub(crate) fn push(&mut self, word: Value) {
        self.two_before = self.before.replace(word);
    }
}

/// Message word t, from 16 on: `W[t-16] + σ0(W[t-15]) + W[t-7] + σ1(W[t-2])`.
pub(crate) fn message_word(flow: &mut Flow, hash: Hash, t: usize, words: &mut Words) -> Value {
    let mut sum: Option<Value> = None;
    let mut older = None;
    if !hash.is_constant(t - 15) {
        let word = flow.for_several(hash.slot(t - 15));
        sum = Some(flow.small_sigma(word, [7, 18], 3));
        older = word.value().filter(|_| words.keeps_older).map(|word| (t - 15, word));
    }
    let older = std::mem::replace(&mut words.older, older);
    let source = |t: usize| match older {
        Some((number, word)) if number == t => word.into(),
        _ => hash.slot(t).into(),
    };
    let mut others: Vec<Source> =
        [t - 16, t - 7].iter().filter(|&&t| !hash.is_constant(t)).map(|&t| source(t)).collect();
    others.extend(hash.constant(t).map(Source::from));
    if let Some(first) = &mut sum {
        others.drain(..).for_each(|other| *first = flow.add(*first, other));
    }
    // The most recent value is added last, since its round is the closest.
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

/// The header's words for the next batch of nonces; advances the counter. The header holds a nonce in little-endian
/// order, and SHA-256 reads words in big-endian order: rotated left by 8, bytes 0 and 2 are in place; by 24, bytes 1
/// and 3.
pub(crate) fn nonces(flow: &mut Flow, counter_slot: Slot) -> Value {
    let counter = flow.load(counter_slot);
    let next = flow.add(counter, Constant::Batch);
    flow.store(next, counter_slot);
    let (by_8, by_24) = (flow.rotate_right(counter, 24), flow.rotate_right(counter, 8));
    let sources = [by_8.into(), by_24.into(), Constant::EvenBytes.into()];
    flow.ternary(sources, |by_8, by_24, even| if even == 1 { by_8 } else { by_24 })
}

/// Message words 18 and 19 of the first hash, the first that depend on the nonces.
pub(crate) fn first_words(flow: &mut Flow, nonces: Value) -> [Value; 2] {
    let sigma = flow.small_sigma(nonces.into(), [7, 18], 3);
    let words = [flow.add(sigma, Constant::FirstWord(18)), flow.add(nonces, Constant::FirstWord(19))];
    flow.store(words[0], Slot::FirstWord(18));
    flow.store(words[1], Slot::FirstWord(19));
    words
}

/// Passes to `give`, for rounds 18 to 63 of the first hash, the round number and the sum of round constant and word.
fn first_sums(flow: &mut Flow, nonces: Value, mut give: impl FnMut(&mut Flow, usize, Value)) {
    let mut words = Words { keeps_older: true, ..Words::default() };
    let two = first_words(flow, nonces);
    two.into_iter().for_each(|word| words.push(word));
    for t in 18..64 {
        let word = if t < 20 { two[t - 18] } else { message_word(flow, Hash::First, t, &mut words) };
        let sum = flow.add(word, Constant::FirstRound(t));
        give(flow, t, sum);
    }
}

/// For several versions, once for all of them: the next nonces, and what rounds 16 to 63 of the first hash add.
pub(crate) fn expansion() -> Flow {
    let mut flow = Flow::new();
    let nonces = nonces(&mut flow, Slot::Counter);
    for t in [16, 17] {
        // Entirely constant.
        let sum = flow.load(Constant::FirstRound(t));
        flow.store(sum, Slot::Sum(t));
    }
    first_sums(&mut flow, nonces, |flow, t, sum| flow.store(sum, Slot::Sum(t)));
    // This slot is shared with a message word.
    flow.store(nonces, Slot::Nonces);
    flow
}

/// Pairs the sums of two consecutive rounds as `sha256rnds2` takes them: next to each other, nonce by nonce.
#[derive(Default)]
pub(crate) struct Pairs {
    first: Option<(usize, Value)>,
}

impl Pairs {
    pub(crate) fn give(
        &mut self,
        flow: &mut Flow,
        t: usize,
        sum: Value,
        slot: impl Fn(usize, usize) -> Slot,
    ) {
        let Some((before, first)) = self.first.take() else {
            self.first = Some((t, sum));
            return;
        };
        assert!(before + 1 == t, "the two follow each other");
        let halves = [Unpack::LOW_WORDS, Unpack::HIGH_WORDS].map(|words| flow.unpack(words, first, sum));
        for (i, half) in halves.into_iter().enumerate() {
            flow.store(half, slot(before, i));
        }
    }
}

/// The input of the rounds of the next nonces' first hashes: what the nonce adds to the state, and the sums.
pub(crate) fn first_message() -> Flow {
    let mut flow = Flow::beside_rounds();
    let nonces = nonces(&mut flow, Slot::Counter);
    flow.store(nonces, Slot::Added);
    let mut pairs = Pairs::default();
    first_sums(&mut flow, nonces, |flow, t, sum| pairs.give(flow, t, sum, Slot::FirstPair));
    flow
}

/// What several versions' first hashes need before there are sums: the next nonces, also as a message word.
pub(crate) fn next_nonces() -> Flow {
    let mut flow = Flow::beside_rounds();
    let nonces = nonces(&mut flow, Slot::Counter);
    flow.store(nonces, Slot::Nonces);
    flow.store(nonces, Slot::Added);
    flow
}

/// The next nonces of the vector hashes, as a message word.
pub(crate) fn next_vector_nonces() -> Flow {
    let mut flow = Flow::beside_rounds();
    let nonces = nonces(&mut flow, Slot::VectorCounter);
    flow.store(nonces, Slot::VectorNonces);
    flow
}

/// The input of the rounds of the second hashes, from the states in which the first hashes ended. With `keeps_older` it
/// takes one more register and fewer loads.
pub(crate) fn second_message(keeps_older: bool) -> Flow {
    let mut flow = Flow::beside_rounds();
    let mut pairs = Pairs::default();
    let mut give = |flow: &mut Flow, t, sum| pairs.give(flow, t, sum, Slot::SecondPair);
    // A state's registers hold, lowest first, f, e, b, a, and h, g, d, c.
    for (first, half, t) in [
        (0, Unpack::HIGH_WORDS, 0),
        (4, Unpack::HIGH_WORDS, 2),
        (0, Unpack::LOW_WORDS, 4),
        (4, Unpack::LOW_WORDS, 6),
    ] {
        let [second, first] = transposed(&mut flow, first, half);
        for (t, word) in [(t, first), (t + 1, second)] {
            let word = flow.add(word, Constant::Midstate(t));
            flow.store(word, Slot::Hash(t));
            if t == 0 {
                flow.store(word, Slot::SecondAdded);
            } else {
                let sum = flow.add(word, Constant::SecondRound(t));
                give(&mut flow, t, sum);
            }
        }
    }
    for t in [8, 15] {
        // Entirely constant, but the other word of the pair is not.
        let sum = flow.load(Constant::SecondRound(t));
        give(&mut flow, t, sum);
    }
    let mut words = Words { keeps_older, ..Words::default() };
    for t in 16..=LAST_ROUND {
        let word = message_word(&mut flow, Hash::Second, t, &mut words);
        let sum = flow.add(word, Constant::SecondRound(t));
        give(&mut flow, t, sum);
    }
    flow
}

/// Of four words of each nonce, which are stored side by side, the lower or the upper two as one register each.
fn transposed(flow: &mut Flow, first: usize, half: Unpack) -> [Value; 2] {
    let [low, high] = [0, 2].map(|i| {
        let one = flow.load(Slot::State(first + i));
        flow.unpack(half, one, Slot::State(first + i + 1))
    });
    [Unpack::LOW_PAIRS, Unpack::HIGH_PAIRS].map(|pairs| flow.unpack(pairs, low, high))
}
