//! The kernel that `--kernel auto` selects: the fastest in a short measurement, cached per CPU model.
//!
//! Here: the cache file and when it is valid. Not here: the kernels, and the measurements of the `bench` command
//! (`bench`). Path: cache file → if written by this version for these kernels, its fastest; otherwise each kernel runs
//! `TRIALS` trials, and the rates are stored. A cache that cannot be read or written costs only a measurement.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;
use std::{env, fs, io, process};

use iop_kernels::{HEADER_LEN, Kernel, NonceRange, Target, Work, cpu_model, supported};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::dispatcher::VERSIONS;

/// Trials of each kernel, alternating with the others: one chunk each, so short that even on a busy machine some are
/// not interrupted. The shortest one counts.
const TRIALS: u32 = 16;

/// The kernel to mine with.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    /// The fastest kernel.
    Auto,
    /// This one.
    Named(&'static dyn Kernel),
}

impl Choice {
    /// Returns the kernel; measures if needed.
    #[must_use]
    pub fn kernel(self) -> &'static dyn Kernel {
        match self {
            Self::Auto => auto(),
            Self::Named(kernel) => kernel,
        }
    }
}

/// Contents of the cache file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    cpu: String,
    version: String,
    /// Hashes per second and thread for each kernel that the CPU can run.
    rates: BTreeMap<String, f64>,
}

impl Measured {
    fn now() -> Self {
        let versions: Vec<u32> = (0..VERSIONS).collect();
        let work = Work::with_versions(&[0x5a; HEADER_LEN], &versions, Target::from_le_bytes([0; 32]));
        let mut rates: BTreeMap<String, f64> = BTreeMap::new();
        for kernel in (0..TRIALS).flat_map(|_| supported()) {
            let nonces = NonceRange::new(0, kernel.nonces(&work)).expect("from 0 there are 2^32 nonces");
            let started = Instant::now();
            let hashes = kernel.scan_versions(&work, nonces, &mut Vec::new());
            let rate = hashes as f64 / started.elapsed().as_secs_f64().max(1e-9);
            let best = rates.entry(kernel.name().to_owned()).or_default();
            *best = best.max(rate);
        }
        Self { cpu: cpu_model(), version: env!("CARGO_PKG_VERSION").to_owned(), rates }
    }

    /// The fastest kernel; `None` unless the file is for this version, this CPU and its kernels.
    fn fastest(&self) -> Option<&'static dyn Kernel> {
        let names: Vec<&str> = self.rates.keys().map(String::as_str).collect();
        let mut expected: Vec<&str> = supported().map(|kernel| kernel.name()).collect();
        expected.sort_unstable();
        if self.version != env!("CARGO_PKG_VERSION") || self.cpu != cpu_model() || names != expected {
            return None;
        }
        supported().max_by(|a, b| self.rates[a.name()].total_cmp(&self.rates[b.name()]))
    }
}

/// The kernel that `auto` selects, determined once per run of the program.
#[must_use]
pub fn auto() -> &'static dyn Kernel {
    static AUTO: OnceLock<&'static dyn Kernel> = OnceLock::new();
    *AUTO.get_or_init(|| choose(cache_folder().as_deref()))
}

fn choose(folder: Option<&Path>) -> &'static dyn Kernel {
    let file = folder.map(|folder| folder.join(file_name(&format!("kernels-{}", cpu_model()))));
    if let Some(kernel) = file.as_deref().and_then(|file| read(file)?.fastest()) {
        return kernel;
    }
    let measured = Measured::now();
    debug!("kernels measured: {:?}", measured.rates);
    if let Some(file) = file
        && let Err(error) = write(&file, &measured)
    {
        debug!("{}: the measurement is not kept: {error}", file.display());
    }
    measured.fastest().unwrap_or_else(iop_kernels::auto)
}

/// The user's cache folder: `$XDG_CACHE_HOME`, or `.cache` in the home folder.
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(base?.join("iop-miner"))
}

/// Reads a cached value; `None` if there is none or it cannot be read.
#[cfg(feature = "opencl")]
pub(crate) fn cached<T: for<'a> Deserialize<'a>>(name: &str) -> Option<T> {
    serde_json::from_slice(&fs::read(cache_folder()?.join(file_name(name))).ok()?).ok()
}

/// Caches a value. If it cannot be written, it only has to be determined again.
#[cfg(feature = "opencl")]
pub(crate) fn keep(name: &str, what: &impl Serialize) {
    if let Some(file) = cache_folder().map(|folder| folder.join(file_name(name)))
        && let Err(error) = write(&file, what)
    {
        debug!("{}: not kept: {error}", file.display());
    }
}

/// Makes a file name of letters, digits and dashes.
fn file_name(name: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    format!("{}.json", name.chars().map(plain).take(100).collect::<String>())
}

fn read(file: &Path) -> Option<Measured> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Writes atomically: another miner may read the file at the same time.
fn write(file: &Path, measured: &impl Serialize) -> io::Result<()> {
    fs::create_dir_all(file.parent().expect("a file in the cache folder has a parent"))?;
    let unfinished = file.with_extension(format!("{}.tmp", process::id()));
    let written = fs::write(&unfinished, serde_json::to_vec_pretty(measured)?);
    let done = written.and_then(|()| fs::rename(&unfinished, file));
    if done.is_err() {
        // An incomplete file is of no use.
        let _ = fs::remove_file(&unfinished);
    }
    done
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("iop-miner-choice-{}-{name}", process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    /// A measurement with this kernel as the fastest.
    fn best(name: &str) -> Measured {
        let rate = |kernel: &'static dyn Kernel| if kernel.name() == name { 2.0 } else { 1.0 };
        let rates = supported().map(|kernel| (kernel.name().to_owned(), rate(kernel))).collect();
        Measured { cpu: cpu_model(), version: env!("CARGO_PKG_VERSION").to_owned(), rates }
    }

    #[test]
    fn a_measurement_is_kept_and_believed() {
        let folder = folder("kept");
        let chosen = choose(Some(&folder));
        let file = folder.join(file_name(&format!("kernels-{}", cpu_model())));
        assert_eq!(read(&file).unwrap().fastest().unwrap().name(), chosen.name());
        for kernel in supported() {
            write(&file, &best(kernel.name())).unwrap();
            assert_eq!(choose(Some(&folder)).name(), kernel.name());
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_for_something_else_or_broken_is_measured_anew() {
        let folder = folder("anew");
        let file = folder.join(file_name(&format!("kernels-{}", cpu_model())));
        let other_cpu = Measured { cpu: "abacus".to_owned(), ..best("scalar") };
        let other_version = Measured { version: "0".to_owned(), ..best("scalar") };
        let mut fewer = best("scalar");
        fewer.rates.pop_first();
        for measured in [other_cpu, other_version, fewer] {
            assert!(measured.fastest().is_none());
            write(&file, &measured).unwrap();
            choose(Some(&folder));
            assert!(read(&file).unwrap().fastest().is_some(), "written anew");
        }
        fs::write(&file, "{").unwrap();
        choose(Some(&folder));
        assert!(read(&file).unwrap().fastest().is_some(), "written anew");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn without_a_place_to_write_it_chooses_all_the_same() {
        let folder = folder("file");
        fs::write(&folder, "in the way").unwrap();
        assert!(choose(Some(&folder.join("below"))).is_supported());
        assert!(choose(None).is_supported());
        fs::remove_file(folder).unwrap();
    }

    #[test]
    fn a_file_name_is_plain() {
        assert_eq!(file_name("A/../B (C) 9"), "A----B--C--9.json");
        assert!(file_name(&"x".repeat(10_000)).len() < 200);
    }
}
