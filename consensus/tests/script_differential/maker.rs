//! Generates spends of outputs, valid and invalid in every way that an interpreter must notice.

use bitcoin::hashes::{Hash, hash160, sha256};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey, SignOnly};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute, transaction,
};

/// A small generator (SplitMix64): the same seed gives the same cases everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

struct Key {
    secret: SecretKey,
    /// Compressed, uncompressed, or hybrid.
    public: Vec<u8>,
}

pub(crate) struct Maker {
    pub(crate) dice: Dice,
    secp: Secp256k1<SignOnly>,
    keys: Vec<Key>,
}

/// How a script is wrapped into an output.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Wrap {
    Bare,
    ScriptHash,
    Witness,
    WitnessInScriptHash,
}

pub(crate) struct Case {
    pub(crate) tx: Transaction,
    pub(crate) input: usize,
    pub(crate) spent: TxOut,
}

fn push(data: &[u8]) -> Vec<u8> {
    Builder::new().push_slice(PushBytesBuf::try_from(data.to_vec()).unwrap()).into_bytes()
}

impl Maker {
    pub(crate) fn new(seed: u64) -> Self {
        let (mut dice, secp) = (Dice(seed), Secp256k1::signing_only());
        let keys = (0..6)
            .map(|index| {
                let secret = SecretKey::from_slice(&dice.bytes(32)).unwrap();
                let public = secret.public_key(&secp);
                let mut bytes = public.serialize_uncompressed().to_vec();
                match index {
                    0..=3 => bytes = public.serialize().to_vec(),
                    4 => {}
                    _ => bytes[0] = 6 + (bytes[64] & 1),
                }
                Key { secret, public: bytes }
            })
            .collect();
        Self { dice, secp, keys }
    }

    fn transaction(&mut self) -> Transaction {
        let sequences = [0, 1, 5, 0x40_0003, 0xffff_fffe, 0xffff_ffff, 0x8000_0000, 0x1_0005];
        let lock_times = [0, 1, 100, 499_999_999, 500_000_000, 1_600_000_000, u32::MAX];
        // Some have so many that their counts need more than one byte, and that our interpreter is used for blocks.
        let (inputs, outputs) = if self.dice.one_in(60) { (1_000, 500) } else { (3, 4) };
        let (inputs, outputs) = (1 + self.dice.below(inputs), self.dice.below(outputs));
        Transaction {
            version: transaction::Version(self.dice.pick(&[1, 2, 2, 2, 0, -1, 3])),
            lock_time: absolute::LockTime::from_consensus(self.dice.pick(&lock_times)),
            input: (0..inputs)
                .map(|vout| TxIn {
                    previous_output: OutPoint {
                        txid: Txid::from_byte_array(self.dice.bytes(32).try_into().unwrap()),
                        vout: vout as u32,
                    },
                    script_sig: ScriptBuf::from_bytes(vec![0x51]),
                    sequence: Sequence(self.dice.pick(&sequences)),
                    witness: Witness::new(),
                })
                .collect(),
            output: (0..outputs)
                .map(|_| TxOut {
                    value: Amount::from_sat(self.dice.next() >> 12),
                    script_pubkey: ScriptBuf::from_bytes({
                        let length = self.dice.below(30);
                        self.dice.bytes(length)
                    }),
                })
                .collect(),
        }
    }

    /// A signature with its hash-type byte, sometimes damaged.
    fn sign(
        &mut self,
        key: usize,
        tx: &Transaction,
        input: usize,
        code: &[u8],
        amount: u64,
        wrap: Wrap,
    ) -> Vec<u8> {
        let segwit = matches!(wrap, Wrap::Witness | Wrap::WitnessInScriptHash);
        let hash_type = match self.dice.below(10) {
            0..=5 => 1,
            6 => self.dice.pick(&[2u8, 3, 0x81, 0x82, 0x83]),
            7 => self.dice.pick(&[3u8, 0x83]),
            8 => self.dice.pick(&[2u8, 0x82, 0x81]),
            _ if segwit => 1,
            _ => self.dice.next() as u8,
        };
        let script = bitcoin::Script::from_bytes(code);
        let mut cache = SighashCache::new(tx);
        let digest = if segwit {
            let kind = EcdsaSighashType::from_consensus(u32::from(hash_type));
            cache.p2wsh_signature_hash(input, script, Amount::from_sat(amount), kind).unwrap().to_byte_array()
        } else {
            let hash = cache.legacy_signature_hash(input, script, u32::from(hash_type));
            hash.unwrap().to_byte_array()
        };
        let signature = self.secp.sign_ecdsa(&Message::from_digest(digest), &self.keys[key].secret);
        let mut bytes = signature.serialize_der().to_vec();
        match self.dice.below(24) {
            0 => bytes = high_s(&signature.serialize_compact()),
            1 => bytes = padded(&signature.serialize_compact()),
            2 => {
                let at = self.dice.below(bytes.len());
                bytes[at] ^= 1 << self.dice.below(8);
            }
            3 => return Vec::new(),
            4 => bytes.push(0),
            _ => {}
        }
        bytes.push(hash_type);
        bytes
    }

    /// A script and the elements that satisfy it.
    fn spend(&mut self, tx: &Transaction, input: usize, amount: u64, wrap: Wrap) -> (Vec<u8>, Vec<Vec<u8>>) {
        let key = self.dice.below(self.keys.len());
        let public = self.keys[key].public.clone();
        let hash = hash160::Hash::hash(&public).to_byte_array();
        let p2pk = [push(&public), vec![0xac]].concat();
        match self.dice.below(10) {
            0 => {
                let signature = self.sign(key, tx, input, &p2pk, amount, wrap);
                (p2pk, vec![signature])
            }
            1 | 2 => {
                let script = [&[0x76, 0xa9, 20][..], &hash, &[0x88, 0xac]].concat();
                let signature = self.sign(key, tx, input, &script, amount, wrap);
                (script, vec![signature, public])
            }
            3 | 4 => self.multisig(tx, input, amount, wrap),
            5 => {
                let wanted =
                    self.dice.pick(&[0i64, 1, 3, 100, 0x40_0002, 500_000_000, 1 << 31, 1 << 33, -1, 1 << 40]);
                let op = self.dice.pick(&[0xb1u8, 0xb2]);
                let lock = Builder::new().push_int(wanted).into_bytes();
                let script = [&lock[..], &[op, 0x75], &p2pk].concat();
                let signature = self.sign(key, tx, input, &script, amount, wrap);
                (script, vec![signature])
            }
            6 => {
                let script = [&[0x63][..], &p2pk, &[0x67, 0x51, 0x68]].concat();
                let signature = self.sign(key, tx, input, &script, amount, wrap);
                let choice = self.dice.pick(&[vec![], vec![1], vec![0x80], vec![2, 0], vec![0]]);
                (script, vec![signature, choice])
            }
            7 => {
                // After a code separator, before one, or with the signature itself in the script.
                let script = [&[0x51, 0x69, 0xab][..], &p2pk].concat();
                let signed = if self.dice.one_in(4) { script.clone() } else { p2pk };
                let signature = self.sign(key, tx, input, &signed, amount, wrap);
                match self.dice.below(3) {
                    0 => ([push(&signature), vec![0x75], script].concat(), vec![signature]),
                    _ => (script, vec![signature]),
                }
            }
            _ => (self.soup(), self.elements()),
        }
    }

    fn multisig(
        &mut self,
        tx: &Transaction,
        input: usize,
        amount: u64,
        wrap: Wrap,
    ) -> (Vec<u8>, Vec<Vec<u8>>) {
        let total = 1 + self.dice.below(4);
        let required = self.dice.below(total + 1);
        let keys: Vec<usize> = (0..total).map(|_| self.dice.below(self.keys.len())).collect();
        let mut script = vec![0x50 + required as u8];
        if required == 0 {
            script[0] = 0;
        }
        for key in &keys {
            let public =
                if self.dice.one_in(12) { self.dice.bytes(33) } else { self.keys[*key].public.clone() };
            script.extend(push(&public));
        }
        script.push(0x50 + total as u8);
        script.push(self.dice.pick(&[0xaeu8, 0xae, 0xae, 0xaf]));
        if script.last() == Some(&0xaf) {
            script.push(0x51);
        }
        let mut chosen: Vec<usize> = (0..total).collect();
        while chosen.len() > required {
            chosen.remove(self.dice.below(chosen.len()));
        }
        if self.dice.one_in(8) {
            chosen.reverse();
        }
        let mut elements = vec![if self.dice.one_in(6) { vec![1] } else { vec![] }];
        for index in chosen {
            elements.push(self.sign(keys[index], tx, input, &script.clone(), amount, wrap));
        }
        (script, elements)
    }

    fn elements(&mut self) -> Vec<Vec<u8>> {
        (0..self.dice.below(7)).map(|_| self.element()).collect()
    }

    fn element(&mut self) -> Vec<u8> {
        let length = self.dice.below(8);
        match self.dice.below(6) {
            0 => vec![],
            1 => vec![self.dice.next() as u8 % 20],
            2 => self.dice.bytes(length),
            3 => Builder::new()
                .push_int(self.dice.next() as i64 >> self.dice.below(60))
                .into_bytes()
                .split_off(1),
            4 => self.dice.pick(&[vec![0x80], vec![0], vec![0xff, 0xff, 0xff, 0xff], vec![0, 0, 0, 0, 1]]),
            _ => {
                let length = self.dice.pick(&[75usize, 76, 255, 256, 519, 520, 521]);
                self.dice.bytes(length)
            }
        }
    }

    /// Random operations. Half of the scripts use operations that seldom fail, since hardly any would reach its end
    /// otherwise.
    fn soup(&mut self) -> Vec<u8> {
        let mild = self.dice.one_in(2);
        let kind: &[u8] = if mild {
            &[
                0x51, 0x52, 0x53, 0x76, 0x74, 0x82, 0x73, 0x61, 0x6b, 0x6c, 0x7c, 0x93, 0x94, 0x9a, 0xa4,
                0x87, 0xa9, 0xb0,
            ]
        } else {
            &[]
        };
        let mut script = Vec::new();
        for _ in 0..self.dice.below(if self.dice.0.is_multiple_of(40) { 260 } else { 24 }) {
            match self.dice.below(4) {
                0 => script.extend(push(&self.element())),
                1 => script.push(0x51 + self.dice.below(16) as u8),
                _ if mild => script.push(self.dice.pick(kind)),
                _ => script.push(0x4f + self.dice.below(0x6c) as u8),
            }
        }
        if mild {
            script.push(0x51);
        }
        if self.dice.one_in(30) {
            let cut = self.dice.below(script.len() + 1);
            script.truncate(cut);
        }
        if self.dice.one_in(60) {
            script.extend(self.dice.pick(&[
                vec![0x4e, 0xff, 0xff, 0xff, 0xff],
                vec![0x4d, 1],
                vec![0x4c],
                vec![0x05, 1],
            ]));
        }
        if self.dice.one_in(200) {
            script.extend(vec![0x61; self.dice.pick(&[199, 200, 201, 202])]);
        }
        if self.dice.one_in(300) {
            script.extend(vec![0x00; self.dice.pick(&[9_990, 9_999, 10_000, 10_001])]);
        }
        script
    }

    pub(crate) fn case(&mut self) -> Case {
        let mut tx = self.transaction();
        let input = self.dice.below(tx.input.len());
        let amount = self.dice.next() >> 13;
        let wrap = self.dice.pick(&[Wrap::Bare, Wrap::ScriptHash, Wrap::Witness, Wrap::WitnessInScriptHash]);
        let (mut script, mut elements) = self.spend(&tx, input, amount, wrap);
        if self.dice.one_in(5) {
            self.damage(&mut script, &mut elements);
        }
        let (pubkey, sig, witness) = self.wrapped(script, elements, wrap, &tx, input, amount);
        tx.input[input].script_sig = ScriptBuf::from_bytes(sig);
        tx.input[input].witness = witness;
        let mut script_pubkey = pubkey;
        if self.dice.one_in(40) {
            flip(&mut self.dice, &mut script_pubkey);
        }
        let spent =
            TxOut { value: Amount::from_sat(amount), script_pubkey: ScriptBuf::from_bytes(script_pubkey) };
        Case { tx, input, spent }
    }

    fn damage(&mut self, script: &mut Vec<u8>, elements: &mut Vec<Vec<u8>>) {
        match self.dice.below(6) {
            0 => flip(&mut self.dice, script),
            1 if !elements.is_empty() => {
                let at = self.dice.below(elements.len());
                flip(&mut self.dice, &mut elements[at]);
            }
            2 if !elements.is_empty() => {
                let at = self.dice.below(elements.len());
                elements.remove(at);
            }
            3 => {
                let (at, element) = (self.dice.below(elements.len() + 1), self.element());
                elements.insert(at, element);
            }
            4 => {
                let (at, op) = (self.dice.below(script.len() + 1), self.dice.next() as u8);
                script.insert(at, op);
            }
            _ => elements.reverse(),
        }
    }

    /// A push, sometimes longer than necessary.
    fn pushed(&mut self, data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u32).to_le_bytes();
        match self.dice.below(30) {
            0 => [&[0x4e][..], &length, data].concat(),
            1 if data.len() < 0x1_0000 => [&[0x4d][..], &length[..2], data].concat(),
            2 if data.len() < 0x100 => [&[0x4c][..], &length[..1], data].concat(),
            _ => push(data),
        }
    }

    fn wrapped(
        &mut self,
        script: Vec<u8>,
        elements: Vec<Vec<u8>>,
        wrap: Wrap,
        tx: &Transaction,
        input: usize,
        amount: u64,
    ) -> (Vec<u8>, Vec<u8>, Witness) {
        let by_hash =
            |script: &[u8]| [&[0xa9, 20][..], &hash160::Hash::hash(script).to_byte_array(), &[0x87]].concat();
        let mut pushes =
            |elements: &[Vec<u8>]| elements.iter().flat_map(|e| self.pushed(e)).collect::<Vec<u8>>();
        let mut stray = Witness::new();
        let result = match wrap {
            Wrap::Bare => (script, pushes(&elements)),
            Wrap::ScriptHash => (by_hash(&script), pushes(&[elements, vec![script.clone()]].concat())),
            Wrap::Witness | Wrap::WitnessInScriptHash => {
                let (program, stack) = self.program(script, elements, tx, input, amount, wrap);
                let witness = Witness::from_slice(&stack);
                return if wrap == Wrap::Witness {
                    let sig = if self.dice.one_in(30) { vec![0x51] } else { vec![] };
                    (program, sig, witness)
                } else {
                    let sig = self.pushed(&program);
                    (
                        by_hash(&program),
                        if self.dice.one_in(30) { [vec![0x51], sig].concat() } else { sig },
                        witness,
                    )
                };
            }
        };
        if self.dice.one_in(40) {
            stray = Witness::from_slice(&[[1u8]]);
        }
        let sig = match self.dice.below(60) {
            0 => [result.1, vec![0x61]].concat(),
            1 => self.soup(),
            _ => result.1,
        };
        (result.0, sig, stray)
    }

    /// A witness program with its witness: usually a script hash, otherwise a key hash, or another version or length.
    fn program(
        &mut self,
        script: Vec<u8>,
        elements: Vec<Vec<u8>>,
        tx: &Transaction,
        input: usize,
        amount: u64,
        wrap: Wrap,
    ) -> (Vec<u8>, Vec<Vec<u8>>) {
        match self.dice.below(12) {
            0..=2 => {
                let key = self.dice.below(self.keys.len());
                let public = self.keys[key].public.clone();
                let hash = hash160::Hash::hash(&public).to_byte_array();
                let code = [&[0x76, 0xa9, 20][..], &hash, &[0x88, 0xac]].concat();
                let signature = self.sign(key, tx, input, &code, amount, wrap);
                ([&[0, 20][..], &hash].concat(), vec![signature, public])
            }
            3 => {
                let (version, length) = (
                    self.dice.pick(&[0u8, 0x51, 0x52, 0x60]),
                    self.dice.pick(&[2usize, 20, 31, 32, 33, 40, 41]),
                );
                let program = [vec![version, length as u8], self.dice.bytes(length)].concat();
                (program, elements)
            }
            _ => {
                let hash = sha256::Hash::hash(&script).to_byte_array();
                ([&[0, 32][..], &hash].concat(), [elements, vec![script]].concat())
            }
        }
    }
}

fn flip(dice: &mut Dice, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        let at = dice.below(bytes.len());
        bytes[at] ^= 1 << dice.below(8);
    }
}

/// An integer of a signature, with `zeros` extra leading zero bytes.
fn integer(number: &[u8], zeros: usize) -> Vec<u8> {
    let mut number: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
    if number.first().is_none_or(|first| first & 0x80 != 0) {
        number.insert(0, 0);
    }
    number.splice(0..0, vec![0; zeros]);
    [vec![2, number.len() as u8], number].concat()
}

fn der(r: &[u8], s: &[u8], zeros: usize) -> Vec<u8> {
    let body = [integer(r, zeros), integer(s, 0)].concat();
    [vec![0x30, body.len() as u8], body].concat()
}

/// The same signature with the other S.
fn high_s(compact: &[u8; 64]) -> Vec<u8> {
    let s = SecretKey::from_slice(&compact[32..]).unwrap().negate();
    der(&compact[..32], &s.secret_bytes(), 0)
}

/// The same signature, but not strictly encoded.
fn padded(compact: &[u8; 64]) -> Vec<u8> {
    der(&compact[..32], &compact[32..], 1)
}
