//! Scripts in Core's JSON format: disassembly and type.
//!
//! Lives here: `asm` (`ScriptToAsmStr`), and the type of an output script with its addresses
//! (`ExtractDestinations`). Does not live here: what a script means in validation.

use bitcoin::Script;
use iop_consensus::address::{Address, Prefixes};
use iop_consensus::license::pubkey::{has_valid_encoding, is_strict_der};
use iop_consensus::script::ScriptReader;
use serde_json::{Map, Value, json};

const OP_0: u8 = 0x00;
const OP_PUSHDATA4: u8 = 0x4e;
const OP_1NEGATE: u8 = 0x4f;
const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;
const OP_RETURN: u8 = 0x6a;
const OP_DUP: u8 = 0x76;
const OP_CHECKMULTISIG: u8 = 0xae;
const OP_CHECKLOCKTIMEVERIFY: u8 = 0xb1;
const OP_CHECKSEQUENCEVERIFY: u8 = 0xb2;
pub(super) const OP_NOP10: u8 = 0xb9;
const OP_INVALIDOPCODE: u8 = 0xff;
/// Longer pushes are shown in hex, others as numbers.
const NUMBER_BYTES: usize = 4;

/// An output script with the addresses it pays to, if any (`ScriptPubKeyToUniv`).
pub(super) fn script_pubkey(script: &Script, prefixes: &Prefixes, with_hex: bool) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("asm".into(), json!(asm(script, false)));
    if with_hex {
        out.insert("hex".into(), json!(hex::encode(script)));
    }
    let form = form(script);
    let addresses: Vec<String> = form.addresses.iter().map(|address| address.to_base58(prefixes)).collect();
    if addresses.is_empty() {
        out.insert("type".into(), json!(form.name));
    } else {
        out.insert("reqSigs".into(), json!(form.required));
        out.insert("type".into(), json!(form.name));
        out.insert("addresses".into(), json!(addresses));
    }
    out
}

/// The type of an output script.
struct Form {
    name: &'static str,
    required: u8,
    addresses: Vec<Address>,
}

/// Determines the type of an output script (`Solver` and `ExtractDestinations`).
fn form(script: &Script) -> Form {
    let bytes = script.as_bytes();
    let plain = |name, addresses: Vec<Address>| Form { name, required: 1, addresses };
    if script.is_p2sh() {
        return plain("scripthash", Address::from_script(script).into_iter().collect());
    }
    if script.is_witness_program() {
        let name = match (bytes[0], bytes.len()) {
            (OP_0, 22) => "witness_v0_keyhash",
            (OP_0, 34) => "witness_v0_scripthash",
            _ => "nonstandard",
        };
        return plain(name, Vec::new());
    }
    if bytes.first() == Some(&OP_RETURN) {
        let name = if only_pushes(&bytes[1..]) { "nulldata" } else { "nonstandard" };
        return plain(name, Vec::new());
    }
    if let Some(address) = Address::from_script(script) {
        let name = if bytes[0] == OP_DUP { "pubkeyhash" } else { "pubkey" };
        return plain(name, vec![address]);
    }
    if pays_some_key(bytes) {
        return plain("pubkey", Vec::new());
    }
    multisig(bytes).unwrap_or_else(|| plain("nonstandard", Vec::new()))
}

/// A push with a key's length followed by OP_CHECKSIG, whatever was pushed.
fn pays_some_key(script: &[u8]) -> bool {
    let mut ops = ScriptReader::new(script);
    let key = ops.next_op().map(|op| op.data.len());
    let check = ops.next_op().map(|op| op.opcode);
    matches!((key, check), (Ok(33..=65), Ok(0xac))) && ops.at_end()
}

fn only_pushes(script: &[u8]) -> bool {
    let mut ops = ScriptReader::new(script);
    while !ops.at_end() {
        if !ops.next_op().is_ok_and(|op| op.opcode <= OP_16) {
            return false;
        }
    }
    true
}

/// `m <keys> n OP_CHECKMULTISIG` with 1 <= m <= n, where n is the number of keys; invalid keys have no address.
fn multisig(script: &[u8]) -> Option<Form> {
    let mut ops = ScriptReader::new(script);
    let small = |opcode: u8| match opcode {
        OP_0 => Some(0),
        OP_1..=OP_16 => Some(opcode - OP_1 + 1),
        _ => None,
    };
    let required = small(ops.next_op().ok()?.opcode)?;
    let mut keys = Vec::new();
    let count = loop {
        let op = ops.next_op().ok()?;
        if (33..=65).contains(&op.data.len()) {
            keys.push(op.data);
        } else {
            break small(op.opcode)?;
        }
    };
    let ends = ops.next_op().is_ok_and(|op| op.opcode == OP_CHECKMULTISIG) && ops.at_end();
    if !ends {
        return None;
    }
    if required < 1 || required > count || keys.len() != usize::from(count) {
        return Some(Form { name: "multisig", required: 0, addresses: Vec::new() });
    }
    let addresses = keys.into_iter().filter(|key| has_valid_encoding(key)).map(Address::of_pubkey).collect();
    Some(Form { name: "multisig", required, addresses })
}

/// The disassembly of a script: pushes of up to four bytes as numbers, longer ones in hex. With `signatures`, a
/// push that is a signature shows its hash type by name (`ScriptToAsmStr`).
pub(super) fn asm(script: &Script, signatures: bool) -> String {
    let bytes = script.as_bytes();
    let signatures = signatures && bytes.first() != Some(&OP_RETURN) && bytes.len() <= 10_000;
    let mut reader = ScriptReader::new(bytes);
    let mut words = Vec::new();
    while !reader.at_end() {
        let Ok(op) = reader.next_op() else {
            words.push("[error]".to_owned());
            break;
        };
        words.push(match op.opcode {
            ..=OP_PUSHDATA4 if op.data.len() <= NUMBER_BYTES => script_number(op.data).to_string(),
            ..=OP_PUSHDATA4 if signatures => signature_or_hex(op.data),
            ..=OP_PUSHDATA4 => hex::encode(op.data),
            opcode => word(opcode),
        });
    }
    words.join(" ")
}

fn signature_or_hex(data: &[u8]) -> String {
    let hash_type = data.last().filter(|_| is_strict_der(data)).and_then(|byte| match byte {
        0x01 => Some("ALL"),
        0x02 => Some("NONE"),
        0x03 => Some("SINGLE"),
        0x81 => Some("ALL|ANYONECANPAY"),
        0x82 => Some("NONE|ANYONECANPAY"),
        0x83 => Some("SINGLE|ANYONECANPAY"),
        _ => None,
    });
    match hash_type {
        Some(name) => format!("{}[{name}]", hex::encode(&data[..data.len() - 1])),
        None => hex::encode(data),
    }
}

/// The reference's name of an opcode that is not a push (`GetOpName`).
fn word(opcode: u8) -> String {
    match opcode {
        OP_1NEGATE => "-1".to_owned(),
        OP_1..=OP_16 => (opcode - OP_1 + 1).to_string(),
        OP_CHECKLOCKTIMEVERIFY => "OP_CHECKLOCKTIMEVERIFY".to_owned(),
        OP_CHECKSEQUENCEVERIFY => "OP_CHECKSEQUENCEVERIFY".to_owned(),
        ..=OP_NOP10 => bitcoin::Opcode::from(opcode).to_string(),
        OP_INVALIDOPCODE => "OP_INVALIDOPCODE".to_owned(),
        _ => "OP_UNKNOWN".to_owned(),
    }
}

/// Decodes a push of up to four bytes as a number: little-endian, the top bit is the sign.
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
    use bitcoin::ScriptBuf;
    use iop_consensus::params::Params;

    fn described(hex: &str) -> Value {
        let script = ScriptBuf::from_bytes(hex::decode(hex).expect("tests write hex"));
        Value::Object(script_pubkey(&script, &Params::regtest().prefixes, false))
    }

    #[test]
    fn the_genesis_coinbase_reads_as_in_core() {
        let genesis = Params::main().genesis.block();
        let words = asm(&genesis.txdata[0].input[0].script_sig, true);
        assert!(words.starts_with("486604799 4 4c61204e6163696f6e"), "{words}");
        let paid = asm(&genesis.txdata[0].output[0].script_pubkey, false);
        assert!(paid.starts_with("04ce49f9") && paid.ends_with(" OP_CHECKSIG"), "{paid}");
    }

    #[test]
    fn words_are_those_of_the_reference() {
        let words =
            |hex: &str| asm(&ScriptBuf::from_bytes(hex::decode(hex).expect("tests write hex")), false);
        assert_eq!(words("004f51600101ac"), "0 -1 1 16 1 OP_CHECKSIG");
        assert_eq!(
            words("b1b2b0b9babbff"),
            "OP_CHECKLOCKTIMEVERIFY OP_CHECKSEQUENCEVERIFY OP_NOP1 OP_NOP10 OP_UNKNOWN OP_UNKNOWN OP_INVALIDOPCODE"
        );
        assert_eq!(words("0181"), "-1");
        assert_eq!(words("04ffffffff"), "-2147483647");
        assert_eq!(words("0511"), "[error]");
        assert_eq!(words("7e7f6162506a"), "OP_CAT OP_SUBSTR OP_NOP OP_VER OP_RESERVED OP_RETURN");
    }

    #[test]
    fn forms_are_told_apart() {
        let key = format!("02{}", "11".repeat(32));
        let kind = |hex: &str| described(hex)["type"].clone();
        assert_eq!(kind(&format!("21{key}ac")), "pubkey");
        // No key begins with 05, but the form is the same.
        assert_eq!(
            described(&format!("2105{}ac", "11".repeat(32))),
            json!({"asm": format!("05{} OP_CHECKSIG", "11".repeat(32)), "type": "pubkey"})
        );
        assert_eq!(kind(&format!("76a914{}88ac", "22".repeat(20))), "pubkeyhash");
        assert_eq!(kind(&format!("a914{}87", "22".repeat(20))), "scripthash");
        assert_eq!(kind(&format!("0014{}", "22".repeat(20))), "witness_v0_keyhash");
        assert_eq!(kind(&format!("0020{}", "22".repeat(32))), "witness_v0_scripthash");
        assert_eq!(kind(&format!("5120{}", "22".repeat(32))), "nonstandard");
        assert_eq!(kind("6a03616464"), "nulldata");
        assert_eq!(kind("6a"), "nulldata");
        assert_eq!(kind("6aac"), "nonstandard");
        assert_eq!(kind(""), "nonstandard");
        let both = described(&format!("5121{key}21{key}52ae"));
        assert_eq!((&both["type"], &both["reqSigs"]), (&json!("multisig"), &json!(1)));
        assert_eq!(both["addresses"].as_array().map(Vec::len), Some(2));
        for for_nobody in
            [format!("5321{key}21{key}52ae"), format!("5121{key}52ae"), format!("0021{key}51ae")]
        {
            let described = described(&for_nobody);
            assert_eq!((&described["type"], described.get("addresses")), (&json!("multisig"), None));
            assert_eq!(described.get("reqSigs"), None);
        }
    }
}
