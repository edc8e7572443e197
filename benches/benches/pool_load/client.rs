//! A connection that logs in as a miner does, and reads the pool's lines.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use super::submit::{FIRST_ID, SubmitLine};

/// Most connections per source address: fewer than the system's ephemeral ports for each.
const PER_SOURCE: usize = 20_000;
/// Bytes read at a time, into one buffer shared by all connections.
const READ_SIZE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
}

/// The start of every line that announces a job.
const NOTIFY: &[u8] = b"{\"id\":null,\"method\":\"mining.notify\"";

/// A job for submits that are not judged, as long as a real one.
const NOBODYS_JOB: &[u8] =
    b"{\"id\":null,\"method\":\"mining.notify\",\"params\":[\"6a3f110010000000\",\"\",\"\",\"\",[],\"\",\"\",\"6553f100\",true]}";

/// A line as a miner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A job, and whether all earlier ones are stale.
    Job { clean: bool, line: &'a [u8] },
    /// `true` or another successful result, for the request with this id.
    Good(u64),
    /// Anything else that is no error: a difficulty.
    Other,
}

/// Parses a line from the pool; an error answer is an error here too, since nothing is sent that deserves one.
fn classify(line: &[u8]) -> io::Result<Line<'_>> {
    if line.starts_with(NOTIFY) {
        return Ok(Line::Job { clean: line.ends_with(b"true]}"), line });
    }
    if line.starts_with(b"{\"id\":null") {
        return Ok(Line::Other);
    }
    let id = line.strip_prefix(b"{\"id\":").and_then(|rest| rest.split(|byte| *byte == b',').next());
    let id = id.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    match id {
        Some(id) if line.ends_with(b"\"error\":null}") => Ok(Line::Good(id)),
        _ => Err(io::Error::other(format!("the pool says {}", String::from_utf8_lossy(line)))),
    }
}

/// Bytes of an incomplete line.
#[derive(Debug, Default)]
struct Rest(Vec<u8>);

impl Rest {
    fn each_line(&mut self, read: &[u8], mut each: impl FnMut(Line<'_>) -> io::Result<()>) -> io::Result<()> {
        let joined;
        let mut bytes = if self.0.is_empty() {
            read
        } else {
            self.0.extend_from_slice(read);
            joined = std::mem::take(&mut self.0);
            &joined
        };
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            each(classify(&bytes[..end])?)?;
            bytes = &bytes[end + 1..];
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// The reading half.
#[derive(Debug)]
pub(crate) struct Reader {
    half: OwnedReadHalf,
    rest: Rest,
}

impl Reader {
    /// The reader of a new connection.
    pub(crate) fn new(half: OwnedReadHalf) -> Self {
        Self { half, rest: Rest::default() }
    }

    /// Waits for bytes, then passes on the complete lines among them.
    pub(crate) async fn lines(&mut self, mut each: impl FnMut(Line<'_>) -> io::Result<()>) -> io::Result<()> {
        let Self { half, rest } = self;
        let count = poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                Pin::new(&mut *half).poll_read(context, &mut buffer).map_ok(|()| buffer.filled().len())
            })
        })
        .await?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the pool closed a connection"));
        }
        // Nothing else has run since the bytes were read.
        BUFFER.with_borrow(|buffer| rest.each_line(&buffer[..count], &mut each))
    }
}

/// A connection with a user and a job.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) reader: Reader,
    pub(crate) writer: OwnedWriteHalf,
    pub(crate) user: String,
    /// The job, as announced by the pool.
    pub(crate) job: Vec<u8>,
}

impl Client {
    /// Connects and logs in, as the `number`th of many; returns when there is a job.
    pub(crate) async fn login(address: SocketAddr, number: usize, user: &str) -> io::Result<Self> {
        let stream = connect(address, number).await?;
        let user = format!("{user}.w{number}");
        let (half, mut writer) = stream.into_split();
        let mut reader = Reader::new(half);
        writer.write_all(introduction(&user).as_bytes()).await?;
        let (mut job, mut answers) = (Vec::new(), 0);
        while job.is_empty() || answers < 3 {
            let each = |line: Line<'_>| {
                match line {
                    Line::Job { line, .. } => job = line.to_vec(),
                    Line::Good(_) => answers += 1,
                    Line::Other => {}
                }
                Ok(())
            };
            reader.lines(each).await?;
        }
        Ok(Self { reader, writer, user, job })
    }

    /// Connects to a server without logins, with a made-up job.
    pub(crate) async fn without_login(address: SocketAddr, number: usize, user: &str) -> io::Result<Self> {
        let (half, writer) = connect(address, number).await?.into_split();
        let (user, job) = (format!("{user}.w{number}"), NOBODYS_JOB.to_vec());
        Ok(Self { reader: Reader::new(half), writer, user, job })
    }
}

/// A connection without delays, from the source address for this number.
pub(crate) async fn connect(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if number >= PER_SOURCE {
        let last = 1 + (number / PER_SOURCE) as u8;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn introduction(user: &str) -> String {
    [
        r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"1fffe000"}]}"#,
        r#"{"id":2,"method":"mining.subscribe","params":["pool_load/1"]}"#,
        &format!(r#"{{"id":3,"method":"mining.authorize","params":["{user}","x"]}}"#),
        "",
    ]
    .join("\n")
}

/// A submitted share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// When it should have been sent.
    pub(crate) due: Instant,
    /// When it was.
    pub(crate) sent: Instant,
}

/// One connection's shares: the line of the next one, and those not yet answered.
#[derive(Debug)]
pub(crate) struct Shares {
    user: String,
    line: SubmitLine,
    waiting: VecDeque<Sent>,
    answered: u64,
}

impl Shares {
    /// No shares yet, on the client's job.
    pub(crate) fn of(client: &Client) -> Self {
        let line = submit_line(&client.user, &client.job, 0);
        Self { user: client.user.clone(), line, waiting: VecDeque::new(), answered: 0 }
    }

    /// The line of a share to be sent now.
    pub(crate) fn next(&mut self, sent: Sent) -> &[u8] {
        self.waiting.push_back(sent);
        self.line.next()
    }

    /// Number of unanswered shares.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Handles a line from the pool: returns the share that it accepts, if any. Answers come in order.
    pub(crate) fn on_line(&mut self, line: Line<'_>) -> io::Result<Option<Sent>> {
        match line {
            Line::Other => Ok(None),
            Line::Job { line, .. } => {
                self.line = submit_line(&self.user, line, self.line.count());
                Ok(None)
            }
            Line::Good(id) => {
                let sent = self.waiting.pop_front().filter(|_| id == FIRST_ID + self.answered);
                self.answered += 1;
                sent.map(Some).ok_or_else(|| io::Error::other(format!("an answer to {id} was not expected")))
            }
        }
    }
}

fn submit_line(user: &str, notify: &[u8], count: u64) -> SubmitLine {
    let notify: Value = serde_json::from_slice(notify).expect("the pool sends JSON");
    let text = |index: usize| notify["params"][index].as_str().expect("a notify has text there");
    SubmitLine::new(user, text(0), text(7), count)
}
