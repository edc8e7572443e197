//! The digest that a signature commits to: the original one, and that of witness scripts (BIP143).
//!
//! Lives here: [`SpendingTx`], a transaction with the hashes that all its witness inputs share, computed once. So a
//! witness input costs only its own size; a legacy input costs the size of the whole transaction, as the rule demands.

use std::sync::OnceLock;

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::opcodes::all as op;
use bitcoin::{OutPoint, Transaction, TxIn, TxOut, VarInt};

use super::super::reader::ScriptReader;

/// Hash type: no outputs.
const NONE: u8 = 2;
/// Hash type: only the output with the input's index.
const SINGLE: u8 = 3;
/// Hash type: only this input.
const ANYONE_CAN_PAY: u8 = 0x80;

/// The rules that a script runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Input scripts, output scripts and redeem scripts.
    Base,
    /// Witness scripts of version 0.
    Witness,
}

/// A transaction whose inputs are being checked.
#[derive(Debug)]
pub struct SpendingTx<'a> {
    pub(super) tx: &'a Transaction,
    shared: OnceLock<Shared>,
}

/// The hashes that all witness inputs commit to.
#[derive(Debug)]
struct Shared {
    outpoints: [u8; 32],
    sequences: [u8; 32],
    outputs: [u8; 32],
}

impl<'a> SpendingTx<'a> {
    /// Wraps a transaction; nothing is computed yet.
    pub fn new(tx: &'a Transaction) -> Self {
        Self { tx, shared: OnceLock::new() }
    }

    fn shared(&self) -> &Shared {
        self.shared.get_or_init(|| Shared {
            outpoints: hash_all(self.tx.input.iter().map(|input| &input.previous_output)),
            sequences: hash_all(self.tx.input.iter().map(|input| &input.sequence)),
            outputs: hash_all(&self.tx.output),
        })
    }

    /// The digest for a signature in `input` (`SignatureHash`).
    pub(super) fn digest(
        &self,
        input: usize,
        code: &[u8],
        hash_type: u8,
        amount: u64,
        version: Version,
    ) -> [u8; 32] {
        match version {
            Version::Base => self.base_digest(input, code, hash_type),
            Version::Witness => self.witness_digest(input, code, hash_type, amount),
        }
    }

    fn witness_digest(&self, input: usize, code: &[u8], hash_type: u8, amount: u64) -> [u8; 32] {
        let tx = self.tx;
        let anyone = hash_type & ANYONE_CAN_PAY != 0;
        let (none, single) = (hash_type & 0x1f == NONE, hash_type & 0x1f == SINGLE);
        let this = &tx.input[input];
        let mut hash = Writer::new();
        hash.put(&tx.version);
        hash.bytes(if anyone { &[0; 32] } else { &self.shared().outpoints });
        hash.bytes(if anyone || none || single { &[0; 32] } else { &self.shared().sequences });
        hash.put(&this.previous_output);
        hash.script(code);
        hash.put(&amount);
        hash.put(&this.sequence);
        match tx.output.get(input) {
            _ if !none && !single => hash.bytes(&self.shared().outputs),
            Some(output) if single => hash.bytes(&hash_all([output])),
            _ => hash.bytes(&[0; 32]),
        }
        hash.put(&tx.lock_time);
        hash.put(&u32::from(hash_type));
        hash.finish()
    }

    fn base_digest(&self, input: usize, code: &[u8], hash_type: u8) -> [u8; 32] {
        let tx = self.tx;
        let (none, single) = (hash_type & 0x1f == NONE, hash_type & 0x1f == SINGLE);
        if single && input >= tx.output.len() {
            // A bug that became a rule: the digest is the number one, little-endian.
            let mut one = [0; 32];
            one[0] = 1;
            return one;
        }
        let mut hash = Writer::new();
        hash.put(&tx.version);
        if hash_type & ANYONE_CAN_PAY != 0 {
            hash.put(&VarInt(1));
            hash.input(&tx.input[input], Some(code), false);
        } else {
            hash.put(&VarInt(tx.input.len() as u64));
            for (index, other) in tx.input.iter().enumerate() {
                let own = index == input;
                hash.input(other, own.then_some(code), !own && (none || single));
            }
        }
        let outputs = if none { &[] } else { &tx.output[..if single { input + 1 } else { tx.output.len() }] };
        hash.put(&VarInt(outputs.len() as u64));
        let blank = TxOut::NULL;
        for (index, output) in outputs.iter().enumerate() {
            hash.put(if single && index != input { &blank } else { output });
        }
        hash.put(&tx.lock_time);
        hash.put(&u32::from(hash_type));
        hash.finish()
    }
}

/// The double SHA-256 of the concatenated encodings of some values.
fn hash_all<'t, T: Encodable + 't>(things: impl IntoIterator<Item = &'t T>) -> [u8; 32] {
    let mut hash = Writer::new();
    things.into_iter().for_each(|thing| hash.put(thing));
    hash.finish()
}

struct Writer(bitcoin::hashes::sha256::HashEngine);

impl Writer {
    fn new() -> Self {
        Self(sha256d::Hash::engine())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.input(bytes);
    }

    fn put<T: Encodable + ?Sized>(&mut self, thing: &T) {
        thing.consensus_encode(&mut self.0).expect("a hash takes any bytes");
    }

    fn script(&mut self, script: &[u8]) {
        self.put(&VarInt(script.len() as u64));
        self.bytes(script);
    }

    /// Writes an input as it is signed: with `code` in place of its script, or with an empty script.
    fn input(&mut self, input: &TxIn, code: Option<&[u8]>, blank_sequence: bool) {
        self.put::<OutPoint>(&input.previous_output);
        match code {
            Some(code) => self.code(code),
            None => self.script(&[]),
        }
        self.put(&if blank_sequence { 0 } else { input.sequence.to_consensus_u32() });
    }

    /// Writes a script without its code separators.
    fn code(&mut self, code: &[u8]) {
        let mut reader = ScriptReader::new(code);
        let mut separators = Vec::new();
        while let Ok(read) = reader.next_op() {
            if read.opcode == op::OP_CODESEPARATOR.to_u8() {
                separators.push(code.len() - reader.rest().len() - 1);
            }
        }
        self.put(&VarInt((code.len() - separators.len()) as u64));
        let mut from = 0;
        for at in separators {
            self.bytes(&code[from..at]);
            from = at + 1;
        }
        self.bytes(&code[from..]);
    }

    fn finish(self) -> [u8; 32] {
        sha256d::Hash::from_engine(self.0).to_byte_array()
    }
}
