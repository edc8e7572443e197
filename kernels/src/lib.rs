//! SHA256d nonce search: given a header and a target, which nonces make the header's hash meet the target?
//!
//! What lives here: [`Work`] (a header, in one or several versions, prepared for scanning), the [`Kernel`]s that scan it, their choice at
//! run time, and [`verify()`], an independent hash. What does not: threads, devices, jobs, pools, any I/O.
//! The way of the data: header + [`Target`] → [`Work`] (midstate, target's top word) → [`Kernel::scan`] over
//! a [`NonceRange`] → nonces found → the caller checks each with [`verify()`] before it believes it.
//!
//! SHA-256's rounds are written once (`sha256.rs`) over the `Lanes` trait (`lanes.rs`): one `u32` makes the
//! scalar kernel, a vector register makes a SIMD kernel. The code for AVX-512 and for the CPU's SHA instructions is
//! made by the build script (`build/`), which places each instruction.
//! `unsafe` is found in `simd/`, `opencl/`, `cpu.rs` and `cycles.rs` alone.

mod cpu;
mod cycles;
mod kernel;
mod lanes;
#[cfg(feature = "opencl")]
pub mod opencl;
mod range;
mod scalar;
mod search;
mod sha256;
#[cfg(target_arch = "x86_64")]
mod simd;
mod verify;
mod work;

pub use cpu::{core_clock, cpu_model, cycles_at_best};
pub use cycles::reference_cycles;
pub use kernel::{Kernel, SelectError, all, auto, by_name, supported};
pub use range::{Chunks, NonceRange, NonceRangeError};
pub use verify::verify;
pub use work::{Found, HEADER_LEN, Target, Work};
