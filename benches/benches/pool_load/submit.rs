//! A `mining.submit` whose changing fields are overwritten in place: a share costs the generator next to nothing.

/// Hex digits, or decimal ones.
const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// The first id, so that all have the same number of digits.
pub(crate) const FIRST_ID: u64 = 10_000_000;
const ID_DIGITS: usize = 8;

/// The line of one connection's shares on one job.
#[derive(Debug, Clone)]
pub(crate) struct SubmitLine {
    line: Vec<u8>,
    extranonce2: usize,
    nonce: usize,
    /// Shares made so far, on all jobs.
    count: u64,
}

impl SubmitLine {
    /// Creates the line, with version bits if the connection has negotiated them. `count` is the number of shares made
    /// before.
    pub(crate) fn new(user: &str, job: &str, ntime: &str, count: u64) -> Self {
        let head =
            format!("{{\"id\":{FIRST_ID},\"method\":\"mining.submit\",\"params\":[\"{user}\",\"{job}\",\"");
        let tail = format!("\",\"{ntime}\",\"00000000\",\"00002000\"]}}\n");
        let (extranonce2, nonce) = (head.len(), head.len() + 16 + ntime.len() + 6);
        let line = [head.as_bytes(), &[b'0'; 16], tail.as_bytes()].concat();
        Self { line, extranonce2, nonce, count }
    }

    /// Shares made so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The next share's line: an id, an extranonce2 and a nonce that this connection has not had.
    pub(crate) fn next(&mut self) -> &[u8] {
        let start = b"{\"id\":".len();
        write_digits(&mut self.line[start..start + ID_DIGITS], FIRST_ID + self.count, 10);
        write_digits(&mut self.line[self.extranonce2..self.extranonce2 + 16], self.count, 16);
        // Spread like a machine's nonces.
        let nonce = (self.count as u32).wrapping_mul(2_654_435_761);
        write_digits(&mut self.line[self.nonce..self.nonce + 8], u64::from(nonce), 16);
        self.count += 1;
        &self.line
    }
}

fn write_digits(place: &mut [u8], mut number: u64, base: u64) {
    for digit in place.iter_mut().rev() {
        *digit = DIGITS[(number % base) as usize];
        number /= base;
    }
}
