//! Most shares per second: every connection keeps some unanswered, and sends the next when one is answered.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinSet, LocalSet};

use super::client::{Client, Line, Sent, Shares};
use super::load::report::Report;
use super::stand::{Blocks, Stand};
use super::{Common, connect};

/// Time before the measurement starts.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Connections, each a worker. A job's shares are bounded for each, so the more work the more connections
    #[arg(long, default_value = "200")]
    pub(crate) connections: usize,
    /// Shares without an answer on each
    #[arg(long, default_value = "16")]
    pub(crate) window: usize,
}

/// The total of all connections.
#[derive(Debug, Default)]
struct Tally {
    over: bool,
    accepted: u64,
    times: Vec<Duration>,
}

pub(crate) fn run(options: &Options, common: &Common, report: &mut Report) -> io::Result<()> {
    let stand = Stand::start(Blocks::Hard, options.connections, common)?;
    let name = format!("{} connections, {} shares on their way", options.connections, options.window);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let clients = connect::many(&stand, options.connections).await?;
        let tally = Rc::new(RefCell::new(Tally::default()));
        let mut tasks = JoinSet::new();
        for client in clients {
            tasks.spawn_local(work(client, options.window, Rc::clone(&tally)));
        }
        tokio::time::sleep(WARM_UP).await;
        let (before, cpu, start) = (tally.borrow().accepted, stand.cpu_seconds()?, Instant::now());
        tally.borrow_mut().times.clear();
        tokio::time::sleep(Duration::from_secs(common.seconds)).await;
        let (count, cpu) = (tally.borrow().accepted - before, stand.cpu_seconds()? - cpu);
        let seconds = start.elapsed().as_secs_f64();
        let times = std::mem::take(&mut tally.borrow_mut().times);
        tally.borrow_mut().over = true;
        while let Some(done) = tasks.join_next().await {
            done.map_err(io::Error::other)??;
        }
        report.add(format!("shares, {name}"), count as f64 / seconds, "shares/s");
        report.add(format!("shares, {name}: the pool's CPU"), cpu * 1e6 / count as f64, "µs/share");
        report.add_times(&format!("shares, {name}: answer"), times);
        report.add(format!("shares, {name}: RSS"), stand.memory()?.resident / 1e6, "MB");
        check(&stand, tally.borrow().accepted)
    })
}

/// The pool must have counted all shares that it answered.
pub(crate) fn check(stand: &Stand, accepted: u64) -> io::Result<()> {
    let shares = stand.status()?["shares"].take();
    if shares["accepted"] == accepted && shares["rejected"] == serde_json::json!({}) {
        return Ok(());
    }
    Err(io::Error::other(format!("{accepted} shares were answered true, the pool counted {shares}")))
}

async fn work(mut client: Client, window: usize, tally: Rc<RefCell<Tally>>) -> io::Result<()> {
    let mut shares = Shares::of(&client);
    let (mut out, mut answered) = (Vec::new(), window);
    loop {
        if !tally.borrow().over {
            let now = Instant::now();
            let sent = Sent { due: now, sent: now };
            (0..answered).for_each(|_| out.extend_from_slice(shares.next(sent)));
            client.writer.write_all(&out).await?;
            out.clear();
        } else if shares.waiting() == 0 {
            return Ok(());
        }
        answered = 0;
        let mut now = None;
        let each = |line: Line<'_>| {
            if let Some(sent) = shares.on_line(line)? {
                let now = *now.get_or_insert_with(Instant::now);
                let mut tally = tally.borrow_mut();
                tally.accepted += 1;
                tally.times.push(now - sent.sent);
                answered += 1;
            }
            Ok(())
        };
        client.reader.lines(each).await?;
    }
}
