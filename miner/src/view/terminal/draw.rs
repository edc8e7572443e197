//! The layout of the screen, for any size.
//!
//! Here: the parts, how the screen's lines are divided among them, and the colours. Not here: the source of the
//! figures, the terminal. Every external text goes through [`clean`].

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Sparkline};
use tracing::Level;

use super::graph::History;
use super::parts;
use super::table::title;
use crate::log;
use crate::stats::HashRate;
use crate::view::numbers::Numbers;
use crate::view::text::{clean, duration};

/// The data that is shown.
pub(super) struct Shown<'a> {
    pub(super) numbers: &'a Numbers,
    pub(super) history: &'a History,
    pub(super) log: &'a [log::Line],
    pub(super) colours: Colours,
}

/// Whether to use colours: the terminal's own, which are readable on light and dark ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colours(pub(super) bool);

impl Colours {
    pub(super) fn good(self) -> Style {
        self.colour(Color::Green)
    }

    pub(super) fn warning(self) -> Style {
        self.colour(Color::Yellow)
    }

    pub(super) fn bad(self) -> Style {
        self.colour(Color::Red)
    }

    fn colour(self, colour: Color) -> Style {
        if self.0 { Style::new().fg(colour) } else { Style::new() }
    }
}

/// A part of the screen.
struct Part<'a> {
    /// The fewest lines with which it is useful.
    least: usize,
    /// The most lines that it can use.
    most: usize,
    content: Content<'a>,
}

enum Content<'a> {
    /// Lines that do not fit are less important.
    Header(Vec<Line<'static>>),
    /// Lines that do not fit are counted.
    Table(Vec<Line<'static>>),
    Graph(&'a History),
    Log(&'a [log::Line]),
}

/// The graph gets one in this many of the screen's lines, and at most this many.
const GRAPH_LINES: (usize, usize) = (5, 12);
/// Fewest rows that make a table useful.
const ROWS: usize = 2;
/// Most reject reasons shown; more are rare.
const REASONS: usize = 5;

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, shown: &Shown<'_>) {
    let area = frame.area();
    let width = usize::from(area.width);
    let header = parts::header(shown, width);
    let devices = parts::devices(shown, width, usize::from(area.height));
    let sources = parts::sources(shown, width);
    let mut rejected = parts::rejected(shown, width);
    rejected.truncate(1 + REASONS);
    let header = Part { least: 2, most: header.len(), content: Content::Header(header) };
    let table = |lines: Vec<_>| Part { least: 1 + ROWS, most: lines.len(), content: Content::Table(lines) };
    let most = 1 + (usize::from(area.height) / GRAPH_LINES.0).clamp(2, GRAPH_LINES.1);
    let graph = Part { least: 3, most, content: Content::Graph(shown.history) };
    let log = Part { least: 2, most: 1 + shown.log.len(), content: Content::Log(shown.log) };
    let parts = [header, graph, table(devices), table(sources), table(rejected), log];
    let heights = share(&parts, usize::from(area.height));
    let mut top = area.y;
    for (part, height) in parts.iter().zip(heights) {
        let height = u16::try_from(height).expect("no more than the screen has");
        render(frame, part, Rect { y: top, height, ..area }, shown.colours);
        top += height;
    }
}

/// Indices of the parts, in screen order.
const HEADER: usize = 0;
const GRAPH: usize = 1;
const DEVICES: usize = 2;
const SOURCES: usize = 3;
const REJECTED: usize = 4;
const LOG: usize = 5;

/// The number of lines of each part.
fn share(parts: &[Part<'_>; 6], mut left: usize) -> [usize; 6] {
    let mut heights = [0; 6];
    for i in [HEADER, DEVICES, SOURCES, LOG, GRAPH, REJECTED] {
        let least = parts[i].least.min(parts[i].most);
        // The header takes whatever there is.
        if least <= left || i == HEADER {
            heights[i] = least.min(left);
            left -= heights[i];
        }
    }
    for i in [HEADER, SOURCES, REJECTED, GRAPH, DEVICES] {
        if heights[i] > 0 {
            let more = (parts[i].most - heights[i]).min(left);
            heights[i] += more;
            left -= more;
        }
    }
    if heights[LOG] > 0 {
        heights[LOG] += left;
    }
    heights
}

fn render(frame: &mut Frame<'_>, part: &Part<'_>, area: Rect, colours: Colours) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    if height == 0 || width == 0 {
        return;
    }
    match &part.content {
        Content::Header(lines) => frame.render_widget(Paragraph::new(lines.clone()), area),
        Content::Table(lines) => {
            let mut lines = lines.clone();
            if lines.len() > height && height > 1 {
                let hidden = lines.len() - height + 1;
                lines.truncate(height - 1);
                lines.push(Line::raw(format!("and {hidden} more")));
            }
            frame.render_widget(Paragraph::new(lines), area);
        }
        Content::Graph(history) => graph(frame, history, area, colours),
        Content::Log(log) => {
            let mut lines = vec![title("Log".to_owned(), width)];
            let first = log.len().saturating_sub(height - 1);
            lines.extend(log[first..].iter().map(|line| log_line(line, width, colours)));
            frame.render_widget(Paragraph::new(lines), area);
        }
    }
}

fn graph(frame: &mut Frame<'_>, history: &History, area: Rect, colours: Colours) {
    let width = usize::from(area.width);
    let columns = history.columns(width);
    let highest = columns.rates.iter().copied().max().unwrap_or(0);
    let text = match columns.rates.last() {
        Some(now) => format!(
            "Hash rate {}, highest {}, over {}",
            HashRate(*now as f64),
            HashRate(highest as f64),
            duration(columns.span.as_secs_f64())
        ),
        None => "Hash rate".to_owned(),
    };
    frame.render_widget(title(text, width), Rect { height: 1, ..area });
    let bars = Rect { y: area.y + 1, height: area.height - 1, ..area };
    let sparkline = Sparkline::default().data(&columns.rates).max(highest.max(1)).style(colours.good());
    frame.render_widget(sparkline, bars);
}

/// A line as the subscriber writes it, without date and fractions of a second: `06:43:53 WARN text`.
fn log_line(line: &log::Line, width: usize, colours: Colours) -> Line<'static> {
    let style = match line.level {
        Level::ERROR => colours.bad(),
        Level::WARN => colours.warning(),
        _ => Style::new(),
    };
    let text = clean(&line.text);
    let shown = match text.split_once(' ') {
        Some((stamp, rest)) if stamp.len() > 19 && stamp.as_bytes()[10] == b'T' => {
            let rest = rest.trim_start();
            let time = stamp.get(11..19).unwrap_or_default();
            format!("{time} {}", rest.strip_prefix("INFO ").unwrap_or(rest))
        }
        _ => text,
    };
    Line::styled(shown.chars().take(width).collect::<String>(), style)
}

/// Bold, if supported.
pub(super) fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}
