//! Message framing: a header of 24 bytes and a payload (`CMessageHeader`, `protocol.h`).
//!
//! Lives here: [`Decoder`], which takes bytes as they arrive and returns whole frames, and [`encode`]. Does not
//! live here: payload contents, and sockets. A frame: magic (4), command (12, zero padded), payload length (4,
//! little endian), the first 4 bytes of the payload's double SHA-256, payload. The buffer grows with the bytes
//! received, never with the announced length.

use bitcoin::hashes::{Hash, sha256d};

/// Length of a frame's header, bytes.
pub(crate) const HEADER_LEN: usize = 24;
/// The longest payload, bytes (`MAX_PROTOCOL_MESSAGE_LENGTH`).
pub(crate) const MAX_PAYLOAD: usize = 4_000_000;
/// The buffer grows by this much at a time, bytes.
const STEP: usize = 256 * 1024;

/// A message's name: printable ASCII, then zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Command([u8; 12]);

impl Command {
    /// A command name; `name` is a constant of this program.
    pub(crate) const fn new(name: &str) -> Self {
        let (name, mut bytes, mut i) = (name.as_bytes(), [0; 12], 0);
        while i < name.len() {
            bytes[i] = name[i];
            i += 1;
        }
        Self(bytes)
    }

    /// The name; empty if it is not valid text.
    pub(crate) fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }

    /// Whether it is printable characters followed only by zeros (`CMessageHeader::IsValid`).
    fn is_valid(&self) -> bool {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(len);
        name.iter().all(|byte| (b' '..=0x7e).contains(byte)) && rest.iter().all(|&byte| byte == 0)
    }
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its name.
    pub(crate) command: Command,
    /// Its content.
    pub(crate) payload: Vec<u8>,
}

/// An output of the decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// A message.
    Frame(Frame),
    /// A message whose name or checksum is wrong; it is skipped.
    Damaged(&'static str),
}

/// The bytes are no messages of this network; the connection is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Another network, or no Bitcoin protocol at all.
    #[error("wrong magic {0:02x?}")]
    Magic([u8; 4]),
    /// More than [`MAX_PAYLOAD`].
    #[error("a payload of {0} bytes, at most {MAX_PAYLOAD} expected")]
    TooLong(u32),
}

/// A streaming decoder: bytes in, messages out.
#[derive(Debug)]
pub(crate) struct Decoder {
    magic: [u8; 4],
    header: [u8; HEADER_LEN],
    header_len: usize,
    payload: Vec<u8>,
}

impl Decoder {
    /// A decoder for the network with this magic.
    pub(crate) fn new(magic: [u8; 4]) -> Self {
        Self { magic, header: [0; HEADER_LEN], header_len: 0, payload: Vec::new() }
    }

    /// Whether a message has begun and is incomplete.
    pub(crate) fn is_inside(&self) -> bool {
        self.header_len > 0
    }

    /// Consumes bytes, advancing `bytes`, until a message is complete (`Some`) or none are left (`None`).
    ///
    /// # Errors
    /// [`FrameError`], as soon as the bytes determine it.
    pub(crate) fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Decoded>, FrameError> {
        if self.header_len < HEADER_LEN {
            let taken = bytes.len().min(HEADER_LEN - self.header_len);
            self.header[self.header_len..self.header_len + taken].copy_from_slice(&bytes[..taken]);
            self.header_len += taken;
            *bytes = &bytes[taken..];
            let seen = self.header_len.min(4);
            if self.header[..seen] != self.magic[..seen] {
                return Err(FrameError::Magic(self.header[..4].try_into().expect("four of 24 bytes")));
            }
            if self.header_len < HEADER_LEN {
                return Ok(None);
            }
        }
        let length = u32::from_le_bytes(self.header[16..20].try_into().expect("four bytes"));
        if length as usize > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        let missing = length as usize - self.payload.len();
        let taken = bytes.len().min(missing);
        if self.payload.capacity() < self.payload.len() + taken {
            self.payload.reserve_exact(missing.min(taken.max(STEP)));
        }
        self.payload.extend_from_slice(&bytes[..taken]);
        *bytes = &bytes[taken..];
        if taken < missing {
            return Ok(None);
        }
        self.header_len = 0;
        let (command, payload) = (
            Command(self.header[4..16].try_into().expect("twelve bytes")),
            std::mem::take(&mut self.payload),
        );
        Ok(Some(if !command.is_valid() {
            Decoded::Damaged("a command that is none")
        } else if self.header[20..] != checksum(&payload) {
            Decoded::Damaged("a wrong checksum")
        } else {
            Decoded::Frame(Frame { command, payload })
        }))
    }
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    sha256d::Hash::hash(payload).to_byte_array()[..4].try_into().expect("four of 32 bytes")
}

/// Encodes a message.
pub(crate) fn encode(magic: [u8; 4], command: Command, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&command.0);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum(payload));
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bitcoin::consensus::encode::serialize;
    use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};

    const MAGIC: [u8; 4] = [0x35, 0xb2, 0xcc, 0x9e];

    /// The same message as the `bitcoin` crate encodes it.
    fn ping() -> Vec<u8> {
        serialize(&RawNetworkMessage::new(bitcoin::p2p::Magic::from_bytes(MAGIC), NetworkMessage::Ping(7)))
    }

    #[test]
    fn a_message_reads_the_same_in_one_piece_and_byte_by_byte() {
        let bytes = [ping(), ping()].concat();
        assert_eq!(encode(MAGIC, Command::new("ping"), &7u64.to_le_bytes()), ping());
        for size in [1, 3, 24, 25, bytes.len()] {
            let (mut decoder, mut frames) = (Decoder::new(MAGIC), 0);
            for mut piece in bytes.chunks(size) {
                while !piece.is_empty() {
                    if let Some(Decoded::Frame(frame)) = decoder.feed(&mut piece).unwrap() {
                        assert_eq!(
                            (frame.command.as_str(), &frame.payload[..]),
                            ("ping", &7u64.to_le_bytes()[..])
                        );
                        frames += 1;
                    }
                }
            }
            assert_eq!((frames, decoder.is_inside()), (2, false), "pieces of {size}");
        }
    }

    #[test]
    fn a_wrong_magic_shows_at_its_first_wrong_byte() {
        let mut decoder = Decoder::new(MAGIC);
        assert_eq!(decoder.feed(&mut &MAGIC[..2]), Ok(None));
        assert!(matches!(decoder.feed(&mut &[0xff][..]), Err(FrameError::Magic(_))));
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_a_byte_of_it_came() {
        let mut bytes = ping();
        bytes[16..20].copy_from_slice(&4_000_001u32.to_le_bytes());
        assert_eq!(Decoder::new(MAGIC).feed(&mut &bytes[..24]), Err(FrameError::TooLong(4_000_001)));
    }

    #[test]
    fn memory_follows_what_came_and_not_what_was_announced() {
        let mut bytes = ping();
        bytes[16..20].copy_from_slice(&4_000_000u32.to_le_bytes());
        let mut decoder = Decoder::new(MAGIC);
        assert_eq!(decoder.feed(&mut &bytes[..]), Ok(None));
        assert!(decoder.payload.capacity() <= STEP, "{}", decoder.payload.capacity());
    }

    #[test]
    fn a_wrong_checksum_or_command_costs_only_its_own_message() {
        for spoiled in [20, 15] {
            let mut bytes = ping();
            bytes[spoiled] ^= 0x41;
            let bytes = [bytes, ping()].concat();
            let (mut decoder, mut rest) = (Decoder::new(MAGIC), &bytes[..]);
            assert!(matches!(decoder.feed(&mut rest), Ok(Some(Decoded::Damaged(_)))));
            assert!(matches!(decoder.feed(&mut rest), Ok(Some(Decoded::Frame(_)))));
        }
    }
}
