//! From a new tip to the first and the last notify, compared with the bare sender's first and last line in the same
//! run.
//!
//! The clock starts before the block is submitted to the node, or before the bare sender is started; the same readers
//! stop it. A tip has two notifies: at once one of a job without transactions, and later one with them.
//!
//! The sender pauses between its rounds like the pool between a tip's last job and the next tip (`--pause`): the
//! system's data of a thousand sockets does not stay in the caches for long, and a second round is faster 0.2 s after
//! the first than 1.5 s after it (docs/benchmarks.md).

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::{JoinSet, LocalSet};

use super::client::{self, Client, Line, Reader};
use super::load::report::{Report, milliseconds};
use super::load::{Baseline, sender};
use super::stand::{self, Blocks, Stand};
use super::{Common, connect};

/// Time between two tips: the pool leaves a second between two jobs on one tip, and the last of those must be out.
const BETWEEN_TIPS: Duration = Duration::from_millis(1_500);
/// Time between two rounds of the bare sender, in milliseconds.
pub(crate) const PAUSE: u64 = BETWEEN_TIPS.as_millis() as u64;
/// Time for a notify to reach all sessions.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Subscribed sessions
    #[arg(long, default_value = "1000")]
    pub(crate) sessions: usize,
    /// New tips in a run
    #[arg(long, default_value = "10")]
    pub(crate) tips: usize,
    /// Transactions in a full template
    #[arg(long, default_value = "2500")]
    pub(crate) transactions: u64,
    /// Milliseconds between two rounds of the bare sender
    #[arg(long, value_name = "MS", default_value_t = PAUSE)]
    pub(crate) pause: u64,
}

/// Lines received since the last reset: those of new tips, and others.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    tips: Passing,
    others: Passing,
    bytes: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Passing {
    count: usize,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Arrivals {
    fn take(&mut self, clean: bool, now: Instant, bytes: usize) {
        self.bytes = bytes;
        if !clean {
            return self.others.take(now);
        }
        if self.tips.count == 0 {
            self.others = Passing::default(); // they were of the tip before
        }
        self.tips.take(now);
    }
}

impl Passing {
    fn take(&mut self, now: Instant) {
        self.count += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

pub(crate) type Shared = Rc<RefCell<Arrivals>>;

/// Reads a session's jobs until it ends.
pub(crate) async fn listen(mut reader: Reader, arrivals: Shared) -> io::Result<()> {
    loop {
        let each = |line: Line<'_>| {
            if let Line::Job { clean, line } = line {
                let (now, mut arrivals) = (Instant::now(), arrivals.borrow_mut());
                arrivals.take(clean, now, line.len() + 1);
            }
            Ok(())
        };
        reader.lines(each).await?;
    }
}

/// Waits until all sessions have received the lines that `which` selects.
async fn all(arrivals: &Shared, sessions: usize, which: fn(&Arrivals) -> Passing) -> io::Result<Passing> {
    let end = Instant::now() + PATIENCE;
    loop {
        let passing = which(&arrivals.borrow());
        if passing.count >= sessions {
            return Ok(passing);
        }
        if Instant::now() > end {
            return Err(io::Error::other(format!("{} of {sessions} sessions were told", passing.count)));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until all sessions have a job of a new tip, and resets the count.
pub(crate) async fn told_all(arrivals: &Shared, sessions: usize) -> io::Result<()> {
    all(arrivals, sessions, |arrivals| arrivals.tips).await?;
    *arrivals.borrow_mut() = Arrivals::default();
    Ok(())
}

/// Times of one kind, in milliseconds: to the first line, and to the last.
#[derive(Debug, Default)]
struct Times {
    first: Vec<Duration>,
    last: Vec<Duration>,
}

impl Times {
    fn add(&mut self, start: Instant, passing: Passing) {
        let since = |at: Option<Instant>| at.expect("somebody was told").saturating_duration_since(start);
        self.first.push(since(passing.first));
        self.last.push(since(passing.last));
    }

    /// Medians over the tips.
    fn report(mut self, name: &str, report: &mut Report) -> f64 {
        let mut one = |what: &str, times: &mut Vec<Duration>| {
            times.sort_unstable();
            let median = milliseconds(times[times.len() / 2]);
            report.add(format!("{name}: {what}, p50"), median, "ms");
            report.add(format!("{name}: {what}, max"), milliseconds(times[times.len() - 1]), "ms");
            median
        };
        one("first", &mut self.first);
        one("last", &mut self.last)
    }
}

pub(crate) fn run(options: &Options, common: &Common, report: &mut Report) -> io::Result<()> {
    let mut stand = Stand::start(Blocks::Easy, options.sessions, common)?;
    stand.fill(options.transactions)?;
    let name = format!("notify, {} sessions, {} transactions", options.sessions, options.transactions);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (submitted, judged, line) =
        LocalSet::new().block_on(&runtime, tips(&mut stand, options, &name, report))?;
    let line = vec![b'x'; line];
    let bare = LocalSet::new().block_on(&runtime, bare_lines(&line, options, common))?;
    let bare = bare.report(&format!("{name}: bare sender"), report);
    let ratio = format!("{name}: last, over the bare sender's");
    report.add(format!("{ratio}, after the submission"), submitted / bare, "times");
    report.add(format!("{ratio}, after the node's answer"), judged / bare, "times");
    report.add(format!("{name}: RSS"), stand.memory()?.resident / 1e6, "MB");
    Ok(())
}

/// The median times to the last notify of a tip, from the submission of its block and from the node's answer, and the
/// notify's size in bytes.
async fn tips(
    stand: &mut Stand,
    options: &Options,
    name: &str,
    report: &mut Report,
) -> io::Result<(f64, f64, usize)> {
    let (arrivals, mut tasks) = (Shared::default(), JoinSet::new());
    for client in connect::many(stand, options.sessions).await? {
        tasks.spawn_local(keep(client, Rc::clone(&arrivals)));
    }
    let (mut new, mut judged, mut full, mut bytes) = (Times::default(), Times::default(), Vec::new(), 0);
    for _ in 0..options.tips {
        tokio::time::sleep(BETWEEN_TIPS).await;
        *arrivals.borrow_mut() = Arrivals::default();
        let (rpc, block) = (stand.rpc(), stand.next_block());
        let submission = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            stand::submit(&rpc, &block).map(|()| (start, Instant::now()))
        });
        let passing = all(&arrivals, options.sessions, |arrivals| arrivals.tips).await?;
        bytes = arrivals.borrow().bytes;
        let (start, answered) = submission.await.map_err(io::Error::other)??;
        new.add(start, passing);
        judged.add(answered, passing);
        let passing = all(&arrivals, options.sessions, |arrivals| arrivals.others).await?;
        full.push(passing.last.expect("all were told") - passing.first.expect("all were told"));
    }
    let judged = judged.report(&format!("{name}: after the node's answer"), report);
    report.add_times(&format!("{name}: the full job, first to last"), full);
    Ok((new.report(&format!("{name}: after the submission"), report), judged, bytes))
}

async fn keep(client: Client, arrivals: Shared) -> io::Result<()> {
    let Client { reader, writer: _open, .. } = client;
    listen(reader, arrivals).await
}

/// Measures the bare sender.
async fn bare_lines(line: &[u8], options: &Options, common: &Common) -> io::Result<Times> {
    let program = Baseline::Sender.start(common.pool_cpu)?;
    let mut control = TcpStream::connect(program.address())?;
    let mut text = b"{\"id\":null,\"method\":\"mining.notify\",".to_vec();
    text.extend_from_slice(&line[text.len() + 7..]);
    text.extend_from_slice(b"true]}\n");
    sender::order(&mut control, options.sessions, &text)?;
    let (arrivals, mut tasks) = (Shared::default(), JoinSet::new());
    for number in 0..options.sessions {
        let (half, writer) = client::connect(program.address(), number).await?.into_split();
        let (reader, arrivals) = (Reader::new(half), Rc::clone(&arrivals));
        tasks.spawn_local(async move {
            let _open = writer;
            listen(reader, arrivals).await
        });
    }
    control.read_exact(&mut [0])?;
    let mut times = Times::default();
    for _ in 0..options.tips {
        tokio::time::sleep(Duration::from_millis(options.pause)).await;
        *arrivals.borrow_mut() = Arrivals::default();
        let start = Instant::now();
        control.write_all(b"!")?;
        times.add(start, all(&arrivals, options.sessions, |arrivals| arrivals.tips).await?);
    }
    Ok(times)
}
