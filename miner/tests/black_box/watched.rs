//! A rig that mines at a test's pool and is watched over TCP, and its clients.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use iop_miner::device::{Cpu, Device};
use iop_miner::rig::Rig;
use iop_miner::stats::{Snapshot, Stats};
use iop_miner::upstream::Board;
use iop_miner::view::{self, ViewSettings};
use iop_miner::wall::WallClock;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::{Client, JOB, PATIENCE, SUGGESTED, TIMING, listen, pool};

/// The difficulty of the job's nBits.
pub(crate) const NETWORK_DIFFICULTY: f64 = 1.0;

/// A rig with two sources; it runs until it is dropped.
pub(crate) struct Watched {
    pub(crate) stats: Arc<Stats>,
    pub(crate) board: Arc<Board>,
    pub(crate) clock: WallClock,
    pub(crate) api: SocketAddr,
    pub(crate) cgminer: SocketAddr,
    /// The pool it uses first.
    pub(crate) pool: TcpListener,
    /// The pool it uses on request.
    _other: TcpListener,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watched {
    pub(crate) fn start() -> Self {
        let ((first, first_address), (other, other_address)) = (listen(), listen());
        let pool = pool(&[first_address, other_address], Some(SUGGESTED), TIMING);
        let devices: Vec<Box<dyn Device>> = vec![Box::new(Cpu::new(iop_kernels::auto(), 1))];
        let mut rig = Rig::new(devices, pool.board());
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let settings =
            ViewSettings { api_bind: any, cgminer_bind: any, plain: true, ..ViewSettings::default() };
        let places = view::attach(&settings, &mut rig).unwrap();
        let (stats, board, clock) = (Arc::clone(&rig.stats), Arc::clone(&rig.board), rig.clock.clone());
        let (stop, stopped) = oneshot::channel();
        let until = async {
            let _ = stopped.await;
            Ok(())
        };
        Self {
            stats,
            board,
            clock,
            api: places.api.unwrap(),
            cgminer: places.cgminer.unwrap(),
            pool: first,
            _other: other,
            stop: Some(stop),
            thread: Some(thread::spawn(move || rig.run(pool, until).unwrap())),
        }
    }

    /// A rig whose pool has judged some shares and judges no more: 20 accepted, 2 refused, 1 stale.
    pub(crate) fn judged() -> (Self, Client) {
        let rig = Self::start();
        let mut client = rig.serve();
        for _ in 0..19 {
            client.accept_share();
        }
        for error in [
            json!([22, "Duplicate share", null]),
            json!([20, "Odd \"one\" = a\\b|c,d", null]),
            json!([21, "Stale", null]),
        ] {
            let submit = client.read_submit();
            client.refuse(&submit, &error);
        }
        rig.wait_for(|snapshot| snapshot.counts.stale == 1);
        (rig, client)
    }

    /// A rig whose pool accepts every share, while it runs.
    pub(crate) fn busy() -> Self {
        let rig = Self::start();
        let mut client = rig.serve();
        thread::spawn(move || {
            while let Some(submit) = client.read_submit_if_any() {
                client.answer(&submit, json!(true));
            }
        });
        rig
    }

    /// Waits until another share is accepted.
    pub(crate) fn wait_for_a_share(&self) {
        let accepted = self.stats.snapshot().counts.accepted;
        self.wait_for(|snapshot| snapshot.counts.accepted > accepted);
    }

    /// Serves the rig until it mines.
    pub(crate) fn serve(&self) -> Client {
        let mut client = Client::accept(&self.pool);
        client.serve_until_share(&JOB);
        self.wait_for(|snapshot| snapshot.counts.accepted == 1);
        client
    }

    /// Waits until the counters satisfy a condition.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let start = Instant::now();
        loop {
            let snapshot = self.stats.snapshot();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(start.elapsed() < PATIENCE, "{snapshot:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// GETs a path of the API; returns status, head, body.
    pub(crate) fn get(&self, path: &str) -> (u16, String, String) {
        http(self.api, &format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.api))
    }

    /// GETs JSON.
    pub(crate) fn json(&self, path: &str) -> Value {
        let (status, head, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        assert!(head.contains("content-type: application/json"), "{head}");
        serde_json::from_str(&body).unwrap()
    }

    /// The complete answer of the cgminer API, including the NUL.
    pub(crate) fn ask(&self, request: &str) -> String {
        let mut stream = connect(self.cgminer);
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the rig panicked");
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request and reads to the end; returns status, head, body.
pub(crate) fn http(address: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = connect(address);
    // The server may close before everything is sent.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}
