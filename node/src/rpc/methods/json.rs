//! Chain data as Core's JSON has it.

use bitcoin::blockdata::opcodes::Class;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::opcodes::ClassifyContext;
use bitcoin::{Block, CompactTarget, OutPoint, Script, Transaction, TxIn};
use iop_consensus::COIN;
use iop_consensus::address::Address;
use iop_consensus::address::Prefixes;
use iop_consensus::ancestors::median_time_past;
use iop_consensus::difficulty::target_from_compact;
use iop_consensus::params::Params;
use iop_consensus::script::ScriptReader;
use serde_json::{Map, Value, json};

use crate::chain::index::{BlockId, BlockIndex};

/// Base units as coins.
pub(super) fn coins(base_units: u64) -> f64 {
    base_units as f64 / COIN as f64
}

/// How much harder than Bitcoin's first target; the reference's own formula (`GetDifficulty`).
pub(super) fn difficulty(bits: CompactTarget) -> f64 {
    let bits = bits.to_consensus();
    let exponent = (bits >> 24) as i32;
    f64::from(0xffff) / f64::from(bits & 0x00ff_ffff) * 256f64.powi(0x1d - exponent)
}

/// A compact target in full, 64 hex digits.
pub(super) fn target_hex(bits: CompactTarget) -> String {
    target_from_compact(bits).map_or_else(|| "0".repeat(64), |target| hex::encode(target.to_be_bytes()))
}

/// A header with its place in the chain. Core's order of fields: `between` goes behind `height` and the merkle root.
pub(super) fn header(index: &BlockIndex, id: BlockId, sizes: Option<&Block>, txs: Option<Value>) -> Value {
    let entry = index.get(id);
    let header = &entry.record.header;
    let height = entry.record.height;
    let tip_height = index.get(index.tip()).record.height;
    let confirmations = if index.is_active(id) { i64::from(tip_height - height) + 1 } else { -1 };
    let mut out = Map::new();
    out.insert("hash".into(), json!(entry.hash));
    out.insert("confirmations".into(), json!(confirmations));
    if let Some(block) = sizes {
        let stripped: usize = 81 + bitcoin::VarInt(block.txdata.len() as u64).size() - 1
            + block.txdata.iter().map(Transaction::base_size).sum::<usize>();
        out.insert("strippedsize".into(), json!(stripped));
        out.insert("size".into(), json!(block.total_size()));
        out.insert("weight".into(), json!(block.weight().to_wu()));
    }
    out.insert("height".into(), json!(height));
    out.insert("version".into(), json!(header.version.to_consensus()));
    out.insert("versionHex".into(), json!(format!("{:08x}", header.version.to_consensus())));
    out.insert("merkleroot".into(), json!(header.merkle_root));
    if let Some(txs) = txs {
        out.insert("tx".into(), txs);
    }
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
    Value::Object(out)
}

/// A transaction (`TxToUniv`).
pub(super) fn transaction(tx: &Transaction, params: &Params) -> Value {
    let inputs: Vec<Value> = tx.input.iter().map(input).collect();
    let outputs: Vec<Value> = tx
        .output
        .iter()
        .enumerate()
        .map(|(n, output)| {
            json!({
                "value": coins(output.value.to_sat()),
                "n": n,
                "scriptPubKey": script_pubkey(&output.script_pubkey, &params.prefixes),
            })
        })
        .collect();
    json!({
        "txid": tx.compute_txid(),
        "hash": tx.compute_wtxid(),
        "version": tx.version.0,
        "size": tx.total_size(),
        "vsize": tx.vsize(),
        "locktime": tx.lock_time.to_consensus_u32(),
        "vin": inputs,
        "vout": outputs,
        "hex": serialize_hex(tx),
    })
}

fn input(input: &TxIn) -> Value {
    let mut out = Map::new();
    if input.previous_output == OutPoint::null() {
        out.insert("coinbase".into(), json!(hex::encode(&input.script_sig)));
    } else {
        out.insert("txid".into(), json!(input.previous_output.txid));
        out.insert("vout".into(), json!(input.previous_output.vout));
        out.insert(
            "scriptSig".into(),
            json!({ "asm": asm(&input.script_sig), "hex": hex::encode(&input.script_sig) }),
        );
    }
    if !input.witness.is_empty() {
        let witness: Vec<String> = input.witness.iter().map(hex::encode).collect();
        out.insert("txinwitness".into(), json!(witness));
    }
    out.insert("sequence".into(), json!(input.sequence.to_consensus_u32()));
    Value::Object(out)
}

/// An output script with the address it pays, if it pays one.
pub(super) fn script_pubkey(script: &Script, prefixes: &Prefixes) -> Value {
    let mut out = Map::new();
    out.insert("asm".into(), json!(asm(script)));
    out.insert("hex".into(), json!(hex::encode(script)));
    if let Some(address) = Address::from_script(script) {
        out.insert("reqSigs".into(), json!(1));
        out.insert("type".into(), json!(script_type(script)));
        out.insert("addresses".into(), json!([address.to_base58(prefixes)]));
    } else {
        out.insert("type".into(), json!(script_type(script)));
    }
    Value::Object(out)
}

fn script_type(script: &Script) -> &'static str {
    if script.is_p2sh() {
        "scripthash"
    } else if script.is_p2wpkh() {
        "witness_v0_keyhash"
    } else if script.is_p2wsh() {
        "witness_v0_scripthash"
    } else if script.is_op_return() {
        "nulldata"
    } else if script.is_multisig() {
        "multisig"
    } else if Address::from_script(script).is_none() {
        "nonstandard"
    } else if script.as_bytes()[0] == bitcoin::opcodes::all::OP_DUP.to_u8() {
        "pubkeyhash"
    } else {
        "pubkey"
    }
}

/// A script in words: pushes of up to four bytes as numbers, longer ones in hex (`ScriptToAsmStr`).
fn asm(script: &Script) -> String {
    let mut reader = ScriptReader::new(script.as_bytes());
    let mut words = Vec::new();
    while !reader.at_end() {
        let Ok(op) = reader.next_op() else {
            words.push("[error]".to_owned());
            break;
        };
        words.push(match bitcoin::Opcode::from(op.opcode).classify(ClassifyContext::Legacy) {
            _ if (1..=0x4e).contains(&op.opcode) && op.data.len() > 4 => hex::encode(op.data),
            _ if op.opcode <= 0x4e => script_number(op.data).to_string(),
            Class::PushNum(number) => number.to_string(),
            _ => bitcoin::Opcode::from(op.opcode).to_string(),
        });
    }
    words.join(" ")
}

/// A push of up to four bytes as a number: little-endian, the top bit is the sign.
fn script_number(data: &[u8]) -> i64 {
    let magnitude = data.iter().rev().fold(0i64, |number, byte| number << 8 | i64::from(*byte));
    match data.last() {
        Some(last) if last & 0x80 != 0 => -(magnitude & !(0x80 << (8 * (data.len() - 1)))),
        _ => magnitude,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_target_has_difficulty_one_and_the_genesis_coinbase_reads_as_in_core() {
        assert!((difficulty(CompactTarget::from_consensus(0x1d00_ffff)) - 1.0).abs() < 1e-12);
        let genesis = Params::main().genesis.block();
        let words = asm(&genesis.txdata[0].input[0].script_sig);
        assert!(words.starts_with("486604799 4 4c61204e6163696f6e"), "{words}");
        let paid = asm(&genesis.txdata[0].output[0].script_pubkey);
        assert!(paid.starts_with("04ce49f9") && paid.ends_with(" OP_CHECKSIG"), "{paid}");
    }
}
