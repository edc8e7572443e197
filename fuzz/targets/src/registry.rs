//! The registry: bytes select miners and admin actions; undoing all of it restores every earlier state.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, absolute, transaction,
};
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::license::coinbase::script_sig;
use iop_consensus::license::registry::Registry;
use iop_consensus::params::Params;

/// Most blocks, whatever the length of the input.
const MOST_BLOCKS: usize = 100;

/// Three bytes per block: the miner, the verb, the target.
pub(crate) fn registry(data: &[u8]) {
    let mut params = Params::devnet();
    // Low enough that both kinds of window occur.
    params.license.cap_change_height = 20;
    let mut registry = Registry::genesis(&params);
    let (mut before, mut undos) = (Vec::new(), Vec::new());
    for choice in data.chunks_exact(3).take(MOST_BLOCKS) {
        before.push(registry.clone());
        let block = block(choice[0], choice[1], choice[2], &params);
        let (undo, _) = registry.apply(&block, &params);
        undos.push(undo);
        let whitelisted = registry.licenses().filter(|(_, record)| record.whitelisted).count();
        assert_eq!(registry.globals().whitelisted as usize, whitelisted);
        let again = Registry::from_parts(
            *registry.globals(),
            registry.licenses().map(|(address, record)| (*address, *record)).collect(),
            (0..=registry.globals().height).filter_map(|h| Some((h, *registry.miner_of(h)?))).collect(),
        );
        assert_eq!(again, registry);
        for n in 0..4 {
            let _ = registry.eligibility(&license(n), &params);
        }
    }
    for (undo, before) in undos.iter().zip(&before).rev() {
        registry.undo(undo);
        assert_eq!(registry, *before);
    }
}

fn pubkey(n: u8) -> Vec<u8> {
    let mut key = vec![n; 33];
    key[0] = 2;
    key
}

fn license(n: u8) -> Address {
    Address::of_pubkey(&pubkey(n))
}

fn block(miner: u8, verb: u8, target: u8, params: &Params) -> Block {
    let miner = match miner % 6 {
        0 => params.license.admin_pubkeys[0].clone(),
        n => pubkey(n),
    };
    let mut txdata = vec![tx(script_sig(&[1, 2, 3], &[], &miner), vec![ScriptBuf::new()])];
    let verb = match verb % 8 {
        0..=2 => b"add".to_vec(),
        3 => b"rem".to_vec(),
        4 => [&b"enable_cap:"[..], &[verb]].concat(),
        5 => b"disable_cap".to_vec(),
        _ => Vec::new(),
    };
    if !verb.is_empty() {
        let target = match target % 8 {
            0 => params.license.admin_addresses[0],
            1 => Address { kind: AddressKind::ScriptHash, hash: [6; 20] },
            n => license(n),
        };
        let push = bitcoin::script::PushBytesBuf::try_from(verb).expect("verbs are short");
        let scripts = vec![ScriptBuf::new_op_return(push), target.script_pubkey(), target.script_pubkey()];
        txdata.push(tx(script_sig(&[], &[], &params.license.admin_pubkeys[0]), scripts));
    }
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::from_consensus(0),
        nonce: 0,
    };
    Block { header, txdata }
}

fn tx(script_sig: ScriptBuf, scripts: Vec<ScriptBuf>) -> Transaction {
    let output = scripts.into_iter().map(|script_pubkey| TxOut { value: Amount::ZERO, script_pubkey });
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: output.collect(),
    }
}
