//! CBOR encoding of our types, as whole values only.

use minicbor::{Decode, Encode};

/// Encodes a value.
pub(crate) fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes everything, and our types refuse nothing")
}

/// Decodes a value that uses all of the bytes; `None` if that fails.
pub(crate) fn from_slice<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Option<T> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().ok()?;
    (decoder.position() == bytes.len()).then_some(value)
}
