//! The fields of Stratum messages, each with its own type: hex in either case, of exact or bounded width.

use std::fmt;
use std::sync::Arc;

use crate::message::printable;

/// Width of the [`Extranonce1`] that our server assigns, in bytes: enough for 2³² connections.
pub const SERVER_EXTRANONCE1_SIZE: usize = 4;
/// Width of the [`Extranonce2`] that our server asks for, in bytes. 2⁶⁴ coinbases per job are enough for any machine,
/// even when a proxy divides them among the machines behind it.
pub const SERVER_EXTRANONCE2_SIZE: usize = 8;
/// Widest extranonce1 that our client accepts from a pool, in bytes. Deployed pools and proxies use 3 to 12.
pub const MAX_EXTRANONCE1_SIZE: usize = 32;
/// Widest extranonce2 that our client accepts from a pool, in bytes; 8 fill a `u64` counter.
pub const MAX_EXTRANONCE2_SIZE: usize = 8;
/// Longest job id, in bytes. Deployed pools use up to 64.
pub const MAX_JOB_ID: usize = 128;

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The field is missing.
    #[error("{field} is missing")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// The JSON value has another type.
    #[error("{field} must be {expected}")]
    Kind {
        /// The field's name.
        field: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// A character is not a hex digit.
    #[error("{field} is not hex")]
    NotHex {
        /// The field's name.
        field: &'static str,
    },
    /// The field is too short or too long.
    #[error("{field} has {found} {unit}, expected {expected}")]
    Length {
        /// The field's name.
        field: &'static str,
        /// The length found.
        found: usize,
        /// The unit of the lengths.
        unit: &'static str,
        /// The lengths allowed.
        expected: Span,
    },
}

/// An inclusive range of lengths; prints as one number if both ends are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The least length.
    pub min: usize,
    /// The greatest length.
    pub max: usize,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

/// Parses hex text of `min..=max` bytes, in either case, two digits per byte.
pub(crate) fn parse_bytes(
    field: &'static str,
    text: &str,
    min: usize,
    max: usize,
) -> Result<Vec<u8>, FieldError> {
    hex_len(field, text, min, max)?;
    hex::decode(text).map_err(|_| FieldError::NotHex { field })
}

/// The number of bytes that the hex digits encode, if within `min..=max`.
fn hex_len(field: &'static str, text: &str, min: usize, max: usize) -> Result<usize, FieldError> {
    let expected = Span { min: min * 2, max: max * 2 };
    if !text.len().is_multiple_of(2) || text.len() < expected.min || text.len() > expected.max {
        return Err(FieldError::Length { field, found: text.len(), unit: "hex digits", expected });
    }
    Ok(text.len() / 2)
}

/// Parses hex text of exactly 32 bytes.
pub(crate) fn parse_32(field: &'static str, text: &str) -> Result<[u8; 32], FieldError> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        let expected = Span { min: 64, max: 64 };
        return Err(FieldError::Length { field, found: text.len(), unit: "hex digits", expected });
    }
    hex::decode_to_slice(text, &mut bytes).map_err(|_| FieldError::NotHex { field })?;
    Ok(bytes)
}

fn parse_u32(field: &'static str, text: &str, min_digits: usize) -> Result<u32, FieldError> {
    if text.len() < min_digits || text.len() > 8 {
        let expected = Span { min: min_digits, max: 8 };
        return Err(FieldError::Length { field, found: text.len(), unit: "hex digits", expected });
    }
    text.bytes().try_fold(0u32, |number, byte| {
        let digit = (byte as char).to_digit(16).ok_or(FieldError::NotHex { field })?;
        Ok(number << 4 | digit)
    })
}

/// Defines a 32-bit number that is sent as eight hex digits, most significant first.
macro_rules! hex_u32 {
    ($(#[$doc:meta])* $name:ident, $field:literal, min_digits: $min:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// Parses hex text in either case.
            ///
            /// # Errors
            /// Wrong width, or a character that is not a hex digit.
            pub fn parse(text: &str) -> Result<Self, FieldError> {
                parse_u32($field, text, $min).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}", self.0)
            }
        }
    };
}

hex_u32!(
    /// A header's time, in seconds since 1970. Exactly eight digits.
    NTime, "ntime", min_digits: 8
);
hex_u32!(
    /// A header's nonce. Fewer digits are accepted too: some firmware prints it as a number.
    Nonce, "nonce", min_digits: 1
);
hex_u32!(
    /// A header's version.
    Version, "version", min_digits: 8
);
hex_u32!(
    /// A header's target in compact form.
    NBits, "nbits", min_digits: 8
);
hex_u32!(
    /// The version bits of a share (BIP310), before they are merged into a version.
    VersionBits, "version bits", min_digits: 1
);
hex_u32!(
    /// The version bits that a client may roll (BIP310). Fewer than eight digits are accepted too.
    VersionMask, "version mask", min_digits: 1
);

impl VersionMask {
    /// No bit may be rolled.
    pub const NONE: Self = Self(0);
    /// Every bit: what a client requests that names no mask (BIP310).
    pub const ALL: Self = Self(0xffff_ffff);
    /// The bits that our server allows: 13 to 28, which BIP320 reserves for rolling. The three bits above them make the
    /// version at least 0x20000000; the thirteen below signal deployments (csv 0, segwit 1).
    pub const SERVER: Self = Self(0x1fff_e000);

    /// The bits that both masks allow.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `bits` are within this mask.
    #[must_use]
    pub fn allows(self, bits: VersionBits) -> bool {
        bits.0 & !self.0 == 0
    }
}

impl Version {
    /// This version with the masked bits replaced by `bits` (BIP310).
    #[must_use]
    pub fn rolled(self, mask: VersionMask, bits: VersionBits) -> Self {
        Self(self.0 & !mask.0 | bits.0 & mask.0)
    }
}

/// A short byte string of bounded length, stored inline.
#[derive(Clone, Copy)]
struct Short<const MAX: usize> {
    len: u8,
    bytes: [u8; MAX],
}

impl<const MAX: usize> Short<MAX> {
    fn new(bytes: &[u8]) -> Option<Self> {
        let mut short = Self { len: u8::try_from(bytes.len()).ok()?, bytes: [0; MAX] };
        short.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(short)
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Defines a short byte string that is sent as hex.
macro_rules! short_bytes {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(Short<$max>);

        impl $name {
            /// From its bytes, as in the coinbase; `None` if there are too many.
            #[must_use]
            pub fn new(bytes: &[u8]) -> Option<Self> {
                Short::new(bytes).map(Self)
            }

            /// Parses hex text of `min..=max` bytes in either case.
            ///
            /// # Errors
            /// Wrong width, or a character that is not a hex digit.
            pub fn parse(text: &str, min: usize, max: usize) -> Result<Self, FieldError> {
                let len = hex_len($field, text, min, max.min($max))?;
                let mut bytes = [0; $max];
                hex::decode_to_slice(text, &mut bytes[..len])
                    .map_err(|_| FieldError::NotHex { field: $field })?;
                Ok(Self::new(&bytes[..len]).expect("the length was checked against the maximum"))
            }

            /// The bytes, as in the coinbase.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_slice()
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_bytes() == other.as_bytes()
            }
        }

        impl Eq for $name {}

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.as_bytes().hash(state);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

short_bytes!(
    /// The part of the coinbase that distinguishes one connection's work from another's. Assigned by the server.
    Extranonce1, "extranonce1", MAX_EXTRANONCE1_SIZE
);
short_bytes!(
    /// The part of the coinbase that a client rolls.
    Extranonce2, "extranonce2", MAX_EXTRANONCE2_SIZE
);

impl Extranonce1 {
    /// The extranonce1 of our server: four bytes, most significant first.
    #[must_use]
    pub fn from_u32(number: u32) -> Self {
        Self::new(&number.to_be_bytes()).expect("four bytes fit")
    }
}

impl Extranonce2 {
    /// The `size` low bytes of a counter, most significant first; `None` if the number needs more bytes or `size` is
    /// above [`MAX_EXTRANONCE2_SIZE`].
    #[must_use]
    pub fn from_counter(counter: u64, size: usize) -> Option<Self> {
        let bytes = counter.to_be_bytes();
        let cut = MAX_EXTRANONCE2_SIZE.checked_sub(size)?;
        bytes[..cut].iter().all(|&byte| byte == 0).then(|| Self::new(&bytes[cut..])).flatten()
    }
}

/// A pool's id for a job: text of 1 to [`MAX_JOB_ID`] bytes, not interpreted. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobId(Arc<str>);

impl JobId {
    /// From its text.
    ///
    /// # Errors
    /// The text is empty or too long.
    pub fn new(text: &str) -> Result<Self, FieldError> {
        if text.is_empty() || text.len() > MAX_JOB_ID {
            let expected = Span { min: 1, max: MAX_JOB_ID };
            return Err(FieldError::Length { field: "job id", found: text.len(), unit: "bytes", expected });
        }
        Ok(Self(text.into()))
    }

    /// The id as sent over the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Displays only printing characters, since a pool could otherwise put line ends into a log. The wire form is the
/// [text](JobId::as_str).
impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0, MAX_JOB_ID))
    }
}

/// The hash of the previous block, in the byte order of a header (as SHA-256 gives it).
///
/// On the wire the bytes of each 4-byte word are reversed: the order in which the first miners copied it to hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrevHash(pub [u8; 32]);

impl PrevHash {
    /// Parses Stratum's 64 hex digits.
    ///
    /// # Errors
    /// Wrong width, or a character that is not a hex digit.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        parse_32("prevhash", text).map(|bytes| Self(swap_words(bytes)))
    }
}

impl fmt::Display for PrevHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(swap_words(self.0)))
    }
}

fn swap_words(mut bytes: [u8; 32]) -> [u8; 32] {
    bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_hex_in_any_case_and_of_their_width() {
        assert_eq!(NTime::parse("5f5E1aBc"), Ok(NTime(0x5f5e_1abc)));
        assert_eq!(NTime(0xabc).to_string(), "00000abc");
        assert_eq!(Nonce::parse("7"), Ok(Nonce(7)), "printed as a number");
        for wrong in ["", "123456789"] {
            assert!(matches!(Nonce::parse(wrong), Err(FieldError::Length { field: "nonce", .. })));
        }
        assert!(matches!(NTime::parse("5f5e1ab"), Err(FieldError::Length { found: 7, .. })));
        for wrong in ["+1234567", "0x123456", "1234567g", "12 45678", "-1234567", "1234567\u{e9}"] {
            assert!(NTime::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_name_the_field_what_was_found_and_what_was_expected() {
        let error = Extranonce2::parse("00112233445566", 8, 8).unwrap_err();
        assert_eq!(error.to_string(), "extranonce2 has 14 hex digits, expected 16");
        let error = JobId::new("").unwrap_err();
        assert_eq!(error.to_string(), "job id has 0 bytes, expected 1 to 128");
        assert_eq!(NTime::parse("zzzzzzzz").unwrap_err().to_string(), "ntime is not hex");
    }

    #[test]
    fn a_job_id_is_shown_without_what_would_forge_a_line_of_a_log() {
        let text = "a\r\n06:43:53 WARN b\u{1b}[2J\u{202e}";
        let id = JobId::new(text).unwrap();
        assert_eq!((id.as_str(), &*id.to_string()), (text, "a06:43:53 WARN b[2J"));
        assert!(!format!("{id:?}").contains(['\r', '\n', '\u{1b}']));
    }

    #[test]
    fn version_bits_outside_the_mask_are_told_apart_and_inside_are_replaced() {
        let mask = VersionMask::SERVER;
        assert!(mask.allows(VersionBits(0x1fff_e000)));
        assert!(!mask.allows(VersionBits(0x2000_0000)));
        assert!(!mask.allows(VersionBits(0x1000)));
        assert!(VersionMask::NONE.allows(VersionBits(0)));
        assert_eq!(Version(0x2000_2001).rolled(mask, VersionBits(0x0040_0000)), Version(0x2040_0001));
    }

    #[test]
    fn counters_become_extranonces_of_the_asked_width() {
        assert_eq!(Extranonce2::from_counter(0x0102, 2).unwrap().to_string(), "0102");
        assert_eq!(Extranonce2::from_counter(1, 8).unwrap().to_string(), "0000000000000001");
        assert!(Extranonce2::from_counter(0x1_0000, 2).is_none());
        assert!(Extranonce2::from_counter(0, 9).is_none());
        assert_eq!(Extranonce2::from_counter(0, 0).unwrap().as_bytes(), b"");
        assert_eq!(Extranonce1::from_u32(0xdead_beef).to_string(), "deadbeef");
    }

    #[test]
    fn extranonces_are_equal_by_value_and_width() {
        let parse = |text| Extranonce2::parse(text, 1, 8).unwrap();
        assert_eq!(parse("AbCd"), parse("aBcD"));
        assert_ne!(parse("00"), parse("0000"));
    }

    #[test]
    fn the_previous_hash_swaps_words_on_the_wire() {
        // The example from Stratum's first documentation (block 0x…a3e5 of 2012).
        let text = "4d16b6f85af6e2198f44ae2a6de67f78487ae5611b77c6c0440b921e00000000";
        let hash = PrevHash::parse(text).unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!(hash.0[..4], [0xf8, 0xb6, 0x16, 0x4d]);
        assert_eq!(hash.0[28..], [0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn numbers_come_back(number: u32) {
            prop_assert_eq!(NTime::parse(&NTime(number).to_string()), Ok(NTime(number)));
            prop_assert_eq!(Nonce::parse(&format!("{number:X}")), Ok(Nonce(number)));
        }

        #[test]
        fn any_text_is_an_error_or_a_value(text in "\\PC{0,70}") {
            let _ = (NTime::parse(&text), PrevHash::parse(&text), Extranonce1::parse(&text, 0, 99), JobId::new(&text));
        }
    }
}
