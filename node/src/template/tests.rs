//! Templates of a chain with its mempool: whatever a template contains, a block may contain.

#![allow(clippy::unwrap_used)]

use bitcoin::{Amount, Block, OutPoint, Sequence, TxIn, TxOut, Witness, absolute, transaction};
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::params::Params;

use super::*;
use crate::chain::verdict::Submitted;
use crate::generate::{Payee, mine};
use crate::mempool::Reject;
use crate::storage::Storage;

const NOW: u64 = 1_700_000_000;

/// A regtest chain with its data directory.
struct World {
    state: ChainState,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
        let storage = Storage::open(dir.path(), &params).unwrap();
        let state = ChainState::load(Arc::new(params), Arc::new(storage)).unwrap();
        Self { state, _dir: dir }
    }

    /// Mines full templates.
    fn mine(&mut self, count: usize) {
        let payee = Payee { address: Address { kind: AddressKind::PubkeyHash, hash: [1; 20] }, key: None };
        for _ in 0..count {
            let block = mine(&template(&mut self.state, NOW), &payee, || false).unwrap();
            assert_eq!(self.state.submit(block, NOW).unwrap(), Submitted::Accepted);
        }
    }

    /// Mines a block with this coinbase only.
    fn mine_coinbase(&mut self, coinbase: &Transaction) {
        let payee = Payee { address: Address { kind: AddressKind::PubkeyHash, hash: [1; 20] }, key: None };
        let empty = template_with(&mut self.state, Contents::Empty, NOW);
        let Block { mut header, .. } = mine(&empty, &payee, || false).unwrap();
        let mut block = Block { header, txdata: vec![coinbase.clone()] };
        header.merkle_root = block.compute_merkle_root().unwrap();
        while !self.state.params().pow.limit.is_met_by(header.block_hash()) {
            header.nonce += 1;
        }
        block.header = header;
        assert_eq!(self.state.submit(block, NOW).unwrap(), Submitted::Accepted);
    }
}

/// A transaction with one input and an output that anyone can spend.
fn tx(previous_output: OutPoint, script_sig: &[u8], value: u64) -> Transaction {
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig: ScriptBuf::from_bytes(script_sig.to_vec()),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(value),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    }
}

/// BIP34 is off: a coinbase may appear again once its outputs are spent. A transaction that spent it has valid
/// inputs then, but no block may contain it again (BIP30).
#[test]
fn what_spends_a_coinbase_that_came_again_is_in_no_template_while_its_first_copy_is_unspent() {
    let mut world = World::new();
    let coinbase = tx(OutPoint::null(), &[4, 0xde, 0xad, 0xbe, 0xef], 100_000_000);
    let spender = tx(OutPoint { txid: coinbase.compute_txid(), vout: 0 }, &[], 99_900_000);
    world.mine_coinbase(&coinbase);
    world.mine(100);
    world.state.offer(spender.clone(), u64::MAX, NOW).unwrap().unwrap();
    world.mine(1);
    world.mine_coinbase(&coinbase);
    world.mine(100);
    let offered = world.state.offer(spender, u64::MAX, NOW).unwrap();
    assert_eq!(offered.err(), Some(Reject::AlreadyInChain));
    world.mine(1);
}
