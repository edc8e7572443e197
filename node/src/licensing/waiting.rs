//! Pending admin actions in the node's mempool, which the registry does not show yet.
//!
//! Here: decoding one from a transaction, and what it means for a new action. The order in which two pending
//! transactions are mined is unknown.

use std::fmt;

use bitcoin::{Transaction, Txid};
use iop_consensus::address::Address;
use iop_consensus::license::admin::{Verb, actions};
use iop_consensus::params::Params;

use super::{base58, describe};

/// A pending action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    txid: Txid,
    verb: Verb,
    targets: Vec<Address>,
}

impl Waiting {
    /// The action of a transaction in a block at `height`; `None` for most transactions.
    pub(super) fn of(tx: &Transaction, height: u32, params: &Params) -> Option<Self> {
        // All actions of one transaction have the same verb and targets. Without an output to an address it does
        // nothing; an admin's change counts as one.
        let action =
            actions(tx, height, params).into_iter().next().filter(|action| !action.targets.is_empty())?;
        let admins = &params.license.admin_addresses;
        let targets = action.targets.iter().filter(|target| !admins.contains(target));
        Some(Self { txid: tx.compute_txid(), verb: action.verb, targets: targets.copied().collect() })
    }

    pub(super) fn verb(&self) -> Verb {
        self.verb
    }

    /// The addresses acted on, without admins.
    pub(super) fn targets(&self) -> &[Address] {
        &self.targets
    }

    /// Whether it performs this verb, on the given license if any.
    pub(super) fn does(&self, verb: Verb, target: Option<&Address>) -> bool {
        self.verb == verb && target.is_none_or(|target| self.targets.contains(target))
    }

    /// Whether it performs a different action on the same target.
    pub(super) fn opposes(&self, verb: Verb, targets: &[Address]) -> bool {
        let is_of_cap = |verb| matches!(verb, Verb::EnableCap { .. } | Verb::DisableCap);
        let same = match (is_of_cap(self.verb), is_of_cap(verb)) {
            (true, true) => true,
            (false, false) => targets.iter().any(|target| self.targets.contains(target)),
            _ => false,
        };
        same && self.verb != verb
    }

    /// The action, formatted for display.
    pub(super) fn shown(&self, params: &Params) -> impl fmt::Display {
        let targets = match self.verb {
            Verb::Add | Verb::Remove => format!(" {}", base58(&self.targets, params).join(" ")),
            Verb::EnableCap { .. } | Verb::DisableCap => String::new(),
        };
        format!("transaction {} waits for a block ({}{targets})", self.txid, describe(self.verb))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::script::{Builder, PushBytesBuf};
    use bitcoin::{Amount, ScriptBuf, TxIn, TxOut, absolute, transaction};

    use super::*;

    #[test]
    fn what_pays_no_address_does_nothing_and_change_is_no_target() {
        let params = Params::devnet();
        let push = |bytes: &[u8]| PushBytesBuf::try_from(bytes.to_vec()).expect("short");
        let pubkey = push(&params.license.admin_pubkeys[0]);
        let script_sig = Builder::new().push_slice(pubkey).into_script();
        let to =
            |address: &Address| TxOut { value: Amount::from_sat(1), script_pubkey: address.script_pubkey() };
        let tx = |verb: &str, targets: &[Address]| {
            let verb = ScriptBuf::new_op_return(push(verb.as_bytes()));
            let mut output = vec![TxOut { value: Amount::ZERO, script_pubkey: verb }];
            output.extend(targets.iter().map(to));
            let input = vec![TxIn { script_sig: script_sig.clone(), ..TxIn::default() }];
            Transaction {
                version: transaction::Version::ONE,
                lock_time: absolute::LockTime::ZERO,
                input,
                output,
            }
        };
        let (license, admin) = (Address::of_pubkey(b"license"), params.license.admin_addresses[0]);
        let of = |tx: &Transaction| Waiting::of(tx, 500, &params);
        assert_eq!(of(&tx("enable_cap:5", &[])), None);
        assert_eq!(of(&tx("nothing", &[license])), None);
        let cap = of(&tx("enable_cap:5", &[admin])).expect("what comes back makes it act");
        assert!(cap.does(Verb::EnableCap { factor: 5 }, None) && cap.opposes(Verb::DisableCap, &[]));
        assert!(cap.opposes(Verb::EnableCap { factor: 2 }, &[]) && !cap.opposes(Verb::Add, &[license]));
        let add = of(&tx("add", &[license, admin])).expect("it adds");
        assert_eq!(add.targets, [license]);
        assert!(add.does(Verb::Add, Some(&license)) && !add.opposes(Verb::Add, &[license]));
        assert!(add.opposes(Verb::Remove, &[admin, license]) && !add.opposes(Verb::Remove, &[]));
    }
}
