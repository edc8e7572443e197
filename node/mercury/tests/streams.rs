//! How much memory a stranger's connection can make a home use. A test of its own, since it measures the process.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use iop_mercury::limits::{INBOUND_STREAMS, MAX_UNREAD, NEGOTIATING_STREAMS};
use iop_mercury::net::Setup;
use iop_mercury::wire::{Answer, Request};
use support::frames::{Frames, SYN};
use support::{Device, Running, within};

/// Number of flooding connections.
const FLOODS: usize = 16;
/// Bytes that may be sent on a stream before anything was read from it.
const WINDOW: usize = 256 * 1024;

/// The number of the client's stream with this index.
fn stream(index: usize) -> u32 {
    u32::try_from(2 * index + 1).unwrap()
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Fills the windows of streams that wait behind those without a negotiated protocol, in frames of `length` bytes,
/// until no more is accepted.
async fn flood(address: libp2p::Multiaddr, length: usize) -> Frames {
    let mut frames = Frames::at(&address).await;
    let body = vec![0; length];
    let all = async {
        for index in 0..INBOUND_STREAMS {
            frames.send(SYN, stream(index), &[]).await?;
        }
        for _ in 0..WINDOW / length {
            for index in NEGOTIATING_STREAMS..INBOUND_STREAMS {
                frames.send(0, stream(index), &body).await?;
            }
        }
        std::io::Result::Ok(())
    };
    // Nothing more is accepted for a while, or everything was, or the connection is closed.
    let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_reads_is_not_taken() {
    let home = Running::start(Setup::default()).await;
    for length in [16 * 1024, 1] {
        let mut device = Device::resident(&home).await;
        let before = resident();
        let mut floods = tokio::task::JoinSet::new();
        for _ in 0..FLOODS {
            floods.spawn(flood(home.address.clone(), length));
        }
        let floods = floods.join_all().await;
        let grown = resident().saturating_sub(before);
        println!("{} KiB for each connection, in frames of {length}", grown / FLOODS / 1024);
        assert!(matches!(device.ask(Request::Claim).await, Answer::Hosting(..)), "others go on");
        // Besides the unread bytes, the encryption has its buffers, and the other end, also in this process, has
        // more. Each sent 14 MiB.
        assert!(grown / FLOODS < 8 * MAX_UNREAD, "{} bytes", grown / FLOODS);
        drop(floods);
        home.until("connections", |count| count == 1).await;
        drop(device);
        home.until("connections", |count| count == 0).await;
    }
}

#[tokio::test]
async fn one_stream_too_many_is_reset_and_the_others_stay() {
    let home = Running::start(Setup::default()).await;
    let mut frames = Frames::at(&home.address).await;
    for index in 0..INBOUND_STREAMS + 3 {
        frames.send(SYN, stream(index), &[]).await.unwrap();
    }
    for index in INBOUND_STREAMS..INBOUND_STREAMS + 3 {
        assert_eq!(within(frames.next_reset()).await, Some(stream(index)));
    }
}

#[tokio::test]
async fn who_does_not_keep_to_the_rules_of_streams_is_disconnected() {
    let home = Running::start(Setup::default()).await;
    let mut frames = Frames::at(&home.address).await;
    frames.send(SYN, 1, &[]).await.unwrap();
    frames.send(SYN, 1, &[]).await.unwrap();
    assert_eq!(within(frames.next_reset()).await, None, "used");
    let mut frames = Frames::at(&home.address).await;
    frames.send(SYN, 2, &[]).await.unwrap();
    assert_eq!(within(frames.next_reset()).await, None, "the home's");
    let mut frames = Frames::at(&home.address).await;
    frames.send(SYN, 1, &[0; 64 * 1024 + 1]).await.unwrap();
    assert_eq!(within(frames.next_reset()).await, None, "a frame that is too long");
    home.until("connections", |count| count == 0).await;
}
