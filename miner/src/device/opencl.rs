//! An OpenCL device, fed by one thread.

use std::io;
use std::time::{Duration, Instant};

use iop_kernels::opencl::{OpenClDevice, OpenClError, Scanner, Shape, list, tune};
use serde::{Deserialize, Serialize};
use tracing::{debug, info};

use super::{Device, Feed};
use crate::choice::{cached, keep};
use crate::dispatcher::VERSIONS;

/// Target duration of a launch: what a new block costs in stale work. Shorter launches would leave a GPU idle between
/// them.
const LAUNCH: Duration = Duration::from_millis(10);
/// Fewest and most headers in a launch, whatever the device's speed.
const HEADERS: std::ops::RangeInclusive<u64> = 1 << 12..=1 << 30;
/// Headers to take from the dispatcher at a time.
const ASSIGNMENT: u64 = 1 << 31;

/// An OpenCL device, identified by platform and number.
#[derive(Debug)]
pub struct OpenCl {
    name: String,
    platform: usize,
    number: usize,
}

/// The cached result of tuning.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tuned {
    driver: String,
    version: String,
    vector: u32,
    versions: u32,
    group: u32,
    batches: u32,
    multiply: u32,
    sha: bool,
}

impl OpenCl {
    /// Device `number` of platform `platform`, even if there is none.
    #[must_use]
    pub fn new(platform: usize, number: usize) -> Self {
        Self { name: format!("opencl:{platform}.{number}"), platform, number }
    }

    fn find(&self) -> Result<OpenClDevice, String> {
        let devices = list().map_err(|error| no_driver(&error.to_string()))?;
        if devices.is_empty() {
            return Err(no_driver("the OpenCL drivers find no device"));
        }
        let names = devices.iter().map(|device| format!("opencl:{}.{}", device.platform, device.number));
        let names = names.collect::<Vec<_>>().join(", ");
        let mut devices = devices.into_iter();
        let found = devices.find(|device| (device.platform, device.number) == (self.platform, self.number));
        found.ok_or_else(|| format!("no such device; there are {names}"))
    }

    /// Builds the device's kernel in its best shape, which is tuned at the first start.
    ///
    /// # Errors
    /// There is no such device, or it can run no shape.
    pub fn scanner(&self) -> io::Result<Scanner> {
        let failed = |error: OpenClError| io::Error::other(error.to_string());
        let device = self.find().map_err(io::Error::other)?;
        let shape = shape(&device).map_err(failed)?;
        info!("{} is {}, hashing as {shape:?}", self.name, device.name);
        Scanner::new(&device, shape).map_err(failed)
    }
}

/// Advice if no driver provides a device; `found` is the error.
#[must_use]
pub fn no_driver(found: &str) -> String {
    format!(
        "{found}. OpenCL needs ocl-icd-libopencl1 and the driver of the device, on Debian or Ubuntu: \
         nvidia-opencl-icd or libnvidia-compute-VERSION (NVIDIA), mesa-opencl-icd (AMD), intel-opencl-icd (Intel), \
         pocl-opencl-icd (CPU)"
    )
}

/// The cached shape, if it is for this driver and version; otherwise tunes.
fn shape(device: &OpenClDevice) -> Result<Shape, OpenClError> {
    let file = format!("opencl-{}", device.name);
    if let Some(Tuned { driver, version, vector, versions, group, batches, multiply, sha }) = cached(&file) {
        let shape = Shape { vector, versions, group, batches, multiply, sha };
        if driver == device.driver && version == env!("CARGO_PKG_VERSION") && shape.suits(device) {
            return Ok(shape);
        }
    }
    info!("tuning {}: this takes some seconds, once", device.name);
    let (shape, rate) = tune(device, VERSIONS as usize)?;
    debug!("{}: {shape:?} does {rate:.0} hashes a second", device.name);
    let Shape { vector, versions, group, batches, multiply, sha } = shape;
    let (driver, version) = (device.driver.clone(), env!("CARGO_PKG_VERSION").to_owned());
    keep(&file, &Tuned { driver, version, vector, versions, group, batches, multiply, sha });
    Ok(shape)
}

/// Size of the next launch: what would have taken `LAUNCH`, and at most twice the last one.
#[must_use]
pub fn next_launch(headers: u64, took: Duration) -> u64 {
    let fitting = headers as f64 * LAUNCH.as_secs_f64() / took.as_secs_f64().max(1e-9);
    (fitting as u64).min(headers * 2).clamp(*HEADERS.start(), *HEADERS.end())
}

impl Device for OpenCl {
    fn name(&self) -> &str {
        &self.name
    }

    fn may_come_back(&self) -> bool {
        true
    }

    fn run(&self, feed: &Feed) -> io::Result<()> {
        let mut scanner = self.scanner()?;
        let (mut found, mut launch) = (Vec::new(), *HEADERS.start());
        while let Some(assignment) = feed.next(ASSIGNMENT) {
            let mut left = Some(assignment.nonces);
            while let Some(range) = left.filter(|_| feed.is_current(&assignment)) {
                let (now, rest) = range.split(scanner.nonces(&assignment.work, launch));
                left = rest;
                let started = Instant::now();
                let hashes = scanner
                    .scan(&assignment.work, now, &mut found)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                launch = next_launch(hashes, started.elapsed());
                feed.add_hashes(hashes);
                for header in found.drain(..) {
                    feed.found(&assignment, header);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn launches_grow_slowly_and_shrink_at_once() {
        assert_eq!(next_launch(1 << 20, LAUNCH), 1 << 20);
        assert_eq!(next_launch(1 << 20, LAUNCH / 100), 1 << 21);
        assert_eq!(next_launch(1 << 20, LAUNCH * 4), 1 << 18);
        assert_eq!(next_launch(1 << 20, Duration::ZERO), 1 << 21);
        assert_eq!(next_launch(1 << 12, Duration::from_secs(9)), *HEADERS.start());
        assert_eq!(next_launch(1 << 30, Duration::ZERO), *HEADERS.end());
    }

    #[test]
    fn a_device_that_is_not_there_is_named_and_fails() {
        let (feed, _shares) = crate::device::tests::feed(1e9);
        let error = OpenCl::new(99, 9).run(&feed).unwrap_err().to_string();
        let unknown = error.contains("no such device; there are opencl:0.0");
        assert!(unknown || error.contains("pocl-opencl-icd (CPU)"), "{error}");
    }

    #[test]
    fn the_first_device_finds_shares_where_there_is_one() {
        let Some(device) = list().ok().and_then(|devices| devices.into_iter().next()) else {
            eprintln!("SKIPPED: no OpenCL device");
            return;
        };
        let (feed, mut shares) = crate::device::tests::feed(1e-6);
        let opencl = OpenCl::new(device.platform, device.number);
        std::thread::scope(|scope| {
            scope.spawn(|| opencl.run(&feed).unwrap());
            for _ in 0..20 {
                assert!(shares.blocking_recv().is_some());
            }
            feed.close();
            drop(shares);
        });
    }
}
