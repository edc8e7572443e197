//! Logs the sync progress every few seconds while blocks are behind headers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::info;

use crate::chain::actor::Published;

/// Time between two lines.
const EVERY: Duration = Duration::from_secs(10);
/// The speed is averaged over this many intervals, since blocks differ much in size.
const SPANS: usize = 6;
/// No line is logged within this many blocks of the best header: these arrive within moments.
const CLOSE: u32 = 10;

/// Logs progress until the chain thread ends.
pub(crate) async fn report(published: watch::Receiver<Published>) {
    let mut pace = Pace::default();
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        if published.has_changed().is_err() {
            return;
        }
        let now = *published.borrow();
        pace.add(Instant::now(), now.height);
        let left = now.best_header_height.saturating_sub(now.height);
        if left > CLOSE {
            let speed = pace.blocks_per_second();
            info!(
                height = now.height,
                headers = now.best_header_height,
                blocks_per_second = format!("{speed:.1}"),
                left = time_left(left, speed),
                "syncing"
            );
        }
    }
}

/// Heights with their times, the newest last.
#[derive(Default)]
struct Pace(VecDeque<(Instant, u32)>);

impl Pace {
    fn add(&mut self, at: Instant, height: u32) {
        if self.0.len() > SPANS {
            self.0.pop_front();
        }
        self.0.push_back((at, height));
    }

    fn blocks_per_second(&self) -> f64 {
        let (Some((from, low)), Some((to, high))) = (self.0.front(), self.0.back()) else { return 0.0 };
        let seconds = to.duration_since(*from).as_secs_f64();
        if seconds > 0.0 { f64::from(high.saturating_sub(*low)) / seconds } else { 0.0 }
    }
}

/// The time for this many blocks at this speed, for display.
fn time_left(blocks: u32, blocks_per_second: f64) -> String {
    if blocks_per_second <= 0.0 {
        return "unknown".to_owned();
    }
    let seconds = (f64::from(blocks) / blocks_per_second) as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_that_of_the_last_minute() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert!(pace.blocks_per_second().abs() < 1e-9);
        for (second, height) in
            [(0, 0), (10, 1_000), (20, 2_000), (30, 2_000), (40, 2_000), (50, 2_000), (60, 2_600)]
        {
            pace.add(start + Duration::from_secs(second), height);
        }
        assert!((pace.blocks_per_second() - 2_600.0 / 60.0).abs() < 1e-9);
        pace.add(start + Duration::from_secs(70), 2_600);
        assert!((pace.blocks_per_second() - 1_600.0 / 60.0).abs() < 1e-9);
    }

    #[test]
    fn time_is_told_as_people_tell_it() {
        assert_eq!(time_left(59, 1.0), "59s");
        assert_eq!(time_left(125, 1.0), "2m05s");
        assert_eq!(time_left(7_260, 1.0), "2h01m");
        assert_eq!(time_left(5, 0.0), "unknown");
    }
}
