//! Pool blocks in the chain that nobody handed in. A miner with a job on a template without transactions can build the
//! whole block and send it to a node itself. Its coinbase pays as the job's plan says, so the books must have it:
//! otherwise the next block would pay again what the members were owed.
//!
//! Here: looking for such blocks below each new tip, and their records. Not here: what is remembered of jobs (`jobs`),
//! the plan's arithmetic, and the books ([`crate::ledger`]).
//! Path: tip → blocks below it down to a known one → signed by a license of the pool, and not in the books → the job
//! that pays the same → its plan, recomputed from the log → the books.

mod jobs;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::{BlockHash, TxOut};
use iop_consensus::address::Address;
use iop_consensus::license::coinbase::named_license;
use iop_mining::coinbase;
use iop_mining::rpc::{Node, RpcError};
use tokio::task::block_in_place;
use tracing::{error, warn};

use crate::chain::{Seen, block_at, nearest, read};
use crate::job::JobNumbers;
use crate::ledger::book::{Finding, MATURITY, Plan, Record};
use crate::ledger::store::BlockId;
use crate::ledger::{Ledger, LedgerError, Scheme};
use jobs::{Jobs, Made, Outputs};

/// Blocks remembered as checked: more than are checked in one go.
const MAX_SEEN: usize = 1_000;
/// The finder of such a block, for display.
pub(crate) const NOT_HANDED_IN: &str = "not handed in";

/// Hashes of the blocks checked last.
#[derive(Debug, Default)]
struct Known {
    order: VecDeque<BlockHash>,
    hashes: HashSet<BlockHash>,
}

impl Known {
    fn add(&mut self, hash: BlockHash) {
        if self.hashes.insert(hash) {
            self.order.push_back(hash);
        }
        if self.order.len() > MAX_SEEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
    }
}

/// Why the search failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The node did not answer.
    #[error(transparent)]
    Node(#[from] RpcError),
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What a block of ours was paid by.
struct Match {
    plan: Plan,
    /// The member paid in solo mode, if it is known.
    finder: Option<Address>,
}

/// Finds such blocks.
#[derive(Debug)]
pub(crate) struct Strays {
    ledger: Arc<Ledger>,
    licenses: Vec<Address>,
    /// Job numbers of this run.
    numbers: Arc<JobNumbers>,
    jobs: Jobs,
    /// The greatest height at which jobs of earlier runs may have made blocks.
    earlier: Option<u32>,
    /// Whether the search has been done from a tip at or above `earlier`.
    has_looked: AtomicBool,
    known: Mutex<Known>,
}

impl Strays {
    /// Looks for blocks signed by these licenses or by those of earlier runs.
    pub(crate) fn new(ledger: Arc<Ledger>, licenses: Vec<Address>, numbers: Arc<JobNumbers>) -> Self {
        let jobs = Jobs::load(Arc::clone(&ledger));
        let earlier = jobs.heights().last().copied();
        let (has_looked, known) = (AtomicBool::new(false), Mutex::default());
        Self { ledger, licenses, numbers, jobs, earlier, has_looked, known }
    }

    /// Never held while a node is asked: a node that hangs must not block the others.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic while the lock is held")
    }

    /// Remembers a job with this number on a parent, with the signing license and the plan.
    pub(crate) fn remember(&self, number: u64, parent: BlockId, license: Address, plan: &Plan) {
        self.jobs.remember(number, parent, license, plan);
    }

    /// Stores what is remembered for the next run.
    pub(crate) fn keep(&self) {
        self.jobs.keep();
    }

    /// Whether there may be one at or below a tip that the nodes' information on the pool's licenses does not show,
    /// because an earlier run had another license.
    pub(crate) fn must_look(&self, tip: &BlockId) -> bool {
        self.jobs.any_below(tip.height, |license| !self.licenses.contains(license))
    }

    /// Checks a tip and the blocks below it, down to one that is in the books or was checked before; returns how many
    /// were added to the books. It goes down a hundred blocks at most, at the start only to the nearest height in the
    /// books, and also checks the heights at which remembered jobs may have made blocks.
    ///
    /// # Errors
    /// The chain's blocks could not be determined; the next tip tries again.
    pub(crate) async fn look(&self, node: &Node, tip: BlockId) -> Result<usize, Trouble> {
        let first = !self.has_looked.load(Ordering::Relaxed);
        let lowest = first.then(|| self.ledger.height_below(tip.height.saturating_add(1)));
        let lowest = lowest.map_or(0, |booked| booked.unwrap_or(tip.height));
        let lowest = lowest.max(tip.height.saturating_sub(MATURITY));
        let (mut at, mut new) = (tip, Vec::new());
        while at.height > lowest && !self.is_known(&at) {
            let Some(seen) = read(node, at).await? else { break };
            at = BlockId { height: at.height - 1, hash: seen.header.prev_blockhash };
            new.push(seen);
        }
        // Further down, but never below a block in the books: its base does not change by later findings.
        let further = if self.ledger.has_block(&at) { BTreeSet::new() } else { self.jobs.heights() };
        for &height in further.range(..=at.height).rev() {
            let Some(id) = block_at(node, height).await? else { continue };
            if self.is_known(&id) {
                break;
            }
            new.extend(read(node, id).await?);
        }
        let mut taken = 0;
        // From the lowest up: each builds on those before it. Two nodes may report one tip at once.
        for seen in new.iter().rev().filter(|seen| !self.known().hashes.contains(&seen.id.hash)) {
            taken += usize::from(self.judge(node, seen).await?);
            self.known().add(seen.id.hash);
        }
        self.known().add(tip.hash);
        if self.earlier.is_none_or(|highest| tip.height >= highest) {
            self.has_looked.store(true, Ordering::Relaxed);
        }
        Ok(taken)
    }

    /// Whether a block needs no check.
    fn is_known(&self, id: &BlockId) -> bool {
        self.known().hashes.contains(&id.hash) || self.ledger.has_block(id)
    }

    /// Adds a block to the books if it belongs there.
    async fn judge(&self, node: &Node, seen: &Seen) -> Result<bool, Trouble> {
        let Some(license) = named_license(&seen.coinbase) else { return Ok(false) };
        let jobs = self.jobs.of(&license);
        let on_parent = |job: &&Made| job.parent == seen.parent();
        let mut record = block_in_place(|| self.record(seen, jobs.iter().filter(on_parent)))?;
        if record.is_none() && !jobs.is_empty() {
            // The signature covers neither parent nor height, so a job's outputs may be mined on another parent. They
            // pay what is owed as long as no other pool block came between.
            let base = nearest(&self.ledger, node, seen.id).await?;
            let on_base = |job: &&Made| job.terms.base == base && !on_parent(job);
            record = block_in_place(|| self.record(seen, jobs.iter().filter(on_base)))?;
        }
        // It may have been submitted meanwhile.
        if self.ledger.has_block(&seen.id) {
            return Ok(false);
        }
        let (height, hash) = (seen.id.height, seen.id.hash);
        if let Some(record) = record {
            warn!(height, %hash, "a block of ours that nobody handed in is in the chain: the books take it now");
            return Ok(block_in_place(|| self.ledger.adopt(&record))?);
        }
        if self.licenses.contains(&license) {
            error!(
                height,
                %hash,
                "a block in the chain is signed by a license of ours and is of no job of ours: if no other program \
                 mines with that license, somebody has sent it to a node alone, and what it pays is not in the books"
            );
        }
        Ok(false)
    }

    /// The record of a block, by the first of `jobs` that pays the same.
    fn record<'a>(
        &self,
        seen: &Seen,
        jobs: impl Iterator<Item = &'a Made>,
    ) -> Result<Option<Record>, LedgerError> {
        for job in jobs {
            if let Some(Match { plan, finder }) = self.find_match(seen, job)? {
                let plan = Arc::new(plan);
                let finder = finder.map(|member| member.to_base58(self.ledger.prefixes()));
                let finder = finder.as_deref().unwrap_or(NOT_HANDED_IN);
                let finding = Finding { time: u64::from(seen.header.time), license: job.license, finder };
                return Ok(Some(plan.record(seen.id, finding, self.ledger.prefixes())));
            }
        }
        Ok(None)
    }

    /// The plan of a block that is of a member's own job, derived from the template's job, and that member.
    fn solo_match(
        &self,
        outputs: &[TxOut],
        job: &Made,
        owner: Option<Address>,
        is_of_run: bool,
    ) -> Result<Option<Match>, LedgerError> {
        let is_ours = is_of_run || owner.is_some();
        // A member owed less than the minimum, or less than others that fill the outputs, is not among the outputs; and
        // a member that was owed the whole reward before is paid the same whoever found the block. Then only the number
        // tells, and the owners of numbers of earlier runs are not known: the block enters the books with what it pays,
        // and its finder's part stays with the chapter.
        let paid = || outputs.iter().filter_map(|out| Address::from_script(&out.script_pubkey)).map(Some);
        for member in owner.map(Some).into_iter().chain([None]).chain(paid()) {
            let plan = self.ledger.plan_again(&job.terms, member)?;
            if Outputs::of_plan(&plan).are_of(outputs) && (is_ours || !plan.split.paid.is_empty()) {
                return Ok(Some(Match { plan, finder: member }));
            }
        }
        Ok(None)
    }

    /// The plan of a block if it is of `job`, and the member paid in solo mode.
    fn find_match(&self, seen: &Seen, job: &Made) -> Result<Option<Match>, LedgerError> {
        let outputs = &seen.coinbase.output;
        // If no member is paid, any program that mines with the license pays the same. Then the block counts if its
        // number is the pool's: changing the number gains nothing.
        let number = coinbase::job_number(&seen.coinbase.input[0].script_sig);
        let is_of_run = number.is_some_and(|number| job.is_of_run(number));
        if job.terms.rules.scheme == Scheme::Solo {
            return self.solo_match(
                outputs,
                job,
                number.and_then(|number| self.numbers.owner(number)),
                is_of_run,
            );
        }
        let pays_no_member = job.outputs.pay_only(&job.terms.chapter, outputs);
        if !job.outputs.are_of(outputs) || (pays_no_member && !is_of_run) {
            return Ok(None);
        }
        let plan = self.ledger.plan_again(&job.terms, None)?;
        Ok(Outputs::of_plan(&plan).are_of(outputs).then_some(Match { plan, finder: None }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::consensus::deserialize;
    use iop_consensus::params::Params;
    use iop_mining::sample::{key, template};
    use iop_mining::template::Template;

    use super::*;
    use crate::ledger::Rules;
    use crate::ledger::plan::Request;
    use crate::ledger::tests::temporary;
    use crate::payouts::parent_of;

    /// Acts as the second of two runs: the first has made a job that pays the chapter alone. Returns the books' record
    /// of a block with that job's outputs and another number.
    fn of_chapter(made: u64, number: u64) -> Option<Record> {
        let (ledger, license) = (temporary(), key(true).address());
        let first = Strays::new(Arc::clone(&ledger), vec![license], Arc::default());
        let template = template(3);
        let request = Request { base: None, reward: 5000, room: 10, chapter: license, solo: None };
        let plan = ledger.plan(&request).unwrap();
        assert_eq!(plan.outputs(), [(license, 5000)]);
        first.remember(made, parent_of(&template), license, &plan);
        first.keep();
        drop(first);
        let second = Strays::new(Arc::clone(&ledger), Vec::new(), Arc::default());
        let jobs = second.jobs.of(&license);
        second.record(&seen(&template, &plan, number), jobs.iter()).unwrap()
    }

    /// A block of a template that pays by a plan, with a job's number.
    fn seen(template: &Template, plan: &Plan, number: u64) -> Seen {
        let split = coinbase::build(template, &key(true), &plan.outputs(), number);
        let coinbase = deserialize(&[&split.before[..], &[0; 12], &split.after].concat()).unwrap();
        let mut header = Params::devnet().genesis.block().header;
        header.prev_blockhash = template.parent;
        let id = BlockId { height: template.height, hash: header.block_hash() };
        Seen { id, header, coinbase }
    }

    /// For a template that was requested again meanwhile: the owner stays known whatever jobs came since.
    #[test]
    fn a_members_own_block_that_does_not_pay_it_is_the_members_by_its_number() {
        let (ledger, license, member) = (temporary(), key(true).address(), Address::of_pubkey(b"member"));
        let numbers = Arc::new(JobNumbers::new());
        let strays = Strays::new(Arc::clone(&ledger), vec![license], Arc::clone(&numbers));
        let template = template(3);
        let mut plan = Plan::of_chapter(license, 5000);
        plan.terms.rules =
            Rules { scheme: Scheme::Solo, min_payout: 10_000, max_outputs: 5, ..plan.terms.rules };
        let mut made = Vec::new();
        for owner in [None, Some(member), None] {
            let number = numbers.next_of(owner);
            if owner.is_none() {
                strays.remember(number, parent_of(&template), license, &plan);
            }
            made.push(number);
        }
        let finder = |number: u64| {
            let record =
                strays.record(&seen(&template, &plan, number), strays.jobs.of(&license).iter()).unwrap()?;
            let earned = record.credits().get(&member).map(|credit| credit.earned);
            Some((record.facts.finder, earned))
        };
        let own = (member.to_base58(ledger.prefixes()), Some(5000));
        assert_eq!(finder(made[1]), Some(own));
        assert_eq!(
            finder(made[2]),
            Some((NOT_HANDED_IN.to_owned(), None)),
            "a number of this run that nobody has"
        );
        assert_eq!(finder(7), None, "who mines alone with the license pays the same");
    }

    #[test]
    fn a_block_that_pays_no_member_is_ours_by_its_number_only() {
        let made = JobNumbers::new().next();
        for ours in [made, made + 1, made + 100_000] {
            assert!(of_chapter(made, ours).is_some(), "its variants and the jobs after it have such numbers");
        }
        for others in [made - 1, made + (1 << 32), 7] {
            assert!(of_chapter(made, others).is_none(), "who mines alone with the license pays the same");
        }
    }
}
