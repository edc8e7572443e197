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
        Self::with(Params::regtest())
    }

    fn with(params: Params) -> Self {
        let dir = tempfile::tempdir().unwrap();
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

/// On test networks the difficulty falls once no block has come for twice the spacing, and a block's bits must fit its
/// time.
#[test]
fn any_time_from_the_templates_least_to_its_latest_goes_with_its_bits_and_the_next_does_not() {
    let mut params = Params::regtest();
    params.pow.no_retarget = false;
    params.pow.target_timespan = 10 * params.pow.target_spacing;
    let mut world = World::with(params);
    world.mine(9);
    assert_eq!(template(&mut world.state, NOW).max_time, None, "at the limit anyway, so far");
    world.mine(1);
    let limit = world.state.params().pow.limit.to_compact_lossy();
    let spacing = world.state.params().pow.target_spacing;
    let usual = template(&mut world.state, NOW);
    let last = usual.max_time.unwrap();
    assert!(
        usual.bits != limit && last > usual.time + spacing && last < usual.time + 3 * spacing,
        "{usual:?}"
    );
    assert_eq!(template(&mut world.state, last.into()).bits, usual.bits);
    let easy = template(&mut world.state, u64::from(last) + 1);
    assert_eq!((easy.bits, easy.min_time, easy.max_time), (limit, last + 1, None));

    let payee = Payee { address: Address { kind: AddressKind::PubkeyHash, hash: [1; 20] }, key: None };
    let later = u64::from(last) + 1;
    for (made, time, verdict) in
        [(&usual, last + 1, Some("bad-diffbits")), (&easy, last, Some("bad-diffbits")), (&usual, last, None)]
    {
        let block = mine(&Template { time, ..made.clone() }, &payee, || false).unwrap();
        assert_eq!(world.state.submit(block, later).unwrap().answer().as_deref(), verdict, "{time}");
    }
    let next = template(&mut world.state, later);
    assert_eq!((next.bits, next.max_time), (usual.bits, Some(last + 2 * spacing)));
}
