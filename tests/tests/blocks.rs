//! Blocks that break one rule each, offered to the running node: it gives the reference's reason, its tip stays, and
//! the block that keeps the rule narrowly is taken. After Core's functional tests (`p2p-fullblocktest`,
//! `invalidblockrequest`, `bip65`, `bip66`, `bip68-112-113`, `nulldummy`, `p2p-segwit`).

#![allow(clippy::unwrap_used)]

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

/// A draft with one signed transaction that pays 5 base units to anyone.
fn with_spend(stage: &mut Stage, lock: Lock) -> Draft {
    let mut draft = stage.draft();
    let coin = stage.coin(&draft, lock);
    let tx = stage.forge.spend(&draft, &[coin], vec![(5, Lock::Anyone.script(&stage.forge.keys))]);
    draft.txs.push(tx);
    draft
}

#[test]
fn headers() {
    let mut stage = plain();
    for version in [0, 1, 4, 0x1fff_ffff, i32::MIN, -1] {
        let mut draft = stage.draft();
        draft.version = version;
        stage.refuses(&format!("bad-version(0x{version:08x})"), draft);
    }
    let median = stage.forge.median_time(stage.tip);
    for (time, reason) in [(median, "time-too-old"), (u32::MAX, "time-too-new")] {
        let mut draft = stage.draft();
        draft.time = time;
        // Time comes before the version.
        draft.version = 1;
        stage.refuses(reason, draft);
    }
    for (bits, reason) in [
        (0x207f_fffe, "bad-diffbits"),
        (0x2100_8000, "high-hash"),
        (0x20ff_ffff, "high-hash"),
        (0, "high-hash"),
        (0xff12_3456, "high-hash"),
    ] {
        let mut draft = stage.draft();
        draft.bits = CompactTarget::from_consensus(bits);
        draft.version = 1;
        stage.refuses(reason, draft);
    }
    let draft = stage.draft();
    let mut block = stage.forge.finish(draft);
    block.header.prev_blockhash = BlockHash::from_byte_array([7; 32]);
    work(&mut block);
    stage.refuses_block("prev-blk-not-found", &block);
    let mut draft = stage.draft();
    (draft.time, draft.version) = (median + 1, 0x7fff_ffff);
    stage.accepts(draft);
}

#[test]
fn merkle_tree_and_sizes() {
    let mut stage = plain();
    let mut draft = with_spend(&mut stage, Lock::Anyone);
    let coin = stage.coin(&draft, Lock::Pkh(1));
    let tx = stage.forge.spend(&draft, &[coin], vec![(5, ScriptBuf::new())]);
    draft.txs.push(tx);
    let parent = draft.parent;
    let good = stage.forge.finish(draft);
    let mut block = good.clone();
    block.header.merkle_root = TxMerkleNode::all_zeros();
    work(&mut block);
    stage.refuses_block("bad-txnmrklroot", &block);
    // The last transaction once more leaves the root as it was, and must not spoil the block itself.
    let mut block = good.clone();
    block.txdata.push(block.txdata[2].clone());
    stage.refuses_block("bad-txns-duplicate", &block);
    let mut block = good.clone();
    block.txdata.push(block.txdata[0].clone());
    seal(&mut block);
    stage.refuses_block("bad-cb-multiple", &block);
    let mut block = good.clone();
    block.txdata.remove(0);
    seal(&mut block);
    stage.refuses_block("-22: Block does not start with a coinbase", &block);
    block.txdata.clear();
    stage.refuses_block("-22: Block does not start with a coinbase", &block);
    stage.accepts_block(parent, good);

    for (size, reason) in [(1_000_001, "bad-blk-length"), (1_000_000, "")] {
        let mut draft = with_spend(&mut stage, Lock::Open);
        let mut pad = |count: usize| {
            draft.txs[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; count]);
            stage.forge.sign(&draft.clone(), &mut draft.txs[0]);
            serialize(&stage.forge.finish(draft.clone())).len()
        };
        let more = size - pad(900_000);
        assert_eq!(pad(900_000 + more), size);
        stage.judges(reason, draft);
    }
}

/// Larger than any message between peers may be: read all the same, and refused for what it is.
#[test]
fn blocks_of_more_than_four_million_bytes() {
    let mut stage = plain();
    let mut draft = with_spend(&mut stage, Lock::Open);
    draft.txs[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; 4_100_000]);
    stage.refuses("bad-blk-length", draft);
    let draft = stage.draft();
    let mut block = stage.forge.finish(draft);
    block.txdata[0].input[0].witness = Witness::from_slice(&[vec![0; 4_100_000]]);
    stage.refuses_block("unexpected-witness", &block);
}

#[test]
fn coinbases() {
    let mut stage = plain();
    let overpaid = |stage: &mut Stage, more: u64| {
        let mut draft = with_spend(stage, Lock::Open);
        // All but 5 base units of the coin are fee.
        let coin = draft.txs[0].input[0].previous_output;
        let fee = stage.forge.coin(&draft, &coin).unwrap().value - 5;
        draft.coinbase.output[0].value += Amount::from_sat(fee + more);
        draft
    };
    let draft = overpaid(&mut stage, 1);
    stage.refuses("bad-cb-amount", draft);
    let draft = overpaid(&mut stage, 0);
    stage.accepts(draft);
    for (length, reason) in [(1, "bad-cb-length"), (301, "bad-cb-length"), (2, ""), (300, "")] {
        let mut draft = stage.draft();
        draft.coinbase.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51; length]);
        stage.judges(reason, draft);
    }
    let mut draft = stage.draft();
    draft.coinbase.output.clear();
    stage.refuses("bad-txns-vout-empty", draft);
    let mut draft = stage.draft();
    draft.coinbase.lock_time = absolute::LockTime::from_consensus(draft.height);
    draft.coinbase.input[0].sequence = Sequence::ZERO;
    stage.refuses("bad-txns-nonfinal", draft);
    // BIP30: the same coinbase again, while its outputs are unspent.
    let mut draft = stage.draft();
    draft.coinbase = stage.forge.blocks[stage.tip].block.txdata[0].clone();
    stage.refuses("bad-txns-BIP30", draft);
}

#[test]
fn transactions_alone() {
    let mut stage = plain();
    type Change = fn(&mut bitcoin::Transaction);
    let cases: [(&str, Change); 8] = [
        ("bad-txns-vin-empty", |tx| tx.input.clear()),
        ("bad-txns-vout-empty", |tx| tx.output.clear()),
        ("bad-txns-vout-negative", |tx| tx.output[0].value = Amount::from_sat(1 << 63)),
        ("bad-txns-vout-toolarge", |tx| tx.output[0].value = Amount::from_sat(MAX_MONEY + 1)),
        ("bad-txns-txouttotal-toolarge", |tx| {
            tx.output.push(TxOut { value: Amount::from_sat(MAX_MONEY), script_pubkey: ScriptBuf::new() });
        }),
        ("bad-txns-inputs-duplicate", |tx| tx.input.push(tx.input[0].clone())),
        ("bad-txns-prevout-null", |tx| {
            tx.input.push(tx.input[0].clone());
            tx.input[1].previous_output = OutPoint::null();
        }),
        ("bad-txns-nonfinal", |tx| {
            tx.lock_time = absolute::LockTime::from_consensus(166);
            tx.input[0].sequence = Sequence::ZERO;
        }),
    ];
    for (reason, change) in cases {
        let mut draft = with_spend(&mut stage, Lock::Anyone);
        change(&mut draft.txs[0]);
        let block = stage.refuses(reason, draft);
        // What fails by itself is not remembered; what fails by its height is.
        let again = if reason == "bad-txns-nonfinal" { "duplicate-invalid" } else { reason };
        stage.refuses_block(again, &block);
    }
    let mut draft = with_spend(&mut stage, Lock::Anyone);
    draft.txs[0].lock_time = absolute::LockTime::from_consensus(165);
    draft.txs[0].input[0].sequence = Sequence::ZERO;
    stage.accepts(draft);
}

#[test]
fn inputs() {
    let mut stage = plain();
    let mut draft = with_spend(&mut stage, Lock::Anyone);
    draft.txs[0].input[0].previous_output = OutPoint { txid: Txid::all_zeros(), vout: 0 };
    stage.refuses(MISSING, draft);
    // Twice in one block, and in the wrong order.
    let mut draft = with_spend(&mut stage, Lock::Anyone);
    let mut again = draft.txs[0].clone();
    again.lock_time = absolute::LockTime::from_consensus(1);
    draft.txs.push(again);
    stage.refuses(MISSING, draft);
    let mut draft = with_spend(&mut stage, Lock::Anyone);
    let child = transaction(
        vec![OutPoint { txid: draft.txs[0].compute_txid(), vout: 0 }],
        vec![(5, Lock::Anyone.script(&stage.forge.keys))],
    );
    draft.txs.insert(0, child);
    stage.refuses(MISSING, draft.clone());
    draft.txs.swap(0, 1);
    stage.accepts(draft);
    // Outputs that can never be spent do not exist.
    for script in [vec![0x6a], vec![0x51; 10_001]] {
        let mut draft = with_spend(&mut stage, Lock::Open);
        draft.txs[0].output[0].script_pubkey = ScriptBuf::from_bytes(script);
        let child = transaction(
            vec![OutPoint { txid: draft.txs[0].compute_txid(), vout: 0 }],
            vec![(5, ScriptBuf::new())],
        );
        draft.txs.push(child);
        stage.refuses(MISSING, draft);
    }
    // A coinbase of depth 99, and one of depth 100.
    for (depth, reason) in [(99, "bad-txns-premature-spend-of-coinbase"), (100, "")] {
        let mut draft = stage.draft();
        while (draft.height - depth) % 12 != 1 {
            stage.accepts(draft);
            draft = stage.draft();
        }
        let paid = stage.forge.below(stage.tip, depth - 1);
        assert_eq!(stage.forge.blocks[paid].height, draft.height - depth);
        let outpoint = OutPoint { txid: stage.forge.blocks[paid].block.txdata[0].compute_txid(), vout: 0 };
        draft.txs.push(transaction(vec![outpoint], vec![(5, ScriptBuf::new())]));
        stage.judges(reason, draft);
    }
    let mut draft = with_spend(&mut stage, Lock::Open);
    let value = stage.forge.coin(&draft, &draft.txs[0].input[0].previous_output).unwrap().value;
    draft.txs[0].output[0].value = Amount::from_sat(value + 1);
    stage.refuses("bad-txns-in-belowout", draft.clone());
    draft.txs[0].output[0].value = Amount::from_sat(value);
    stage.accepts(draft);
}

#[test]
fn scripts() {
    let mut stage = plain();
    type Damage = fn(&mut Vec<u8>);
    let cases: [(Lock, Damage); 6] = [
        (Lock::Pkh(1), |script| script[12] ^= 1),
        (Lock::Pk(2), |script| script.clear()),
        (Lock::ShAnyone, |script| script[1] ^= 1),
        (Lock::Open, |script| *script = vec![0x00]),
        // BIP66: one zero too many before R.
        (Lock::Pk(2), |script| {
            script.splice(5..5, [0]);
            (script[0], script[2], script[4]) = (script[0] + 1, script[2] + 1, script[4] + 1);
        }),
        (Lock::Anyone, |script| *script = push(&[1; 521])),
    ];
    for (lock, damage) in cases {
        let mut draft = with_spend(&mut stage, lock);
        let mut script = draft.txs[0].input[0].script_sig.to_bytes();
        damage(&mut script);
        draft.txs[0].input[0].script_sig = ScriptBuf::from_bytes(script);
        let block = stage.refuses(SCRIPT, draft);
        stage.refuses_block("duplicate-invalid", &block);
    }
    // BIP65 holds from genesis on, BIP112 and NULLDUMMY not without their votes.
    for (lock, time, reason) in
        [(Lock::Cltv(160, 2), 159, SCRIPT), (Lock::Csv(5, 2), 0, ""), (Lock::Cltv(160, 2), 160, "")]
    {
        let draft = through(&mut stage, lock, time, 0);
        stage.judges(reason, draft);
    }
    let mut draft = with_spend(&mut stage, Lock::Multisig(1, 2));
    let script = draft.txs[0].input[0].script_sig.to_bytes();
    draft.txs[0].input[0].script_sig = ScriptBuf::from_bytes([&[0x51], &script[1..]].concat());
    stage.accepts(draft);
}

/// Pays to the lock and spends it in the same block.
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

/// The reference runs a transaction's scripts before it looks at the next one, and at the coinbase's amount.
#[test]
fn a_failing_script_comes_before_what_is_broken_behind_it() {
    let mut stage = plain();
    let failing = |stage: &mut Stage| {
        let mut draft = with_spend(stage, Lock::Open);
        draft.txs[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0]);
        draft
    };
    let missing =
        transaction(vec![OutPoint { txid: Txid::all_zeros(), vout: 0 }], vec![(5, ScriptBuf::new())]);
    let mut draft = failing(&mut stage);
    draft.coinbase.output[0].value += Amount::from_sat(MAX_MONEY / 2);
    stage.refuses(SCRIPT, draft);
    let mut draft = failing(&mut stage);
    draft.txs.push(missing.clone());
    stage.refuses(SCRIPT, draft);
    let mut draft = failing(&mut stage);
    draft.txs.insert(0, missing);
    stage.refuses(MISSING, draft);
}

#[test]
fn signature_operations() {
    let mut stage = plain();
    for (count, reason) in [(20_001, "bad-blk-sigops"), (20_000, "")] {
        let mut draft = with_spend(&mut stage, Lock::Open);
        let own = legacy_sigops(&draft.coinbase) + legacy_sigops(&draft.txs[0]);
        for _ in 0..2 {
            draft.txs[0].output.push(TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(vec![0xac; 10_000]),
            });
        }
        let length = 10_000 - own as usize + (count - 20_000);
        draft.txs[0].output[1].script_pubkey = ScriptBuf::from_bytes(vec![0xac; length]);
        stage.judges(reason, draft);
    }
    let draft = counted_when_spent(&mut stage, Lock::ShSigops, 5, 101);
    stage.refuses("bad-blk-sigops", draft);
    let draft = counted_when_spent(&mut stage, Lock::ShSigops, 5, 100);
    stage.accepts(draft);
}

/// Spends outputs whose scripts hold operations that only count when they are spent, and counts `more` itself.
fn counted_when_spent(stage: &mut Stage, lock: Lock, count: u32, more: usize) -> Draft {
    let mut draft = with_spend(stage, Lock::Open);
    draft.txs[0].output = vec![output(5, lock, stage); count as usize];
    let txid = draft.txs[0].compute_txid();
    let inputs = (0..count).map(|vout| OutPoint { txid, vout }).collect();
    assert_eq!(legacy_sigops(&draft.coinbase), 0);
    let mut tx = transaction(inputs, vec![(5, ScriptBuf::from_bytes(vec![0xac; more]))]);
    stage.forge.sign(&draft, &mut tx);
    draft.txs.push(tx);
    draft
}

#[test]
fn a_witness_before_segwit() {
    let mut stage = plain();
    let draft = with_spend(&mut stage, Lock::Wpkh(3));
    let block = stage.refuses("unexpected-witness", draft.clone());
    // Without the witness the same header is good: the program is nobody's business yet.
    let mut bare = block;
    bare.txdata[1].input[0].witness = Witness::new();
    stage.accepts_known(draft.parent, bare);
    let mut draft = stage.draft();
    draft.commit = true;
    stage.refuses("unexpected-witness", draft);
}

#[test]
fn soft_forks() {
    let mut stage = with_forks();
    let mut draft = with_spend(&mut stage, Lock::Multisig(1, 2));
    let script = draft.txs[0].input[0].script_sig.to_bytes();
    draft.txs[0].input[0].script_sig = ScriptBuf::from_bytes([&[0x51], &script[1..]].concat());
    stage.refuses(SCRIPT, draft);
    // BIP112: the operation wants five blocks; BIP68 then wants them of the chain, and the coin is new.
    let draft = through(&mut stage, Lock::Csv(5, 2), 0, 4);
    stage.refuses("bad-txns-nonfinal", draft);
    let draft = through(&mut stage, Lock::Csv(5, 2), 0, 0);
    stage.refuses(SCRIPT, draft);
    let draft = through(&mut stage, Lock::Csv(0, 2), 0, 0);
    stage.accepts(draft);
    // BIP68: in blocks, from the coin on; version 1 and the disable bit are spared.
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
        // One unit of 512 seconds has passed for every old coin: the largest span has not.
        let span = if flags == 1 << 22 { 0xffff } else { draft.height - made + blocks };
        tx.input[0].sequence = Sequence(flags | span);
        stage.forge.sign(&draft, &mut tx);
        draft.txs.push(tx);
        stage.judges(reason, draft);
    }
    // BIP113: the clock of lock times is the median of the past.
    let median = stage.forge.median_time(stage.tip);
    for (time, reason) in [(median, "bad-txns-nonfinal"), (median - 1, "")] {
        let mut draft = with_spend(&mut stage, Lock::Anyone);
        draft.txs[0].lock_time = absolute::LockTime::from_consensus(time);
        draft.txs[0].input[0].sequence = Sequence::ZERO;
        stage.judges(reason, draft);
    }
}

#[test]
fn segwit() {
    let mut stage = with_forks();
    for lock in [Lock::Wpkh(3), Lock::ShWpkh(4), Lock::Wsh(5)] {
        let mut draft = with_spend(&mut stage, lock);
        let good = draft.clone();
        let mut witness = draft.txs[0].input[0].witness.to_vec();
        witness[0][10] ^= 1;
        draft.txs[0].input[0].witness = Witness::from_slice(&witness);
        stage.refuses(SCRIPT, draft.clone());
        draft.txs[0].input[0].witness = Witness::new();
        stage.refuses(SCRIPT, draft.clone());
        draft.commit = false;
        draft.txs[0].input[0].witness = Witness::from_slice(&witness);
        stage.refuses("unexpected-witness", draft);
        stage.accepts(good);
    }
    for (nonce, reason) in [
        (vec![vec![0; 31]], "bad-witness-nonce-size"),
        (vec![vec![0; 32]; 2], "bad-witness-nonce-size"),
        (vec![vec![1; 32]], "bad-witness-merkle-match"),
    ] {
        let draft = with_spend(&mut stage, Lock::Wpkh(3));
        let parent = draft.parent;
        let good = stage.forge.finish(draft);
        let mut block = good.clone();
        block.txdata[0].input[0].witness = Witness::from_slice(&nonce);
        stage.refuses_block(reason, &block);
        // The refusal is not held against the header.
        stage.accepts_known(parent, good);
    }
    // A nonce that was left out is filled in.
    let draft = with_spend(&mut stage, Lock::Wpkh(3));
    let parent = draft.parent;
    let mut block = stage.forge.finish(draft);
    block.txdata[0].input[0].witness = Witness::new();
    stage.accepts_block(parent, block);
    for (more, reason) in [(101, "bad-blk-sigops"), (100, "")] {
        let draft = counted_when_spent(&mut stage, Lock::WshSigops, 20, more);
        stage.judges(reason, draft);
    }
    // Only the coinbase has a witness here, of 36 bytes with marker and flag: the limit can be met exactly.
    for (weight, reason) in [(4_000_004, "bad-blk-weight"), (4_000_000, "")] {
        let mut draft = with_spend(&mut stage, Lock::Anyone);
        let mut fill = |count: usize| {
            draft.txs[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; count]);
            stage.forge.finish(draft.clone()).weight().to_wu()
        };
        let more = (weight - fill(900_000)) / 4;
        assert_eq!(fill(900_000 + more as usize), weight);
        stage.judges(reason, draft);
    }
}

#[test]
fn encodings() {
    let mut stage = plain();
    let draft = stage.draft();
    let parent = draft.parent;
    let block = stage.forge.finish(draft);
    let hex = serialize_hex(&block);
    for broken in ["", "0", "zz", &hex[..hex.len() - 2], &hex[1..], &format!("0x{hex}")] {
        assert_eq!(stage.submit_hex(broken), "-22: Block decode failed");
    }
    // The count of transactions in a form that is not the shortest.
    assert_eq!(
        stage.submit_hex(&format!("{}fd0100{}", &hex[..160], &hex[162..])),
        "-22: Block decode failed"
    );
    // An unknown flag behind the witness marker, and the marker where there is no witness, which is taken.
    let (start, end) = (&hex[..170], hex.len() - 8);
    let marked =
        |flag: &str, witness: &str| format!("{start}00{flag}{}{witness}{}", &hex[170..end], &hex[end..]);
    assert_eq!(stage.submit_hex(&marked("02", "")), "-22: Block decode failed");
    assert_eq!(stage.submit_hex(&marked("03", "00")), "-22: Block decode failed");
    assert_eq!(stage.submit_hex(&(marked("01", "00") + "0102").to_uppercase()), "");
    stage.tip = stage.forge.keep(parent, block);
    stage.assert_tip(stage.tip);
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
        // Where the reference ends: an op without data first, and a good key last.
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
    // A hash type of any value, a high S, and a truncated push before the key are no faults.
    let mut draft = stage.draft();
    let digest = message(&draft.coinbase);
    let high = [stage.forge.keys[ADMIN].sign_high(digest), vec![0xee]].concat();
    let key = push(&stage.forge.keys[ADMIN].pubkey);
    draft.coinbase.input[0].script_sig = ScriptBuf::from_bytes([push(&high), vec![0x4b], key].concat());
    stage.accepts(draft);
    // Right license, wrong everything else: the license comes first.
    let mut draft = with_spend(&mut stage, Lock::Open);
    draft.txs[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0]);
    draft.miner = Some(STRANGER);
    stage.refuses("bad-CB-miner", draft);
}
