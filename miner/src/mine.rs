//! `iop-miner mine`: devices, a pool, a line of status now and then, and a clean end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at};
use tracing::{debug, info, warn};

use crate::choice::Choice;
use crate::device::{Device, DeviceName, Feed, open};
use crate::dispatcher::Dispatcher;
use crate::stats::{Snapshot, Stats};
use crate::suggest::Suggestion;
use crate::upstream::pool::Pool;
use crate::upstream::{Desk, PoolUrl, Timing, Upstream};

/// Between two status lines.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What `mine` needs to know, validated.
#[derive(Clone, Debug)]
pub struct MineSettings {
    /// Pools, in order of preference; at least one.
    pub urls: Vec<PoolUrl>,
    /// The user at the pool.
    pub user: String,
    /// The user's password there.
    pub password: String,
    /// What to mine with; at least one, each once.
    pub devices: Vec<DeviceName>,
    /// The CPU's kernel.
    pub kernel: Choice,
    /// The CPU's worker threads.
    pub threads: usize,
    /// The share difficulty to suggest to the pool.
    pub suggestion: Suggestion,
}

/// Mines until the process is asked to end (Ctrl-C or SIGTERM).
///
/// # Errors
/// When no device works, and when the operating system gives no thread, no runtime or no signal handler.
pub fn run(settings: MineSettings) -> io::Result<()> {
    let MineSettings { devices: names, threads, suggestion, .. } = settings;
    let kernel =
        if names.contains(&DeviceName::Cpu) { settings.kernel.kernel() } else { iop_kernels::auto() };
    for name in &names {
        match name {
            DeviceName::Cpu => {
                info!("mining as {} with kernel {} on {threads} CPU threads", settings.user, kernel.name())
            }
            other => info!("mining as {} with {other}", settings.user),
        }
    }
    let devices = names.iter().map(|name| open(*name, kernel, threads));
    let devices = devices.collect::<io::Result<Vec<Box<dyn Device>>>>()?;
    // Only the CPU's rate is measured before there is work.
    let cpu_alone = names == [DeviceName::Cpu];
    let suggested = match suggestion {
        Suggestion::Measured if !cpu_alone => None,
        suggestion => suggestion.difficulty(kernel, threads),
    };
    if let Some(difficulty) = suggested {
        debug!("suggesting share difficulty {difficulty}");
    }
    let MineSettings { urls, user, password, .. } = settings;
    let pool = Pool::new(urls, user, password, suggested, Timing::default());
    let stats = Arc::new(Stats::new());
    let ended = mine(pool, devices, &stats, asked_to_end());
    let end = stats.snapshot();
    let average = end.rate_since(&Snapshot::default());
    info!("mined for {:.0} s: {} hashes, {average} on average, {end}", end.elapsed.as_secs_f64(), end.hashes);
    ended
}

/// Runs devices and upstream until `until` gives something or no device works any more.
///
/// # Errors
/// When no device works, when the operating system gives no thread or no runtime, and those of `until`.
pub fn mine(
    upstream: impl Upstream,
    devices: Vec<Box<dyn Device>>,
    stats: &Arc<Stats>,
    until: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    // The network takes next to nothing of one thread; the devices have theirs.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let dispatcher = Arc::new(Dispatcher::new());
    let (feed, shares) = Feed::new(Arc::clone(&dispatcher), Arc::clone(stats));
    let desk = Desk { dispatcher: Arc::clone(&dispatcher), shares, stats: Arc::clone(stats) };
    let (count, (end, ends)) = (devices.len(), mpsc::unbounded_channel());
    thread::scope(|scope| {
        let mut starts = devices.into_iter().map(|device| {
            let (feed, name, end) = (feed.clone(), device.name().to_owned(), end.clone());
            let run = move || {
                if let Err(error) = device.run(&feed) {
                    // Nobody listens any more where the miner ends for another reason.
                    let _ = end.send((device.name().to_owned(), error));
                }
            };
            let thread = thread::Builder::new().name(name.clone()).spawn_scoped(scope, run);
            thread.map(drop).map_err(|error| {
                io::Error::new(error.kind(), format!("{name}: its thread does not start: {error}"))
            })
        });
        let started = starts.try_for_each(|started| started);
        drop(end);
        let ended = started.and_then(|()| {
            runtime.block_on(async {
                tokio::select! {
                    never = upstream.run(desk) => match never {},
                    never = report(stats) => match never {},
                    error = all_ended(count, ends) => Err(error),
                    ended = until => ended,
                }
            })
        });
        // The desk is gone with its end of the channel, so no device waits to hand in a share.
        dispatcher.close();
        ended
    })
}

/// Waits until none of so many devices works any more, and says why the last one does not. Each device holds an
/// end of the channel while it works.
async fn all_ended(mut devices: usize, mut ends: mpsc::UnboundedReceiver<(String, io::Error)>) -> io::Error {
    while let Some((device, error)) = ends.recv().await {
        devices -= 1;
        if devices == 0 {
            return io::Error::new(error.kind(), format!("{device}: {error}"));
        }
        warn!("{device}: {error}");
    }
    io::Error::other("every device has ended")
}

/// Logs a line of status again and again.
async fn report(stats: &Stats) -> Infallible {
    let mut ticks = interval_at(Instant::now() + STATUS_EVERY, STATUS_EVERY);
    let mut last = stats.snapshot();
    loop {
        ticks.tick().await;
        let now = stats.snapshot();
        info!("{}, {now}", now.rate_since(&last));
        last = now;
    }
}

/// Waits for Ctrl-C or, where there is such a thing, SIGTERM.
async fn asked_to_end() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => info!("interrupted"),
            _ = terminate.recv() => info!("asked to terminate"),
        }
        Ok(())
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
