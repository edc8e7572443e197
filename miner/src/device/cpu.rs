//! The CPU as a device: one worker thread per core, all with the same kernel.

use std::io;
use std::thread;

use iop_kernels::Kernel;
use tracing::warn;

use super::{Device, Feed};

/// Headers to take from the dispatcher at a time: 0.2 s of an AVX-512 core, 4 s of a scalar one. Long enough
/// that threads do not meet at its lock.
const ASSIGNMENT: u64 = 1 << 24;

/// Worker threads on the CPU.
#[derive(Debug)]
pub struct Cpu {
    kernel: &'static dyn Kernel,
    threads: usize,
}

impl Cpu {
    /// With so many threads.
    #[must_use]
    pub fn new(kernel: &'static dyn Kernel, threads: usize) -> Self {
        Self { kernel, threads }
    }

    fn work(&self, feed: &Feed) {
        let mut found = Vec::new();
        while let Some(assignment) = feed.next(ASSIGNMENT) {
            // Between two chunks is a look at whether the job still stands: a chunk is what a new block costs in
            // stale work.
            for chunk in assignment.nonces.chunks(self.kernel.nonces(&assignment.work)) {
                if !feed.is_current(&assignment) {
                    break;
                }
                feed.add_hashes(self.kernel.scan_versions(&assignment.work, chunk, &mut found));
                for header in found.drain(..) {
                    feed.found(&assignment, header);
                }
            }
        }
    }
}

impl Device for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn run(&self, feed: &Feed) -> io::Result<()> {
        thread::scope(|scope| {
            let start = |number| {
                let thread = thread::Builder::new().name(format!("cpu-{number}"));
                thread.spawn_scoped(scope, || self.work(feed)).map(drop)
            };
            // Where one does not start, those after it will not either.
            let failed = (0..self.threads).find_map(|number| Some((number, start(number).err()?)));
            let threads = self.threads;
            match failed {
                None if threads == 0 => Err(io::Error::other("none of 0 CPU threads starts")),
                None => Ok(()),
                Some((0, error)) => Err(io::Error::new(
                    error.kind(),
                    format!("none of {threads} CPU threads starts: {error}"),
                )),
                Some((started, error)) => {
                    warn!("only {started} of {threads} CPU threads start: {error}");
                    Ok(())
                }
            }
        })
    }
}
