//! Actions of tests on a chain: mining blocks immediately, and acting as the admin.
//!
//! Admin transactions are built and signed with the `bitcoin` crate alone, so that what the node is asked to accept
//! does not depend on the node's own code.

use std::path::Path;

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, Block, OutPoint, PubkeyHash, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute,
    transaction,
};
use iop_consensus::address::Address;
use iop_consensus::params::Params;
use serde_json::json;

use crate::rpc::Rpc;

/// A network file for a chain like devnet, with the same keys, whose easiest target begins with these eight hex
/// digits; `more` is appended.
pub fn devnet_like(name: &str, target: &str, more: &str) -> String {
    format!("base = \"devnet\"\nname = \"{name}\"\npow_limit = \"{target}{}\"\n{more}\n", "f".repeat(56))
}

/// [`devnet_like`] with blocks of about 2^16 hashes: milliseconds on one core.
pub fn easy_devnet(name: &str, more: &str) -> String {
    devnet_like(name, "0000ffff", more)
}

/// The first line of a key file.
///
/// # Panics
/// When it cannot be read.
pub fn wif(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("the key file was written");
    text.trim().to_owned()
}

/// The license address of a key file.
///
/// # Panics
/// When it is no key of the network.
pub fn license_address(path: &Path, params: &Params) -> String {
    let key = iop_consensus::license::key::LicenseKey::from_wif(&wif(path), &params.prefixes);
    key.expect("the key is of this network").address().to_base58(&params.prefixes)
}

/// Mines blocks immediately, licensed by a key file, and pays its license.
///
/// # Panics
/// When the node refuses.
pub fn generate(rpc: &Rpc, count: u32, key: &Path, params: &Params) -> Vec<String> {
    let hashes = rpc.call("generatetoaddress", json!([count, license_address(key, params), wif(key)]));
    serde_json::from_value(hashes).expect("generatetoaddress gives hashes")
}

/// Performs an admin action on `targets` (addresses) with the coinbase of the active block at `height`, which must be
/// mature and pay the admin key's license: signs the transaction and sends it. Returns its id.
///
/// # Panics
/// When the node refuses it.
pub fn admin_action(
    rpc: &Rpc,
    admin: &Path,
    height: u32,
    verb: &str,
    targets: &[String],
    params: &Params,
) -> String {
    let (outpoint, value) = coinbase_output(rpc, height);
    // A little goes to each target; the rest is the fee.
    let outputs = action_outputs(verb, targets, value / 1_000, params);
    send(rpc, &spend_p2pkh(admin, outpoint, outputs))
}

/// Removes a license without the admin: pays the coinbase of block 1, which `owner` holds, to an output whose spender
/// may push anything, and spends that output with a push of the admin's *public* key. Returns the id of the removing
/// transaction.
///
/// # Panics
/// When the node refuses one of the two.
pub fn forged_removal(rpc: &Rpc, owner: &Path, admin_pubkey: &[u8], victim: &str, params: &Params) -> String {
    let (outpoint, value) = coinbase_output(rpc, 1);
    let fee = value / 1_000;
    let open = TxOut {
        value: Amount::from_sat(value - fee),
        script_pubkey: ScriptBuf::from_bytes(vec![bitcoin::opcodes::all::OP_NOP.to_u8()]),
    };
    let opening = spend_p2pkh(owner, outpoint, vec![open]);
    send(rpc, &opening);
    let outpoint = OutPoint { txid: opening.compute_txid(), vout: 0 };
    let mut forged = transaction(outpoint, action_outputs("rem", &[victim.to_owned()], fee, params));
    let push = PushBytesBuf::try_from(admin_pubkey.to_vec()).expect("a key is short");
    forged.input[0].script_sig = Builder::new().push_slice(push).into_script();
    send(rpc, &forged)
}

/// Spends the coinbase of the active block at `height`, which must pay the key's license, with a relative lock of
/// `blocks`; all but a thousandth is the fee. Returns the raw transaction.
///
/// # Panics
/// When the node does not have the block.
pub fn locked_spend(rpc: &Rpc, key: &Path, height: u32, blocks: u16, params: &Params) -> String {
    let (outpoint, value) = coinbase_output(rpc, height);
    let address = license_address(key, params);
    let mut tx = transaction(outpoint, action_outputs("no verb", &[address], value / 1_000, params));
    tx.version = transaction::Version::TWO;
    tx.input[0].sequence = Sequence::from_height(blocks);
    serialize_hex(&signed(key, tx))
}

/// The first output of the coinbase of the active block at `height`: its outpoint, and its value in base units.
fn coinbase_output(rpc: &Rpc, height: u32) -> (OutPoint, u64) {
    let hash = rpc.call("getblockhash", json!([height]));
    let raw = rpc.call("getblock", json!([hash, 0]));
    let block: Block =
        deserialize_hex(raw.as_str().expect("a raw block is hex")).expect("the node's block is one");
    let coinbase = &block.txdata[0];
    (OutPoint { txid: coinbase.compute_txid(), vout: 0 }, coinbase.output[0].value.to_sat())
}

/// An output with the verb, and one of `value` for each target.
fn action_outputs(verb: &str, targets: &[String], value: u64, params: &Params) -> Vec<TxOut> {
    let verb = PushBytesBuf::try_from(verb.as_bytes().to_vec()).expect("verbs are short");
    let mut outputs = vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(verb) }];
    outputs.extend(targets.iter().map(|target| {
        let address = Address::parse(target, &params.prefixes).expect("a target is an address");
        TxOut { value: Amount::from_sat(value), script_pubkey: address.script_pubkey() }
    }));
    outputs
}

fn transaction(outpoint: OutPoint, output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    }
}

/// Spends an output that pays the key's P2PKH address.
fn spend_p2pkh(key: &Path, outpoint: OutPoint, output: Vec<TxOut>) -> Transaction {
    signed(key, transaction(outpoint, output))
}

/// Signs the first input, which spends an output that pays to the key's P2PKH address.
fn signed(key: &Path, mut tx: Transaction) -> Transaction {
    let wif = bitcoin::base58::decode_check(&wif(key)).expect("a WIF key is Base58Check");
    let secret = SecretKey::from_slice(&wif[1..33]).expect("a WIF key has 32 secret bytes");
    let secp = Secp256k1::new();
    let pubkey = bitcoin::PublicKey::new(secret.public_key(&secp));
    let spent_script = ScriptBuf::new_p2pkh(&PubkeyHash::from(pubkey));
    let sighash = SighashCache::new(&tx)
        .legacy_signature_hash(0, &spent_script, EcdsaSighashType::All.to_u32())
        .expect("input 0 exists");
    let signature = bitcoin::ecdsa::Signature {
        signature: secp.sign_ecdsa(&Message::from_digest(sighash.to_byte_array()), &secret),
        sighash_type: EcdsaSighashType::All,
    };
    tx.input[0].script_sig = Builder::new().push_slice(signature.serialize()).push_key(&pubkey).into_script();
    tx
}

fn send(rpc: &Rpc, tx: &Transaction) -> String {
    let id = rpc.call("sendrawtransaction", json!([serialize_hex(tx), true]));
    id.as_str().expect("an id is a text").to_owned()
}
