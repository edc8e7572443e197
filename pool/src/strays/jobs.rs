//! What is remembered of jobs: enough to recompute the plan of a block that arrives by another way, even in a later run
//! with another configuration.
//!
//! Here: the jobs of the last heights, in memory and in the ledger's database, and the outputs that identify the job of
//! a block. Not here: blocks ([`super`]), and the plan's arithmetic ([`crate::ledger`]).
//! Path: job → [`Jobs::remember`] → published → [`Jobs::keep`] → database; a block's license → [`Jobs::of`].

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::TxOut;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use iop_consensus::address::Address;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::ledger::Ledger;
use crate::ledger::book::{Plan, Terms};
use crate::ledger::split::Rules;
use crate::ledger::store::{BlockId, JobKey};

/// Heights for which jobs are remembered: the tip's, and some that a reorganisation may bring back.
const REMEMBERED_HEIGHTS: u32 = 6;
/// The most jobs remembered, about 300 bytes each: one a second for over an hour without a block.
const MAX_JOBS: usize = 5_000;
/// Numbers from a job's on that belong to the same run: its variants, members' jobs, and later jobs. Runs start further
/// apart than this ([`crate::job::JobNumbers`]).
const RUN: u64 = 1 << 24;

/// The outputs of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outputs {
    count: usize,
    hash: sha256::Hash,
}

impl Outputs {
    pub(super) fn of_plan(plan: &Plan) -> Self {
        let outputs = plan.outputs();
        let scripts = outputs.iter().map(|(payee, value)| (payee.script_pubkey(), *value));
        let mut engine = sha256::Hash::engine();
        scripts.for_each(|(script, value)| add(&mut engine, script.as_bytes(), value));
        Self { count: outputs.len(), hash: sha256::Hash::from_engine(engine) }
    }

    /// Whether a coinbase begins with these outputs; its witness commitment follows.
    pub(super) fn are_of(&self, outputs: &[TxOut]) -> bool {
        let Some(outputs) = outputs.get(..self.count) else { return false };
        let mut engine = sha256::Hash::engine();
        outputs.iter().for_each(|output| {
            add(&mut engine, output.script_pubkey.as_bytes(), output.value.to_sat());
        });
        sha256::Hash::from_engine(engine) == self.hash
    }

    /// Whether a coinbase that begins with these outputs pays only `payee`.
    pub(super) fn pay_only(&self, payee: &Address, outputs: &[TxOut]) -> bool {
        self.count == 1 && outputs.first().is_some_and(|out| out.script_pubkey == payee.script_pubkey())
    }
}

fn add(engine: &mut sha256::HashEngine, script: &[u8], value: u64) {
    engine.input(&value.to_le_bytes());
    engine.input(&(script.len() as u64).to_le_bytes());
    engine.input(script);
}

/// What is remembered of a job.
#[derive(Debug, Clone)]
pub(super) struct Made {
    number: u64,
    pub(super) parent: BlockId,
    /// The signing license.
    pub(super) license: Address,
    pub(super) terms: Terms,
    pub(super) outputs: Outputs,
}

/// The same in the database, with addresses as text.
#[derive(Serialize, Deserialize)]
struct Kept {
    number: u64,
    parent: BlockId,
    license: String,
    base: Option<BlockId>,
    begins: u64,
    ends: u64,
    wanted: u128,
    reward: u64,
    rules: Rules,
    chapter: String,
    outputs: Outputs,
}

impl Made {
    fn key(&self) -> JobKey {
        let mut key = [0; 12];
        key[..4].copy_from_slice(&self.parent.height.to_be_bytes());
        key[4..].copy_from_slice(&self.number.to_be_bytes());
        key
    }

    /// Whether a job with this number, signed by the same license, belongs to the run that made this job.
    pub(super) fn is_of_run(&self, number: u64) -> bool {
        number.checked_sub(self.number).is_some_and(|later| later < RUN)
    }

    fn encode(&self, ledger: &Ledger) -> Vec<u8> {
        let &Self { number, parent, license, ref terms, outputs } = self;
        let &Terms { base, ref window, wanted, reward, rules, chapter } = terms;
        let [license, chapter] = [license, chapter].map(|address| address.to_base58(ledger.prefixes()));
        let (begins, ends) = (window.start, window.end);
        let kept =
            Kept { number, parent, license, base, begins, ends, wanted, reward, rules, chapter, outputs };
        serde_json::to_vec(&kept).expect("string keys and no I/O: encoding cannot fail")
    }

    /// `None` if another version wrote it.
    fn decode(job: &[u8], ledger: &Ledger) -> Option<Self> {
        let kept: Kept = serde_json::from_slice(job).ok()?;
        let address = |text: &str| Address::parse(text, ledger.prefixes()).ok();
        let (license, chapter) = (address(&kept.license)?, address(&kept.chapter)?);
        let Kept { number, parent, base, begins, ends, wanted, reward, rules, outputs, .. } = kept;
        let terms = Terms { base, window: begins..ends, wanted, reward, rules, chapter };
        Some(Self { number, parent, license, terms, outputs })
    }
}

/// The jobs of the last heights.
#[derive(Debug)]
pub(super) struct Jobs {
    ledger: Arc<Ledger>,
    state: Mutex<State>,
    /// Held by whoever writes: what could not be written is still the newest but for what came since.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    made: VecDeque<Made>,
    /// How many of the newest are not in the database yet.
    unkept: usize,
    /// Jobs to delete from the database.
    gone: Vec<JobKey>,
}

impl Jobs {
    /// Loads the jobs of earlier runs.
    pub(super) fn load(ledger: Arc<Ledger>) -> Self {
        let kept = ledger.kept_jobs().unwrap_or_else(|trouble| {
            warn!("jobs of earlier runs are not known: {trouble}");
            Vec::new()
        });
        let mut state = State::default();
        for (key, job) in kept {
            match Made::decode(&job, &ledger) {
                Some(job) => state.made.push_back(job),
                None => state.gone.push(key),
            }
        }
        if !state.gone.is_empty() {
            warn!(
                "{} jobs of earlier runs are not known: another version has written them",
                state.gone.len()
            );
        }
        Self { ledger, state: Mutex::new(state), writing: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// Remembers a job made on a parent by this plan. It is in the database after [`Self::keep`].
    pub(super) fn remember(&self, number: u64, parent: BlockId, license: Address, plan: &Plan) {
        let (terms, outputs) = (plan.terms.clone(), Outputs::of_plan(plan));
        let State { made, unkept, gone } = &mut *self.state();
        made.push_back(Made { number, parent, license, terms, outputs });
        let lowest = parent.height.saturating_sub(REMEMBERED_HEIGHTS);
        while made.len() > MAX_JOBS || made.front().is_some_and(|oldest| oldest.parent.height < lowest) {
            gone.extend(made.pop_front().map(|oldest| oldest.key()));
        }
        *unkept = made.len().min(*unkept + 1);
    }

    /// Writes what was remembered since the last time. What cannot be written is tried again the next time; the ledger
    /// says so meanwhile, and no job is given out.
    pub(super) fn keep(&self) {
        let _writing = self.writing.lock().expect("no panic while the lock is held");
        let (jobs, gone) = {
            let State { made, unkept, gone } = &mut *self.state();
            let new = made.range(made.len() - std::mem::take(unkept)..);
            let jobs: Vec<_> = new.map(|job| (job.key(), job.encode(&self.ledger))).collect();
            (jobs, std::mem::take(gone))
        };
        if jobs.is_empty() && gone.is_empty() {
            return;
        }
        if let Err(trouble) = self.ledger.keep_jobs(&jobs, &gone) {
            warn!("{} jobs would not be known after a restart: {trouble}", jobs.len());
            let mut state = self.state();
            state.unkept = state.made.len().min(state.unkept + jobs.len());
            state.gone.extend(gone);
        }
    }

    /// The jobs of a license, newest first.
    pub(super) fn of(&self, license: &Address) -> Vec<Made> {
        self.state().made.iter().rev().filter(|made| made.license == *license).cloned().collect()
    }

    /// The heights of the blocks that these jobs may have made.
    pub(super) fn heights(&self) -> BTreeSet<u32> {
        self.state().made.iter().map(|made| made.parent.height.saturating_add(1)).collect()
    }

    /// Whether a license that `signed` accepts has signed a job whose parent is below `height`.
    pub(super) fn any_below(&self, height: u32, signed: impl Fn(&Address) -> bool) -> bool {
        self.state().made.iter().any(|made| made.parent.height < height && signed(&made.license))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Amount;

    use super::*;
    use crate::ledger::book::Plan;
    use crate::ledger::split::tests::member;

    /// A member may have the chapter's address, and outputs are ordered by amount.
    #[test]
    fn the_chapters_address_at_the_first_place_does_not_mean_that_it_is_paid_alone() {
        let (chapter, bob) = (member(1), member(2));
        let mut plan = Plan::of_chapter(chapter, 50);
        let outputs = |plan: &Plan| -> Vec<TxOut> {
            let outputs = plan.outputs();
            let output = |(payee, amount): (Address, u64)| TxOut {
                value: Amount::from_sat(amount),
                script_pubkey: payee.script_pubkey(),
            };
            outputs.into_iter().map(output).collect()
        };
        assert!(Outputs::of_plan(&plan).pay_only(&chapter, &outputs(&plan)));
        (plan.split.paid, plan.split.chapter) = (vec![(chapter, 30), (bob, 15)], 5);
        let of_plan = Outputs::of_plan(&plan);
        assert!(of_plan.are_of(&outputs(&plan)) && !of_plan.pay_only(&chapter, &outputs(&plan)));
        assert!(!of_plan.are_of(&outputs(&plan)[..2]));
    }
}
