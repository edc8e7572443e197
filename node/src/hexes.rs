//! Hex encoding and decoding of whole blocks and transactions.
//!
//! Lives here: both directions, with one allocation each. Does not live here: hex of hashes and keys, which uses
//! the `hex` crate; that builds its result element by element, which takes milliseconds per megabyte - too long
//! when a new tip is waiting. Data goes: RPC parameter -> [`decode`] -> block; transaction -> [`encode`] ->
//! template.

/// Encodes bytes in lower-case hex.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = vec![0; 2 * bytes.len()];
    hex::encode_to_slice(bytes, &mut text).expect("there are two places for each byte");
    String::from_utf8(text).expect("hex is ASCII")
}

/// Decodes hex; `None` if it is invalid.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_ways_are_those_of_the_hex_crate(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "[0-9a-fA-Fg]{0,9}") {
            prop_assert_eq!(super::encode(&bytes), hex::encode(&bytes));
            prop_assert_eq!(super::decode(&hex::encode_upper(&bytes)), Some(bytes));
            prop_assert_eq!(super::decode(&text), hex::decode(&text).ok());
        }
    }
}
