//! The kernels for AVX-512: which CPU can run which, and the code generated for each by the build script.
//!
//! What lives here: `avx512`, which uses only AVX-512's foundation (F), with rotation and any function of three bits in
//! one instruction; and `sha-avx512`, whose rounds mostly use the SHA instructions. What does not: the code
//! (`build/scan.rs`, `build/sha_avx512/`), and how it is called (`wide.rs`).

#![allow(unsafe_code)]

use std::arch::naked_asm;

use super::page::LAG;
use super::sha_page::{self, ITEMS, VECTOR_LAG};
use super::wide::{self, Code, Loop, Memory, Run};
use crate::cpu;
use crate::kernel::Kernel;
use crate::range::NonceRange;
use crate::work::{Found, Work};

/// A kernel with generated code.
#[derive(Debug)]
pub(crate) struct Avx512 {
    name: &'static str,
    /// The code, if this CPU can run it.
    pub(super) code: fn() -> Option<Code>,
    /// Whether it has instructions in both the legacy encoding and AVX's, and AVX-512 in registers that the former use.
    /// Intel's CPUs take hundreds of cycles from one to the other then, AMD's none.
    mixes_encodings: bool,
}

pub(crate) static AVX512: Avx512 = Avx512 {
    name: "avx512",
    code: || {
        let detected = is_x86_feature_detected!("avx512f");
        let [one, several] = [avx512_one, avx512_several].map(|run: Run| Loop::of_one_kind(run, LAG));
        // SAFETY: both loops have instructions of AVX-512F only, and are written for the page.
        detected.then(|| unsafe { Code::new(one, several, Memory::Page, 2) })
    },
    mixes_encodings: false,
};

pub(crate) static SHA_AVX512: Avx512 = Avx512 {
    name: "sha-avx512",
    code: || {
        let detected = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("sha");
        let one = Loop::of_one_kind(sha_one, sha_page::LAG_OF_ONE);
        let (lag, vector_lag) = (sha_page::LAG, VECTOR_LAG);
        let several = Loop { run: sha_several, items: ITEMS, lag, vector_items: 1, vector_lag };
        // SAFETY: both loops have instructions of these three and of AVX only, which AVX-512 includes, and are written
        // for the SHA instructions' memory. The build generates the second for this number of items per vector item.
        detected.then(|| unsafe { Code::new(one, several, Memory::Sha, sha_page::TOGETHER) })
    },
    mixes_encodings: true,
};

impl Kernel for Avx512 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_supported(&self) -> bool {
        (self.code)().is_some() && !(self.mixes_encodings && cpu::is_of_intel())
    }

    fn chunk(&self) -> u64 {
        1 << 14
    }

    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
        let code = (self.code)().expect("callers ask is_supported first, as the trait says");
        wide::scan(&code, work, range, found)
    }
}

/// The generated code as a [`wide::Loop`].
macro_rules! code {
    ($name:ident, $file:literal) => {
        /// # Safety
        /// See the one call of a loop.
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name(
            _memory: *mut u32,
            _constants: *const u32,
            _versions: *const u32,
            _repetitions: u64,
            _masks: *mut u16,
            _count: u64,
        ) {
            naked_asm!(include_str!(concat!(env!("OUT_DIR"), $file)), options(raw))
        }
    };
}

code!(avx512_one, "/avx512_one.s");
code!(avx512_several, "/avx512_versions.s");
code!(sha_one, "/sha_avx512_one.s");
code!(sha_several, "/sha_avx512_versions.s");
