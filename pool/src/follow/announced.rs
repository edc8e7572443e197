//! Admin actions that wait in the mempool: their effect on the pool's licenses in the next block.

use std::fmt;

use bitcoin::Transaction;
use bitcoin::consensus::Decodable;
use iop_consensus::address::Address;
use iop_consensus::license::admin::{Verb, actions};
use iop_consensus::params::Params;
use iop_mining::template::Template;
use serde::Serialize;

/// The effect of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Whitelists the license.
    Add,
    /// Removes it from the whitelist.
    Remove,
    /// Turns the cap on, for all.
    EnableCap,
    /// Turns the cap off, for all.
    DisableCap,
}

/// An action that takes effect if the template becomes a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Announced {
    /// Its effect.
    pub action: Action,
    /// The transaction.
    pub txid: String,
    /// The license, as an address.
    #[serde(skip)]
    pub license: String,
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let license = &self.license;
        match self.action {
            Action::Add => write!(f, "license {license} is added with it"),
            Action::Remove => write!(f, "license {license} is removed with it"),
            Action::EnableCap => write!(f, "the cap of license {license}, as of all, changes with it"),
            Action::DisableCap => write!(f, "license {license}, as all, has no cap after it"),
        }
    }
}

/// The effect of a template's admin actions on each of `licenses`: the last action for each, as it is the one that
/// lasts.
#[must_use]
pub fn announced(template: &Template, licenses: &[Address], params: &Params) -> Vec<Option<Announced>> {
    let mut found = vec![None; licenses.len()];
    let mut bytes = &template.transactions[..];
    while !bytes.is_empty() {
        // A transaction that does not decode is the node's fault; the block would be refused.
        let Ok(tx) = Transaction::consensus_decode(&mut bytes) else { break };
        // All actions of a transaction have one verb and the same targets; there may be thousands.
        if let Some(done) = actions(&tx, template.height, params).first() {
            let (action, for_all) = match done.verb {
                Verb::Add => (Action::Add, false),
                Verb::Remove => (Action::Remove, false),
                Verb::EnableCap { .. } => (Action::EnableCap, true),
                Verb::DisableCap => (Action::DisableCap, true),
            };
            for (license, place) in licenses.iter().zip(&mut found) {
                if done.targets.contains(license) || for_all && !done.targets.is_empty() {
                    let (txid, license) =
                        (tx.compute_txid().to_string(), license.to_base58(&params.prefixes));
                    *place = Some(Announced { action, txid, license });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::consensus::serialize;
    use bitcoin::script::{Builder, PushBytesBuf};
    use bitcoin::{Amount, ScriptBuf, TxIn, TxOut, absolute, transaction};
    use iop_mining::sample::template;

    use super::*;

    fn push(bytes: &[u8]) -> PushBytesBuf {
        PushBytesBuf::try_from(bytes.to_vec()).unwrap()
    }

    fn admin_tx(verb: &str, key: &[u8], targets: &[Address]) -> Transaction {
        let input =
            vec![TxIn { script_sig: Builder::new().push_slice(push(key)).into_script(), ..TxIn::default() }];
        let verb = ScriptBuf::new_op_return(push(verb.as_bytes()));
        let mut output = vec![TxOut { value: Amount::ZERO, script_pubkey: verb }];
        let paid =
            |address: &Address| TxOut { value: Amount::from_sat(1), script_pubkey: address.script_pubkey() };
        output.extend(targets.iter().map(paid));
        Transaction { version: transaction::Version::ONE, lock_time: absolute::LockTime::ZERO, input, output }
    }

    #[test]
    fn the_last_action_on_each_license_is_announced_and_others_are_not() {
        let params = Params::devnet();
        let admin = params.license.admin_pubkeys[0].clone();
        let [one, two, three] = [b"1", b"2", b"3"].map(|key| Address::of_pubkey(key));
        let mut template = template(5);
        for tx in [
            admin_tx("add", &admin, &[one]),
            admin_tx("rem", &admin, &[one]),
            admin_tx("rem", b"no admin's key", &[two]),
            admin_tx("nothing", &admin, &[two]),
        ] {
            template.transactions.extend(serialize(&tx));
        }
        let found = announced(&template, &[one, two, three], &params);
        assert_eq!(found[0].as_ref().unwrap().action, Action::Remove);
        assert_eq!(found[1..], [None, None]);
        template.transactions.extend(serialize(&admin_tx("disable_cap", &admin, &[three])));
        let found = announced(&template, &[one, two, three], &params);
        assert!(found.iter().all(|found| found.as_ref().unwrap().action == Action::DisableCap));
        assert!(found[2].as_ref().unwrap().to_string().contains(&three.to_base58(&params.prefixes)));
    }
}
