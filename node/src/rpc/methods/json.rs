//! Chain data in Core's JSON format.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, CompactTarget, Transaction, TxIn, VarInt};
use iop_consensus::COIN;
use iop_consensus::address::Prefixes;
use iop_consensus::ancestors::median_time_past;
use iop_consensus::difficulty::target_from_compact;
use serde_json::{Map, Value, json};

use super::script::{asm, script_pubkey};
use crate::chain::index::{BlockId, BlockIndex};

/// Size of a header, bytes.
const HEADER_BYTES: usize = 80;

/// Converts base units to coins.
pub(super) fn coins(base_units: u64) -> f64 {
    base_units as f64 / COIN as f64
}

/// Difficulty relative to Bitcoin's first target, by the reference's formula (`GetDifficulty`).
pub(super) fn difficulty(bits: CompactTarget) -> f64 {
    let bits = bits.to_consensus();
    let exponent = (bits >> 24) as i32;
    f64::from(0xffff) / f64::from(bits & 0x00ff_ffff) * 256f64.powi(0x1d - exponent)
}

/// A compact target expanded to 64 hex digits.
pub(super) fn target_hex(bits: CompactTarget) -> String {
    target_from_compact(bits).map_or_else(|| "0".repeat(64), |target| hex::encode(target.to_be_bytes()))
}

/// A header and its position in the chain (`blockheaderToJSON`).
pub(super) fn header(index: &BlockIndex, id: BlockId) -> Map<String, Value> {
    let entry = index.get(id);
    let header = &entry.record.header;
    let height = entry.record.height;
    let tip_height = index.get(index.tip()).record.height;
    let confirmations = if index.is_active(id) { i64::from(tip_height - height) + 1 } else { -1 };
    let mut out = Map::new();
    out.insert("hash".into(), json!(entry.hash));
    out.insert("confirmations".into(), json!(confirmations));
    out.insert("height".into(), json!(height));
    out.insert("version".into(), json!(header.version.to_consensus()));
    out.insert("versionHex".into(), json!(format!("{:08x}", header.version.to_consensus())));
    out.insert("merkleroot".into(), json!(header.merkle_root));
    out.insert("time".into(), json!(header.time));
    out.insert("mediantime".into(), json!(median_time_past(&index.chain(id), height)));
    out.insert("nonce".into(), json!(header.nonce));
    out.insert("bits".into(), json!(format!("{:08x}", header.bits.to_consensus())));
    out.insert("difficulty".into(), json!(difficulty(header.bits)));
    out.insert("chainwork".into(), json!(hex::encode(entry.work.to_be_bytes())));
    if let Some(parent) = entry.parent {
        out.insert("previousblockhash".into(), json!(index.get(parent).hash));
    }
    if let Some(next) = index.active_at(height + 1).filter(|_| index.is_active(id)) {
        out.insert("nextblockhash".into(), json!(index.get(next).hash));
    }
    out
}

/// A block (`blockToJSON`): the header's fields, sizes and transactions; these are objects if `details` is given,
/// otherwise ids.
pub(super) fn block(header: Map<String, Value>, block: &Block, details: Option<&Prefixes>) -> Value {
    let count = VarInt(block.txdata.len() as u64).size();
    let stripped = HEADER_BYTES + count + block.txdata.iter().map(Transaction::base_size).sum::<usize>();
    let size = HEADER_BYTES + count + block.txdata.iter().map(Transaction::total_size).sum::<usize>();
    let txs: Vec<Value> = block
        .txdata
        .iter()
        .map(|tx| match details {
            Some(prefixes) => Value::Object(transaction(tx, prefixes, true)),
            None => json!(tx.compute_txid()),
        })
        .collect();
    let (mut txs, mut out) = (Some(json!(txs)), Map::new());
    for (name, value) in header {
        let (before_time, after_confirmations) = (name == "time", name == "confirmations");
        if before_time {
            out.insert("tx".into(), txs.take().unwrap_or_default());
        }
        out.insert(name, value);
        if after_confirmations {
            out.insert("strippedsize".into(), json!(stripped));
            out.insert("size".into(), json!(size));
            out.insert("weight".into(), json!(3 * stripped + size));
        }
    }
    Value::Object(out)
}

/// A transaction (`TxToUniv`).
pub(super) fn transaction(tx: &Transaction, prefixes: &Prefixes, with_hex: bool) -> Map<String, Value> {
    let coinbase = tx.is_coinbase();
    let inputs: Vec<Value> = tx.input.iter().map(|txin| input(txin, coinbase)).collect();
    let outputs: Vec<Value> = tx
        .output
        .iter()
        .enumerate()
        .map(|(n, output)| {
            json!({
                "value": coins(output.value.to_sat()),
                "n": n,
                "scriptPubKey": script_pubkey(&output.script_pubkey, prefixes, true),
            })
        })
        .collect();
    let mut out = Map::new();
    out.insert("txid".into(), json!(tx.compute_txid()));
    out.insert("hash".into(), json!(tx.compute_wtxid()));
    out.insert("version".into(), json!(tx.version.0));
    out.insert("size".into(), json!(tx.total_size()));
    out.insert("vsize".into(), json!(tx.vsize()));
    out.insert("locktime".into(), json!(tx.lock_time.to_consensus_u32()));
    out.insert("vin".into(), json!(inputs));
    out.insert("vout".into(), json!(outputs));
    if with_hex {
        out.insert("hex".into(), json!(serialize_hex(tx)));
    }
    out
}

fn input(input: &TxIn, coinbase: bool) -> Value {
    let mut out = Map::new();
    if coinbase {
        out.insert("coinbase".into(), json!(hex::encode(&input.script_sig)));
    } else {
        out.insert("txid".into(), json!(input.previous_output.txid));
        out.insert("vout".into(), json!(input.previous_output.vout));
        out.insert(
            "scriptSig".into(),
            json!({ "asm": asm(&input.script_sig, true), "hex": hex::encode(&input.script_sig) }),
        );
        if !input.witness.is_empty() {
            let witness: Vec<String> = input.witness.iter().map(hex::encode).collect();
            out.insert("txinwitness".into(), json!(witness));
        }
    }
    out.insert("sequence".into(), json!(input.sequence.to_consensus_u32()));
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_target_has_difficulty_one() {
        assert!((difficulty(CompactTarget::from_consensus(0x1d00_ffff)) - 1.0).abs() < 1e-12);
    }
}
