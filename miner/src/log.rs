//! Where log lines go: to stderr, or into a ring while the screen is taken.
//!
//! Here: the writer for `tracing-subscriber`, and the ring that [`crate::view`] reads. Not here: what is logged.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept: what a large screen shows, several times over.
const MAX_LINES: usize = 200;
/// Longest line that is kept, in bytes: with [`MAX_LINES`], 100 kB in all.
const MAX_LINE: usize = 500;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How grave it is.
    pub level: Level,
    /// All of it, without colours and without the line's end.
    pub text: String,
}

/// The lines, while they are kept. One for the process, as its subscriber is.
static KEPT: Mutex<Option<VecDeque<Line>>> = Mutex::new(None);

/// Nothing that could panic is done with the lock; and a panic that is being reported must not become another.
fn kept() -> MutexGuard<'static, Option<VecDeque<Line>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps lines from now on. Where stderr is no terminal they go there too.
pub fn keep() {
    *kept() = Some(VecDeque::new());
}

/// Whether lines are kept.
#[must_use]
pub fn is_kept() -> bool {
    kept().is_some()
}

/// The last lines, at most so many, oldest first.
#[must_use]
pub fn last(lines: usize) -> Vec<Line> {
    let kept = kept();
    kept.iter().flat_map(|kept| kept.iter().skip(kept.len().saturating_sub(lines)).cloned()).collect()
}

/// Lets lines go to stderr again. What was kept follows there, where it has not been seen there yet.
pub fn release() {
    let lines = kept().take().unwrap_or_default();
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let text: String = lines.into_iter().map(|line| line.text + "\n").collect();
        // Where stderr takes nothing, the miner goes on.
        let _ = stderr.write_all(text.as_bytes());
    }
}

/// Writes each line where lines go at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Log;

/// The writer of one line.
#[derive(Clone, Copy, Debug)]
pub struct LineWriter(Level);

impl MakeWriter<'_> for Log {
    type Writer = LineWriter;

    fn make_writer(&self) -> LineWriter {
        LineWriter(Level::INFO)
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> LineWriter {
        LineWriter(*meta.level())
    }
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(kept) = kept().as_mut() {
            push(kept, self.0, line);
            if io::stderr().is_terminal() {
                return Ok(line.len());
            }
        }
        io::stderr().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn push(kept: &mut VecDeque<Line>, level: Level, line: &[u8]) {
    // Cut before it is looked at: a pool's words can be long.
    let line = &line[..line.len().min(2 * MAX_LINE)];
    let mut text = plain(String::from_utf8_lossy(line).trim_end());
    text.truncate(text.floor_char_boundary(MAX_LINE));
    text.shrink_to_fit();
    if kept.len() == MAX_LINES {
        kept.pop_front();
    }
    kept.push_back(Line { level, text });
}

/// Without the colours that the subscriber writes for a terminal.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('m') {
            Some((colour, rest)) if colour.bytes().all(|byte| byte.is_ascii_digit() || byte == b';') => {
                plain.push_str(rest);
            }
            _ => plain.extend(["\x1b[", part]),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_none_is_long() {
        let mut kept = VecDeque::new();
        for number in 0..1000 {
            push(&mut kept, Level::INFO, format!("line {number}\n").as_bytes());
        }
        assert_eq!((kept.len(), &*kept[0].text), (MAX_LINES, "line 800"));
        push(&mut kept, Level::WARN, "é".repeat(100_000).as_bytes());
        let last = &kept[MAX_LINES - 1];
        assert_eq!((last.level, last.text.len()), (Level::WARN, MAX_LINE));
    }

    #[test]
    fn colours_go_and_nothing_else() {
        assert_eq!(plain("\x1b[2mtime\x1b[0m \x1b[32m INFO\x1b[0m text"), "time  INFO text");
        assert_eq!(plain("\x1b[1;31mred"), "red");
        assert_eq!(plain("a\x1b[2J\x1b[x"), "a\x1b[2J\x1b[x");
    }
}
