//! Signals that ask the node to end: Ctrl-C, SIGTERM, and SIGHUP when the terminal is closed.
//!
//! They are heard before the node says that it has started: what waits in the mempool is saved whenever one comes after
//! that. Before, while the chain is loaded, there is nothing to save, and they end the process as they do any other.
//! SIGHUP is left alone where the node was started to ignore it, as `nohup` does.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// The signals, heard since this was made.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Hears them from now on. Called on the runtime.
    ///
    /// # Errors
    /// When the system gives no handler.
    pub(crate) fn new() -> Result<Self, Failure> {
        // Before there is a handler. Where there is no such file, it is heard.
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

    /// Waits for one of them.
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

/// Whether the program was started to ignore a signal, by Linux's status of a process.
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
