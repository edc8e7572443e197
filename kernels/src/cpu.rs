//! The name of this CPU, the speed of its clock, and the best that it can do.
//!
//! The bounds count the operations that a kernel needs, and how many of them the CPU starts in a cycle. They are known
//! only for the microarchitectures on which they were measured or looked up.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__cpuid, CpuidResult};
#[cfg(target_arch = "x86_64")]
use std::time::{Duration, Instant};

/// The CPU's name for itself, with family and model; `unknown` if it has none.
#[must_use]
pub fn cpu_model() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let words = (0x8000_0002..=0x8000_0004).flat_map(|leaf| {
            let CpuidResult { eax, ebx, ecx, edx } = cpuid(leaf);
            [eax, ebx, ecx, edx]
        });
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
        let (family, model) = family_and_model();
        format!("{} (family {family}, model {model})", String::from_utf8_lossy(&bytes).trim())
    }
    #[cfg(not(target_arch = "x86_64"))]
    "unknown".to_owned()
}

/// The fewest cycles of the core's own clock that the kernel needs per hash on this CPU, for a work of so many
/// versions. `None` if that is not known.
#[must_use]
pub fn cycles_at_best(kernel: &str, versions: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        // Per cycle: 512-bit operations, 256-bit operations, sha256rnds2.
        let (wide, half, rounds) = match family_and_model() {
            // Zen 5: measured. Mobile parts do half of it at 512 bits.
            (0x1a, _) => (4.0, 4.0, 0.5),
            // Zen 4: measured.
            (0x19, 0x10..=0x1f | 0x60..=0x7f | 0xa0..=0xaf) => (2.0, 4.0, 1.0),
            // Intel's servers since Sapphire Rapids: measured on Granite Rapids. Virtual machines give them any model.
            (6, _) if has_amx() => (2.0, 3.0, 1.0 / 3.0),
            _ => return None,
        };
        // See docs/kernels.md for how these are counted: what versions share, and what each has of its own.
        let operations = |shared: f64, own: f64| shared / versions as f64 + own;
        match kernel {
            "avx512" => Some(operations(464.0, 2387.0) / 16.0 / wide),
            "avx2" => Some(operations(840.0, 4919.0) / 8.0 / half),
            "sse2" => Some(operations(840.0, 4919.0) / 4.0 / half),
            "sha-ni" => Some(61.0 / rounds),
            // With several versions, one more item in the time of ITEMS needs no SHA instructions.
            "sha-avx512" if versions >= crate::simd::TOGETHER => {
                let items = crate::simd::ITEMS as f64;
                Some(60.0 * items / (items + 1.0) / rounds)
            }
            "sha-avx512" => Some(60.0 / rounds),
            _ => None,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (kernel, versions);
        None
    }
}

/// Cycles per second of this core's own clock, from the time of dependent additions: one a cycle. The best of several
/// short trials, since interruptions only make a trial slower.
#[must_use]
pub fn core_clock() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        const ADDITIONS: u32 = 8 * 50_000;
        let trials = (0..7).map(|_| {
            let started = Instant::now();
            chain_of_additions(ADDITIONS / 8);
            started.elapsed()
        });
        let best = trials.min().unwrap_or(Duration::ZERO);
        (!best.is_zero()).then(|| f64::from(ADDITIONS) / best.as_secs_f64())
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn chain_of_additions(times: u32) {
    // Of a register, not of a number: Intel's newer cores add several numbers to a register in one cycle.
    let (mut sum, added) = (0_u64, 1_u64);
    for _ in 0..times {
        // SAFETY: additions of two registers, of which one is named as in and out; no memory, no stack.
        unsafe {
            std::arch::asm!(
                "add {0}, {1}", "add {0}, {1}", "add {0}, {1}", "add {0}, {1}",
                "add {0}, {1}", "add {0}, {1}", "add {0}, {1}", "add {0}, {1}",
                inout(reg) sum, in(reg) added, options(nomem, nostack),
            );
        }
    }
    std::hint::black_box(sum);
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, unused_unsafe)]
fn cpuid(leaf: u32) -> CpuidResult {
    // SAFETY: every x86-64 CPU has `cpuid`; a leaf that it lacks reads as something else, which is no harm.
    unsafe { __cpuid(leaf) }
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn is_of_intel() -> bool {
    let CpuidResult { ebx, ecx, edx, .. } = cpuid(0);
    [ebx, edx, ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// Whether the CPU has Intel's instructions for matrices, which came with Sapphire Rapids.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    const TILES: u32 = 1 << 24;
    cpuid(0).eax >= 7 && cpuid(7).edx & TILES != 0
}

#[cfg(target_arch = "x86_64")]
fn family_and_model() -> (u32, u32) {
    let eax = cpuid(1).eax;
    let base = eax >> 8 & 0xf;
    let family = if base == 0xf { base + (eax >> 20 & 0xff) } else { base };
    (family, eax >> 4 & 0xf | (eax >> 16 & 0xf) << 4)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_cpu_has_a_name_of_one_line_that_does_not_change() {
        assert!(!cpu_model().is_empty() && !cpu_model().contains(['\n', '\0']));
        assert_eq!(cpu_model(), cpu_model());
    }

    #[test]
    fn a_clock_is_a_clock() {
        if let Some(clock) = core_clock() {
            assert!((1e8..2e10).contains(&clock), "{clock}");
        }
    }

    #[test]
    fn more_versions_never_cost_more_a_hash() {
        for kernel in crate::all() {
            if let Some(one) = cycles_at_best(kernel.name(), 1) {
                assert!(cycles_at_best(kernel.name(), 8).unwrap() <= one);
            }
        }
        assert_eq!(cycles_at_best("abacus", 1), None);
    }
}
