//! Many connections: at a fixed rate with the time of each until it has a job, or as fast as possible for the other
//! measurements.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::{JoinSet, LocalSet};

use super::Common;
use super::client::Client;
use super::load::report::Report;
use super::stand::{Blocks, Stand};

/// Concurrent logins if only the end matters: fewer than a listener's queue holds.
const AT_A_TIME: usize = 500;
/// Time for a login.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Connections
    #[arg(long, default_value = "10000")]
    pub(crate) connections: usize,
    /// Connections a second
    #[arg(long, default_value = "1000")]
    pub(crate) rate: usize,
}

pub(crate) fn run(options: &Options, common: &Common, report: &mut Report) -> io::Result<()> {
    let stand = Stand::start(Blocks::Hard, options.connections, common)?;
    let name = format!("{} connections at {}/s", options.connections, options.rate);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let address: SocketAddr = stand.stratum.parse().expect("the stand gave an address");
        let (start, mut logins) = (tokio::time::Instant::now(), JoinSet::new());
        for number in 0..options.connections {
            let due = start + Duration::from_secs_f64(number as f64 / options.rate as f64);
            tokio::time::sleep_until(due).await;
            let user = stand.user.clone();
            logins.spawn_local(async move {
                let begun = Instant::now();
                let client = Client::login(address, number, &user).await?;
                Ok::<_, io::Error>((client, begun.elapsed()))
            });
        }
        let (mut clients, mut times, mut errors) = (Vec::new(), Vec::new(), 0);
        while let Some(done) = logins.join_next().await {
            match done.map_err(io::Error::other)? {
                Ok((client, time)) => {
                    clients.push(client);
                    times.push(time);
                }
                Err(error) => {
                    eprintln!("a connection failed: {error}");
                    errors += 1;
                }
            }
        }
        report.add(format!("{name}: all have a job after"), start.elapsed().as_secs_f64(), "s");
        report.add(format!("{name}: errors"), f64::from(errors), "");
        report.add_times(&format!("{name}: until a job"), times);
        report.add(format!("{name}: RSS"), stand.memory()?.resident / 1e6, "MB");
        let counted = stand.status()?["connections"].take();
        if counted == clients.len() {
            return Ok(());
        }
        Err(io::Error::other(format!("{} connections are open, the pool counts {counted}", clients.len())))
    })
}

/// Logs in this many clients, as fast as possible.
pub(crate) async fn many(stand: &Stand, count: usize) -> io::Result<Vec<Client>> {
    let address: SocketAddr = stand.stratum.parse().expect("the stand gave an address");
    let (mut logins, mut clients) = (JoinSet::new(), Vec::with_capacity(count));
    for number in 0..count {
        if logins.len() == AT_A_TIME {
            clients.push(logins.join_next().await.expect("there are some").map_err(io::Error::other)??);
        }
        let user = stand.user.clone();
        logins.spawn_local(async move {
            let login = tokio::time::timeout(PATIENCE, Client::login(address, number, &user));
            login.await.map_err(|_| io::Error::other("no job within 30 s of connecting"))?
        });
    }
    while let Some(done) = logins.join_next().await {
        clients.push(done.map_err(io::Error::other)??);
    }
    Ok(clients)
}

/// Connects this many clients to a server without logins.
pub(crate) async fn all_without_login(
    address: SocketAddr,
    count: usize,
    user: &str,
) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        clients.push(Client::without_login(address, number, user).await?);
    }
    Ok(clients)
}
