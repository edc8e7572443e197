//! From a job and the fields that a miner adds: coinbase, merkle root and the 80-byte header.

use sha2::{Digest, Sha256};

use crate::fields::{Extranonce1, Extranonce2, NBits, NTime, Nonce, PrevHash, Version};
use crate::notify::Notify;

/// Length of a block header in bytes.
pub const HEADER_SIZE: usize = 80;

/// Double SHA-256, in the byte order that SHA-256 gives; printed hashes are reversed.
#[must_use]
pub fn sha256d(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

/// A job prepared for many extranonces: the common beginning of its coinbases is hashed only once.
#[derive(Debug, Clone)]
pub struct Work {
    prefix: Sha256,
    coinbase1: Vec<u8>,
    coinbase2: Vec<u8>,
    branches: Vec<[u8; 32]>,
    prev_hash: PrevHash,
    nbits: NBits,
}

impl Work {
    /// Prepares a job.
    #[must_use]
    pub fn new(notify: &Notify) -> Self {
        Self {
            prefix: Sha256::new_with_prefix(&notify.coinbase1),
            coinbase1: notify.coinbase1.clone(),
            coinbase2: notify.coinbase2.clone(),
            branches: notify.branches.clone(),
            prev_hash: notify.prev_hash,
            nbits: notify.nbits,
        }
    }

    /// The coinbase transaction without witness.
    #[must_use]
    pub fn coinbase(&self, extranonce1: &Extranonce1, extranonce2: &Extranonce2) -> Vec<u8> {
        [&self.coinbase1, extranonce1.as_bytes(), extranonce2.as_bytes(), &self.coinbase2].concat()
    }

    /// The merkle root of the block's transactions.
    #[must_use]
    pub fn merkle_root(&self, extranonce1: &Extranonce1, extranonce2: &Extranonce2) -> [u8; 32] {
        let inner = self
            .prefix
            .clone()
            .chain_update(extranonce1.as_bytes())
            .chain_update(extranonce2.as_bytes())
            .chain_update(&self.coinbase2)
            .finalize();
        merkle_root(Sha256::digest(inner).into(), &self.branches)
    }

    /// The header to be hashed.
    #[must_use]
    pub fn header(
        &self,
        extranonce1: &Extranonce1,
        extranonce2: &Extranonce2,
        version: Version,
        ntime: NTime,
        nonce: Nonce,
    ) -> [u8; HEADER_SIZE] {
        let root = self.merkle_root(extranonce1, extranonce2);
        header(version, self.prev_hash, &root, ntime, self.nbits, nonce)
    }
}

/// The 80 bytes of a header; every number is little-endian.
#[must_use]
pub fn header(
    version: Version,
    prev_hash: PrevHash,
    merkle_root: &[u8; 32],
    ntime: NTime,
    nbits: NBits,
    nonce: Nonce,
) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[..4].copy_from_slice(&version.0.to_le_bytes());
    bytes[4..36].copy_from_slice(&prev_hash.0);
    bytes[36..68].copy_from_slice(merkle_root);
    bytes[68..72].copy_from_slice(&ntime.0.to_le_bytes());
    bytes[72..76].copy_from_slice(&nbits.0.to_le_bytes());
    bytes[76..].copy_from_slice(&nonce.0.to_le_bytes());
    bytes
}

/// The merkle root from the coinbase's txid and merkle path.
#[must_use]
pub fn merkle_root(coinbase_txid: [u8; 32], branches: &[[u8; 32]]) -> [u8; 32] {
    branches.iter().fold(coinbase_txid, |node, branch| hash_pair(&node, branch))
}

/// The merkle path of a coinbase, from the txids of all other transactions in block order.
#[must_use]
pub fn merkle_branches(txids: &[[u8; 32]]) -> Vec<[u8; 32]> {
    let mut branches = Vec::new();
    // Each level lacks its first node, which depends on the coinbase.
    let mut level = txids.to_vec();
    while !level.is_empty() {
        branches.push(level[0]);
        level = level[1..]
            .chunks(2)
            .map(|pair| hash_pair(&pair[0], pair.last().expect("chunks are not empty")))
            .collect();
    }
    branches
}

fn hash_pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut pair = [0; 64];
    pair[..32].copy_from_slice(left);
    pair[32..].copy_from_slice(right);
    sha256d(&pair)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::difficulty::Target;
    use crate::fields::JobId;

    fn reversed(text: &str) -> [u8; 32] {
        let mut bytes: [u8; 32] = hex::decode(text).unwrap().try_into().unwrap();
        bytes.reverse();
        bytes
    }

    /// Bitcoin's block 170: the coinbase and the first payment ever made.
    fn block_170() -> (Notify, Extranonce1, Extranonce2) {
        let coinbase = hex::decode(concat!(
            "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff07",
            "04ffff001d0102",
            "ffffffff0100f2052a01000000434104d46c4968bde02899d2aa0963367c7a6ce34eec332b32e42e5f3407e052d64ac6",
            "25da6f0718e7b302140434bd725706957c092db53805b821a85b23a7ac61725bac00000000"
        ))
        .unwrap();
        // Treats the last three bytes of the script as extranonces.
        let notify = Notify {
            job_id: JobId::new("170").unwrap(),
            prev_hash: PrevHash(reversed("000000002a22cfee1f2c846adbd12b3e183d4f97683f85dad08a79780a84bd55")),
            coinbase1: coinbase[..46].to_vec(),
            coinbase2: coinbase[49..].to_vec(),
            branches: merkle_branches(&[reversed(
                "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16",
            )]),
            version: Version(1),
            nbits: NBits(0x1d00_ffff),
            ntime: NTime(1_231_731_025),
            clean: true,
        };
        (notify, Extranonce1::new(&coinbase[46..47]).unwrap(), Extranonce2::new(&coinbase[47..49]).unwrap())
    }

    #[test]
    fn bitcoins_block_170_is_rebuilt_from_a_notify() {
        let (notify, extranonce1, extranonce2) = block_170();
        let work = Work::new(&notify);
        assert_eq!(
            sha256d(&work.coinbase(&extranonce1, &extranonce2)),
            reversed("b1fea52486ce0c62bb442b530a3f0132b826c74e473d1f2c220bfa78111c5082")
        );
        assert_eq!(
            work.merkle_root(&extranonce1, &extranonce2),
            reversed("7dac2c5666815c17a3b36427de37bb9d2e2c5ccec3f8633eb91a4205cb4c10ff")
        );
        let header =
            work.header(&extranonce1, &extranonce2, notify.version, notify.ntime, Nonce(1_889_418_792));
        let hash = sha256d(&header);
        assert_eq!(hash, reversed("00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee"));
        assert!(Target::from_compact(notify.nbits.0).unwrap().is_met_by(&hash));
    }

    /// The merkle root as consensus defines it: from the whole tree, level by level.
    fn whole_tree(mut level: Vec<[u8; 32]>) -> [u8; 32] {
        while level.len() > 1 {
            if level.len() % 2 == 1 {
                level.push(*level.last().unwrap());
            }
            level = level.chunks(2).map(|pair| sha256d(&pair.concat())).collect();
        }
        level[0]
    }

    proptest! {
        #[test]
        fn the_path_leads_to_the_root_of_the_whole_tree(
            coinbase: [u8; 32],
            txids in proptest::collection::vec(any::<[u8; 32]>(), 0..70),
        ) {
            let branches = merkle_branches(&txids);
            let mut all = vec![coinbase];
            all.extend(&txids);
            prop_assert_eq!(merkle_root(coinbase, &branches), whole_tree(all));
            prop_assert!(branches.len() <= 7);
        }

        #[test]
        fn the_hashed_prefix_changes_nothing(en1: [u8; 4], en2: [u8; 8], one: Vec<u8>, two: Vec<u8>) {
            let (mut notify, ..) = block_170();
            (notify.coinbase1, notify.coinbase2) = (one, two);
            let (en1, en2) = (Extranonce1::new(&en1).unwrap(), Extranonce2::new(&en2).unwrap());
            let work = Work::new(&notify);
            let plain = merkle_root(sha256d(&work.coinbase(&en1, &en2)), &notify.branches);
            prop_assert_eq!(work.merkle_root(&en1, &en2), plain);
        }
    }
}
