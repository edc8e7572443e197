//! The CPU's time-stamp counter, for measuring the cost of a hash.

/// The time-stamp counter: *reference* cycles, which tick at a constant rate whatever the core's clock does, so that
/// runs at different clocks can be compared. `None` if there is no such counter that a program may read.
#[must_use]
pub fn reference_cycles() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: every x86-64 CPU has `rdtsc`, and systems let programs run it; it touches no memory.
    return Some(unsafe { std::arch::x86_64::_rdtsc() });
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_counter_counts_up_where_there_is_one() {
        let before = super::reference_cycles();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(before.is_none() || super::reference_cycles() > before);
        assert_eq!(before.is_some(), cfg!(target_arch = "x86_64"));
    }
}
