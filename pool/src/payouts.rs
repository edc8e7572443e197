//! From a template and a license to a job whose coinbase pays whom the ledger says.
//!
//! Here: which of our blocks a template stands on (the node is asked), the plan for its reward, the signed job.
//! Not here: the arithmetic and the books ([`crate::ledger`]), which license signs ([`iop_mining::choice`]), blocks of
//! ours that nobody handed in (`strays`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::BlockHash;
use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_mining::rpc::{Node, RpcError};
use iop_mining::template::Template;
use tokio::sync::watch;
use tracing::warn;

use crate::chain::nearest;
use crate::job::{Job, JobNumbers, Tip};
use crate::ledger::live::Request;
use crate::ledger::store::BlockId;
use crate::ledger::{Ledger, LedgerError, Scheme};
use crate::solo::SoloJobs;
use crate::strays::{Strays, Trouble};

/// The block that a template stands on.
pub(crate) fn parent_of(template: &Template) -> BlockId {
    BlockId { height: template.height.saturating_sub(1), hash: template.parent }
}

/// Makes jobs that pay.
#[derive(Debug)]
pub struct Payouts {
    ledger: Arc<Ledger>,
    chapter: Option<Address>,
    numbers: Arc<JobNumbers>,
    strays: Strays,
    /// Whether it was said that no member is paid.
    said: AtomicBool,
    /// What was last found, by the parent that templates stand on and the state of the books.
    last: Mutex<Option<(BlockHash, u64, Option<BlockId>)>>,
}

impl Payouts {
    /// `chapter` gets what members do not; the license that signs if not set. `licenses` are ours.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, chapter: Option<Address>, licenses: Vec<Address>) -> Self {
        let numbers: Arc<JobNumbers> = Arc::default();
        let strays = Strays::new(Arc::clone(&ledger), licenses, Arc::clone(&numbers));
        Self { ledger, chapter, numbers, strays, said: AtomicBool::new(false), last: Mutex::default() }
    }

    /// Where the numbers of jobs come from.
    #[must_use]
    pub fn numbers(&self) -> Arc<JobNumbers> {
        Arc::clone(&self.numbers)
    }

    /// The nearest block of ours below a template, in the chain of the node that gave it.
    ///
    /// # Errors
    /// The node did not say.
    pub async fn base(&self, node: &Node, template: &Template) -> Result<Option<BlockId>, RpcError> {
        let parent = parent_of(template);
        loop {
            let (state, last) = (self.ledger.book_state(), *self.last());
            if self.ledger.has_block(&parent) {
                return Ok(Some(parent));
            }
            if let Some((.., base)) = last.filter(|&(hash, of, _)| (hash, of) == (template.parent, state)) {
                return Ok(base);
            }
            let base = nearest(&self.ledger, node, parent).await?;
            *self.last() = Some((template.parent, state, base));
            // Else another block may be the nearest by now.
            if self.ledger.book_state() == state {
                return Ok(base);
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<(BlockHash, u64, Option<BlockId>)>> {
        self.last.lock().expect("no panic while the lock is held")
    }

    /// Whether no job may be made on a tip before it was looked whether blocks of ours below it were not handed in.
    /// `last` is the height of the highest block below it that a license of ours signed, `base` the nearest in the books.
    pub(crate) fn must_look(&self, tip: &BlockId, last: Option<u64>, base: Option<&BlockId>) -> bool {
        last > base.map(|base| u64::from(base.height)) || self.strays.must_look(tip)
    }

    /// Takes blocks of ours below a tip into the books that nobody handed in; gives how many. Templates stand on them
    /// from then on.
    ///
    /// # Errors
    /// The node did not say, or the ledger cannot be read or written.
    pub(crate) async fn take_strays(&self, node: &Node, tip: BlockId) -> Result<usize, Trouble> {
        self.strays.look(node, tip).await
    }

    /// Writes the jobs that were made since the last time, for a run after this one. That may wait for the disk.
    pub(crate) fn keep_jobs(&self) {
        self.strays.keep();
    }

    /// Why the ledger cannot be written now. What is mined meanwhile, the next run may not know.
    pub(crate) fn refusal(&self) -> watch::Receiver<Option<String>> {
        self.ledger.refusal()
    }

    /// The job of a template on the block of ours below it.
    ///
    /// # Errors
    /// The ledger cannot be read: nothing may be mined that nobody knows how to pay for.
    pub fn job(
        &self,
        template: Template,
        base: Option<BlockId>,
        key: &Arc<LicenseKey>,
        tip: Arc<Tip>,
    ) -> Result<Job, LedgerError> {
        let request = Request {
            base,
            reward: template.coinbase_value,
            network_difficulty: template.target.difficulty(),
            // One is the chapter's.
            room: template.outputs_room.saturating_sub(1),
            chapter: self.chapter.unwrap_or_else(|| key.address()),
            solo: None,
        };
        if let Some(doubt) = self.ledger.rules().pay_nobody(request.reward)
            && !self.said.swap(true, Ordering::Relaxed)
        {
            warn!("{doubt}");
        }
        let plan = self.ledger.plan(&request)?;
        let number = self.numbers.next();
        self.strays.remember(number, parent_of(&template), key.address(), &plan);
        let mut job = Job::new(number, Arc::new(template), key, Arc::new(plan), tip);
        if self.ledger.rules().scheme == Scheme::Solo {
            let (ledger, numbers) = (Arc::clone(&self.ledger), Arc::clone(&self.numbers));
            job.solo = Some(SoloJobs::new(ledger, Arc::clone(key), numbers, request));
        }
        Ok(job)
    }
}
