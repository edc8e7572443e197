//! The client's session: the handshake, how it interprets a pool's messages, and misbehaving pools.
#![allow(clippy::unwrap_used)]

use iop_stratum::client::{
    Error, Event, MAX_PASSED_OVER, MAX_UNANSWERED, Options, Reconnect, Session, Share, Verdict,
};
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::{Extranonce2, JobId, NTime, Nonce, VersionBits, VersionMask};
use proptest::prelude::*;
use serde_json::{Value, json};

fn options() -> Options {
    Options {
        user: "pAddress.rig".into(),
        password: "x".into(),
        user_agent: "iop-miner/test".into(),
        version_mask: VersionMask::ALL,
        suggest_difficulty: Difficulty::new(0.25),
    }
}

fn sent(session: &mut Session) -> Vec<Value> {
    std::iter::from_fn(|| session.next_outgoing())
        .map(|line| serde_json::from_slice(&line).unwrap())
        .collect()
}

fn hear(session: &mut Session, message: Value) -> Result<Option<Event>, Error> {
    session.handle_line(message.to_string().as_bytes())
}

fn call(method: &str, params: Value) -> Value {
    json!({"id": null, "method": method, "params": params})
}

fn answer(id: u64, result: Value) -> Value {
    json!({"id": id, "result": result, "error": null})
}

fn notify(job: &str) -> Value {
    let hash = "00".repeat(32);
    call("mining.notify", json!([job, hash, "01", "02", [hash], "20000000", "207fffff", "5f5e1000", true]))
}

fn ready() -> Session {
    let mut session = Session::new(options());
    let mask = json!({"version-rolling": true, "version-rolling.mask": "1fffe000"});
    assert_eq!(hear(&mut session, answer(1, mask)), Ok(Some(Event::VersionMask(VersionMask::SERVER))));
    assert_eq!(hear(&mut session, answer(2, json!([[], "0a0b", 4]))), Ok(Some(Event::Subscribed(None))));
    assert_eq!(hear(&mut session, answer(3, json!(true))), Ok(Some(Event::Authorized)));
    sent(&mut session);
    session
}

fn share() -> Share {
    Share {
        job_id: JobId::new("j").unwrap(),
        extranonce2: Extranonce2::from_counter(5, 4).unwrap(),
        ntime: NTime(0x5f5e_1000),
        nonce: Nonce(0xff),
        version_bits: VersionBits(0x2000),
    }
}

#[test]
fn the_handshake_goes_by_itself() {
    let mut session = Session::new(options());
    assert_eq!(
        sent(&mut session),
        [
            json!({"id": 1, "method": "mining.configure", "params": [
                ["version-rolling"], {"version-rolling.mask": "ffffffff", "version-rolling.min-bit-count": 1}]}),
            json!({"id": 2, "method": "mining.subscribe", "params": ["iop-miner/test"]}),
        ]
    );
    assert!(!session.is_subscribed());
    hear(&mut session, answer(2, json!([[["mining.notify", "1"]], "0a0b0c0d", 8]))).unwrap();
    assert!(session.is_subscribed());
    assert_eq!(
        sent(&mut session),
        [
            json!({"id": 3, "method": "mining.authorize", "params": ["pAddress.rig", "x"]}),
            json!({"id": 4, "method": "mining.suggest_difficulty", "params": [0.25]}),
            json!({"id": 5, "method": "mining.extranonce.subscribe", "params": []}),
        ]
    );
    assert!(!session.is_authorized());
    hear(&mut session, answer(3, json!(true))).unwrap();
    assert!(session.is_authorized());
    for id in [4, 5] {
        let refused = json!({"id": id, "result": null, "error": [20, "Unknown method", null]});
        assert_eq!(hear(&mut session, refused), Ok(None), "extras may be refused");
    }
}

#[test]
fn a_pool_without_version_rolling_gets_none() {
    let mut session = Session::new(options());
    let refused = json!({"id": 1, "result": null, "error": [20, "Unknown method", null]});
    assert_eq!(hear(&mut session, refused), Ok(Some(Event::VersionMask(VersionMask::NONE))));
    hear(&mut session, answer(2, json!([[], "0a", 4]))).unwrap();
    sent(&mut session);
    session.submit(&share());
    assert_eq!(
        sent(&mut session)[0]["params"],
        json!(["pAddress.rig", "j", "00000005", "5f5e1000", "000000ff"])
    );

    let mut never_asks = Session::new(Options { version_mask: VersionMask::NONE, ..options() });
    assert_eq!(sent(&mut never_asks)[0]["method"], "mining.subscribe");
    let mask = call("mining.set_version_mask", json!(["ffffffff"]));
    assert_eq!(
        hear(&mut never_asks, mask),
        Ok(Some(Event::VersionMask(VersionMask::NONE))),
        "never more than asked"
    );
}

#[test]
fn difficulty_and_extranonce_hold_from_the_next_job_on() {
    let mut session = ready();
    let job = |session: &mut Session, id| match hear(session, notify(id)) {
        Ok(Some(Event::Job(job))) => job,
        other => panic!("{other:?}"),
    };
    let first = job(&mut session, "1");
    assert_eq!((first.difficulty, first.extranonce2_size), (Difficulty::ONE, 4));
    assert_eq!(first.extranonce1.to_string(), "0a0b");
    assert!(first.notify.clean);
    hear(&mut session, call("mining.set_difficulty", json!([0.5]))).unwrap();
    hear(&mut session, call("mining.set_extranonce", json!(["ff", 8]))).unwrap();
    let second = job(&mut session, "2");
    assert_eq!((second.difficulty.get(), second.extranonce2_size), (0.5, 8));
    assert_eq!(second.extranonce1.to_string(), "ff");
    assert!(second.target() > first.target());
    assert_eq!(first.difficulty, Difficulty::ONE, "a job keeps its own");
}

#[test]
fn an_extranonce_that_comes_before_the_answer_to_the_subscription_does_not_hold_it_up() {
    let mut session = Session::new(options());
    sent(&mut session);
    hear(&mut session, call("mining.set_extranonce", json!(["ff", 8]))).unwrap();
    assert!(!session.is_subscribed());
    assert_eq!(hear(&mut session, answer(2, json!([[], "0a0b", 4]))), Ok(Some(Event::Subscribed(None))));
    assert_eq!(sent(&mut session)[0]["method"], "mining.authorize");
    let Ok(Some(Event::Job(job))) = hear(&mut session, notify("1")) else { panic!("no job") };
    assert_eq!((job.extranonce1.to_string(), job.extranonce2_size), ("0a0b".into(), 4), "what came last");
    assert_eq!(hear(&mut session, answer(2, json!([[], "0c", 2]))), Ok(None), "it was answered");
}

#[test]
fn the_newest_job_that_comes_before_the_answer_to_the_subscription_comes_with_the_answer() {
    let mut session = Session::new(options());
    assert_eq!(hear(&mut session, notify("1")), Ok(None));
    hear(&mut session, call("mining.set_difficulty", json!([0.5]))).unwrap();
    assert_eq!(hear(&mut session, notify("2")), Ok(None));
    hear(&mut session, call("mining.set_difficulty", json!([0.25]))).unwrap();
    let mask = json!({"version-rolling": true, "version-rolling.mask": "1fffe000"});
    hear(&mut session, answer(1, mask)).unwrap();
    let subscribed = hear(&mut session, answer(2, json!([[], "0a0b", 4])));
    let Ok(Some(Event::Subscribed(Some(job)))) = &subscribed else { panic!("{subscribed:?}") };
    assert_eq!((job.notify.job_id.as_str(), job.extranonce1.to_string()), ("2", "0a0b".into()));
    assert_eq!((job.difficulty.get(), job.extranonce2_size), (0.5, 4), "the difficulty before it");
    assert_eq!(job.version_mask, VersionMask::SERVER, "a mask holds for jobs before it too");
    let Ok(Some(Event::Job(next))) = hear(&mut session, notify("3")) else { panic!("a job") };
    assert_eq!(next.difficulty.get(), 0.25);
}

#[test]
fn a_job_that_an_extranonce_has_made_old_does_not_come_with_the_answer_to_the_subscription() {
    let mut session = Session::new(options());
    assert_eq!(hear(&mut session, notify("1")), Ok(None));
    hear(&mut session, call("mining.set_extranonce", json!(["ff", 8]))).unwrap();
    let Ok(Some(Event::Job(job))) = hear(&mut session, notify("2")) else { panic!("a job") };
    assert_eq!((job.notify.job_id.as_str(), job.extranonce2_size), ("2", 8));
    assert_eq!(hear(&mut session, answer(2, json!([[], "0a0b", 4]))), Ok(Some(Event::Subscribed(None))));
}

#[test]
fn a_version_mask_holds_at_once() {
    let mut session = ready();
    let event = hear(&mut session, call("mining.set_version_mask", json!(["00ffe000"])));
    assert_eq!(event, Ok(Some(Event::VersionMask(VersionMask(0x00ff_e000)))));
    assert_eq!(session.version_mask(), VersionMask(0x00ff_e000));
}

#[test]
fn verdicts_find_their_shares() {
    let mut session = ready();
    let (one, two) = (session.submit(&share()), session.submit(&share()));
    let lines = sent(&mut session);
    assert_eq!(
        lines[0]["params"],
        json!(["pAddress.rig", "j", "00000005", "5f5e1000", "000000ff", "00002000"])
    );
    let refused = json!({"id": two.0.to_string(), "result": null, "error": [21, "Job not found", null]});
    let Ok(Some(Event::SubmitResult { id, verdict: Verdict::Refused(refusal) })) =
        hear(&mut session, refused)
    else {
        panic!("a refusal");
    };
    assert_eq!((id, refusal.is_stale(), refusal.to_string().as_str()), (two, true, "Job not found (21)"));
    let accepted = Ok(Some(Event::SubmitResult { id: one, verdict: Verdict::Accepted }));
    assert_eq!(hear(&mut session, answer(one.0, json!(true))), accepted);
    assert_eq!(hear(&mut session, answer(one.0, json!(true))), Ok(None), "once only");
}

#[test]
fn a_pool_that_answers_nothing_costs_bounded_memory() {
    let mut session = ready();
    let first = session.submit(&share());
    for _ in 0..MAX_UNANSWERED {
        session.submit(&share());
        sent(&mut session);
    }
    assert_eq!(hear(&mut session, answer(first.0, json!(true))), Ok(None), "the oldest is forgotten");
    for id in 0..1000 {
        hear(&mut session, json!({"id": id, "method": "client.get_version", "params": []})).unwrap();
    }
    assert!(sent(&mut session).len() <= 64, "a pool's questions do not pile up");
}

#[test]
fn a_pool_may_ask_and_is_answered() {
    let mut session = ready();
    for (method, result) in [("client.get_version", json!("iop-miner/test")), ("mining.ping", json!("pong"))]
    {
        assert_eq!(hear(&mut session, json!({"id": "q", "method": method, "params": []})), Ok(None));
        assert_eq!(sent(&mut session), [json!({"id": "q", "result": result, "error": null})]);
    }
    hear(&mut session, json!({"id": 9, "method": "x", "params": []})).unwrap();
    assert_eq!(sent(&mut session)[0]["error"][0], 20);
    assert_eq!(hear(&mut session, call("x", json!([]))), Ok(None));
    assert!(sent(&mut session).is_empty(), "unknown notifications are left alone");
}

#[test]
fn reconnects_and_messages_are_checked() {
    let mut session = ready();
    let mut reconnect = |params| match hear(&mut session, call("client.reconnect", params)) {
        Ok(Some(Event::Reconnect(Reconnect { host, port, wait }))) => {
            Ok((host.map(String::from), port, wait))
        }
        Ok(Some(Event::PassedOver(error))) => Err(error.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(reconnect(json!([])), Ok((None, None, 0)));
    assert_eq!(reconnect(json!(["p.example", "3333", 5])), Ok((Some("p.example".into()), Some(3333), 5)));
    assert_eq!(reconnect(json!(["", 0])), Ok((None, None, 0)));
    for wrong in [
        json!(["a b"]),
        json!(["x".repeat(254)]),
        json!(["h", 65536]),
        json!(["h", 1, 1e9]),
        json!(["h", 1, -1]),
        json!([[], 1]),
    ] {
        assert!(reconnect(wrong.clone()).is_err(), "{wrong}");
    }
    let event = hear(&mut session, call("client.show_message", json!(["hi\u{7}\nthere"])));
    assert_eq!(event, Ok(Some(Event::ShowMessage("hithere".into()))));
}

#[test]
fn refusals_end_the_session_with_the_pools_words() {
    let mut session = Session::new(options());
    let error =
        hear(&mut session, json!({"id": 2, "result": null, "error": [20, "closed", null]})).unwrap_err();
    assert_eq!(error.to_string(), "the pool refused the subscription: closed (20)");
    let mut session = Session::new(options());
    hear(&mut session, answer(2, json!([[], "0a", 4]))).unwrap();
    let error = hear(
        &mut session,
        json!({"id": 3, "result": false, "error": [24, "address of another network", null]}),
    );
    assert_eq!(error, Err(Error::AuthorizeRefused("address of another network (24)".into())));
}

#[test]
fn malformed_messages_are_typed_errors() {
    for (result, what) in [
        (json!([[], "0a", 9]), "extranonce2 has 9 bytes, expected 1 to 8"),
        (json!([[], "0a", "16"]), "extranonce2 has 16 bytes, expected 1 to 8"),
        (json!([[], "0a", 0]), "extranonce2 has 0 bytes, expected 1 to 8"),
        (json!([[], "0a"]), "extranonce2 size is missing"),
        (json!([[], "zz", 4]), "extranonce1 is not hex"),
        (json!([[], "00".repeat(33), 4]), "extranonce1 has 66 hex digits"),
        (json!(true), "an array"),
    ] {
        let error = hear(&mut Session::new(options()), answer(2, result)).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    let mut session = ready();
    for message in [
        call("mining.set_extranonce", json!(["00", 99])),
        call("mining.notify", json!([])),
        call("mining.notify", json!({"job": 1})),
    ] {
        assert!(matches!(hear(&mut session, message.clone()), Err(Error::Field { .. })), "{message}");
    }
    let no_utf8 =
        notify("job").to_string().into_bytes().into_iter().map(|byte| if byte == b'j' { 0xe9 } else { byte });
    assert!(matches!(session.handle_line(&no_utf8.collect::<Vec<_>>()), Err(Error::Field { .. })));
    assert!(matches!(Session::new(options()).handle_line(b"<html>"), Err(Error::Message(_))), "no pool");
}

#[test]
fn what_mining_can_do_without_is_passed_over() {
    let lines = [
        call("mining.set_difficulty", json!([0])).to_string(),
        call("mining.set_difficulty", json!([null])).to_string(),
        call("mining.set_difficulty", json!(["nan"])).to_string(),
        call("mining.set_version_mask", json!([7])).to_string(),
        call("mining.set_version_mask", json!([{"mask": "1fffe000"}])).to_string(),
        call("client.reconnect", json!(["127.0.0.1", 3333, -1])).to_string(),
        call("client.show_message", json!([])).to_string(),
        call("client.show_message", json!([1])).to_string(),
        "hello world".to_owned(),
        "[]".to_owned(),
        json!({"id": {"a": 1}, "method": "mining.ping"}).to_string(),
    ];
    let (mut session, before) = (ready(), ready());
    for line in &lines {
        let heard = session.handle_line(line.as_bytes());
        assert!(matches!(heard, Ok(Some(Event::PassedOver(_)))), "{line}: {heard:?}");
    }
    assert_eq!(session.difficulty(), before.difficulty());
    assert_eq!(session.version_mask(), before.version_mask());
    assert!(sent(&mut session).is_empty());
    assert!(matches!(hear(&mut session, notify("1")), Ok(Some(Event::Job(_)))), "and it goes on");
}

#[test]
fn lines_that_cannot_be_understood_are_passed_over_up_to_so_many_in_a_row() {
    let mut session = ready();
    for _ in 0..3 {
        for _ in 0..MAX_PASSED_OVER {
            assert!(matches!(session.handle_line(b"<html>"), Ok(Some(Event::PassedOver(_)))));
        }
        hear(&mut session, notify("1")).unwrap();
    }
    for _ in 0..MAX_PASSED_OVER {
        session.handle_line(b"<html>").unwrap();
    }
    assert!(matches!(session.handle_line(b"<html>"), Err(Error::Message(_))));
}

#[test]
fn messages_are_shown_and_unknown_notifications_borne_whatever_their_shape() {
    let mut session = ready();
    let shown = |text: &str| Ok(Some(Event::ShowMessage(text.into())));
    assert_eq!(hear(&mut session, call("client.show_message", json!("hello"))), shown("hello"));
    let latin1 = b"{\"id\":null,\"method\":\"client.show_message\",\"params\":[\"caf\xe9\"]}";
    assert_eq!(session.handle_line(latin1), shown("caf\u{fffd}"));
    for params in [json!({"name": "x"}), json!("x"), json!(7), json!(null), json!(["x", {"a": 1}])] {
        assert_eq!(hear(&mut session, call("mining.set_goal", params)), Ok(None));
    }
}

#[test]
fn a_job_whose_name_is_a_number_is_submitted_by_the_number() {
    let mut session = ready();
    for (id, goes_back_as) in [
        (json!(1234), json!(1234)),
        (json!("1234"), json!("1234")),
        (json!(18_446_744_073_709_551_615u64), json!(18_446_744_073_709_551_615u64)),
    ] {
        let mut message = notify("x");
        message["params"][0] = id;
        let Ok(Some(Event::Job(job))) = hear(&mut session, message) else { panic!("no job") };
        session.submit(&Share { job_id: job.notify.job_id.clone(), ..share() });
        assert_eq!(sent(&mut session)[0]["params"][1], goes_back_as);
    }
}

proptest! {
    #[test]
    fn a_hostile_pool_never_causes_a_panic(
        method in "mining\\.(notify|set_difficulty|set_extranonce|set_version_mask)|client\\.(reconnect|show_message)",
        params in proptest::collection::vec(prop_oneof![
            Just(Value::Null), any::<f64>().prop_map(Value::from), "[0-9a-f]{0,64}".prop_map(Value::from),
            any::<bool>().prop_map(Value::from), Just(json!([])), Just(json!({})), "\\PC{0,9}".prop_map(Value::from),
        ], 0..10),
        noise in proptest::collection::vec(any::<u8>(), 0..80),
        id in 0u64..9,
        result in prop_oneof![Just(Value::Null), Just(json!([[], "00", 4])), Just(json!({"a": 1})), Just(json!(true))],
    ) {
        let mut session = ready();
        let _ = hear(&mut session, call(&method, json!(params)));
        let _ = session.handle_line(&noise);
        let _ = hear(&mut Session::new(options()), answer(id, result.clone()));
        let _ = hear(&mut session, answer(id, result));
    }
}

#[test]
fn a_share_that_was_rolled_before_the_pool_forbade_it_goes_with_its_bits_and_others_do_not() {
    let mut session = ready();
    let none = call("mining.set_version_mask", json!(["00000000"]));
    assert_eq!(hear(&mut session, none), Ok(Some(Event::VersionMask(VersionMask::NONE))));
    session.submit(&share());
    session.submit(&Share { version_bits: VersionBits(0), ..share() });
    let lines = sent(&mut session);
    assert_eq!(
        (&lines[0]["params"][5], lines[1]["params"].as_array().unwrap().len()),
        (&json!("00002000"), 5)
    );
}
