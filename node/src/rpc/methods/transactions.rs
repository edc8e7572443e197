//! Methods about transactions (sending, decoding, lookup) and addresses.

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Script, Transaction, Txid};
use iop_consensus::COIN;
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::coins::CoinView;
use iop_consensus::script::{Op, ScriptReader};
use iop_consensus::wire::{read_stripped_transaction, read_transaction};
use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{
    DESERIALIZATION, INTERNAL, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, RpcError, TRANSACTION_ERROR,
    TRANSACTION_IN_CHAIN, TRANSACTION_REJECTED,
};
use super::{
    Context, heavy, json as format,
    script::{OP_NOP10, script_pubkey},
};
use crate::chain::state::ChainState;
use crate::mempool::Reject;
use crate::storage::StorageError;

/// A higher fee is taken for a mistake unless the caller allows it, base units (Core's default -maxtxfee).
pub(super) const MAX_FEE: u64 = COIN / 10;
/// Maximum number of outputs of a transaction that are looked up one by one; beyond that, only outputs written to
/// disk are found.
const PROBED_OUTPUTS: u32 = 64;

/// The longest push of a script that can be run, bytes (`MAX_SCRIPT_ELEMENT_SIZE`).
const MAX_SCRIPT_ELEMENT_SIZE: usize = 520;
/// The longest script that can be run, bytes (`MAX_SCRIPT_SIZE`).
const MAX_SCRIPT_SIZE: usize = 10_000;

pub(super) async fn sendrawtransaction(context: &Context, args: &Args) -> Result<Value, RpcError> {
    // Types are checked before contents, as in the reference.
    args.checked_text(0)?;
    let max_fee = if args.checked_boolean_or(1, false)? { u64::MAX } else { MAX_FEE };
    let tx = raw_transaction(args)?;
    let txid = tx.compute_txid();
    match context.chain.offer_transaction(tx, max_fee).await? {
        // Sending a transaction again is a success, and tells it to peers that connected since.
        Ok(_) | Err(Reject::AlreadyHere) => {}
        Err(reject) => return Err(refused(&reject)),
    }
    if let Some(net) = &context.net {
        let _ = net.announce(txid).await; // a network that has ended tells nobody
    }
    Ok(json!(txid))
}

/// The first argument, decoded as a transaction.
fn raw_transaction(args: &Args) -> Result<Transaction, RpcError> {
    decode_transaction(args.checked_text(0)?)
}

/// Decodes a transaction from hex; trailing bytes are an error.
pub(super) fn decode_transaction(text: &str) -> Result<Transaction, RpcError> {
    let bytes = hex::decode(text).ok();
    bytes.and_then(|bytes| read_whole(&bytes)).ok_or_else(undecodable)
}

fn undecodable() -> RpcError {
    RpcError::new(DESERIALIZATION, "TX decode failed")
}

/// Decodes a transaction; trailing bytes are an error.
fn read_whole(mut bytes: &[u8]) -> Option<Transaction> {
    let tx = read_transaction(&mut bytes).ok()?;
    bytes.is_empty().then_some(tx)
}

/// A hex text as a transaction that knows no witnesses, if its scripts make sense (`DecodeHexTx` with `fTryNoWitness`): one
/// without inputs reads otherwise as the beginning of one with witnesses.
fn stripped_transaction(text: &str) -> Option<Transaction> {
    let bytes = hex::decode(text).ok()?;
    let mut rest = &bytes[..];
    let tx = read_stripped_transaction(&mut rest).ok().filter(|_| rest.is_empty())?;
    let scripts_in = tx.input.iter().map(|input| &input.script_sig).filter(|_| !tx.is_coinbase());
    let mut scripts = scripts_in.chain(tx.output.iter().map(|output| &output.script_pubkey));
    scripts.all(|script| has_valid_operations(script)).then_some(tx)
}

/// `HasValidOps`, whose `MAX_OPCODE` is OP_NOP10, and the size of a script.
fn has_valid_operations(script: &Script) -> bool {
    let mut operations = ScriptReader::new(script.as_bytes());
    while !operations.at_end() {
        let sound = |op: Op<'_>| op.opcode <= OP_NOP10 && op.data.len() <= MAX_SCRIPT_ELEMENT_SIZE;
        if !operations.next_op().is_ok_and(sound) {
            return false;
        }
    }
    script.len() <= MAX_SCRIPT_SIZE
}

fn refused(reject: &Reject) -> RpcError {
    match reject {
        Reject::AlreadyInChain => RpcError::new(TRANSACTION_IN_CHAIN, "transaction already in block chain"),
        Reject::MissingInputs => RpcError::new(TRANSACTION_ERROR, "Missing inputs"),
        other => {
            let (code, reason) = other.code_and_reason();
            RpcError::new(TRANSACTION_REJECTED, format!("{code}: {reason}"))
        }
    }
}

pub(super) async fn decoderawtransaction(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let text = args.checked_text(0)?;
    let tx = stripped_transaction(text).map_or_else(|| decode_transaction(text), Ok)?;
    let prefixes = context.params.prefixes;
    heavy(move || Value::Object(format::transaction(&tx, &prefixes, false))).await
}

pub(super) async fn decodescript(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let text = args.checked_text(0)?;
    let script = hex::decode(text).map_err(|_| {
        let shown: String = text.chars().take(100).collect();
        RpcError::new(INVALID_PARAMETER, format!("argument must be hexadecimal string (not '{shown}')"))
    })?;
    let prefixes = &context.params.prefixes;
    let mut out = script_pubkey(Script::from_bytes(&script), prefixes, false);
    if out.get("type").is_none_or(|form| form != "scripthash") {
        let hash = bitcoin::hashes::hash160::Hash::hash(&script).to_byte_array();
        let address = Address { kind: AddressKind::ScriptHash, hash };
        out.insert("p2sh".into(), json!(address.to_base58(prefixes)));
    }
    Ok(Value::Object(out))
}

pub(super) async fn getrawtransaction(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let txid = Txid::from_byte_array(args.hash(0, "parameter 1")?);
    let verbose = args.flag_or_number(1)?;
    let prefixes = context.params.prefixes;
    let storage = context.chain.storage().clone();
    let place = context.chain.run(move |state| place_of(state, txid)).await?;
    heavy(move || {
        let (tx, place) = match place {
            Place::Waiting(tx) => (tx, None),
            Place::Block(block) => {
                let stored = storage.block(&block.hash);
                let stored = stored.map_err(|error| RpcError::new(INTERNAL, error.to_string()))?;
                let txs = stored.map(|stored| stored.txdata).unwrap_or_default();
                let tx = txs.into_iter().find(|tx| tx.compute_txid() == txid).ok_or_else(not_found)?;
                (tx, Some(block))
            }
            Place::Nowhere => return Err(not_found()),
        };
        if !verbose {
            return Ok(json!(bitcoin::consensus::encode::serialize_hex(&tx)));
        }
        let mut out = format::transaction(&tx, &prefixes, true);
        if let Some(block) = place {
            out.insert("blockhash".into(), json!(block.hash));
            out.insert("confirmations".into(), json!(block.confirmations));
            out.insert("time".into(), json!(block.time));
            out.insert("blocktime".into(), json!(block.time));
        }
        Ok(Value::Object(out))
    })
    .await?
}

fn not_found() -> RpcError {
    RpcError::new(
        INVALID_ADDRESS_OR_KEY,
        "No such mempool transaction, and none in the chain with an unspent output: this node has no index of others. \
         getblock with verbosity 2 shows those of a block.",
    )
}

/// Where a transaction was found.
enum Place {
    Waiting(Transaction),
    Block(InBlock),
    Nowhere,
}

/// The block that a transaction is in.
struct InBlock {
    hash: BlockHash,
    confirmations: u32,
    time: u32,
}

/// Finds a transaction in the mempool, or in the chain if one of its outputs is unspent (`GetTransaction` with
/// `fAllowSlow`).
fn place_of(state: &mut ChainState, txid: Txid) -> Result<Place, StorageError> {
    if let Some(entry) = state.mempool().get(&txid) {
        return Ok(Place::Waiting(Transaction::clone(&entry.tx)));
    }
    let written = state.storage().written_outputs(&txid)?;
    for vout in (0..PROBED_OUTPUTS).chain(written) {
        if let Some(coin) = state.coins().coin(&OutPoint { txid, vout })? {
            let index = state.index();
            let tip_height = index.get(index.tip()).record.height;
            let Some(id) = index.active_at(coin.height) else { break };
            return Ok(Place::Block(InBlock {
                hash: index.get(id).hash,
                confirmations: tip_height - coin.height + 1,
                time: index.header(id).time,
            }));
        }
    }
    Ok(Place::Nowhere)
}

pub(super) async fn validateaddress(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let text = args.text(0)?;
    let Ok(address) = Address::parse(text, &context.params.prefixes) else {
        return Ok(json!({ "isvalid": false }));
    };
    let mut out = Map::new();
    out.insert("isvalid".into(), json!(true));
    out.insert("address".into(), json!(address.to_base58(&context.params.prefixes)));
    out.insert("scriptPubKey".into(), json!(hex::encode(address.script_pubkey())));
    // There is no wallet, so these are false; clients expect the fields.
    out.insert("ismine".into(), json!(false));
    out.insert("iswatchonly".into(), json!(false));
    out.insert("isscript".into(), json!(address.kind == AddressKind::ScriptHash));
    Ok(Value::Object(out))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What `createrawtransaction [] {…}` gives: version 2, no inputs, one output.
    #[test]
    fn a_transaction_without_inputs_is_decoded_and_one_with_witnesses_is_not_taken_for_one() {
        let script = format!("76a914{}88ac", "22".repeat(20));
        let no_inputs = format!("0200000000010100000000000000{:02x}{script}00000000", script.len() / 2);
        let tx = stripped_transaction(&no_inputs).unwrap();
        assert_eq!((tx.input.len(), tx.output[0].value.to_sat()), (0, 1));
        assert!(decode_transaction(&no_inputs).is_err(), "as sendrawtransaction reads it");
        let input = format!("{}0000000000ffffffff", "11".repeat(32));
        let with_witness =
            format!("02000000000101{input}010100000000000000{:02x}{script}0101aa00000000", script.len() / 2);
        assert_eq!(stripped_transaction(&with_witness), None);
        assert_eq!(decode_transaction(&with_witness).unwrap().input[0].witness.len(), 1);
    }
}
