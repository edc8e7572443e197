//! The parts of the picture that are text: header, devices, sources, refusals.

use std::time::Instant;

use ratatui::style::Style;
use ratatui::text::Line;

use super::draw::{Shown, ago, strong};
use super::table::{Column, Row, table, title};
use crate::stats::{DeviceSnapshot, HashRate, Health};
use crate::upstream::board::{Condition, Source};
use crate::view::figures::{current, luck, time_to_block};
use crate::view::text::{clean, duration, size};

const fn text(title: &'static str, rank: u8, least: usize) -> Column {
    Column { title, right: false, rank, least }
}

const fn number(title: &'static str, rank: u8) -> Column {
    Column { title, right: true, rank, least: 12 }
}

/// What matters most, in the order in which it does.
pub(super) fn header(shown: &Shown<'_>, width: usize) -> Vec<Line<'static>> {
    let stats = shown.stats;
    let version = env!("CARGO_PKG_VERSION");
    let sources = shown.sources.len().min(9);
    let keys = if sources > 1 { format!("1-{sources} source, q end") } else { "q end".to_owned() };
    let up = format!("iop-miner {version}, up {}", duration(stats.elapsed));
    let counts = &stats.counts;
    let totals = format!(
        "{}, accepted {}, rejected {}, stale {}, hardware errors {}, best {}",
        stats.rates.minute,
        counts.accepted,
        counts.refused(),
        counts.stale,
        counts.hardware_errors,
        size(stats.best),
    );
    let mut lines =
        vec![Line::styled(ends(&up, &keys, width), strong()), Line::styled(totals, shown.colours.good())];
    let Some(source) = current(shown.sources) else { return lines };
    let style = match source.condition {
        Condition::Working => Style::new(),
        Condition::Away(_) => shown.colours.bad(),
        _ => shown.colours.warning(),
    };
    lines.push(Line::styled(format!("{}: {}", clean(&source.url), condition(source)), style));
    let mut work = Vec::new();
    work.extend(source.difficulty.map(|difficulty| format!("difficulty {}", size(difficulty))));
    if let Some(job) = &source.job {
        work.extend(job.height.map(|height| format!("height {height}")));
        work.push(format!("job {} old", since(job.since)));
    }
    let time = time_to_block(stats, shown.sources);
    work.extend(time.map(|time| format!("block in {}", duration(time))));
    work.extend(luck(stats).map(|luck| format!("luck {:.0}%", 100.0 * luck)));
    if !work.is_empty() {
        lines.push(Line::raw(work.join(", ")));
    }
    lines.extend(source.message.as_deref().map(|message| Line::raw(format!("it says: {}", clean(message)))));
    lines
}

/// One text on the left and one on the right, as far as both fit.
fn ends(left: &str, right: &str, width: usize) -> String {
    let gap = width.saturating_sub(left.len() + right.len());
    if gap < 2 { left.to_owned() } else { format!("{left}{}{right}", " ".repeat(gap)) }
}

/// The devices, as many as a screen of this height could show.
pub(super) fn devices(shown: &Shown<'_>, width: usize, height: usize) -> Vec<Line<'static>> {
    const COLUMNS: [Column; 13] = [
        text("Device", 0, 10),
        number("10 s", 4),
        number("1 min", 0),
        number("15 min", 9),
        number("Average", 8),
        number("Acc", 1),
        number("Rej", 3),
        number("Stale", 5),
        number("HW", 6),
        number("Best", 10),
        number("Temp", 7),
        number("Last share", 11),
        text("State", 2, 6),
    ];
    let all = &shown.stats.devices;
    let rows: Vec<Row> = all.iter().take(height).map(|device| device_row(device, shown)).collect();
    let mut lines = table(&COLUMNS, &rows, width);
    // Their number counts, though nobody could see them.
    lines.extend((rows.len()..all.len()).map(|_| Line::default()));
    lines
}

fn device_row(device: &DeviceSnapshot, shown: &Shown<'_>) -> Row {
    let DeviceSnapshot { rates, counts, .. } = device;
    let (state, style) = match &device.health {
        Health::Working => ("works".to_owned(), Style::new()),
        Health::Failed(why) => (format!("failed: {}", clean(why)), shown.colours.bad()),
        Health::Gone => ("gone".to_owned(), shown.colours.warning()),
    };
    Row {
        cells: vec![
            clean(&device.name),
            rate(rates.ten_seconds),
            rate(rates.minute),
            rate(rates.quarter),
            rate(rates.average),
            counts.accepted.to_string(),
            counts.refused().to_string(),
            counts.stale.to_string(),
            counts.hardware_errors.to_string(),
            size(device.best),
            device.temperature.map_or_else(|| "-".to_owned(), |celsius| format!("{celsius:.0} °C")),
            counts.last_accepted.map_or_else(|| "-".to_owned(), |at| ago(at, device.elapsed)),
            state,
        ],
        style,
    }
}

/// A rate in nine characters.
fn rate(rate: HashRate) -> String {
    let text = rate.to_string();
    let Some((number, unit)) = text.split_once(' ') else { return text };
    format!("{} {unit}", number.get(..4).unwrap_or(number).trim_end_matches('.'))
}

/// The sources with their keys; the one in use has a mark.
pub(super) fn sources(shown: &Shown<'_>, width: usize) -> Vec<Line<'static>> {
    const COLUMNS: [Column; 9] = [
        text("Key", 0, 3),
        text("Source", 0, 20),
        text("State", 1, 10),
        number("Difficulty", 5),
        number("Height", 7),
        number("Acc", 2),
        number("Rej", 3),
        number("Stale", 4),
        number("Answer", 6),
    ];
    let rows: Vec<Row> =
        shown.sources.iter().enumerate().map(|(i, source)| source_row(i, source, shown)).collect();
    table(&COLUMNS, &rows, width)
}

fn source_row(number: usize, source: &Source, shown: &Shown<'_>) -> Row {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let key = if number < 9 { (number + 1).to_string() } else { " ".to_owned() };
    let mark = if source.condition == Condition::Unused { ' ' } else { '>' };
    Row {
        cells: vec![
            format!("{mark}{key}"),
            // The most usual kind need not be said.
            clean(source.url.strip_prefix("stratum+tcp://").unwrap_or(&source.url)),
            state(&source.condition),
            or_dash(source.difficulty.map(size)),
            or_dash(source.job.as_ref().and_then(|job| job.height).map(|height| height.to_string())),
            source.accepted.to_string(),
            source.rejected.to_string(),
            source.stale.to_string(),
            or_dash(source.answer.map(|answer| format!("{:.1} ms", 1000.0 * answer.as_secs_f64()))),
        ],
        style: match source.condition {
            Condition::Working => strong(),
            Condition::Away(_) => shown.colours.bad(),
            Condition::Connecting | Condition::Waiting(_) => shown.colours.warning(),
            Condition::Unused => Style::new(),
        },
    }
}

/// What a source does, and for how long.
fn condition(source: &Source) -> String {
    let time = source.since.map(|at| format!(", for {}", since(at))).unwrap_or_default();
    format!("{}{time}", state(&source.condition))
}

fn state(condition: &Condition) -> String {
    match condition {
        Condition::Unused => "not in use".to_owned(),
        Condition::Connecting => "connecting".to_owned(),
        Condition::Working => "works".to_owned(),
        Condition::Waiting(why) => format!("waits: {}", clean(why)),
        Condition::Away(why) => format!("away: {}", clean(why)),
    }
}

fn since(at: Instant) -> String {
    duration(at.elapsed())
}

/// Why shares were refused, the most frequent reason first; nothing where none was.
pub(super) fn rejected(shown: &Shown<'_>, width: usize) -> Vec<Line<'static>> {
    let mut reasons: Vec<(&String, &u64)> = shown.stats.counts.rejected.iter().collect();
    if reasons.is_empty() {
        return Vec::new();
    }
    reasons.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
    let mut lines = vec![title("Rejected".to_owned(), width)];
    lines.extend(reasons.into_iter().map(|(reason, times)| {
        Line::styled(format!("{times:>8}  {}", clean(reason)), shown.colours.warning())
    }));
    lines
}
