//! A pool for one gateway: it sends jobs at a steady pace and accepts every share.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Merkle branches of a job: a block of some thousand transactions.
const BRANCHES: usize = 12;

/// A pool that ends when it is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shares: Rc<Cell<u64>>,
    task: JoinHandle<io::Result<()>>,
}

impl Upstream {
    /// Sends a clean job every `job_every`; its share target is met by every hash, or by hardly one during a bench.
    pub(crate) async fn start(job_every: Duration, all_up: bool) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, shares) = (listener.local_addr()?, Rc::new(Cell::new(0)));
        let difficulty = if all_up { 1e-10 } else { 1.0 };
        let task = tokio::task::spawn_local(serve(listener, job_every, difficulty, Rc::clone(&shares)));
        Ok(Self { address, shares, task })
    }

    /// Number of shares received.
    pub(crate) fn shares(&self) -> u64 {
        self.shares.get()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    job_every: Duration,
    difficulty: f64,
    shares: Rc<Cell<u64>>,
) -> io::Result<()> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let (mut lines, mut writer) = split(stream);
    let (mut jobs, mut number) = (tokio::time::interval(job_every), 0);
    let mut is_authorized = false;
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let request: Value = serde_json::from_str(&line)?;
                let result = match request["method"].as_str().unwrap_or_default() {
                    "mining.configure" => json!({"version-rolling": true, "version-rolling.mask": "1fffe000"}),
                    "mining.subscribe" => json!([[["mining.notify", "1"]], "f00dbabe", 8]),
                    method => {
                        shares.set(shares.get() + u64::from(method == "mining.submit"));
                        is_authorized |= method == "mining.authorize";
                        json!(true)
                    }
                };
                say(&mut writer, &json!({"id": request["id"], "result": result, "error": null})).await?;
            }
            _ = jobs.tick(), if is_authorized => {
                let set = json!({"id": null, "method": "mining.set_difficulty", "params": [difficulty]});
                say(&mut writer, &set).await?;
                number += 1;
                say(&mut writer, &notify(number)).await?;
            }
        }
    }
}

fn split(stream: TcpStream) -> (Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf) {
    let (reader, writer) = stream.into_split();
    (BufReader::new(reader).lines(), writer)
}

async fn say(writer: &mut OwnedWriteHalf, line: &Value) -> io::Result<()> {
    writer.write_all(format!("{line}\n").as_bytes()).await
}

fn notify(number: u32) -> Value {
    let hash = |byte: &str| byte.repeat(32);
    let (before, after) = (format!("{number:08x}{}", "01".repeat(60)), "02".repeat(200));
    let branches = vec![hash("33"); BRANCHES];
    json!({"id": null, "method": "mining.notify", "params":
        [number.to_string(), hash("44"), before, after, branches, "20000000", "1d00ffff", "6553f100", true]})
}
