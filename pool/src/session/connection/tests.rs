//! Connections over real sockets during rounds: no client misses a job, gets one twice, or gets half a line.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;

use iop_stratum::fields::Extranonce1;
use rustix::net::sockopt;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::super::miner::tests::{Pool, holds};
use super::super::round::Round;
use super::super::tls::{Tls, TlsFiles};
use super::*;
use crate::follow::telling::Telling;
use crate::job::Job;

mod floods;
mod shares;

/// The longest that anything may take, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Socket buffer size on either side where the buffer should fill soon.
const SMALL_BUFFER: u32 = 16 * 1024;

/// A pool with a running round, and the address to connect to.
struct Stand {
    pool: Pool,
    listener: TcpListener,
    stop: watch::Sender<bool>,
    tls: Option<Tls>,
}

/// A client's transport.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Client(BufReader<Box<dyn Stream>>);

impl Stand {
    async fn new() -> Self {
        let pool = Pool::new();
        tokio::spawn(pool.shared.round.clone().run(pool.shared.snapshots.clone(), Telling::default()));
        tokio::spawn(Arc::clone(&pool.shared.ledger).pass_wakes_on());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { pool, listener, stop: watch::Sender::new(false), tls: None }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn publish(&mut self) -> Arc<Job> {
        self.pool.job(Pool::hard_template(1))
    }

    /// Both ends of a served connection.
    async fn connect(&self) -> (Arc<Connection>, TcpStream) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(SMALL_BUFFER).unwrap();
        socket.set_send_buffer_size(SMALL_BUFFER).unwrap();
        let (accepted, client) = tokio::join!(self.listener.accept(), socket.connect(self.address()));
        let stream = accepted.unwrap().0;
        sockopt::set_socket_send_buffer_size(&stream, SMALL_BUFFER as usize).unwrap();
        sockopt::set_socket_recv_buffer_size(&stream, SMALL_BUFFER as usize).unwrap();
        let tls = self.tls.as_ref().map(Tls::accept);
        let seat = self.pool.shared.round.seat(Connection::new(stream, tls, self.pool.connect()));
        let connection = Arc::clone(&seat.connection);
        tokio::spawn(serve(seat, self.stop.subscribe()));
        (connection, client.unwrap())
    }

    /// The same with a client whose reads block.
    async fn client(&self) -> (Arc<Connection>, Client) {
        let (connection, stream) = self.connect().await;
        (connection, Client::new(stream))
    }
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(Box::new(blocking(stream))))
    }

    fn say(&mut self, call: &Value) {
        self.0.get_mut().write_all(format!("{call}\n").as_bytes()).unwrap();
    }

    /// Reads the next line; fails if there is none or if it is not a message.
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The number of the next job; nothing else may precede it.
    fn job(&mut self) -> String {
        job_in(&self.hear())
    }

    /// Subscribes; returns the number of the first job, which follows its difficulty.
    fn subscribe(&mut self) -> String {
        self.begin().1
    }

    /// The same, with the connection's extranonce1.
    fn begin(&mut self) -> (Extranonce1, String) {
        self.say(&subscribe());
        let answer = self.hear();
        assert_eq!(answer["id"], 1);
        assert_eq!(self.hear()["method"], "mining.set_difficulty");
        let extranonce1 = u32::from_str_radix(answer["result"][1].as_str().unwrap(), 16).unwrap();
        (Extranonce1::from_u32(extranonce1), self.job())
    }

    /// Authorizes the user.
    fn authorize(&mut self, user: &str) {
        self.say(&json!({"id": 2, "method": "mining.authorize", "params": [user, "x"]}));
        assert_eq!(self.hear()["result"], true);
    }
}

fn blocking(stream: TcpStream) -> std::net::TcpStream {
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn subscribe() -> Value {
    json!({"id": 1, "method": "mining.subscribe", "params": []})
}

fn job_in(line: &Value) -> String {
    assert_eq!(line["method"], "mining.notify", "{line}");
    line["params"][0].as_str().unwrap().to_owned()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn an_idle_connection_takes_little_memory() {
    let stand = Stand::new().await;
    let (accepted, _client) = tokio::join!(stand.listener.accept(), TcpStream::connect(stand.address()));
    let connection = Connection::new(accepted.unwrap().0, None, stand.pool.connect());
    let served = serve(Round::default().seat(connection), stand.stop.subscribe());
    // The rest of 4 KiB covers what is stored elsewhere: the socket's own state and the jobs that were sent.
    let size = size_of_val(&served) + size_of::<Connection>();
    assert!(
        size <= 1800,
        "{size} bytes, of which Connection {}, Miner {} and Link {}",
        size_of::<Connection>(),
        size_of::<Miner>(),
        size_of::<Link>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_connection_holds_nobody_up_and_gets_the_job_when_it_is_free() {
    let mut stand = Stand::new().await;
    let first = stand.publish();
    let (busy, mut late) = stand.client().await;
    let (_, mut other) = stand.client().await;
    for client in [&mut late, &mut other] {
        assert_eq!(client.subscribe(), first.id.as_str());
    }
    for _ in 0..20 {
        let state = busy.lock();
        let job = stand.publish();
        assert_eq!(other.job(), job.id.as_str());
        wait_until("the round has passed it over", || busy.passed_over.load(Ordering::Acquire));
        drop(state);
        assert_eq!(late.job(), job.id.as_str());
    }
}

/// Stops reading until the socket is full and more jobs wait, then reads everything.
async fn read_slowly(mut stand: Stand, secure: impl FnOnce(TcpStream) -> Client) {
    let mut published = vec![stand.publish()];
    let (connection, stream) = stand.connect().await;
    let mut slow = secure(stream);
    stand.tls = None;
    let (_, mut quick) = stand.client().await;
    for client in [&mut slow, &mut quick] {
        assert_eq!(client.subscribe(), published[0].id.as_str());
    }
    let mut full_for = 0;
    while full_for < 40 {
        let job = stand.publish();
        wait_until("the job is taken", || holds(&connection.lock().miner, &job));
        assert_eq!(quick.job(), job.id.as_str(), "nobody else waits for the slow one");
        published.push(job);
        full_for += usize::from(connection.lock().link.has_more());
    }
    for job in &published[1..] {
        assert_eq!(slow.job(), job.id.as_str());
    }
    let job = stand.publish();
    assert_eq!(slow.job(), job.id.as_str(), "and goes on");
    wait_until("nothing is left", || !connection.lock().link.has_more());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_every_job_whole_and_in_order() {
    read_slowly(Stand::new().await, Client::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_over_tls_gets_every_job_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let tls = Tls::load(TlsFiles { certificate, key }).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let secure = |stream| {
        let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        Client(BufReader::new(Box::new(StreamOwned::new(connection, blocking(stream)))))
    };
    read_slowly(Stand { tls: Some(tls), ..Stand::new().await }, secure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_at_all_is_dropped_by_the_round() {
    let mut stand = Stand::new().await;
    stand.publish();
    let (connection, mut deaf) = stand.client().await;
    deaf.subscribe();
    wait_until("it is dropped", || {
        let job = stand.publish();
        wait_until("the job is taken", || {
            let state = connection.lock();
            state.over || holds(&state.miner, &job)
        });
        connection.lock().over
    });
    assert!(connection.lock().link.has_more());
    drop(connection);
    wait_until("its slot is free", || stand.pool.shared.slots.count() == 0);
    let error = deaf.0.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "what it has not read is thrown away");
}

/// Runs on one thread, so that the round and the clients alternate.
#[tokio::test]
async fn what_is_newer_takes_the_place_of_a_job_that_is_on_its_round() {
    const CLIENTS: usize = 400;
    iop_mining::open_files::raise();
    let mut stand = Stand::new().await;
    let first = stand.publish();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let (_, stream) = stand.connect().await;
        let mut client = tokio::io::BufReader::new(stream);
        client.write_all(format!("{}\n", subscribe()).as_bytes()).await.unwrap();
        assert_eq!(read_jobs(&mut client, &first.id.to_string()).await, [first.id.as_str()]);
        clients.push(client);
    }
    stand.pool.new_tip();
    let second = stand.publish();
    let stand = Arc::new(Mutex::new((stand, None)));
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let stand = Arc::clone(&stand);
            tokio::spawn(async move {
                let mut line = String::new();
                timeout(PATIENCE, client.read_line(&mut line)).await.unwrap().unwrap();
                let mut heard = vec![serde_json::from_str::<Value>(&line).unwrap()];
                let third = {
                    let (stand, third) = &mut *stand.lock().unwrap();
                    Arc::clone(third.get_or_insert_with(|| stand.publish()))
                };
                while job_in(heard.last().unwrap()) != third.id.as_str() {
                    line.clear();
                    timeout(PATIENCE, client.read_line(&mut line)).await.unwrap().unwrap();
                    heard.push(serde_json::from_str(&line).unwrap());
                }
                heard
            })
        })
        .collect();
    let mut skipped = 0;
    for reader in readers {
        let heard = reader.await.unwrap();
        assert_eq!(heard[0]["params"][8], true, "whichever comes first on the tip is clean");
        if heard.len() == 1 {
            skipped += 1;
        } else {
            assert_eq!((heard.len(), job_in(&heard[0])), (2, second.id.to_string()));
            assert_eq!(heard[1]["params"][8], false);
        }
    }
    assert!(0 < skipped && skipped < CLIENTS, "{skipped} had the newer job only");
}

/// The numbers of the jobs received, up to `last`.
async fn read_jobs(client: &mut tokio::io::BufReader<TcpStream>, last: &str) -> Vec<String> {
    let mut jobs: Vec<String> = Vec::new();
    while jobs.last().is_none_or(|job| job != last) {
        let mut line = String::new();
        timeout(PATIENCE, client.read_line(&mut line)).await.unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["method"] == "mining.notify" {
            jobs.push(job_in(&line));
        }
    }
    jobs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_subscribes_while_a_job_goes_round_has_it_once_and_after_its_difficulty() {
    let mut stand = Stand::new().await;
    let mut before = stand.publish();
    for number in 0..400 {
        let (_, mut client) = stand.client().await;
        client.say(&subscribe());
        for _ in 0..number * 50 {
            std::hint::spin_loop(); // at varying moments
        }
        let job = stand.publish();
        assert_eq!(client.hear()["id"], 1);
        assert_eq!(client.hear()["method"], "mining.set_difficulty");
        let first = client.job();
        if first == before.id.as_str() {
            assert_eq!(client.job(), job.id.as_str());
        } else {
            assert_eq!(first, job.id.as_str());
        }
        before = stand.publish();
        assert_eq!(client.job(), before.id.as_str(), "nothing came twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_its_connection_and_the_round_goes_on() {
    let mut stand = Stand::new().await;
    stand.publish();
    let (broken, mut victim) = stand.client().await;
    let (_, mut other) = stand.client().await;
    victim.subscribe();
    other.subscribe();
    let panicked = std::thread::spawn(move || {
        let _state = broken.lock();
        panic!("as a bug would, with the lock held");
    });
    panicked.join().unwrap_err();
    for _ in 0..3 {
        let job = stand.publish();
        assert_eq!(other.job(), job.id.as_str());
    }
    assert_eq!(victim.0.read(&mut [0]).unwrap(), 0, "closed");
    wait_until("its slot is free", || stand.pool.shared.slots.count() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_on_their_round_while_the_pool_ends_are_no_last_words() {
    let mut stand = Stand::new().await;
    for _ in 0..20 {
        stand.publish();
        let (_, mut client) = stand.client().await;
        client.subscribe();
        let round = tokio::spawn(
            stand.pool.shared.round.clone().run(stand.pool.shared.snapshots.clone(), Telling::default()),
        );
        stand.publish();
        stand.stop.send_replace(true);
        let mut heard = Vec::new();
        client.0.read_to_end(&mut heard).unwrap();
        let last = heard.split(|byte| *byte == b'\n').rev().find(|line| !line.is_empty()).unwrap();
        let last: Value = serde_json::from_slice(last).unwrap();
        assert_eq!(last["method"], "client.reconnect");
        stand.stop.send_replace(false);
        round.abort();
    }
}
