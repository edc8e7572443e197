//! One nonce after another by the CPU's SHA-256 instructions, several streams of them interleaved.
//!
//! `sha256rnds2` does two rounds; its answer takes four cycles, so that one hash at a time leaves it idle most of
//! the time. Message words go four to a register, and those that are the same for all nonces are computed once.

#![allow(unsafe_code)]
// Several arrays are walked at once, and iterators with closures cost a call here (see `Streams`).
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_cvtsi128_si32, _mm_set_epi32, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi64,
};

use crate::kernel::{Kernel, hashes};
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{END_OF_MESSAGE, HASH_BITS, HEADER_BITS, INITIAL, K, Midstate, State, Tail};
use crate::work::{Found, Work};

/// Hashes under way at once.
const STREAMS: usize = 3;

#[derive(Debug)]
pub(crate) struct ShaNi;

impl Kernel for ShaNi {
    fn name(&self) -> &'static str {
        "sha-ni"
    }

    fn is_supported(&self) -> bool {
        is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1")
    }

    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
        assert!(self.is_supported(), "callers ask is_supported first, as the trait says");
        // SAFETY: this CPU has what the function is compiled for, as was just asked.
        unsafe { scan::<STREAMS>(work, range, found) };
        hashes(work, range)
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn scan<const N: usize>(work: &Work, range: NonceRange, found: &mut Vec<Found>) {
    let found_before = found.len();
    let zeros = work.target().zeros_of_last_word();
    let block = Block::new(work.tail());
    for (version, midstate) in (0..).zip(work.midstates()) {
        let start = Start::new(midstate);
        for first in range.batches(N as u32) {
            let nonces = std::array::from_fn(|i| (first + i as u32).swap_bytes());
            let last: [u32; N] = last_words(&block, &start, nonces);
            let bits = (0..N).map(|i| u32::from(last[i] & zeros == 0) << i).fold(0, |all, bit| all | bit);
            search::judge(work, version, first, bits, found);
        }
    }
    for nonce in range.after_batches(N as u32) {
        search::judge_all_versions(work, nonce, found);
    }
    if work.versions() > 1 {
        found[found_before..].sort_unstable();
    }
}

/// Words in their order from the lowest lane up.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn four(words: [u32; 4]) -> __m128i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm_set_epi32(d, c, b, a)
}

/// A state as the instructions want it: the registers they call ABEF and CDGH, highest lane first.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn halves([a, b, c, d, e, f, g, h]: State) -> [__m128i; 2] {
    [four([f, e, b, a]), four([h, g, d, c])]
}

/// The parts of the header's second block that are the same for all nonces, as sums ready for the instructions.
struct Block {
    /// Words 16 to 19 but for what the nonce adds.
    words_16: __m128i,
    /// What goes into words 20 to 23 and 28 to 31 from words before 20.
    into_20: __m128i,
    into_28: __m128i,
}

impl Block {
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn new(&Tail([w0, w1, w2]): &Tail) -> Self {
        let s0 = |x: u32| x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3);
        let s1 = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ (x >> 10);
        let w16 = s0(w1).wrapping_add(w0);
        let w17 = s1(HEADER_BITS).wrapping_add(s0(w2)).wrapping_add(w1);
        Self {
            words_16: four([w16, w17, s1(w16).wrapping_add(w2), s1(w17).wrapping_add(s0(END_OF_MESSAGE))]),
            into_20: four([END_OF_MESSAGE, 0, HEADER_BITS, w16]),
            into_28: four([0, 0, s0(HEADER_BITS), HEADER_BITS.wrapping_add(s0(w16))]),
        }
    }
}

/// A version's states.
struct Start {
    midstate: [__m128i; 2],
    /// After round 3 with a nonce of 0.
    before_nonce: [__m128i; 2],
}

impl Start {
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn new(midstate: &Midstate) -> Self {
        // After four rounds the names stand four places on.
        let [e, f, g, h, a, b, c, d] = midstate.before_nonce;
        Self { midstate: halves(midstate.midstate), before_nonce: halves([a, b, c, d, e, f, g, h]) }
    }
}

/// Hashes under way: their states, ABEF and CDGH, and their newest sixteen message words, group g of four at g mod 4.
///
/// Loops over the streams are written out as loops: a closure that needs target features is not inlined into the
/// library's iterators, and a call in here costs a third of the speed.
struct Streams<const N: usize> {
    states: [[__m128i; 2]; N],
    words: [[__m128i; 4]; N],
}

impl<const N: usize> Streams<N> {
    /// Rounds 4 * `GROUP` to 4 * `GROUP` + 3.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn rounds<const GROUP: usize>(&mut self) {
        let k = four(const { group(GROUP, [0; 4]) });
        let mut sums = [k; N];
        for i in 0..N {
            sums[i] = _mm_add_epi32(self.words[i][GROUP % 4], k);
        }
        self.rounds_of(sums);
    }

    /// Makes the words of that group out of the sixteen before, then does its rounds.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn next_rounds<const GROUP: usize>(&mut self) {
        self.next_words::<GROUP>();
        self.rounds::<GROUP>();
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn next_words<const GROUP: usize>(&mut self) {
        for w in &mut self.words {
            let [a, b, c, d] = [w[GROUP % 4], w[(GROUP + 1) % 4], w[(GROUP + 2) % 4], w[(GROUP + 3) % 4]];
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8::<4>(d, c));
            w[GROUP % 4] = _mm_sha256msg2_epu32(sum, d);
        }
    }

    /// Four rounds, from the sums of round constants and message words.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn rounds_of(&mut self, sums: [__m128i; N]) {
        for i in 0..N {
            let [abef, cdgh] = self.states[i];
            self.states[i][1] = _mm_sha256rnds2_epu32(cdgh, abef, sums[i]);
        }
        for i in 0..N {
            let [abef, cdgh] = self.states[i];
            self.states[i][0] = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32::<0x0e>(sums[i]));
        }
    }
}

/// The four round constants of a group, plus words that are constants.
const fn group(group: usize, words: [u32; 4]) -> [u32; 4] {
    let k = &K[group / 4];
    let at = group % 4 * 4;
    [
        k[at].wrapping_add(words[0]),
        k[at + 1].wrapping_add(words[1]),
        k[at + 2].wrapping_add(words[2]),
        k[at + 3].wrapping_add(words[3]),
    ]
}

/// The last words of the hashes of the header with these nonces (as the header's words).
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn last_words<const N: usize>(block: &Block, start: &Start, nonces: [u32; N]) -> [u32; N] {
    let zero = four([0; 4]);
    let mut s = Streams { states: [halves(INITIAL); N], words: [[zero; 4]; N] };
    let firsts = first_hash(block, start, nonces);
    for i in 0..N {
        let [low, high] = firsts[i];
        s.words[i] = [low, high, four([END_OF_MESSAGE, 0, 0, 0]), four([0, 0, 0, HASH_BITS])];
    }
    s.rounds::<0>();
    s.rounds::<1>();
    s.rounds_of([four(const { group(2, [END_OF_MESSAGE, 0, 0, 0]) }); N]);
    s.rounds_of([four(const { group(3, [0, 0, 0, HASH_BITS]) }); N]);
    s.next_rounds::<4>();
    s.next_rounds::<5>();
    s.next_rounds::<6>();
    s.next_rounds::<7>();
    s.next_rounds::<8>();
    s.next_rounds::<9>();
    s.next_rounds::<10>();
    s.next_rounds::<11>();
    s.next_rounds::<12>();
    s.next_rounds::<13>();
    s.next_rounds::<14>();
    s.next_words::<15>();
    // The last word is h after 64 rounds, which is f after 62.
    let k = four(const { group(15, [0; 4]) });
    let mut last = [0; N];
    for i in 0..N {
        let [abef, cdgh] = s.states[i];
        let abef = _mm_sha256rnds2_epu32(cdgh, abef, _mm_add_epi32(s.words[i][3], k));
        last[i] = _mm_cvtsi128_si32(abef).cast_unsigned().wrapping_add(INITIAL[7]);
    }
    last
}

/// The first hashes: words 0 to 3 and 4 to 7.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn first_hash<const N: usize>(block: &Block, start: &Start, nonces: [u32; N]) -> [[__m128i; 2]; N] {
    let zero = four([0; 4]);
    let [abef, cdgh] = start.before_nonce;
    let mut s = Streams { states: [[abef, cdgh]; N], words: [[zero; 4]; N] };
    for i in 0..N {
        let n = nonces[i].cast_signed();
        // Round 3 adds the nonce to a and e.
        s.states[i][0] = _mm_add_epi32(abef, _mm_set_epi32(n, 0, n, 0));
        let of_nonce = _mm_sha256msg1_epu32(_mm_set_epi32(n, 0, 0, 0), zero);
        let w16 = _mm_add_epi32(block.words_16, of_nonce);
        let w20 = _mm_sha256msg2_epu32(block.into_20, w16);
        let w24 = _mm_sha256msg2_epu32(_mm_alignr_epi8::<4>(w20, w16), w20);
        let w28 = _mm_add_epi32(block.into_28, _mm_alignr_epi8::<4>(w24, w20));
        s.words[i] = [w16, w20, w24, _mm_sha256msg2_epu32(w28, w24)];
    }
    s.rounds_of([four(const { group(1, [END_OF_MESSAGE, 0, 0, 0]) }); N]);
    s.rounds_of([four(const { group(2, [0; 4]) }); N]);
    s.rounds_of([four(const { group(3, [0, 0, 0, HEADER_BITS]) }); N]);
    s.rounds::<4>();
    s.rounds::<5>();
    s.rounds::<6>();
    s.rounds::<7>();
    s.next_rounds::<8>();
    s.next_rounds::<9>();
    s.next_rounds::<10>();
    s.next_rounds::<11>();
    s.next_rounds::<12>();
    s.next_rounds::<13>();
    s.next_rounds::<14>();
    s.next_rounds::<15>();
    let mut hashes = [[zero; 2]; N];
    for i in 0..N {
        let abef = _mm_shuffle_epi32::<0x1b>(_mm_add_epi32(s.states[i][0], start.midstate[0]));
        let cdgh = _mm_shuffle_epi32::<0x1b>(_mm_add_epi32(s.states[i][1], start.midstate[1]));
        hashes[i] = [_mm_unpacklo_epi64(abef, cdgh), _mm_unpackhi_epi64(abef, cdgh)];
    }
    hashes
}
