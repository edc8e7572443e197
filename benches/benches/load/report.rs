//! Figures: percentiles of one run, medians of several, a table and JSON.

use std::time::Duration;

use serde_json::{Value, json};

/// Figures by name, in the order of their first value; one value per run.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Figure>);

#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    runs: Vec<f64>,
}

impl Report {
    /// Adds a run's figure.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        match self.0.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.runs.push(value),
            None => self.0.push(Figure { name, unit, runs: vec![value] }),
        }
    }

    /// Adds the median, the 99th percentile and the worst of a run's times, in milliseconds.
    pub(crate) fn add_times(&mut self, name: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        for (part, of_hundred) in [("p50", 50), ("p99", 99), ("max", 100)] {
            self.add(format!("{name}, {part}"), milliseconds(percentile(&times, of_hundred)), "ms");
        }
    }

    /// Prints one line per figure: median, least and most.
    pub(crate) fn print(&self) {
        let width = self.0.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        println!("{:width$}  {:>12}  {:>25}", "", "median", "least to most");
        for Figure { name, unit, runs } in &self.0 {
            let sorted = sorted(runs);
            let range = format!("{} to {}", short(sorted[0]), short(sorted[sorted.len() - 1]));
            println!("{name:width$}  {:>12}  {range:>25}  {unit}", short(median(runs)));
        }
    }

    /// The figures as JSON.
    pub(crate) fn json(&self) -> String {
        let figure = |figure: &Figure| json!({ "name": figure.name, "unit": figure.unit, "median": median(&figure.runs), "runs": figure.runs });
        format!("{:#}\n", self.0.iter().map(figure).collect::<Value>())
    }
}

/// Converts to milliseconds.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A percentile of sorted times: the least one that `of_hundred` of a hundred do not exceed.
fn percentile(sorted: &[Duration], of_hundred: usize) -> Duration {
    let rank = (sorted.len() * of_hundred).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

fn short(value: f64) -> String {
    if value.abs() >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
