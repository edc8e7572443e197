//! Signals that ask the program to end: Ctrl-C, SIGTERM and SIGHUP (the terminal is closed).
//!
//! Here: which of them count, and what they come to: the first ends the miner in order, one more ends the process. They
//! have a thread of their own, so that they are heard whatever the end waits for, as a driver that compiles.
//! Not here: how the miner ends ([`crate::rig`]).

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Since when the miner ends, whatever ended it.
static ENDING: OnceLock<Instant> = OnceLock::new();

/// Whether there is something to be ended in order.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// The miner ends: a signal from now on is one more.
pub(crate) fn ending() {
    ENDING.get_or_init(Instant::now);
}

/// Listens from now on, and gives a future that waits for a signal to end. Before it is waited for, as while devices are
/// measured, nothing is to be ended in order, and a signal ends the process at once. `give_back` is called before that, and
/// before one more signal does so.
///
/// # Errors
/// When the operating system gives no signal handler or no thread.
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

/// Listens from now on, and gives a future that waits for Ctrl-C.
///
/// # Errors
/// None here; the future's are of the operating system.
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

    /// Within this time a second signal is the first once more: `timeout` and shells send one to the program and then to
    /// all of its group.
    const SAME: Duration = Duration::from_millis(500);

    /// What a signal comes to.
    #[derive(Debug, PartialEq, Eq)]
    enum Effect {
        End,
        Nothing,
        /// With this exit status.
        EndAtOnce(i32),
    }

    /// Hears signals for as long as the process lives.
    pub(super) fn listen(asked: oneshot::Sender<()>, give_back: fn()) -> io::Result<()> {
        // Before there is a handler. Where there is no such file, they are all heard.
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut signals = Signals::new(heard(ignored(&status)))?;
        let mut asked = Some(asked);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                match effect(signal, BEGUN.load(Ordering::Relaxed), ENDING.get().map(Instant::elapsed)) {
                    Effect::End => {
                        info!("{}", words(signal));
                        ending();
                        // Gone where the miner ends for another reason at this very moment.
                        let _ = asked.take().map(|asked| asked.send(()));
                    }
                    Effect::Nothing => {}
                    Effect::EndAtOnce(status) => {
                        give_back();
                        log::save_whole();
                        // Without what drivers want to do at the end: they may be what hangs.
                        low_level::exit(status);
                    }
                }
            }
        })?;
        Ok(())
    }

    /// The signals that this program was started to ignore, as bits, from Linux's status of a process.
    fn ignored(status: &str) -> u64 {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
    }

    /// What is listened for: `nohup` has SIGHUP ignored, and a shell without job control has SIGINT ignored in what it
    /// starts in the background. SIGTERM is always meant.
    fn heard(ignored: u64) -> Vec<i32> {
        let is_heard = |signal: &i32| *signal == SIGTERM || ignored >> (signal - 1) & 1 == 0;
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(is_heard).collect()
    }

    /// A signal, when the miner has begun or not, and has been ending for so long.
    fn effect(signal: i32, begun: bool, ending: Option<Duration>) -> Effect {
        match ending {
            None if !begun => Effect::EndAtOnce(0),
            None => Effect::End,
            // The terminal and the shell both send it, whenever they come to it.
            Some(_) if signal == SIGHUP => Effect::Nothing,
            Some(since) if since < SAME => Effect::Nothing,
            Some(_) => Effect::EndAtOnce(128 + signal), // as shells tell a signal's end
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
