//! Admin actions that wait in the node's mempool: what the next block does, before the registry shows it.
//!
//! Here: reading them from a template, and what one means for a new action. Two transactions that wait come into the
//! block in an order that nobody knows, unless one spends the other's output.

use std::fmt;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{OutPoint, Transaction, Txid};
use iop_consensus::address::Address;
use iop_consensus::license::admin::{Verb, actions};
use iop_consensus::params::Params;
use serde_json::Value;

use super::{base58, describe};
use crate::failure::Failure;

/// An action that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    txid: Txid,
    verb: Verb,
    targets: Vec<Address>,
}

impl Waiting {
    /// All in a template, in the order that it has them.
    pub(super) fn all_in(template: &Value, params: &Params) -> Result<Vec<Self>, Failure> {
        let unreadable = || Failure::Failed("getblocktemplate: an answer that cannot be read".to_owned());
        let height = template["height"].as_u64().and_then(|height| u32::try_from(height).ok());
        let height = height.ok_or_else(unreadable)?;
        let transactions = template["transactions"].as_array().ok_or_else(unreadable)?;
        let mut all = Vec::new();
        for tx in transactions {
            let tx = tx["data"].as_str().and_then(|data| deserialize_hex::<Transaction>(data).ok());
            let tx = tx.ok_or_else(unreadable)?;
            // All actions of one transaction have its verb and its targets. What an admin gets back is an output too.
            if let Some(action) = actions(&tx, height, params).first() {
                let admins = &params.license.admin_addresses;
                let targets = action.targets.iter().filter(|target| !admins.contains(target));
                all.push(Self {
                    txid: tx.compute_txid(),
                    verb: action.verb,
                    targets: targets.copied().collect(),
                });
            }
        }
        Ok(all)
    }

    /// Whether it does this, to one license or to the cap.
    pub(super) fn does(&self, verb: Verb, target: Option<&Address>) -> bool {
        self.verb == verb && target.is_none_or(|target| self.targets.contains(target))
    }

    /// Whether it does something else to the same, and a transaction with these inputs may come before it or after.
    pub(super) fn opposes(&self, verb: Verb, targets: &[Address], inputs: &[OutPoint]) -> bool {
        let is_of_cap = |verb| matches!(verb, Verb::EnableCap { .. } | Verb::DisableCap);
        let same = match (is_of_cap(self.verb), is_of_cap(verb)) {
            (true, true) => true,
            (false, false) => targets.iter().any(|target| self.targets.contains(target)),
            _ => false,
        };
        same && self.verb != verb && !inputs.iter().any(|input| input.txid == self.txid)
    }

    /// As a line has it.
    pub(super) fn shown(&self, params: &Params) -> impl fmt::Display {
        let targets = match self.verb {
            Verb::Add | Verb::Remove => format!(" {}", base58(&self.targets, params).join(" ")),
            Verb::EnableCap { .. } | Verb::DisableCap => String::new(),
        };
        format!("transaction {} waits for a block ({}{targets})", self.txid, describe(self.verb))
    }
}
