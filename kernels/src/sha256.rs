//! SHA-256 (FIPS 180-4), with its rounds written once over [`Lanes`].
//!
//! A header is 80 bytes: one block of 64 (the state after it is the *midstate*), then a block of 16 bytes and padding.
//! The second hash takes one block: the first hash's 32 bytes and padding. So a nonce costs two blocks, minus what is
//! the same for all nonces.

use crate::lanes::Lanes;

/// SHA-256's eight chaining words, a to h.
pub(crate) type State = [u32; 8];

/// The initial chaining value, 5.3.3.
pub(crate) const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The round constants, 4.2.2, sixteen a row.
#[rustfmt::skip]
pub(crate) const K: [[u32; 16]; 4] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
     0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
     0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
     0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
     0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// The bit that ends a message, as the first word after it.
pub(crate) const END_OF_MESSAGE: u32 = 0x8000_0000;
/// Bits in a header: the last word of its second block.
pub(crate) const HEADER_BITS: u32 = 80 * 8;
/// Bits in a hash: the last word of the second hash's block.
pub(crate) const HASH_BITS: u32 = 32 * 8;

/// Repeats the statement for each index 0 to 15, so that the index is a constant in every copy and the compiler keeps
/// the indexed arrays in registers. It would not unroll a loop of this size.
macro_rules! for_each_of_16 {
    ($i:ident => $do:expr) => {
        for_each_of_16!(@ $i, $do, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident, $do:expr, $($n:literal)*) => { $({ const $i: usize = $n; $do })* };
}

/// Round `I` of sixteen. The words stay in place and their names move: a of round I is at index 8 - I, and so on.
#[inline(always)]
pub(crate) fn round<L: Lanes, const I: usize>(s: &mut [L; 8], constant_and_word: L) {
    let at = |name: usize| (name + 16 - I) % 8;
    let [a, b, c, d] = [s[at(0)], s[at(1)], s[at(2)], s[at(3)]];
    let [e, f, g, h] = [s[at(4)], s[at(5)], s[at(6)], s[at(7)]];
    let t1 = h.add(constant_and_word).add(e.big_sigma1()).add(e.choose(f, g));
    s[at(3)] = d.add(t1);
    s[at(7)] = t1.add(a.big_sigma0()).add(a.majority(b, c));
}

/// Rounds 4 to 15 of the header's second block, whose words are constants there.
#[inline(always)]
fn rounds_on_padding<L: Lanes>(cpu: L::Cpu, s: &mut [L; 8]) {
    for_each_of_16!(I => if (4..16).contains(&I) {
        let word = if I == 4 { END_OF_MESSAGE } else if I == 15 { HEADER_BITS } else { 0 };
        round::<L, I>(s, L::splat(cpu, K[0][I].wrapping_add(word)));
    });
}

/// Sixteen rounds on sums of round constant and message word. The body of [`Lanes::rounds`].
#[inline(always)]
pub(crate) fn sixteen_rounds<L: Lanes>(s: &mut [L; 8], sums: &[L; 16]) {
    for_each_of_16!(I => round::<L, I>(s, sums[I]));
}

/// Sixteen rounds of a later row, each of which first computes its message word from the previous sixteen. The body of
/// [`Lanes::rounds_on_schedule`].
#[inline(always)]
pub(crate) fn sixteen_rounds_on_schedule<L: Lanes>(s: &mut [L; 8], w: &mut [L; 16], k: &[L; 16]) {
    for_each_of_16!(I => {
        let word = next_word::<L, I>(w);
        round::<L, I>(s, k[I].add(word));
    });
}

/// Message word `I` of the next sixteen, stored in place of the one sixteen before it.
#[inline(always)]
fn next_word<L: Lanes, const I: usize>(w: &mut [L; 16]) -> L {
    let recent = w[(I + 14) % 16].small_sigma1().add(w[(I + 9) % 16]);
    w[I] = w[I].add(w[(I + 1) % 16].small_sigma0()).add(recent);
    w[I]
}

/// Rounds 0 to 15 on state `s` and block `w`.
#[inline(always)]
fn rounds_on_block<L: Lanes>(s: &mut [L; 8], w: &[L; 16], k: &Constants<L>) {
    if L::STREAMS > 1 {
        let mut sums = *w;
        for (sum, constant) in sums.iter_mut().zip(&k[0]) {
            *sum = sum.add(*constant);
        }
        L::rounds(s, &sums);
    } else {
        for_each_of_16!(I => round::<L, I>(s, k[0][I].add(w[I])));
    }
}

/// Rounds 16 to 63.
#[inline(always)]
fn later_rounds<L: Lanes>(s: &mut [L; 8], w: &mut [L; 16], k: &Constants<L>) {
    for row in &k[1..] {
        L::rounds_on_schedule(s, w, row);
    }
}

/// The round constants in every lane.
pub(crate) type Constants<L> = [[L; 16]; 4];

/// Copies the round constants into all lanes.
#[inline(always)]
pub(crate) fn constants<L: Lanes>(cpu: L::Cpu) -> Constants<L> {
    let mut spread = [[L::splat(cpu, 0); 16]; 4];
    for (lanes, words) in spread.iter_mut().flatten().zip(K.iter().flatten()) {
        *lanes = L::splat(cpu, *words);
    }
    spread
}

#[inline(always)]
fn splat_all<L: Lanes>(cpu: L::Cpu, words: &State) -> [L; 8] {
    let mut lanes = [L::splat(cpu, 0); 8];
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane = L::splat(cpu, *word);
    }
    lanes
}

/// The header's second block for these nonces, given as a word of the header (see [`nonce_words`]).
#[inline(always)]
fn second_block<L: Lanes>(cpu: L::Cpu, tail: &Tail, nonce: L) -> [L; 16] {
    let mut w = [L::splat(cpu, 0); 16];
    w[0] = L::splat(cpu, tail.0[0]);
    w[1] = L::splat(cpu, tail.0[1]);
    w[2] = L::splat(cpu, tail.0[2]);
    w[3] = nonce;
    w[4] = L::splat(cpu, END_OF_MESSAGE);
    w[15] = L::splat(cpu, HEADER_BITS);
    w
}

/// The header's word for the nonces `first`, `first + 1`, …: the header holds a nonce in little-endian order, and
/// SHA-256 reads words in big-endian order.
#[inline(always)]
pub(crate) fn nonce_words<L: Lanes>(cpu: L::Cpu, first: u32) -> L {
    L::count_up(cpu, first).swap_bytes()
}

/// The state after rounds 0 to 3: the nonce first appears in round 3, and is added only to a and e.
#[inline(always)]
fn after_nonce<L: Lanes>(cpu: L::Cpu, header: &Midstate, nonce: L) -> [L; 8] {
    let mut s: [L; 8] = splat_all(cpu, &header.before_nonce);
    // Where round 4 expects a and e.
    s[4] = s[4].add(nonce);
    s[0] = s[0].add(nonce);
    s
}

/// The first hash of the header with these nonces.
#[inline(always)]
pub(crate) fn first_hash<L: Lanes>(
    cpu: L::Cpu,
    k: &Constants<L>,
    tail: &Tail,
    header: &Midstate,
    nonce: L,
) -> [L; 8] {
    let mut s: [L; 8] = after_nonce(cpu, header, nonce);
    rounds_on_padding(cpu, &mut s);
    later_rounds(&mut s, &mut second_block(cpu, tail, nonce), k);
    add_state(cpu, s, &header.midstate)
}

/// What rounds 16 to 63 of the first hash's second block add: round constant plus message word. It is the same for all
/// versions of a header, since only the first block holds the version.
pub(crate) type Schedule<L> = [[L; 16]; 3];

/// Expands the second block.
#[inline(always)]
pub(crate) fn expand<L: Lanes>(cpu: L::Cpu, k: &Constants<L>, tail: &Tail, nonce: L, out: &mut Schedule<L>) {
    let mut w = second_block(cpu, tail, nonce);
    for (sums, k) in out.iter_mut().zip(&k[1..]) {
        for_each_of_16!(I => { sums[I] = k[I].add(next_word::<L, I>(&mut w)); });
    }
}

/// [`first_hash`] with a second block that was expanded before.
#[inline(always)]
pub(crate) fn first_hash_of_expanded<L: Lanes>(
    cpu: L::Cpu,
    header: &Midstate,
    nonce: L,
    schedule: &Schedule<L>,
) -> [L; 8] {
    let mut s: [L; 8] = after_nonce(cpu, header, nonce);
    rounds_on_padding(cpu, &mut s);
    for sums in schedule {
        L::rounds(&mut s, sums);
    }
    add_state(cpu, s, &header.midstate)
}

/// The second hash, of a first hash.
pub(crate) fn second_hash(first: &State) -> State {
    compress(&INITIAL, &second_hash_block((), first))
}

/// The block that the second hash takes.
#[inline(always)]
fn second_hash_block<L: Lanes>(cpu: L::Cpu, first: &[L; 8]) -> [L; 16] {
    let mut w = [L::splat(cpu, 0); 16];
    w[..8].copy_from_slice(first);
    w[8] = L::splat(cpu, END_OF_MESSAGE);
    w[15] = L::splat(cpu, HASH_BITS);
    w
}

/// The last word of the second hash of `first`: e of round 60. With a single stream, nothing after it is computed, nor
/// the half of rounds 57 to 60 that does not lead to it.
#[inline(always)]
pub(crate) fn last_word<L: Lanes>(cpu: L::Cpu, k: &Constants<L>, first: &[L; 8]) -> L {
    let mut w = second_hash_block(cpu, first);
    let mut s = splat_all(cpu, &INITIAL);
    rounds_on_block(&mut s, &w, k);
    L::rounds_on_schedule(&mut s, &mut w, &k[1]);
    L::rounds_on_schedule(&mut s, &mut w, &k[2]);
    if L::STREAMS > 1 {
        // Inlined a second time, these would be too many instructions: see `Lanes::rounds`.
        L::rounds_on_schedule(&mut s, &mut w, &k[3]);
    } else {
        for_each_of_16!(I => if I < 13 {
            let word = next_word::<L, I>(&mut w);
            round::<L, I>(&mut s, k[3][I].add(word));
        });
    }
    // It becomes h after round 63, three places on.
    s[7].add(L::splat(cpu, INITIAL[7]))
}

#[inline(always)]
fn add_state<L: Lanes>(cpu: L::Cpu, mut s: [L; 8], before: &State) -> [L; 8] {
    for (word, before) in s.iter_mut().zip(before) {
        *word = word.add(L::splat(cpu, *before));
    }
    s
}

/// The state after one more block.
fn compress(state: &State, block: &[u32; 16]) -> State {
    let (mut s, mut w) = (*state, *block);
    rounds_on_block(&mut s, &w, &K);
    later_rounds(&mut s, &mut w, &K);
    add_state((), s, state)
}

/// The header's bytes 64 to 75: end of the merkle root, time, bits. The same for all versions.
#[derive(Clone, Debug)]
pub(crate) struct Tail(pub(crate) [u32; 3]);

impl Tail {
    pub(crate) fn new(header: &[u8; 80]) -> Self {
        Self([word(header, 16), word(header, 17), word(header, 18)])
    }

    /// Word 2, the last before the nonce.
    pub(crate) fn last(&self) -> u32 {
        self.0[2]
    }

    /// Words 16 to 19 of the expanded message of the header's second block, for a nonce of 0. The nonce is added to
    /// word 19, and its σ0 to word 18.
    pub(crate) fn expanded(&self) -> [u32; 4] {
        let (s0, s1) = (<u32 as Lanes>::small_sigma0, <u32 as Lanes>::small_sigma1);
        let Self([w0, w1, w2]) = *self;
        let w16 = s0(w1).wrapping_add(w0);
        let w17 = s1(HEADER_BITS).wrapping_add(s0(w2)).wrapping_add(w1);
        [w16, w17, s1(w16).wrapping_add(w2), s1(w17).wrapping_add(s0(END_OF_MESSAGE))]
    }
}

/// The part of a header's first hash that does not depend on the nonce. Each version has its own.
#[derive(Clone, Debug)]
pub(crate) struct Midstate {
    /// The state after the header's first 64 bytes.
    pub(crate) midstate: State,
    /// The state after the second block's rounds 0 to 3 for a nonce of 0, arranged as round 4 expects it (see
    /// [`round`]).
    pub(crate) before_nonce: State,
}

impl Midstate {
    pub(crate) fn new(header: &[u8; 80]) -> Self {
        let midstate = compress(&INITIAL, &std::array::from_fn(|i| word(header, i)));
        let Tail(tail) = Tail::new(header);
        let mut before_nonce = midstate;
        round::<u32, 0>(&mut before_nonce, K[0][0].wrapping_add(tail[0]));
        round::<u32, 1>(&mut before_nonce, K[0][1].wrapping_add(tail[1]));
        round::<u32, 2>(&mut before_nonce, K[0][2].wrapping_add(tail[2]));
        round::<u32, 3>(&mut before_nonce, K[0][3]);
        Self { midstate, before_nonce }
    }

    /// The same state before the nonce in order of its names, which four rounds have shifted by four places.
    pub(crate) fn before_nonce_by_name(&self) -> State {
        let mut state = self.before_nonce;
        state.rotate_left(4);
        state
    }
}

/// Word `i` of the header: SHA-256 reads bytes as big-endian words.
fn word(header: &[u8; 80], i: usize) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|byte| header[4 * i + byte]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compress_gives_the_standards_example() {
        // FIPS 180-4's "abc": one block; its digest was published with the standard.
        let mut block = [0; 16];
        block[0] = 0x6162_6380;
        block[15] = 24;
        let digest = [
            0xba78_16bf,
            0x8f01_cfea,
            0x4141_40de,
            0x5dae_2223,
            0xb003_61a3,
            0x9617_7a9c,
            0xb410_ff61,
            0xf200_15ad,
        ];
        assert_eq!(compress(&INITIAL, &block), digest);
    }
}
