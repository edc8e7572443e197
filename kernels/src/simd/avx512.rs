//! Sixteen nonces at a time, by AVX-512's foundation (F): it rotates in one instruction, and computes any function of
//! three bits in one.
//!
//! What lives here: the constants that the code needs, and the call. What does not: the code, which the build script
//! writes (`build/`), and where the constants lie (`page.rs`). The way of the data: work → constants and counter in
//! the page → the code, which gives a mask of sixteen lanes for each batch of nonces and version → candidates, each
//! judged by its whole hash.

#![allow(unsafe_code)]

use std::arch::naked_asm;

use super::page::{
    CONSTANTS, CONSTANTS_MIDDLE, CONSTANTS_SLOT, Constant, LAG, SLOT, SLOTS, Slot, VERSION_WORDS, VERSIONS,
    VERSIONS_SLOT,
};
use crate::kernel::{Kernel, hashes};
use crate::lanes::Lanes;
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{self, END_OF_MESSAGE, HASH_BITS, HEADER_BITS, INITIAL, K, Midstate, Tail};
use crate::work::{Found, Work};

/// Nonces in a batch.
const LANES: u32 = 16;
/// Masks of one call at most: 16,384 hashes, a fifth of a millisecond. The end of each call repeats [`LAG`] of them.
const MASKS: usize = 1024;
/// Words in a slot.
const WORDS: usize = SLOT / 4;

#[derive(Debug)]
pub(crate) struct Avx512;

impl Kernel for Avx512 {
    fn name(&self) -> &'static str {
        "avx512"
    }

    fn is_supported(&self) -> bool {
        Cpu::detect().is_some()
    }

    fn chunk(&self) -> u64 {
        1 << 14
    }

    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
        let cpu = Cpu::detect().expect("callers ask is_supported first, as the trait says");
        const { assert!(Work::MAX_VERSIONS <= VERSIONS) };
        let found_before = found.len();
        scan_batches(cpu, work, range, found);
        for nonce in range.after_batches(LANES) {
            search::judge_all_versions(work, nonce, found);
        }
        if work.versions() > 1 {
            found[found_before..].sort_unstable();
        }
        hashes(work, range)
    }
}

/// Proof that this CPU has AVX-512F.
#[derive(Clone, Copy)]
struct Cpu(());

impl Cpu {
    fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

/// Scans the whole batches of the range.
fn scan_batches(cpu: Cpu, work: &Work, range: NonceRange, found: &mut Vec<Found>) {
    let mut page = Page::new(work);
    let versions = work.versions();
    let mut masks = [0; MASKS + LAG];
    let mut batches = range.batches(LANES);
    while let Some(first) = batches.next() {
        let count = 1 + batches.by_ref().take(MASKS / versions - 1).count();
        page.scan(cpu, first, &mut masks[..count * versions + LAG]);
        let of_batch = masks[LAG..][..count * versions].chunks_exact(versions);
        for (batch, masks) in (0..).zip(of_batch) {
            for (version, mask) in (0..).zip(masks) {
                search::judge(work, version, first.wrapping_add(batch * LANES), (*mask).into(), found);
            }
        }
    }
}

/// The code's memory.
#[repr(C, align(4096))]
struct Page {
    words: [u32; SLOTS * WORDS],
    versions: usize,
}

impl Page {
    /// With all constants of the work.
    fn new(work: &Work) -> Self {
        const { assert!(CONSTANTS_SLOT * WORDS + CONSTANTS <= 4096 / 4) };
        let mut page = Self { words: [0; SLOTS * WORDS], versions: work.versions() };
        page.put_round_constants();
        page.put_first_hash(work.tail());
        page.put_second_hash();
        page.put(Constant::EvenBytes, 0x00ff_00ff);
        page.put(Constant::Zeros, work.target().zeros_of_last_word());
        page.put(Constant::Batch, LANES);
        for (version, midstate) in work.midstates().enumerate() {
            page.put_version(version, midstate);
        }
        page
    }

    fn put(&mut self, constant: Constant, word: u32) {
        self.words[CONSTANTS_SLOT * WORDS + constant.number()] = word;
    }

    fn put_round_constants(&mut self) {
        for t in 4..64 {
            self.put(Constant::FirstRound(t), K[t / 16][t % 16]);
        }
        for t in 1..=60 {
            self.put(Constant::SecondRound(t), K[t / 16][t % 16]);
        }
    }

    /// The header's second block but for the nonce: `W[t] = W[t-16] + σ0(W[t-15]) + W[t-7] + σ1(W[t-2])`.
    fn put_first_hash(&mut self, tail: &Tail) {
        let k = |t: usize| K[t / 16][t % 16];
        let s0 = <u32 as Lanes>::small_sigma0;
        let [w16, w17, w18, w19] = tail.expanded();
        self.put(Constant::FirstRound(4), k(4).wrapping_add(END_OF_MESSAGE));
        self.put(Constant::FirstRound(15), k(15).wrapping_add(HEADER_BITS));
        self.put(Constant::FirstRound(16), k(16).wrapping_add(w16));
        self.put(Constant::FirstRound(17), k(17).wrapping_add(w17));
        for (t, word) in [
            (18, w18),
            (19, w19),
            (20, END_OF_MESSAGE),
            (22, HEADER_BITS),
            (23, w16),
            (24, w17),
            (30, s0(HEADER_BITS)),
            (31, HEADER_BITS.wrapping_add(s0(w16))),
            (32, w16.wrapping_add(s0(w17))),
            (33, w17),
        ] {
            self.put(Constant::FirstWord(t), word);
        }
    }

    /// The padding of the second hash's block, and its first rounds, which start from a known state.
    fn put_second_hash(&mut self) {
        let k = |t: usize| K[t / 16][t % 16];
        let (s0, s1) = (<u32 as Lanes>::small_sigma0, <u32 as Lanes>::small_sigma1);
        self.put(Constant::SecondRound(8), k(8).wrapping_add(END_OF_MESSAGE));
        self.put(Constant::SecondRound(15), k(15).wrapping_add(HASH_BITS));
        // The last word is e of round 60 plus its initial value.
        self.put(Constant::SecondRound(60), k(60).wrapping_add(INITIAL[7]));
        for (t, word) in [
            (17, s1(HASH_BITS)),
            (22, HASH_BITS),
            (23, s0(END_OF_MESSAGE)),
            (24, END_OF_MESSAGE),
            (30, s0(HASH_BITS)),
            (31, HASH_BITS),
        ] {
            self.put(Constant::SecondWord(t), word);
        }
        let [a, b, c, _, e, f, g, _] = INITIAL;
        let mut state = INITIAL;
        sha256::round::<u32, 0>(&mut state, k(0));
        // The names have moved on by one place.
        self.put(Constant::SecondA, state[7]);
        self.put(Constant::SecondE, state[3]);
        self.put(Constant::InitialA, a);
        self.put(Constant::InitialB, b);
        self.put(Constant::InitialE, e);
        self.put(Constant::InitialF, f);
        for (t, h, d) in [(1, g, c), (2, f, b), (3, e, a)] {
            self.put(Constant::SecondH(t), h.wrapping_add(k(t)));
            self.put(Constant::SecondDH(t), h.wrapping_add(k(t)).wrapping_add(d));
        }
    }

    fn put_version(&mut self, version: usize, midstate: &Midstate) {
        let at = VERSIONS_SLOT * WORDS + version * VERSION_WORDS;
        let words = &mut self.words[at..at + VERSION_WORDS];
        let mut put = |constant: Constant, word: u32| words[constant.number()] = word;
        // As round 4 wants it: its names have moved on by four places.
        let [e, f, g, h, a, b, c, d] = midstate.before_nonce;
        for (constant, word) in [
            (Constant::A, a),
            (Constant::B, b),
            (Constant::C, c),
            (Constant::E, e),
            (Constant::F, f),
            (Constant::G, g),
        ] {
            put(constant, word);
        }
        let end = |t| if t == 4 { END_OF_MESSAGE } else { 0 };
        for (t, h, d) in [(4, h, d), (5, g, c), (6, f, b)] {
            let h = h.wrapping_add(K[0][t]).wrapping_add(end(t));
            put(Constant::FirstH(t), h);
            put(Constant::FirstDH(t), h.wrapping_add(d));
        }
        for (i, word) in midstate.midstate.into_iter().enumerate() {
            put(Constant::Midstate(i), word);
        }
    }

    /// Scans the batches from nonce `first` on, as many as there are masks: one for each batch and version behind the
    /// first [`LAG`], which mean nothing and must be there. Bit i of a mask: lane i's hash may meet the target.
    fn scan(&mut self, _: Cpu, first: u32, masks: &mut [u16]) {
        assert!(masks.len() > LAG, "a call scans something");
        let counter = Slot::Counter.number() * WORDS;
        for (lane, word) in (0..).zip(&mut self.words[counter..counter + WORDS]) {
            *word = first.wrapping_add(lane);
        }
        let words = self.words.as_mut_ptr();
        let (iterations, versions) = (masks.len() as u64, self.versions as u64);
        // SAFETY: the `Cpu` proves AVX-512F. The code reads and writes slots 0 to SLOTS - 1 of `words`,
        // by a pointer to slot VERSIONS_SLOT, aligned to a slot since the page is; it reads the constants by a pointer
        // into them, and `versions` times VERSION_WORDS words from slot VERSIONS_SLOT on, of which there are enough
        // for VERSIONS. It writes one mask an iteration, and there is at least one.
        unsafe {
            let middle = words.add(VERSIONS_SLOT * WORDS);
            let constants = words.add(CONSTANTS_SLOT * WORDS + CONSTANTS_MIDDLE);
            let code = if versions == 1 { scan_one } else { scan_several };
            code(middle, constants, middle, iterations, masks.as_mut_ptr(), versions);
        }
    }
}

/// The code for one version: memory, constants, the version, iterations, masks.
///
/// # Safety
/// See the one call of it.
#[unsafe(naked)]
unsafe extern "sysv64" fn scan_one(
    _memory: *mut u32,
    _constants: *const u32,
    _versions: *const u32,
    _iterations: u64,
    _masks: *mut u16,
    _count: u64,
) {
    naked_asm!(include_str!(concat!(env!("OUT_DIR"), "/avx512_one.s")), options(raw))
}

/// The same for several versions, which take turns.
///
/// # Safety
/// See the one call of it.
#[unsafe(naked)]
unsafe extern "sysv64" fn scan_several(
    _memory: *mut u32,
    _constants: *const u32,
    _versions: *const u32,
    _iterations: u64,
    _masks: *mut u16,
    _count: u64,
) {
    naked_asm!(include_str!(concat!(env!("OUT_DIR"), "/avx512_versions.s")), options(raw))
}
