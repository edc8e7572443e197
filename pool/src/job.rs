//! A job: one template, one license, one signed coinbase, one notify line for all sessions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_mining::coinbase;
use iop_mining::template::Template;
use iop_stratum::difficulty::{Difficulty, Target};
use iop_stratum::fields::{Extranonce1, Extranonce2, JobId, Version};
use iop_stratum::notify::Notify;
use iop_stratum::work::{HEADER_SIZE, Work};

use crate::ledger::book::Plan;
use crate::solo::SoloJobs;

/// How long after a new tip a share of the old one still counts. The new job reaches all sessions in a fraction of a
/// second; then a miner's network and pipeline take up to a second or two. A longer time would pay for work that can no
/// longer make a block.
pub const STALE_GRACE: Duration = Duration::from_secs(2);

/// Most variants of a job, each made from the one before. Each takes some kilobytes while the job's tip lasts; machines
/// need about four until their difficulty is right, and sessions leave most of the others to vardiff.
const MAX_VARIANTS: u32 = 64;

/// The parent that jobs build on. It is shared by its jobs, so that all become stale at once.
#[derive(Debug, Default)]
pub struct Tip {
    retired: OnceLock<Instant>,
}

impl Tip {
    /// Marks it as replaced by another tip, or no longer mined.
    pub fn retire(&self) {
        self.retire_at(Instant::now());
    }

    pub(crate) fn retire_at(&self, at: Instant) {
        // A tip is retired once and for good; the first time stays.
        let _ = self.retired.set(at);
    }

    /// Whether another tip has replaced it, or it is no longer mined.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.get().is_some()
    }

    /// Whether shares on it no longer count.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.retired.get().is_some_and(|retired| retired.elapsed() > STALE_GRACE)
    }
}

/// The most job numbers whose owner is remembered, the latest ones: with a thousand members, an hour without a block.
const MAX_OWNERS: usize = 100_000;

/// The numbers of jobs: no two pools, and no two runs of one pool, use the same.
///
/// The upper half starts as seconds since 1970, so that runs differ as long as the clock goes forward. The lower half
/// starts at random, so that pools with one license that started in the same second differ too, as do runs after a
/// clock was set back. The random first extranonce1 of each run covers the rest: equal work would need the same number
/// and the same extranonce1.
#[derive(Debug)]
pub struct JobNumbers {
    next: AtomicU64,
    /// Owners of the latest numbers of members' own jobs.
    owners: Mutex<BTreeMap<u64, Address>>,
}

impl JobNumbers {
    /// The numbers of a run that starts now.
    #[must_use]
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self::starting_at(now)
    }

    fn starting_at(seconds: u64) -> Self {
        Self { next: AtomicU64::new(seconds << 32 | u64::from(random())), owners: Mutex::default() }
    }

    /// The next number.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The next number, for a job that may belong to one member.
    pub(crate) fn next_of(&self, member: Option<Address>) -> u64 {
        let number = self.next();
        if let Some(member) = member {
            let mut owners = self.owners();
            owners.insert(number, member);
            if owners.len() > MAX_OWNERS {
                owners.pop_first();
            }
        }
        number
    }

    /// The member whose own job had this number in this run.
    #[must_use]
    pub fn owner(&self, number: u64) -> Option<Address> {
        self.owners().get(&number).copied()
    }

    fn owners(&self) -> MutexGuard<'_, BTreeMap<u64, Address>> {
        self.owners.lock().expect("no panic while the lock is held")
    }
}

impl Default for JobNumbers {
    fn default() -> Self {
        Self::new()
    }
}

/// An unpredictable number.
///
/// # Panics
/// The system has no random numbers: nothing that needs keys can run there.
#[must_use]
pub fn random() -> u32 {
    getrandom::u32().expect("the operating system gives random numbers")
}

/// A job, shared by all sessions.
#[derive(Debug)]
pub struct Job {
    /// Its id in notify and submit: its number in hex.
    pub id: JobId,
    /// The license that signed it, as an address.
    pub license: Address,
    /// The parent it builds on.
    pub tip: Arc<Tip>,
    /// What it was made from.
    pub template: Arc<Template>,
    /// How a block of it is paid.
    pub plan: Arc<Plan>,
    /// Makes the jobs of members in solo mode; sessions get those instead of this one.
    pub solo: Option<SoloJobs>,
    /// The only member that has it, in solo mode.
    member: Option<Address>,
    /// The header's version. Bits that miners may roll are clear: they could not signal anything, and firmware that
    /// submits only changed bits, rather than the bits used, gets the same result. Rule votes are on the lower bits.
    pub version: Version,
    /// Builds its headers.
    pub work: Work,
    /// The difficulty of a block.
    pub network_difficulty: Difficulty,
    notify: Notify,
    line: Arc<[u8]>,
    clean_line: Arc<[u8]>,
    /// The same work under another number.
    variant: OnceLock<Arc<Job>>,
    /// Variants that may still follow.
    variants_left: u32,
}

impl Job {
    /// A member's own job: by the number of its block the owner is known, no matter who submits it.
    #[must_use]
    pub fn of_member(
        member: Address,
        numbers: &JobNumbers,
        template: Arc<Template>,
        key: &LicenseKey,
        plan: Arc<Plan>,
        tip: Arc<Tip>,
    ) -> Self {
        let member = Some(member);
        Self { member, ..Self::new(numbers.next_of(member), template, key, plan, tip) }
    }

    /// Signs the coinbase and encodes the notify line, once for all sessions.
    #[must_use]
    pub fn new(
        number: u64,
        template: Arc<Template>,
        key: &LicenseKey,
        plan: Arc<Plan>,
        tip: Arc<Tip>,
    ) -> Self {
        let notify = coinbase::notify(&template, key, &plan.outputs(), number);
        Self::from_notify(notify, key.address(), template, plan, tip)
    }

    fn from_notify(
        mut notify: Notify,
        license: Address,
        template: Arc<Template>,
        plan: Arc<Plan>,
        tip: Arc<Tip>,
    ) -> Self {
        notify.clean = true;
        let clean_line = notify.to_line().into();
        notify.clean = false;
        Self {
            id: notify.job_id.clone(),
            license,
            tip,
            version: notify.version,
            work: Work::new(&notify),
            network_difficulty: template.target.difficulty(),
            line: notify.to_line().into(),
            clean_line,
            notify,
            template,
            plan,
            solo: None,
            member: None,
            variant: OnceLock::new(),
            variants_left: MAX_VARIANTS,
        }
    }

    /// The same work as a new job, for sessions whose difficulty must change before the next job. It has its own number
    /// and hence its own coinbases, so shares of the two cannot be the same; the signature does not cover the number,
    /// so nothing is signed. Made once for all sessions; a variant has a variant in turn, until there are
    /// `MAX_VARIANTS`.
    #[must_use]
    pub fn variant(&self, numbers: &JobNumbers) -> Option<Arc<Self>> {
        let variants_left = self.variants_left.checked_sub(1)?;
        Some(Arc::clone(self.variant.get_or_init(|| {
            let number = numbers.next_of(self.member);
            let mut notify = self.notify.clone();
            notify.job_id = coinbase::job_id(number);
            coinbase::renumber(&mut notify.coinbase1, number);
            let (template, plan) = (Arc::clone(&self.template), Arc::clone(&self.plan));
            let job = Self::from_notify(notify, self.license, template, plan, Arc::clone(&self.tip));
            Arc::new(Self { variants_left, member: self.member, ..job })
        })))
    }

    /// Whether both are the same job or variants of the same job.
    #[must_use]
    pub fn is_same_work(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.plan, &other.plan)
    }

    /// The job for a session of this member: this one, or the member's own. `None` if a member is needed but not known
    /// yet, or if the ledger cannot be read.
    #[must_use]
    pub fn for_member(self: &Arc<Self>, member: Option<Address>) -> Option<Arc<Self>> {
        match &self.solo {
            None => Some(Arc::clone(self)),
            Some(solo) => solo.job(self, member?),
        }
    }

    /// The notify line; `clean` tells the session to drop all earlier jobs.
    #[must_use]
    pub fn line(&self, clean: bool) -> Arc<[u8]> {
        Arc::clone(if clean { &self.clean_line } else { &self.line })
    }

    /// The lesser of `wanted` and a block's difficulty: a share must never be harder than a block, or blocks would be
    /// lost.
    #[must_use]
    pub fn share_difficulty(&self, wanted: Difficulty) -> Difficulty {
        if wanted > self.network_difficulty { self.network_difficulty } else { wanted }
    }

    /// Whether a hash makes a block.
    #[must_use]
    pub fn is_block(&self, hash: &[u8; 32]) -> bool {
        self.template.target.is_met_by(hash)
    }

    /// The target of a share of this difficulty.
    #[must_use]
    pub fn share_target(&self, difficulty: Difficulty) -> Target {
        Target::from_difficulty(difficulty).max(self.template.target)
    }

    /// The whole block, as `submitblock` takes it.
    #[must_use]
    pub fn block(
        &self,
        header: &[u8; HEADER_SIZE],
        extranonce1: &Extranonce1,
        extranonce2: &Extranonce2,
    ) -> Vec<u8> {
        coinbase::block(&self.template, header, &self.work.coinbase(extranonce1, extranonce2))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::consensus::{deserialize, serialize};
    use bitcoin::hashes::Hash;
    use bitcoin::{Block, Transaction};
    use iop_consensus::license::coinbase::check;
    use iop_mining::sample::{key, template};
    use iop_stratum::fields::{NTime, Nonce};

    use super::*;

    /// A job whose reward goes to the chapter.
    pub(crate) fn plain_job(number: u64, template: Template, tip: Arc<Tip>) -> Job {
        let plan = Plan::of_chapter(key(true).address(), template.coinbase_value);
        Job::new(number, Arc::new(template), &key(true), Arc::new(plan), tip)
    }

    fn job(template: Template) -> Job {
        plain_job(0xabc, template, Arc::default())
    }

    fn transaction(lock_time: u32) -> Transaction {
        use bitcoin::{absolute::LockTime, transaction::Version};
        let input = vec![bitcoin::TxIn::default()];
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(lock_time),
            input,
            output: vec![],
        }
    }

    #[test]
    fn the_block_holds_what_the_template_said() {
        let (extranonce1, extranonce2) =
            (Extranonce1::from_u32(9), Extranonce2::from_counter(77, 8).unwrap());
        for others in 0..4 {
            let mut template = template(3);
            for lock_time in 0..others {
                let tx = transaction(lock_time);
                template.txids.push(tx.compute_txid().to_byte_array());
                template.transactions.extend(serialize(&tx));
            }
            let job = job(template);
            let header =
                job.work.header(&extranonce1, &extranonce2, Version(0x2000_0000), NTime(5), Nonce(6));
            let block: Block = deserialize(&job.block(&header, &extranonce1, &extranonce2)).unwrap();
            assert_eq!(block.txdata.len(), others as usize + 1);
            assert!(block.check_merkle_root());
            assert_eq!(block.header.prev_blockhash, job.template.parent);
            assert_eq!((block.header.time, block.header.nonce), (5, 6));
            assert!(block.txdata[0].input[0].witness.is_empty());
        }
    }

    #[test]
    fn a_commitment_brings_the_witness_nonce_into_the_block_only() {
        let mut template = template(3);
        template.witness_commitment = Some(vec![0x6a]);
        let job = job(template);
        let (extranonce1, extranonce2) = (Extranonce1::from_u32(9), Extranonce2::from_counter(1, 8).unwrap());
        let header = job.work.header(&extranonce1, &extranonce2, Version(0x2000_0000), NTime(5), Nonce(6));
        let block: Block = deserialize(&job.block(&header, &extranonce1, &extranonce2)).unwrap();
        assert_eq!(block.txdata[0].input[0].witness.to_vec(), [vec![0; 32]]);
        assert!(block.check_merkle_root(), "what miners hash has no witness");
    }

    /// The stock firmware of many Antminers takes coinbases of 755 bytes.
    #[test]
    fn a_coinbase_of_fifteen_members_and_the_chapter_is_short_enough_for_old_machines() {
        let template = template(10_000_000);
        let mut plan = Plan::of_chapter(key(true).address(), 1);
        plan.split.paid = (0..15u8).map(|number| (Address::of_pubkey(&[number]), 1 << 40)).collect();
        let job = Job::new(u64::MAX, Arc::new(template), &key(true), Arc::new(plan), Arc::default());
        let (extranonce1, extranonce2) = (Extranonce1::from_u32(9), Extranonce2::from_counter(1, 8).unwrap());
        let length = job.work.coinbase(&extranonce1, &extranonce2).len();
        assert_eq!(length, 185 + 16 * 34);
        assert!(length <= 755);
    }

    #[test]
    fn a_variant_is_licensed_work_of_its_own_and_the_same_for_all() {
        let (job, numbers) = (job(template(3)), JobNumbers::new());
        let variant = job.variant(&numbers).unwrap();
        assert!(Arc::ptr_eq(&variant, &job.variant(&numbers).unwrap()));
        let second = variant.variant(&numbers).unwrap();
        let all = std::iter::successors(Some(Arc::clone(&variant)), |last| last.variant(&numbers)).count();
        assert_eq!(all, MAX_VARIANTS as usize);
        assert!(job.is_same_work(&second) && !job.is_same_work(&self::job(template(3))));
        let (extranonce1, extranonce2) = (Extranonce1::from_u32(9), Extranonce2::from_counter(1, 8).unwrap());
        let mut seen = std::collections::HashSet::new();
        for job in [&job, &*variant, &*second] {
            let line = String::from_utf8(job.line(false).to_vec()).unwrap();
            assert!(line.contains(&format!("\"{}\"", job.id)), "{line}");
            let coinbase = job.work.coinbase(&extranonce1, &extranonce2);
            let number = u64::from_str_radix(job.id.as_str(), 16).unwrap();
            assert_eq!(coinbase.windows(8).filter(|part| **part == number.to_be_bytes()).count(), 1);
            let expected = coinbase::build(&job.template, &key(true), &job.plan.outputs(), number);
            assert_eq!(job.notify.coinbase1, expected.before);
            assert_eq!(check(&deserialize(&coinbase).unwrap()), Ok(key(true).address()));
            assert!(seen.insert(job.work.merkle_root(&extranonce1, &extranonce2)), "work of its own");
        }
    }

    #[test]
    fn a_members_own_job_and_its_variants_are_known_by_their_numbers() {
        let (shared, numbers) = (job(template(3)), JobNumbers::new());
        let member = Address::of_pubkey(b"member");
        let (template, plan, tip) =
            (Arc::clone(&shared.template), Arc::clone(&shared.plan), Arc::clone(&shared.tip));
        let own = Job::of_member(member, &numbers, template, &key(true), plan, tip);
        let owner = |job: &Job| numbers.owner(u64::from_str_radix(job.id.as_str(), 16).unwrap());
        let variant = own.variant(&numbers).unwrap();
        let second = variant.variant(&numbers).unwrap();
        assert_eq!([&own, &variant, &second].map(owner), [Some(member); 3]);
        assert_eq!([&shared, &*shared.variant(&numbers).unwrap()].map(owner), [None; 2]);
        for _ in 0..MAX_OWNERS {
            let _ = numbers.next_of(Some(member));
        }
        assert_eq!((owner(&own), numbers.owners().len()), (None, MAX_OWNERS), "the oldest is forgotten");
    }

    #[test]
    fn bits_that_miners_may_roll_are_clear_in_the_version() {
        let job = job(Template { version: 0x3000_0003, ..template(3) });
        assert_eq!(job.version, Version(0x2000_0003));
        assert!(std::str::from_utf8(&job.line(true)).unwrap().contains("\"20000003\""));
    }

    #[test]
    fn both_lines_differ_only_in_clean_jobs() {
        let job = job(template(3));
        let (clean, kept) = (job.line(true), job.line(false));
        let (clean, kept) = (std::str::from_utf8(&clean).unwrap(), std::str::from_utf8(&kept).unwrap());
        assert!(clean.contains("\"abc\"") && clean.ends_with("true]}\n"));
        assert_eq!(clean.replace("true]}", "false]}"), kept);
    }

    #[test]
    fn a_share_is_never_harder_than_a_block() {
        let job = job(template(3));
        let hard = Difficulty::new(1e9).unwrap();
        assert_eq!(job.share_difficulty(hard), job.network_difficulty);
        assert!(job.share_target(hard) >= job.template.target);
        let easy = Difficulty::new(1e-9).unwrap();
        assert_eq!(job.share_difficulty(easy), easy);
    }

    #[test]
    fn a_retired_tip_is_stale_after_the_grace_only() {
        let tip = Tip::default();
        assert!(!tip.is_stale());
        tip.retire();
        assert!(!tip.is_stale());
        let long_ago = Tip { retired: OnceLock::from(Instant::now() - STALE_GRACE * 2) };
        long_ago.retire();
        assert!(long_ago.is_stale());
    }

    #[test]
    fn job_numbers_grow_and_differ_between_runs_that_start_in_the_same_second() {
        let runs: Vec<u64> = (0..4).map(|_| JobNumbers::starting_at(1_700_000_000).next()).collect();
        assert!(runs.iter().all(|first| first >> 32 == 1_700_000_000));
        // They must also be far apart: each has room before it reaches the numbers of another (fails with a chance of
        // 2^-20).
        for (index, one) in runs.iter().enumerate() {
            assert!(runs[index + 1..].iter().all(|other| one.abs_diff(*other) > 100), "{runs:x?}");
        }
        let numbers = JobNumbers::new();
        assert!(numbers.next() < numbers.next());
    }
}
