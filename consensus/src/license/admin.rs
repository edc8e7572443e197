//! Admin actions: transactions that change the whitelist and the cap (`ConnectBlock`).
//!
//! An input makes its transaction an admin transaction if the *last data* of its script is an admin public key. Nothing
//! checks that the key signed; this is the chain's rule. To find out whether an admin took part, use [`is_signed_by`].

use std::sync::Arc;

use bitcoin::{Transaction, TxOut};

use crate::address::Address;
use crate::params::Params;
use crate::script::ScriptReader;

/// A key that acts as an admin key on every network below [`OLD_ADMIN_UNTIL`].
const OLD_ADMIN_PUBKEY: [u8; 33] = [
    0x03, 0x8f, 0x21, 0xc8, 0x8b, 0x0d, 0x7f, 0x60, 0xe7, 0x36, 0xcc, 0x44, 0x7a, 0x3a, 0x67, 0x16, 0xc8,
    0x1a, 0x7b, 0x40, 0x3b, 0x27, 0xbe, 0xde, 0x2b, 0x67, 0x52, 0x2d, 0x7c, 0x29, 0xb6, 0xe6, 0x08,
];
/// First height at which the old admin key has no effect.
const OLD_ADMIN_UNTIL: u32 = 38_304;
const ENABLE_CAP_PREFIX: &[u8] = b"enable_cap:";

/// What an admin transaction does to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `add`: whitelist an address.
    Add,
    /// `rem`: remove an address from the whitelist.
    Remove,
    /// `enable_cap:` and a byte: turn the cap on.
    EnableCap {
        /// The cap's factor, see [`Verb::parse`].
        factor: u32,
    },
    /// `disable_cap`: turn the cap off.
    DisableCap,
}

impl Verb {
    /// Parses a verb; it is case-sensitive and must match exactly. The factor is the *last hex digit* of the data as a
    /// character, minus the character '0': `enable_cap:3` gives 3, and a last byte of 0x3a gives 'a' - '0' = 49.
    pub fn parse(data: &[u8]) -> Option<Self> {
        match data {
            b"add" => Some(Self::Add),
            b"rem" => Some(Self::Remove),
            b"disable_cap" => Some(Self::DisableCap),
            _ => match data.strip_prefix(ENABLE_CAP_PREFIX)? {
                [byte] => {
                    let digit =
                        char::from_digit(u32::from(byte & 0x0f), 16).expect("four bits are a hex digit");
                    Some(Self::EnableCap { factor: digit as u32 - '0' as u32 })
                }
                _ => None,
            },
        }
    }
}

/// The effect of one admin input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAction {
    /// Index of the input that named the admin key.
    pub input: usize,
    /// The key that it named.
    pub pubkey: Vec<u8>,
    /// The verb.
    pub verb: Verb,
    /// The addresses acted on: every output of the transaction that has an address, in order. The verb applies once to
    /// each, so without any it does nothing. All actions of a transaction share the list, since both can number
    /// thousands.
    pub targets: Arc<[Address]>,
}

/// The actions of a non-coinbase transaction in a block at `height`, one for each admin input.
pub fn actions(tx: &Transaction, height: u32, params: &Params) -> Vec<AdminAction> {
    let admin_inputs: Vec<(usize, Vec<u8>)> = tx
        .input
        .iter()
        .map(|input| ScriptReader::new(input.script_sig.as_bytes()).last_data())
        .enumerate()
        .filter(|(_, key)| is_admin_key(key, height, params))
        .map(|(input, key)| (input, key.to_vec()))
        .collect();
    if admin_inputs.is_empty() {
        return Vec::new();
    }
    let Some(verb) = verb_of(tx) else { return Vec::new() };
    let targets: Arc<[Address]> =
        tx.output.iter().filter_map(|output| Address::from_script(&output.script_pubkey)).collect();
    admin_inputs
        .into_iter()
        .map(|(input, pubkey)| AdminAction { input, pubkey, verb, targets: targets.clone() })
        .collect()
}

fn is_admin_key(key: &[u8], height: u32, params: &Params) -> bool {
    params.license.admin_pubkeys.iter().any(|admin| admin == key)
        || (height < OLD_ADMIN_UNTIL && key == OLD_ADMIN_PUBKEY)
}

/// The verb is the last data of output 0's script, if that script begins with OP_RETURN.
fn verb_of(tx: &Transaction) -> Option<Verb> {
    let script = tx.output.first()?.script_pubkey.as_bytes();
    if script.first() != Some(&bitcoin::opcodes::all::OP_RETURN.to_u8()) {
        return None;
    }
    Verb::parse(ScriptReader::new(script).last_data())
}

/// Whether spending `spent` required a signature of `pubkey`: it pays to that key or its address.
pub fn is_signed_by(spent: &TxOut, pubkey: &[u8]) -> bool {
    Address::from_script(&spent.script_pubkey) == Some(Address::of_pubkey(pubkey))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn verbs_are_case_sensitive_and_exact() {
        assert_eq!(Verb::parse(b"add"), Some(Verb::Add));
        assert_eq!(Verb::parse(b"rem"), Some(Verb::Remove));
        assert_eq!(Verb::parse(b"disable_cap"), Some(Verb::DisableCap));
        for wrong in [&b"Add"[..], b"add ", b"remove", b"", b"enable_cap", b"enable_cap:", b"enable_cap:12"] {
            assert_eq!(Verb::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_factor_is_the_last_hex_digit_character() {
        let factor = |byte: u8| match Verb::parse(&[ENABLE_CAP_PREFIX, &[byte]].concat()) {
            Some(Verb::EnableCap { factor }) => factor,
            other => panic!("{other:?}"),
        };
        assert_eq!(factor(b'3'), 3);
        assert_eq!(factor(b'0'), 0);
        assert_eq!(factor(0x61), 1);
        assert_eq!(factor(0x3a), 49);
        assert_eq!(factor(0xff), 54);
    }

    #[test]
    fn a_thousand_admin_inputs_share_their_thousand_targets() {
        use bitcoin::{Amount, ScriptBuf, TxIn, absolute, transaction};
        let params = Params::regtest();
        let script_sig = ScriptBuf::from_bytes([&[33][..], &params.license.admin_pubkeys[0]].concat());
        let output = |script: Vec<u8>| TxOut { value: Amount::ZERO, script_pubkey: script.into() };
        let targets = (0..1_000u32).map(|n| {
            let hash = [&n.to_le_bytes()[..], &[7; 16]].concat();
            output([&[0xa9, 20][..], &hash, &[0x87]].concat())
        });
        let tx = Transaction {
            version: transaction::Version::ONE,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn { script_sig, ..TxIn::default() }; 1_000],
            output: std::iter::once(output(b"\x6a\x03add".to_vec())).chain(targets).collect(),
        };
        let actions = actions(&tx, 1, &params);
        assert_eq!((actions.len(), actions[0].targets.len()), (1_000, 1_000));
        assert!(actions.iter().all(|action| Arc::ptr_eq(&action.targets, &actions[0].targets)));
    }

    #[test]
    fn the_old_admin_key_acts_on_every_network_below_its_height() {
        let params = Params::regtest();
        assert!(is_admin_key(&OLD_ADMIN_PUBKEY, 38_303, &params));
        assert!(!is_admin_key(&OLD_ADMIN_PUBKEY, 38_304, &params));
        assert_eq!(
            hex::encode(OLD_ADMIN_PUBKEY),
            "038f21c88b0d7f60e736cc447a3a6716c81a7b403b27bede2b67522d7c29b6e608"
        );
    }
}
