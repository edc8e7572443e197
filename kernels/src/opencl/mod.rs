//! Hashing on OpenCL devices: GPUs, and CPUs through PoCL.
//!
//! What lives here: the list of devices ([`list`]), a device prepared for a [`Shape`] ([`Scanner`]), and the choice of
//! a shape by measurement ([`tune`]). What does not: threads, files, jobs. The way of the data: header words and
//! midstates → `scan.cl`, built for the shape → candidates by the hash's last word → each checked here with all 256
//! bits. `libOpenCL` is loaded on first use; without it there is an error and no device.

#![allow(unsafe_code)]

use std::fmt;
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opencl3::command_queue::CommandQueue;
use opencl3::context::Context;
use opencl3::device::{CL_DEVICE_TYPE_ALL, CL_DEVICE_TYPE_CPU, Device};
use opencl3::error_codes::ClError;
use opencl3::kernel::{ExecuteKernel, Kernel};
use opencl3::memory::{Buffer, CL_MEM_READ_ONLY, CL_MEM_READ_WRITE};
use opencl3::platform::get_platforms;
use opencl3::program::Program;
use opencl3::types::CL_BLOCKING;

use crate::range::NonceRange;
use crate::search;
use crate::work::{Found, Target, Work};

const SOURCE: &str = concat!(include_str!("scan.cl"), include_str!("sha.cl"));

/// Most candidates that a device can report in one launch. If there are more, the CPU scans the range.
const ROOM: u32 = 4096;

/// Why a device cannot hash, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenClError(String);

impl fmt::Display for OpenClError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenClError {}

/// Builds an error that names what failed.
fn failed(what: &'static str) -> impl Fn(ClError) -> OpenClError {
    move |error| OpenClError(format!("{what}: {error}"))
}

/// A device, and its position among the others.
#[derive(Clone, Debug)]
pub struct OpenClDevice {
    /// Index of its platform, from 0.
    pub platform: usize,
    /// Index within the platform, from 0.
    pub number: usize,
    /// The name that its driver gives.
    pub name: String,
    /// The driver's version.
    pub driver: String,
    is_cpu: bool,
    /// Whether it has `cl_amd_media_ops`, whose rotation the kernel then uses.
    bitalign: bool,
    /// Whether it is a CPU, which is this machine's, and has the SHA instructions.
    sha: bool,
    device: Device,
}

fn cpu_has_sha() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("sha");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Drivers initialise when they are first asked for devices, and not all of them tolerate a second thread that asks
/// meanwhile: PoCL gives it a device without a name, and crashes when it asks for the name.
static ASKING: Mutex<()> = Mutex::new(());

/// The devices of all platforms, in the order given by the drivers.
///
/// # Errors
/// There is no OpenCL library, or it has no platform. Platforms without a device are skipped.
pub fn list() -> Result<Vec<OpenClDevice>, OpenClError> {
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut devices = Vec::new();
    for (platform, at) in get_platforms().map_err(failed("no OpenCL platform"))?.iter().enumerate() {
        let ids = at.get_devices(CL_DEVICE_TYPE_ALL).unwrap_or_default();
        for (number, id) in ids.into_iter().enumerate() {
            let device = Device::new(id);
            let is_cpu = device.dev_type().is_ok_and(|kind| kind & CL_DEVICE_TYPE_CPU != 0);
            devices.push(OpenClDevice {
                platform,
                number,
                name: device.name().unwrap_or_default().trim().to_owned(),
                driver: device.driver_version().unwrap_or_default(),
                is_cpu,
                sha: is_cpu && cpu_has_sha(),
                bitalign: device
                    .extensions()
                    .is_ok_and(|all| all.split(' ').any(|one| one == "cl_amd_media_ops")),
                device,
            });
        }
    }
    Ok(devices)
}

/// The parameters for which the kernel is built and launched. They affect only the speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Nonces side by side in one work item: 1, 2, 4, 8 or 16.
    pub vector: u32,
    /// Versions that share an expanded message, 1 to [`Work::MAX_VERSIONS`]. If a work's number of versions is not a
    /// multiple of this, it is scanned one version at a time.
    pub versions: u32,
    /// Work items in a group.
    pub group: u32,
    /// Vectors that a work item processes one after another, 1 to 64. With more than one, the first hash of each runs
    /// beside the second hash of the one before, and versions are processed one at a time.
    pub batches: u32,
    /// What is done by multiplications, for devices whose multipliers would be idle otherwise: nothing (0), additions
    /// (1), a message word's shifts too (2), and also one rotation of each (3).
    pub multiply: u32,
    /// Whether the rounds use the SHA instructions of a CPU (`sha.cl`). Then a vector has 16 nonces, and any number of
    /// versions can be combined with any of batches.
    pub sha: bool,
}

impl Shape {
    const MOST_MULTIPLIED: u32 = 3;

    /// Whether a kernel can be built for this shape.
    #[must_use]
    pub fn is_valid(self) -> bool {
        [1, 2, 4, 8, 16].contains(&self.vector)
            && (1..=Work::MAX_VERSIONS as u32).contains(&self.versions)
            && (1..=1024).contains(&self.group)
            && (1..=64).contains(&self.batches)
            && (self.versions == 1 || self.batches == 1 || self.sha)
            && self.multiply <= Self::MOST_MULTIPLIED
            && (!self.sha || self.vector == 16)
    }

    /// Whether a kernel can be built for this shape, and the device has what it needs.
    #[must_use]
    pub fn suits(self, device: &OpenClDevice) -> bool {
        self.is_valid() && (device.sha || !self.sha)
    }

    /// Shapes worth a trial. A CPU does best with its SHA instructions or whole vector registers, and with two streams
    /// or the shared message in its cache. A GPU's lanes are its work items, and it has registers for one or two
    /// nonces, or for one and an expanded message.
    fn candidates(is_cpu: bool) -> &'static [Self] {
        const fn shape(vector: u32, versions: u32, group: u32, batches: u32) -> Shape {
            Shape { vector, versions, group, batches, multiply: 0, sha: false }
        }
        const CPU: &[Shape] = &[
            Shape { sha: true, ..shape(16, 8, 4, 64) },
            shape(16, 1, 16, 64),
            shape(16, 8, 16, 1),
            shape(8, 8, 16, 1),
            shape(16, 1, 16, 1),
            shape(8, 1, 16, 1),
        ];
        const GPU: &[Shape] = &[
            shape(1, 1, 64, 1),
            shape(1, 1, 256, 1),
            shape(2, 1, 64, 1),
            shape(2, 1, 256, 1),
            shape(1, 8, 64, 1),
            shape(1, 8, 256, 1),
        ];
        if is_cpu { CPU } else { GPU }
    }
}

/// A device prepared for scanning.
#[derive(Debug)]
pub struct Scanner {
    shape: Shape,
    queue: CommandQueue,
    /// The kernel for [`Shape::versions`] together.
    together: Kernel,
    /// The kernel for a single version, if that is a different one.
    single: Option<Kernel>,
    header: Buffer<u32>,
    midstates: Buffer<u32>,
    found: Buffer<u32>,
    // Last, so that it outlives what was created from it.
    _context: Context,
}

impl Scanner {
    /// Builds the kernels, and launches each once so that later launches start at once.
    ///
    /// # Errors
    /// The device cannot run the shape, or the device or its driver fails at any step. A build error includes the
    /// first lines of the compiler's output.
    ///
    /// # Panics
    /// The shape is not [valid](Shape::is_valid).
    pub fn new(device: &OpenClDevice, shape: Shape) -> Result<Self, OpenClError> {
        Self::built(device, shape, shape.versions > 1)
    }

    /// As [`Self::new`], but builds the kernel for single versions only if `with_single`.
    fn built(device: &OpenClDevice, shape: Shape, with_single: bool) -> Result<Self, OpenClError> {
        assert!(shape.is_valid(), "{shape:?}");
        if !shape.suits(device) {
            return Err(OpenClError("a shape for CPUs with SHA instructions, which this is not".to_owned()));
        }
        let context = Context::from_device(&device.device).map_err(failed("no context"))?;
        let queue =
            CommandQueue::create_default_with_properties(&context, 0, 0).map_err(failed("no queue"))?;
        let build = |versions| {
            let Shape { vector, group, batches, multiply, sha, .. } = shape;
            let bitalign = if device.bitalign { " -D BITALIGN" } else { "" };
            let sha = if sha { " -D SHA" } else { "" };
            let options = format!(
                "-D VECTOR={vector} -D VERSIONS={versions} -D GROUP={group} -D BATCHES={batches} \
                 -D MULTIPLY={multiply}{bitalign}{sha}"
            );
            let program =
                Program::create_and_build_from_source(&context, SOURCE, &options).map_err(|log| {
                    let log: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).take(3).collect();
                    OpenClError(format!("the kernel does not build: {}", log.join("; ")))
                })?;
            Kernel::create(&program, "scan").map_err(failed("no kernel"))
        };
        let together = build(shape.versions)?;
        let single = with_single.then(|| build(1)).transpose()?;
        let buffer = |flags, words| {
            // SAFETY: no memory of ours is given to the buffer: the pointer is null and no flag asks for it.
            unsafe { Buffer::create(&context, flags, words, ptr::null_mut()) }.map_err(failed("no buffer"))
        };
        let header = buffer(CL_MEM_READ_ONLY, 4)?;
        let midstates = buffer(CL_MEM_READ_ONLY, 16 * Work::MAX_VERSIONS)?;
        let found = buffer(CL_MEM_READ_WRITE, 1 + 2 * ROOM as usize)?;
        let mut scanner =
            Self { shape, queue, together, single, header, midstates, found, _context: context };
        scanner.launch_each()?;
        Ok(scanner)
    }

    /// Launches each kernel once with minimal work: some drivers compile only then, which takes seconds.
    fn launch_each(&mut self) -> Result<(), OpenClError> {
        let all: Vec<u32> = (0..self.shape.versions).collect();
        let each = if self.single.is_some() { &[&all[..], &[0]][..] } else { &[&all[..]] };
        for versions in each {
            let work = Work::with_versions(&[0; 80], versions, Target::from_le_bytes([0; 32]));
            let one = NonceRange::new(0, 1).expect("from 0 there are 2^32 nonces");
            self.scan(&work, one, &mut Vec::new())?;
        }
        Ok(())
    }

    /// Nonces for a launch of about `hashes` hashes: whole work groups, since those are computed in any case. But so
    /// few that they give at most half of the candidates that there is room for, whatever the target: what a launch
    /// finds must be handled, or scanned again if there was no room, before the caller regains control.
    #[must_use]
    pub fn nonces(&self, work: &Work, hashes: u64) -> u64 {
        let Shape { vector, group, batches, .. } = self.shape;
        let (versions, group) = (work.versions() as u64, u64::from(vector * group * batches));
        let wanted = (hashes / versions).max(1).next_multiple_of(group);
        let zeros = work.target().zeros_of_last_word().count_ones();
        let most = ((u64::from(ROOM / 2) << zeros) / versions).max(1);
        wanted.min(if most < group { most } else { most - most % group })
    }

    /// As [`Kernel::scan_versions`](crate::Kernel::scan_versions), except that a device may fail; then nothing is
    /// known about the range. Waits for the device.
    ///
    /// # Errors
    /// The device or its driver fails at any step.
    pub fn scan(
        &mut self,
        work: &Work,
        range: NonceRange,
        found: &mut Vec<Found>,
    ) -> Result<u64, OpenClError> {
        let found_before = found.len();
        let per_item = u64::from(self.shape.vector * self.shape.batches);
        let group = u64::from(self.shape.group);
        let items = range.count().div_ceil(per_item).next_multiple_of(group);
        let versions = work.versions() as u32;
        let (kernel, together) = match &self.single {
            Some(single) if !versions.is_multiple_of(self.shape.versions) => (single, 1),
            _ => (&self.together, self.shape.versions),
        };
        let (header, midstates) = words(work);
        let zero = [0];
        let mut candidates = vec![0; 1 + 2 * ROOM as usize];
        let zeros = work.target().zeros_of_last_word();
        let step = failed("the device fails");
        // SAFETY: each buffer was made for at least as many words as are written to it or read from it, and the
        // calls block, so that the slices outlive them. The kernel gets the arguments that it declares, in their
        // order and of their types, and writes only to `found`, within the room that it is given.
        unsafe {
            self.queue.enqueue_write_buffer(&mut self.header, CL_BLOCKING, 0, &header, &[]).map_err(&step)?;
            self.queue
                .enqueue_write_buffer(&mut self.midstates, CL_BLOCKING, 0, &midstates, &[])
                .map_err(&step)?;
            self.queue.enqueue_write_buffer(&mut self.found, CL_BLOCKING, 0, &zero, &[]).map_err(&step)?;
            for first_version in (0..versions).step_by(together as usize) {
                ExecuteKernel::new(kernel)
                    .set_arg(&self.header)
                    .set_arg(&self.midstates)
                    .set_arg(&zeros)
                    .set_arg(&range.first())
                    .set_arg(&first_version)
                    .set_arg(&ROOM)
                    .set_arg(&1_u32)
                    .set_arg(&(1_u32 << 13))
                    .set_arg(&(1_u32 << 14))
                    .set_arg(&(1_u32 << 22))
                    .set_arg(&(1_u32 << 29))
                    .set_arg(&self.found)
                    .set_global_work_size(items as usize)
                    .set_local_work_size(self.shape.group as usize)
                    .enqueue_nd_range(&self.queue)
                    .map_err(&step)?;
            }
            self.queue
                .enqueue_read_buffer(&self.found, CL_BLOCKING, 0, &mut candidates, &[])
                .map_err(&step)?;
        }
        let count = candidates[0];
        if count > ROOM {
            crate::auto().scan_versions(work, range, found);
            return Ok(crate::kernel::hashes(work, range));
        }
        for pair in candidates[1..][..2 * count as usize].chunks_exact(2) {
            // The last group may extend past the range, and even past the last nonce of all.
            let candidate = Found { nonce: pair[0], version: pair[1] as u8 };
            if u64::from(candidate.nonce.wrapping_sub(range.first())) < range.count() && pair[1] < versions {
                search::judge_one(work, candidate, found);
            }
        }
        found[found_before..].sort_unstable();
        // Past the last nonce of all, the last group starts again with the first.
        found.dedup();
        Ok(crate::kernel::hashes(work, range))
    }
}

/// The kernel's arguments for a work: its `header` and its `midstates`.
fn words(work: &Work) -> ([u32; 4], Vec<u32>) {
    let midstates =
        work.midstates().flat_map(|midstate| [midstate.before_nonce_by_name(), midstate.midstate].concat());
    (work.tail().expanded(), midstates.collect())
}

/// Tries each shape for a fraction of a second, then the fastest one with multiplications. Returns the fastest of all,
/// with its hashes per second for a work of `versions` versions. Takes seconds: each shape is built.
///
/// # Errors
/// The device can run none of the shapes.
pub fn tune(device: &OpenClDevice, versions: usize) -> Result<(Shape, f64), OpenClError> {
    let numbers: Vec<u32> = (0..versions as u32).collect();
    let work = Work::with_versions(&[0x5a; 80], &numbers, Target::from_le_bytes([0; 32]));
    let trial = |shape: Shape| {
        let with_single = !versions.is_multiple_of(shape.versions as usize);
        Scanner::built(device, shape, with_single)?.rate(&work).map(|rate| (shape, rate))
    };
    let mut best = Err(OpenClError("no shape to try".to_owned()));
    for &shape in Shape::candidates(device.is_cpu) {
        best = faster(best, trial(shape));
    }
    if let (false, Ok((shape, _))) = (device.is_cpu, &best) {
        let shape = *shape;
        for multiply in 1..=Shape::MOST_MULTIPLIED {
            best = faster(best, trial(Shape { multiply, ..shape }));
        }
    }
    best
}

/// The faster of two trials. A device may fail with one shape and run another.
fn faster(
    one: Result<(Shape, f64), OpenClError>,
    other: Result<(Shape, f64), OpenClError>,
) -> Result<(Shape, f64), OpenClError> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(if other.1 > one.1 { other } else { one }),
        (Err(_), other) => other,
        (one, Err(_)) => one,
    }
}

impl Scanner {
    /// Measures hashes per second. The range grows until a launch takes long enough to be measured. The best of several
    /// launches counts, since other load on the machine only makes one slower.
    fn rate(&mut self, work: &Work) -> Result<f64, OpenClError> {
        const ENOUGH: Duration = Duration::from_millis(50);
        let mut count = 1 << 12;
        loop {
            let range = NonceRange::new(0, count).expect("from 0 there are 2^32 nonces");
            let started = Instant::now();
            let hashes = self.scan(work, range, &mut Vec::new())?;
            let took = started.elapsed();
            if took >= ENOUGH || count == 1 << 32 {
                let mut shortest = took;
                for _ in 0..4 {
                    let started = Instant::now();
                    self.scan(work, range, &mut Vec::new())?;
                    shortest = shortest.min(started.elapsed());
                }
                return Ok(hashes as f64 / shortest.as_secs_f64());
            }
            count *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SOURCE;

    /// In C99, and so in OpenCL C, `inline` alone defines nothing that can be linked. The CPU's driver inlines and
    /// does not notice, but compilers for AMD and NVIDIA leave calls to an undefined function.
    #[test]
    fn the_kernel_has_no_function_that_is_defined_nowhere() {
        assert!(SOURCE.contains("static inline word nonce_words("));
        assert!(SOURCE.lines().all(|line| !line.starts_with("inline")), "`static inline` expected");
    }
}
