//! Setting the system clock while mining: no counter or timer depends on it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::watched::Watched;

/// Seconds in a year.
const YEAR: i64 = 365 * 24 * 3600;

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("{name}: {value}"))
}

#[test]
fn a_clock_that_jumps_loses_no_share_and_makes_no_rate_wrong() {
    let rig = Watched::busy();
    rig.wait_for_a_share();
    let before = rig.stats.snapshot();
    // Ten years ahead, two days back, before 1970, and right again.
    for ahead in [10 * YEAR, -2 * 24 * 3600, -100 * YEAR, 0] {
        rig.clock.set_ahead(ahead);
        rig.wait_for_a_share();
        let status = rig.json("/api/v1/status");
        let (uptime, hashes) = (number(&status, "uptime"), number(&status, "hashes"));
        let after = rig.stats.snapshot();
        assert!(uptime > 0.0 && uptime <= after.elapsed.as_secs_f64(), "{status}");
        let rates = &status["hash_rate"];
        assert!((number(rates, "average") * uptime / hashes - 1.0).abs() < 1e-6, "{status}");
        let average = number(rates, "average");
        for window in ["5s", "10s", "1min", "5min", "15min"] {
            assert!((0.0..=100.0 * average).contains(&number(rates, window)), "{window}: {status}");
        }
        for age in ["seconds_since_accepted", "expected_seconds_to_block"] {
            assert!(number(&status, age) >= 0.0, "{status}");
        }
        assert!(number(&status, "seconds_since_accepted") <= uptime, "{status}");

        let devs: Value =
            serde_json::from_str(rig.ask("{\"command\":\"devs\"}").trim_end_matches('\0')).unwrap();
        let (when, device) = (number(&devs["STATUS"][0], "When"), &devs["DEVS"][0]);
        let (share, elapsed) = (number(device, "Last Share Time"), number(device, "Device Elapsed"));
        assert!(share <= when && when - share <= elapsed + 1.0, "{devs}");
        assert!(
            (when - rig.clock.now() as f64).abs() < 60.0,
            "it tells the time that the machine has: {devs}"
        );

        let metrics = rig.get("/metrics").2;
        let start = metrics.lines().find_map(|line| line.strip_prefix("iop_miner_start_time_seconds "));
        let start: f64 = start.unwrap().parse().unwrap();
        let since = rig.clock.now() as f64 - start;
        let up = rig.stats.snapshot().elapsed.as_secs_f64();
        assert!((since - up).abs() < 5.0, "started {since} s ago and up for {up} s");
    }
    let counts = rig.stats.snapshot().counts;
    assert!(counts.accepted >= before.counts.accepted + 4, "{counts}");
    assert_eq!((counts.refused(), counts.stale, counts.hardware_errors), (0, 0, 0), "{counts}");
}

/// The Rust files in a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The wall clock may only be read where a wrong time affects nothing but displayed text. A new place must be justified
/// here.
#[test]
fn the_clock_that_people_set_is_read_in_few_places() {
    let miner = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [miner.join("src"), miner.join("../mining/src")].map(|folder| sources(&folder)).concat();
    assert!(files.len() > 50, "{files:?}");
    let reads = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        ["SystemTime", "UNIX_EPOCH", "UnixTime::now"].iter().any(|name| text.contains(name))
    };
    let mut readers: Vec<String> = files
        .into_iter()
        .filter(reads)
        .map(|path| path.strip_prefix(miner).unwrap().display().to_string())
        .collect();
    readers.sort_unstable();
    // With it the gateway limits how far a machine's share, or a repeated job, may be ahead of the job's time.
    assert_eq!(readers, ["src/gateway/machine/shares.rs", "src/wall.rs"]);
}
