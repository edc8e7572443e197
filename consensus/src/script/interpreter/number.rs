//! Numbers on the stack (`CScriptNum`): little-endian, with the top bit as the sign; zero is empty.

use super::error::ScriptError;

/// Longest operand of an arithmetic operation, in bytes.
pub(super) const DEFAULT_SIZE: usize = 4;
/// Longest lock time, in bytes: one more.
pub(super) const LOCKTIME_SIZE: usize = 5;

/// Reads a number of at most `max_size` bytes. With `minimal`, it must have its shortest form.
pub(super) fn read(bytes: &[u8], minimal: bool, max_size: usize) -> Result<i64, ScriptError> {
    if bytes.len() > max_size || (minimal && !is_minimal(bytes)) {
        return Err(ScriptError::Unknown);
    }
    let Some((last, low)) = bytes.split_last() else { return Ok(0) };
    let magnitude =
        low.iter().rev().fold(i64::from(last & 0x7f), |value, byte| value << 8 | i64::from(*byte));
    Ok(if last & 0x80 == 0 { magnitude } else { -magnitude })
}

fn is_minimal(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        // A top byte that holds only the sign is minimal only if the byte below uses its top bit.
        [.., below, top] if top & 0x7f == 0 => below & 0x80 != 0,
        [only] => only & 0x7f != 0,
        _ => true,
    }
}

/// Writes a number in its shortest form.
pub(super) fn write(value: i64) -> Vec<u8> {
    let mut bytes = value.unsigned_abs().to_le_bytes().to_vec();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.last().is_some_and(|top| top & 0x80 != 0) {
        bytes.push(0);
    }
    if value < 0 {
        *bytes.last_mut().expect("a negative number has a byte") |= 0x80;
    }
    bytes
}

/// Whether an element counts as true: any bit is set other than a sign bit at the end (`CastToBool`).
pub(super) fn is_true(element: &[u8]) -> bool {
    element.split_last().is_some_and(|(last, low)| low.iter().any(|byte| *byte != 0) || last & 0x7f != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_reads_as_the_bitcoin_crate_reads_it(bytes in prop::collection::vec(any::<u8>(), 0..6)) {
            prop_assert_eq!(read(&bytes, true, 4).ok(), bitcoin::script::read_scriptint(&bytes).ok());
        }

        #[test]
        fn what_is_written_is_read(value in -(1i64 << 38)..(1i64 << 38)) {
            prop_assert_eq!(read(&write(value), true, LOCKTIME_SIZE), Ok(value));
        }
    }

    #[test]
    fn zero_has_many_forms_and_one_is_minimal() {
        assert_eq!(read(&[], true, 4), Ok(0));
        assert_eq!(read(&[0], false, 4), Ok(0));
        assert_eq!(read(&[0x80], false, 4), Ok(0));
        assert!(read(&[0], true, 4).is_err() && read(&[0x80], true, 4).is_err());
        assert!(!is_true(&[]) && !is_true(&[0, 0x80]) && is_true(&[0x80, 0]) && is_true(&[1]));
    }
}
