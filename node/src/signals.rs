//! Signals that stop the node: Ctrl-C, SIGTERM, and SIGHUP when the terminal is closed.
//!
//! Handlers are installed before stored blocks are connected at the start: a signal then ends that at the next block,
//! and what was connected is written. Before, while the database is opened, there is nothing to save, and signals
//! end the process as usual. SIGHUP stays ignored if the node was started that way, as by `nohup`.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// The installed signal handlers.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Installs the handlers. Must be called within the runtime.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub(crate) fn new() -> Result<Self, Failure> {
        // Read before a handler is installed. Without this file, the signal is handled.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hear = |kind| {
            signal(kind).map_err(|error| Failure::Failed(format!("signals cannot be received: {error}")))
        };
        let hangup = SignalKind::hangup();
        Ok(Self {
            interrupt: hear(SignalKind::interrupt())?,
            terminate: hear(SignalKind::terminate())?,
            hangup: (!is_ignored(&status, hangup)).then(|| hear(hangup)).transpose()?,
        })
    }

    /// Waits for one of the signals.
    pub(crate) async fn end(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether the program was started with a signal ignored, according to Linux's process status.
fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_has_ignored_is_not_heard() {
        let ignored = |mask: &str| {
            is_ignored(&format!("Name:\tiop-node\nSigIgn:\t{mask}\nSigCgt:\t0\n"), SignalKind::hangup())
        };
        assert!(ignored("0000000000001001"));
        assert!(!ignored("0000000000001000"), "SIGPIPE is Rust's");
        assert!(!is_ignored("no such line", SignalKind::hangup()));
    }
}
