//! Machines that log in and then submit shares in turn, at a fixed total rate.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

/// Concurrent logins: fewer than a listener's queue holds.
const AT_A_TIME: usize = 100;
/// Time for the last answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// A load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) machines: usize,
    /// Shares a second in total.
    pub(crate) rate: f64,
    pub(crate) lasts: Duration,
    pub(crate) warm_up: Duration,
}

/// The state of one machine.
#[derive(Debug, Default)]
struct Machine {
    number: usize,
    job: String,
    ntime: String,
    waiting: VecDeque<Instant>,
    count: u32,
}

impl Load {
    /// Applies the load to a server; returns the time from each submit to its answer, without the warm-up. If the
    /// server is not a gateway, there are no logins.
    pub(crate) async fn run(self, address: SocketAddr, is_gateway: bool) -> io::Result<Vec<Duration>> {
        let (mut logins, mut machines) = (JoinSet::new(), Vec::new());
        for number in 0..self.machines {
            if logins.len() == AT_A_TIME {
                machines.push(logins.join_next().await.expect("there are some").map_err(io::Error::other)??);
            }
            logins.spawn_local(login(address, number, is_gateway));
        }
        while let Some(done) = logins.join_next().await {
            machines.push(done.map_err(io::Error::other)??);
        }
        let (times, mut tasks, mut senders) = (Rc::<RefCell<Vec<_>>>::default(), JoinSet::new(), Vec::new());
        for (machine, reader, writer) in machines {
            let machine = Rc::new(RefCell::new(machine));
            tasks.spawn_local(listen(reader, Rc::clone(&machine), Rc::clone(&times)));
            senders.push((machine, writer));
        }
        let start = Instant::now();
        let sent = tokio::select! {
            sent = self.send(&mut senders, start) => sent?,
            ended = tasks.join_next() => return ended.expect("there are machines").map_err(io::Error::other)?,
        };
        let end = Instant::now() + PATIENCE;
        while times.borrow().len() < sent && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let times = times.take();
        if times.len() < sent {
            return Err(io::Error::other(format!("{} of {sent} shares were answered", times.len())));
        }
        let measured = times.into_iter().filter(|(sent, _)| *sent >= start + self.warm_up);
        Ok(measured.map(|(_, time)| time).collect())
    }

    /// Sends every share when it is due. In between it lets the readers run, and never sleeps: timers are too coarse.
    async fn send(
        self,
        senders: &mut [(Rc<RefCell<Machine>>, OwnedWriteHalf)],
        start: Instant,
    ) -> io::Result<usize> {
        let total = ((self.lasts + self.warm_up).as_secs_f64() * self.rate) as usize;
        let mut sent = 0;
        while sent < total {
            let due = ((start.elapsed().as_secs_f64() * self.rate) as usize).min(total);
            while sent < due {
                let next = sent % senders.len();
                let (machine, writer) = &mut senders[next];
                let mut machine = machine.borrow_mut();
                machine.count += 1;
                let Machine { number, job, ntime, count, .. } = &*machine;
                let line = format!(
                    "{{\"id\":1000000,\"method\":\"mining.submit\",\"params\":[\"machine-{number}\",\"{job}\",\"{count:08x}\",\
                     \"{ntime}\",\"{:08x}\"]}}\n",
                    count.wrapping_mul(2_654_435_761)
                );
                machine.waiting.push_back(Instant::now());
                if writer.try_write(line.as_bytes())? != line.len() {
                    return Err(io::Error::other("a share could not be sent in whole"));
                }
                sent += 1;
            }
            tokio::task::yield_now().await;
        }
        Ok(total)
    }
}

async fn login(
    address: SocketAddr,
    number: usize,
    is_gateway: bool,
) -> io::Result<(Machine, BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let (mut reader, mut machine) = (BufReader::new(reader), Machine { number, ..Machine::default() });
    if is_gateway {
        let introduction = format!(
            "{{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"bench\"]}}\n\
             {{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"machine-{number}\",\"x\"]}}\n"
        );
        writer.write_all(introduction.as_bytes()).await?;
        let (mut answers, mut line) = (0, String::new());
        while answers < 2 || machine.job.is_empty() {
            line.clear();
            if reader.read_line(&mut line).await? == 0 {
                return Err(io::Error::other("the gateway closed a connection"));
            }
            answers += usize::from(!machine.hear(&line)?);
        }
    } else {
        (machine.job, machine.ntime) = ("1".to_owned(), "6553f100".to_owned());
    }
    Ok((machine, reader, writer))
}

impl Machine {
    /// Handles a line. Returns whether it was not an answer.
    fn hear(&mut self, line: &str) -> io::Result<bool> {
        if line.starts_with("{\"id\":null,\"method\":\"mining.notify\"") {
            let notify: Value = serde_json::from_str(line)?;
            let text = |place: usize| notify["params"][place].as_str().unwrap_or_default().to_owned();
            (self.job, self.ntime) = (text(0), text(7));
            return Ok(true);
        }
        if line.starts_with("{\"id\":null") {
            return Ok(true);
        }
        // A share of the job that was the newest when it was sent may come too late.
        if line.contains("\"error\":null") || line.contains("[21,") {
            return Ok(false);
        }
        Err(io::Error::other(format!("the gateway says {line}")))
    }
}

/// For each share: when it was sent, and how long its answer took.
type Times = Rc<RefCell<Vec<(Instant, Duration)>>>;

async fn listen(
    mut reader: BufReader<OwnedReadHalf>,
    machine: Rc<RefCell<Machine>>,
    times: Times,
) -> io::Result<Vec<Duration>> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).await? == 0 {
            return Err(io::Error::other("the server closed a connection"));
        }
        let now = Instant::now();
        let mut machine = machine.borrow_mut();
        if !machine.hear(&line)? {
            let sent = machine.waiting.pop_front().ok_or(io::Error::other("an answer to nothing"))?;
            times.borrow_mut().push((sent, now - sent));
        }
    }
}
