//! CBOR of our types, whole values only.

use minicbor::{Decode, Encode};

/// Writes a value.
pub(crate) fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes everything, and our types refuse nothing")
}

/// Reads a value that is all of the bytes; `None` if it is not.
pub(crate) fn from_slice<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Option<T> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().ok()?;
    (decoder.position() == bytes.len()).then_some(value)
}
