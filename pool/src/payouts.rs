//! Turns a template and a license into a job whose coinbase pays what the ledger says.
//!
//! Here: the pool block that a template builds on (the node is asked), the plan for its reward, the signed job.
//! Not here: the arithmetic and the books ([`crate::ledger`]), the choice of the license ([`iop_mining::choice`]),
//! blocks of the pool that nobody handed in (`strays`).

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
use crate::ledger::plan::Request;
use crate::ledger::store::BlockId;
use crate::ledger::{Ledger, LedgerError, Scheme, Standing};
use crate::solo::SoloJobs;
use crate::strays::{Strays, Trouble};

/// The block that a template builds on.
pub(crate) fn parent_of(template: &Template) -> BlockId {
    BlockId { height: template.height.saturating_sub(1), hash: template.parent }
}

/// Makes jobs with their payouts.
#[derive(Debug)]
pub struct Payouts {
    ledger: Arc<Ledger>,
    chapter: Option<Address>,
    numbers: Arc<JobNumbers>,
    strays: Strays,
    /// Whether it was said that no member is paid.
    said: AtomicBool,
    last: Mutex<Option<LastBase>>,
}

/// What was last found as the nearest pool block, and for what.
#[derive(Debug, Clone, Copy)]
struct LastBase {
    /// The parent that the template stood on.
    parent: BlockHash,
    /// The state of the books.
    book_state: u64,
    base: Option<BlockId>,
}

impl Payouts {
    /// `chapter` gets what members do not; if `None`, it is the signing license. `licenses` are the pool's.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, chapter: Option<Address>, licenses: Vec<Address>) -> Self {
        let numbers: Arc<JobNumbers> = Arc::default();
        let strays = Strays::new(Arc::clone(&ledger), licenses, Arc::clone(&numbers));
        Self { ledger, chapter, numbers, strays, said: AtomicBool::new(false), last: Mutex::default() }
    }

    /// The source of job numbers.
    #[must_use]
    pub fn numbers(&self) -> Arc<JobNumbers> {
        Arc::clone(&self.numbers)
    }

    /// The nearest pool block below a template, in the chain of the node that gave it.
    ///
    /// # Errors
    /// The node did not answer.
    pub async fn base(&self, node: &Node, template: &Template) -> Result<Option<BlockId>, RpcError> {
        let parent = parent_of(template);
        loop {
            let (book_state, last) = (self.ledger.book_state(), *self.last());
            if self.ledger.has_block(&parent) {
                return Ok(Some(parent));
            }
            let of_now = |last: &LastBase| last.parent == template.parent && last.book_state == book_state;
            if let Some(last) = last.filter(of_now) {
                return Ok(last.base);
            }
            let base = nearest(&self.ledger, node, parent).await?;
            *self.last() = Some(LastBase { parent: template.parent, book_state, base });
            // Otherwise another block may be the nearest by now.
            if self.ledger.book_state() == book_state {
                return Ok(base);
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<LastBase>> {
        self.last.lock().expect("no panic while the lock is held")
    }

    /// Whether to look for pool blocks that nobody handed in before a job is made on a tip. `last` is the height of the
    /// highest block below it signed by a license of the pool, `base` the nearest one in the books.
    pub(crate) fn must_look(&self, tip: &BlockId, last: Option<u64>, base: Option<&BlockId>) -> bool {
        last > base.map(|base| u64::from(base.height)) || self.strays.must_look(tip)
    }

    /// Adds pool blocks below a tip that nobody handed in to the books; returns how many. Templates build on them from
    /// then on.
    ///
    /// # Errors
    /// The node did not answer, or the ledger cannot be read or written.
    pub(crate) async fn take_strays(&self, node: &Node, tip: BlockId) -> Result<usize, Trouble> {
        self.strays.look(node, tip).await
    }

    /// Stores the jobs made since the last call, for a later run. May wait for the disk.
    pub(crate) fn keep_jobs(&self) {
        self.strays.keep();
    }

    /// Why the ledger cannot be written now. What is mined meanwhile, the next run may not know.
    pub(crate) fn refusal(&self) -> watch::Receiver<Option<String>> {
        self.ledger.refusal()
    }

    /// Moves the books to the nearest block of ours below a template, before a job is made of it.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub fn build_on(&self, base: Option<BlockId>, template: &Template) -> Result<Standing, LedgerError> {
        self.ledger.build_on(base, template.target.difficulty())
    }

    /// The job of a template, where the books stand.
    ///
    /// # Errors
    /// The ledger cannot be read: nothing may be mined without a plan to pay for it.
    pub fn job(
        &self,
        template: Template,
        standing: Standing,
        key: &Arc<LicenseKey>,
        tip: Arc<Tip>,
    ) -> Result<Job, LedgerError> {
        let request = Request {
            base: standing.base(),
            reward: template.coinbase_value,
            // One output is the chapter's.
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
