//! The merkle tree of a block, and its known flaw.
//!
//! At a level of odd length the last node is duplicated, so a list that repeats its end can have the same root as the
//! list without the repetition (CVE-2012-2459). The reference detects two equal neighbours at any level.

use bitcoin::hashes::{Hash, HashEngine, sha256d};

/// The root over `leaves` (zero for none), and whether two neighbours were equal at any level (`BlockMerkleRoot`).
pub fn root(mut level: Vec<[u8; 32]>) -> ([u8; 32], bool) {
    let mut mutated = false;
    while level.len() > 1 {
        mutated |= level.chunks_exact(2).any(|pair| pair[0] == pair[1]);
        level = level.chunks(2).map(|pair| parent(&pair[0], pair.last().unwrap_or(&pair[0]))).collect();
    }
    (level.first().copied().unwrap_or_default(), mutated)
}

fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut engine = sha256d::Hash::engine();
    engine.input(left);
    engine.input(right);
    sha256d::Hash::from_engine(engine).to_byte_array()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_root_agrees_with_the_bitcoin_crate(leaves in prop::collection::vec(any::<[u8; 32]>(), 1..40)) {
            let hashes = leaves.iter().map(|leaf| sha256d::Hash::from_byte_array(*leaf));
            let oracle = bitcoin::merkle_tree::calculate_root(hashes).unwrap();
            prop_assert_eq!(root(leaves).0, oracle.to_byte_array());
        }
    }

    #[test]
    fn a_repeated_end_keeps_the_root_and_is_noticed() {
        let leaves: Vec<[u8; 32]> = (0..6).map(|i| [i; 32]).collect();
        let mut repeated = leaves.clone();
        repeated.extend_from_slice(&leaves[4..]);
        assert_eq!(root(leaves.clone()).0, root(repeated.clone()).0);
        assert!(!root(leaves).1);
        assert!(root(repeated).1);
    }
}
