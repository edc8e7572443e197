//! Progress of a long task: a bar on a terminal, otherwise occasional lines.
//!
//! Both go to stderr and show the share done, the height, blocks per second, and the time left, estimated from the
//! share done so far.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::note;

/// Time between two updates of the bar.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A task in progress.
pub(crate) struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    total: u64,
    started: Instant,
    shown: Instant,
    shown_blocks: u64,
    every: Duration,
}

impl Progress {
    /// A task that ends at `total`, in the unit used for [`Progress::at`].
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3} % {msg}");
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            bar.set_style(style.expect("the template is valid").progress_chars("=> "));
            bar.set_prefix(what);
            bar
        });
        let every = if bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        let now = Instant::now();
        Self { what, bar, total, started: now, shown: now, shown_blocks: 0, every }
    }

    /// Shows the progress if it is due: `done` of the total, `height`, and the blocks done so far.
    pub(crate) fn at(&mut self, done: u64, height: u32, blocks: u64) {
        let since = self.shown.elapsed();
        if since < self.every {
            return;
        }
        let rate = (blocks - self.shown_blocks) as f64 / since.as_secs_f64();
        (self.shown, self.shown_blocks) = (Instant::now(), blocks);
        let text = format!("height {height}, {rate:.0} blocks/s, {}", self.left(done));
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(text);
            }
            None => {
                let percent = 100.0 * done as f64 / self.total.max(1) as f64;
                note(&format!("{}: {percent:.0} %, {text}", self.what));
            }
        }
    }

    fn left(&self, done: u64) -> String {
        if done == 0 {
            return "time left not known".to_owned();
        }
        let spent = self.started.elapsed().as_secs_f64();
        let left = (spent * self.total.saturating_sub(done) as f64 / done as f64).round() as u64;
        match (left / 3_600, left / 60 % 60, left % 60) {
            (0, 0, seconds) => format!("{seconds} s left"),
            (0, minutes, seconds) => format!("{minutes} min {seconds} s left"),
            (hours, minutes, _) => format!("{hours} h {minutes} min left"),
        }
    }

    /// Removes the bar, so that the next output has its own line, and returns the time since the start.
    pub(crate) fn end(self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_not_known_at_the_start_and_none_at_the_end() {
        let mut progress = Progress::new("testing", 4);
        progress.started -= Duration::from_secs(90);
        assert_eq!(progress.left(0), "time left not known");
        assert_eq!(progress.left(1), "4 min 30 s left");
        // The total is as of the start and may be exceeded.
        assert_eq!((progress.left(4), progress.left(5)), ("0 s left".to_owned(), "0 s left".to_owned()));
    }
}
