//! Synthetic chains: valid from genesis on, licensed, and the same for the same seed.
//!
//! Lives here: a chain's specification ([`Spec`], [`network_file`]), the chain under construction ([`chain`]), the two
//! kinds of contents ([`load`]), and the form in which block files hold it ([`frame`]). Does not live here: any rule:
//! IoP Core and `iop-node` validate the result.
//! Data goes: seed -> load -> transactions -> block with a signed coinbase and its proof of work -> block file.

pub mod chain;
pub mod load;

use bitcoin::consensus::encode::serialize;
use bitcoin::{Block, BlockHash};
use iop_consensus::params::Params;

use chain::{Chain, secret_key};
use load::Load;

/// Height above which blocks must be licensed.
pub const ACTIVATION_HEIGHT: u32 = 100;
/// The licensing window slides from this height on.
pub const CAP_CHANGE_HEIGHT: u32 = 200;
/// Blocks before the load starts: block 1 pays for all of it and matures at 101; then the licenses are added, the cap
/// is turned on, and the money is distributed.
pub const SETUP_BLOCKS: u32 = 110;

/// The contents of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Signed P2PKH inputs, two per transaction with two outputs: time goes to signatures.
    Signatures,
    /// Pay-to-script-hash outputs that anyone can spend, eight spent and twenty created per transaction: time goes to
    /// finding, adding and removing coins.
    Coins,
}

/// Specification of a chain.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The contents of its blocks.
    pub shape: Shape,
    /// Determines every key, coin and amount.
    pub seed: u64,
    /// Blocks with contents, each licensed; [`SETUP_BLOCKS`] precede them.
    pub blocks: u32,
    /// Inputs in all of these blocks together.
    pub inputs: u32,
    /// Empty blocks at the end: with 2,016 or more, all others are buried under two weeks' work.
    pub tail: u32,
}

/// Summary of a generated chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Height of the newest block.
    pub height: u32,
    /// Its hash.
    pub tip: BlockHash,
    /// Inputs of all blocks, except those of coinbases.
    pub inputs: u64,
    /// Outputs of all blocks.
    pub outputs: u64,
    /// Coins that the load can still spend.
    pub coins: u64,
}

/// The network file of these chains: regtest with a published admin key and licensing from a low height.
pub fn network_file() -> String {
    let admin = secret_key("admin");
    let prefixes = Params::regtest().prefixes;
    format!(
        "base = \"regtest\"\nname = \"synthetic\"\nlicense_activation_height = {ACTIVATION_HEIGHT}\n\
         cap_change_height = {CAP_CHANGE_HEIGHT}\nadmin_pubkeys = [\"{}\"]\nadmin_addresses = [\"{}\"]\n",
        hex(admin.pubkey()),
        admin.address().to_base58(&prefixes)
    )
}

/// The same network for a build of IoP Core whose regtest reads its licensing from the environment, as assignments for
/// a shell.
pub fn reference_environment() -> String {
    let admin = secret_key("admin");
    format!(
        "IOP_LICENSE_ACTIVATION_HEIGHT={ACTIVATION_HEIGHT} IOP_CAP_CHANGE_HEIGHT={CAP_CHANGE_HEIGHT} \
         IOP_ADMIN_PUBKEYS={} IOP_ADMIN_ADDRESSES={}",
        hex(admin.pubkey()),
        admin.address().to_base58(&Params::regtest().prefixes)
    )
}

/// The network of these chains.
pub fn network() -> Params {
    Params::from_network_file(&network_file()).expect("our own network file is valid")
}

/// Makes a chain and passes it on block by block, without genesis.
///
/// # Errors
/// Those of `emit`.
pub fn generate<E>(spec: &Spec, mut emit: impl FnMut(&Block) -> Result<(), E>) -> Result<Summary, E> {
    let mut chain = Chain::new();
    let mut summary = Summary { height: 0, tip: chain.tip(), inputs: 0, outputs: 0, coins: 0 };
    let mut count = |block: &Block| {
        summary.inputs += block.txdata.iter().skip(1).map(|tx| tx.input.len() as u64).sum::<u64>();
        summary.outputs += block.txdata.iter().map(|tx| tx.output.len() as u64).sum::<u64>();
        emit(block)
    };
    let mut load = Load::new(spec.shape, spec.seed);
    for block in load.set_up(&mut chain) {
        count(&block)?;
    }
    let mut left = u64::from(spec.inputs);
    let mut blocks = spec.blocks;
    while blocks > 0 {
        // A group spends only coins from before it, so that all its transactions can be made concurrently.
        let group = blocks.min(load::GROUP);
        let inputs: Vec<usize> = (0..group)
            .map(|n| {
                let share = left / u64::from(blocks - n);
                left -= share;
                usize::try_from(share).expect("a block's inputs fit in memory")
            })
            .collect();
        for transactions in load.group(&inputs) {
            count(&chain.extend(transactions))?;
        }
        blocks -= group;
    }
    for _ in 0..spec.tail {
        count(&chain.extend(Vec::new()))?;
    }
    (summary.height, summary.tip, summary.coins) = (chain.height(), chain.tip(), load.coins() as u64);
    Ok(summary)
}

/// A block in the format of block files: magic, length (four bytes, little-endian), block.
pub fn frame(block: &Block, magic: [u8; 4]) -> Vec<u8> {
    let bytes = serialize(block);
    let length = u32::try_from(bytes.len()).expect("a block has a few megabytes");
    [&magic[..], &length.to_le_bytes(), &bytes].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashMap;
    use std::convert::Infallible;

    fn blocks(shape: Shape, seed: u64) -> (Vec<Block>, Summary) {
        let mut all = Vec::new();
        let spec = Spec { shape, seed, blocks: 70, inputs: 1_000, tail: 3 };
        let summary = generate(&spec, |block| {
            all.push(block.clone());
            Ok::<(), Infallible>(())
        });
        (all, summary.unwrap())
    }

    #[test]
    fn the_same_seed_makes_the_same_chain_and_another_seed_another() {
        for shape in [Shape::Signatures, Shape::Coins] {
            assert!(blocks(shape, 7).0 == blocks(shape, 7).0);
            assert!(blocks(shape, 7).0.last() != blocks(shape, 8).0.last());
        }
    }

    #[test]
    fn blocks_follow_each_other_and_spend_what_exists_once_and_as_much_as_was_asked() {
        for shape in [Shape::Signatures, Shape::Coins] {
            let (blocks, summary) = blocks(shape, 1);
            assert_eq!(blocks.len() as u32, SETUP_BLOCKS + 70 + 3);
            let mut previous = network().genesis.block().block_hash();
            let (mut coins, mut loaded) = (HashMap::new(), 0);
            for (height, block) in (1..).zip(&blocks) {
                assert_eq!(block.header.prev_blockhash, previous);
                assert!(block.check_merkle_root());
                iop_consensus::block::check(block, &network()).unwrap();
                previous = block.block_hash();
                for (index, tx) in block.txdata.iter().enumerate() {
                    let spent: u64 = if index == 0 {
                        iop_consensus::subsidy::subsidy(height, 150)
                    } else {
                        tx.input.iter().map(|input| coins.remove(&input.previous_output).unwrap()).sum()
                    };
                    assert!(tx.output.iter().map(|output| output.value.to_sat()).sum::<u64>() <= spent);
                    loaded += if index > 0 && height > SETUP_BLOCKS { tx.input.len() } else { 0 };
                    let txid = tx.compute_txid();
                    coins.extend(
                        tx.output
                            .iter()
                            .zip(0..)
                            .map(|(output, vout)| (bitcoin::OutPoint { txid, vout }, output.value.to_sat())),
                    );
                }
            }
            assert_eq!((loaded, summary.height), (1_000, SETUP_BLOCKS + 70 + 3));
            assert_eq!(summary.tip, previous);
            assert!(blocks[blocks.len() - 3..].iter().all(|block| block.txdata.len() == 1));
        }
    }
}
