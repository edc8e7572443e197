//! Sixteen nonces at a time, by AVX2: two registers of eight, whose rounds are independent of each other.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_movemask_ps,
    _mm256_or_si256, _mm256_set1_epi32, _mm256_setr_epi8, _mm256_setr_epi32, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_xor_si256,
};

use crate::kernel::{Kernel, hashes};
use crate::lanes::Lanes;
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{sixteen_rounds, sixteen_rounds_on_schedule};
use crate::work::{Found, Work};

#[derive(Debug)]
pub(crate) struct Avx2;

impl Kernel for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn is_supported(&self) -> bool {
        Cpu::detect().is_some()
    }

    fn chunk(&self) -> u64 {
        1 << 12
    }

    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
        let cpu = Cpu::detect().expect("callers ask is_supported first, as the trait says");
        // SAFETY: `cpu` proves that this CPU has AVX2.
        unsafe { scan(cpu, work, range, found) };
        hashes(work, range)
    }
}

#[target_feature(enable = "avx2")]
fn scan(cpu: Cpu, work: &Work, range: NonceRange, found: &mut Vec<Found>) {
    search::scan::<Words>(cpu, work, range, found);
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn rounds(s: &mut [Words; 8], sums: &[Words; 16]) {
    sixteen_rounds(s, sums);
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn rounds_on_schedule(s: &mut [Words; 8], w: &mut [Words; 16], k: &[Words; 16]) {
    sixteen_rounds_on_schedule(s, w, k);
}

/// Proof that this CPU has AVX2.
#[derive(Clone, Copy)]
struct Cpu(());

impl Cpu {
    fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

/// Sixteen 32-bit words in two registers. Their existence proves that this CPU has AVX2.
#[derive(Clone, Copy)]
struct Words(__m256i, __m256i);

impl Words {
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        unsafe { Self(_mm256_xor_si256(self.0, other.0), _mm256_xor_si256(self.1, other.1)) }
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        unsafe { Self(_mm256_and_si256(self.0, other.0), _mm256_and_si256(self.1, other.1)) }
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        unsafe { Self(_mm256_or_si256(self.0, other.0), _mm256_or_si256(self.1, other.1)) }
    }

    #[inline(always)]
    fn shift_right<const BITS: i32>(self) -> Self {
        // SAFETY: `self` proves AVX2.
        unsafe { Self(_mm256_srli_epi32::<BITS>(self.0), _mm256_srli_epi32::<BITS>(self.1)) }
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self) -> Self {
        // SAFETY: `self` proves AVX2.
        unsafe { Self(_mm256_slli_epi32::<BITS>(self.0), _mm256_slli_epi32::<BITS>(self.1)) }
    }

    /// AVX2 has no rotation; both distances are given because one const argument cannot yet be computed from another.
    #[inline(always)]
    fn rotate<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        const { assert!(RIGHT + LEFT == 32) };
        self.shift_right::<RIGHT>().or(self.shift_left::<LEFT>())
    }
}

impl Lanes for Words {
    type Cpu = Cpu;

    const COUNT: u32 = 16;
    const STREAMS: u32 = 2;

    #[inline(always)]
    fn splat(_: Cpu, word: u32) -> Self {
        // SAFETY: the `Cpu` proves AVX2.
        let words = unsafe { _mm256_set1_epi32(word.cast_signed()) };
        Self(words, words)
    }

    #[inline(always)]
    fn count_up(cpu: Cpu, first: u32) -> Self {
        // SAFETY: the `Cpu` proves AVX2.
        let steps = unsafe {
            Self(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))
        };
        Self::splat(cpu, first).add(steps)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        unsafe { Self(_mm256_add_epi32(self.0, other.0), _mm256_add_epi32(self.1, other.1)) }
    }

    #[rustfmt::skip]
    #[inline(always)]
    fn swap_bytes(self) -> Self {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let order = _mm256_setr_epi8(
                3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12,
                3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12,
            );
            Self(_mm256_shuffle_epi8(self.0, order), _mm256_shuffle_epi8(self.1, order))
        }
    }

    #[inline(always)]
    fn big_sigma0(self) -> Self {
        self.rotate::<2, 30>().xor(self.rotate::<13, 19>()).xor(self.rotate::<22, 10>())
    }

    #[inline(always)]
    fn big_sigma1(self) -> Self {
        self.rotate::<6, 26>().xor(self.rotate::<11, 21>()).xor(self.rotate::<25, 7>())
    }

    #[inline(always)]
    fn small_sigma0(self) -> Self {
        self.rotate::<7, 25>().xor(self.rotate::<18, 14>()).xor(self.shift_right::<3>())
    }

    #[inline(always)]
    fn small_sigma1(self) -> Self {
        self.rotate::<17, 15>().xor(self.rotate::<19, 13>()).xor(self.shift_right::<10>())
    }

    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        no.xor(self.and(yes.xor(no)))
    }

    #[inline(always)]
    fn majority(self, b: Self, c: Self) -> Self {
        b.xor(self.xor(b).and(b.xor(c)))
    }

    #[inline(always)]
    fn rounds(s: &mut [Self; 8], sums: &[Self; 16]) {
        // SAFETY: the values prove AVX2.
        unsafe { rounds(s, sums) }
    }

    #[inline(always)]
    fn rounds_on_schedule(s: &mut [Self; 8], w: &mut [Self; 16], k: &[Self; 16]) {
        // SAFETY: the values prove AVX2.
        unsafe { rounds_on_schedule(s, w, k) }
    }

    #[inline(always)]
    fn clear_of(self, mask: Self) -> u32 {
        let Self(low, high) = self.and(mask);
        // SAFETY: `self` proves AVX2.
        let bits = |words| unsafe {
            let clear = _mm256_cmpeq_epi32(words, _mm256_setzero_si256());
            _mm256_movemask_ps(_mm256_castsi256_ps(clear)).cast_unsigned()
        };
        bits(low) | bits(high) << 8
    }
}
