//! The picture on screens of every size, with texts of every kind.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Style};
use tracing::Level;
use unicode_width::UnicodeWidthStr;

use super::draw::{Colours, Shown, draw};
use super::graph::History;
use crate::log;
use crate::stats::{Health, Stats};
use crate::upstream::board::{Condition, JobView, Source};
use crate::view::numbers::Numbers;

/// A rig with a history.
struct Scene {
    stats: Stats,
    sources: Vec<Source>,
    history: History,
    log: Vec<log::Line>,
    colours: Colours,
}

impl Scene {
    fn new() -> Self {
        let stats = Stats::new();
        let (cpu, gpu) = (stats.device("cpu"), stats.device("opencl:0.0"));
        cpu.add_hashes(123_456);
        for _ in 0..164 {
            cpu.add_accepted(0.09);
        }
        cpu.add_rejected("Low difficulty share (23)");
        gpu.add_rejected("Duplicate share (22)");
        gpu.add_rejected("Duplicate share (22)");
        gpu.set_health(Health::Failed("no fan".into()));
        gpu.set_temperature(Some(71.4));
        let source = |url: &str| Source { url: url.into(), user: "pAddress.rig".into(), ..Source::default() };
        let mut used = source("stratum+tcp://pool.example.org:3333");
        used.set(Condition::Working);
        used.difficulty = Some(0.0912);
        used.accepted = 164;
        used.answer = Some(Duration::from_micros(12_340));
        used.message = Some("welcome".into());
        used.job = Some(JobView {
            id: "job-1".into(),
            height: Some(12_345),
            network_difficulty: 1e6,
            since: Instant::now(),
        });
        let line = |level, text: &str| log::Line { level, text: text.into() };
        let mut history = History::default();
        (0..300).for_each(|second| history.push(1e6 + f64::from(second)));
        Self {
            stats,
            sources: vec![used, source("stratum+tcp://other.example.org:3333")],
            history,
            log: vec![
                line(Level::INFO, "2026-11-28T06:43:53.123456Z  INFO mining as pAddress.rig"),
                line(Level::WARN, "2026-11-28T06:43:54.123456Z  WARN opencl:0.0: no fan"),
            ],
            colours: Colours(true),
        }
    }

    /// The contents of a screen of that size, line by line, and the colours in it.
    fn on(&self, width: u16, height: u16) -> (Vec<String>, Vec<Color>) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let shown = Shown {
            numbers: &Numbers::new(&self.stats.snapshot(), &self.sources),
            history: &self.history,
            log: &self.log,
            colours: self.colours,
        };
        terminal.draw(|frame| draw(frame, &shown)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content.chunks(usize::from(width).max(1));
        let lines = lines.map(|cells| cells.iter().map(|cell| cell.symbol()).collect()).collect();
        (lines, buffer.content.iter().map(|cell| cell.fg).collect())
    }

    fn lines(&self, width: u16, height: u16) -> Vec<String> {
        self.on(width, height).0
    }
}

fn assert_has(lines: &[String], wanted: &[&str]) {
    for text in wanted {
        assert!(lines.iter().any(|line| line.contains(text)), "no {text:?} in\n{}", lines.join("\n"));
    }
}

#[test]
fn a_usual_terminal_has_all_of_it() {
    let lines = Scene::new().lines(80, 24);
    assert!(lines[0].starts_with(&format!("iop-miner {}, up ", env!("CARGO_PKG_VERSION"))), "{}", lines[0]);
    assert!(lines[0].ends_with("1-2 source, q end"), "{}", lines[0]);
    assert!(lines[1].contains("accepted 164, rejected 3, stale 0, hardware errors 0"), "{}", lines[1]);
    assert_has(
        &lines,
        &[
            "stratum+tcp://pool.example.org:3333: working, for 0 s",
            "difficulty 0.0912, height 12345, job 0 s old, block in ",
            ", luck ",
            "it says: welcome",
            "Hash rate 1.00 MH/s, highest 1.00 MH/s, over 5 min 0 s",
            "cpu ",
            "opencl:0.0 ",
            "71 °C",
            ">1   pool.example.org:3333",
            " 2   other.example.org:3333",
            "not in use",
            "2  Duplicate share (22)",
            "06:43:54 WARN opencl:0.0: no fan",
        ],
    );
}

#[test]
fn a_wide_terminal_has_every_column() {
    let lines = Scene::new().lines(200, 50);
    assert_has(&lines, &["10 s", "15 min", "Average", "HW", "Best", "Temp", "Last share", "failed: no fan"]);
    assert_has(&lines, &["12.3 ms", "12345", "Answer"]);
}

#[test]
fn a_device_that_pauses_says_why() {
    let scene = Scene::new();
    scene.stats.device("hot").set_paused(Some("95 °C, its limit is 80 °C".into()));
    assert_has(&scene.lines(200, 50), &["paused: 95 °C, its limit is 80 °C"]);
}

#[test]
fn a_narrow_terminal_has_what_matters() {
    let lines = Scene::new().lines(40, 10);
    assert_has(&lines, &["iop-miner", "accepted 164", "cpu ", "H/s", ">1   pool.example.org:3333"]);
}

#[test]
fn no_size_is_too_small_or_too_odd() {
    let scene = Scene::new();
    let none = Scene {
        stats: Stats::new(),
        sources: Vec::new(),
        history: History::default(),
        log: Vec::new(),
        colours: Colours(true),
    };
    for width in [0, 1, 2, 3, 7, 20, 39, 40, 41, 79, 80, 120, 200] {
        for height in 0..=30 {
            for scene in [&scene, &none] {
                let lines = scene.lines(width, height);
                assert_eq!(lines.len(), if width == 0 { 0 } else { usize::from(height) });
            }
        }
    }
}

#[test]
fn more_devices_than_lines_are_counted() {
    let scene = Scene::new();
    for machine in 0..1000 {
        let _listed = scene.stats.device(&format!("machine-{machine}"));
    }
    let lines = scene.lines(80, 24);
    let hidden = lines.iter().find_map(|line| line.strip_prefix("and ")?.split_once(" more"));
    let (hidden, _) = hidden.unwrap_or_else(|| panic!("{}", lines.join("\n")));
    let titles = ["cpu", "opencl:0.0", "machine-"];
    let listed = lines.iter().filter(|line| titles.iter().any(|title| line.starts_with(title))).count();
    assert_eq!(hidden.parse::<usize>().unwrap() + listed, 1002);
    // The rest of the screen is there too.
    assert_has(&lines, &[">1 ", "Log", "Hash rate"]);
}

#[test]
fn without_colours_there_is_none() {
    let mut scene = Scene::new();
    let plain = Style::new().fg.unwrap_or(Color::Reset);
    assert!(scene.on(80, 24).1.contains(&Color::Green));
    scene.colours = Colours(false);
    assert!(scene.on(80, 24).1.iter().all(|colour| *colour == plain));
}

proptest! {
    #[test]
    fn texts_of_strangers_stay_in_their_place(hostile in any::<String>(), width in 1u16..130, height in 1u16..40) {
        let scene = with_words(&format!("\x1b[2J\x1b]0;x\x07\u{202e}{hostile}"));
        let benign = with_words("friendly");
        let (lines, other) = (scene.lines(width, height), benign.lines(width, height));
        for line in &lines {
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            // Each cell of the screen has one character, which is one cell wide.
            prop_assert_eq!(UnicodeWidthStr::width(&**line), usize::from(width));
            prop_assert_eq!(line.chars().count(), usize::from(width));
        }
        // No text has moved elsewhere.
        prop_assert_eq!(&lines[0][..usize::from(width.min(9))], &other[0][..usize::from(width.min(9))]);
        prop_assert_eq!(lines.len(), other.len());
    }
}

/// A rig in which every external text is the same.
fn with_words(words: &str) -> Scene {
    let mut scene = Scene::new();
    scene.stats.device(words).set_health(Health::Failed(words.into()));
    scene.stats.device(words).add_rejected(words);
    scene.sources[0].message = Some(words.into());
    scene.sources[1].set(Condition::Away(words.into()));
    scene.log.push(log::Line { level: Level::ERROR, text: words.into() });
    scene
}
