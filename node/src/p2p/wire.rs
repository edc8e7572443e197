//! Integers, counts, hashes and addresses in payloads.
//!
//! Lives here: [`Reader`], which returns a value or [`Malformed`], and the matching writers. Does not live here:
//! which fields a message has (`message.rs`). A count is checked against its limit and the remaining bytes before
//! anything is allocated. Numbers are little endian, ports big endian.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The largest count that is accepted at all (`MAX_SIZE`, `serialize.h`).
const MAX_SIZE: u64 = 0x0200_0000;

/// An invalid payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// It ends too early.
    #[error("the payload is too short")]
    TooShort,
    /// A count is not in its shortest form, or above `MAX_SIZE`.
    #[error("a count is not canonical")]
    Count,
    /// There are more items than a message may have.
    #[error("{found} {what}, at most {limit} expected")]
    TooMany {
        /// The kind of item.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The limit.
        limit: usize,
    },
    /// A block, transaction or other part cannot be decoded.
    #[error("{0}")]
    Part(String),
}

/// Reads a payload from its front.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::TooShort)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::TooShort)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a count (`ReadCompactSize`).
    pub(crate) fn count(&mut self) -> Result<u64, Malformed> {
        let (value, least) = match self.u8()? {
            0xfd => (u64::from(self.array().map(u16::from_le_bytes)?), 0xfd),
            0xfe => (u64::from(self.u32()?), 0x1_0000),
            0xff => (self.u64()?, 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if value < least || value > MAX_SIZE { Err(Malformed::Count) } else { Ok(value) }
    }

    /// Reads a list of at most `limit` items of at least `size` bytes each.
    pub(crate) fn list<T>(
        &mut self,
        what: &'static str,
        limit: usize,
        size: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let found = self.count()?;
        if found > limit as u64 {
            return Err(Malformed::TooMany { what, found, limit });
        }
        if found > (self.0.len() / size) as u64 {
            return Err(Malformed::TooShort);
        }
        (0..found).map(|_| read(self)).collect()
    }

    /// Reads a text of at most `limit` bytes; invalid UTF-8 is replaced.
    pub(crate) fn text(&mut self, what: &'static str, limit: usize) -> Result<String, Malformed> {
        let found = self.count()?;
        if found > limit as u64 {
            return Err(Malformed::TooMany { what, found, limit });
        }
        Ok(String::from_utf8_lossy(self.bytes(found as usize)?).into_owned())
    }

    /// Reads address and port, 18 bytes.
    pub(crate) fn address(&mut self) -> Result<SocketAddr, Malformed> {
        let ip = Ipv6Addr::from(self.array::<16>()?);
        let port = u16::from_be_bytes(self.array()?);
        Ok(SocketAddr::new(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4), port))
    }
}

/// Writes a count.
pub(crate) fn put_count(bytes: &mut Vec<u8>, count: usize) {
    match count {
        0..=0xfc => bytes.push(count as u8),
        0xfd..=0xffff => {
            bytes.push(0xfd);
            bytes.extend_from_slice(&(count as u16).to_le_bytes());
        }
        _ => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(count as u32).to_le_bytes());
        }
    }
}

/// Writes a text.
pub(crate) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_count(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

/// Writes address and port, 18 bytes.
pub(crate) fn put_address(bytes: &mut Vec<u8>, address: &SocketAddr) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    bytes.extend_from_slice(&ip.octets());
    bytes.extend_from_slice(&address.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counts_are_read_in_their_shortest_form_only() {
        for count in [0usize, 0xfc, 0xfd, 0xffff, 0x1_0000, MAX_SIZE as usize] {
            let mut bytes = Vec::new();
            put_count(&mut bytes, count);
            assert_eq!(bytes, bitcoin::consensus::encode::serialize(&bitcoin::VarInt(count as u64)));
            assert_eq!(Reader(&bytes).count(), Ok(count as u64));
        }
        for wrong in [&[0xfd, 0xfc, 0][..], &[0xfe, 0xff, 0xff, 0, 0], &[0xfe, 1, 0, 0, 2]] {
            assert_eq!(Reader(wrong).count(), Err(Malformed::Count), "{wrong:?}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_there_is_refused_before_it_is_read() {
        let bytes = [&[0xfd][..], &1_000u16.to_le_bytes(), &[0; 100]].concat();
        let read = |reader: &mut Reader<'_>| reader.u8();
        assert_eq!(Reader(&bytes).list("things", 2_000, 1, read), Err(Malformed::TooShort));
        let too_many = Malformed::TooMany { what: "things", found: 1_000, limit: 999 };
        assert_eq!(Reader(&bytes).list("things", 999, 1, read), Err(too_many));
    }
}
