//! `iop-miner devices`: what this machine can hash with.

use std::io::{self, Write};
use std::thread;

use serde::Serialize;

/// A device, as `--devices` names it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub device: &'static str,
    /// The threads that `mine` would use.
    pub threads: usize,
    /// The kernels it can run, fastest first.
    pub kernels: Vec<&'static str>,
    /// The kernel that `--kernel auto` chooses.
    pub auto: &'static str,
}

/// How many threads this machine runs at once; 1 where it does not say.
#[must_use]
pub fn cpu_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The devices of this machine.
#[must_use]
pub fn list() -> Vec<Listed> {
    let kernels = iop_kernels::supported().map(|kernel| kernel.name()).collect();
    vec![Listed { device: "cpu", threads: cpu_threads(), kernels, auto: iop_kernels::auto().name() }]
}

/// Writes the devices to `out`: a table or, for scripts, one JSON object per device, a line each.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(json: bool, out: &mut impl Write) -> io::Result<()> {
    if !json {
        writeln!(out, "{:<10}{:>8}  {:<10}all kernels", "device", "threads", "auto")?;
    }
    for listed in list() {
        if json {
            writeln!(out, "{}", serde_json::to_string(&listed)?)?;
        } else {
            let Listed { device, threads, kernels, auto } = listed;
            writeln!(out, "{device:<10}{threads:>8}  {auto:<10}{}", kernels.join(" "))?;
        }
    }
    Ok(())
}
