//! The usual shape of a `mining.submit` line, read in one pass without the general envelope.
//!
//! Here: [`read`], which borrows the id and the parameters from the line, or declines. It declines whatever is not
//! plain: escapes, other keys, a key twice, ids that are no plain number, too few or too many parameters.
//! Not here: what a field means (`submit`), and any refusal: a line that is declined goes the general way, which says
//! what is wrong with it. So both ways must agree on every line that is read here; a property test holds them to it.

/// The longest id that is read here, in digits. Longer ones go the general way.
const MAX_ID_DIGITS: usize = 18;

/// A share's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The id's digits.
    pub(super) id: &'a str,
    params: [&'a str; 6],
    count: usize,
}

impl<'a> Line<'a> {
    /// The parameter at a place below 5, or the version bits at 5 where the line [has](Self::has_version_bits) them.
    pub(super) fn param(&self, index: usize) -> &'a str {
        self.params[index]
    }

    /// Whether there is a sixth parameter.
    pub(super) fn has_version_bits(&self) -> bool {
        self.count == 6
    }
}

/// Reads a line, or declines.
pub(super) fn read(line: &[u8]) -> Option<Line<'_>> {
    let mut cursor = Cursor(line);
    let (mut id, mut method, mut params) = (None, None, None);
    cursor.token(b'{')?;
    loop {
        let key = cursor.string()?;
        cursor.token(b':')?;
        match key {
            "id" if id.is_none() => id = Some(cursor.number()?),
            "method" if method.is_none() => method = Some(cursor.string().filter(|&m| m == "mining.submit")?),
            "params" if params.is_none() => params = Some(cursor.params()?),
            _ => return None,
        }
        match cursor.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    cursor.skip_space();
    let (params, count) = params?;
    (cursor.0.is_empty() && method.is_some()).then_some(Line { id: id?, params, count })
}

/// What is left of the line.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn token(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// A string of printing ASCII without escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.token(b'"')?;
        let end =
            self.0.iter().position(|&byte| byte == b'"' || byte == b'\\' || !(0x20..0x7f).contains(&byte))?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\"")?;
        str::from_utf8(text).ok()
    }

    /// A whole number as JSON writes it: digits, none of them a leading zero.
    fn number(&mut self) -> Option<&'a str> {
        self.skip_space();
        let end = self.0.iter().position(|byte| !byte.is_ascii_digit())?;
        let (digits, rest) = self.0.split_at(end);
        if end == 0 || end > MAX_ID_DIGITS || (end > 1 && digits[0] == b'0') {
            return None;
        }
        // What follows the digits is looked at by the caller: a point or an exponent is no comma.
        self.0 = rest;
        str::from_utf8(digits).ok()
    }

    /// An array of five or six strings.
    fn params(&mut self) -> Option<([&'a str; 6], usize)> {
        let mut params = [""; 6];
        self.token(b'[')?;
        for count in 1..=params.len() {
            params[count - 1] = self.string()?;
            match self.next()? {
                b',' => {}
                b']' if count >= 5 => return Some((params, count)),
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
