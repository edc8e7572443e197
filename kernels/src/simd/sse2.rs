//! Four nonces at a time, by SSE2, which every x86-64 CPU has.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_and_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_movemask_ps, _mm_or_si128,
    _mm_set1_epi32, _mm_setr_epi32, _mm_setzero_si128, _mm_slli_epi32, _mm_srli_epi32, _mm_xor_si128,
};

use crate::kernel::{Kernel, hashes};
use crate::lanes::Lanes;
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{sixteen_rounds, sixteen_rounds_on_schedule};
use crate::work::{Found, Work};

#[derive(Debug)]
pub(crate) struct Sse2;

impl Kernel for Sse2 {
    fn name(&self) -> &'static str {
        "sse2"
    }

    fn is_supported(&self) -> bool {
        true
    }

    fn chunk(&self) -> u64 {
        1 << 11
    }

    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
        search::scan::<Words>((), work, range, found);
        hashes(work, range)
    }
}

/// Four 32-bit words. SSE2 is part of x86-64, so no proof is needed.
#[derive(Clone, Copy)]
struct Words(__m128i);

impl Words {
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        Self(unsafe { _mm_xor_si128(self.0, other.0) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        Self(unsafe { _mm_and_si128(self.0, other.0) })
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        Self(unsafe { _mm_or_si128(self.0, other.0) })
    }

    #[inline(always)]
    fn shift_right<const BITS: i32>(self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        Self(unsafe { _mm_srli_epi32::<BITS>(self.0) })
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        Self(unsafe { _mm_slli_epi32::<BITS>(self.0) })
    }

    /// SSE2 has no rotation; both distances are given because one const argument cannot yet be computed from another.
    #[inline(always)]
    fn rotate<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        const { assert!(RIGHT + LEFT == 32) };
        self.shift_right::<RIGHT>().or(self.shift_left::<LEFT>())
    }
}

impl Lanes for Words {
    type Cpu = ();

    const COUNT: u32 = 4;

    #[inline(always)]
    fn splat((): (), word: u32) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        Self(unsafe { _mm_set1_epi32(word.cast_signed()) })
    }

    #[inline(always)]
    fn count_up((): (), first: u32) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        let steps = Self(unsafe { _mm_setr_epi32(0, 1, 2, 3) });
        Self::splat((), first).add(steps)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        Self(unsafe { _mm_add_epi32(self.0, other.0) })
    }

    /// SSE2 has no byte shuffle. Rotated left by 8, bytes 0 and 2 are in place; by 24, bytes 1 and 3.
    #[inline(always)]
    fn swap_bytes(self) -> Self {
        Self::splat((), 0x00ff_00ff).choose(self.rotate::<24, 8>(), self.rotate::<8, 24>())
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
        // SAFETY: every x86-64 CPU has SSE2.
        let bits = unsafe {
            let clear = _mm_cmpeq_epi32(_mm_and_si128(self.0, mask.0), _mm_setzero_si128());
            _mm_movemask_ps(_mm_castsi128_ps(clear))
        };
        bits.cast_unsigned()
    }
}
