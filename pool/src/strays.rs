//! Blocks of ours in the chain that nobody handed in. Who has a job on a template without transactions can make the
//! whole block and send it to a node alone. Its coinbase pays as the job's plan says, so the books must have it: else the
//! next block would pay again what its finder was owed.
//!
//! Here: looking for such blocks below each new tip, their records. Not here: what is remembered of jobs (`jobs`), the
//! plan's arithmetic, and the books ([`crate::ledger`]).
//! Path: tip → blocks below it up to one that was seen → signed by a license of ours, and not in the books → the job that
//! pays the same → its plan, made again from the log → the books.

mod jobs;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::block::Header;
use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode;
use bitcoin::{BlockHash, Transaction, VarInt};
use iop_consensus::address::Address;
use iop_consensus::license::coinbase::named_license;
use iop_mining::coinbase;
use iop_mining::rpc::{CALL_TIME, Node, RpcError};
use serde_json::json;
use tracing::{error, warn};

use crate::job::JobNumbers;
use crate::ledger::book::{Finding, MATURITY, Plan, Record};
use crate::ledger::live::Request;
use crate::ledger::store::BlockId;
use crate::ledger::{Ledger, LedgerError, Scheme};
use jobs::{Jobs, Outputs};

/// Blocks of which it is remembered that they were looked at: more than are looked at in one go.
const MAX_SEEN: usize = 1_000;
/// Core's code for a block whose data it has deleted.
const DELETED: i64 = -1;
/// Who found such a block, for people.
const NOT_HANDED_IN: &str = "not handed in";

/// A block of the chain, as far as it matters here.
#[derive(Debug)]
struct Seen {
    id: BlockId,
    header: Header,
    coinbase: Transaction,
}

impl Seen {
    /// From a block in hex, as the node gives it.
    fn read(height: u32, hash: BlockHash, text: &str) -> Result<Self, RpcError> {
        let wrong = |what: &str| RpcError::Malformed(format!("getblock {hash}: {what}"));
        let bytes = hex::decode(text).map_err(|_| wrong("hex expected"))?;
        let mut rest = &bytes[..];
        let mut read = || -> Result<_, encode::Error> {
            let header = Header::consensus_decode(&mut rest)?;
            VarInt::consensus_decode(&mut rest)?;
            Ok((header, Transaction::consensus_decode(&mut rest)?))
        };
        let (header, coinbase) = read().map_err(|error| wrong(&error.to_string()))?;
        if header.block_hash() != hash {
            return Err(wrong("another block"));
        }
        Ok(Self { id: BlockId { height, hash }, header, coinbase })
    }
}

/// Hashes of blocks that were looked at, the latest ones.
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

/// Why it could not be looked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The node did not say.
    #[error(transparent)]
    Node(#[from] RpcError),
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Finds them.
#[derive(Debug)]
pub(crate) struct Strays {
    ledger: Arc<Ledger>,
    licenses: Vec<Address>,
    numbers: Arc<JobNumbers>,
    jobs: Jobs,
    known: Mutex<Known>,
}

impl Strays {
    /// Of blocks that these licenses sign, of jobs that have these numbers.
    pub(crate) fn new(ledger: Arc<Ledger>, licenses: Vec<Address>, numbers: Arc<JobNumbers>) -> Self {
        let jobs = Jobs::load(Arc::clone(&ledger));
        Self { ledger, licenses, numbers, jobs, known: Mutex::default() }
    }

    /// Never held while a node is asked: one that hangs holds up nobody else.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic while the lock is held")
    }

    /// A job with this number is made on a parent, by this plan.
    pub(crate) fn remember(&self, number: u64, parent: BlockId, request: Request, plan: &Plan) {
        self.jobs.remember(number, parent, request, plan);
    }

    /// Writes what is remembered for the next run.
    pub(crate) fn keep(&self) {
        self.jobs.keep();
    }

    /// Looks at a tip and the blocks below it, up to one that is in the books or was looked at before; gives how many
    /// were taken into the books. At the start that goes down to the nearest block in the books.
    ///
    /// # Errors
    /// It is not known what the chain has; the next tip looks again.
    pub(crate) async fn look(&self, node: &Node, tip: BlockId) -> Result<usize, Trouble> {
        let lowest = if self.known().hashes.is_empty() {
            self.ledger.height_below(tip.height.saturating_add(1)).unwrap_or(tip.height)
        } else {
            0
        };
        let lowest = lowest.max(tip.height.saturating_sub(MATURITY));
        let (mut at, mut new) = (tip, Vec::new());
        while at.height > lowest && !self.known().hashes.contains(&at.hash) && !self.ledger.has_block(&at) {
            let seen = match node.call::<String>("getblock", json!([at.hash, false]), CALL_TIME).await {
                Ok(text) => Seen::read(at.height, at.hash, &text)?,
                Err(RpcError::Node { code: DELETED, .. }) => break,
                Err(trouble) => return Err(trouble.into()),
            };
            at = BlockId { height: at.height - 1, hash: seen.header.prev_blockhash };
            new.push(seen);
        }
        let mut taken = 0;
        // From below: each stands on those before it. Two nodes may tell of one tip at once.
        for seen in new.iter().rev().filter(|seen| !self.known().hashes.contains(&seen.id.hash)) {
            taken += usize::from(self.judge(seen)?);
            self.known().add(seen.id.hash);
        }
        self.known().add(tip.hash);
        Ok(taken)
    }

    /// Takes a block into the books if it belongs there.
    fn judge(&self, seen: &Seen) -> Result<bool, LedgerError> {
        let license = named_license(&seen.coinbase).filter(|license| self.licenses.contains(license));
        // It may have been handed in meanwhile.
        let Some(license) = license.filter(|_| !self.ledger.has_block(&seen.id)) else { return Ok(false) };
        let (height, hash) = (seen.id.height, seen.id.hash);
        let Some(record) = self.record(seen, license)? else {
            error!(
                height,
                %hash,
                "a block in the chain is signed by a license of ours and is of no job of ours: if no other program \
                 mines with that license, somebody has sent it to a node alone, and what it pays is not in the books"
            );
            return Ok(false);
        };
        warn!(height, %hash, "a block of ours that nobody handed in is in the chain: the books take it now");
        self.ledger.adopt(&record)
    }

    fn is_ours(&self, coinbase: &Transaction) -> bool {
        coinbase::job_number(&coinbase.input[0].script_sig).is_some_and(|number| self.numbers.gave(number))
    }

    /// The record of a block, by the job that pays the same on the same parent.
    fn record(&self, seen: &Seen, license: Address) -> Result<Option<Record>, LedgerError> {
        let parent = BlockId { height: seen.id.height.saturating_sub(1), hash: seen.header.prev_blockhash };
        let outputs = &seen.coinbase.output;
        // Who mines alone has a job of his own, which is made from the template's.
        let alone = self.ledger.rules().scheme == Scheme::Solo;
        let payees: Vec<_> =
            outputs.iter().filter_map(|out| Address::from_script(&out.script_pubkey)).collect();
        for job in self.jobs.on(&parent) {
            let members = if alone { payees.iter().copied().map(Some).collect() } else { vec![None] };
            for solo in members {
                if !alone && !job.outputs.are_of(outputs) {
                    continue;
                }
                let plan = self.ledger.plan_again(
                    &Request { solo, ..job.request },
                    job.window.clone(),
                    job.wanted,
                )?;
                if !Outputs::of_plan(&plan).are_of(outputs) {
                    continue;
                }
                // Where no member is paid, any program that mines with the license pays the same. Then a number of ours
                // tells, for who changed it has nothing from that; and whose block it is stays open.
                if plan.split.paid.is_empty() && (alone || !self.is_ours(&seen.coinbase)) {
                    continue;
                }
                let finder = solo.map(|member| member.to_base58(self.ledger.prefixes()));
                let finder = finder.as_deref().unwrap_or(NOT_HANDED_IN);
                let finding = Finding { time: u64::from(seen.header.time), license, finder };
                return Ok(Some(plan.record(seen.id, finding, self.ledger.prefixes())));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::consensus::deserialize;
    use iop_consensus::params::Params;
    use iop_mining::sample::{key, template};

    use super::*;
    use crate::ledger::tests::temporary;
    use crate::payouts::parent_of;

    /// What the books say of a block that pays the chapter alone, which has been promised nothing to a member.
    fn of_chapter(numbers: &Arc<JobNumbers>, number: u64) -> Option<Record> {
        let (ledger, license) = (temporary(), key(true).address());
        let strays = Strays::new(Arc::clone(&ledger), vec![license], Arc::clone(numbers));
        let template = template(3);
        let request = Request {
            base: None,
            reward: 5000,
            network_difficulty: template.target.difficulty(),
            room: 10,
            chapter: license,
            solo: None,
        };
        let plan = ledger.plan(&request).unwrap();
        assert_eq!(plan.outputs(), [(license, 5000)]);
        strays.remember(number, parent_of(&template), request, &plan);
        strays.keep();
        drop(strays);
        // What is kept is still there after a restart.
        let strays = Strays::new(Arc::clone(&ledger), vec![license], Arc::clone(numbers));
        let split = coinbase::build(&template, &key(true), &plan.outputs(), number);
        let coinbase = deserialize(&[&split.before[..], &[0; 12], &split.after].concat()).unwrap();
        let mut header = Params::devnet().genesis.block().header;
        header.prev_blockhash = template.parent;
        let id = BlockId { height: template.height, hash: header.block_hash() };
        strays.record(&Seen { id, header, coinbase }, license).unwrap()
    }

    #[test]
    fn a_block_that_pays_no_member_is_ours_by_its_number_only() {
        let numbers = Arc::new(JobNumbers::new());
        let ours = numbers.next();
        assert!(of_chapter(&numbers, ours).is_some());
        for others in [ours - 1, ours + 1, 7] {
            assert!(of_chapter(&numbers, others).is_none(), "who mines alone with the license pays the same");
        }
    }
}
