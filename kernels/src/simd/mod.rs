//! The kernels on x86-64's vector registers.
//!
//! `sse2.rs` and `avx2.rs` hold a register type's [`Lanes`](crate::lanes::Lanes) and the kernel, no SHA-256.
//! `avx512.rs` (by `wide.rs`) and `sha_ni/` call code that the build script wrote: it knows when each instruction should
//! run, and compilers do not.
//!
//! Why the `unsafe` in them is sound: an instruction may only run on a CPU that has it. A `Cpu` or a `Code` is made after
//! a successful detection and by nothing else; a vector is made from a `Cpu` and from nothing but other vectors; every
//! instruction and every call of such code takes one of them.

mod avx2;
mod avx512;
#[allow(dead_code)] // The build script uses the rest.
mod page;
mod sha_ni;
#[allow(dead_code)] // The build script uses the rest.
mod sha_page;
mod sha_state;
mod sse2;
mod wide;

pub(crate) use avx2::Avx2;
pub(crate) use avx512::{AVX512, SHA_AVX512};
pub(crate) use sha_ni::ShaNi;
pub(crate) use sha_page::{ITEMS, TOGETHER};
pub(crate) use sse2::Sse2;
