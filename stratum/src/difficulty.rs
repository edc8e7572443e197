//! Pool difficulty and the 256-bit target that it stands for.

use std::fmt;

/// Average number of hashes for a share of difficulty 1, as every pool and explorer counts: 2³². (The exact number is
/// larger by one part in 65,535, as the highest bits of the difficulty-1 target are 0xffff, not 0x10000.)
pub const HASHES_AT_1: f64 = 4_294_967_296.0;

/// A share difficulty: how many times harder than difficulty 1. Finite and above zero.
///
/// Difficulty 1 is the target `0x00000000ffff0000…00` (Bitcoin's first nBits, `1d00ffff`), which one in about 2³²
/// hashes meets. Private chains use values far below 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Difficulty(f64);

impl Difficulty {
    /// Difficulty 1.
    pub const ONE: Self = Self(1.0);

    /// Returns `None` for zero, negative, infinite and NaN values.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        (value.is_finite() && value > 0.0).then_some(Self(value))
    }

    /// The number as sent over the wire.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// The larger of two.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }

    /// The nearest value within `min..=max`.
    #[must_use]
    pub fn clamp(self, min: Self, max: Self) -> Self {
        Self(self.0.clamp(min.0, max.0))
    }
}

impl fmt::Display for Difficulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A 256-bit upper bound on a header's hash, with the hash read as a little-endian number.
///
/// Ordered as a number: a smaller target is harder to meet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// 64-bit limbs, the least significant first.
    limbs: [u64; 4],
}

/// Limbs of the widest numerator in [`Target::from_difficulty`].
const WIDE: usize = 6;

impl Target {
    /// The easiest target, which every hash meets.
    pub const MAX: Self = Self { limbs: [u64::MAX; 4] };
    /// The target of difficulty 1.
    pub const DIFFICULTY_1: Self = Self { limbs: [0, 0, 0, 0x0000_0000_ffff_0000] };

    /// From 32 bytes, least significant first: the byte order of a hash as SHA-256 gives it.
    #[must_use]
    pub fn from_le_bytes(bytes: [u8; 32]) -> Self {
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
        }
        Self { limbs }
    }

    /// The target as 32 bytes, least significant first.
    #[must_use]
    pub fn to_le_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.limbs) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// From 32 bytes, most significant first: the order in which targets are printed.
    #[must_use]
    pub fn from_be_bytes(mut bytes: [u8; 32]) -> Self {
        bytes.reverse();
        Self::from_le_bytes(bytes)
    }

    /// The target as 32 bytes, most significant first.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 32] {
        let mut bytes = self.to_le_bytes();
        bytes.reverse();
        bytes
    }

    /// From a header's nBits; `None` if consensus rejects them (negative, zero or more than 256 bits).
    #[must_use]
    pub fn from_compact(bits: u32) -> Option<Self> {
        let (size, mantissa) = ((bits >> 24) as usize, bits & 0x007f_ffff);
        if mantissa == 0 || bits & 0x0080_0000 != 0 {
            return None;
        }
        let mut bytes = [0; 32];
        // The mantissa's least significant byte belongs at place `size - 3`.
        for (index, byte) in mantissa.to_le_bytes().into_iter().take(3).enumerate() {
            match (size + index).checked_sub(3) {
                Some(place) if place < 32 => bytes[place] = byte,
                Some(_) if byte != 0 => return None,
                _ => {}
            }
        }
        let target = Self::from_le_bytes(bytes);
        (target.limbs != [0; 4]).then_some(target)
    }

    /// `floor(difficulty-1 target / difficulty)`, exactly; [`Target::MAX`] if that needs more than 256 bits.
    ///
    /// Monotone: a larger difficulty never gives a larger target.
    #[must_use]
    pub fn from_difficulty(difficulty: Difficulty) -> Self {
        // difficulty = mantissa * 2^exponent with a 53-bit mantissa (exact for every f64).
        let bits = difficulty.0.to_bits();
        let (raw_exponent, fraction) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
        let (mantissa, exponent) =
            if raw_exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, raw_exponent - 1075) };
        // floor(0xffff * 2^(208 - exponent) / mantissa); the shift is negative for difficulties above 2^260.
        let shift = 208 - exponent;
        if shift > 64 * WIDE as i32 - 16 {
            return Self::MAX; // the quotient has at least 384 - 16 - 53 bits
        }
        if shift < 0 {
            return Self { limbs: [0; 4] }; // 0xffff is far below the mantissa
        }
        let mut wide = [0u64; WIDE];
        let (limb, offset) = (shift as usize / 64, shift as usize % 64);
        let placed = 0xffffu128 << offset;
        wide[limb] = placed as u64;
        if let Some(next) = wide.get_mut(limb + 1) {
            *next = (placed >> 64) as u64;
        }
        let mut remainder = 0u128;
        for limb in wide.iter_mut().rev() {
            let value = remainder << 64 | u128::from(*limb);
            *limb = (value / u128::from(mantissa)) as u64;
            remainder = value % u128::from(mantissa);
        }
        if wide[4..] != [0; WIDE - 4] {
            return Self::MAX;
        }
        Self { limbs: [wide[0], wide[1], wide[2], wide[3]] }
    }

    /// The difficulty of this target, to the precision of an f64 (a few parts in 2⁵²). The zero target, which no hash
    /// meets, gives the largest finite number.
    #[must_use]
    pub fn difficulty(self) -> Difficulty {
        let number = |target: Self| {
            target
                .limbs
                .iter()
                .rev()
                .fold(0.0f64, |sum, &limb| sum * 18_446_744_073_709_551_616.0 + limb as f64)
        };
        let ratio = number(Self::DIFFICULTY_1) / number(self);
        Difficulty(if ratio.is_finite() { ratio } else { f64::MAX })
    }

    /// Whether a hash, in the byte order that SHA-256 gives, is at or below this target.
    #[must_use]
    pub fn is_met_by(self, hash: &[u8; 32]) -> bool {
        Self::from_le_bytes(*hash) <= self
    }
}

impl Ord for Target {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.limbs.iter().rev().cmp(other.limbs.iter().rev())
    }
}

impl PartialOrd for Target {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_be_bytes()))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn target(difficulty: f64) -> Target {
        Target::from_difficulty(Difficulty::new(difficulty).unwrap())
    }

    #[test]
    fn known_difficulties_have_their_targets() {
        assert_eq!(target(1.0), Target::DIFFICULTY_1);
        assert_eq!(target(1.0), Target::from_compact(0x1d00_ffff).unwrap());
        assert_eq!(target(2.0).to_string(), format!("000000007fff8{:0<51}", ""));
        // floor(0xffff * 2^208 / 1000), from Python's integers.
        assert_eq!(
            target(1000.0).to_string(),
            "00000000004188f5c28f5c28f5c28f5c28f5c28f5c28f5c28f5c28f5c28f5c28"
        );
        assert_eq!(target(0.5).to_string(), format!("00000001fffe{:0<52}", ""));
        assert_eq!(target(1.0 / 4_294_967_296.0).to_string(), format!("ffff{:0<60}", ""));
    }

    #[test]
    fn out_of_range_difficulties_saturate() {
        assert_eq!(target(f64::MIN_POSITIVE), Target::MAX);
        assert_eq!(target(5e-324), Target::MAX);
        assert_eq!(target(1e-10), Target::MAX);
        assert_eq!(target(f64::MAX), Target::from_le_bytes([0; 32]));
        assert_eq!(Target::from_le_bytes([0; 32]).difficulty().get(), f64::MAX);
        for wrong in [0.0, -0.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            assert!(Difficulty::new(wrong).is_none());
        }
    }

    #[test]
    fn compact_targets_follow_consensus() {
        assert_eq!(Target::from_compact(0x207f_ffff).unwrap().to_string(), format!("7fffff{:0<58}", ""));
        assert_eq!(Target::from_compact(0x0312_3456).unwrap().to_string(), format!("{:0>64}", "123456"));
        assert_eq!(Target::from_compact(0x0212_3456).unwrap().to_string(), format!("{:0>64}", "1234"));
        for wrong in [0, 0x1d80_0001, 0x0100_0000, 0x0000_ffff, 0x2300_ffff, 0xff12_3456] {
            assert!(Target::from_compact(wrong).is_none(), "{wrong:08x}");
        }
    }

    #[test]
    fn a_hash_equal_to_the_target_meets_it() {
        let bound = target(1.0);
        let mut hash = bound.to_le_bytes();
        assert!(bound.is_met_by(&hash));
        hash[0] = 1;
        assert!(!bound.is_met_by(&hash));
    }

    proptest! {
        #[test]
        fn harder_never_means_a_larger_target(bits in 0x3c00_0000_0000_0000u64..0x5000_0000_0000_0000, step in 1u64..1000) {
            let (low, high) = (f64::from_bits(bits), f64::from_bits(bits + step));
            prop_assert!(target(high) <= target(low));
        }

        #[test]
        fn target_and_difficulty_agree(difficulty in 1e-9f64..1e15) {
            let back = target(difficulty).difficulty().get();
            prop_assert!((back / difficulty - 1.0).abs() < 1e-12, "{difficulty} became {back}");
        }

        #[test]
        fn byte_orders_are_inverse(bytes: [u8; 32]) {
            let target = Target::from_le_bytes(bytes);
            prop_assert_eq!(target.to_le_bytes(), bytes);
            prop_assert_eq!(Target::from_be_bytes(target.to_be_bytes()), target);
        }
    }
}
