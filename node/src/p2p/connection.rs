//! One connection: a reader task and a writer task.
//!
//! Lives here: the socket, framing, decoding of payloads, and the limits on what may be queued. Does not live here:
//! what a message does; that is the manager's. Data goes: socket -> decoder -> [`Event`] to the manager; messages
//! from the manager -> queue -> socket. Memory per peer: an incomplete message (at most 4 MB); messages that wait
//! for the manager or the chain ([`RECEIVE_BUDGET`], 4 MiB of memory, and one message waiting for room); and bytes
//! that the peer has not read ([`SEND_LIMIT`], 12 MB, at which it is dropped; from [`SEND_PAUSE`], 1 MB, on nothing
//! is produced for it). In total at most 20 MB plus one message, which takes up to eight times its bytes. The
//! protocol state of a peer (`peer.rs`, `relay.rs`) adds at most 6 MB: 100,000 requested entries of 40 bytes, and 2
//! MB of ids.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::frame::{self, Decoded, Decoder, Frame, HEADER_LEN};
use super::handle::Counters;
use super::memory;
use super::message::Message;
use super::peer::PeerId;

/// Memory budget for messages that were read but not processed yet, in units of [`UNIT`]: 4 MiB (the reference
/// counts wire bytes, 5 MB).
const RECEIVE_BUDGET: usize = 4_096;
/// Unit of the budget, bytes.
const UNIT: usize = 1_024;
/// While this many bytes are queued for sending, nothing more is produced for the peer (`DEFAULT_MAXSENDBUFFER`).
pub(crate) const SEND_PAUSE: usize = 1_000_000;
/// A peer with this many unread bytes is dropped.
pub(crate) const SEND_LIMIT: usize = 12_000_000;
/// A peer is dropped if writing makes no progress for this long.
const WRITE_TIME: Duration = Duration::from_secs(120);
/// How long the queue of a peer that is being dropped may take to be written.
const LINGER: Duration = Duration::from_secs(2);
/// Longest time from the first byte of a message to its last: 4 MB at 13 kB/s.
const MESSAGE_TIME: Duration = Duration::from_secs(300);
/// Bytes per read.
const READ: usize = 64 * 1024;
/// Penalty points for a message with a wrong checksum, name or payload; ten such messages end the connection. The
/// reference skips them; over TCP they do not occur by accident.
const DAMAGED: u32 = 10;
/// Penalty points for a message with too many entries (the reference gives 20).
const OVERSIZED: u32 = 20;

/// Reported by a connection to the manager.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message. Its share of the budget is freed with the permit.
    Message(PeerId, Message, Arc<OwnedSemaphorePermit>),
    /// A message that could not be decoded: its name, the error and the points. It keeps its share of the budget
    /// until it is judged.
    Malformed(PeerId, String, String, u32, OwnedSemaphorePermit),
    /// The peer has read enough to be sent more.
    Drained(PeerId),
    /// The connection ended, and why.
    Closed(PeerId, String),
}

/// Counters that the manager and a connection share.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Bytes queued for sending.
    pub(crate) queued: AtomicUsize,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    /// Seconds since 1970; 0 for never.
    pub(crate) last_sent: AtomicU64,
    pub(crate) last_received: AtomicU64,
    pub(crate) sent_by_message: Mutex<BTreeMap<String, u64>>,
    pub(crate) received_by_message: Mutex<BTreeMap<String, u64>>,
}

impl Meter {
    /// Counts bytes by message name. Unknown names share one entry, so that a peer cannot fill the map.
    fn count(map: &Mutex<BTreeMap<String, u64>>, name: &str, bytes: usize) {
        // A count is still usable after a panic poisoned the lock.
        let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
        match map.get_mut(name) {
            Some(count) => *count += bytes as u64,
            None => drop(map.insert(name.to_owned(), bytes as u64)),
        }
    }

    pub(crate) fn by_message(map: &Mutex<BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
        map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The manager's end of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    queue: mpsc::UnboundedSender<Vec<u8>>,
    stop: Arc<Notify>,
    dropped: Arc<Notify>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) local: Option<SocketAddr>,
    magic: [u8; 4],
}

impl Link {
    /// Queues a message; `false` if the peer has too many unread bytes.
    pub(crate) fn send(&self, message: &Message) -> bool {
        let bytes = frame::encode(self.magic, message.command(), &message.payload());
        let queued = self.meter.queued.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        Meter::count(&self.meter.sent_by_message, message.command().as_str(), bytes.len());
        // If the writer has ended, it has reported that.
        let _ = self.queue.send(bytes);
        queued <= SEND_LIMIT
    }

    /// Whether the peer has so many unread bytes that it is dropped.
    pub(crate) fn is_full(&self) -> bool {
        self.meter.queued.load(Ordering::Relaxed) > SEND_LIMIT
    }

    /// Whether the peer reads too slowly to be sent more.
    pub(crate) fn is_congested(&self) -> bool {
        self.meter.queued.load(Ordering::Relaxed) > SEND_PAUSE
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The reader stops at once; the writer when the queue is written, or soon after.
        self.stop.notify_one();
        self.dropped.notify_one();
    }
}

/// Starts both tasks of a connection.
pub(crate) fn start(
    id: PeerId,
    stream: TcpStream,
    magic: [u8; 4],
    events: mpsc::UnboundedSender<Event>,
    counters: Arc<Counters>,
) -> Link {
    // Small messages should not be delayed; if the option cannot be set, they are.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().ok();
    let (reading, writing) = stream.into_split();
    let (queue, frames) = mpsc::unbounded_channel();
    let (meter, stop) = (Arc::new(Meter::default()), Arc::new(Notify::new()));
    let reader =
        Reader { id, magic, events: events.clone(), meter: meter.clone(), counters: counters.clone() };
    let stopped = stop.clone();
    tokio::spawn(async move {
        let events = reader.events.clone();
        let why = tokio::select! {
            why = reader.run(reading) => why,
            () = stopped.notified() => "it was closed here".to_owned(),
        };
        let _ = events.send(Event::Closed(id, why));
    });
    let writer = Writer { id, events, meter: meter.clone(), counters };
    let dropped = Arc::new(Notify::new());
    let given_up = dropped.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = writer.run(writing, frames) => {}
            // A dropped peer that does not read must not keep its queue alive.
            () = async { given_up.notified().await; tokio::time::sleep(LINGER).await } => {}
        }
    });
    Link { queue, stop, dropped, meter, local, magic }
}

fn now() -> u64 {
    crate::chain::clock::now()
}

struct Reader {
    id: PeerId,
    magic: [u8; 4],
    events: mpsc::UnboundedSender<Event>,
    meter: Arc<Meter>,
    counters: Arc<Counters>,
}

impl Reader {
    /// Reads until the connection ends and returns the reason.
    async fn run(&self, mut stream: OwnedReadHalf) -> String {
        let budget = Arc::new(Semaphore::new(RECEIVE_BUDGET));
        let mut decoder = Decoder::new(self.magic);
        let mut buffer = vec![0; READ];
        let mut begun = tokio::time::Instant::now();
        loop {
            let left = if decoder.is_inside() {
                MESSAGE_TIME.saturating_sub(begun.elapsed())
            } else {
                // The manager judges silence between messages.
                Duration::from_secs(24 * 60 * 60)
            };
            let count = match timeout(left, stream.read(&mut buffer)).await {
                Err(_) => return format!("a message took more than {} s", MESSAGE_TIME.as_secs()),
                Ok(Ok(0)) => return "the peer closed the connection".to_owned(),
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return format!("reading: {error}"),
            };
            if !decoder.is_inside() {
                begun = tokio::time::Instant::now();
            }
            self.meter.received.fetch_add(count as u64, Ordering::Relaxed);
            self.counters.received.fetch_add(count as u64, Ordering::Relaxed);
            self.meter.last_received.store(now(), Ordering::Relaxed);
            let mut bytes = &buffer[..count];
            while !bytes.is_empty() {
                match decoder.feed(&mut bytes) {
                    Ok(None) => {}
                    Ok(Some(decoded)) => {
                        begun = tokio::time::Instant::now();
                        if !self.take(decoded, &budget).await {
                            return "the node stops".to_owned();
                        }
                    }
                    Err(error) => return error.to_string(),
                }
            }
        }
    }

    /// Passes a message to the manager once there is room for it; `false` if the manager is gone.
    async fn take(&self, decoded: Decoded, budget: &Arc<Semaphore>) -> bool {
        let frame = match decoded {
            Decoded::Frame(frame) => frame,
            Decoded::Damaged(what) => {
                let permit = budget.clone().acquire_owned().await.expect("the semaphore is never closed");
                let event = Event::Malformed(self.id, "message".to_owned(), what.to_owned(), DAMAGED, permit);
                return self.events.send(event).is_ok();
            }
        };
        let size = frame.payload.len() + HEADER_LEN;
        let mut permit = make_room(budget, units(size)).await;
        let (name, decoded) = decode(frame);
        if let Ok(message) = &decoded {
            // Acquire the rest of its budget, now that its size in memory is known: many small parts take several
            // times their bytes. Earlier messages will be processed eventually, so there will be room.
            let missing = units(memory::of_message(message, size)).saturating_sub(permit.num_permits());
            permit.merge(make_room(budget, missing).await);
        }
        let counted = if matches!(decoded, Ok(Message::Unknown)) { "*other*" } else { name.as_str() };
        Meter::count(&self.meter.received_by_message, counted, size);
        let event = match decoded {
            Ok(message) => Event::Message(self.id, message, Arc::new(permit)),
            Err(error) => {
                let points =
                    if matches!(error, super::wire::Malformed::TooMany { .. }) { OVERSIZED } else { DAMAGED };
                Event::Malformed(self.id, name, error.to_string(), points, permit)
            }
        };
        self.events.send(event).is_ok()
    }
}

/// Units of the budget for this many bytes, capped at the whole budget.
fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT).min(RECEIVE_BUDGET)
}

async fn make_room(budget: &Arc<Semaphore>, units: usize) -> OwnedSemaphorePermit {
    let units = u32::try_from(units).expect("no more units than the budget has");
    budget.clone().acquire_many_owned(units).await.expect("the semaphore is never closed")
}

fn decode(frame: Frame) -> (String, Result<Message, super::wire::Malformed>) {
    let name = frame.command.as_str().to_owned();
    (name, Message::decode(&frame))
}

struct Writer {
    id: PeerId,
    events: mpsc::UnboundedSender<Event>,
    meter: Arc<Meter>,
    counters: Arc<Counters>,
}

impl Writer {
    /// Writes until the manager drops the link or the peer stops reading.
    async fn run(self, mut stream: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Vec<u8>>) {
        while let Some(bytes) = frames.recv().await {
            if let Err(why) = self.write(&mut stream, &bytes).await {
                let _ = self.events.send(Event::Closed(self.id, why));
                return;
            }
        }
        let _ = stream.shutdown().await;
    }

    async fn write(&self, stream: &mut OwnedWriteHalf, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let written = match timeout(WRITE_TIME, stream.write(bytes)).await {
                Err(_) => return Err(format!("it read nothing for {} s", WRITE_TIME.as_secs())),
                Ok(Err(error)) => return Err(format!("writing: {error}")),
                Ok(Ok(0)) => return Err("the peer closed the connection".to_owned()),
                Ok(Ok(written)) => written,
            };
            bytes = &bytes[written..];
            self.counters.sent.fetch_add(written as u64, Ordering::Relaxed);
            self.meter.sent.fetch_add(written as u64, Ordering::Relaxed);
            self.meter.last_sent.store(now(), Ordering::Relaxed);
            let before = self.meter.queued.fetch_sub(written, Ordering::Relaxed);
            if before > SEND_PAUSE && before - written <= SEND_PAUSE {
                let _ = self.events.send(Event::Drained(self.id));
            }
        }
        Ok(())
    }
}
