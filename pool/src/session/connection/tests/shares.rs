//! Shares and commits: each share is answered once committed, whichever task has the turn and whatever ends meanwhile.

use iop_stratum::fields::Nonce;

use super::super::super::miner::tests::{EASY, solutions, solve, waiting};
use super::*;

fn submit(id: usize, user: &str, job: &Job, nonce: Nonce) -> Value {
    let time = format!("{:08x}", job.template.time);
    let params = json!([user, job.id.as_str(), "0".repeat(16), time, nonce.to_string()]);
    json!({"id": id, "method": "mining.submit", "params": params})
}

fn good(id: usize) -> Value {
    json!({"id": id, "result": true, "error": null})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_answered_whoever_has_a_turn_when_they_are_counted() {
    let mut stand = Stand::new().await;
    stand.publish();
    let (connection, mut client) = stand.client().await;
    let (extranonce1, _) = client.begin();
    let user = stand.pool.user();
    client.authorize(&user);
    let done = Arc::new(AtomicBool::new(false));
    let busy = Arc::clone(&done);
    let others = std::thread::spawn(move || {
        while !busy.load(Ordering::Relaxed) {
            let state = connection.lock();
            std::thread::sleep(Duration::from_micros(300)); // most of these pauses contain a commit
            drop(state);
            std::thread::yield_now();
        }
    });
    for id in 3..103 {
        let job = stand.publish();
        assert_eq!(client.job(), job.id.as_str());
        client.say(&submit(id, &user, &job, solve(&job, extranonce1, EASY, true)));
        assert_eq!(client.hear(), good(id));
    }
    done.store(true, Ordering::Relaxed);
    others.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_submits_faster_than_the_log_takes_is_read_again_when_it_has() {
    const SHARES: usize = 3_000;
    /// More than are in one read.
    const AT_ONCE: usize = READ_SIZE / 100;
    let mut stand = Stand::new().await;
    let job = stand.publish();
    let (connection, stream) = stand.connect().await;
    let stream = blocking(stream);
    let mut writer = stream.try_clone().unwrap();
    let mut client = Client(BufReader::new(Box::new(stream)));
    let (extranonce1, _) = client.begin();
    let user = stand.pool.user();
    client.authorize(&user);
    let nonces = solutions(&job, extranonce1, EASY, true).take(SHARES);
    let lines: String =
        nonces.enumerate().map(|(id, nonce)| format!("{}\n", submit(id, &user, &job, nonce))).collect();
    let held = stand.pool.shared.ledger.hold();
    writer.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    let refused = loop {
        match writer.write(&lines.as_bytes()[sent..]) {
            Ok(more) if sent + more < lines.len() => sent += more,
            Ok(_) => panic!("all is taken, though nothing is in the log"),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    let waiting = waiting(&connection.lock().miner);
    assert!((1024..1024 + AT_ONCE).contains(&waiting), "{waiting} shares wait for the log");
    drop(held);
    writer.set_write_timeout(None).unwrap();
    let rest = std::thread::spawn(move || writer.write_all(&lines.as_bytes()[sent..]));
    for id in 0..SHARES {
        assert_eq!(client.hear(), good(id));
    }
    rest.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_that_is_counted_while_the_pool_ends_is_answered() {
    let mut stand = Stand::new().await;
    let job = stand.publish();
    let (connection, mut client) = stand.client().await;
    let (extranonce1, _) = client.begin();
    let user = stand.pool.user();
    client.authorize(&user);
    let held = stand.pool.shared.ledger.hold();
    client.say(&submit(3, &user, &job, solve(&job, extranonce1, EASY, true)));
    wait_until("the share waits for the log", || waiting(&connection.lock().miner) == 1);
    stand.stop.send_replace(true);
    assert_eq!(client.hear()["method"], "client.reconnect");
    drop(held);
    assert_eq!(client.hear(), good(3));
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0, "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_no_more_still_hears_of_its_shares() {
    let mut stand = Stand::new().await;
    let job = stand.publish();
    let (connection, stream) = stand.connect().await;
    let stream = blocking(stream);
    let half = stream.try_clone().unwrap();
    let mut client = Client(BufReader::new(Box::new(stream)));
    let (extranonce1, _) = client.begin();
    let user = stand.pool.user();
    client.authorize(&user);
    let held = stand.pool.shared.ledger.hold();
    client.say(&submit(3, &user, &job, solve(&job, extranonce1, EASY, true)));
    half.shutdown(std::net::Shutdown::Write).unwrap();
    wait_until("the end is read", || connection.lock().over);
    drop(held);
    assert_eq!(client.hear(), good(3));
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0, "closed");
}
