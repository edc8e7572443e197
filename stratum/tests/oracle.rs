//! Message bodies against `sv1_api`, an independent implementation. (Its envelopes misread string ids and drop
//! `"id": null`, so ids here are numbers.)
#![allow(clippy::unwrap_used)]

use iop_stratum::client::{Options, Session as Client, Share};
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::VersionMask;
use iop_stratum::fields::{
    Extranonce1, Extranonce2, JobId, NBits, NTime, Nonce, PrevHash, Version, VersionBits,
};
use iop_stratum::message::{Id, failure, notification};
use iop_stratum::notify::Notify;
use iop_stratum::server::{Event, Session as Server};
use iop_stratum::verdict::Reject;
use proptest::prelude::*;
use serde_json::Value;
use sv1_api::client_to_server::{Submit, SubmitError, SubmitOutcome};
use sv1_api::json_rpc::Message;
use sv1_api::methods::{Client2Server, Server2Client, Server2ClientResponse};
use sv1_api::utils::{Extranonce, HexU32Be};

fn theirs(line: &[u8]) -> Message {
    serde_json::from_slice(line).expect("sv1_api reads the envelope")
}

fn options(user: String, mask: VersionMask) -> Options {
    let (password, user_agent) = ("x".into(), "iop-miner/test".into());
    Options { user, password, user_agent, version_mask: mask, suggest_difficulty: None }
}

/// A server session in which `user` may work and roll every bit of the server's mask.
fn server(user: &str) -> Server {
    let mut server = Server::new(Extranonce1::from_u32(1), VersionMask::SERVER, "iop-pool/test");
    for line in [
        r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{}]}"#.to_owned(),
        r#"{"id":2,"method":"mining.subscribe","params":[]}"#.to_owned(),
        serde_json::json!({"id": 3, "method": "mining.authorize", "params": [user]}).to_string(),
    ] {
        if let Some(Event::Authorize(request)) = server.handle_line(line.as_bytes()).unwrap() {
            server.accept(&request).unwrap();
        }
    }
    server
}

#[test]
fn they_read_our_handshake_and_our_answers() {
    let mut client = Client::new(options("alice".into(), VersionMask::ALL));
    let mut server = server("somebody else");
    while server.next_outgoing().is_some() {}
    let (mut seen, mut masks) = (Vec::new(), 0);
    while let Some(line) = client.next_outgoing() {
        seen.push(Client2Server::try_from(theirs(&line)).unwrap());
        if let Some(Event::Authorize(request)) = server.handle_line(&line).unwrap() {
            server.accept(&request).unwrap();
        }
        while let Some(answer) = server.next_outgoing() {
            let answer = answer.as_ref();
            client.handle_line(answer).unwrap();
            if let Ok(Server2Client::SetVersionMask(told)) = Server2Client::try_from(theirs(answer)) {
                assert_eq!(told.version_mask, HexU32Be(0x1fff_e000));
                masks += 1;
                continue;
            }
            match Server2ClientResponse::try_from(theirs(answer)) {
                Ok(Server2ClientResponse::Configure(configured)) => {
                    assert_eq!(configured.version_rolling_mask(), Some(HexU32Be(0x1fff_e000)));
                }
                Ok(Server2ClientResponse::Subscribe(subscribed)) => {
                    assert_eq!(Vec::from(subscribed.extra_nonce1), [0, 0, 0, 1]);
                    assert_eq!(subscribed.extra_nonce2_size, 8);
                }
                Ok(Server2ClientResponse::GeneralResponse(answer)) => assert!(answer.result),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(masks, 1, "the mask is told once");
    assert!(client.is_authorized());
    assert!(matches!(
        &seen[..],
        [
            Client2Server::Configure(_),
            Client2Server::Subscribe(_),
            Client2Server::Authorize(authorize),
            Client2Server::ExtranonceSubscribe(_),
        ] if authorize.name == "alice" && authorize.password == "x"
    ));
}

#[test]
fn they_refuse_with_the_same_codes() {
    for (ours, theirs) in [
        (Reject::other("Other/Unknown"), SubmitError::Other),
        (Reject::JobNotFound, SubmitError::JobNotFound),
        (Reject::Duplicate, SubmitError::DuplicateShare),
        (Reject::LowDifficulty, SubmitError::LowDifficultyShare),
        (Reject::unauthorized(), SubmitError::UnauthorizedWorker),
        (Reject::NotSubscribed, SubmitError::NotSubscribed),
    ] {
        assert_eq!(i32::from(ours.code()), theirs.code());
        let submit = Submit {
            user_name: "a".into(),
            job_id: "1".into(),
            extra_nonce2: Extranonce::try_from(vec![0; 8]).unwrap(),
            time: HexU32Be(0),
            nonce: HexU32Be(0),
            version_bits: None,
            id: 4,
        };
        let theirs = serde_json::to_value(submit.respond(SubmitOutcome::Rejected(theirs))).unwrap();
        let ours: Value = serde_json::from_slice(&failure(&Id::number(4), &ours)).unwrap();
        assert_eq!((&ours["id"], &ours["result"]), (&theirs["id"], &theirs["result"]));
        assert_eq!((&ours["error"][0], &ours["error"][2]), (&theirs["error"][0], &theirs["error"][2]));
    }
}

proptest! {
    #[test]
    fn they_read_and_write_the_same_notify(
        parts in (proptest::collection::vec(any::<u8>(), 1..99), proptest::collection::vec(any::<u8>(), 1..99)),
        prev_hash: [u8; 32],
        branches in proptest::collection::vec(any::<[u8; 32]>(), 0..12),
        numbers: (u32, u32, u32),
        clean: bool,
    ) {
        let ours = Notify {
            job_id: JobId::new("4f").unwrap(),
            prev_hash: PrevHash(prev_hash),
            coinbase1: parts.0,
            coinbase2: parts.1,
            branches,
            version: Version(numbers.0),
            nbits: NBits(numbers.1),
            ntime: NTime(numbers.2),
            clean,
        };
        let Ok(Server2Client::Notify(theirs)) = Server2Client::try_from(theirs(&ours.to_line())) else { panic!() };
        prop_assert_eq!(Vec::<u8>::from(theirs.prev_hash.clone()), prev_hash);
        prop_assert_eq!(theirs.coin_base1.as_ref(), &ours.coinbase1);
        prop_assert_eq!((theirs.version.0, theirs.bits.0, theirs.time.0), numbers);
        let back = serde_json::to_value(Message::from(theirs)).unwrap();
        let mine: Value = serde_json::from_slice(&ours.to_line()).unwrap();
        prop_assert_eq!(&back["params"], &mine["params"]);
    }

    #[test]
    fn they_read_the_same_difficulty(difficulty in 1e-6f64..1e12) {
        let line = notification("mining.set_difficulty", [Difficulty::new(difficulty).unwrap().get()]);
        let Ok(Server2Client::SetDifficulty(theirs)) = Server2Client::try_from(theirs(&line)) else { panic!() };
        // Without serde_json's float_roundtrip they may read the last bit wrong; we parse numbers as Rust does.
        prop_assert!((theirs.value / difficulty - 1.0).abs() < 1e-15);
        let mut client = Client::new(options("a".into(), VersionMask::NONE));
        client.handle_line(&line).unwrap();
        prop_assert_eq!(client.difficulty().get(), difficulty);
    }

    #[test]
    fn a_share_survives_their_reading_and_writing(user in "[a-zA-Z0-9._]{1,40}", en2: u64, numbers: (u32, u32, u32)) {
        let mut client = Client::new(options(user.clone(), VersionMask::ALL));
        let mask = br#"{"id":1,"result":{"version-rolling":true,"version-rolling.mask":"1fffe000"},"error":null}"#;
        client.handle_line(mask).unwrap();
        while client.next_outgoing().is_some() {}
        let share = Share {
            job_id: JobId::new("4f").unwrap(),
            extranonce2: Extranonce2::from_counter(en2, 8).unwrap(),
            ntime: NTime(numbers.0),
            nonce: Nonce(numbers.1),
            version_bits: VersionBits(numbers.2 & VersionMask::SERVER.0),
        };
        client.submit(&share);
        let line = client.next_outgoing().unwrap();
        let Ok(Client2Server::Submit(theirs)) = Client2Server::try_from(theirs(&line)) else { panic!() };
        prop_assert_eq!(&theirs.user_name, &user);
        prop_assert_eq!((theirs.time.0, theirs.nonce.0), (numbers.0, numbers.1));
        let back = serde_json::to_vec(&Message::from(theirs)).unwrap();
        let Ok(Some(Event::Submit(read))) = server(&user).handle_line(&back) else { panic!() };
        prop_assert_eq!((read.job_id, read.extranonce2), (share.job_id, share.extranonce2));
        prop_assert_eq!((read.ntime, read.nonce, read.version_bits), (share.ntime, share.nonce, Some(share.version_bits)));
    }
}
