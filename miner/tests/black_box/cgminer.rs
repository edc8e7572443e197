//! The cgminer API of a rig that mines at a pool, as used by monitors.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::EASY;
use crate::watched::{Watched, connect};

/// A reply in JSON, without the NUL that must end it.
fn ask(rig: &Watched, command: &str, parameter: &str) -> Value {
    let request = json!({"command": command, "parameter": parameter}).to_string();
    let reply = rig.ask(&request);
    let body = reply.strip_suffix('\0').unwrap_or_else(|| panic!("no NUL: {reply}"));
    serde_json::from_str(body).unwrap()
}

/// A reply as text: its sections, each with names and values. In this rig only URLs have escaped characters.
fn sections(reply: &str) -> Vec<HashMap<&str, &str>> {
    let body = reply.strip_suffix('\0').unwrap_or_else(|| panic!("no NUL: {reply}"));
    let sections = body.strip_suffix('|').unwrap_or_else(|| panic!("no end: {body}")).split('|');
    let pair = |pair| str::split_once(pair, '=').unwrap_or((pair, ""));
    sections.map(|section| section.split(',').map(pair).collect()).collect()
}

fn code(reply: &Value) -> (&str, u64, &str) {
    let status = &reply["STATUS"][0];
    assert!(status["When"].as_u64().unwrap() > 1_700_000_000);
    assert!(status["Description"].as_str().unwrap().starts_with("iop-miner "));
    (status["STATUS"].as_str().unwrap(), status["Code"].as_u64().unwrap(), status["Msg"].as_str().unwrap())
}

#[test]
fn a_summary_has_cgminers_names_and_our_numbers() {
    let (rig, _client) = Watched::judged();
    let reply = ask(&rig, "summary", "");
    assert_eq!((code(&reply), &reply["id"]), (("S", 11, "Summary"), &json!(1)));
    let summary = &reply["SUMMARY"][0];
    assert_eq!([&summary["Accepted"], &summary["Rejected"], &summary["Stale"]], [20, 2, 1]);
    assert_eq!(
        (&summary["Hardware Errors"], &summary["Difficulty Accepted"]),
        (&json!(0), &json!(0.000_305_18))
    );
    assert!((summary["Pool Rejected%"].as_f64().unwrap() - 200.0 / 23.0).abs() < 1e-4);
    let counters = rig.stats.snapshot();
    assert_eq!(summary["Best Share"], counters.best as u64);
    let [mega, giga] = ["MHS av", "GHS av"].map(|name| summary[name].as_f64().unwrap());
    assert!((mega - giga * 1e3).abs() < 1e-3, "{summary}");
    for name in ["MHS av", "MHS 5s", "MHS 1m", "MHS 5m", "MHS 15m", "Total MH", "Utility"] {
        assert!(summary[name].as_f64().unwrap() > 0.0, "{name}");
    }
    assert!(summary["Total MH"].as_f64().unwrap() * 1e6 <= counters.hashes as f64 + 50.0);
    // Whole numbers are JSON integers, as typed clients require.
    for name in
        ["Elapsed", "Found Blocks", "Getworks", "Discarded", "Get Failures", "Local Work", "Last getwork"]
    {
        assert!(summary[name].is_u64(), "{name}");
    }
    // The same as text.
    let text = rig.ask("summary");
    let sections = sections(&text);
    assert!(text.starts_with("STATUS=S,When=") && text.contains("|SUMMARY,Elapsed="), "{text}");
    assert_eq!((sections[0]["Code"], sections[0]["Msg"]), ("11", "Summary"));
    let mut names: Vec<&str> = sections[1].keys().copied().filter(|name| *name != "SUMMARY").collect();
    let mut expected: Vec<&str> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!((names, sections[1]["Accepted"]), (expected, "20"));
}

#[test]
fn devices_and_pools_are_listed_with_what_they_did() {
    let (rig, _client) = Watched::judged();
    let devs = ask(&rig, "devs", "");
    assert_eq!(code(&devs), ("S", 9, "1 ASC(s)"));
    let device = &devs["DEVS"][0];
    assert_eq!(
        (&device["ASC"], &device["Name"], &device["Status"]),
        (&json!(0), &json!("cpu"), &json!("Alive"))
    );
    assert_eq!(
        (&device["Enabled"], &device["Accepted"], &device["Last Share Pool"]),
        (&json!("Y"), &json!(20), &json!(0))
    );
    let (when, share) =
        (devs["STATUS"][0]["When"].as_u64().unwrap(), device["Last Share Time"].as_u64().unwrap());
    assert!(share <= when && when - share < 3600, "{share} of {when}");
    assert_eq!(ask(&rig, "asc", "0")["ASC"][0]["Name"], "cpu");
    assert_eq!(code(&ask(&rig, "asc", "1")), ("E", 107, "Invalid ASC id 1 - range is 0 - 0"));

    let pools = ask(&rig, "pools", "");
    assert_eq!(code(&pools), ("S", 7, "2 Pool(s)"));
    let pool = &pools["POOLS"][0];
    assert_eq!(pool["URL"], format!("stratum+tcp://{}", rig.pool.local_addr().unwrap()));
    assert_eq!(
        (&pool["User"], &pool["Status"], &pool["Stratum Active"]),
        (&json!("pAddress.rig"), &json!("Alive"), &json!(true))
    );
    assert_eq!(
        (&pool["Stratum Difficulty"], &pools["POOLS"][1]["POOL"]),
        (&json!((EASY * 1e8).round() / 1e8), &json!(1))
    );
    let text = rig.ask("pools|");
    assert_eq!(
        sections(&text).iter().filter_map(|section| section.get("POOL")).collect::<Vec<_>>(),
        [&"0", &"1"]
    );
}

#[test]
fn every_report_answers_in_both_forms_alone_and_joined() {
    let (rig, _client) = Watched::judged();
    let reports = [
        ("version", 22, "VERSION"),
        ("config", 33, "CONFIG"),
        ("summary", 11, "SUMMARY"),
        ("devs", 9, "DEVS"),
        ("edevs", 9, "DEVS"),
        ("pools", 7, "POOLS"),
        ("devdetails", 69, "DEVDETAILS"),
        ("stats", 70, "STATS"),
        ("coin", 78, "COIN"),
        ("asccount", 104, "ASCS"),
        ("pgacount", 59, "PGAS"),
    ];
    let joined = ask(&rig, &reports.map(|(name, _, _)| name).join("+"), "");
    assert_eq!(joined["id"], 1);
    for (command, number, section) in reports {
        for reply in [&ask(&rig, command, ""), &joined[command][0]] {
            assert_eq!((code(reply).0, code(reply).1), ("S", number), "{command}");
            assert!(!reply[section].as_array().unwrap().is_empty(), "{command}: {reply}");
            assert!(reply[section].as_array().unwrap().iter().all(Value::is_object));
        }
        let text = rig.ask(&format!("{command}\n"));
        let sections = sections(&text);
        assert!(sections.len() >= 2 && sections[0]["Code"] == number.to_string(), "{text}");
    }
    assert_eq!(ask(&rig, "coin", "")["COIN"][0]["Network Difficulty"], 1.0);
    assert_eq!(ask(&rig, "version", "")["VERSION"][0]["API"], "3.7");
    assert_eq!(ask(&rig, "config", "")["CONFIG"][0]["Pool Count"], 2);
    let text = rig.ask("summary+devs+dig+switchpool|1");
    let commands: Vec<&str> = text.split('|').filter_map(|section| section.strip_prefix("CMD=")).collect();
    assert_eq!(commands, ["summary", "devs", "dig", "switchpool"]);
    let codes: Vec<&str> =
        sections(&text).into_iter().filter_map(|section| section.get("Code").copied()).collect();
    assert_eq!(codes, ["11", "9", "14", "45"]);
    assert!(!rig.board.wishes().has_changed().unwrap() && rig.board.wishes().borrow().is_none());
}

#[test]
fn what_is_wrong_with_a_request_has_cgminers_code() {
    let rig = Watched::start();
    for (request, number) in [
        ("dig", 14),
        ("", 14),
        ("Summary", 14),
        ("restart", 14),
        ("quit", 14),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nswitchpool|1", 14),
        ("switchpool", 25),
        ("switchpool|", 25),
        ("switchpool|2", 26),
        ("switchpool|-1", 26),
        ("switchpool|99999999999999999999", 26),
        ("asc", 15),
        ("check", 71),
    ] {
        // An empty request gets no answer.
        let reply = rig.ask(&format!("{request}\n"));
        let sections = sections(&reply);
        assert_eq!(
            (sections[0]["STATUS"], sections[0]["Code"]),
            ("E", &*number.to_string()),
            "{request}: {reply}"
        );
    }
    for (request, number) in [
        ("{\"command\":\"dig\"}", 14),
        ("{\"command\":7}", 14),
        ("{}", 24),
        ("{nonsense", 23),
        ("{\"a\":", 23),
    ] {
        let mut stream = connect(rig.cgminer);
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let reply: Value = serde_json::from_str(reply.trim_end_matches('\0')).unwrap();
        assert_eq!((code(&reply).0, code(&reply).1), ("E", number), "{request}");
    }
    assert!(rig.board.wishes().borrow().is_none());
}

#[test]
fn switchpool_asks_the_board_for_the_pool() {
    let rig = Watched::start();
    let wishes = rig.board.wishes();
    assert_eq!(code(&ask(&rig, "privileged", "")), ("S", 46, "Privileged access OK"));
    assert_eq!(ask(&rig, "check", "switchpool")["CHECK"], json!([{"Exists": "Y", "Access": "Y"}]));
    assert_eq!(ask(&rig, "check", "addpool")["CHECK"], json!([{"Exists": "N", "Access": "N"}]));
    let reply = ask(&rig, "switchpool", "1");
    let (severity, number, message) = code(&reply);
    assert_eq!((severity, number), ("S", 27));
    assert!(message.starts_with("Switching to pool 1:'stratum+tcp://127.0.0.1:"), "{message}");
    assert_eq!(*wishes.borrow(), Some(1));
    assert!(rig.ask("switchpool|0").contains(",Code=27,"));
    assert_eq!(*wishes.borrow(), Some(0));
}

#[test]
fn hostile_clients_neither_stop_the_api_nor_the_mining() {
    let rig = Watched::busy();
    // More connections than there are places.
    let hanging: Vec<_> = (0..40)
        .map(|i| {
            let mut stream = connect(rig.cgminer);
            let _ = stream.write_all(if i % 2 == 0 { b"{\"command\":" } else { b"" });
            stream
        })
        .collect();
    rig.wait_for_a_share();
    // A request that arrives in pieces is waited for.
    let mut stream = connect(rig.cgminer);
    for piece in ["{\"comm", "and\":\"ver", "sion\"}"] {
        stream.write_all(piece.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("\"VERSION\""), "{reply}");
    // An oversized request gets an error, or is cut off while being sent.
    for (request, number) in [("x".repeat(5000), 14), (format!("{{\"command\":\"{}", "x".repeat(5000)), 14)] {
        assert!(rig.ask(&request).contains(&number.to_string()), "{request:.20}");
    }
    let mut stream = connect(rig.cgminer);
    let _ = stream.write_all(&vec![b'x'; 10_000_000]);
    let _ = stream.read_to_end(&mut Vec::new());
    // A client that requests everything and reads nothing delays no other.
    let mut greedy = connect(rig.cgminer);
    greedy.write_all(format!("{}\n", "dig+".repeat(1000)).as_bytes()).unwrap();
    assert_eq!(code(&ask(&rig, "summary", "")).1, 11);
    drop((hanging, greedy));
}
