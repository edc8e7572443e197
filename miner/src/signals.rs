//! Signals that ask the program to end: Ctrl-C, SIGTERM and SIGHUP (the terminal is closed).
//!
//! Here: which signals are handled, and their effect: the first ends the miner in order, another one ends the process.
//! They have their own thread, so that they are handled whatever delays the end, such as a compiling driver.
//! Not here: how the miner ends ([`crate::rig`]).

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// When the miner began to end, for whatever reason.
static ENDING: OnceLock<Instant> = OnceLock::new();

/// Whether the miner has started, so that it must be ended in order.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Records that the miner ends: any further signal counts as another one.
pub(crate) fn ending() {
    ENDING.get_or_init(Instant::now);
}

/// Starts to handle signals, and returns a future that waits for one. Before it is polled, for example while devices
/// are measured, there is nothing to end in order, and a signal ends the process at once. `give_back` is called before
/// any immediate exit.
///
/// # Errors
/// The operating system provides no signal handler or no thread.
#[cfg(unix)]
pub(crate) fn asked_to_end(give_back: fn()) -> io::Result<impl Future<Output = io::Result<()>>> {
    let (asked, heard) = tokio::sync::oneshot::channel();
    unix::listen(asked, give_back)?;
    Ok(async {
        BEGUN.store(true, Ordering::Relaxed);
        let _ = heard.await;
        Ok(())
    })
}

/// Returns a future that waits for Ctrl-C.
///
/// # Errors
/// None here; the future's errors are the operating system's.
#[cfg(not(unix))]
pub(crate) fn asked_to_end(_: fn()) -> io::Result<impl Future<Output = io::Result<()>>> {
    Ok(tokio::signal::ctrl_c())
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::io;
    use std::sync::atomic::Ordering;
    use std::thread;
    use std::time::{Duration, Instant};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level;
    use tokio::sync::oneshot;
    use tracing::info;

    use super::{BEGUN, ENDING, ending};
    use crate::log;

    /// Within this time a second signal counts as the first: `timeout` and shells signal the program and then its whole
    /// process group.
    const SAME: Duration = Duration::from_millis(500);

    /// The effect of a signal.
    #[derive(Debug, PartialEq, Eq)]
    enum Effect {
        End,
        Nothing,
        /// Exit at once, with this status.
        EndAtOnce(i32),
    }

    /// Handles signals for as long as the process lives.
    pub(super) fn listen(asked: oneshot::Sender<()>, give_back: fn()) -> io::Result<()> {
        // Read this before a handler is installed. If there is no such file, all signals are handled.
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut signals = Signals::new(heard(ignored(&status)))?;
        let mut asked = Some(asked);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                match effect(signal, BEGUN.load(Ordering::Relaxed), ENDING.get().map(Instant::elapsed)) {
                    Effect::End => {
                        info!("{}", words(signal));
                        ending();
                        // The receiver is gone if the miner is just ending for another reason.
                        let _ = asked.take().map(|asked| asked.send(()));
                    }
                    Effect::Nothing => {}
                    Effect::EndAtOnce(status) => {
                        give_back();
                        log::save_whole();
                        // Skip the exit handlers of drivers: they may be what hangs.
                        low_level::exit(status);
                    }
                }
            }
        })?;
        Ok(())
    }

    /// The signals that the process was started to ignore, as a bit mask, from Linux's process status.
    fn ignored(status: &str) -> u64 {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
    }

    /// The signals to handle: `nohup` makes a program ignore SIGHUP, and a shell without job control makes background
    /// programs ignore SIGINT. SIGTERM is always handled.
    fn heard(ignored: u64) -> Vec<i32> {
        let is_heard = |signal: &i32| *signal == SIGTERM || ignored >> (signal - 1) & 1 == 0;
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(is_heard).collect()
    }

    /// The effect of a signal, by whether the miner has begun and for how long it has been ending.
    fn effect(signal: i32, begun: bool, ending: Option<Duration>) -> Effect {
        match ending {
            None if !begun => Effect::EndAtOnce(0),
            None => Effect::End,
            // The terminal and the shell may both send it, at any time.
            Some(_) if signal == SIGHUP => Effect::Nothing,
            Some(since) if since < SAME => Effect::Nothing,
            Some(_) => Effect::EndAtOnce(128 + signal), // the status that shells use for a signal
        }
    }

    fn words(signal: i32) -> &'static str {
        match signal {
            SIGINT => "interrupted",
            SIGTERM => "asked to terminate",
            _ => "the terminal is gone",
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_was_ignored_at_the_start_is_not_listened_for_but_sigterm_is() {
            let status = |mask: &str| ignored(&format!("Name:\tiop-miner\nSigIgn:\t{mask}\nSigCgt:\t0\n"));
            assert_eq!(heard(status("0000000000001000")), [SIGINT, SIGTERM, SIGHUP], "SIGPIPE is Rust's");
            assert_eq!(heard(status("0000000000001001")), [SIGINT, SIGTERM], "nohup");
            assert_eq!(heard(status("0000000000001006")), [SIGTERM, SIGHUP], "in the background of a script");
            assert_eq!(heard(status("ffffffffffffffff")), [SIGTERM]);
            assert_eq!(heard(ignored("no such line")), [SIGINT, SIGTERM, SIGHUP]);
        }

        #[test]
        fn one_more_signal_ends_the_process_unless_it_is_the_first_once_more() {
            let later = Some(SAME);
            assert_eq!(effect(SIGINT, false, None), Effect::EndAtOnce(0), "there is nothing to end");
            assert_eq!(effect(SIGINT, true, None), Effect::End);
            assert_eq!(effect(SIGTERM, true, Some(Duration::ZERO)), Effect::Nothing);
            assert_eq!(
                [effect(SIGINT, true, later), effect(SIGTERM, true, later)],
                [Effect::EndAtOnce(130), Effect::EndAtOnce(143)]
            );
            assert_eq!(effect(SIGHUP, true, later), Effect::Nothing);
        }
    }
}
