//! Genesis blocks, rebuilt from their parts (`CreateGenesisBlock`).

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_CHECKSIG;
use bitcoin::pow::CompactTarget;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness,
    absolute, transaction,
};

use crate::COIN;

/// The text in the coinbase, on every network.
const HEADLINE: &[u8] = b"La Nacion May 16th 2016 - Sarmiento cerca del descenso";
/// The key that the unspendable output pays to, on every network.
const OUTPUT_KEY: &str = "04ce49f9cdc8d23176c818fd7e27e7b614d128a47acfdad0e4542300e7efbd8879f1337af3188c0dcb0747fdf26d0cb3b0fca0f4e5d7aec53c43f4a933f570ae86";
/// The first push of the coinbase: Bitcoin's first difficulty bits as a script number.
const FIRST_BITS: [u8; 4] = 486_604_799u32.to_le_bytes();

/// The fields in which genesis blocks differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenesisParts {
    /// `nTime`, seconds since 1970.
    pub time: u32,
    /// `nNonce`.
    pub nonce: u32,
    /// `nBits`.
    pub bits: u32,
}

impl GenesisParts {
    /// Builds the block. Its coinbase pays 50 coins that can never be spent, since genesis is not connected.
    pub fn block(&self) -> Block {
        let coinbase = coinbase();
        let header = Header {
            version: Version::ONE,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::from_byte_array(coinbase.compute_txid().to_byte_array()),
            time: self.time,
            bits: CompactTarget::from_consensus(self.bits),
            nonce: self.nonce,
        };
        Block { header, txdata: vec![coinbase] }
    }
}

fn coinbase() -> Transaction {
    // Written byte by byte: the middle push is the number 4 as data, which no script builder would emit.
    let mut script = vec![FIRST_BITS.len() as u8];
    script.extend_from_slice(&FIRST_BITS);
    script.extend_from_slice(&[1, 4, HEADLINE.len() as u8]);
    script.extend_from_slice(HEADLINE);
    let key: [u8; 65] =
        hex::decode(OUTPUT_KEY).expect("the constant is hex").try_into().expect("the constant has 65 bytes");
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(50 * COIN),
            script_pubkey: Builder::new().push_slice(key).push_opcode(OP_CHECKSIG).into_script(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use crate::difficulty::has_proof_of_work;
    use crate::params::Params;

    #[test]
    fn the_genesis_hashes_of_the_reference() {
        let merkle_root = "951bc46d2da95047fb4a2c0f9b7d6e45591c3ffb49ab2fdffb8e96ef2b8f2be1";
        for (params, hash) in [
            (Params::main(), "00000000bf5f2ee556cb9be8be64e0776af14933438dbb1af72c41bfb6c82db3"),
            (Params::test(), "000000006f2bb863230cda4f4fbee520314077e599a90b9c6072ea2018d7f3a3"),
            (Params::regtest(), "13ac5baa4b3656eec3ae4ab24b44ae602b9d1e549d9f1f238c1bfce54571b8b5"),
        ] {
            let block = params.genesis.block();
            assert_eq!(block.header.merkle_root.to_string(), merkle_root);
            assert_eq!(block.block_hash().to_string(), hash, "{}", params.name);
        }
    }

    #[test]
    fn every_built_in_genesis_has_its_work() {
        for name in Params::NAMES {
            let params = Params::by_name(name).expect("a listed name is known");
            let header = params.genesis.block().header;
            assert!(has_proof_of_work(&header.block_hash(), header.bits, params.pow.limit), "{name}");
        }
    }
}
