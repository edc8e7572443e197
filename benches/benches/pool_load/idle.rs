//! Idle connections: memory per connection, right away and after tips, each of which sends every session a notify. If
//! the system does not let two processes have that many open files, as many as fit.

use std::io;
use std::rc::Rc;

use clap::Args;
use tokio::task::{JoinSet, LocalSet};

use super::client::Client;
use super::load::process::Memory;
use super::load::report::Report;
use super::notify::{Shared, listen, told_all};
use super::stand::{self, Blocks, Stand};
use super::{Common, connect};

/// Files that are open besides the connections, here and in the pool.
const RESERVE: usize = 200;

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Connections
    #[arg(long, default_value = "50000")]
    pub(crate) connections: usize,
    /// Tips that come while they are held
    #[arg(long, default_value = "100")]
    pub(crate) tips: usize,
}

pub(crate) fn run(options: &Options, common: &Common, report: &mut Report) -> io::Result<()> {
    let room = open_files()?.saturating_sub(RESERVE);
    let count = options.connections.min(room);
    if count < options.connections {
        eprintln!("the system allows {} open files: {count} connections are held", room + RESERVE);
    }
    let mut stand = Stand::start(Blocks::Easy, count, common)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let empty = stand.memory()?;
        let clients = connect::many(&stand, count).await?;
        add(report, count, "at once", empty, stand.memory()?);
        let (arrivals, mut tasks) = (Shared::default(), JoinSet::new());
        for Client { reader, writer, .. } in clients {
            let arrivals = Rc::clone(&arrivals);
            tasks.spawn_local(async move {
                let _open = writer;
                listen(reader, arrivals).await
            });
        }
        for _ in 0..options.tips {
            let (rpc, block) = (stand.rpc(), stand.next_block());
            let submission = tokio::task::spawn_blocking(move || stand::submit(&rpc, &block));
            told_all(&arrivals, count).await?;
            submission.await.map_err(io::Error::other)??;
        }
        add(report, count, &format!("after {} tips", options.tips), empty, stand.memory()?);
        let held = stand.status()?["connections"].take();
        if held == count {
            Ok(())
        } else {
            Err(io::Error::other(format!("the pool holds {held} of {count} connections")))
        }
    })
}

fn add(report: &mut Report, count: usize, when: &str, empty: Memory, now: Memory) {
    let name = format!("{count} idle connections, {when}");
    let each = |now: f64, empty: f64| (now - empty) / count as f64;
    report.add(format!("{name}: RSS"), now.resident / 1e6, "MB");
    report.add(format!("{name}: RSS for each"), each(now.resident, empty.resident), "bytes");
    report.add(format!("{name}: heap and stacks for each"), each(now.anonymous, empty.anonymous), "bytes");
}

/// The soft limit of this process, which the pool inherits and raises to the hard one.
fn open_files() -> io::Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    soft.ok_or_else(|| io::Error::other("/proc/self/limits names no number of open files"))
}
