//! Transactions, blocks, and the scripts in them that licensing reads.

use bitcoin::consensus::encode::{deserialize, deserialize_partial, serialize};
use bitcoin::{
    Amount, Block, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute,
    transaction,
};
use iop_consensus::address::Address;
use iop_consensus::license::{admin as actions, coinbase as license};
use iop_consensus::params::Params;
use iop_consensus::script::interpreter::{self, SpendingTx};
use iop_consensus::script::{self as scripts, ScriptReader};
use iop_consensus::wire::{read_block, read_transaction};

/// What is decoded encodes and decodes to the same, and the `bitcoin` crate decodes the same from these bytes.
pub(crate) fn transaction(data: &[u8]) {
    let mut rest = data;
    let read = read_transaction(&mut rest);
    if let Ok((theirs, used)) = deserialize_partial::<Transaction>(data) {
        let ours = read.as_ref().expect("the crate reads it");
        assert_eq!((ours, data.len() - rest.len()), (&theirs, used));
    }
    let Ok(tx) = read else { return };
    let again = serialize(&tx);
    // Without inputs the crate writes a marker that it cannot read; see wire.rs.
    if !tx.input.is_empty() {
        assert_eq!(read_transaction(&mut again.as_slice()).ok().as_ref(), Some(&tx));
    }
    judge(&tx);
}

fn judge(tx: &Transaction) {
    let _ = iop_consensus::tx::check(tx);
    let outputs: Vec<TxOut> = tx.input.iter().map(|input| output(input.script_sig.clone())).collect();
    let cost = scripts::sigop_cost(tx, &outputs, scripts::flags(u32::MAX, true, true));
    assert!(cost >= 4 * scripts::legacy_sigops(tx));
}

pub(crate) fn block(data: &[u8]) {
    let params = Params::regtest();
    let mut rest = data;
    let Ok(block) = read_block(&mut rest) else { return };
    if let Ok(theirs) = deserialize::<Block>(&data[..data.len() - rest.len()]) {
        assert_eq!(block, theirs);
    }
    if iop_consensus::block::check(&block, &params).is_ok() {
        assert!(block.check_merkle_root() && !block.txdata.is_empty());
    }
    for tx in block.txdata.iter().filter(|tx| tx.input.is_empty()) {
        assert!(iop_consensus::tx::check(tx).is_err());
    }
}

/// The script of a coinbase: a license that passes is the one for which the registry would count the block.
pub(crate) fn coinbase(data: &[u8]) {
    let tx = with_scripts(data, Vec::new());
    let named = license::named_license(&tx);
    match license::check(&tx) {
        Ok(license) => assert_eq!(named, Some(license)),
        Err(error) => assert!(error.reject_reason().starts_with("bad-CB-")),
    }
}

/// The first byte is the length of the first input's script; after that come the verb's output and an address.
pub(crate) fn admin(data: &[u8]) {
    let Some((&length, rest)) = data.split_first() else { return };
    let params = Params::devnet();
    let (script_sig, verb) = rest.split_at(usize::from(length).min(rest.len()));
    let target = params.license.initial_licenses[0];
    let outputs = vec![output(verb.to_vec().into()), output(target.script_pubkey())];
    let tx = with_scripts(script_sig, outputs);
    for height in [1, 38_303, 38_304, u32::MAX] {
        for action in actions::actions(&tx, height, &params) {
            assert_eq!((action.input, action.targets.last()), (0, Some(&target)));
            assert_eq!(verb.first(), Some(&0x6a));
            assert!(script_sig.ends_with(&action.pubkey));
        }
    }
}

/// Reading op by op terminates, and the count is that of the `bitcoin` crate.
pub(crate) fn script(data: &[u8]) {
    let script = Script::from_bytes(data);
    let legacy = scripts::count_sigops(data, false);
    assert_eq!(legacy, script.count_sigops_legacy() as u64);
    // The crate's accurate count is wrong for a multisig right after another signature operation: it uses the number
    // before both.
    assert!(scripts::count_sigops(data, true) <= legacy);
    let mut reader = ScriptReader::new(data);
    let mut ops = 0;
    while !reader.at_end() {
        let _ = reader.next_op();
        ops += 1;
        assert!(ops <= data.len(), "every op takes a byte at least");
    }
    let last = ScriptReader::new(data).last_data();
    assert!(last.is_empty() || data.ends_with(last));
    if let Some(address) = Address::from_script(script) {
        let again = address.script_pubkey();
        assert_eq!(Address::from_script(&again), Some(address));
    }
}

/// The interpreter: the first byte is the length of the spending script, the second selects the flags; then come the
/// spending script and the spent one.
pub(crate) fn spend(data: &[u8]) {
    let [length, choice, rest @ ..] = data else { return };
    let (script_sig, spent) = rest.split_at(usize::from(*length).min(rest.len()));
    let tx = with_scripts(script_sig, vec![output(ScriptBuf::new())]);
    let spent = output(spent.to_vec().into());
    // Segwit without P2SH makes the interpreter abort, as in the reference; no block is from before 2012.
    let (csv, segwit) = (choice & 2 != 0, choice & 4 != 0);
    let time = if choice & 1 != 0 || segwit { u32::MAX } else { 0 };
    let flags = scripts::flags(time, csv, segwit);
    let verdict = scripts::verify_input(&tx, 0, &spent, flags);
    let ours = interpreter::verify(&SpendingTx::new(&tx), 0, &spent, flags);
    assert_eq!(verdict.is_ok(), ours.is_ok(), "the interpreters differ: {ours:?}");
    // A bare push of zero or of nothing leaves false.
    if script_sig.is_empty() && matches!(spent.script_pubkey.as_bytes(), [] | [0]) {
        assert!(verdict.is_err());
    }
    if script_sig.is_empty() && spent.script_pubkey.as_bytes() == [0x51] {
        assert!(verdict.is_ok());
    }
}

fn output(script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(1), script_pubkey }
}

fn with_scripts(script_sig: &[u8], output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: script_sig.to_vec().into(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    }
}
