//! Runs devices, an upstream and services until something ends them.
//!
//! Here: threads for the devices, a runtime for everything else, the status line in the log.
//! Not here: what the devices do, the source of work, the views, signals (`signals.rs`).

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use iop_kernels::Kernel;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout};
use tracing::{info, warn};

use crate::choice::Choice;
use crate::device::{Device, DeviceName, Feed, LAST_FINDS, Retry, Tuning, keep_running, open, share_channel};
use crate::dispatcher::Dispatcher;
use crate::job::Share;
use crate::log;
use crate::signals;
use crate::stats::rate::SAMPLE_EVERY;
use crate::stats::{Health, Stats};
use crate::upstream::{Board, Desk, Upstream};
use crate::wall::WallClock;

/// Time between two status lines.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// How long an upstream that takes no shares may delay the end.
const HAND_IN_TIME: Duration = Duration::from_secs(1);
/// How often to check whether the upstream has taken all finds.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A task that runs alongside the devices for as long as the rig does: a view, an API, a gateway. If it ends with an
/// error, that is logged, and the rest continues.
pub type Service = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Ends the rig; only the first request counts.
#[derive(Clone, Debug)]
pub struct End(mpsc::Sender<io::Result<()>>);

impl End {
    /// Ends the rig, possibly with an error.
    pub fn end(&self, ended: io::Result<()>) {
        // The channel is full if another request came first, and closed if the rig has ended.
        let _ = self.0.try_send(ended);
    }
}

/// A function to call once everything has ended and the counters stand still.
type Last = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Validated settings of the devices.
#[derive(Clone, Debug)]
pub struct RigSettings {
    /// The devices, without duplicates.
    pub devices: Vec<DeviceName>,
    /// The CPU's kernel.
    pub kernel: Choice,
    /// The CPU's worker threads.
    pub threads: usize,
    /// Placement and priority of these threads.
    pub tuning: Tuning,
}

/// Opened devices.
pub struct Opened {
    /// The devices.
    pub devices: Vec<Box<dyn Device>>,
    /// The CPU's kernel and threads, if the CPU is one of the devices.
    pub cpu: Option<(&'static dyn Kernel, usize)>,
    names: Vec<DeviceName>,
}

impl RigSettings {
    /// Opens the devices. Chooses the CPU's kernel, which may take a short measurement.
    ///
    /// # Errors
    /// OpenCL is requested and this program was built without it.
    pub fn open(&self) -> io::Result<Opened> {
        let with_cpu = self.devices.contains(&DeviceName::Cpu);
        let kernel = if with_cpu { self.kernel.kernel() } else { iop_kernels::auto() };
        let devices = self.devices.iter().map(|name| open(*name, kernel, self.threads, self.tuning));
        Ok(Opened {
            devices: devices.collect::<io::Result<_>>()?,
            cpu: with_cpu.then_some((kernel, self.threads)),
            names: self.devices.clone(),
        })
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            match (name, self.cpu) {
                (DeviceName::Cpu, Some((kernel, threads))) => {
                    write!(f, "kernel {} on {threads} CPU threads", kernel.name())?;
                }
                (name, _) => write!(f, "{name}")?,
            }
        }
        if self.names.is_empty() { f.write_str("no device of its own") } else { Ok(()) }
    }
}

/// Everything that mines, before it starts.
pub struct Rig {
    /// The counters of all devices.
    pub stats: Arc<Stats>,
    /// State of the upstream, for views.
    pub board: Arc<Board>,
    /// Connects upstream and devices.
    pub dispatcher: Arc<Dispatcher>,
    /// The wall clock of the views; nothing else depends on it.
    pub clock: WallClock,
    devices: Vec<Box<dyn Device>>,
    services: Vec<Service>,
    lasts: Vec<Last>,
    goes_on: bool,
    before_end: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
    shares: (mpsc::Sender<Share>, mpsc::Receiver<Share>),
    end: (mpsc::Sender<io::Result<()>>, mpsc::Receiver<io::Result<()>>),
}

impl Rig {
    /// A rig with these devices, for an upstream with this board.
    #[must_use]
    pub fn new(devices: Vec<Box<dyn Device>>, board: Arc<Board>) -> Self {
        let (stats, dispatcher) = (Arc::new(Stats::new()), Arc::new(Dispatcher::new()));
        let (shares, end) = (share_channel(), mpsc::channel(1));
        Self {
            stats,
            board,
            dispatcher,
            clock: WallClock::default(),
            devices,
            services: Vec::new(),
            lasts: Vec::new(),
            goes_on: false,
            before_end: Vec::new(),
            shares,
            end,
        }
    }

    /// Adds a service.
    pub fn serve(&mut self, service: Service) {
        self.services.push(service);
    }

    /// The sender of shares, for other finders than the devices.
    #[must_use]
    pub fn shares(&self) -> mpsc::Sender<Share> {
        self.shares.0.clone()
    }

    /// A handle for services to end the rig.
    #[must_use]
    pub fn end(&self) -> End {
        End(self.end.0.clone())
    }

    /// Lets the rig go on if none of its devices works: others may use its work, such as machines behind the gateway.
    pub fn go_on_without_devices(&mut self) {
        self.goes_on = true;
    }

    /// Adds a future to wait for at the end, whatever ended the rig, while the upstream and the services still run:
    /// notices to machines, blocks in flight. The futures run one after another, in the order of these calls.
    pub fn before_end(&mut self, wait: impl Future<Output = ()> + Send + 'static) {
        self.before_end.push(Box::pin(wait));
    }

    /// Stops the devices at the end and submits their last finds, after all futures added before this one.
    pub fn hand_in_before_end(&mut self) {
        let (dispatcher, shares) = (Arc::clone(&self.dispatcher), self.shares());
        self.before_end(async move {
            dispatcher.close();
            sleep(LAST_FINDS).await;
            let all = timeout(HAND_IN_TIME, all_taken(&shares)).await;
            let waiting = if all.is_ok() { 0 } else { waiting(&shares) };
            warn_of_rest(waiting + dispatcher.given_up(), HAND_IN_TIME);
        });
    }

    /// Adds a function to call at the end of [`Rig::finish`], when the counters stand still.
    pub fn at_end(&mut self, last: impl FnOnce() -> io::Result<()> + Send + 'static) {
        self.lasts.push(Box::new(last));
    }

    /// Runs the rig by `run`, and logs a summary at the end.
    ///
    /// # Errors
    /// Those of `run`, and of the functions called at the end.
    pub fn finish(mut self, run: impl FnOnce(Self) -> io::Result<()>) -> io::Result<()> {
        let (stats, lasts) = (Arc::clone(&self.stats), std::mem::take(&mut self.lasts));
        let ended = run(self);
        let end = stats.snapshot();
        let (average, counts) = (end.rates.average, end.counts);
        info!(
            "mined for {:.0} s: {} hashes, {average} on average, {counts}",
            end.elapsed.as_secs_f64(),
            end.hashes
        );
        lasts.into_iter().fold(ended, |ended, last| ended.and(last()))
    }

    /// Runs until `until` completes, an [`End`] is used, or no device works any more and nothing else needs the rig.
    ///
    /// # Errors
    /// No device works, or the operating system provides no thread or no runtime; and those of `until`.
    pub fn run(self, upstream: impl Upstream, until: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        let Self { stats, board, dispatcher, devices, services, goes_on, before_end, shares, end, .. } = self;
        let ((sender, shares), mut asked) = (shares, end.1);
        // The network needs next to nothing of one thread; devices have their own.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let desk = Desk { dispatcher: Arc::clone(&dispatcher), shares, board };
        let (count, (end, ends)) = (devices.len(), mpsc::unbounded_channel());
        let needed = !goes_on;
        let ended = thread::scope(|scope| {
            // When this is dropped, the desk with its receiver is gone, so no device waits to submit a share.
            let _closing = Closing(&dispatcher);
            let mut starts = devices.into_iter().map(|device| {
                let (name, end, counters) =
                    (device.name().to_owned(), end.clone(), stats.device(device.name()));
                let feed = Feed::into(Arc::clone(&dispatcher), Arc::clone(&counters), sender.clone());
                let run = move || {
                    if let Err(error) = keep_running(&*device, &feed, Retry::default()) {
                        counters.set_health(Health::Failed(error.to_string()));
                        // The receiver is gone if the miner ends for another reason.
                        let _ = end.send((device.name().to_owned(), error));
                    }
                };
                let thread = thread::Builder::new().name(name.clone()).spawn_scoped(scope, run);
                thread.map(drop).map_err(|error| {
                    io::Error::new(error.kind(), format!("{name}: its thread does not start: {error}"))
                })
            });
            let started = starts.try_for_each(|started| started);
            drop((end, sender));
            started.and_then(|()| {
                runtime.block_on(async {
                    let (mut upstream, mut services) = (pin!(upstream.run(desk)), pin!(serve(services)));
                    let ended = tokio::select! {
                        never = &mut upstream => match never {},
                        never = report(&stats, &dispatcher) => match never {},
                        never = &mut services => match never {},
                        error = all_ended(count, ends, needed) => Err(error),
                        ended = until => ended,
                        Some(ended) = asked.recv() => ended,
                    };
                    signals::ending();
                    for wait in before_end {
                        tokio::select! {
                            never = &mut upstream => match never {},
                            never = &mut services => match never {},
                            () = wait => {}
                        }
                    }
                    ended
                })
            })
        });
        // A host name lookup can take a minute: do not wait for it at the end.
        runtime.shutdown_background();
        ended
    }
}

/// Ends the devices' work when dropped, even after a panic: they would otherwise wait for work for ever, and the scope
/// for their threads.
struct Closing<'a>(&'a Dispatcher);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Waits until the upstream has taken all shares.
pub(crate) async fn all_taken(shares: &mpsc::Sender<Share>) {
    while waiting(shares) > 0 {
        sleep(LOOK_EVERY).await;
    }
    sleep(LOOK_EVERY).await; // the upstream has taken the last one, and is sending it
}

/// Shares that the upstream has not taken yet.
pub(crate) fn waiting(shares: &mpsc::Sender<Share>) -> usize {
    shares.max_capacity() - shares.capacity()
}

/// Warns about shares that the upstream had not taken by the end, if there are any.
pub(crate) fn warn_of_rest(rest: usize, waited: Duration) {
    if rest > 0 {
        warn!("{rest} shares had not gone up {} s after the end", waited.as_secs());
    }
}

/// Runs services; never returns.
async fn serve(services: Vec<Service>) -> Infallible {
    let mut running: JoinSet<io::Result<()>> = services.into_iter().collect();
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("{error}"),
            Err(error) => warn!("{error}"),
        }
    }
    std::future::pending().await
}

/// Waits until none of this many devices works any more, if they are needed, and returns the last one's error. Each
/// device holds a sender of the channel while it works.
async fn all_ended(
    mut devices: usize,
    mut ends: mpsc::UnboundedReceiver<(String, io::Error)>,
    needed: bool,
) -> io::Error {
    while let Some((device, error)) = ends.recv().await {
        devices -= 1;
        if devices == 0 && needed {
            return io::Error::new(error.kind(), format!("{device}: {error}"));
        }
        warn!("{device}: {error}");
    }
    if needed { io::Error::other("every device has ended") } else { std::future::pending().await }
}

/// Samples the counters for the rates, and logs status lines.
async fn report(stats: &Stats, dispatcher: &Dispatcher) -> Infallible {
    let mut samples = interval(SAMPLE_EVERY);
    // If the machine was suspended, one sample is enough.
    samples.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut lines = interval_at(Instant::now() + STATUS_EVERY, STATUS_EVERY);
    lines.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = stats.snapshot();
    loop {
        tokio::select! {
            _ = samples.tick() => stats.sample(dispatcher.has_job()),
            _ = lines.tick() => {
                let now = stats.snapshot();
                // While the log is kept off the screen, the live view shows the numbers.
                if !log::is_kept() {
                    info!("{}, {}", now.rate_since(&last), now.counts);
                }
                last = now;
            }
        }
    }
}

#[cfg(test)]
mod tests;
