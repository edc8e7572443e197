//! Connections over real sockets, with a gateway whose upstream is the test.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream as StdStream};

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use super::*;
use crate::gateway::tests::Stand;
use crate::job::tests::ANY_HASH;

/// Not this machine's own address, which is never banned.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));

/// Both ends of a connection.
fn pair() -> (StdStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = listener.accept().unwrap().0;
    ours.set_nonblocking(true).unwrap();
    (theirs, TcpStream::from_std(ours).unwrap())
}

/// The same, with small system buffers.
async fn slow_pair() -> (TcpStream, TcpStream) {
    let [listening, calling] = [(); 2].map(|()| TcpSocket::new_v4().unwrap());
    listening.set_send_buffer_size(4096).unwrap();
    calling.set_recv_buffer_size(4096).unwrap();
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listening.listen(1).unwrap();
    let (theirs, ours) = tokio::join!(calling.connect(listener.local_addr().unwrap()), listener.accept());
    (theirs.unwrap(), ours.unwrap().0)
}

fn line(id: u64, method: &str, params: &Value) -> Vec<u8> {
    (json!({"id": id, "method": method, "params": params}).to_string() + "\n").into_bytes()
}

fn introduction() -> Vec<u8> {
    let subscribe = line(1, "mining.subscribe", &json!([]));
    [subscribe, line(2, "mining.authorize", &json!(["a", "x"]))].concat()
}

/// The parameters of the first request of `method` that a machine received.
fn params_of(method: &str, mut said: impl BufRead) -> Value {
    loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "{method} is said");
        let mut line: Value = serde_json::from_str(&line).unwrap();
        if line["method"] == method {
            return line["params"].take();
        }
    }
}

fn submits(job: &Value, nonces: std::ops::Range<u32>) -> Vec<u8> {
    let submit = |nonce: u32| {
        let params = json!(["a", job[0], "00000000", job[7], format!("{nonce:08x}")]);
        line(10 + u64::from(nonce), "mining.submit", &params)
    };
    nonces.flat_map(submit).collect()
}

#[tokio::test]
async fn an_answer_in_http_does_not_go_into_the_middle_of_a_line() {
    let stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut theirs, ours) = pair();
    let mut machine = stand.machine_from(STRANGER);
    let mut link = Link::new(ours, *machine.limits());
    // The system has taken half of it.
    link.sending = Some((Outgoing::Own(b"{\"id\":1}\n"[..].into()), 4));
    link.decoder.extend(b"GET / HTTP/1.1\r\n\r\n");
    assert!(link.handle_lines(&mut machine, true).is_err());
    link.stream.writable().await.unwrap();
    assert!(link.send(&mut machine).is_ok());
    drop(link);
    let mut said = String::new();
    theirs.read_to_string(&mut said).unwrap();
    assert_eq!(said, "\":1}\n");
}

#[tokio::test]
async fn what_a_machine_sends_before_it_hears_of_the_end_goes_up() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (theirs, ours) = pair();
    let mut reader = BufReader::new(theirs);
    reader.get_mut().write_all(&introduction()).unwrap();
    let machine = Box::new(stand.machine_from(STRANGER));
    let serving =
        tokio::spawn(serve(ours, machine, stand.shared.snapshots.clone(), stand.shared.shares.clone()));
    let reading = tokio::task::spawn_blocking(move || (params_of("mining.notify", &mut reader), reader));
    let (job, mut reader) = reading.await.unwrap();
    // No await in between: the share is on its way when the gateway ends.
    reader.get_mut().write_all(&submits(&job, 0..1)).unwrap();
    let last = Snapshot { ends: true, ..Snapshot::clone(&stand.shared.snapshots.borrow()) };
    stand.publish.send_replace(Arc::new(last));
    let told = tokio::task::spawn_blocking(move || {
        params_of("client.reconnect", &mut reader);
        // Found before it has read that, and sent afterwards.
        reader.get_mut().write_all(&submits(&job, 1..2)).unwrap();
        reader
    });
    drop(told.await.unwrap());
    serving.await.unwrap();
    assert_eq!([stand.up.try_recv().unwrap().nonce.0, stand.up.try_recv().unwrap().nonce.0], [0, 1]);
}

#[tokio::test]
async fn what_waits_to_be_sent_is_sent_to_a_machine_that_has_to_go() {
    let stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut theirs, ours) = slow_pair().await;
    let mut machine = stand.machine_from(STRANGER);
    let mut link = Link::new(ours, *machine.limits());
    let waiting = b" ".repeat(MAX_QUEUED);
    link.sending = Some((Outgoing::Own(waiting.as_slice().into()), 0));
    let reading = tokio::spawn(async move { tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await });
    link.hear_out(&mut machine, &stand.shared.shares.clone()).await;
    drop(link);
    assert_eq!(reading.await.unwrap().unwrap(), waiting.len() as u64);
}

/// Sets a job whose line has about `bytes` bytes.
fn long_job(stand: &mut Stand, bytes: usize) {
    stand.changed_job(8, 0, ANY_HASH, |job| {
        Arc::make_mut(&mut job.notify).coinbase2 = vec![2; bytes / 2];
    });
}

#[tokio::test]
async fn a_machine_may_be_one_longest_job_behind_and_is_then_let_go_without_blame() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (_theirs, ours) = slow_pair().await;
    let mut machine = stand.machine_from(STRANGER);
    let mut link = Link::new(ours, *machine.limits());
    link.decoder.extend(&introduction());
    assert!(link.handle_lines(&mut machine, true).is_ok());
    let mut job = |stand: &mut Stand| {
        long_job(stand, MAX_LINE - 4096);
        machine.on_snapshot(&Arc::clone(&stand.publish.borrow()));
        link.send(&mut machine).map_err(|end| (end.offence, end.reason))
    };
    assert_eq!((job(&mut stand), job(&mut stand)), (Ok(()), Ok(())));
    let (offence, reason) = job(&mut stand).unwrap_err();
    assert!(offence.is_none() && reason.ends_with("bytes wait to be read"), "{offence:?} {reason}");
}

#[tokio::test]
async fn jobs_that_a_machine_asks_for_take_no_more_memory_than_others() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    long_job(&mut stand, MAX_LINE / 2);
    let (_theirs, ours) = slow_pair().await;
    let mut machine = stand.machine_from(STRANGER);
    let mut link = Link::new(ours, *machine.limits());
    link.decoder.extend(&introduction().repeat(20));
    assert!(link.handle_lines(&mut machine, true).is_err());
    assert!(machine.queued_bytes() < MAX_QUEUED + MAX_LINE);
}

#[tokio::test]
async fn a_flood_that_the_difficulty_explains_is_slowed_and_not_blamed_and_another_is_blamed() {
    let stand = Stand::with_job(8, 0, ANY_HASH);
    for (is_explained, points) in [(true, 0), (false, 1)] {
        let (_theirs, ours) = pair();
        let mut machine = stand.machine_from(STRANGER);
        let mut link = Link::new(ours, Limits { requests_per_second: 10.0, ..*machine.limits() });
        link.decoder.extend(&introduction());
        assert!(link.handle_lines(&mut machine, true).is_ok());
        let mut said = String::new();
        while let Some(lines) = machine.next_lines() {
            said += std::str::from_utf8(lines.as_ref()).unwrap();
        }
        let flood = submits(&params_of("mining.notify", said.as_bytes()), 0..100);
        link.decoder.extend(&flood);
        assert!(link.handle_lines(&mut machine, true).is_ok());
        assert!(link.paused.is_some(), "read later");
        if !is_explained {
            // The same shares again.
            link.decoder.extend(&flood);
            assert!(link.handle_lines(&mut machine, true).is_ok());
        }
        assert_eq!(link.unasked.is_flood(Instant::now().into_std()), points == 0, "{is_explained}");
    }
}
