//! From a new job to the first share of it: what a new block costs a miner. For each kernel on all cores, and on all but
//! one, which the thread that waits then has for itself; and for each OpenCL device. Jobs of eight versions follow each
//! other while the device is busy.
//!
//! The time begins when the job is set and ends when a share of it is there: in between the device leaves the old job,
//! takes headers of the new one and scans the first of them (a chunk, or a launch; about one hash in 2,000 is a share).
//! So the first nonce of the new work is tried earlier than what is measured.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use iop_kernels::supported;
use iop_miner::device::{Cpu, Device, Feed, OpenCl};
use iop_miner::dispatcher::Dispatcher;
use iop_miner::job::{Job, Serial};
use iop_miner::stats::Stats;
use iop_stratum::client;
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::{Extranonce1, JobId, NBits, NTime, PrevHash, Version, VersionMask};
use iop_stratum::notify::Notify;

/// How often the job changes.
const CHANGES: u64 = 500;
/// A device is busy with a job for this long before it changes.
const BUSY: Duration = Duration::from_millis(7);

fn job(serial: u64) -> Arc<Job> {
    let notify = Notify {
        job_id: JobId::new(&serial.to_string()).unwrap(),
        prev_hash: PrevHash([serial as u8; 32]),
        coinbase1: vec![1; 120],
        coinbase2: vec![2; 110],
        branches: vec![[3; 32]; 12],
        version: Version(0x2000_0000),
        nbits: NBits(0x207f_ffff),
        ntime: NTime(1_700_000_000),
        clean: true,
    };
    let job = client::Job {
        notify: Arc::new(notify),
        extranonce1: Extranonce1::from_u32(7),
        extranonce2_size: 8,
        // Of 2^32 hashes one is of difficulty 1.
        difficulty: Difficulty::new(2000.0 / f64::from(u32::MAX)).unwrap(),
        version_mask: VersionMask(0x1fff_e000),
    };
    Arc::new(Job::new(Serial(serial), job))
}

/// The times of so many changes, sorted; none where the device does not run.
fn measure(device: &(impl Device + Sync), changes: u64) -> Vec<Duration> {
    let dispatcher = Arc::new(Dispatcher::new());
    let (feed, mut shares) = Feed::new(Arc::clone(&dispatcher), Stats::new().device("bench"));
    dispatcher.set_job(job(0));
    thread::scope(|scope| {
        let running = scope.spawn(move || device.run(&feed));
        let mut times = Vec::new();
        // The first job's time is the device's start.
        for serial in 0..=changes {
            let set = Instant::now();
            dispatcher.set_job(job(serial));
            let first = loop {
                match shares.blocking_recv() {
                    Some(share) if share.job.serial() == Serial(serial) => break Some(set.elapsed()),
                    Some(_) => {}
                    None => break None,
                }
            };
            let Some(first) = first else { break };
            if serial > 0 {
                times.push(first);
            }
            while set.elapsed() < first + BUSY {
                // Who finds more must not wait for us.
                while shares.try_recv().is_ok() {}
                thread::sleep(Duration::from_micros(200));
            }
        }
        dispatcher.close();
        drop(shares);
        if let Err(error) = running.join().unwrap() {
            println!("{:<20}{error}", device.name());
        }
        times.sort_unstable();
        times
    })
}

fn report(name: &str, times: &[Duration]) {
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    if !times.is_empty() {
        println!("{name:<20}{:>12.3?}{:>12.3?}{:>12.3?}", at(0.5), at(0.99), at(1.0));
    }
}

fn main() {
    // As a test it only shows that it runs.
    let changes = if std::env::args().any(|arg| arg == "--bench") { CHANGES } else { 3 };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!("{:<20}{:>12}{:>12}{:>12}   {changes} changes of job", "", "median", "99 %", "most");
    for threads in [cores.max(2) - 1, cores.max(2)] {
        for kernel in supported() {
            let name = format!("{} on {threads}/{cores}", kernel.name());
            report(&name, &measure(&Cpu::new(kernel, threads), changes));
        }
    }
    let devices = iop_kernels::opencl::list().unwrap_or_default();
    for device in devices {
        let device = OpenCl::new(device.platform, device.number);
        report(device.name(), &measure(&device, changes));
    }
}
