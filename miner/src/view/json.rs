//! `--json`: the status on stdout, for programs: one object per line every ten seconds, and one at the end.
//!
//! It has its own thread, so that a blocked reader delays no share. A pipe that its reader has closed ends the miner,
//! as does a full disk.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{End, Rig};
use crate::stats::Stats;
use crate::upstream::Board;
use crate::view::numbers::Numbers;

/// Time between two lines.
const EVERY: Duration = Duration::from_secs(10);
/// How long a blocked reader may delay the miner's end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints the status of a rig while it runs.
///
/// # Errors
/// The operating system provides no thread.
pub(super) fn attach(rig: &mut Rig) -> io::Result<()> {
    let lines = Lines { stats: Arc::clone(&rig.stats), board: Arc::clone(&rig.board), end: rig.end() };
    let ((stop, stopped), (done, written)) = (channel::<()>(), channel());
    thread::Builder::new().name("json".to_owned()).spawn(move || {
        if let Err(error) = again_and_again(EVERY, &stopped, || lines.write()) {
            return lines.end.end(Err(error));
        }
        // The receiver is gone if the rig never ran.
        let _ = done.send(lines.write());
    })?;
    rig.at_end(move || {
        drop(stop);
        match written.recv_timeout(PATIENCE) {
            Ok(written) => written,
            // The thread has ended before, and reported why.
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                let text = format!("nobody took the last line on stdout for {} s", PATIENCE.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    });
    Ok(())
}

/// Writes a line `every` interval until it is stopped or fails. Lines missed during a pause, of the process or of its
/// reader, are skipped.
fn again_and_again(
    every: Duration,
    stopped: &Receiver<()>,
    mut write: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let mut next = Instant::now() + every;
    while stopped.recv_timeout(next.saturating_duration_since(Instant::now()))
        == Err(RecvTimeoutError::Timeout)
    {
        write()?;
        let now = Instant::now();
        next = if next + every > now { next + every } else { now + every };
    }
    Ok(())
}

struct Lines {
    stats: Arc<Stats>,
    board: Arc<Board>,
    end: End,
}

impl Lines {
    fn write(&self) -> io::Result<()> {
        let line =
            serde_json::to_string(&Numbers::new(&self.stats.snapshot(), &self.board.sources()))? + "\n";
        let mut stdout = io::stdout().lock();
        stdout.write_all(line.as_bytes())?;
        stdout.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_a_pause_has_cost_do_not_come_together_when_it_is_over() {
        let (every, (_stop, stopped)) = (Duration::from_millis(40), channel());
        let mut written: Vec<(Instant, Instant)> = Vec::new();
        let ended = again_and_again(every, &stopped, || {
            let begun = Instant::now();
            if written.is_empty() {
                thread::sleep(every * 5);
            }
            written.push((begun, Instant::now()));
            if written.len() == 3 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        });
        assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
        assert!(written[1].0 - written[0].1 >= every, "{written:?}");
    }
}
