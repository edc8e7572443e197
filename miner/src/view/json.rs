//! `--json`: the status on stdout, for programs: an object in a line every ten seconds, and one at the end.
//!
//! It has a thread of its own, so that a reader that takes nothing holds up no share. A pipe that its reader has
//! closed ends the miner, as does a disk that is full.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{End, Rig};
use crate::stats::Stats;
use crate::upstream::Board;
use crate::view::numbers::Numbers;

/// Between two lines.
const EVERY: Duration = Duration::from_secs(10);
/// How long a reader that takes nothing can hold up the miner's end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints the status of a rig for as long as it runs.
///
/// # Errors
/// When the operating system gives no thread.
pub(super) fn attach(rig: &mut Rig) -> io::Result<()> {
    let lines = Lines { stats: Arc::clone(&rig.stats), board: Arc::clone(&rig.board), end: rig.end() };
    let ((stop, stopped), (done, written)) = (channel::<()>(), channel());
    thread::Builder::new().name("json".to_owned()).spawn(move || {
        let mut next = Instant::now() + EVERY;
        while stopped.recv_timeout(next.saturating_duration_since(Instant::now()))
            == Err(RecvTimeoutError::Timeout)
        {
            next += EVERY;
            if let Err(error) = lines.write() {
                return lines.end.end(Err(error));
            }
        }
        // Nobody waits for it where the rig never ran.
        let _ = done.send(lines.write());
    })?;
    rig.at_end(move || {
        drop(stop);
        match written.recv_timeout(PATIENCE) {
            Ok(written) => written,
            // It has ended before, and said why.
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                let text = format!("nobody took the last line on stdout for {} s", PATIENCE.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    });
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
