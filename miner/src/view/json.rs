//! `--json`: the status on stdout, for programs: an object in a line every ten seconds, and one at the end.
//!
//! It has a thread of its own, so that a reader that takes nothing holds up no share. A pipe that its reader has
//! closed ends the miner, as does a disk that is full.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::{End, Rig};
use crate::stats::rate::Rates;
use crate::stats::{DeviceSnapshot, Health, Snapshot, Stats};
use crate::upstream::Board;
use crate::upstream::board::{Condition, Source};
use crate::view::figures::{luck, time_to_block};

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
        let line = format!("{}\n", status(&self.stats.snapshot(), &self.board.sources()));
        let mut stdout = io::stdout().lock();
        stdout.write_all(line.as_bytes())?;
        stdout.flush()
    }
}

fn status(stats: &Snapshot, sources: &[Source]) -> Value {
    let Snapshot { counts, rates, .. } = stats;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": stats.elapsed.as_secs_f64(),
        "hashes": stats.hashes,
        "hash_rate": rates_of(rates),
        "accepted": counts.accepted,
        "accepted_work": counts.work,
        "rejected": counts.refused(),
        "rejected_reasons": counts.rejected,
        "stale": counts.stale,
        "hardware_errors": counts.hardware_errors,
        "best": stats.best,
        "luck": luck(stats),
        "time_to_block": time_to_block(stats, sources).map(|time| time.as_secs_f64()),
        "devices": stats.devices.iter().map(device).collect::<Vec<_>>(),
        "sources": sources.iter().map(source).collect::<Vec<_>>(),
    })
}

fn rates_of(rates: &Rates) -> Value {
    json!({
        "10s": rates.ten_seconds.0,
        "1min": rates.minute.0,
        "15min": rates.quarter.0,
        "average": rates.average.0,
    })
}

fn device(device: &DeviceSnapshot) -> Value {
    let counts = &device.counts;
    let (state, why) = match &device.health {
        Health::Working => ("working", None),
        Health::Failed(why) => ("failed", Some(why)),
        Health::Gone => ("gone", None),
    };
    json!({
        "name": device.name,
        "uptime": device.elapsed.as_secs_f64(),
        "state": state,
        "why": why,
        "hashes": device.hashes,
        "hash_rate": rates_of(&device.rates),
        "accepted": counts.accepted,
        "accepted_work": counts.work,
        "rejected": counts.refused(),
        "rejected_reasons": counts.rejected,
        "stale": counts.stale,
        "hardware_errors": counts.hardware_errors,
        "best": device.best,
        "temperature": device.temperature,
    })
}

fn source(source: &Source) -> Value {
    let (state, why) = match &source.condition {
        Condition::Unused => ("unused", None),
        Condition::Connecting => ("connecting", None),
        Condition::Working => ("working", None),
        Condition::Waiting(why) => ("waiting", Some(why)),
        Condition::Away(why) => ("away", Some(why)),
    };
    json!({
        "url": source.url,
        "user": source.user,
        "state": state,
        "why": why,
        "since": source.since.map(|at| at.elapsed().as_secs_f64()),
        "difficulty": source.difficulty,
        "height": source.job.as_ref().and_then(|job| job.height),
        "network_difficulty": source.job.as_ref().map(|job| job.network_difficulty),
        "jobs": source.jobs,
        "accepted": source.accepted,
        "rejected": source.rejected,
        "stale": source.stale,
        "blocks": source.blocks,
        "answer": source.answer.map(|answer| answer.as_secs_f64()),
        "message": source.message,
    })
}
