//! The text parts of the picture: header, devices, sources, refusals.

use ratatui::style::Style;
use ratatui::text::Line;

use super::draw::{Shown, strong};
use super::table::{Column, Row, table, title};
use crate::stats::HashRate;
use crate::view::numbers::{DeviceNumbers, SourceNumbers};
use crate::view::text::{clean, duration, size};

const fn text(title: &'static str, rank: u8, least: usize) -> Column {
    Column { title, right: false, rank, least }
}

const fn number(title: &'static str, rank: u8) -> Column {
    Column { title, right: true, rank, least: 12 }
}

/// The most important facts, in order of importance.
pub(super) fn header(shown: &Shown<'_>, width: usize) -> Vec<Line<'static>> {
    let numbers = shown.numbers;
    let sources = numbers.sources.len().min(9);
    let keys = if sources > 1 { format!("1-{sources} source, q end") } else { "q end".to_owned() };
    let up = format!("iop-miner {}, up {}", numbers.version, duration(numbers.uptime));
    let total = &numbers.total;
    let totals = format!(
        "{}, accepted {}, rejected {}, stale {}, hardware errors {}, best {}",
        HashRate(total.hash_rate.minute),
        total.accepted,
        total.rejected,
        total.stale,
        total.hardware_errors,
        or_dash(total.best.map(size)),
    );
    let mut lines =
        vec![Line::styled(ends(&up, &keys, width), strong()), Line::styled(totals, shown.colours.good())];
    let Some(source) = numbers.current() else { return lines };
    let time = source.seconds_in_state.map(|time| format!(", for {}", duration(time))).unwrap_or_default();
    let line = format!("{}: {}{time}", clean(&source.url), source_state(source));
    lines.push(Line::styled(line, source_style(source, shown, Style::new())));
    let mut work = Vec::new();
    work.extend(source.difficulty.map(|difficulty| format!("difficulty {}", size(difficulty))));
    if let Some(job) = &source.job {
        work.extend(job.height.map(|height| format!("height {height}")));
        work.push(format!("job {} old", duration(job.age)));
    }
    work.extend(numbers.expected_seconds_to_block.map(|time| format!("block in {}", duration(time))));
    work.extend(total.luck.map(|luck| format!("luck {:.0}%", 100.0 * luck)));
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

/// The devices, as many as a screen of this height can show.
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
    let all = &shown.numbers.devices;
    let rows: Vec<Row> = all.iter().take(height).map(|device| device_row(device, shown)).collect();
    let mut lines = table(&COLUMNS, &rows, width);
    // They count as lines, though they cannot be shown.
    lines.extend((rows.len()..all.len()).map(|_| Line::default()));
    lines
}

fn device_row(device: &DeviceNumbers, shown: &Shown<'_>) -> Row {
    let (rates, shares) = (&device.shares.hash_rate, &device.shares);
    let style = match device.state {
        "working" => Style::new(),
        "failed" => shown.colours.bad(),
        _ => shown.colours.warning(),
    };
    Row {
        cells: vec![
            clean(&device.name),
            rate(rates.ten_seconds),
            rate(rates.minute),
            rate(rates.quarter),
            rate(rates.average),
            shares.accepted.to_string(),
            shares.rejected.to_string(),
            shares.stale.to_string(),
            shares.hardware_errors.to_string(),
            or_dash(shares.best.map(size)),
            or_dash(device.temperature.map(|celsius| format!("{celsius:.0} °C"))),
            or_dash(shares.seconds_since_accepted.map(duration)),
            with_reason(device.state, device.reason.as_deref()),
        ],
        style,
    }
}

/// A rate in nine characters.
fn rate(rate: f64) -> String {
    let text = HashRate(rate).to_string();
    let Some((number, unit)) = text.split_once(' ') else { return text };
    format!("{} {unit}", number.get(..4).unwrap_or(number).trim_end_matches('.'))
}

/// The sources with their keys; the one in use is marked.
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
    let rows: Vec<Row> = shown.numbers.sources.iter().map(|source| source_row(source, shown)).collect();
    table(&COLUMNS, &rows, width)
}

fn source_row(source: &SourceNumbers, shown: &Shown<'_>) -> Row {
    let key = if source.number < 9 { (source.number + 1).to_string() } else { " ".to_owned() };
    let mark = if source.in_use { '>' } else { ' ' };
    let height = source.job.as_ref().and_then(|job| job.height);
    Row {
        cells: vec![
            format!("{mark}{key}"),
            // The most common scheme is omitted.
            clean(source.url.strip_prefix("stratum+tcp://").unwrap_or(&source.url)),
            source_state(source),
            or_dash(source.difficulty.map(size)),
            or_dash(height.map(|height| height.to_string())),
            source.accepted.to_string(),
            source.rejected.to_string(),
            source.stale.to_string(),
            or_dash(source.answer_seconds.map(|answer| format!("{:.1} ms", 1000.0 * answer))),
        ],
        style: source_style(source, shown, if source.in_use { strong() } else { Style::new() }),
    }
}

fn source_style(source: &SourceNumbers, shown: &Shown<'_>, usual: Style) -> Style {
    match source.state {
        "away" => shown.colours.bad(),
        "connecting" | "waiting" => shown.colours.warning(),
        _ => usual,
    }
}

fn source_state(source: &SourceNumbers) -> String {
    match source.state {
        "unused" => "not in use".to_owned(),
        state => with_reason(state, source.reason.as_deref()),
    }
}

fn with_reason(state: &str, reason: Option<&str>) -> String {
    reason.map_or_else(|| state.to_owned(), |reason| format!("{state}: {}", clean(reason)))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// Reject reasons, the most frequent first; empty if there is none.
pub(super) fn rejected(shown: &Shown<'_>, width: usize) -> Vec<Line<'static>> {
    let mut reasons: Vec<(&String, &u64)> = shown.numbers.total.rejected_reasons.iter().collect();
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
