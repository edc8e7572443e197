//! What known clients send, verbatim if their sources were read (the first line of a file says if not), and what our
//! server answers.
//!
//! `>` is a line from the client, `<` a line from the server, in the order in which it must come; `DIFFICULTY` and
//! `NOTIFY` stand for what the test's pool sends after a subscription.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;

use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::{Extranonce1, JobId, NBits, NTime, PrevHash, Version, VersionMask};
use iop_stratum::notify::Notify;
use iop_stratum::server::{Event, Session};
use iop_stratum::verdict::Reject;
use serde_json::{Value, json};

fn notify_line() -> Arc<[u8]> {
    let notify = Notify {
        job_id: JobId::new("1").unwrap(),
        prev_hash: PrevHash([7; 32]),
        coinbase1: vec![1, 2],
        coinbase2: vec![3, 4],
        branches: vec![[5; 32]],
        version: Version(0x2000_0000),
        nbits: NBits(0x1d00_ffff),
        ntime: NTime(0x5f5e_1000),
        clean: true,
    };
    notify.to_line().into()
}

/// A pool that accepts every user but `refused`, and every share that a session lets through.
fn answer(session: &mut Session, event: Event) {
    match event {
        Event::Subscribed { .. } => {
            session.set_difficulty(Difficulty::new(0.5).unwrap());
            session.notify(notify_line());
        }
        Event::Authorize(request) if &*request.user == "refused" => {
            session.refuse(&request, &Reject::Unauthorized("not here".into()));
        }
        Event::Authorize(request) => {
            session.accept(&request).unwrap();
        }
        Event::Submit(submit) => session.answer_submit(&submit.id, Ok(())),
        Event::SuggestDifficulty(_) | Event::MinimumDifficulty(_) | Event::Refused { .. } => {}
    }
}

fn expected(line: &str) -> Value {
    match line {
        "DIFFICULTY" => json!({"id": null, "method": "mining.set_difficulty", "params": [0.5]}),
        "NOTIFY" => serde_json::from_slice(&notify_line()).unwrap(),
        json => serde_json::from_str(json).unwrap(),
    }
}

fn play(name: &str, transcript: &str) {
    let mut session = Session::new(Extranonce1::from_u32(1), VersionMask::SERVER, "iop-pool/test");
    let mut sent = VecDeque::new();
    for (number, line) in transcript.lines().enumerate() {
        let at = format!("{name}:{}", number + 1);
        match line.split_at_checked(2) {
            Some(("> ", line)) => {
                if let Some(event) =
                    session.handle_line(line.as_bytes()).unwrap_or_else(|error| panic!("{at}: {error}"))
                {
                    answer(&mut session, event);
                }
                sent.extend(std::iter::from_fn(|| session.next_outgoing()));
            }
            Some(("< ", line)) => {
                let found = sent.pop_front().unwrap_or_else(|| panic!("{at}: nothing was sent"));
                let bytes = found.as_ref();
                assert_eq!(
                    bytes.iter().position(|&byte| byte == b'\n'),
                    Some(bytes.len() - 1),
                    "{at}: one line each"
                );
                assert_eq!(serde_json::from_slice::<Value>(bytes).unwrap(), expected(line), "{at}");
            }
            _ => assert!(line.starts_with('#'), "{at}: neither client, server nor comment"),
        }
    }
    assert!(sent.is_empty(), "{name}: {} lines more than expected", sent.len());
    assert_eq!(session.queued_bytes(), 0);
}

macro_rules! transcripts {
    ($($test:ident: $file:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            play($file, include_str!(concat!("transcripts/", $file)));
        })*
    };
}

transcripts!(
    cgminer_works: "cgminer.txt",
    minerd_works: "minerd.txt",
    cpuminer_opt_works: "cpuminer-opt.txt",
    bosminer_works: "bosminer.txt",
    whatsminer_works: "whatsminer.txt",
    antminer_behind_a_rental_proxy_works: "antminer-rental.txt",
    esp_miner_works: "esp-miner.txt",
    nicehash_works: "nicehash.txt",
    odd_clients_are_answered_and_kept: "odd.txt",
);
