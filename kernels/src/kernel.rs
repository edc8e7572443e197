//! The [`Kernel`] trait, the list of kernels, and the choice of one.

use std::fmt;

use crate::range::NonceRange;
use crate::scalar::Scalar;
use crate::work::{Found, Work};

/// A way to search nonces. All kernels find the same nonces; they differ in speed and in the CPUs that can run them.
///
/// Kernels hold no state, so one may be used by any number of threads at once. To be able to stop early, scan
/// [chunks](NonceRange::chunks) of a range.
pub trait Kernel: fmt::Debug + Sync {
    /// The name by which users choose it, as in `iop-miner --kernel NAME`.
    fn name(&self) -> &'static str;

    /// Whether this CPU can run it, detected at run time.
    fn is_supported(&self) -> bool;

    /// Hashes that make a call worthwhile: about a quarter of a millisecond on CPUs of 2024. A caller that wants to be
    /// able to stop should scan this many at a time.
    fn chunk(&self) -> u64;

    /// Nonces of the work that make such a chunk, in whole batches of any kernel.
    fn nonces(&self, work: &Work) -> u64 {
        (self.chunk() / work.versions() as u64).next_multiple_of(16)
    }

    /// Appends to `found`, sorted, **every** nonce of the range and version of the work for which the header's hash is
    /// at most the target, and no other. Returns the number of hashes covered: the count of the range times the number
    /// of versions.
    ///
    /// # Panics
    /// The kernel is not [supported](Kernel::is_supported).
    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64;

    /// [`scan_versions`](Kernel::scan_versions) for a work of one version: appends only the nonces, ascending.
    ///
    /// # Panics
    /// The kernel is not [supported](Kernel::is_supported), or the work has several versions.
    fn scan(&self, work: &Work, range: NonceRange, found: &mut Vec<u32>) -> u64 {
        assert_eq!(work.versions(), 1, "nonces alone do not tell versions apart");
        let mut both = Vec::new();
        let hashes = self.scan_versions(work, range, &mut both);
        found.extend(both.iter().map(|found| found.nonce));
        hashes
    }
}

/// Hashes in a range of nonces, over all versions of the work.
pub(crate) fn hashes(work: &Work, range: NonceRange) -> u64 {
    range.count() * work.versions() as u64
}

/// Every kernel compiled for this architecture, roughly fastest first: no order holds for all CPUs. The last is
/// `scalar`, which runs everywhere.
static KERNELS: &[&dyn Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    &crate::simd::AVX512,
    #[cfg(target_arch = "x86_64")]
    &crate::simd::SHA_AVX512,
    #[cfg(target_arch = "x86_64")]
    &crate::simd::ShaNi,
    #[cfg(target_arch = "x86_64")]
    &crate::simd::Avx2,
    #[cfg(target_arch = "x86_64")]
    &crate::simd::Sse2,
    &Scalar,
];

/// Every kernel compiled for this architecture, supported by this CPU or not, roughly fastest first.
#[must_use]
pub fn all() -> &'static [&'static dyn Kernel] {
    KERNELS
}

/// The kernels that this CPU can run, roughly fastest first; never empty.
pub fn supported() -> impl Iterator<Item = &'static dyn Kernel> {
    KERNELS.iter().copied().filter(|kernel| kernel.is_supported())
}

/// The first kernel that this CPU can run: usually the fastest, and always a fast one. For long runs, measure them.
#[must_use]
pub fn auto() -> &'static dyn Kernel {
    supported().next().expect("the scalar kernel runs everywhere")
}

/// The kernel of that name, or [`auto`]'s for the name `auto`.
///
/// # Errors
/// There is no such kernel, or this CPU cannot run it.
pub fn by_name(name: &str) -> Result<&'static dyn Kernel, SelectError> {
    if name == "auto" {
        return Ok(auto());
    }
    let kernel = KERNELS.iter().copied().find(|kernel| kernel.name() == name);
    let kernel = kernel.ok_or_else(|| SelectError::Unknown(name.to_owned()))?;
    if kernel.is_supported() { Ok(kernel) } else { Err(SelectError::Unsupported(kernel.name())) }
}

/// Why there is no kernel for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectError {
    /// There is no kernel of this name on this architecture.
    Unknown(String),
    /// The kernel exists, but this CPU lacks the instructions for it, or is of no use with them.
    Unsupported(&'static str),
}

impl fmt::Display for SelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unknown kernel {name:?}")?,
            Self::Unsupported(name) => write!(f, "kernel {name:?} is not for this CPU")?,
        }
        f.write_str(": expected one of auto")?;
        supported().try_for_each(|kernel| write!(f, ", {}", kernel.name()))
    }
}

impl std::error::Error for SelectError {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_kernel_is_found_by_its_name_if_this_cpu_can_run_it() {
        for kernel in all() {
            match by_name(kernel.name()) {
                Ok(chosen) => assert!(chosen.is_supported() && chosen.name() == kernel.name()),
                Err(error) => assert_eq!(error, SelectError::Unsupported(kernel.name())),
            }
        }
        assert_eq!(by_name("auto").unwrap().name(), auto().name());
        assert_eq!(by_name("scalar").unwrap().name(), "scalar");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_names_to_choose_from() {
        let line = by_name("avx1024").unwrap_err().to_string();
        assert!(line.starts_with("unknown kernel \"avx1024\": expected one of auto, "), "{line}");
        assert!(line.ends_with(", scalar"), "{line}");
    }
}
