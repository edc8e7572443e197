//! `iop-miner devices`: lists the devices of this machine.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use iop_kernels::cpu_model;
use serde::Serialize;

use crate::bench::many;
use crate::choice;
use crate::device::{Machine, Tuning, temperature};

/// An entry of the list.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its name, as in `--devices`.
    pub device: String,
    /// The vendor's model name.
    pub model: String,
    /// Number of threads that `mine` would use.
    pub threads: usize,
    /// The kernels it can run, usually fastest first.
    pub kernels: Vec<&'static str>,
    /// The kernel that `--kernel auto` chooses.
    pub auto: &'static str,
    /// Details of a CPU, if known.
    #[serde(flatten)]
    pub cpu: Option<Inside>,
}

/// A CPU, as far as this process may use it.
#[derive(Clone, Debug, Serialize)]
pub struct Inside {
    /// Physical cores.
    pub cores: usize,
    /// Hardware threads: what the operating system calls a CPU.
    pub cpus: usize,
    /// NUMA nodes.
    pub numa_nodes: usize,
    /// The CPU that each thread would be bound to, in order; empty if threads are not bound.
    pub pinned_to: Vec<usize>,
    /// Degrees Celsius, if the platform reports it.
    pub temperature: Option<f32>,
}

impl Inside {
    fn of(machine: &Machine) -> Option<Self> {
        let topology = machine.topology.as_ref()?;
        let seats = machine.seats(machine.threads(0), &Tuning::default());
        Some(Self {
            cores: topology.cores(),
            cpus: topology.cpus(),
            numa_nodes: topology.nodes(),
            pinned_to: seats.into_iter().flatten().flat_map(|seat| seat.0).collect(),
            temperature: temperature::read(Path::new("/sys")),
        })
    }
}

/// `2 cores, 4 hardware threads, 1 NUMA node, 54 °C; threads on CPU 0 2 1 3`.
impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, cpus, numa_nodes, pinned_to, temperature } = self;
        write!(f, "{}, {}", many(*cores, "physical core"), many(*cpus, "hardware thread"))?;
        write!(f, ", {}", many(*numa_nodes, "NUMA node"))?;
        match temperature {
            Some(celsius) => write!(f, ", {celsius:.0} °C")?,
            None => f.write_str(", no temperature")?,
        }
        if pinned_to.is_empty() {
            return f.write_str("; threads are not pinned: a quota limits this process");
        }
        let cpus: Vec<String> = pinned_to.iter().map(ToString::to_string).collect();
        write!(f, "; threads pinned to CPU {}", cpus.join(" "))
    }
}

/// The devices of this machine, and advice if there is none for OpenCL.
#[must_use]
pub fn list() -> (Vec<Listed>, Option<String>) {
    let machine = Machine::here();
    let kernels = iop_kernels::supported().map(|kernel| kernel.name()).collect();
    let (device, model, auto) = ("cpu".to_owned(), cpu_model(), choice::auto().name());
    let (threads, cpu) = (machine.threads(0), Inside::of(&machine));
    let mut devices = vec![Listed { device, model, threads, kernels, auto, cpu }];
    let missing = add_opencl(&mut devices);
    (devices, missing)
}

#[cfg(feature = "opencl")]
fn add_opencl(devices: &mut Vec<Listed>) -> Option<String> {
    use crate::device::{DeviceName, no_driver};

    let found = match iop_kernels::opencl::list() {
        Ok(found) if found.is_empty() => return Some(no_driver("the OpenCL drivers find no device")),
        Ok(found) => found,
        // A machine without OpenCL is not an error.
        Err(error) => return Some(no_driver(&error.to_string())),
    };
    devices.extend(found.into_iter().map(|one| Listed {
        device: DeviceName::OpenCl(one.platform, one.number).to_string(),
        model: one.name,
        threads: 1,
        kernels: vec!["opencl"],
        auto: "opencl",
        cpu: None,
    }));
    None
}

#[cfg(not(feature = "opencl"))]
fn add_opencl(_: &mut Vec<Listed>) -> Option<String> {
    Some("this program was built without OpenCL".to_owned())
}

/// Writes the devices to `out`: a table or, for scripts, one JSON object per device, a line each.
///
/// # Errors
/// `out` cannot be written to.
pub fn run(json: bool, out: &mut impl Write) -> io::Result<()> {
    let (devices, missing) = list();
    if json {
        return devices.iter().try_for_each(|listed| writeln!(out, "{}", serde_json::to_string(listed)?));
    }
    writeln!(out, "{:<12}{:>8}  {:<10}  {:<41}  model", "device", "threads", "auto", "all kernels")?;
    for listed in devices {
        let Listed { device, model, threads, kernels, auto, cpu } = listed;
        writeln!(out, "{device:<12}{threads:>8}  {auto:<10}  {:<41}  {model}", kernels.join(" "))?;
        if let Some(cpu) = cpu {
            writeln!(out, "{:<12}{cpu}", "")?;
        }
    }
    missing.map_or(Ok(()), |missing| writeln!(out, "opencl      {missing}"))
}
