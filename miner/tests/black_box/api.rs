//! The HTTP API and the metrics of a rig that mines at a pool.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{EASY, PATIENCE, listen};
use crate::watched::{NETWORK_DIFFICULTY, Watched, connect, http};

/// Hashes of a share of difficulty 1.
const HASHES: f64 = 4_294_967_296.0;

#[test]
fn what_the_api_says_is_what_was_counted() {
    let (rig, _client) = Watched::judged();
    let before = rig.stats.snapshot();
    let status = rig.json("/api/v1/status");
    let after = rig.stats.snapshot();
    let hashes = status["hashes"].as_u64().unwrap();
    assert!((before.hashes..=after.hashes).contains(&u128::from(hashes)));
    let uptime = status["uptime"].as_f64().unwrap();
    assert!((before.elapsed.as_secs_f64()..=after.elapsed.as_secs_f64()).contains(&uptime));
    assert_eq!([&status["accepted"], &status["rejected"], &status["stale"]], [20, 2, 1]);
    assert_eq!(status["accepted_work"], 20.0 * EASY);
    let reasons = json!({"Duplicate share (22)": 1, "Odd \"one\" = a\\b|c,d (20)": 1});
    assert_eq!((&status["rejected_reasons"], &status["hardware_errors"]), (&reasons, &json!(0)));
    let share = |name: &str| status[name].as_f64().unwrap();
    assert!((share("rejected_percent") - 200.0 / 23.0).abs() < 1e-9);
    assert!((share("stale_percent") - 100.0 / 23.0).abs() < 1e-9);
    assert!((share("luck") / (20.0 * EASY * HASHES / hashes as f64) - 1.0).abs() < 1e-9);
    assert!((share("accepted_per_minute") / (20.0 * 60.0 / uptime) - 1.0).abs() < 1e-9);
    assert_eq!(status["best"], after.best);
    let rates = &status["hash_rate"];
    for window in ["5s", "10s", "1min", "5min", "15min", "average"] {
        assert!(rates[window].as_f64().unwrap() > 0.0, "{window}");
    }
    let expected = NETWORK_DIFFICULTY * HASHES / rates["1min"].as_f64().unwrap();
    assert!((share("expected_seconds_to_block") / expected - 1.0).abs() < 1e-9);
    assert_eq!(
        (&status["state"], &status["reason"], &status["devices"]),
        (&json!("mining"), &json!(null), &json!(1))
    );
    assert_eq!(
        (&status["job"]["id"], &status["version"]),
        (&json!("job-1"), &json!(env!("CARGO_PKG_VERSION")))
    );

    let devices = rig.json("/api/v1/devices");
    let device = &devices["devices"][0];
    assert_eq!(
        (&devices["total"], &device["name"], &device["state"]),
        (&json!(1), &json!("cpu"), &json!("working"))
    );
    assert_eq!([&device["accepted"], &device["rejected"], &device["stale"]], [20, 2, 1]);

    let sources = rig.json("/api/v1/sources");
    assert_eq!(sources["in_use"], 0);
    let listed = sources["sources"].as_array().unwrap();
    assert_eq!(listed.iter().map(|source| &source["number"]).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(listed[0]["url"], format!("stratum+tcp://{}", rig.pool.local_addr().unwrap()));
    assert_eq!((&listed[0]["user"], &listed[0]["state"]), (&json!("pAddress.rig"), &json!("working")));
    assert_eq!(sources["sources"].as_array(), status["sources"].as_array().map(|_| listed));
}

/// Parses Prometheus text, checking each line; returns values by name with labels.
fn parse_metrics(text: &str) -> HashMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|character| character.is_ascii_alphanumeric() || "_:".contains(character))
    };
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.pop(), Some("# EOF"));
    let (mut described, mut values) = (HashMap::new(), HashMap::new());
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            let [kind, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind) && is_name(name) && !rest.is_empty(), "{line}");
            assert!(name.starts_with("iop_miner_"), "{line}");
            assert_eq!(described.insert((kind, name), rest), None, "{line}: a second time");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(is_name(name) && labels.ends_with('}'), "{line}");
        let family = described.keys().filter(|(kind, family)| *kind == "TYPE" && name.starts_with(family));
        assert!(family.count() > 0, "{line}: no type");
        assert_eq!(values.insert(series.to_owned(), value.parse().unwrap()), None, "{line}: a second time");
    }
    values
}

#[test]
fn a_device_that_pauses_for_its_heat_is_shown_as_such_by_every_api() {
    let (rig, _client) = Watched::judged();
    let why = "95 °C, its limit is 80 °C";
    rig.stats.device("hot").set_paused(Some(why.to_owned()));
    let device = &rig.json("/api/v1/devices")["devices"][1];
    assert_eq!((&device["state"], &device["reason"]), (&json!("paused"), &json!(why)));
    let metrics = parse_metrics(&rig.get("/metrics").2);
    for (series, expected) in [
        ("iop_miner_devices{state=\"paused\"}", 1.0),
        ("iop_miner_devices{state=\"working\"}", 1.0),
        ("iop_miner_device_working{device=\"hot\"}", 0.0),
    ] {
        assert_eq!(metrics.get(series), Some(&expected), "{series}");
    }
    let reply = rig.ask("{\"command\":\"devs\"}");
    let devs: Value = serde_json::from_str(reply.trim_end_matches('\0')).unwrap();
    assert_eq!((&devs["DEVS"][0]["Status"], &devs["DEVS"][1]["Status"]), (&json!("Alive"), &json!("Sick")));
}

#[test]
fn prometheus_reads_the_same_numbers() {
    let (rig, _client) = Watched::judged();
    let (status, head, text) = rig.get("/metrics");
    assert!(
        status == 200 && head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    let metrics = parse_metrics(&text);
    let value = |series: &str| *metrics.get(series).unwrap_or_else(|| panic!("{series} is not in\n{text}"));
    let url = format!("stratum+tcp://{}", rig.pool.local_addr().unwrap());
    for (series, expected) in [
        ("iop_miner_mining", 1.0),
        ("iop_miner_shares_accepted_total", 20.0),
        ("iop_miner_work_total", 20.0 * EASY),
        ("iop_miner_shares_stale_total", 1.0),
        ("iop_miner_shares_rejected_total{reason=\"Duplicate share (22)\"}", 1.0),
        ("iop_miner_shares_rejected_total{reason=\"Odd \\\"one\\\" = a\\\\b|c,d (20)\"}", 1.0),
        ("iop_miner_devices{state=\"working\"}", 1.0),
        ("iop_miner_devices{state=\"failed\"}", 0.0),
        ("iop_miner_device_shares_accepted_total{device=\"cpu\"}", 20.0),
        ("iop_miner_device_working{device=\"cpu\"}", 1.0),
        ("iop_miner_network_difficulty", NETWORK_DIFFICULTY),
        (&format!("iop_miner_source_working{{source=\"0\",url=\"{url}\"}}"), 1.0),
        (&format!("iop_miner_source_share_difficulty{{source=\"0\",url=\"{url}\"}}"), EASY),
    ] {
        assert_eq!(value(series), expected, "{series}");
    }
    for series in [
        "iop_miner_hashes_total",
        "iop_miner_hash_rate_hashes_per_second{window=\"10s\"}",
        "iop_miner_device_hash_rate_hashes_per_second{device=\"cpu\"}",
        "iop_miner_luck_ratio",
        "iop_miner_time_to_block_seconds",
        "iop_miner_start_time_seconds",
        "iop_miner_best_share_difficulty",
    ] {
        assert!(value(series) > 0.0, "{series}");
    }
    // Unknown values have no line, rather than a wrong one.
    assert!(!text.contains("job_height") && !text.contains("device_temperature_celsius{"), "{text}");
}

#[test]
fn the_rig_is_well_while_it_hashes_for_a_source_that_works() {
    let rig = Watched::start();
    let (status, _, body) = rig.get("/healthz");
    assert_eq!(status, 503, "{body}");
    let client = rig.serve();
    rig.wait_for(|snapshot| snapshot.rates.minute.0 > 0.0);
    let (status, _, body) = rig.get("/healthz");
    assert_eq!((status, &*body), (200, "ok\n"));
    drop(client);
    let start = Instant::now();
    let why = loop {
        let (status, _, body) = rig.get("/healthz");
        if status == 503 {
            break body;
        }
        assert!(start.elapsed() < PATIENCE, "{body}");
    };
    assert!(why.contains("stratum+tcp://") && why.lines().count() == 1, "{why}");
    let status = rig.json("/api/v1/status");
    assert_eq!((&status["state"], status["reason"].is_string()), (&json!("no_source"), true), "{status}");
    assert!(rig.get("/metrics").2.contains("\niop_miner_mining 0\n"));
}

fn post(rig: &Watched, host: &str, content_type: &str, body: &str) -> (u16, Value) {
    let head = format!("POST /api/v1/switch HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n");
    let rest = format!("Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let (status, _, answer) = http(rig.api, &(head + &rest));
    (status, serde_json::from_str(&answer).unwrap_or(Value::Null))
}

#[test]
fn a_wish_for_another_source_is_heard_from_this_machine_and_from_no_web_page() {
    let rig = Watched::start();
    let wishes = rig.board.wishes();
    let (json, wish) = ("application/json", "{\"source\": 1}");
    for (host, content_type, body, expected) in [
        ("evil.example", json, wish, 403),
        ("127.0.0.1.evil.example:80", json, wish, 403),
        ("localhost", "text/plain", wish, 415),
        ("localhost", "application/x-www-form-urlencoded", wish, 415),
        ("localhost", json, "", 400),
        ("localhost", json, "{\"source\": -1}", 400),
        ("localhost", json, "{\"source\": 1, \"more\": 2}", 400),
        ("localhost", json, "{\"source\": 2}", 404),
        ("localhost", json, &*format!("{}{wish}", " ".repeat(2000)), 413),
    ] {
        let (status, _) = post(&rig, host, content_type, body);
        assert_eq!(status, expected, "{host} {content_type} {body:.20}");
    }
    assert_eq!(rig.get("/api/v1/switch").0, 405);
    // The preflight of a page is not granted.
    let preflight = "OPTIONS /api/v1/switch HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\
                     Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n";
    let (status, head, _) = http(rig.api, preflight);
    assert!(status == 405 && !head.contains("access-control"), "{head}");
    assert!(!wishes.has_changed().unwrap());
    let (status, answer) = post(&rig, "localhost:4067", "application/json; charset=utf-8", wish);
    assert_eq!((status, answer), (202, json!({"asked_for": 1})));
    assert_eq!(*wishes.borrow(), Some(1));
}

#[test]
fn hostile_clients_neither_stop_the_api_nor_the_mining() {
    let rig = Watched::busy();
    // More connections than there are places, with a partial request or none at all.
    let hanging: Vec<_> = (0..40)
        .map(|i| {
            let mut stream = connect(rig.api);
            let _ = stream.write_all(if i % 2 == 0 { b"GET /metr" } else { b"" });
            stream
        })
        .collect();
    for request in [
        "nonsense\r\n\r\n".to_owned(),
        "\0".repeat(100),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1_000_000)),
        "POST /api/v1/switch HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n".to_owned(),
    ] {
        let mut stream = connect(rig.api);
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        // An answer, or a reset.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // Shares are judged while all of them are open.
    rig.wait_for_a_share();
    assert_eq!(rig.json("/api/v1/status")["state"], "mining");
    assert_eq!(rig.get("/api/v2").0, 404);
    drop(hanging);
}

fn program(more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iop-miner"));
    command
        .args(["mine", "--url", "stratum+tcp://127.0.0.1:1", "--user", "a.b", "--threads", "1"])
        .args(["--suggest-difficulty", "1"])
        .args(more)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

#[test]
fn a_port_that_is_taken_and_an_address_that_is_none_are_named_in_one_line() {
    let (_listener, address) = listen();
    let address = address.to_string();
    for flag in ["--api-bind", "--cgminer-bind"] {
        for (value, status, named) in [
            (&*address, 1, format!("{flag}: cannot listen at {address}: ")),
            ("localhost", 2, "localhost".to_owned()),
        ] {
            let output = program(&[flag, value]).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(status), "{stderr}");
            let complaints: Vec<&str> =
                stderr.lines().filter(|line| line.starts_with("iop-miner: ")).collect();
            assert!(complaints.len() == 1 && complaints[0].contains(&named), "{stderr}");
        }
    }
}

/// A program that is killed when the test ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_program_says_where_it_listens_and_answers_before_any_pool_does() {
    let mut command = program(&["--api-bind", "127.0.0.1:0", "--cgminer-bind", "[::1]:0"]);
    let mut child = Ended(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(child.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut after = |text: &str| -> SocketAddr {
        let line = log.find(|line| line.contains(text)).expect("it says where it listens");
        line.rsplit_once(text).unwrap().1.parse().unwrap()
    };
    let (api, cgminer) = (after("HTTP API at http://"), after("cgminer API at "));
    let (status, _, body) = http(api, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 503, "{body}");
    let mut stream = connect(cgminer);
    stream.write_all(b"{\"command\":\"version\"}").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("\"VERSION\""), "{reply}");
}
