//! Device names.

use std::fmt;
use std::io;
use std::str::FromStr;

use super::{Cpu, Device, Tuning};
use iop_kernels::Kernel;

/// A device name, as in `--devices`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// `cpu`: worker threads.
    Cpu,
    /// `opencl:P.N`: device N of OpenCL platform P, both counted from 0.
    OpenCl(usize, usize),
}

impl FromStr for DeviceName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        if name == "cpu" {
            return Ok(Self::Cpu);
        }
        let place = name.strip_prefix("opencl:").and_then(|place| place.split_once('.'));
        let number = |digits: &str| digits.parse::<u16>().map(usize::from).map_err(drop);
        let (platform, device) = place.ok_or(())?;
        Ok(Self::OpenCl(number(platform)?, number(device)?))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::OpenCl(platform, device) => write!(f, "opencl:{platform}.{device}"),
        }
    }
}

/// Opens the device of that name. Kernel, threads and tuning are for the CPU.
///
/// # Errors
/// OpenCL is requested and this program was built without it.
pub fn open(
    name: DeviceName,
    kernel: &'static dyn Kernel,
    threads: usize,
    tuning: Tuning,
) -> io::Result<Box<dyn Device>> {
    match name {
        DeviceName::Cpu => Ok(Box::new(Cpu::placed(kernel, threads, tuning))),
        #[cfg(feature = "opencl")]
        DeviceName::OpenCl(platform, number) => Ok(Box::new(super::OpenCl::new(platform, number))),
        #[cfg(not(feature = "opencl"))]
        DeviceName::OpenCl(..) => {
            Err(io::Error::other(format!("{name}: this program was built without OpenCL")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["cpu", "opencl:0.0", "opencl:2.13"] {
            assert_eq!(name.parse::<DeviceName>().map(|read| read.to_string()), Ok(name.to_owned()));
        }
        for name in ["", "gpu", "opencl", "opencl:", "opencl:0", "opencl:a.0", "opencl:0.0.0", "opencl:-1.0"]
        {
            assert_eq!(name.parse::<DeviceName>(), Err(()), "{name}");
        }
    }
}
