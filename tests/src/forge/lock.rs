//! Output scripts that tests pay to, and how each is spent.

use bitcoin::hashes::{Hash, hash160, sha256};
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKSIG, OP_CLTV, OP_CSV, OP_DROP, OP_ENDIF, OP_EQUAL, OP_HASH160, OP_IF, OP_NOP,
    OP_PUSHNUM_1, OP_PUSHNUM_2,
};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, Script, ScriptBuf, Transaction, Witness};

use super::key::TestKey;

/// Multisig operations that fit into a script (201 operations, `OP_IF` and `OP_ENDIF` among them), 20 operations each.
pub const SIGOPS: u64 = 199 * 20;

/// An output script; keys are indices into the list of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lock {
    /// `OP_NOP`: spent by any push that is true.
    Open,
    /// `OP_1`: spent by anything.
    Anyone,
    /// To a key's hash.
    Pkh(usize),
    /// To a key.
    Pk(usize),
    /// Bare 1-of-2.
    Multisig(usize, usize),
    /// 1-of-2 in P2SH.
    ShMultisig(usize, usize),
    /// `OP_1` in P2SH.
    ShAnyone,
    /// [`SIGOPS`] signature operations that are never run, in P2SH.
    ShSigops,
    /// The same in a witness script.
    WshSigops,
    /// To a key's hash, in the witness.
    Wpkh(usize),
    /// To a key's hash, in the witness, in P2SH.
    ShWpkh(usize),
    /// To a key, as a witness script.
    Wsh(usize),
    /// To a key, not before this lock time.
    Cltv(u32, usize),
    /// To a key, not before this relative lock time.
    Csv(u32, usize),
}

/// A push of any length in its shortest form.
///
/// # Panics
/// For 4 GB or more.
pub fn push(data: &[u8]) -> Vec<u8> {
    let data = PushBytesBuf::try_from(data.to_vec()).expect("test data are short");
    Builder::new().push_slice(data).into_bytes()
}

impl Lock {
    /// The output's script.
    pub fn script(self, keys: &[TestKey]) -> ScriptBuf {
        match self {
            Self::Pkh(key) => keys[key].address().script_pubkey(),
            Self::ShMultisig(..) | Self::ShAnyone | Self::ShWpkh(_) | Self::ShSigops => {
                pay_to_script(&self.inner(keys))
            }
            Self::Wpkh(key) => pay_to_witness_key(&keys[key]),
            Self::Wsh(_) | Self::WshSigops => Builder::new()
                .push_int(0)
                .push_slice(sha256::Hash::hash(self.inner(keys).as_bytes()).to_byte_array())
                .into_script(),
            _ => self.inner(keys),
        }
    }

    /// The script that is finally run.
    fn inner(self, keys: &[TestKey]) -> ScriptBuf {
        let pay = |key: usize| [push(&keys[key].pubkey), vec![OP_CHECKSIG.to_u8()]].concat();
        ScriptBuf::from_bytes(match self {
            Self::Open => vec![OP_NOP.to_u8()],
            Self::Anyone | Self::ShAnyone => vec![OP_PUSHNUM_1.to_u8()],
            Self::ShSigops | Self::WshSigops => [
                vec![0, OP_IF.to_u8()],
                vec![OP_CHECKMULTISIG.to_u8(); SIGOPS as usize / 20],
                vec![OP_ENDIF.to_u8(), OP_PUSHNUM_1.to_u8()],
            ]
            .concat(),
            Self::Pk(key) | Self::Wsh(key) => pay(key),
            Self::Pkh(key) | Self::Wpkh(key) => keys[key].address().script_pubkey().into_bytes(),
            Self::ShWpkh(key) => pay_to_witness_key(&keys[key]).into_bytes(),
            Self::Multisig(a, b) | Self::ShMultisig(a, b) => [
                vec![OP_PUSHNUM_1.to_u8()],
                push(&keys[a].pubkey),
                push(&keys[b].pubkey),
                vec![OP_PUSHNUM_2.to_u8(), OP_CHECKMULTISIG.to_u8()],
            ]
            .concat(),
            Self::Cltv(time, key) | Self::Csv(time, key) => {
                let opcode = if matches!(self, Self::Cltv(..)) { OP_CLTV } else { OP_CSV };
                let lock = Builder::new().push_int(i64::from(time)).push_opcode(opcode).push_opcode(OP_DROP);
                [lock.into_bytes(), pay(key)].concat()
            }
        })
    }

    /// Whether it is spent by the witness.
    pub fn has_witness(self) -> bool {
        matches!(self, Self::Wpkh(_) | Self::ShWpkh(_) | Self::Wsh(_) | Self::WshSigops)
    }

    /// Fills in the script or witness that spends an output of this lock and value, signed with this hash type.
    ///
    /// # Panics
    /// When the transaction has no such input.
    pub fn unlock(self, tx: &mut Transaction, input: usize, value: u64, keys: &[TestKey], hash_type: u8) {
        let script = self.inner(keys);
        let sign = |tx: &Transaction, key: usize| {
            let mut signature = keys[key].sign(self.digest(tx, input, value, keys, hash_type));
            signature.push(hash_type);
            signature
        };
        let mut witness = Witness::new();
        let script_sig = match self {
            Self::Open => vec![OP_PUSHNUM_1.to_u8()],
            Self::Anyone => vec![],
            Self::ShAnyone | Self::ShSigops => push(script.as_bytes()),
            Self::WshSigops => {
                witness = Witness::from_slice(&[script.into_bytes()]);
                vec![]
            }
            Self::Pk(key) | Self::Cltv(_, key) | Self::Csv(_, key) => push(&sign(tx, key)),
            Self::Pkh(key) => [push(&sign(tx, key)), push(&keys[key].pubkey)].concat(),
            Self::Multisig(key, _) => [vec![0], push(&sign(tx, key))].concat(),
            Self::ShMultisig(key, _) => [vec![0], push(&sign(tx, key)), push(script.as_bytes())].concat(),
            Self::Wpkh(key) | Self::ShWpkh(key) => {
                witness = Witness::from_slice(&[sign(tx, key), keys[key].pubkey.clone()]);
                if self == Self::ShWpkh(key) { push(script.as_bytes()) } else { vec![] }
            }
            Self::Wsh(key) => {
                witness = Witness::from_slice(&[sign(tx, key), script.into_bytes()]);
                vec![]
            }
        };
        tx.input[input].script_sig = ScriptBuf::from_bytes(script_sig);
        tx.input[input].witness = witness;
    }

    /// The digest that a signature of this input signs.
    ///
    /// # Panics
    /// When the transaction has no such input, or for a hash type that segwit does not know.
    pub fn digest(
        self,
        tx: &Transaction,
        input: usize,
        value: u64,
        keys: &[TestKey],
        hash_type: u8,
    ) -> [u8; 32] {
        let mut cache = SighashCache::new(tx);
        let (script, value) = (self.inner(keys), Amount::from_sat(value));
        let segwit = EcdsaSighashType::from_consensus(u32::from(hash_type));
        match self {
            Self::Wpkh(_) | Self::ShWpkh(_) => {
                let program = if let Self::ShWpkh(_) = self { script } else { self.script(keys) };
                let hash = cache.p2wpkh_signature_hash(input, &program, value, segwit);
                hash.expect("the input exists").to_byte_array()
            }
            Self::Wsh(_) => {
                let hash = cache.p2wsh_signature_hash(input, &script, value, segwit);
                hash.expect("the input exists").to_byte_array()
            }
            _ => {
                let hash = cache.legacy_signature_hash(input, &script, u32::from(hash_type));
                hash.expect("the input exists").to_byte_array()
            }
        }
    }
}

fn pay_to_witness_key(key: &TestKey) -> ScriptBuf {
    Builder::new().push_int(0).push_slice(key.address().hash).into_script()
}

/// P2SH of a script.
pub fn pay_to_script(script: &Script) -> ScriptBuf {
    let hash = hash160::Hash::hash(script.as_bytes()).to_byte_array();
    Builder::new().push_opcode(OP_HASH160).push_slice(hash).push_opcode(OP_EQUAL).into_script()
}
