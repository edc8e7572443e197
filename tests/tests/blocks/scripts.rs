//! Spending: inputs, scripts, signature operations and witnesses.

use super::*;

#[test]
fn inputs() {
    let mut stage = plain();
    let mut draft = with_spend(&mut stage, Lock::Anyone);
    draft.txs[0].input[0].previous_output = OutPoint { txid: Txid::all_zeros(), vout: 0 };
    stage.refuses(MISSING, draft);
    // A coin spent twice in one block, and transactions in the wrong order.
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
    // Outputs that can never be spent do not enter the coin set.
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
    // BIP65 applies from genesis on, BIP112 and NULLDUMMY only with their votes.
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

/// The reference runs a transaction's scripts before it checks the next one, and before the coinbase's amount.
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

/// Spends outputs whose scripts contain operations that count only when they are spent; the transaction itself counts
/// `more`.
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
    // Without the witness the same header is good: witness programs are not checked yet.
    let mut bare = block;
    bare.txdata[1].input[0].witness = Witness::new();
    stage.accepts_known(draft.parent, bare);
    let mut draft = stage.draft();
    draft.commit = true;
    stage.refuses("unexpected-witness", draft);
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
        // The header is not blamed for the refusal.
        stage.accepts_known(parent, good);
    }
    // A missing witness nonce is filled in.
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
