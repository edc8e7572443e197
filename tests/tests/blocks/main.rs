//! Blocks that break one rule each, submitted to the running node: it returns the reference's reason, its tip stays,
//! and a block that just meets the rule is accepted. Modelled on Core's functional tests (`p2p-fullblocktest`,
//! `invalidblockrequest`, `bip65`, `bip66`, `bip68-112-113`, `nulldummy`, `p2p-segwit`).

#![allow(clippy::unwrap_used)]

mod scripts;
mod structure;

use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, TxMerkleNode, TxOut, Witness,
};
use bitcoin::{Txid, absolute, transaction};
use iop_consensus::license::coinbase::message;
use iop_consensus::script::legacy_sigops;
use iop_tests::forge::lock::{Lock, push};
use iop_tests::forge::stage::Stage;
use iop_tests::forge::{ADMIN, Draft, STRANGER, seal, transaction, work};

const SCRIPT: &str = "block-validation-failed";
const MISSING: &str = "bad-txns-inputs-missingorspent";
const MAX_MONEY: u64 = 2_100_000_000_000_000;

/// A chain without license rules and soft forks, with mature coins.
fn plain() -> Stage {
    Stage::start(1_000_000, 1_000_000, 0, 165)
}

/// The same with all soft forks active.
fn with_forks() -> Stage {
    Stage::start(1_000_000, 1_000_000, 3, 431)
}

fn output(value: u64, lock: Lock, stage: &Stage) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: lock.script(&stage.forge.keys) }
}

/// A draft with one signed transaction that pays 5 base units to an output that anyone can spend.
fn with_spend(stage: &mut Stage, lock: Lock) -> Draft {
    let mut draft = stage.draft();
    let coin = stage.coin(&draft, lock);
    let tx = stage.forge.spend(&draft, &[coin], vec![(5, Lock::Anyone.script(&stage.forge.keys))]);
    draft.txs.push(tx);
    draft
}

/// Pays to the lock and spends that output in the same block.
fn through(stage: &mut Stage, lock: Lock, time: u32, sequence: u32) -> Draft {
    stage.forge.know(lock);
    let mut draft = with_spend(stage, Lock::Open);
    draft.txs[0].output[0] = output(5, lock, stage);
    let outpoint = OutPoint { txid: draft.txs[0].compute_txid(), vout: 0 };
    let mut tx = transaction(vec![outpoint], vec![(5, ScriptBuf::new())]);
    tx.version = transaction::Version::TWO;
    tx.lock_time = absolute::LockTime::from_consensus(time);
    tx.input[0].sequence = Sequence(sequence);
    stage.forge.sign(&draft, &mut tx);
    draft.txs.push(tx);
    draft
}

#[test]
fn soft_forks() {
    let mut stage = with_forks();
    let mut draft = with_spend(&mut stage, Lock::Multisig(1, 2));
    let script = draft.txs[0].input[0].script_sig.to_bytes();
    draft.txs[0].input[0].script_sig = ScriptBuf::from_bytes([&[0x51], &script[1..]].concat());
    stage.refuses(SCRIPT, draft);
    // BIP112: the operation requires five blocks; BIP68 then requires them of the chain, and the coin is new.
    let draft = through(&mut stage, Lock::Csv(5, 2), 0, 4);
    stage.refuses("bad-txns-nonfinal", draft);
    let draft = through(&mut stage, Lock::Csv(5, 2), 0, 0);
    stage.refuses(SCRIPT, draft);
    let draft = through(&mut stage, Lock::Csv(0, 2), 0, 0);
    stage.accepts(draft);
    // BIP68: in blocks since the coin; version 1 and the disable bit are exempt.
    for (version, flags, blocks, reason) in [
        (2, 0, 1, "bad-txns-nonfinal"),
        (-1, 0, 1, "bad-txns-nonfinal"),
        (2, 1 << 22, 0, "bad-txns-nonfinal"),
        (1, 0, 1, ""),
        (2, 1 << 31, 1, ""),
        (2, 0, 0, ""),
    ] {
        let mut draft = stage.draft();
        let coin = stage.coin_of(&draft, |coin| matches!(coin.lock, Lock::Anyone | Lock::Open));
        let made = stage.forge.coin(&draft, &coin).unwrap().height;
        let mut tx = transaction(vec![coin], vec![(5, Lock::Wsh(5).script(&stage.forge.keys))]);
        tx.version = transaction::Version(version);
        // One unit of 512 seconds has passed for every old coin; the largest span has not.
        let span = if flags == 1 << 22 { 0xffff } else { draft.height - made + blocks };
        tx.input[0].sequence = Sequence(flags | span);
        stage.forge.sign(&draft, &mut tx);
        draft.txs.push(tx);
        stage.judges(reason, draft);
    }
    // BIP113: lock times are compared with the median time past.
    let median = stage.forge.median_time(stage.tip);
    for (time, reason) in [(median, "bad-txns-nonfinal"), (median - 1, "")] {
        let mut draft = with_spend(&mut stage, Lock::Anyone);
        draft.txs[0].lock_time = absolute::LockTime::from_consensus(time);
        draft.txs[0].input[0].sequence = Sequence::ZERO;
        stage.judges(reason, draft);
    }
}

#[test]
fn licenses() {
    let mut stage = Stage::start(110, 150, 0, 165);
    type Script = fn(&Stage, &Draft, [u8; 32]) -> Vec<u8>;
    let cases: [(&str, Script); 6] = [
        ("bad-CB-signature", |stage, _, digest| {
            let key = &stage.forge.keys[ADMIN];
            [push(&key.sign(digest)), push(&key.pubkey)].concat()
        }),
        ("bad-CB-signature", |_, draft, _| vec![2, 1, draft.height as u8, 0x51]),
        ("bad-CB-signature", |stage, _, digest| {
            let signature = [stage.forge.keys[STRANGER].sign(digest), vec![1]].concat();
            [push(&signature), push(&stage.forge.keys[ADMIN].pubkey)].concat()
        }),
        ("bad-CB-publickey", |stage, _, digest| {
            push(&[stage.forge.keys[ADMIN].sign(digest), vec![1]].concat())
        }),
        ("bad-CB-publickey", |stage, _, digest| {
            let key = &stage.forge.keys[ADMIN];
            [push(&[key.sign(digest), vec![1]].concat()), push(&key.pubkey), vec![0x61]].concat()
        }),
        // This makes the reference abort: an op without data first, and a valid key last.
        ("bad-CB-signature", |stage, _, _| [vec![0x61], push(&stage.forge.keys[ADMIN].pubkey)].concat()),
    ];
    for (reason, script) in cases {
        let mut draft = stage.draft();
        let script = script(&stage, &draft, message(&draft.coinbase));
        draft.coinbase.input[0].script_sig = ScriptBuf::from_bytes(script);
        stage.refuses(reason, draft);
    }
    for key in [STRANGER, 1, 7] {
        let mut draft = stage.draft();
        draft.miner = Some(key);
        stage.refuses("bad-CB-miner", draft);
    }
    // A hash type of any value, a high S, and a truncated push before the key are allowed.
    let mut draft = stage.draft();
    let digest = message(&draft.coinbase);
    let high = [stage.forge.keys[ADMIN].sign_high(digest), vec![0xee]].concat();
    let key = push(&stage.forge.keys[ADMIN].pubkey);
    draft.coinbase.input[0].script_sig = ScriptBuf::from_bytes([push(&high), vec![0x4b], key].concat());
    stage.accepts(draft);
    // The license is valid and everything else is not: the license is checked first.
    let mut draft = with_spend(&mut stage, Lock::Open);
    draft.txs[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0]);
    draft.miner = Some(STRANGER);
    stage.refuses("bad-CB-miner", draft);
}
