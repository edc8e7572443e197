//! Framing: splits bytes into lines, and never holds more than a line of bounded length.

/// Longest line that a server reads, in bytes.
///
/// The longest line of a client is a submit or a configure: below 1 KiB with a user name of 127 bytes and every known
/// extension. 16 KiB leaves room for firmware that pads, and bounds the memory that one connection can take.
pub const MAX_SERVER_LINE: usize = 16 * 1024;

/// Longest line that a client reads, in bytes.
///
/// The longest line of a pool is a notify: two hex digits per byte of a coinbase that may pay a few thousand
/// members (34 bytes each), and 32 merkle branches. 512 KiB carries about 7,000 outputs.
pub const MAX_CLIENT_LINE: usize = 512 * 1024;

/// An empty buffer larger than this many bytes is freed: an idle connection should cost next to nothing.
const KEEP_CAPACITY: usize = 1024;

/// A line was longer than the limit. The stream cannot be resynchronised safely: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line longer than {max} bytes")]
pub struct LineTooLong {
    /// The limit, in bytes.
    pub max: usize,
}

/// Splits a byte stream into lines, however it is cut into reads.
///
/// A line ends with `\n`; a `\r` before it and blank lines are dropped. After [`LineTooLong`] every call fails with the
/// same error.
#[derive(Debug)]
pub struct LineDecoder {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// End of the part known to contain no `\n`.
    scanned: usize,
    max: usize,
    overflowed: bool,
}

impl LineDecoder {
    /// Creates a decoder for lines of at most `max` bytes, not counting the line end.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, scanned: 0, max, overflowed: false }
    }

    /// Adds bytes that were read. Memory stays bounded by `max` plus one read if after each call [`Self::next_line`] is
    /// called until it returns `None`.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.overflowed {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line without its end, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`LineTooLong`] if a line, whole or partial, exceeds the limit.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        loop {
            if self.overflowed {
                return Err(LineTooLong { max: self.max });
            }
            let Some(found) = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') else {
                self.scanned = self.buffer.len();
                return self.out_of_lines().map(|()| None);
            };
            let (begin, newline) = (self.start, self.scanned + found);
            self.start = newline + 1;
            self.scanned = self.start;
            let end =
                if newline > begin && self.buffer[newline - 1] == b'\r' { newline - 1 } else { newline };
            if end - begin > self.max {
                self.overflow();
            } else if !self.buffer[begin..end].trim_ascii().is_empty() {
                return Ok(Some(&self.buffer[begin..end]));
            }
        }
    }

    /// Called when no whole line is left: checks the partial line, and frees memory if there is none.
    fn out_of_lines(&mut self) -> Result<(), LineTooLong> {
        let begun = self.buffer.len() - self.start;
        // One byte more than the limit may still be the `\r` of a line that just fits.
        if begun > self.max + 1 {
            self.overflow();
            return Err(LineTooLong { max: self.max });
        }
        if begun == 0 {
            self.buffer.clear();
            self.start = 0;
            self.scanned = 0;
            if self.buffer.capacity() > KEEP_CAPACITY {
                self.buffer = Vec::new();
            }
        }
        Ok(())
    }

    fn overflow(&mut self) {
        self.overflowed = true;
        self.buffer = Vec::new();
        self.start = 0;
        self.scanned = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn lines(decoder: &mut LineDecoder, bytes: &[u8]) -> Result<Vec<Vec<u8>>, LineTooLong> {
        decoder.extend(bytes);
        let mut found = Vec::new();
        while let Some(line) = decoder.next_line()? {
            found.push(line.to_vec());
        }
        Ok(found)
    }

    #[test]
    fn many_lines_in_one_read_and_one_line_in_many() {
        let mut decoder = LineDecoder::new(16);
        assert_eq!(lines(&mut decoder, b"a\nb\r\n\n \r\nc").unwrap(), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(lines(&mut decoder, b"d").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(lines(&mut decoder, b"\r").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(lines(&mut decoder, b"\n").unwrap(), [b"cd".to_vec()]);
    }

    #[test]
    fn a_line_of_exactly_the_bound_passes_and_one_byte_more_ends_the_stream() {
        for end in ["\n", "\r\n"] {
            let mut decoder = LineDecoder::new(4);
            assert_eq!(lines(&mut decoder, format!("abcd{end}").as_bytes()).unwrap(), [b"abcd".to_vec()]);
            let error = lines(&mut decoder, format!("abcde{end}").as_bytes()).unwrap_err();
            assert_eq!(error, LineTooLong { max: 4 });
            assert!(lines(&mut decoder, b"a\n").is_err(), "it stays closed");
        }
    }

    #[test]
    fn an_endless_line_never_fills_memory() {
        let mut decoder = LineDecoder::new(100);
        for _ in 0..1000 {
            let _ = lines(&mut decoder, &[b'x'; 64]);
            assert!(decoder.buffer.capacity() <= 512);
        }
        assert!(lines(&mut decoder, b"").is_err());
    }

    #[test]
    fn an_idle_decoder_keeps_little_memory() {
        let mut decoder = LineDecoder::new(MAX_CLIENT_LINE);
        let mut long = vec![b'x'; 100_000];
        long.push(b'\n');
        assert_eq!(lines(&mut decoder, &long).unwrap().len(), 1);
        assert!(decoder.buffer.capacity() <= KEEP_CAPACITY);
    }

    proptest! {
        #[test]
        fn how_the_stream_is_cut_changes_nothing(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..300),
            cuts in proptest::collection::vec(0usize..40, 0..60),
        ) {
            let mut whole = LineDecoder::new(64);
            let expected = lines(&mut whole, &stream);
            let mut decoder = LineDecoder::new(64);
            let (mut found, mut rest, mut failed) = (Vec::new(), &stream[..], false);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                match lines(&mut decoder, piece) {
                    Ok(more) => found.extend(more),
                    Err(_) => { failed = true; break; }
                }
            }
            match expected {
                Ok(expected) => { prop_assert!(!failed); prop_assert_eq!(found, expected); }
                Err(_) => prop_assert!(failed),
            }
        }
    }
}
