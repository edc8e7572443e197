//! The forms of output scripts that the reference has names for (`script/standard.cpp`).
//!
//! Lives here: recognising the form of a script and extracting its contents. Does not live here: which forms are
//! relayed. [`solve`] is used by relay policy, for addresses in RPC answers, and for templates.

use bitcoin::opcodes::all as op;

use super::reader::{Op, ScriptReader, is_push_only};

const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;

/// `OP_HASH160 <20 bytes> OP_EQUAL`, exactly (`IsPayToScriptHash`).
pub fn is_p2sh(script: &[u8]) -> bool {
    script.len() == 23
        && script[0] == op::OP_HASH160.to_u8()
        && script[1] == 20
        && script[22] == op::OP_EQUAL.to_u8()
}

/// A version opcode and one direct push of 2 to 40 bytes (`IsWitnessProgram`).
pub fn is_witness_program(script: &[u8]) -> bool {
    witness_program(script).is_some()
}

/// The version and the program of a witness program (`IsWitnessProgram`).
pub fn witness_program(script: &[u8]) -> Option<(u8, &[u8])> {
    if !(4..=42).contains(&script.len()) || usize::from(script[1]) + 2 != script.len() {
        return None;
    }
    match script[0] {
        0 => Some((0, &script[2..])),
        version @ OP_1..=OP_16 => Some((version - OP_1 + 1, &script[2..])),
        _ => None,
    }
}

/// The form of an output script (`txnouttype`), with its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptForm<'a> {
    /// None of the other forms.
    NonStandard,
    /// A public key and OP_CHECKSIG.
    PubKey(&'a [u8]),
    /// The hash of a public key.
    PubKeyHash(&'a [u8]),
    /// The hash of a script.
    ScriptHash(&'a [u8]),
    /// m-of-n multisig.
    MultiSig {
        /// Signatures needed, 1 to 16.
        required: u8,
        /// The keys, 1 to 16.
        keys: Vec<&'a [u8]>,
    },
    /// OP_RETURN and pushes.
    NullData,
    /// Witness version 0, the hash of a public key.
    WitnessPubKeyHash(&'a [u8]),
    /// Witness version 0, the hash of a script.
    WitnessScriptHash(&'a [u8]),
}

impl ScriptForm<'_> {
    /// The reference's name for it (`GetTxnOutputType`).
    pub fn name(&self) -> &'static str {
        match self {
            Self::NonStandard => "nonstandard",
            Self::PubKey(_) => "pubkey",
            Self::PubKeyHash(_) => "pubkeyhash",
            Self::ScriptHash(_) => "scripthash",
            Self::MultiSig { .. } => "multisig",
            Self::NullData => "nulldata",
            Self::WitnessPubKeyHash(_) => "witness_v0_keyhash",
            Self::WitnessScriptHash(_) => "witness_v0_scripthash",
        }
    }
}

/// Recognises the form of an output script (`Solver`).
pub fn solve(script: &[u8]) -> ScriptForm<'_> {
    if is_p2sh(script) {
        return ScriptForm::ScriptHash(&script[2..22]);
    }
    if let Some(program) = witness_program(script) {
        return match program {
            (0, hash) if hash.len() == 20 => ScriptForm::WitnessPubKeyHash(hash),
            (0, hash) if hash.len() == 32 => ScriptForm::WitnessScriptHash(hash),
            _ => ScriptForm::NonStandard,
        };
    }
    if script.first() == Some(&op::OP_RETURN.to_u8()) && is_push_only(&script[1..]) {
        return ScriptForm::NullData;
    }
    pubkey(script)
        .or_else(|| pubkey_hash(script))
        .or_else(|| multisig(script))
        .unwrap_or(ScriptForm::NonStandard)
}

/// Whether a push can be the key in a template: any of 33 to 65 bytes.
fn is_key(data: &[u8]) -> bool {
    (33..=65).contains(&data.len())
}

fn pubkey(script: &[u8]) -> Option<ScriptForm<'_>> {
    let mut reader = ScriptReader::new(script);
    let key = reader.next_op().ok().filter(|op| is_key(op.data))?;
    let rest = [op::OP_CHECKSIG.to_u8()];
    (reader.rest() == rest).then_some(ScriptForm::PubKey(key.data))
}

fn pubkey_hash(script: &[u8]) -> Option<ScriptForm<'_>> {
    let mut reader = ScriptReader::new(script.strip_prefix(&[op::OP_DUP.to_u8(), op::OP_HASH160.to_u8()])?);
    let hash = reader.next_op().ok().filter(|op| op.data.len() == 20)?;
    let rest = [op::OP_EQUALVERIFY.to_u8(), op::OP_CHECKSIG.to_u8()];
    (reader.rest() == rest).then_some(ScriptForm::PubKeyHash(hash.data))
}

fn small_number(op: Op<'_>) -> Option<u8> {
    match op.opcode {
        0 => Some(0),
        opcode @ OP_1..=OP_16 => Some(opcode - OP_1 + 1),
        _ => None,
    }
}

fn multisig(script: &[u8]) -> Option<ScriptForm<'_>> {
    let mut reader = ScriptReader::new(script);
    let required = small_number(reader.next_op().ok()?)?;
    let mut keys = Vec::new();
    let mut op = reader.next_op().ok()?;
    while is_key(op.data) {
        keys.push(op.data);
        op = reader.next_op().ok()?;
    }
    let total = small_number(op)?;
    let fits = required >= 1 && total >= required && keys.len() == usize::from(total);
    (fits && reader.rest() == [op::OP_CHECKMULTISIG.to_u8()])
        .then_some(ScriptForm::MultiSig { required, keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_as_the_reference_tells_them() {
        let key = [&[33u8][..], &[2; 33]].concat();
        let with = |parts: &[&[u8]]| parts.concat();
        let cases: [(Vec<u8>, &str); 14] = [
            (with(&[&key, &[0xac]]), "pubkey"),
            (with(&[&key, &[0xac, 0x61]]), "nonstandard"),
            (with(&[&[0x4c, 33], &[2; 33], &[0xac]]), "pubkey"),
            (with(&[&[0x76, 0xa9, 20], &[1; 20], &[0x88, 0xac]]), "pubkeyhash"),
            (with(&[&[0x76, 0xa9, 0x4c, 20], &[1; 20], &[0x88, 0xac]]), "pubkeyhash"),
            (with(&[&[0xa9, 20], &[1; 20], &[0x87]]), "scripthash"),
            (with(&[&[0xa9, 0x4c, 20], &[1; 20], &[0x87]]), "nonstandard"),
            (with(&[&[0, 20], &[1; 20]]), "witness_v0_keyhash"),
            (with(&[&[0, 32], &[1; 32]]), "witness_v0_scripthash"),
            (with(&[&[0x51, 32], &[1; 32]]), "nonstandard"),
            (with(&[&[0x51], &key, &key, &[0x52, 0xae]]), "multisig"),
            (with(&[&[0x52], &key, &[0x51, 0xae]]), "nonstandard"),
            (with(&[&[0x6a, 2, 1, 1]]), "nulldata"),
            (with(&[&[0x6a, 2, 1]]), "nonstandard"),
        ];
        for (script, name) in cases {
            assert_eq!(solve(&script).name(), name, "{script:02x?}");
        }
    }
}
