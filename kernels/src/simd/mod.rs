//! The kernels on x86-64's vector registers: 8 nonces at a time by AVX2, 16 by AVX-512.
//!
//! Each file holds its register type's [`Lanes`](crate::lanes::Lanes) and the kernel, no SHA-256.
//!
//! Why the `unsafe` in them is sound, all of it for one reason: an instruction may only run on a CPU that has
//! it. A `Cpu` is made by a successful detection and by nothing else; a vector is made from a `Cpu` and from
//! nothing but other vectors; every instruction takes the one or the other.

mod avx2;
mod avx512;
mod sha_ni;
mod sse2;

pub(crate) use avx2::Avx2;
pub(crate) use avx512::Avx512;
pub(crate) use sha_ni::ShaNi;
pub(crate) use sse2::Sse2;
