//! The independent hash, which shares no code with the kernels.

use sha2::{Digest, Sha256};

use crate::work::HEADER_LEN;

/// The header's SHA256d, in the byte order of the hash function (the reverse of what explorers print), computed by the
/// `sha2` crate. Miners check every nonce that a kernel finds with this before they submit it.
#[must_use]
pub fn verify(header: &[u8; HEADER_LEN]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(header)).into()
}
