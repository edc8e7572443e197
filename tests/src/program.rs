//! A running program with its log; stopped when dropped.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use crate::port::free_port;

/// How long a program may take to stop when asked to.
const STOP: Duration = Duration::from_secs(10);
/// Interval between two checks while waiting.
pub const TICK: Duration = Duration::from_millis(20);

/// The folder of the programs: that of the running test or demo, or its parent.
///
/// # Panics
/// When `iop-node` is in neither: the programs were not built.
pub fn programs() -> PathBuf {
    let own = std::env::current_exe().expect("the system knows the running program");
    let found = own.ancestors().skip(1).take(2).find(|dir| dir.join("iop-node").is_file());
    found.expect("the programs are built: cargo build --release --bins").to_owned()
}

/// Waits until `check` returns a value, up to `limit`.
pub fn wait_for<T>(limit: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = check() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(TICK);
    }
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a program; both its output streams are appended to `NAME.log` in `dir`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn start<S: AsRef<OsStr>>(
        name: &'static str,
        dir: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> io::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(programs().join(name))
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C in a terminal is handled by the owner, which then stops everything in order.
            .process_group(0)
            .spawn()?;
        Ok(Self { name, child, log })
    }

    /// All it has logged so far.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        // A log that cannot be read shows as empty, and a test that needs it then fails.
        let _ = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to stop (SIGTERM), and kills it if it does not.
    ///
    /// # Panics
    /// When it had to be killed.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        let name = self.name;
        let status = wait_for(STOP, || self.child.try_wait().ok().flatten());
        status.unwrap_or_else(|| panic!("{name} did not stop within {} s of SIGTERM", STOP.as_secs()))
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it still runs after this long.
    pub fn wait(mut self, limit: Duration) -> ExitStatus {
        let status = wait_for(limit, || self.child.try_wait().ok().flatten());
        status.unwrap_or_else(|| panic!("{} still runs after {limit:?}:\n{}", self.name, self.log()))
    }

    /// Kills the programs of this name that it has started (SIGKILL).
    pub fn kill_children(&self, name: &str) {
        let parent = self.child.id().to_string();
        let _ = Command::new("pkill").args(["-KILL", "-P", &parent, "-x", name]).status();
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let status = self.child.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(9), "{} had ended by itself", self.name);
    }

    fn terminate(&mut self) {
        // std only offers SIGKILL; every system with a shell has kill(1).
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.is_running() {
            self.terminate();
            if wait_for(STOP, || self.child.try_wait().ok().flatten()).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// Runs a program to its end; returns exit status and both streams.
///
/// # Panics
/// When it cannot be started.
pub fn run<S: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = S>) -> (Option<i32>, String, String) {
    run_into(Stdio::piped(), name, args)
}

/// Runs a program to its end with a stdout that cannot be written, as on a full disk; returns exit status and stderr.
///
/// # Panics
/// When it cannot be started, or the system has no `/dev/full`.
pub fn run_into_full<S: AsRef<OsStr>>(
    name: &str,
    args: impl IntoIterator<Item = S>,
) -> (Option<i32>, String) {
    let full = File::options().write(true).open("/dev/full").expect("the system has /dev/full");
    let (status, _, said) = run_into(full.into(), name, args);
    (status, said)
}

/// Runs a program to its end; returns exit status, its stdout if that is [`Stdio::piped`], and stderr.
///
/// # Panics
/// When it cannot be started.
pub fn run_into<S: AsRef<OsStr>>(
    stdout: Stdio,
    name: &str,
    args: impl IntoIterator<Item = S>,
) -> (Option<i32>, String, String) {
    let output = Command::new(programs().join(name))
        .args(args)
        .stdin(Stdio::null())
        .stdout(stdout)
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}
