//! The effect of user requests on connections in progress, and what is remembered of connections that failed.

#![allow(clippy::unwrap_used)]

use iop_stratum::client::Options;
use iop_stratum::fields::VersionMask;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::dispatcher::Dispatcher;
use crate::log::tests::Heard;
use crate::upstream::open::Unready;
use crate::upstream::{Board, Timing};

/// With pools that accept connections and send nothing.
async fn failover() -> (Failover, Arc<Board>, [TcpListener; 2]) {
    let pools =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let urls = pools.each_ref().map(|pool| format!("stratum+tcp://{}", pool.local_addr().unwrap()));
    let options = Options {
        user: "a.b".into(),
        password: "x".into(),
        user_agent: "test".into(),
        version_mask: VersionMask::NONE,
        suggest_difficulty: None,
    };
    let board = Arc::new(Board::new(urls.iter().map(|url| (url.clone(), String::new()))));
    let timing = Timing { head_start: Duration::ZERO, ..Timing::default() };
    let manner = Manner {
        options,
        timing,
        tls: None,
        follow: false,
        only_machines: false,
        pools: 2,
        stats: None,
        board: Arc::clone(&board),
        unready: Unready::default(),
    };
    let (_, shares) = crate::device::share_channel();
    let desk = Desk { dispatcher: Arc::new(Dispatcher::new()), shares, board: Arc::clone(&board) };
    let urls = urls.map(|url| url.parse().unwrap()).to_vec();
    (Failover::new(urls, Arc::new(manner), desk), board, pools)
}

#[tokio::test]
async fn the_same_wish_again_leaves_what_is_under_way_and_another_does_not() {
    let (mut failover, _board, _pools) = failover().await;
    let under_way = |probe: &Option<Probe>| {
        probe.as_ref().map(|probe| (probe.number, probe.wished, std::ptr::from_ref(&*probe.opening).addr()))
    };
    // A check that was not asked for waits for a bearable difficulty, so the request replaces it.
    let mut probe = Some(failover.probe(1, false));
    failover.wish(1, &mut probe);
    let wished = under_way(&probe);
    assert!(matches!(wished, Some((1, true, _))));
    failover.wish(1, &mut probe);
    assert_eq!(under_way(&probe), wished);
    failover.wish(0, &mut probe);
    assert!(probe.is_none() && failover.wished, "the pool at hand is kept");
    failover.wish(1, &mut probe);
    assert!(matches!(under_way(&probe), Some((1, true, _))));
}

#[tokio::test]
async fn a_pool_that_hangs_before_one_that_closes_at_once_makes_the_waits_double_all_the_same() {
    let (mut failover, _board, _pools) = failover().await;
    let waits: Vec<Duration> = (0..12)
        .map(|_| {
            failover.overtaken(0, 1);
            failover.lost(&Lost::Closed)
        })
        .collect();
    assert!(waits[0] < Duration::from_secs(1) && waits[11] >= Duration::from_secs(8), "{waits:?}");
}

#[tokio::test]
async fn the_only_pool_is_connected_to_again_after_a_wait_where_it_refuses_all_shares() {
    let log = Heard::begin();
    let (mut failover, _board, _pools) = failover().await;
    failover.urls.truncate(1);
    failover.backoff = Backoff::new(failover.manner.timing, 1);
    let refused = |_| {
        failover.since = Instant::now().checked_sub(Duration::from_secs(61)).unwrap();
        failover.fruitless = true;
        failover.lost(&Lost::Refused(16))
    };
    let waits: Vec<Duration> = (0..12).map(refused).collect();
    assert!(waits[0] >= Duration::from_millis(250), "{waits:?}");
    assert!(waits[11] >= Duration::from_secs(15), "they double where it goes on: {waits:?}");
    assert_eq!(failover.backoff.pool(), 0);
    assert_eq!(log.lines("every one of the last 16 shares was refused; trying again in"), 12);
}

#[tokio::test]
async fn a_pool_that_is_not_mined_at_has_no_job_at_hand() {
    let (mut failover, board, _pools) = failover().await;
    let job = crate::upstream::board::JobView {
        id: "old".into(),
        height: None,
        network_difficulty: 1.0,
        since: std::time::Instant::now(),
    };
    board.change(0, |source| source.job = Some(job.clone()));
    failover.lost(&Lost::Closed);
    assert_eq!(board.sources()[0].job, None);
    board.change(0, |source| source.job = Some(job));
    failover.set(0, Condition::Unused);
    assert_eq!(board.sources()[0].job, None);
}

#[tokio::test]
async fn a_pool_sends_the_miner_on_three_times_in_a_row_before_it_gave_a_job_and_after() {
    let (mut failover, _board, _pools) = failover().await;
    let moved = || Lost::Moved { to: "stratum+tcp://127.0.0.1:9".parse().unwrap(), wait: Duration::ZERO };
    // Asked for twice while it was being connected to.
    let first = failover.place(0, false);
    let there = first.follow(first.url.clone()).and_then(|place| place.follow(place.url.clone()));
    failover.moved = there;
    failover.lost(&moved());
    assert_eq!(failover.moved.as_ref().map(|place| place.moves), Some(3));
    failover.lost(&moved());
    assert!(failover.moved.is_none() && failover.backoff.pool() == 1, "the next one's turn");
}

#[tokio::test]
async fn a_pool_that_is_being_connected_to_is_not_connected_to_anew_for_a_wish() {
    let (mut failover, board, [first, _second]) = failover().await;
    assert!(board.ask_for(0));
    {
        let mut connecting = std::pin::pin!(failover.connect());
        let accepted = tokio::select! {
            _ = &mut connecting => panic!("the pool says nothing"),
            accepted = first.accept() => accepted.unwrap(),
        };
        assert!(board.ask_for(0));
        // Longer than the time between two requests that are handled.
        let heard = Duration::from_millis(1500);
        assert!(timeout(heard, &mut connecting).await.is_err(), "it goes on");
        assert!(timeout(Duration::ZERO, first.accept()).await.is_err(), "over the connection that there is");
        drop(accepted);
    }
    assert!(failover.wished);
    assert!(board.ask_for(1));
    assert!(failover.connect().await.is_none(), "another wish is heard");
    assert_eq!(failover.backoff.pool(), 1);
}

/// All that a pool says until a miner is ready.
#[cfg(target_os = "linux")]
fn ready_at_once() -> String {
    use serde_json::json;

    let (zeros, coinbase) = ("00".repeat(32), "01000000010000");
    let params = json!(["job", zeros, coinbase, "00", [], "20000000", "1d00ffff", "65501234", true]);
    let subscribed = json!({"id": 2, "result": [[], "f00d", 4], "error": null});
    let authorized = json!({"id": 3, "result": true, "error": null});
    let job = json!({"id": null, "method": "mining.notify", "params": params});
    format!("{subscribed}\n{authorized}\n{job}\n")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_accepts_and_says_nothing_is_followed_by_the_hosts_next_one() {
    use tokio::io::AsyncWriteExt;

    let (mut failover, _board, _pools) = failover().await;
    Arc::get_mut(&mut failover.manner).unwrap().timing.handshake = Duration::from_secs(1);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = silent.local_addr().unwrap();
    let pool = TcpListener::bind(("127.0.0.2", first.port())).await.unwrap();
    let second = pool.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = pool.accept().await.unwrap();
        stream.write_all(ready_at_once().as_bytes()).await.unwrap();
        stream // it stays open
    });
    let open =
        |failover: &Failover| failover.place(0, true).open_at(std::future::ready(Ok(vec![first, second])));
    assert!(matches!(open(&failover).await, Err(Lost::Handshake(_))));
    assert_eq!((failover.manner.unready.of(0), failover.manner.unready.of(1)), (Some(first), None));
    let connection = open(&failover).await.unwrap();
    assert_eq!(failover.manner.unready.of(0), None, "ready: the next time they are in order again");
    drop((connection, serving));
}

#[tokio::test]
async fn an_address_that_was_left_for_another_pool_counts_as_one_that_failed() {
    let (failover, _board, _pools) = failover().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = silent.local_addr().unwrap();
    let opening = failover.place(1, true).open_at(std::future::ready(Ok(vec![first])));
    assert!(timeout(Duration::from_secs(1), opening).await.is_err(), "it says nothing");
    assert_eq!(failover.manner.unready.of(1), Some(first));
}
