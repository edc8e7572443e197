//! The server's session against misbehaving clients.
#![allow(clippy::unwrap_used)]

use iop_stratum::client;
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::{Extranonce1, VersionBits, VersionMask};
use iop_stratum::server::{
    Event, Fatal, MAX_MALFORMED, MAX_MESSAGE, MAX_USER_AGENT, MAX_WORKERS, Session, WorkerSlot,
};
use iop_stratum::verdict::Reject;
use proptest::prelude::*;
use serde_json::{Value, json};

fn session() -> Session {
    Session::new(Extranonce1::from_u32(0xdead_beef), VersionMask::SERVER, "iop-pool/test")
}

fn say(session: &mut Session, call: Value) -> Option<Event> {
    session.handle_line(call.to_string().as_bytes()).expect("Stratum")
}

fn authorize(session: &mut Session, user: &str) -> Result<WorkerSlot, Reject> {
    let Some(Event::Authorize(request)) =
        say(session, json!({"id": 1, "method": "mining.authorize", "params": [user]}))
    else {
        panic!("authorize is the owner's");
    };
    session.accept(&request)
}

fn sent(session: &mut Session) -> Vec<Value> {
    let lines: Vec<_> = std::iter::from_fn(|| session.next_outgoing()).collect();
    lines.iter().map(|line| serde_json::from_slice(line.as_ref()).unwrap()).collect()
}

#[test]
fn a_user_keeps_its_slot_and_others_get_theirs() {
    let mut session = session();
    assert_eq!(authorize(&mut session, "a"), Ok(WorkerSlot(0)));
    assert_eq!(authorize(&mut session, "b"), Ok(WorkerSlot(1)));
    assert_eq!(authorize(&mut session, "a"), Ok(WorkerSlot(0)));
    assert_eq!(session.workers().len(), 2);
}

#[test]
fn users_of_one_connection_are_bounded() {
    let mut session = session();
    for user in 0..MAX_WORKERS {
        authorize(&mut session, &user.to_string()).unwrap();
    }
    assert!(authorize(&mut session, "one more").is_err());
    assert_eq!(sent(&mut session).last().unwrap()["error"][0], 24);
    assert_eq!(authorize(&mut session, "0"), Ok(WorkerSlot(0)), "the others stay");
}

#[test]
fn user_names_and_passwords_are_bounded() {
    let mut session = session();
    let long = "x".repeat(128);
    assert_eq!(say(&mut session, json!({"id": 1, "method": "mining.authorize", "params": [long, ""]})), None);
    assert_eq!(
        say(&mut session, json!({"id": 1, "method": "mining.authorize", "params": ["a", "x".repeat(256)]})),
        None
    );
    assert_eq!(say(&mut session, json!({"id": 1, "method": "mining.authorize", "params": [""]})), None);
    let answers = sent(&mut session);
    let said = |answer: &Value| answer["error"][1].as_str().unwrap().to_owned();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| answer["error"][0] == 20), "{answers:?}");
    assert!(said(&answers[0]).contains("1 to 127") && said(&answers[2]).contains("1 to 127"), "{answers:?}");
}

#[test]
fn an_error_goes_to_the_request_whose_id_can_be_read() {
    let mut session = session();
    for (line, id) in [
        (r#"{"id":41,"method":"mining.ping","params":{}}"#, json!(41)),
        (r#"{"params":"x","id":"a","method":"mining.ping"}"#, json!("a")),
        (r#"{"id":5,"method":7,"params":[]}"#, json!(5)),
        (r#"{"id":[5],"method":7,"params":[]}"#, Value::Null),
        (r#"{"id":5,"method":"#, Value::Null),
        ("[5]", Value::Null),
    ] {
        assert_eq!(session.handle_line(line.as_bytes()).expect("a few bad lines are borne"), None);
        let answer = sent(&mut session).pop().unwrap();
        assert_eq!((&answer["id"], &answer["error"][0]), (&id, &json!(20)), "{line}");
    }
}

#[test]
fn every_extension_that_is_listed_is_answered() {
    let mut session = session();
    let long = "z".repeat(5_000);
    say(&mut session, json!({"id": 1, "method": "mining.configure", "params": [["info", long, ""], null]}));
    assert_eq!(sent(&mut session)[0]["result"], json!({"info": true, long: false, "": false}));
}

#[test]
fn the_user_agent_is_cut_and_printable() {
    let agent = format!("\u{1b}[2Jminer\n{}", "x".repeat(1000));
    let event = say(&mut session(), json!({"id": 1, "method": "mining.subscribe", "params": [agent]}));
    let Some(Event::Subscribed { user_agent }) = event else { panic!("subscribed") };
    assert!(user_agent.starts_with("[2Jminerx") && user_agent.len() == MAX_USER_AGENT);
}

#[test]
fn a_share_comes_out_as_it_went_in() {
    let mut session = session();
    say(&mut session, json!({"id": 0, "method": "mining.configure", "params": [["version-rolling"], {}]}));
    say(&mut session, json!({"id": 1, "method": "mining.subscribe", "params": []}));
    authorize(&mut session, "a").unwrap();
    let params = json!(["a", "2f", "00112233445566FF", "5f5e1000", "abcdef01", "00002000"]);
    let Some(Event::Submit(submit)) =
        say(&mut session, json!({"id": "s", "method": "mining.submit", "params": params}))
    else {
        panic!("a share");
    };
    assert_eq!((submit.worker, submit.job_id.as_str()), (WorkerSlot(0), "2f"));
    assert_eq!(submit.extranonce2.as_bytes(), [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0xff]);
    assert_eq!((submit.ntime.0, submit.nonce.0), (0x5f5e_1000, 0xabcd_ef01));
    assert_eq!(submit.version_bits, Some(VersionBits(0x2000)));
    sent(&mut session);
    session.answer_submit(&submit.id, Err(&Reject::LowDifficulty));
    assert_eq!(
        sent(&mut session),
        [json!({"id": "s", "result": null, "error": [23, "Low difficulty share", null]})]
    );
}

#[test]
fn a_malformed_share_of_a_known_user_is_answered_and_told_to_the_owner() {
    let mut session = session();
    say(&mut session, json!({"id": 1, "method": "mining.subscribe", "params": []}));
    authorize(&mut session, "a").unwrap();
    sent(&mut session);
    for (params, known) in [
        (json!(["a", "2f", "00", "5f5e1000", "abcdef01"]), true),
        (json!(["a", "2f", "0011223344556677", "5f5e1000", "abcdef01", "20000000"]), true),
        (json!(["a"]), true),
        (json!(["b", "2f", "00", "5f5e1000", "abcdef01"]), false),
    ] {
        let event = say(&mut session, json!({"id": 5, "method": "mining.submit", "params": params}));
        let answers = sent(&mut session);
        assert_eq!((answers.len(), &answers[0]["id"]), (1, &json!(5)));
        match event {
            Some(Event::Refused { worker: WorkerSlot(0), reject }) if known => {
                assert_eq!(
                    (reject.code(), answers[0]["error"][1].as_str()),
                    (20, Some(&*reject.to_string()))
                );
            }
            None if !known => assert_eq!(answers[0]["error"][0], 24),
            other => panic!("{params}: {other:?}"),
        }
    }
}

#[test]
fn a_minimum_difficulty_that_cannot_be_kept_is_refused() {
    let mut session = session().with_max_difficulty(Difficulty::new(8.0).unwrap());
    let mut configure = |value: f64| {
        let options = json!({"minimum-difficulty.value": value});
        let params = json!([["minimum-difficulty"], options]);
        let event = say(&mut session, json!({"id": 1, "method": "mining.configure", "params": params}));
        (event, sent(&mut session)[0]["result"]["minimum-difficulty"].clone())
    };
    assert_eq!(configure(8.0), (Some(Event::MinimumDifficulty(Difficulty::new(8.0).unwrap())), json!(true)));
    assert_eq!(configure(8.5), (None, json!(false)));
}

#[test]
fn the_mask_is_told_once_the_client_is_authorised_and_then_behind_each_answer_that_agrees_to_one() {
    let mut session = session();
    let asks = |mask: &str| json!([["version-rolling"], {"version-rolling.mask": mask}]);
    for mask in ["ffffffff", "00006000"] {
        say(&mut session, json!({"id": 1, "method": "mining.configure", "params": asks(mask)}));
        assert_eq!(sent(&mut session).len(), 1, "the answer alone");
    }
    say(&mut session, json!({"id": 1, "method": "mining.subscribe"}));
    sent(&mut session);
    authorize(&mut session, "a").unwrap();
    let told = json!({"id": null, "method": "mining.set_version_mask", "params": ["00006000"]});
    assert_eq!(sent(&mut session)[1..], [told], "behind the answer, and the latest only");
    authorize(&mut session, "a").unwrap();
    assert_eq!(sent(&mut session).len(), 1, "once");
    for (mask, agreed) in [
        (json!("ffffffff"), "1fffe000"),
        (json!("00C00000"), "00c00000"),
        (json!("6000"), "00006000"),
        (Value::Null, "1fffe000"),
    ] {
        let options = json!({"version-rolling.mask": mask, "version-rolling.min-bit-count": "2"});
        let params = json!([["version-rolling"], options]);
        assert_eq!(say(&mut session, json!({"id": 1, "method": "mining.configure", "params": params})), None);
        let lines = sent(&mut session);
        assert_eq!(lines[0]["result"]["version-rolling.mask"], agreed);
        assert_eq!(
            lines[1..],
            [json!({"id": null, "method": "mining.set_version_mask", "params": [agreed]})]
        );
    }
}

#[test]
fn subscribe_takes_none_to_four_parameters_and_gives_this_connections_extranonce() {
    for params in [
        json!([]),
        json!(["a/1"]),
        json!(["a/1", "00c0ffee"]),
        json!(["a/1", null, "pool.example"]),
        json!([null, 7, "pool.example", 3333]),
    ] {
        let mut session = session();
        let event = say(&mut session, json!({"id": 1, "method": "mining.subscribe", "params": params}));
        assert!(matches!(event, Some(Event::Subscribed { .. })), "{params}");
        let lines = sent(&mut session);
        assert_eq!((lines.len(), &lines[0]["result"][1]), (1, &json!("deadbeef")), "{params}");
        assert_eq!(lines[0]["result"][2], 8);
    }
}

#[test]
fn a_password_that_is_a_number_is_its_text() {
    for (password, text) in [(json!(123), "123"), (json!(-1.5), "-1.5"), (json!("d=5"), "d=5")] {
        let params = json!(["a", password]);
        let event = say(&mut session(), json!({"id": 1, "method": "mining.authorize", "params": params}));
        let Some(Event::Authorize(request)) = event else { panic!("{params}") };
        assert_eq!(&*request.password, text);
    }
    let mut session = session();
    for password in [json!(true), json!(["x"]), json!({})] {
        let params = json!(["a", password]);
        assert_eq!(say(&mut session, json!({"id": 1, "method": "mining.authorize", "params": params})), None);
    }
    assert!(sent(&mut session).iter().all(|answer| answer["error"][0] == 20));
}

#[test]
fn user_names_may_have_127_bytes_and_the_password_may_be_missing_or_null() {
    for params in [json!(["x".repeat(127)]), json!(["a", null]), json!(["a", ""])] {
        let event = say(&mut session(), json!({"id": 1, "method": "mining.authorize", "params": params}));
        let Some(Event::Authorize(request)) = event else { panic!("{params}") };
        assert_eq!(&*request.password, "");
    }
}

#[test]
fn what_the_server_says_unasked_is_read_by_our_client() {
    let options = client::Options {
        user: "a".into(),
        password: "x".into(),
        user_agent: "iop-miner/test".into(),
        version_mask: VersionMask::ALL,
        suggest_difficulty: None,
    };
    let (mut server, mut client) = (session(), client::Session::new(options));
    while client.next_outgoing().is_some() {}
    server.show_message(&format!("\u{1b}[1mstop\n{}", "x".repeat(1000)));
    server.reconnect();
    server.ping();
    let lines: Vec<_> = std::iter::from_fn(|| server.next_outgoing()).collect();
    let mut read = |line: usize| client.handle_line(lines[line].as_ref()).unwrap();
    let Some(client::Event::ShowMessage(text)) = read(0) else { panic!("a message") };
    assert!(text.starts_with("[1mstopx") && text.len() <= MAX_MESSAGE);
    let same_place = client::Reconnect { host: None, port: None, wait: 0 };
    assert_eq!(read(1), Some(client::Event::Reconnect(same_place)));
    assert_eq!(read(2), None);
    let pong = client.next_outgoing().unwrap();
    assert_eq!(pong, b"{\"id\":2147483632,\"result\":\"pong\",\"error\":null}\n");
    assert_eq!(server.handle_line(&pong), Ok(None), "an answer needs no answer");
    assert_eq!(server.queued_bytes(), 0);
}

#[test]
fn a_suggested_target_is_its_difficulty() {
    let target = format!("00000001fffe{:0<52}", "");
    let event = say(&mut session(), json!({"id": 1, "method": "mining.suggest_target", "params": [target]}));
    assert_eq!(event, Some(Event::SuggestDifficulty(Difficulty::new(0.5).unwrap())));
}

#[test]
fn http_and_noise_end_the_connection_and_a_few_bad_lines_do_not() {
    assert_eq!(session().handle_line(b"GET / HTTP/1.1"), Err(Fatal::Http));
    let mut session = session();
    for _ in 1..MAX_MALFORMED {
        assert_eq!(session.handle_line(b"\x16\x03\x01"), Ok(None));
    }
    assert_eq!(session.handle_line(b"{"), Err(Fatal::Malformed));
    assert_eq!(sent(&mut session).len(), MAX_MALFORMED as usize);
}

#[test]
fn an_extranonce2_of_another_width_is_what_the_client_hears_and_what_is_taken() {
    for width in 0..=8 {
        let extranonce1 = Extranonce1::new(&[7; 12]).unwrap();
        let mut session =
            Session::new(extranonce1, VersionMask::SERVER, "gateway/test").with_extranonce2_size(width);
        say(&mut session, json!({"id": 1, "method": "mining.subscribe"}));
        assert_eq!(
            sent(&mut session)[0]["result"],
            json!([
                [["mining.set_difficulty", "07".repeat(12)], ["mining.notify", "07".repeat(12)]],
                "07".repeat(12),
                width
            ])
        );
        authorize(&mut session, "a").unwrap();
        for (digits, good) in [(2 * width, true), (2 * width + 2, false), (2 * width + 1, false)] {
            let params = json!(["a", "1", "0".repeat(digits), "5f5e1000", "a1b2c3d4"]);
            let usual = json!({"id": 2, "method": "mining.submit", "params": params});
            // A string id goes to the general reader.
            for call in [usual, json!({"id": "2", "method": "mining.submit", "params": params})] {
                match say(&mut session, call) {
                    Some(Event::Submit(submit)) => {
                        assert!(good && submit.extranonce2.as_bytes() == vec![0; width]);
                    }
                    other => assert!(!good && matches!(other, Some(Event::Refused { .. })), "{other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_new_extranonce_is_told_to_who_is_subscribed_and_holds_from_then_on() {
    let mut session = session();
    let narrow = Extranonce1::new(&[1, 2, 3]).unwrap();
    session.set_extranonce(narrow, 5);
    assert_eq!(sent(&mut session), Vec::<Value>::new(), "nobody is there yet");
    assert!(!session.takes_extranonces());
    say(&mut session, json!({"id": 1, "method": "mining.subscribe"}));
    let subscribed = &sent(&mut session)[0]["result"];
    assert_eq!((&subscribed[1], &subscribed[2]), (&json!("010203"), &json!(5)));
    say(&mut session, json!({"id": 2, "method": "mining.extranonce.subscribe"}));
    assert!(session.takes_extranonces());
    sent(&mut session);
    session.set_extranonce(Extranonce1::from_u32(9), 2);
    let told = json!({"id": null, "method": "mining.set_extranonce", "params": ["00000009", 2]});
    assert_eq!(sent(&mut session), [told]);
    assert_eq!((*session.extranonce1(), session.extranonce2_size()), (Extranonce1::from_u32(9), 2));
    let mut other = self::session();
    say(&mut other, json!({"id": 1, "method": "mining.configure", "params": [["subscribe-extranonce"]]}));
    assert!(other.takes_extranonces());
}

#[test]
fn a_new_server_mask_is_cut_to_what_the_client_asked_for_and_told_where_it_changes_anything() {
    let mut session = session();
    session.set_server_mask(VersionMask(0x00ff_e000));
    assert_eq!(sent(&mut session), Vec::<Value>::new(), "who does not roll hears nothing");
    authorize(&mut session, "a").unwrap();
    let asks = json!([["version-rolling"], {"version-rolling.mask": "1f00e000"}]);
    say(&mut session, json!({"id": 1, "method": "mining.configure", "params": asks}));
    assert_eq!(session.version_mask(), VersionMask(0x0000_e000));
    sent(&mut session);
    for (server, mask) in [(0x1fff_e000, Some("1f00e000")), (0x1f0f_e000, None), (0, Some("00000000"))] {
        session.set_server_mask(VersionMask(server));
        let told = mask
            .map(|mask| json!({"id": null, "method": "mining.set_version_mask", "params": [mask]}))
            .into_iter()
            .collect::<Vec<_>>();
        assert_eq!(sent(&mut session), told);
    }
    assert_eq!(session.version_mask(), VersionMask::NONE);
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[0-9a-fA-F]{0,20}".prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        Just(json!("alice")),
        Just(json!(["version-rolling", "minimum-difficulty"])),
        Just(json!({"version-rolling.mask": "ffffffff", "minimum-difficulty.value": 1e300})),
    ]
}

proptest! {
    /// Every call is either passed to the owner or answered at once, never both and never twice.
    #[test]
    fn every_call_is_answered_once(
        calls in proptest::collection::vec((
            prop_oneof![
                Just("mining.subscribe"), Just("mining.authorize"), Just("mining.submit"), Just("mining.configure"),
                Just("mining.suggest_difficulty"), Just("mining.suggest_target"), Just("mining.ping"), Just("x"),
            ],
            proptest::collection::vec(scalar(), 0..8),
        ), 0..20),
    ) {
        let mut session = session();
        for (method, params) in calls {
            let event = say(&mut session, json!({"id": 7, "method": method, "params": params}));
            let (answers, unasked): (Vec<_>, Vec<_>) =
                sent(&mut session).into_iter().partition(|line| line["method"].is_null());
            let is_mask = |line: &Value| line["method"] == "mining.set_version_mask";
            prop_assert!(unasked.iter().all(is_mask) && (unasked.is_empty() || method == "mining.configure"));
            match event {
                Some(Event::Authorize(request)) => {
                    prop_assert!(answers.is_empty());
                    session.accept(&request).unwrap();
                    sent(&mut session);
                }
                Some(Event::Submit(_)) => prop_assert!(answers.is_empty()),
                _ => prop_assert!(answers.len() == 1 && answers[0]["id"] == 7, "{:?}", answers),
            }
        }
    }

    #[test]
    fn hostile_lines_never_panic(lines in proptest::collection::vec("[\\x00-\\x7f]{0,60}", 0..15)) {
        let mut session = session();
        for line in lines {
            let _ = session.handle_line(line.as_bytes());
        }
    }
}

#[test]
fn an_extranonce2_of_any_width_is_for_the_owner_to_judge_where_it_says_so() {
    let mut session = session().with_any_extranonce2();
    say(&mut session, json!({"id": 1, "method": "mining.subscribe"}));
    authorize(&mut session, "a").unwrap();
    session.set_extranonce(Extranonce1::from_u32(1), 4);
    let mut submit = |id: Value, digits: usize| {
        let params = json!(["a", "1", "0".repeat(digits), "5f5e1000", "a1b2c3d4"]);
        match say(&mut session, json!({"id": id, "method": "mining.submit", "params": params})) {
            Some(Event::Submit(submit)) => Some(submit.extranonce2.as_bytes().len()),
            _ => None,
        }
    };
    for id in [json!(2), json!("2")] {
        for width in 0..=8 {
            assert_eq!(submit(id.clone(), 2 * width), Some(width));
        }
        assert_eq!((submit(id.clone(), 18), submit(id.clone(), 7)), (None, None));
    }
}

#[test]
fn version_bits_outside_the_mask_are_for_the_owner_to_judge_where_it_says_so() {
    for (mut session, is_passed_on) in [(session(), false), (session().with_any_version_bits(), true)] {
        let asks = json!([["version-rolling"], {"version-rolling.mask": "00002000"}]);
        say(&mut session, json!({"id": 1, "method": "mining.configure", "params": asks}));
        say(&mut session, json!({"id": 2, "method": "mining.subscribe"}));
        authorize(&mut session, "a").unwrap();
        // In the usual shape, and in another one.
        for id in [json!(3), json!("3")] {
            for (bits, is_within) in [("00002000", true), ("00004000", false)] {
                let params = json!(["a", "1", "0000000000000000", "5f5e1000", "a1b2c3d4", bits]);
                let event = say(&mut session, json!({"id": id, "method": "mining.submit", "params": params}));
                assert_eq!(matches!(event, Some(Event::Submit(_))), is_within || is_passed_on, "{bits}");
                assert_eq!(matches!(event, Some(Event::Refused { .. })), !is_within && !is_passed_on);
            }
        }
    }
}

#[test]
fn who_never_asked_to_roll_may_roll_what_it_would_be_offered_and_who_has_asked_what_was_agreed_on() {
    for (asked, allowed) in [
        (None, 0x1fff_e000),
        (Some(json!([["minimum-difficulty"], {"minimum-difficulty.value": 1}])), 0x1fff_e000),
        (Some(json!([["version-rolling"], {"version-rolling.mask": 7}])), 0x1fff_e000),
        (Some(json!([["version-rolling"], {"version-rolling.mask": "00006000"}])), 0x6000),
        (Some(json!([["version-rolling"], {"version-rolling.mask": "e0000000"}])), 0),
    ] {
        let mut session = session();
        if let Some(params) = &asked {
            say(&mut session, json!({"id": 1, "method": "mining.configure", "params": params}));
        }
        say(&mut session, json!({"id": 2, "method": "mining.subscribe"}));
        authorize(&mut session, "a").unwrap();
        assert_eq!(session.version_mask(), VersionMask(allowed));
        // In the usual shape, and in another.
        for id in [json!(3), json!("3")] {
            for bits in [0x2000u32, 0x0040_0000, 0x1fff_e000, 1, 0x2000_0000] {
                let text = format!("{bits:08x}");
                let params = json!(["a", "1", "0000000000000000", "5f5e1000", "a1b2c3d4", text]);
                let event = say(&mut session, json!({"id": id, "method": "mining.submit", "params": params}));
                let is_share = matches!(event, Some(Event::Submit(_)));
                assert_eq!(is_share, bits & !allowed == 0, "{asked:?} {text}");
            }
        }
    }
}

#[test]
fn version_bits_that_are_empty_text_are_none() {
    let mut session = session();
    say(&mut session, json!({"id": 2, "method": "mining.subscribe"}));
    authorize(&mut session, "a").unwrap();
    for id in [json!(3), json!("3")] {
        let params = json!(["a", "1", "0000000000000000", "5f5e1000", "a1b2c3d4", ""]);
        let event = say(&mut session, json!({"id": id, "method": "mining.submit", "params": params}));
        let Some(Event::Submit(submit)) = event else { panic!("{event:?}") };
        assert_eq!(submit.version_bits, None);
    }
}
