//! The operations that SHA-256 needs on a machine word, so that its rounds are written once for one nonce or for many
//! side by side.

use crate::sha256::{sixteen_rounds, sixteen_rounds_on_schedule};

/// `COUNT` 32-bit words processed by one instruction. Additions wrap.
pub(crate) trait Lanes: Copy {
    /// Proof that this CPU has the instructions. It is created only by a successful detection, and values of `Self` are
    /// created only from it, so the methods on values need no check of their own.
    type Cpu: Copy;

    /// Number of words side by side; at most 32, for [`Lanes::clear_of`].
    const COUNT: u32;

    /// Number of registers side by side, whose rounds are independent of each other.
    const STREAMS: u32 = 1;

    /// The same word in every lane.
    fn splat(cpu: Self::Cpu, word: u32) -> Self;
    /// `first`, `first + 1`, … from the lowest lane up.
    fn count_up(cpu: Self::Cpu, first: u32) -> Self;

    fn add(self, other: Self) -> Self;
    fn swap_bytes(self) -> Self;

    /// Σ0 of FIPS 180-4, 4.1.2: rotations right by 2, 13, 22.
    fn big_sigma0(self) -> Self;
    /// Σ1: rotations right by 6, 11, 25.
    fn big_sigma1(self) -> Self;
    /// σ0: rotations right by 7, 18, shift right by 3.
    fn small_sigma0(self) -> Self;
    /// σ1: rotations right by 17, 19, shift right by 10.
    fn small_sigma1(self) -> Self;
    /// Ch: the bits of `yes` where `self` has ones, those of `no` elsewhere.
    fn choose(self, yes: Self, no: Self) -> Self;
    /// Maj: the bit that at least two of the three have.
    fn majority(self, b: Self, c: Self) -> Self;

    /// Sixteen rounds on sums of round constant and message word.
    ///
    /// This and the next are separate functions: if all rounds of both hashes were inlined, they would exceed the
    /// CPU's cache of decoded instructions, and decoding is slower than hashing (by a third, for `sse2` on Zen 5).
    fn rounds(s: &mut [Self; 8], sums: &[Self; 16]);
    /// Sixteen rounds that each compute their message word from the previous sixteen.
    fn rounds_on_schedule(s: &mut [Self; 8], w: &mut [Self; 16], k: &[Self; 16]);

    /// Bit i of the result: lane i has no bit in common with `mask`.
    fn clear_of(self, mask: Self) -> u32;
}

/// One lane: what every CPU has.
impl Lanes for u32 {
    type Cpu = ();

    const COUNT: u32 = 1;

    #[inline(always)]
    fn splat((): (), word: u32) -> Self {
        word
    }

    #[inline(always)]
    fn count_up((): (), first: u32) -> Self {
        first
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn swap_bytes(self) -> Self {
        u32::swap_bytes(self)
    }

    #[inline(always)]
    fn big_sigma0(self) -> Self {
        self.rotate_right(2) ^ self.rotate_right(13) ^ self.rotate_right(22)
    }

    #[inline(always)]
    fn big_sigma1(self) -> Self {
        self.rotate_right(6) ^ self.rotate_right(11) ^ self.rotate_right(25)
    }

    #[inline(always)]
    fn small_sigma0(self) -> Self {
        self.rotate_right(7) ^ self.rotate_right(18) ^ (self >> 3)
    }

    #[inline(always)]
    fn small_sigma1(self) -> Self {
        self.rotate_right(17) ^ self.rotate_right(19) ^ (self >> 10)
    }

    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        no ^ (self & (yes ^ no))
    }

    #[inline(always)]
    fn majority(self, b: Self, c: Self) -> Self {
        (self & b) | (c & (self | b))
    }

    #[inline(never)]
    fn rounds(s: &mut [Self; 8], sums: &[Self; 16]) {
        sixteen_rounds(s, sums);
    }

    #[inline(never)]
    fn rounds_on_schedule(s: &mut [Self; 8], w: &mut [Self; 16], k: &[Self; 16]) {
        sixteen_rounds_on_schedule(s, w, k);
    }

    #[inline(always)]
    fn clear_of(self, mask: Self) -> u32 {
        u32::from(self & mask == 0)
    }
}
