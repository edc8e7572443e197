//! Parses a `mining.submit` line of the usual shape in one pass, without the general envelope.
//!
//! Here: [`read`], which borrows the id and the parameters from the line, or returns `None` for anything out of the
//! ordinary: escapes, other keys, a duplicate key, ids that are not plain numbers, too few or too many parameters.
//! Not here: the meaning of a field (`submit`) and any refusal: a line not read here goes to the general reader, which
//! reports what is wrong with it. Both readers must agree on every line that is read here; a property test checks it.

/// Longest id read here, in digits. Longer ones go to the general reader.
const MAX_ID_DIGITS: usize = 18;

/// A parsed submit line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The id's digits.
    pub(super) id: &'a str,
    params: [&'a str; 6],
    count: usize,
}

impl<'a> Line<'a> {
    /// The parameter at an index below 5, or the version bits at 5 if the line [has](Self::has_version_bits) them.
    pub(super) fn param(&self, index: usize) -> &'a str {
        self.params[index]
    }

    /// Whether there is a sixth parameter.
    pub(super) fn has_version_bits(&self) -> bool {
        self.count == 6
    }
}

/// Parses a line, or returns `None` if it does not have the usual shape.
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

/// The rest of the line.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// The next byte that is not a space.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn token(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// A string of printable ASCII without escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.token(b'"')?;
        let end =
            self.0.iter().position(|&byte| byte == b'"' || byte == b'\\' || !(0x20..0x7f).contains(&byte))?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\"")?;
        str::from_utf8(text).ok()
    }

    /// A whole number as in JSON: digits without a leading zero.
    fn number(&mut self) -> Option<&'a str> {
        self.skip_space();
        let end = self.0.iter().position(|byte| !byte.is_ascii_digit())?;
        let (digits, rest) = self.0.split_at(end);
        if end == 0 || end > MAX_ID_DIGITS || (end > 1 && digits[0] == b'0') {
            return None;
        }
        // The caller checks what follows the digits: a point or an exponent is not a comma.
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
