//! `cargo bench --bench vardiff`: a simulation of vardiff, printed as a table and drawn as docs/images/vardiff.svg.
//!
//! Machines from a CPU to the largest ASIC find shares as a Poisson process, from the default start difficulty; then
//! machines whose rate jumps or that fall silent. Time is simulated: hours take milliseconds.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use iop_mining::vardiff::{Aim, Vardiff};
use iop_stratum::difficulty::{Difficulty, HASHES_AT_1};

/// The main network's default.
const START: f64 = 1024.0;
/// Runs of each case; a figure is their median.
const RUNS: u64 = 200;
/// Time from the start of a run until the steady state is measured, in seconds.
const SETTLED: f64 = 600.0;
/// Length of a run, in seconds.
const LONG: f64 = 5.0 * 3600.0;
/// Rates, in hashes per second.
const RATES: [f64; 6] = [1e5, 1e6, 1e8, 1e10, 1e12, 2e14];

fn aim() -> Aim {
    let difficulty = |value| Difficulty::new(value).expect("above zero");
    Aim { seconds_per_share: 5.0, min: difficulty(1e-4), max: difficulty(1e9) }
}

/// SplitMix64: the same runs each time.
struct Random(u64);

impl Random {
    /// A waiting time with mean 1.
    fn wait(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        -(1.0 - part).ln()
    }
}

/// The events of a run, with times in seconds from its start.
#[derive(Default)]
struct Run {
    shares: Vec<f64>,
    /// Times of changes, and the difficulty from then on.
    changes: Vec<(f64, f64)>,
}

/// A machine whose rate depends on the time, in steps at `edges`.
fn simulate(seed: u64, seconds: f64, edges: &[f64], rate: impl Fn(f64) -> f64) -> Run {
    let (begun, mut random) = (Instant::now(), Random(seed));
    let start = Difficulty::new(START).expect("above zero");
    let mut vardiff = Vardiff::new(start, begun);
    let mut run = Run { shares: Vec::new(), changes: vec![(0.0, START)] };
    let (mut at, mut work) = (0.0, random.wait());
    while at < seconds {
        let current = vardiff.difficulty();
        // Shares come as work is done: work before a change of rate or difficulty is neither lost nor gained, as hashes
        // are independent.
        let per_second = rate(at) / (current.get() * HASHES_AT_1);
        let share = at + work / per_second;
        let edge = edges.iter().copied().find(|edge| *edge > at).unwrap_or(f64::INFINITY);
        let silent = vardiff
            .silent_from(&aim())
            .map_or(f64::INFINITY, |from| from.saturating_duration_since(begun).as_secs_f64().max(at));
        let next = share.min(edge).min(silent);
        if next > seconds {
            break;
        }
        work -= (next - at) * per_second;
        at = next;
        let now = begun + Duration::from_secs_f64(at);
        let changed = if share <= edge.min(silent) {
            work = random.wait();
            run.shares.push(at);
            vardiff.on_share(current, now, &aim())
        } else {
            silent <= edge && vardiff.on_silence(now, &aim())
        };
        if changed {
            run.changes.push((at, vardiff.difficulty().get()));
        }
    }
    run
}

impl Run {
    /// The time from which the difficulty stays within a factor of 2 of the right one for ten shares' time.
    fn near_from(&self, after: f64, right: f64) -> f64 {
        let mut since = None;
        for (index, (at, difficulty)) in self.changes.iter().enumerate() {
            let until = self.changes.get(index + 1).map_or(f64::INFINITY, |next| next.0);
            if until <= after {
                continue;
            }
            let off = difficulty / right;
            if !(0.5..=2.0).contains(&off) {
                since = None;
            } else {
                let since = *since.get_or_insert(at.max(after));
                if until - since >= 50.0 {
                    return since - after;
                }
            }
        }
        f64::INFINITY
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn right(rate: f64) -> f64 {
    (rate * aim().seconds_per_share / HASHES_AT_1).max(aim().min.get())
}

fn steady() {
    println!("From difficulty {START}, {RUNS} runs of {} h each; steady: after ten minutes.", LONG / 3600.0);
    println!(
        "{:>9} {:>12} {:>9} {:>9} {:>12} {:>12} {:>13} {:>12}",
        "H/s", "right", "near, s", "worst, s", "s per share", "spread", "changes/h", "first 10 min"
    );
    for rate in RATES {
        let runs: Vec<Run> = (0..RUNS).map(|seed| simulate(seed, LONG, &[], |_| rate)).collect();
        let near: Vec<f64> = runs.iter().map(|run| run.near_from(0.0, right(rate))).collect();
        let hours = (LONG - SETTLED) / 3600.0;
        let count = |run: &Run| run.shares.iter().filter(|at| **at >= SETTLED).count() as f64;
        let pace = median(runs.iter().map(|run| (LONG - SETTLED) / count(run)).collect());
        // The difficulty's deviation from the right one, weighted by time, as a standard deviation of its logarithm.
        let spread = median(runs.iter().map(|run| spread(run, right(rate))).collect());
        let changes = runs
            .iter()
            .map(|run| run.changes.iter().filter(|(at, _)| *at >= SETTLED).count() as f64 / hours)
            .sum::<f64>()
            / RUNS as f64;
        let first = median(
            runs.iter().map(|run| run.shares.iter().filter(|at| **at < SETTLED).count() as f64).collect(),
        );
        println!(
            "{rate:>9.0e} {:>12.5} {:>9.0} {:>9.0} {pace:>12.2} {:>11.0}% {changes:>13.2} {first:>12.0}",
            right(rate),
            median(near.clone()),
            worst(&near),
            spread * 100.0
        );
    }
}

fn spread(run: &Run, right: f64) -> f64 {
    let (mut sum, mut time) = (0.0, 0.0);
    for (index, (at, difficulty)) in run.changes.iter().enumerate() {
        let until = run.changes.get(index + 1).map_or(LONG, |next| next.0);
        let seconds = until - at.max(SETTLED);
        if seconds > 0.0 {
            sum += (difficulty / right).ln().powi(2) * seconds;
            time += seconds;
        }
    }
    (sum / time).sqrt()
}

fn steps() {
    println!("\nAfter an hour at 1e12 H/s the rate changes; time until the difficulty is near again.");
    println!("{:>22} {:>9} {:>9}", "to H/s", "median, s", "worst, s");
    for to in [1e12 / 1000.0, 1e11, 5e11, 2e12, 1e13, 2e14] {
        let near: Vec<f64> = (0..RUNS)
            .map(|seed| {
                let run = simulate(seed, 7200.0, &[3600.0], |at| if at < 3600.0 { 1e12 } else { to });
                run.near_from(3600.0, right(to))
            })
            .collect();
        println!("{to:>22.0e} {:>9.0} {:>9.0}", median(near.clone()), worst(&near));
    }
    let (mut near, mut burst) = (Vec::new(), Vec::new());
    for seed in 0..RUNS {
        let run = simulate(seed, 7200.0, &[3600.0, 4200.0], |at| {
            if (3600.0..4200.0).contains(&at) { 1e-9 } else { 1e12 }
        });
        near.push(run.near_from(4200.0, right(1e12)));
        burst.push(run.shares.iter().filter(|at| (4200.0..4260.0).contains(*at)).count() as f64);
    }
    println!(
        "{:>22} {:>9.0} {:>9.0}   {:.0} shares in the first minute",
        "10 min silent, then 1e12",
        median(near.clone()),
        worst(&near),
        median(burst)
    );
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 40.0;
/// Seconds that the plot covers.
const SHOWN: f64 = 600.0;
const COLOURS: [&str; 6] = ["#3b6ea5", "#c0504d", "#5b9a3c", "#8064a2", "#d28a2c", "#3c3c3c"];

/// Difficulty over time, one line for each rate, and dashed the right one.
fn svg() -> String {
    let x = |at: f64| LEFT + at / SHOWN * WIDTH;
    let y = |difficulty: f64| TOP + (6.0 - difficulty.log10()) / 11.0 * HEIGHT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1000\" height=\"510\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\">Vardiff from difficulty {START}: difficulty over time, the right one \
         dashed (simulated)</text>\n"
    );
    // Writing to a string does not fail.
    for power in (-4..=6).step_by(2) {
        let at = y(10f64.powi(power));
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">1e{power}</text>",
            LEFT + WIDTH,
            LEFT - 8.0,
            at + 4.0
        );
    }
    for minute in (0..=10).step_by(2) {
        let at = x(f64::from(minute) * 60.0);
        let _ = writeln!(
            out,
            "<text x=\"{at:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{minute} min</text>",
            TOP + HEIGHT + 20.0
        );
    }
    for (rate, colour) in RATES.into_iter().zip(COLOURS) {
        let run = simulate(7, SHOWN, &[], |_| rate);
        let mut points = String::new();
        for (index, (at, difficulty)) in run.changes.iter().enumerate() {
            let until = run.changes.get(index + 1).map_or(SHOWN, |next| next.0);
            let _ =
                write!(points, "{:.1},{:.1} {:.1},{:.1} ", x(*at), y(*difficulty), x(until), y(*difficulty));
        }
        let at = y(right(rate));
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{colour}\" stroke-dasharray=\"4 4\"/>\n\
             <text x=\"{:.0}\" y=\"{:.1}\" fill=\"{colour}\">{rate:.0e} H/s</text>",
            points.trim_end(),
            LEFT + WIDTH,
            LEFT + WIDTH + 8.0,
            at + 4.0
        );
    }
    out.push_str("</svg>\n");
    out
}

fn main() {
    // As a test (`cargo test --benches`) there is nothing to draw.
    if std::env::args().any(|argument| argument == "--bench") {
        steady();
        steps();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images/vardiff.svg");
        std::fs::write(&path, svg()).expect("docs/images can be written");
        println!("\ndocs/images/vardiff.svg is drawn");
    } else {
        assert!(svg().ends_with("</svg>\n"));
    }
}
