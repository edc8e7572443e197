//! Shares at a fixed rate, over all connections in turn: time from sending each until its answer is read.
//!
//! Also from when it was due: there, a share that is sent late counts as late, whatever the cause. If the two differ,
//! the generator's core was busy with something else. In each run the same load then goes to the program that only
//! answers, in the pool's place on its core: that time is not due to the pool.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::{JoinSet, LocalSet};

use super::client::{Client, Line, Reader, Sent, Shares};
use super::load::Baseline;
use super::load::report::Report;
use super::shares::check;
use super::stand::{Blocks, Stand};
use super::{Common, connect};

/// Time before the measurement starts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Time for the last answers.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Connections, each a worker
    #[arg(long, default_value = "1000")]
    pub(crate) connections: usize,
    /// Shares a second in all
    #[arg(long, default_value = "20000")]
    pub(crate) rate: u64,
}

/// For each share, when its answer was read.
type Times = Rc<RefCell<Vec<(Sent, Instant)>>>;

pub(crate) fn run(options: &Options, common: &Common, report: &mut Report) -> io::Result<()> {
    let stand = Stand::start(Blocks::Hard, options.connections, common)?;
    let name = format!("{} shares/s over {} connections", options.rate, options.connections);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let clients = connect::many(&stand, options.connections).await?;
        let sent = load(clients, &format!("{name}: answer"), options, common, report).await?;
        report.add(format!("{name}: RSS"), stand.memory()?.resident / 1e6, "MB");
        check(&stand, sent)?;
        let user = stand.user.clone();
        drop(stand);
        let echo = Baseline::Echo.start(common.pool_cpu)?;
        let clients = connect::all_without_login(echo.address(), options.connections, &user).await?;
        load(clients, &format!("{name}: bare answer"), options, common, report).await.map(|_| ())
    })
}

/// Lets the clients submit, and reports the times of their answers. Returns the number of shares.
async fn load(
    clients: Vec<Client>,
    name: &str,
    options: &Options,
    common: &Common,
    report: &mut Report,
) -> io::Result<u64> {
    let (times, mut tasks, mut senders) = (Times::default(), JoinSet::new(), Vec::new());
    for client in clients {
        let shares = Rc::new(RefCell::new(Shares::of(&client)));
        tasks.spawn_local(listen(client.reader, Rc::clone(&shares), Rc::clone(&times)));
        senders.push((shares, client.writer));
    }
    let start = Instant::now();
    let lasts = WARM_UP + Duration::from_secs(common.seconds);
    let sent = tokio::select! {
        sent = send(&mut senders, options.rate, start, lasts) => sent?,
        ended = tasks.join_next() => return ended.expect("there are connections").map_err(io::Error::other)?,
    };
    let end = Instant::now() + PATIENCE;
    while (times.borrow().len() as u64) < sent && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let times = times.take();
    if (times.len() as u64) < sent {
        return Err(io::Error::other(format!("{} of {sent} shares were answered", times.len())));
    }
    let measured = times.iter().filter(|(share, _)| share.due >= start + WARM_UP);
    report.add_times(name, measured.clone().map(|(share, answered)| *answered - share.sent).collect());
    let from_due = measured.map(|(share, answered)| *answered - share.due).collect();
    report.add_times(&format!("{name}, from when the share was due"), from_due);
    Ok(sent)
}

/// Sends every share when it is due. In between it lets the readers run, and never sleeps: timers are too coarse.
async fn send(
    senders: &mut [(Rc<RefCell<Shares>>, OwnedWriteHalf)],
    rate: u64,
    start: Instant,
    lasts: Duration,
) -> io::Result<u64> {
    let total = lasts.as_secs() * rate;
    let mut sent = 0;
    while sent < total {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due.min(total) {
            let index = sent as usize % senders.len();
            let (shares, writer) = &mut senders[index];
            let mut shares = shares.borrow_mut();
            let due = start + Duration::from_secs_f64(sent as f64 / rate as f64);
            let line = shares.next(Sent { due, sent: Instant::now() });
            if writer.try_write(line)? != line.len() {
                return Err(io::Error::other("the pool does not read: a share could not be sent in whole"));
            }
            sent += 1;
        }
        tokio::task::yield_now().await;
    }
    Ok(total)
}

async fn listen(mut reader: Reader, shares: Rc<RefCell<Shares>>, times: Times) -> io::Result<u64> {
    loop {
        let mut now = None;
        let each = |line: Line<'_>| {
            if let Some(share) = shares.borrow_mut().on_line(line)? {
                times.borrow_mut().push((share, *now.get_or_insert_with(Instant::now)));
            }
            Ok(())
        };
        reader.lines(each).await?;
    }
}
