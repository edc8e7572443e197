//! Jobs in the form machines get: the upstream's jobs under our own ids, with one line for all machines.
//!
//! Here: the conversion of the dispatcher's job to what every connection is sent ([`follow`]). Not here: the machines'
//! difficulties and shares ([`super::machine`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use iop_mining::rarely::Rarely;
use iop_stratum::fields::{Extranonce1, Extranonce2, JobId, NTime, Version, VersionMask};
use iop_stratum::line::MAX_CLIENT_LINE;
use iop_stratum::notify::Notify;
use iop_stratum::work::sha256d;
use tokio::sync::watch;
use tracing::warn;

use super::prefixes::{Prefixes, WorkHash};
use crate::dispatcher::Current;
use crate::job::Job;
use crate::split::{Split, Unservable, warning};

/// Longest line of a job that machines are sent, in bytes: the longest that a pool may send (a coinbase of 7,000
/// outputs; a full block takes 2 KiB without them), and what our id and our formatting may add.
pub const MAX_LINE: usize = MAX_CLIENT_LINE + 1024;

/// Unique numbers for jobs: two jobs of an upstream may have the same id.
#[derive(Debug, Default)]
pub struct Numbers(AtomicU64);

impl Numbers {
    fn next(&self) -> JobId {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        JobId::new(&format!("{number:x}")).expect("16 digits at most")
    }
}

/// The current work for machines.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// `None` while the upstream has none, or one that cannot be split among machines.
    pub job: Option<Arc<Served>>,
    /// Jobs of other eras are stale; see [`Current::era`].
    pub era: u64,
    /// The gateway ends: no new connection is admitted, and the present ones are told.
    pub ends: bool,
}

/// A job for all machines.
#[derive(Debug)]
pub struct Served {
    id: JobId,
    era: u64,
    /// Its work's number in [`Prefixes`].
    work: u64,
    work_hash: WorkHash,
    prefix_size: usize,
    upstream: Arc<Job>,
    /// The lines that announce it, without and with the flag that voids all earlier jobs.
    lines: Arc<[OnceLock<Arc<[u8]>>; 2]>,
}

impl Served {
    /// A job of the upstream under an id of our own.
    ///
    /// # Errors
    /// Its extranonces leave no room for machines.
    pub fn new(
        upstream: Arc<Job>,
        era: u64,
        prefixes: &Prefixes,
        numbers: &Numbers,
        split: Split,
    ) -> Result<Self, Unservable> {
        let prefix_size = split.prefix_in(upstream.stratum())?;
        let work_hash = work_hash(&upstream);
        Ok(Self {
            id: numbers.next(),
            era,
            work: prefixes.begin(prefix_size, &work_hash),
            work_hash,
            prefix_size,
            upstream,
            lines: Arc::default(),
        })
    }

    /// Its id for machines.
    #[must_use]
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// The era of the [`Snapshot`] that it came with.
    #[must_use]
    pub fn era(&self) -> u64 {
        self.era
    }

    /// Number of bytes of the machines' prefixes.
    #[must_use]
    pub fn prefix_size(&self) -> usize {
        self.prefix_size
    }

    /// The number of its work in [`Prefixes`].
    #[must_use]
    pub fn work(&self) -> u64 {
        self.work
    }

    /// The hash of its work: the same for all jobs of one work, whatever ids the upstream gives them.
    #[must_use]
    pub fn work_hash(&self) -> &WorkHash {
        &self.work_hash
    }

    /// The upstream's job.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Job> {
        &self.upstream
    }

    /// Whether the upstream wants all earlier jobs to be dropped.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.upstream.stratum().notify.clean
    }

    /// The version bits that may be rolled.
    #[must_use]
    pub fn mask(&self) -> VersionMask {
        self.upstream.stratum().version_mask
    }

    /// The version that machines are told, the same for as long as the job has this name.
    #[must_use]
    pub fn version(&self) -> Version {
        told_version(&self.upstream)
    }

    /// What a machine with this prefix gets for an extranonce1; `None` where that has more bytes than fit.
    #[must_use]
    pub fn extranonce1(&self, prefix: u32) -> Option<Extranonce1> {
        let upstream = self.upstream.stratum().extranonce1;
        Extranonce1::new(&[upstream.as_bytes(), self.bytes(&prefix.to_be_bytes())].concat())
    }

    /// Width of the extranonce2 that a machine rolls, in bytes.
    #[must_use]
    pub fn extranonce2_size(&self) -> usize {
        self.upstream.stratum().extranonce2_size - self.prefix_size
    }

    /// The upstream's extranonce2 for a machine's one; `None` if the machine's has the wrong width.
    #[must_use]
    pub fn extranonce2(&self, prefix: u32, machines: &Extranonce2) -> Option<Extranonce2> {
        if machines.as_bytes().len() != self.extranonce2_size() {
            return None;
        }
        Extranonce2::new(&[self.bytes(&prefix.to_be_bytes()), machines.as_bytes()].concat())
    }

    fn bytes<'a>(&self, prefix: &'a [u8; 4]) -> &'a [u8] {
        &prefix[4 - self.prefix_size..]
    }

    /// The line that announces it, encoded once for all machines.
    #[must_use]
    pub fn line(&self, clean: bool) -> Arc<[u8]> {
        let line = || self.line_of(self.id.clone(), 0, clean).into();
        Arc::clone(self.lines[usize::from(clean)].get_or_init(line))
    }

    /// The same work for one machine alone, under its own number and with a time `later` seconds ahead, so that its
    /// headers differ. It voids all earlier jobs, since most machines otherwise continue with the old one.
    #[must_use]
    pub fn variant(&self, later: u32, numbers: &Numbers) -> (JobId, Vec<u8>) {
        let id = numbers.next();
        let line = self.line_of(id.clone(), later, true);
        (id, line)
    }

    fn line_of(&self, job_id: JobId, later: u32, clean: bool) -> Vec<u8> {
        let notify = Notify::clone(&self.upstream.stratum().notify);
        let ntime = NTime(notify.ntime.0.saturating_add(later));
        Notify { job_id, version: self.version(), ntime, clean, ..notify }.to_line()
    }

    /// The same job after the upstream changed its version mask or another parameter.
    fn changed(&self, upstream: Arc<Job>) -> Self {
        Self { id: self.id.clone(), upstream, lines: Arc::clone(&self.lines), ..*self }
    }
}

/// The upstream's version without the bits that may be rolled, which is rolling too. Where one of them is set, firmware does
/// not agree on what to submit: the bits of the header's version, those that differ from the job's, or those that the job's
/// has not. Without them all three are the same.
fn told_version(upstream: &Job) -> Version {
    let stratum = upstream.stratum();
    Version(stratum.notify.version.0 & !stratum.version_mask.0)
}

/// Of all that a job's headers are made of, but for what machines roll: time and version.
fn work_hash(job: &Job) -> WorkHash {
    let stratum = job.stratum();
    let notify = &stratum.notify;
    let extranonce1 = stratum.extranonce1.as_bytes();
    let lengths = [extranonce1.len(), notify.coinbase1.len(), notify.coinbase2.len()].map(usize::to_be_bytes);
    let mut whole = lengths.concat();
    for part in [&notify.prev_hash.0[..], extranonce1, &notify.coinbase1, &notify.coinbase2] {
        whole.extend_from_slice(part);
    }
    notify.branches.iter().for_each(|branch| whole.extend_from_slice(branch));
    sha256d(&whole)
}

/// Publishes each job of the upstream for machines, until there are no more.
pub async fn follow(
    mut current: watch::Receiver<Current>,
    split: Split,
    prefixes: &Prefixes,
    numbers: &Numbers,
    publish: &watch::Sender<Arc<Snapshot>>,
) {
    let mut follower = Follower::new(split);
    loop {
        let now = current.borrow_and_update().clone();
        publish.send_replace(Arc::new(follower.take(now, prefixes, numbers)));
        if current.changed().await.is_err() {
            return;
        }
    }
}

/// The last published job.
#[derive(Debug, Default)]
pub(super) struct Follower {
    split: Split,
    last: Option<Arc<Served>>,
    /// On jobs that are not for machines, and on those that are for few: an upstream may send many.
    words: Rarely,
    few: Rarely,
}

impl Follower {
    pub(super) fn new(split: Split) -> Self {
        Self { split, ..Self::default() }
    }

    pub(super) fn take(&mut self, now: Current, prefixes: &Prefixes, numbers: &Numbers) -> Snapshot {
        let era = now.era;
        let Some(job) = now.job else { return Snapshot { era, ..Snapshot::default() } };
        if let Some(last) = self.last.as_ref().filter(|last| last.era == era)
            && Arc::ptr_eq(&last.upstream.stratum().notify, &job.stratum().notify)
            && last.version() == told_version(&job)
        {
            let same = Arc::new(last.changed(job));
            self.last = Some(Arc::clone(&same));
            return Snapshot { job: Some(same), era, ends: false };
        }
        let served = match Served::new(job, era, prefixes, numbers, self.split) {
            Ok(served) => Arc::new(served),
            Err(why) => {
                if self.words.may_warn() {
                    warn!("{why}");
                }
                return Snapshot { era, ..Snapshot::default() };
            }
        };
        let left = served.extranonce2_size();
        if self.last.as_ref().is_none_or(|last| last.extranonce2_size() != left)
            && let Some(text) = warning(left)
            && self.few.may_warn()
        {
            warn!("{text}");
        }
        self.last = Some(Arc::clone(&served));
        Snapshot { job: Some(served), era, ends: false }
    }
}
