//! Solo payout: every member has its own job, whose coinbase pays that member. Jobs are made on first use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use tracing::error;

use crate::job::{Job, JobNumbers};
use crate::ledger::Ledger;
use crate::ledger::plan::Request;

/// The jobs of one template, by member. Each takes a signature (about 50 µs) and some kilobytes.
pub struct SoloJobs {
    ledger: Arc<Ledger>,
    key: Arc<LicenseKey>,
    numbers: Arc<JobNumbers>,
    request: Request,
    made: Mutex<HashMap<Address, Arc<Job>>>,
}

impl std::fmt::Debug for SoloJobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SoloJobs")
    }
}

impl SoloJobs {
    /// Creates it without any jobs.
    #[must_use]
    pub fn new(
        ledger: Arc<Ledger>,
        key: Arc<LicenseKey>,
        numbers: Arc<JobNumbers>,
        request: Request,
    ) -> Self {
        Self { ledger, key, numbers, request, made: Mutex::default() }
    }

    /// A member's job on the template of `job`; `None` if the ledger cannot be read.
    pub(crate) fn job(&self, job: &Job, member: Address) -> Option<Arc<Job>> {
        let mut made = self.made.lock().expect("no panic while the lock is held");
        if let Some(own) = made.get(&member) {
            return Some(Arc::clone(own));
        }
        let request = Request { solo: Some(member), ..self.request };
        let plan = self
            .ledger
            .plan(&request)
            .inspect_err(|trouble| error!("no job for a member: {trouble}"))
            .ok()?;
        let (template, tip) = (Arc::clone(&job.template), Arc::clone(&job.tip));
        let own = Arc::new(Job::of_member(member, &self.numbers, template, &self.key, Arc::new(plan), tip));
        made.insert(member, Arc::clone(&own));
        Some(own)
    }
}
