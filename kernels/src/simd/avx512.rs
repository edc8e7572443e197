//! Sixteen nonces at a time, by AVX-512's foundation (F): it rotates in one instruction, and computes any
//! function of three bits in one.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_rol_epi32, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_setr_epi32,
    _mm512_srli_epi32, _mm512_ternarylogic_epi32, _mm512_testn_epi32_mask,
};

use crate::kernel::{Kernel, hashes};
use crate::lanes::Lanes;
use crate::range::NonceRange;
use crate::search;
use crate::work::{Found, Work};

#[derive(Debug)]
pub(crate) struct Avx512;

impl Kernel for Avx512 {
    fn name(&self) -> &'static str {
        "avx512"
    }

    fn is_supported(&self) -> bool {
        Cpu::detect().is_some()
    }

    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
        let cpu = Cpu::detect().expect("callers ask is_supported first, as the trait says");
        // SAFETY: `cpu` proves that this CPU has AVX-512F.
        unsafe { scan(cpu, work, range, found) };
        hashes(work, range)
    }
}

#[target_feature(enable = "avx512f")]
fn scan(cpu: Cpu, work: &Work, range: NonceRange, found: &mut Vec<Found>) {
    search::scan::<Words>(cpu, work, range, found);
}

/// Proof that this CPU has AVX-512F.
#[derive(Clone, Copy)]
struct Cpu(());

impl Cpu {
    fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

/// Sixteen 32-bit words. That one exists proves that this CPU has AVX-512F.
#[derive(Clone, Copy)]
struct Words(__m512i);

/// Truth tables for `vpternlog`: bit `4a + 2b + c` is the answer for the bits a, b, c.
mod table {
    /// a ^ b ^ c
    pub(super) const XOR: i32 = 0x96;
    /// b where a, else c
    pub(super) const CHOOSE: i32 = 0xca;
    /// what at least two of the three say
    pub(super) const MAJORITY: i32 = 0xe8;
}

impl Words {
    #[inline(always)]
    fn logic<const TABLE: i32>(self, b: Self, c: Self) -> Self {
        // SAFETY: `self` proves AVX-512F.
        Self(unsafe { _mm512_ternarylogic_epi32::<TABLE>(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn rotate_right<const BITS: i32>(self) -> Self {
        // SAFETY: `self` proves AVX-512F.
        Self(unsafe { _mm512_ror_epi32::<BITS>(self.0) })
    }

    #[inline(always)]
    fn shift_right<const BITS: u32>(self) -> Self {
        // SAFETY: `self` proves AVX-512F.
        Self(unsafe { _mm512_srli_epi32::<BITS>(self.0) })
    }

    #[inline(always)]
    fn xor(self, b: Self, c: Self) -> Self {
        self.logic::<{ table::XOR }>(b, c)
    }
}

impl Lanes for Words {
    type Cpu = Cpu;

    const COUNT: u32 = 16;

    #[inline(always)]
    fn splat(_: Cpu, word: u32) -> Self {
        // SAFETY: the `Cpu` proves AVX-512F.
        Self(unsafe { _mm512_set1_epi32(word.cast_signed()) })
    }

    #[inline(always)]
    fn count_up(cpu: Cpu, first: u32) -> Self {
        // SAFETY: the `Cpu` proves AVX-512F.
        let steps = Self(unsafe { _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) });
        Self::splat(cpu, first).add(steps)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX-512F.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    /// The byte shuffle is not in the foundation. Rotated left by 8, bytes 0 and 2 are in place; by 24, 1 and
    /// 3.
    #[inline(always)]
    fn swap_bytes(self) -> Self {
        // SAFETY: `self` proves AVX-512F.
        let (by_8, by_24, even) = unsafe {
            (_mm512_rol_epi32::<8>(self.0), _mm512_rol_epi32::<24>(self.0), _mm512_set1_epi32(0x00ff_00ff))
        };
        Self(even).choose(Self(by_8), Self(by_24))
    }

    #[inline(always)]
    fn big_sigma0(self) -> Self {
        self.rotate_right::<2>().xor(self.rotate_right::<13>(), self.rotate_right::<22>())
    }

    #[inline(always)]
    fn big_sigma1(self) -> Self {
        self.rotate_right::<6>().xor(self.rotate_right::<11>(), self.rotate_right::<25>())
    }

    #[inline(always)]
    fn small_sigma0(self) -> Self {
        self.rotate_right::<7>().xor(self.rotate_right::<18>(), self.shift_right::<3>())
    }

    #[inline(always)]
    fn small_sigma1(self) -> Self {
        self.rotate_right::<17>().xor(self.rotate_right::<19>(), self.shift_right::<10>())
    }

    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        self.logic::<{ table::CHOOSE }>(yes, no)
    }

    #[inline(always)]
    fn majority(self, b: Self, c: Self) -> Self {
        self.logic::<{ table::MAJORITY }>(b, c)
    }

    #[inline(always)]
    fn clear_of(self, mask: Self) -> u32 {
        // SAFETY: `self` proves AVX-512F.
        u32::from(unsafe { _mm512_testn_epi32_mask(self.0, mask.0) })
    }
}
