//! The numbers for all views, computed in one place: terminal, JSON lines, HTTP, Prometheus, cgminer.
//!
//! Here: counters and sources at one moment ([`Snapshot`], [`Source`]) become rates, shares, ratios and expectations,
//! with names and units that programs may rely on. Not here: counting ([`crate::stats`]), texts and layout. A number
//! that is not known yet is `None`, and `null` in JSON; none is ever infinite or NaN.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::stats::rate::Rates;
use crate::stats::{Counts, DeviceSnapshot, Health, Snapshot};
use crate::upstream::board::{self, Condition, JobView, Source};

/// Average number of hashes of a share of difficulty 1.
pub const HASHES_PER_DIFFICULTY: f64 = 4_294_967_296.0;
/// Number of shares from which [`Shares::luck`] is shown: with this many, chance alone moves it by a quarter.
pub const LUCK_FROM: u64 = 16;

/// A rig at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Numbers {
    /// The program's version.
    pub version: &'static str,
    /// Seconds since the miner's start.
    pub uptime: f64,
    /// Whether it mines.
    pub state: State,
    /// Why it does not, as text.
    pub reason: Option<String>,
    /// All devices, including those that are gone.
    #[serde(flatten)]
    pub total: Shares,
    /// The current job: that of the source in use.
    pub job: Option<JobNumbers>,
    /// Average seconds to a block: network difficulty × 2³² / the rate of the last minute. Unknown without a job or a
    /// rate. It is an average over many blocks and no promise: it does not shrink while one waits.
    pub expected_seconds_to_block: Option<f64>,
    /// The devices, oldest first.
    pub devices: Vec<DeviceNumbers>,
    /// The sources, in order of preference.
    pub sources: Vec<SourceNumbers>,
}

/// Whether a rig mines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A source works and there were hashes within the last minute.
    Mining,
    /// No source gives work.
    NoSource,
    /// There are devices, and none of them works any more.
    NoDevice,
    /// There is work, but nothing was hashed within the last minute, or all devices that could hash are paused.
    Idle,
}

/// Hashes and shares of a device or of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shares {
    /// Headers hashed. For a machine behind the gateway, estimated from its shares.
    pub hashes: u128,
    /// Hash rates, in hashes per second.
    pub hash_rate: HashRates,
    /// Shares accepted by the upstream.
    pub accepted: u64,
    /// The sum of their difficulties; times 2³² it is the number of hashes that they stand for.
    pub accepted_work: f64,
    /// Accepted shares per minute since the start.
    pub accepted_per_minute: f64,
    /// Shares refused by the upstream, except stale ones.
    pub rejected: u64,
    /// The same by the upstream's reason: at most 17 of them.
    pub rejected_reasons: BTreeMap<String, u64>,
    /// Shares that came too late: not submitted, or refused as stale.
    pub stale: u64,
    /// Rejected shares in percent of all found; unknown before the first one.
    pub rejected_percent: Option<f64>,
    /// Stale shares in percent of all found; unknown before the first one.
    pub stale_percent: Option<f64>,
    /// Wrong nonces, which were not submitted.
    pub hardware_errors: u64,
    /// The highest difficulty of a find; unknown before the first share.
    pub best: Option<f64>,
    /// Seconds since a share was accepted; unknown before the first one.
    pub seconds_since_accepted: Option<f64>,
    /// Accepted work × 2³² / hashes done: 1 if the shares are worth what was hashed. By chance it varies about 1 by one
    /// part in √shares; if it stays lower, shares are being lost, as to refusals and staleness. Unknown before
    /// [`LUCK_FROM`] shares were found.
    pub luck: Option<f64>,
}

/// Hash rates over several windows, in hashes per second. A window longer than the run covers the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HashRates {
    /// Over five seconds.
    #[serde(rename = "5s")]
    pub five_seconds: f64,
    /// Over ten seconds.
    #[serde(rename = "10s")]
    pub ten_seconds: f64,
    /// Over a minute.
    #[serde(rename = "1min")]
    pub minute: f64,
    /// Over five minutes.
    #[serde(rename = "5min")]
    pub five_minutes: f64,
    /// Over a quarter of an hour.
    #[serde(rename = "15min")]
    pub quarter: f64,
    /// Since the start.
    pub average: f64,
}

/// A device at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceNumbers {
    /// Its name in `--devices`, or the name a machine uses; machines may share a name.
    pub name: String,
    /// Seconds since it started.
    pub uptime: f64,
    /// `working`, `paused` or `failed`.
    pub state: &'static str,
    /// Why it is paused or failed, as text.
    pub reason: Option<String>,
    /// Degrees Celsius, if the platform reports it.
    pub temperature: Option<f32>,
    /// Its hashes and shares.
    #[serde(flatten)]
    pub shares: Shares,
}

/// A source at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct SourceNumbers {
    /// Its index in the order of preference, from 0: used to ask for it.
    pub number: usize,
    /// Where it is, without secrets.
    pub url: String,
    /// Our identity there.
    pub user: String,
    /// `unused`, `connecting`, `working`, `waiting` or `away`.
    pub state: &'static str,
    /// Why it is waiting or away, as text.
    pub reason: Option<String>,
    /// Whether it is the one in use, or on the way to be.
    pub in_use: bool,
    /// Seconds in that state.
    pub seconds_in_state: Option<f64>,
    /// The difficulty of its shares.
    pub difficulty: Option<f64>,
    /// Its newest job.
    pub job: Option<JobNumbers>,
    /// Number of jobs received.
    pub jobs: u64,
    /// Shares it accepted.
    pub accepted: u64,
    /// Shares it refused, except stale ones.
    pub rejected: u64,
    /// Shares it refused as stale, or that were not submitted.
    pub stale: u64,
    /// Seconds since it accepted one.
    pub seconds_since_accepted: Option<f64>,
    /// How long its last verdict took, in seconds.
    pub answer_seconds: Option<f64>,
    /// Blocks found, if known.
    pub blocks: u64,
    /// Its last message for people.
    pub message: Option<String>,
}

/// A job at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobNumbers {
    /// The source's name for it.
    pub id: String,
    /// The height of its block, if known.
    pub height: Option<u32>,
    /// The difficulty of a block.
    pub network_difficulty: f64,
    /// Seconds since it came.
    pub age: f64,
}

impl Numbers {
    /// The numbers for these counters and sources.
    #[must_use]
    pub fn new(stats: &Snapshot, sources: &[Source]) -> Self {
        let now = Instant::now();
        let total = Shares::new(&stats.counts, stats.rates, stats.hashes, stats.best, stats.elapsed);
        let in_use = board::current(sources);
        let sources: Vec<SourceNumbers> = sources
            .iter()
            .enumerate()
            .map(|(number, source)| SourceNumbers::new(number, source, number == in_use, now))
            .collect();
        let devices: Vec<DeviceNumbers> = stats.devices.iter().map(DeviceNumbers::new).collect();
        let job = sources.iter().find(|source| source.in_use).and_then(|source| source.job.clone());
        let (state, reason) = state(&total, &devices, &sources);
        let rate = total.hash_rate.minute;
        let expected = |job: &JobNumbers| finite(job.network_difficulty * HASHES_PER_DIFFICULTY / rate);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime: stats.elapsed.as_secs_f64(),
            state,
            reason,
            expected_seconds_to_block: job.as_ref().and_then(expected),
            total,
            job,
            devices,
            sources,
        }
    }

    /// The source in use; the first one if there is none.
    #[must_use]
    pub fn current(&self) -> Option<&SourceNumbers> {
        self.sources.iter().find(|source| source.in_use).or(self.sources.first())
    }
}

/// Whether the rig mines, and why not.
fn state(total: &Shares, devices: &[DeviceNumbers], sources: &[SourceNumbers]) -> (State, Option<String>) {
    if !sources.iter().any(|source| source.state == "working") {
        let told = sources.iter().find(|source| source.in_use);
        let reason = told.map_or_else(
            || "no source is in use".to_owned(),
            |source| match &source.reason {
                Some(reason) => format!("{} is {}: {reason}", source.url, source.state),
                None => format!("{} is {}", source.url, source.state),
            },
        );
        return (State::NoSource, Some(reason));
    }
    if !devices.is_empty() && devices.iter().all(|device| device.state != "working") {
        // A paused device resumes by itself.
        return match devices.iter().find(|device| device.state == "paused") {
            Some(DeviceNumbers { name, reason, .. }) => {
                let why = reason.as_deref().map_or_else(String::new, |why| format!(": {why}"));
                (State::Idle, Some(format!("{name} pauses{why}")))
            }
            None => (State::NoDevice, Some("no device works any more".to_owned())),
        };
    }
    if total.hash_rate.minute > 0.0 {
        (State::Mining, None)
    } else {
        (State::Idle, Some("nothing was hashed within the last minute".to_owned()))
    }
}

impl Shares {
    fn new(counts: &Counts, rates: Rates, hashes: u128, best: f64, elapsed: Duration) -> Self {
        let rejected = counts.refused();
        let found = counts.accepted + rejected + counts.stale;
        let percent = |part: u64| (found > 0).then(|| 100.0 * part as f64 / found as f64);
        let luck = || finite(counts.work * HASHES_PER_DIFFICULTY / hashes as f64);
        let minutes = elapsed.as_secs_f64() / 60.0;
        Self {
            hashes,
            hash_rate: HashRates::new(rates),
            accepted: counts.accepted,
            accepted_work: counts.work,
            accepted_per_minute: finite(counts.accepted as f64 / minutes).unwrap_or(0.0),
            rejected,
            rejected_reasons: counts.rejected.clone(),
            stale: counts.stale,
            rejected_percent: percent(rejected),
            stale_percent: percent(counts.stale),
            hardware_errors: counts.hardware_errors,
            best: (best > 0.0).then_some(best),
            seconds_since_accepted: counts.last_accepted.map(|at| elapsed.saturating_sub(at).as_secs_f64()),
            luck: (found >= LUCK_FROM).then(luck).flatten(),
        }
    }
}

impl HashRates {
    fn new(rates: Rates) -> Self {
        Self {
            five_seconds: rates.five_seconds.0,
            ten_seconds: rates.ten_seconds.0,
            minute: rates.minute.0,
            five_minutes: rates.five_minutes.0,
            quarter: rates.quarter.0,
            average: rates.average.0,
        }
    }
}

impl DeviceNumbers {
    fn new(device: &DeviceSnapshot) -> Self {
        let (state, reason) = match &device.health {
            Health::Working => ("working", None),
            Health::Paused(why) => ("paused", Some(why.clone())),
            Health::Failed(why) => ("failed", Some(why.clone())),
        };
        Self {
            name: device.name.clone(),
            uptime: device.elapsed.as_secs_f64(),
            state,
            reason,
            temperature: device.temperature.filter(|celsius| celsius.is_finite()),
            shares: Shares::new(&device.counts, device.rates, device.hashes, device.best, device.elapsed),
        }
    }
}

impl SourceNumbers {
    fn new(number: usize, source: &Source, nearest: bool, now: Instant) -> Self {
        let since = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        let (state, reason) = match &source.condition {
            Condition::Unused => ("unused", None),
            Condition::Connecting => ("connecting", None),
            Condition::Working => ("working", None),
            Condition::Waiting(why) => ("waiting", Some(why.clone())),
            Condition::Away(why) => ("away", Some(why.clone())),
        };
        let job = |job: &JobView| JobNumbers {
            id: job.id.clone(),
            height: job.height,
            network_difficulty: job.network_difficulty,
            age: since(job.since),
        };
        Self {
            number,
            url: source.url.clone(),
            user: source.user.clone(),
            state,
            reason,
            in_use: nearest && source.condition != Condition::Unused,
            seconds_in_state: source.since.map(since),
            difficulty: source.difficulty,
            job: source.job.as_ref().map(job),
            jobs: source.jobs,
            accepted: source.accepted,
            rejected: source.rejected,
            stale: source.stale,
            seconds_since_accepted: source.last_accepted.map(since),
            answer_seconds: source.answer.map(|answer| answer.as_secs_f64()),
            blocks: source.blocks,
            message: source.message.clone(),
        }
    }
}

/// `None` if it is not a finite number, as after a division by zero.
fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;
    use crate::stats::{HashRate, Stats};
    use crate::upstream::Board;

    fn board() -> Board {
        Board::new(["stratum+tcp://a:1", "stratum+tcp://b:2"].map(|url| (url.to_owned(), "user".to_owned())))
    }

    fn working(source: &mut Source) {
        source.set(Condition::Working);
        source.difficulty = Some(0.5);
        source.job = Some(JobView {
            id: "7".to_owned(),
            height: Some(12),
            network_difficulty: 100.0,
            since: Instant::now(),
        });
    }

    /// Two minutes of a device at 2³⁰ hashes per second.
    fn steady() -> Snapshot {
        let stats = Stats::new();
        let _cpu = stats.device("cpu");
        let mut now = stats.snapshot();
        let rate = HashRate(1_073_741_824.0);
        now.rates = Rates {
            five_seconds: rate,
            ten_seconds: rate,
            minute: rate,
            five_minutes: rate,
            quarter: rate,
            average: rate,
        };
        (now.elapsed, now.hashes) = (Duration::from_secs(120), 120 << 30);
        now
    }

    #[test]
    fn a_block_takes_its_difficulty_times_two_to_the_32_over_the_rate() {
        let board = board();
        let idle = Numbers::new(&steady(), &board.sources());
        assert_eq!((idle.expected_seconds_to_block, idle.job), (None, None));
        board.change(1, working);
        let mut stats = steady();
        assert_eq!(Numbers::new(&stats, &board.sources()).expected_seconds_to_block, Some(400.0));
        stats.rates.minute = HashRate(0.0);
        assert_eq!(Numbers::new(&stats, &board.sources()).expected_seconds_to_block, None);
    }

    #[test]
    fn the_source_in_use_is_the_one_that_works_and_not_one_that_failed_before() {
        let board = board();
        board.change(0, |source| source.set(Condition::Away("refused".to_owned())));
        let in_use = |board: &Board| {
            let numbers = Numbers::new(&steady(), &board.sources());
            numbers.sources.iter().map(|source| source.in_use).collect::<Vec<_>>()
        };
        assert_eq!(in_use(&board), [true, false]);
        board.change(1, working);
        assert_eq!(in_use(&board), [false, true]);
        assert_eq!(Numbers::new(&steady(), &board.sources()).job.unwrap().id, "7");
    }

    #[test]
    fn luck_is_accepted_work_over_hashes_once_there_are_enough_shares() {
        let mut stats = steady();
        (stats.counts.accepted, stats.counts.work, stats.counts.stale) = (14, 15.0, 1);
        assert_eq!(Numbers::new(&stats, &[]).total.luck, None);
        stats.counts.rejected.insert("Duplicate share (22)".to_owned(), 1);
        let total = Numbers::new(&stats, &[]).total;
        // 15 shares of difficulty 1 where 30 are expected.
        assert_eq!(total.luck, Some(0.5));
        assert_eq!((total.rejected_percent, total.stale_percent), (Some(6.25), Some(6.25)));
        assert_eq!(total.accepted_per_minute, 7.0);
        stats.hashes = 0;
        assert_eq!(Numbers::new(&stats, &[]).total.luck, None);
    }

    #[test]
    fn the_time_since_a_share_and_the_best_one_are_unknown_until_there_is_one() {
        let mut stats = steady();
        let total = Numbers::new(&stats, &[]).total;
        assert_eq!((total.seconds_since_accepted, total.best, total.rejected_percent), (None, None, None));
        (stats.counts.last_accepted, stats.best) = (Some(Duration::from_secs(110)), 3.0);
        let total = Numbers::new(&stats, &[]).total;
        assert_eq!((total.seconds_since_accepted, total.best), (Some(10.0), Some(3.0)));
    }

    #[test]
    fn a_rig_mines_with_a_source_a_device_and_hashes_and_says_what_is_missing() {
        let board = board();
        let say = |stats: &Snapshot, board: &Board| {
            let numbers = Numbers::new(stats, &board.sources());
            (numbers.state, numbers.reason.unwrap_or_default())
        };
        assert_eq!(say(&steady(), &board), (State::NoSource, "no source is in use".to_owned()));
        board.change(1, |source| source.set(Condition::Away("connection refused".to_owned())));
        let away = "stratum+tcp://b:2 is away: connection refused".to_owned();
        assert_eq!(say(&steady(), &board), (State::NoSource, away));
        board.change(1, working);
        assert_eq!(say(&steady(), &board), (State::Mining, String::new()));
        let mut stats = steady();
        stats.rates.minute = HashRate(0.0);
        assert_eq!(say(&stats, &board).0, State::Idle);
        stats = steady();
        let mut hot = steady();
        hot.devices[0].health = Health::Paused("95 °C".to_owned());
        hot.devices.truncate(1);
        assert_eq!(say(&hot, &board), (State::Idle, "cpu pauses: 95 °C".to_owned()));
        stats.devices[0].health = Health::Failed("no kernel".to_owned());
        assert_eq!(say(&stats, &board).0, State::NoDevice);
        stats.devices.clear();
        assert_eq!(say(&stats, &board).0, State::Mining);
    }

    #[test]
    fn json_has_totals_devices_and_sources_under_stable_names() {
        let board = board();
        board.change(0, working);
        let json: Value = serde_json::to_value(Numbers::new(&steady(), &board.sources())).unwrap();
        assert_eq!((&json["state"], &json["uptime"]), (&"mining".into(), &120.0.into()));
        for name in ["5s", "10s", "1min", "5min", "15min", "average"] {
            assert_eq!(json["hash_rate"][name], 1_073_741_824.0);
        }
        assert_eq!((&json["luck"], &json["best"]), (&Value::Null, &Value::Null));
        assert_eq!(
            (&json["devices"][0]["name"], &json["devices"][0]["accepted"]),
            (&"cpu".into(), &0.into())
        );
        let source = &json["sources"][0];
        assert_eq!((&source["number"], &source["in_use"]), (&0.into(), &true.into()));
        assert_eq!((&source["job"]["height"], &json["job"]["id"]), (&12.into(), &"7".into()));
    }
}
