//! Code shared by the benches of servers under load: programs on a core of their own, figures, and baselines.
//!
//! Lives here: starting on a core, CPU time and memory ([`process`]); percentiles, medians and the table ([`report`]);
//! two programs to compare servers with, one that only writes ([`sender`]) and one that only answers ([`echo`]), each
//! another process of this bench ([`Baseline`]). Does not live here: the loads, which are specific to each bench.

#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod echo;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod sender;

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use clap::ValueEnum;

/// A program to hold a server against. It prints the port on loopback that it listens on.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Baseline {
    /// Writes one line to many sockets
    Sender,
    /// Answers every line
    Echo,
}

impl Baseline {
    /// Runs the program until its owner ends it.
    pub(crate) fn run(self) -> io::Result<()> {
        match self {
            Self::Sender => sender::run(),
            Self::Echo => echo::run(),
        }
    }

    /// Starts this bench again as the program, on a core; its command line has the subcommand `baseline` for that.
    pub(crate) fn start(self, cpu: Option<u32>) -> io::Result<Running> {
        let own = std::env::current_exe()?;
        let name = self.to_possible_value().expect("none is skipped");
        let mut command = Command::new(own);
        command.args(["baseline", name.get_name()]).stdout(Stdio::piped());
        let mut running = Running { child: process::pinned(cpu, || command.spawn())?, port: 0 };
        let mut port = String::new();
        BufReader::new(running.child.stdout.take().expect("it is piped")).read_line(&mut port)?;
        let port = port.trim().parse();
        running.port = port.map_err(|_| io::Error::other("the baseline's program gave no port"))?;
        Ok(running)
    }
}

/// A baseline's process; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    port: u16,
}

impl Running {
    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
