//! Hex of whole blocks and transactions.
//!
//! Lives here: both ways, with the room made at once. Does not live here: hex of hashes and keys, for which the `hex`
//! crate's own functions do; those build their result element by element, which for a megabyte takes milliseconds that a
//! new tip has not. Data goes: RPC parameter -> [`decode`] -> block; transaction -> [`encode`] -> template.

/// The bytes in lower-case hex.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = vec![0; 2 * bytes.len()];
    hex::encode_to_slice(bytes, &mut text).expect("there are two places for each byte");
    String::from_utf8(text).expect("hex is ASCII")
}

/// The bytes that the text gives in hex; `None` if it is none.
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
