//! Reads a script op by op, exactly as the reference's `GetOp` does.
//!
//! Lives here: [`ScriptReader`] and its results. Does not live here: what an op means. Licensing depends on how
//! truncated pushes are read, so it is specified what the reader consumes when it fails. Path: script ->
//! [`ScriptReader::next_op`] -> opcode and data, borrowed from the script.

const OP_PUSHDATA1: u8 = 0x4c;
const OP_PUSHDATA2: u8 = 0x4d;
const OP_PUSHDATA4: u8 = 0x4e;
/// The highest opcode that only pushes.
const OP_16: u8 = 0x60;

/// One operation of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op<'a> {
    /// The opcode byte.
    pub opcode: u8,
    /// The data it pushes; empty if it does not push bytes from the script.
    pub data: &'a [u8],
}

/// A push whose length bytes or data extend past the script's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated;

/// Walks a script op by op with the reference's `GetOp` (`script.h`).
#[derive(Debug, Clone)]
pub struct ScriptReader<'a> {
    rest: &'a [u8],
}

impl<'a> ScriptReader<'a> {
    /// Starts at the first op.
    pub fn new(script: &'a [u8]) -> Self {
        Self { rest: script }
    }

    /// Whether all bytes have been read.
    pub fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes not yet read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads one op. On a truncated push the opcode and the length bytes that are present *are consumed*, as in the
    /// reference, and reading may continue after them. At the end of the script the result is `Truncated` too.
    pub fn next_op(&mut self) -> Result<Op<'a>, Truncated> {
        let opcode = self.take(1)?[0];
        let size = match opcode {
            0..OP_PUSHDATA1 => usize::from(opcode),
            OP_PUSHDATA1 => usize::from(self.take(1)?[0]),
            OP_PUSHDATA2 => usize::from(u16::from_le_bytes(self.take_array()?)),
            OP_PUSHDATA4 => u32::from_le_bytes(self.take_array()?) as usize,
            _ => 0,
        };
        Ok(Op { opcode, data: self.take(size)? })
    }

    /// The data of the last op when the whole script is read in a `GetOp` loop that ignores failures: an op without
    /// data, or a truncated push, yields empty data. This is how the reference finds the public key of a coinbase and
    /// of an admin input, and the verb of an admin action (`ConnectBlock`).
    pub fn last_data(mut self) -> &'a [u8] {
        let mut last: &[u8] = &[];
        while !self.at_end() {
            last = self.next_op().map_or(&[], |op| op.data);
        }
        last
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        Ok(self.take(N)?.try_into().expect("take returns as many bytes as asked for"))
    }
}

/// Whether the script only pushes and is not truncated (`IsPushOnly`).
pub fn is_push_only(script: &[u8]) -> bool {
    last_push_of_push_only(script).is_some()
}

/// The last pushed element, if the script only pushes and is not truncated.
pub(super) fn last_push_of_push_only(script: &[u8]) -> Option<&[u8]> {
    let mut reader = ScriptReader::new(script);
    let mut last: &[u8] = &[];
    while !reader.at_end() {
        let op = reader.next_op().ok()?;
        if op.opcode > OP_16 {
            return None;
        }
        last = op.data;
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_truncated_push_clears_the_value_and_reading_goes_on_behind_its_length_bytes() {
        // 0x4b announces 75 bytes that are missing; the one-byte push after it is read as an op.
        let mut reader = ScriptReader::new(&[0x4b, 0x01, 0xaa]);
        assert_eq!(reader.next_op(), Err(Truncated));
        assert_eq!(reader.next_op().unwrap().data, [0xaa]);
        assert_eq!(ScriptReader::new(&[0x01, 0xaa, 0x4b]).last_data(), [0u8; 0]);
        assert_eq!(ScriptReader::new(&[0x4c, 0x05, 0x01, 0xbb]).last_data(), [0xbb]);
        assert_eq!(ScriptReader::new(&[0x4d, 0x01]).last_data(), [0u8; 0]);
        assert_eq!(ScriptReader::new(&[0x01, 0xaa, 0x61]).last_data(), [0u8; 0]);
    }
}
