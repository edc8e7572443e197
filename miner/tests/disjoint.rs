//! No two devices ever hash the same header: over millions of assignments, with concurrent threads, jobs that change
//! meanwhile, repeated jobs, and every width of extranonce2 and version mask.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use iop_kernels::Found;
use iop_miner::dispatcher::{Assignment, Dispatcher};
use iop_miner::job::{Job, Serial};
use iop_stratum::client;
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::{Extranonce1, JobId, NBits, NTime, PrevHash, Version, VersionMask};
use iop_stratum::notify::Notify;
use proptest::prelude::*;

/// Number of assignments in the long run; `IOP_ASSIGNMENTS` overrides it.
const ASSIGNMENTS: u64 = 5_000_000;
/// Number of concurrent devices in it.
const DEVICES: u64 = 4;
/// The job changes after this many assignments. Less than 2^16, so that a repeated job does not run out of two-byte
/// extranonces.
const JOB: u64 = 20_000;

/// A template identified by its number, with a mask and a width.
fn job(template: u64, extranonce2_size: usize, mask: u32) -> Arc<Job> {
    let mut prev_hash = [0xaa; 32];
    prev_hash[..8].copy_from_slice(&template.to_le_bytes());
    let notify = Notify {
        job_id: JobId::new(&template.to_string()).unwrap(),
        prev_hash: PrevHash(prev_hash),
        coinbase1: vec![1; 40],
        coinbase2: vec![2; 50],
        branches: vec![[3; 32]],
        version: Version(0x2000_0000),
        nbits: NBits(0x207f_ffff),
        ntime: NTime(1_700_000_000),
        clean: true,
    };
    let job = client::Job {
        notify: Arc::new(notify),
        extranonce1: Extranonce1::from_u32(7),
        extranonce2_size,
        difficulty: Difficulty::new(1e-12).unwrap(),
        version_mask: VersionMask(mask),
    };
    Arc::new(Job::new(Serial(template), job))
}

/// Assigned ranges of nonces, each of a group of headers in several versions. Groups are identified by a randomly keyed
/// hash of all their headers.
#[derive(Default)]
struct Ledger {
    hasher: RandomState,
    groups: HashSet<u64>,
    /// Every header of every group, without nonces.
    headers: HashMap<[u8; 76], u64>,
    /// Group, first and last nonce.
    ranges: Vec<(u64, u32, u32)>,
}

impl Ledger {
    fn with(hasher: RandomState) -> Self {
        Self { hasher, ..Self::default() }
    }

    fn note(&mut self, assignment: &Assignment) {
        let versions = u8::try_from(assignment.work.versions()).unwrap();
        let header = |version| {
            let header = assignment.work.header_of(Found { nonce: 0, version });
            <[u8; 76]>::try_from(&header[..76]).unwrap()
        };
        let headers: Vec<[u8; 76]> = (0..versions).map(header).collect();
        let group = self.hasher.hash_one(&headers);
        if self.groups.insert(group) {
            for header in headers {
                let other = self.headers.insert(header, group);
                assert_eq!(other, None, "a header is in two groups");
            }
        }
        self.ranges.push((group, assignment.nonces.first(), assignment.nonces.last()));
    }

    /// Adds the assignments of another device; both use the same hash key.
    fn merge(&mut self, other: Self) {
        self.groups.extend(other.groups);
        for (header, group) in other.headers {
            let known = *self.headers.entry(header).or_insert(group);
            assert_eq!(known, group, "a header is in two groups");
        }
        self.ranges.extend(other.ranges);
    }

    /// Checks that no two ranges of a group overlap. Returns their number.
    fn check(mut self) -> u64 {
        self.ranges.sort_unstable();
        for pair in self.ranges.windows(2) {
            let [(group, _, last), (next, first, _)] = pair else { unreachable!("windows of two") };
            assert!(group != next || last < first, "a header was given out twice");
        }
        self.ranges.len() as u64
    }
}

/// Pseudorandom numbers from a seed (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The size of a request: a few headers, a CPU's, a GPU's, more than a header has.
    fn want(&mut self) -> u64 {
        match self.next() % 64 {
            0 => u64::MAX,
            1..4 => 1 << 31,
            4..32 => 1 << 24,
            _ => self.next() % 100_000,
        }
    }
}

/// Sets jobs, a new one or the last one again, until as many assignments are taken as are wanted.
fn change_jobs(dispatcher: &Dispatcher, taken: &AtomicU64, wanted: u64) {
    let kinds: Vec<(usize, u32)> = [0, 1, 2, 3, 4, 8]
        .into_iter()
        .flat_map(|size| [0, 0x0000_2000, 0x0000_6000, 0x1fff_e000, u32::MAX].map(|mask| (size, mask)))
        .collect();
    for template in 0.. {
        let (size, mask) = kinds[usize::try_from(template).unwrap() % kinds.len()];
        // The same job again, as after a reconnect: it continues where it stopped, if its extranonces suffice.
        let times = if size >= 2 { 2 } else { 1 };
        for _ in 0..times {
            dispatcher.set_job(job(template, size, mask));
            let (before, mut last) = (taken.load(Ordering::Relaxed), u64::MAX);
            loop {
                let now = taken.load(Ordering::Relaxed);
                if now >= wanted {
                    return dispatcher.close();
                }
                // Small jobs run out, and all devices wait.
                if now - before >= JOB || now == last {
                    break;
                }
                last = now;
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

#[test]
fn devices_that_take_at_once_over_changes_of_job_never_share_a_header() {
    let wanted = std::env::var("IOP_ASSIGNMENTS").map_or(ASSIGNMENTS, |text| text.parse().unwrap());
    let (dispatcher, taken, hasher) = (Dispatcher::new(), AtomicU64::new(0), RandomState::new());
    let all = Mutex::new(Ledger::with(hasher.clone()));
    thread::scope(|scope| {
        for device in 1..=DEVICES {
            let (dispatcher, taken, all, mut ledger) =
                (&dispatcher, &taken, &all, Ledger::with(hasher.clone()));
            scope.spawn(move || {
                let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ device);
                while let Some(assignment) = dispatcher.take(numbers.want()) {
                    ledger.note(&assignment);
                    taken.fetch_add(1, Ordering::Relaxed);
                }
                all.lock().unwrap().merge(ledger);
            });
        }
        change_jobs(&dispatcher, &taken, wanted);
    });
    let ledger = all.into_inner().unwrap();
    let (groups, headers) = (ledger.groups.len(), ledger.headers.len());
    let ranges = ledger.check();
    assert!(ranges >= wanted, "{ranges} assignments");
    println!("{ranges} assignments of {groups} groups of headers, {headers} headers without their nonces");
}

#[derive(Clone, Debug)]
enum Step {
    Take(u64),
    /// Another job.
    Job(usize, u32),
    /// The current one.
    Again,
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mask = prop_oneof![Just(0), Just(0x1fff_e000), any::<u32>()];
    let step = prop_oneof![
        8 => prop_oneof![0..5u64, 1u64 << 28..1 << 36, Just(u64::MAX)].prop_map(Step::Take),
        1 => (0usize..=8, mask).prop_map(|(size, mask)| Step::Job(size, mask)),
        1 => Just(Step::Again),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_course_of_jobs_and_wishes_gives_every_header_once(steps in steps()) {
        let (dispatcher, mut ledger) = (Dispatcher::new(), Ledger::default());
        // Number of unassigned headers of the job: at most 2^120, which no sequence reaches.
        let (mut current, mut at_work, mut left) = (None, false, 0u128);
        for (number, step) in (0u64..).zip(steps) {
            match step {
                Step::Job(size, mask) => {
                    current = Some((number, size, mask));
                    dispatcher.set_job(job(number, size, mask));
                    (at_work, left) = (true, 1 << (32 + 8 * size + mask.count_ones() as usize).min(120));
                }
                // A job with few headers would start over: its extranonces are used up.
                Step::Again => if let Some((number, size, mask)) = current && size >= 2 {
                    dispatcher.set_job(job(number, size, mask));
                    at_work = true;
                },
                Step::Clear => {
                    dispatcher.clear();
                    at_work = false;
                }
                Step::Take(want) => if at_work && left > 0 {
                    let assignment = dispatcher.take(want).unwrap();
                    left -= u128::from(assignment.headers());
                    ledger.note(&assignment);
                },
            }
        }
        ledger.check();
    }
}
