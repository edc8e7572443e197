//! The structure of a block, without scripts: headers, merkle tree, sizes, coinbase, context-free transaction checks.

use super::*;

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
        // The time is checked before the version.
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
    // Repeating the last transaction leaves the root unchanged, and must not spoil the block itself.
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

/// Larger than any message between peers may be: still parsed, and refused for the right reason.
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
        // All but 5 base units of the coin are the fee.
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
        // Context-free failures are not remembered; failures that depend on the height are.
        let again = if reason == "bad-txns-nonfinal" { "duplicate-invalid" } else { reason };
        stage.refuses_block(again, &block);
    }
    let mut draft = with_spend(&mut stage, Lock::Anyone);
    draft.txs[0].lock_time = absolute::LockTime::from_consensus(165);
    draft.txs[0].input[0].sequence = Sequence::ZERO;
    stage.accepts(draft);
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
    // The transaction count in a form that is not the shortest.
    assert_eq!(
        stage.submit_hex(&format!("{}fd0100{}", &hex[..160], &hex[162..])),
        "-22: Block decode failed"
    );
    // An unknown flag after the witness marker, and the marker without any witness, which is accepted.
    let (start, end) = (&hex[..170], hex.len() - 8);
    let marked =
        |flag: &str, witness: &str| format!("{start}00{flag}{}{witness}{}", &hex[170..end], &hex[end..]);
    assert_eq!(stage.submit_hex(&marked("02", "")), "-22: Block decode failed");
    assert_eq!(stage.submit_hex(&marked("03", "00")), "-22: Block decode failed");
    assert_eq!(stage.submit_hex(&(marked("01", "00") + "0102").to_uppercase()), "");
    stage.tip = stage.forge.keep(parent, block);
    stage.assert_tip(stage.tip);
}
