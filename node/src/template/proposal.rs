//! Block proposals: a block without proof of work, judged as if it had it (`TestBlockValidity`).
//!
//! Nothing is kept: the block is connected to the tip's coins and registry and undone at once.

use bitcoin::Block;
use iop_consensus::block;
use iop_consensus::connect::{self, ConnectError, Context};
use iop_consensus::error::BlockError;
use iop_consensus::header;

use crate::chain::state::ChainState;
use crate::storage::StorageError;

/// The verdict on a proposed block (BIP23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// It is valid on top of the tip.
    Valid,
    /// Known and valid.
    Duplicate,
    /// Known and invalid.
    DuplicateInvalid,
    /// Known and not fully validated.
    DuplicateInconclusive,
    /// Its parent is not the tip.
    NotOnTip,
    /// It breaks a rule.
    Invalid(BlockError),
}

impl Proposal {
    /// The BIP23 answer: `None` for a valid block.
    pub fn answer(&self) -> Option<String> {
        Some(match self {
            Self::Valid => return None,
            Self::Duplicate => "duplicate".to_owned(),
            Self::DuplicateInvalid => "duplicate-invalid".to_owned(),
            Self::DuplicateInconclusive => "duplicate-inconclusive".to_owned(),
            Self::NotOnTip => "inconclusive-not-best-prevblk".to_owned(),
            Self::Invalid(error) => error.reject_reason().into_owned(),
        })
    }
}

impl ChainState {
    /// Judges a proposed block. `now` is in seconds.
    ///
    /// # Errors
    /// Only when the storage fails.
    pub fn propose(&mut self, block: &Block, now: u64) -> Result<Proposal, StorageError> {
        if let Some(id) = self.index().find(&block.block_hash()) {
            let entry = self.index().get(id);
            return Ok(if entry.record.connected_once && !entry.is_failed() {
                Proposal::Duplicate
            } else if entry.is_failed() {
                Proposal::DuplicateInvalid
            } else {
                Proposal::DuplicateInconclusive
            });
        }
        let tip = self.index().tip();
        if block.header.prev_blockhash != self.index().get(tip).hash {
            return Ok(Proposal::NotOnTip);
        }
        let forks = self.forks_after(tip);
        let checkpoint = self.index().last_checkpoint(self.params());
        let txids: Vec<_> = block.txdata.iter().map(bitcoin::Transaction::compute_txid).collect();
        let chain = self.index().chain(tip);
        let checked = header::check_contextual(&block.header, &chain, now, checkpoint, self.params())
            .and_then(|()| block::check_body(block, &txids))
            .and_then(|()| block::check_contextual(block, &chain, forks));
        if let Err(error) = checked {
            return Ok(Proposal::Invalid(error));
        }
        self.try_on_tip(|coins, registry, params, chain, runner| {
            let context = Context { params, chain, forks, last_checkpoint: checkpoint, runner: Some(runner) };
            match connect::connect(block, &txids, coins, registry, &context) {
                Ok(connected) => {
                    registry.undo(&connected.registry);
                    Ok(Proposal::Valid)
                }
                Err(ConnectError::Rule(error)) => Ok(Proposal::Invalid(error)),
                Err(ConnectError::View(error)) => Err(error),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use bitcoin::Amount;
    use bitcoin::hashes::Hash;
    use iop_consensus::address::{Address, AddressKind};
    use iop_consensus::params::Params;

    use super::*;
    use crate::chain::verdict::Submitted;
    use crate::generate::{Payee, mine};
    use crate::storage::Storage;
    use crate::template::template;

    const NOW: u64 = 1_700_000_000;

    fn commit(block: &mut Block) {
        block.header.merkle_root = block.compute_merkle_root().unwrap();
    }

    #[test]
    fn a_proposal_is_judged_without_work_and_changes_nothing() {
        let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
        let storage = Storage::open(dir.path(), &params).unwrap();
        let mut state = ChainState::load(Arc::new(params), Arc::new(storage)).unwrap();
        let payee = Payee { address: Address { kind: AddressKind::PubkeyHash, hash: [1; 20] }, key: None };
        let block = mine(&template(&mut state, NOW), &payee, || false).unwrap();
        let mut idle = block.clone();
        // Make a block without work: its hash is above the limit half of the time, so some nonce fails.
        let limit = state.params().pow.limit;
        while limit.is_met_by(idle.block_hash()) {
            idle.header.nonce += 1;
        }
        assert_eq!(state.propose(&idle, NOW).unwrap(), Proposal::Valid);
        let mut greedy = idle.clone();
        greedy.txdata[0].output[0].value += Amount::from_sat(1);
        assert_eq!(state.propose(&greedy, NOW).unwrap().answer().unwrap(), "bad-txnmrklroot");
        commit(&mut greedy);
        assert_eq!(state.propose(&greedy, NOW).unwrap().answer().unwrap(), "bad-cb-amount");
        let mut elsewhere = idle.clone();
        elsewhere.header.prev_blockhash = bitcoin::BlockHash::all_zeros();
        assert_eq!(state.propose(&elsewhere, NOW).unwrap(), Proposal::NotOnTip);
        assert_eq!(state.submit(block.clone(), NOW).unwrap(), Submitted::Accepted);
        assert_eq!(state.propose(&block, NOW).unwrap(), Proposal::Duplicate);
    }
}
