//! An admin action as a transaction.
//!
//! Output 0 carries the verb; each address is named by an output that pays it; the last output is the admin's
//! change. Each input spends a P2PKH coin of the admin, so its last push is the admin's public key. The verb
//! applies once per output with an address: for the cap, the admin's own output is what makes it apply at all;
//! adding or removing an admin does nothing.

use bitcoin::hashes::Hash;
use bitcoin::script::PushBytesBuf;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, script, transaction,
};
use iop_consensus::address::Address;
use iop_consensus::license::admin::{self, Verb};
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;

/// An output below this is dust, base units (`GetDustThreshold` of a P2PKH output).
const DUST: u64 = 546;
/// Longest signature with its hash type, bytes.
const SIGNATURE_BYTES: u64 = 73;
/// Bytes of an input without the pushed data: outpoint, script length, sequence; and the two pushes' lengths.
const INPUT_BYTES: u64 = 36 + 1 + 4 + 2;
/// Bytes of version, lock time, and the counts of inputs and outputs.
const FRAME_BYTES: u64 = 4 + 4 + 3 + 3;

/// A coin that the admin can spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdminCoin {
    pub(super) outpoint: OutPoint,
    /// In base units.
    pub(super) value: u64,
}

/// The action to perform.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) verb: Verb,
    pub(super) targets: Vec<Address>,
    /// Base units paid to each target.
    pub(super) amount: u64,
    /// Base units per byte.
    pub(super) fee_rate: u64,
}

/// A signed transaction with its costs.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) tx: Transaction,
    pub(super) coins: Vec<AdminCoin>,
    /// In base units.
    pub(super) fee: u64,
    /// Base units returned to the admin; 0 if that would be dust.
    pub(super) change: u64,
}

impl Action {
    /// The verb as encoded on the chain. A factor is one digit.
    fn verb_bytes(&self) -> Vec<u8> {
        match self.verb {
            Verb::Add => b"add".to_vec(),
            Verb::Remove => b"rem".to_vec(),
            Verb::EnableCap { factor } => format!("enable_cap:{factor}").into_bytes(),
            Verb::DisableCap => b"disable_cap".to_vec(),
        }
    }

    /// All outputs except the admin's.
    fn outputs(&self) -> Vec<TxOut> {
        let verb = PushBytesBuf::try_from(self.verb_bytes()).expect("verbs are short");
        let mut outputs = vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(verb) }];
        outputs.extend(self.targets.iter().map(|target| TxOut {
            value: Amount::from_sat(self.amount),
            script_pubkey: target.script_pubkey(),
        }));
        outputs
    }

    /// The fee in base units for this many inputs and an output to the admin.
    fn fee(&self, key: &LicenseKey, inputs: usize) -> u64 {
        let input = INPUT_BYTES + SIGNATURE_BYTES + key.pubkey().len() as u64;
        let outputs: usize = self.outputs().iter().map(TxOut::size).sum();
        let back = TxOut { value: Amount::ZERO, script_pubkey: key.address().script_pubkey() }.size();
        self.fee_rate * (FRAME_BYTES + inputs as u64 * input + (outputs + back) as u64)
    }

    /// Base units that this many inputs must have in total, with an output to the admin.
    pub(super) fn needs(&self, key: &LicenseKey, inputs: usize) -> u64 {
        self.amount * self.targets.len() as u64 + self.fee(key, inputs) + DUST
    }

    /// Builds and signs the transaction.
    ///
    /// # Errors
    /// One line, if the coins are not enough.
    pub(super) fn build(&self, key: &LicenseKey, coins: Vec<AdminCoin>) -> Result<Built, String> {
        let have: u64 = coins.iter().map(|coin| coin.value).sum();
        let fee = self.fee(key, coins.len());
        let spent = self.amount * self.targets.len() as u64;
        let rest = have.checked_sub(spent + fee).ok_or_else(|| {
            format!("the coins have {have} base units, {} expected (amounts and fee)", spent + fee)
        })?;
        let change = if rest >= DUST { rest } else { 0 };
        if change == 0 && self.targets.is_empty() {
            return Err(format!("the coins have {have} base units, {} expected", spent + fee + DUST));
        }
        let mut output = self.outputs();
        if change > 0 {
            output.push(TxOut {
                value: Amount::from_sat(change),
                script_pubkey: key.address().script_pubkey(),
            });
        }
        let input = coins.iter().map(|coin| TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        });
        let mut tx = Transaction {
            version: transaction::Version::ONE,
            lock_time: absolute::LockTime::ZERO,
            input: input.collect(),
            output,
        };
        sign(&mut tx, key);
        Ok(Built { tx, coins, fee: have - spent - change, change })
    }
}

/// Signs every input; each must spend a coin of the key's P2PKH address.
fn sign(tx: &mut Transaction, key: &LicenseKey) {
    let spent_script = key.address().script_pubkey();
    let unsigned = tx.clone();
    let cache = SighashCache::new(&unsigned);
    for (position, input) in tx.input.iter_mut().enumerate() {
        let digest = cache
            .legacy_signature_hash(position, &spent_script, EcdsaSighashType::All.to_u32())
            .expect("the position is that of an input");
        let mut signature = key.sign(digest.to_byte_array());
        signature.push(EcdsaSighashType::All as u8);
        let push = |bytes: Vec<u8>| PushBytesBuf::try_from(bytes).expect("signatures and keys are short");
        input.script_sig = script::Builder::new()
            .push_slice(push(signature))
            .push_slice(push(key.pubkey().to_vec()))
            .into_script();
    }
}

impl Built {
    /// Decodes the transaction as a block at `height` would, and checks that it does exactly what was asked.
    ///
    /// # Errors
    /// One line that says what it would do instead.
    pub(super) fn check(
        &self,
        asked: &Action,
        key: &LicenseKey,
        height: u32,
        params: &Params,
    ) -> Result<(), String> {
        let mut targets = asked.targets.clone();
        targets.extend((self.change > 0).then(|| key.address()));
        let actions = admin::actions(&self.tx, height, params);
        let right = actions.len() == self.tx.input.len()
            && actions.iter().all(|action| {
                action.verb == asked.verb
                    && action.targets[..] == targets[..]
                    && action.pubkey == key.pubkey()
            });
        if right { Ok(()) } else { Err(format!("the transaction would do something else: {actions:?}")) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use iop_consensus::params::networks::devnet_keys;
    use iop_consensus::script::verify_input;

    fn admin() -> LicenseKey {
        let [(_, admin), ..] = devnet_keys();
        admin
    }

    fn coin(value: u64, n: u8) -> AdminCoin {
        let outpoint = OutPoint { txid: bitcoin::Txid::from_byte_array([n; 32]), vout: 0 };
        AdminCoin { outpoint, value }
    }

    fn license(n: u8) -> Address {
        LicenseKey::from_secret(&[n; 32], true).unwrap().address()
    }

    /// For every verb and number of inputs, the signatures are valid and the chain decodes the action that was
    /// asked for.
    #[test]
    fn what_is_built_is_signed_and_does_what_was_asked() {
        let (params, key) = (Params::devnet(), admin());
        for verb in [
            Verb::Add,
            Verb::Remove,
            Verb::EnableCap { factor: 0 },
            Verb::EnableCap { factor: 9 },
            Verb::DisableCap,
        ] {
            let targets =
                if matches!(verb, Verb::Add | Verb::Remove) { vec![license(1), license(2)] } else { vec![] };
            let action = Action { verb, targets, amount: 10_000, fee_rate: 10 };
            for inputs in 1..4u8 {
                let coins: Vec<AdminCoin> = (1..=inputs).map(|n| coin(5_000_000, n)).collect();
                let built = action.build(&key, coins).unwrap();
                built.check(&action, &key, 1, &params).unwrap();
                let size = built.tx.total_size() as u64;
                assert!(
                    (10 * size..=10 * (size + 3 * u64::from(inputs) + 8)).contains(&built.fee),
                    "{size} {}",
                    built.fee
                );
                let spent: Vec<TxOut> = built
                    .coins
                    .iter()
                    .map(|coin| TxOut {
                        value: Amount::from_sat(coin.value),
                        script_pubkey: key.address().script_pubkey(),
                    })
                    .collect();
                verify(&built.tx, &spent);
            }
        }
    }

    /// Verifies with the chain's own interpreter.
    fn verify(tx: &Transaction, spent: &[TxOut]) {
        const P2SH_AND_DERSIG: u32 = 1 | 4;
        for (input, output) in spent.iter().enumerate() {
            verify_input(tx, input, output, P2SH_AND_DERSIG).unwrap();
        }
    }

    #[test]
    fn what_is_left_is_dust_or_goes_back() {
        let key = admin();
        let add = Action { verb: Verb::Add, targets: vec![license(1)], amount: 10_000, fee_rate: 1 };
        let needed = add.needs(&key, 1);
        assert_eq!(add.build(&key, vec![coin(needed, 1)]).unwrap().change, DUST);
        let built = add.build(&key, vec![coin(needed - 1, 1)]).unwrap();
        assert_eq!((built.change, built.tx.output.len()), (0, 2));
        assert!(add.build(&key, vec![coin(needed - DUST - 1, 1)]).is_err());
        // Without an output to an address, the cap would not change.
        let cap = Action { verb: Verb::DisableCap, targets: vec![], amount: 10_000, fee_rate: 1 };
        assert!(cap.build(&key, vec![coin(cap.needs(&key, 1) - 1, 1)]).is_err());
    }

    #[test]
    fn a_transaction_that_does_something_else_is_noticed() {
        let (params, key) = (Params::devnet(), admin());
        let add = Action { verb: Verb::Add, targets: vec![license(1)], amount: 10_000, fee_rate: 1 };
        let built = add.build(&key, vec![coin(1_000_000, 1)]).unwrap();
        let remove = Action { verb: Verb::Remove, ..add.clone() };
        assert!(built.check(&remove, &key, 1, &params).is_err());
        let other = Action { targets: vec![license(2)], ..add.clone() };
        assert!(built.check(&other, &key, 1, &params).is_err());
        assert!(built.check(&add, &key, 1, &Params::main()).is_err());
    }
}
