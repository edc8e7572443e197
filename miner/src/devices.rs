//! `iop-miner devices`: what this machine can hash with.

use std::io::{self, Write};
use std::thread;

use iop_kernels::cpu_model;
use serde::Serialize;

use crate::choice;
#[cfg(feature = "opencl")]
use crate::device::DeviceName;

/// A device, as `--devices` names it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub device: String,
    /// What its maker calls it.
    pub model: String,
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
    let (device, model, auto) = ("cpu".to_owned(), cpu_model(), choice::auto().name());
    let mut devices = vec![Listed { device, model, threads: cpu_threads(), kernels, auto }];
    #[cfg(feature = "opencl")]
    match iop_kernels::opencl::list() {
        Ok(found) => devices.extend(found.into_iter().map(|one| Listed {
            device: DeviceName::OpenCl(one.platform, one.number).to_string(),
            model: one.name,
            threads: 1,
            kernels: vec!["opencl"],
            auto: "opencl",
        })),
        // A machine without OpenCL is no fault of anybody's.
        Err(error) => tracing::debug!("{error}"),
    }
    devices
}

/// Writes the devices to `out`: a table or, for scripts, one JSON object per device, a line each.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(json: bool, out: &mut impl Write) -> io::Result<()> {
    if !json {
        writeln!(out, "{:<12}{:>8}  {:<10}{:<36}model", "device", "threads", "auto", "all kernels")?;
    }
    for listed in list() {
        if json {
            writeln!(out, "{}", serde_json::to_string(&listed)?)?;
        } else {
            let Listed { device, model, threads, kernels, auto } = listed;
            writeln!(out, "{device:<12}{threads:>8}  {auto:<10}{:<36}{model}", kernels.join(" "))?;
        }
    }
    Ok(())
}
