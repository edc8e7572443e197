//! Compact blocks compared with the `bitcoin` crate's own BIP152, an independent SipHash, and arbitrary bytes.

#![allow(clippy::unwrap_used)]

use bitcoin::bip152::HeaderAndShortIds;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxMerkleNode, TxOut, Witness, absolute, transaction,
};
use iop_consensus::params::Params;
use proptest::prelude::*;

use super::*;

fn tx(salt: u32, witness: bool) -> Transaction {
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(bitcoin::Txid::from_byte_array([1; 32]), salt),
            script_sig: ScriptBuf::from_bytes(vec![0x51; salt as usize % 7]),
            sequence: Sequence::MAX,
            witness: if witness { Witness::from_slice(&[[salt as u8; 9]]) } else { Witness::new() },
        }],
        output: vec![TxOut { value: Amount::from_sat(u64::from(salt)), script_pubkey: ScriptBuf::new() }],
    }
}

/// A block with a valid merkle root, and otherwise invalid.
fn block(count: u32) -> Block {
    let txdata: Vec<_> = (0..count).map(|n| tx(n, n % 3 == 0)).collect();
    let mut header = Params::regtest().genesis.block().header;
    let leaves = txdata.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
    header.merkle_root = TxMerkleNode::from_byte_array(merkle::root(leaves).0);
    Block { header, txdata }
}

fn pool(block: &Block, which: impl Fn(usize) -> bool) -> Vec<Arc<Transaction>> {
    let known = block.txdata.iter().enumerate().filter(|(index, _)| which(*index));
    known.map(|(_, tx)| Arc::new(tx.clone())).collect()
}

fn with_ids(txs: &[Arc<Transaction>]) -> Vec<(Wtxid, &Arc<Transaction>)> {
    txs.iter().map(|tx| (tx.compute_wtxid(), tx)).collect()
}

fn compact(block: &Block) -> CompactBlock {
    CompactBlock::of(block, 77, Version::Two).unwrap()
}

#[test]
fn a_block_comes_together_from_the_mempool_alone() {
    let block = block(40);
    let known = pool(&block, |index| index > 0);
    let result = reconstruct(compact(&block), with_ids(&known), []);
    assert_eq!(result, Reconstruction::Block(block.clone()));
    let known = pool(&block, |index| index % 2 == 1);
    let extra = pool(&block, |index| index % 2 == 0);
    assert_eq!(
        reconstruct(compact(&block), with_ids(&known), with_ids(&extra)),
        Reconstruction::Block(block)
    );
}

#[test]
fn what_is_missing_is_asked_for_and_filled_in() {
    let block = block(40);
    let known = pool(&block, |index| index % 5 != 0);
    let Reconstruction::Missing(partial) = reconstruct(compact(&block), with_ids(&known), []) else {
        panic!()
    };
    assert_eq!(partial.request().indexes, [5, 10, 15, 20, 25, 30, 35]);
    assert_eq!((partial.missing(), partial.header()), (7, &block.header));
    let request = BlockTransactionsRequest::decode(&mut partial.request().encode().as_slice()).unwrap();
    let answer = request.answer(&block).unwrap();
    let answer = BlockTransactions::decode(&mut answer.encode(Version::Two).as_slice()).unwrap();
    assert_eq!(answer.block_hash, block.block_hash());
    for wrong in [&answer.transactions[1..], &[&answer.transactions[..], &[tx(1, false)]].concat()] {
        assert!(matches!(partial.clone().fill(wrong.to_vec()), Reconstruction::Invalid(_)));
    }
    let mut swapped = answer.transactions.clone();
    swapped.swap(0, 1);
    assert!(matches!(partial.clone().fill(swapped), Reconstruction::Failed(_)), "perhaps a collision");
    assert_eq!(partial.fill(answer.transactions), Reconstruction::Block(block.clone()));
    let beyond = BlockTransactionsRequest { block_hash: block.block_hash(), indexes: vec![39, 40] };
    assert_eq!(beyond.answer(&block), None);
}

#[test]
fn version_one_leaves_the_witnesses_out() {
    let block = block(9);
    let first = CompactBlock::of(&block, 5, Version::One).unwrap();
    let keys = ShortId::calculate_siphash_keys(&block.header, 5);
    let of_txid = short_id(keys, block.txdata[3].compute_txid().as_byte_array());
    assert_eq!(first.short_ids[2], of_txid);
    let bytes = first.encode(Version::One);
    let read = CompactBlock::decode(&mut bytes.as_slice()).unwrap();
    assert!(read.prefilled[0].tx.input[0].witness.is_empty());
    assert_eq!(read.prefilled[0].tx.compute_txid(), block.txdata[0].compute_txid());
}

#[test]
fn short_ids_that_collide_ask_for_the_whole_block() {
    let mut message = compact(&block(4));
    message.short_ids[1] = message.short_ids[0];
    assert!(matches!(reconstruct(message, [], []), Reconstruction::Failed(_)));
    // Two known transactions with the same short id: neither is used.
    let block = block(3);
    let message = compact(&block);
    let (right, wrong) = (Arc::new(block.txdata[1].clone()), Arc::new(tx(99, false)));
    let right_id = right.compute_wtxid();
    let mut places = vec![Some(Arc::new(block.txdata[0].clone())), None, None];
    let keys = ShortId::calculate_siphash_keys(&message.header, message.nonce);
    let wanted = HashMap::from([
        (short_id(keys, right_id.as_byte_array()), 1),
        (short_id(keys, wrong.compute_wtxid().as_byte_array()), 1),
        (0, 2),
    ]);
    let mut search = Search { keys, wanted, places: &mut places, found: HashMap::new() };
    assert!(search.offer(right_id, &right).is_continue());
    assert!(search.offer(right_id, &right).is_continue());
    assert_eq!(search.places[1].as_ref(), Some(&right), "the same one twice is no doubt");
    assert!(search.offer(wrong.compute_wtxid(), &wrong).is_continue());
    assert!(search.offer(right_id, &right).is_continue());
    assert_eq!(search.places[1], None);
}

#[test]
fn a_message_that_no_honest_peer_sends_is_invalid() {
    let good = compact(&block(6));
    let with = |change: &dyn Fn(&mut CompactBlock)| {
        let mut message = good.clone();
        change(&mut message);
        matches!(reconstruct(message, [], []), Reconstruction::Invalid(_))
    };
    assert!(!with(&|_| {}));
    assert!(with(&|message| message.header.bits = bitcoin::CompactTarget::from_consensus(0)));
    assert!(with(&|message| {
        message.short_ids.clear();
        message.prefilled.clear();
    }));
    assert!(with(&|message| message.prefilled[0].skip = 6), "a place that nothing leads to");
    assert!(!with(&|message| message.prefilled[0].skip = 5), "the last place");
    assert!(with(&|message| message.prefilled[0].skip = u16::MAX));
    assert!(with(&|message| message.short_ids = (0..MAX_TRANSACTIONS as u64).collect()));
    assert!(with(&|message| {
        message.prefilled[0].tx.input.clear();
        message.prefilled[0].tx.output.clear();
    }));
}

#[test]
fn short_ids_are_siphash_2_4_of_another_implementation() {
    #[expect(deprecated, reason = "the standard library's SipHash-2-4 is what the test needs")]
    fn other(k0: u64, k1: u64, bytes: &[u8]) -> u64 {
        use std::hash::Hasher;
        let mut hasher = std::hash::SipHasher::new_with_keys(k0, k1);
        hasher.write(bytes);
        hasher.finish()
    }
    for n in 0..50u8 {
        let (k0, k1) = (u64::from(n) << 40 | 7, u64::MAX / (u64::from(n) + 1));
        assert_eq!(short_id((k0, k1), &[n; 32]), other(k0, k1, &[n; 32]) & 0xffff_ffff_ffff);
    }
}

#[test]
fn a_compact_block_reads_in_the_bitcoin_crate_and_the_other_way_round() {
    for (version, number) in [(Version::One, 1), (Version::Two, 2)] {
        let block = block(300);
        let ours = CompactBlock::of(&block, 123, version).unwrap();
        let theirs = HeaderAndShortIds::from_block(&block, 123, number, &[]).unwrap();
        let read: HeaderAndShortIds = deserialize(&ours.encode(version)).unwrap();
        assert_eq!((&read.short_ids, read.nonce), (&theirs.short_ids, 123));
        // The crate's version 1 includes the witness in prefilled transactions.
        let theirs = if version == Version::One { read } else { theirs };
        let ours = CompactBlock::decode(&mut ours.encode(version).as_slice()).unwrap();
        assert_eq!(CompactBlock::decode(&mut serialize(&theirs).as_slice()).unwrap(), ours);
    }
    let request =
        BlockTransactionsRequest { block_hash: block(1).block_hash(), indexes: vec![0, 1, 7, 65_535] };
    let theirs: bitcoin::bip152::BlockTransactionsRequest = deserialize(&request.encode()).unwrap();
    assert_eq!(theirs.indexes, [0, 1, 7, 65_535]);
}

#[test]
fn counts_without_the_bytes_for_them_are_refused_before_anything_is_kept() {
    let header = serialize(&block(1).header);
    for count in [4u64, 65_536, 65_537, 4_000_000, u64::MAX] {
        let count = serialize(&VarInt(count));
        let short_ids = [&header[..], &[0; 8], &count, &[0; 18]].concat();
        assert!(CompactBlock::decode(&mut short_ids.as_slice()).is_err());
        let prefilled = [&header[..], &[0; 8], &[0], &count, &[0; 30]].concat();
        assert!(CompactBlock::decode(&mut prefilled.as_slice()).is_err());
        let request = [&[0; 32][..], &count, &[0; 3]].concat();
        assert!(BlockTransactionsRequest::decode(&mut request.as_slice()).is_err());
        assert!(
            BlockTransactions::decode(&mut [&[0; 32][..], &count, &[0; 30]].concat().as_slice()).is_err()
        );
    }
    for overflow in [&[2, 0xfd, 0xff, 0xff, 0][..], &[1, 0xfe, 0, 0, 1, 0]] {
        let request = [&[0; 32][..], overflow].concat();
        assert!(BlockTransactionsRequest::decode(&mut request.as_slice()).is_err());
    }
    assert_eq!(CompactBlock::of(&Block { header: block(1).header, txdata: vec![] }, 0, Version::Two), None);
}

#[test]
fn the_ring_of_extra_transactions_keeps_the_last_hundred_that_are_small() {
    let mut extra = ExtraTransactions::default();
    (0..150).for_each(|salt| extra.add(Arc::new(tx(salt, false))));
    let mut large = tx(200, false);
    large.input[0].witness = Witness::from_slice(&[[0u8; 0]; 30_000]);
    extra.add(Arc::new(large));
    let kept: Vec<_> = extra.iter().map(|(wtxid, _)| wtxid).collect();
    assert_eq!(kept, (50..150).map(|salt| tx(salt, false).compute_wtxid()).collect::<Vec<_>>());
}

/// Arbitrary messages that belong to no block.
fn messages() -> impl Strategy<Value = CompactBlock> {
    let prefilled = prop::collection::vec((any::<u16>(), any::<u32>(), any::<bool>()), 0..6);
    let short_ids = prop::collection::vec(0..1u64 << 48, 0..40);
    (any::<u64>(), short_ids, prefilled).prop_map(|(nonce, short_ids, prefilled)| CompactBlock {
        header: Params::regtest().genesis.block().header,
        nonce,
        short_ids,
        prefilled: prefilled
            .into_iter()
            .map(|(skip, salt, witness)| Prefilled { skip, tx: tx(salt, witness) })
            .collect(),
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(message in messages(), gaps in prop::collection::vec(0..200u16, 0..50)) {
        let bytes = message.encode(Version::Two);
        let mut rest = bytes.as_slice();
        prop_assert_eq!(&CompactBlock::decode(&mut rest).unwrap(), &message);
        prop_assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            prop_assert!(CompactBlock::decode(&mut &bytes[..cut]).is_err());
        }
        let theirs: HeaderAndShortIds = deserialize(&bytes).unwrap();
        prop_assert_eq!(serialize(&theirs), bytes);
        let indexes = gaps.iter().scan(0, |next, gap| {
            let index = *next + gap;
            *next = index + 1;
            Some(index)
        });
        let request = BlockTransactionsRequest { block_hash: message.header.block_hash(), indexes: indexes.collect() };
        prop_assert_eq!(BlockTransactionsRequest::decode(&mut request.encode().as_slice()).unwrap(), request);
        let answer = BlockTransactions {
            block_hash: message.header.block_hash(),
            transactions: message.prefilled.iter().map(|prefilled| prefilled.tx.clone()).collect(),
        };
        prop_assert_eq!(BlockTransactions::decode(&mut answer.encode(Version::Two).as_slice()).unwrap(), answer);
    }

    /// Altered messages are refused, or encode to the same bytes that were decoded.
    #[test]
    fn altered_bytes_never_panic_and_what_reads_is_written_back(
        message in messages(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        known in prop::collection::vec((any::<u32>(), any::<bool>()), 0..20),
    ) {
        let mut bytes = message.encode(Version::Two);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut rest = bytes.as_slice();
        if let Ok(read) = CompactBlock::decode(&mut rest) {
            let used = &bytes[..bytes.len() - rest.len()];
            // The crate rejects some encodings that the reference accepts.
            if let Ok(theirs) = deserialize::<HeaderAndShortIds>(used) {
                prop_assert_eq!(serialize(&theirs), read.encode(Version::Two));
                prop_assert_eq!(read.encode(Version::Two), used);
            }
            let known: Vec<_> = known.into_iter().map(|(salt, witness)| Arc::new(tx(salt, witness))).collect();
            if let Reconstruction::Missing(partial) = reconstruct(read, with_ids(&known), []) {
                prop_assert_eq!(partial.request().indexes.len(), partial.missing());
                let _ = partial.fill(Vec::new());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let header = serialize(&block(1).header);
        let _ = CompactBlock::decode(&mut [&header[..], &bytes].concat().as_slice());
        let _ = BlockTransactionsRequest::decode(&mut bytes.as_slice());
        let _ = BlockTransactions::decode(&mut bytes.as_slice());
    }

    #[test]
    fn any_block_comes_together_from_any_part_of_it(count in 1..80u32, known in any::<u128>()) {
        let block = block(count);
        let known = pool(&block, |index| known >> index & 1 == 1);
        let result = match reconstruct(compact(&block), with_ids(&known), []) {
            Reconstruction::Missing(partial) => {
                let answer = partial.request().answer(&block).unwrap();
                partial.fill(answer.transactions)
            }
            other => other,
        };
        prop_assert_eq!(result, Reconstruction::Block(block));
    }
}
