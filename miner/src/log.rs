//! Where log lines go: to stderr, or into a ring while the screen is taken.
//!
//! Here: the writer for `tracing-subscriber`, the ring that [`crate::view`] reads, and the way to stderr (`queue`),
//! for which nobody waits. Not here: what is logged.

mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use self::queue::Queue;

/// Lines that are kept: what a large screen shows, several times over.
const MAX_LINES: usize = 200;
/// Longest line that is kept, in bytes: with [`MAX_LINES`], 100 kB in all.
const MAX_LINE: usize = 500;

/// How long a stderr that takes nothing can hold up the program's end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long what was logged before has to get to a terminal before the screen is taken.
const BEFORE_SCREEN: Duration = Duration::from_millis(200);

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

/// What is on its way to stderr, and whether a thread writes it.
static QUEUE: Queue = Queue::new();
static QUEUED: AtomicBool = AtomicBool::new(false);

/// As long as it lives, lines get to stderr without anybody waiting for it; at its end, what is still on its way gets a
/// while.
#[derive(Debug)]
pub struct Writing(());

/// Has a thread of its own write to stderr: also the words of panics, or a thread that panics would wait as well. Where
/// the system gives no thread, whoever logs writes for himself.
#[must_use]
pub fn start() -> Writing {
    let written = thread::Builder::new().name("log".to_owned()).spawn(|| QUEUE.write(&mut io::stderr()));
    if written.is_ok() {
        QUEUED.store(true, Ordering::Relaxed);
        panic::set_hook(Box::new(|panic| {
            let (thread, trace) = (thread::current(), Backtrace::capture());
            let mut text = format!("thread '{}' {panic}\n", thread.name().unwrap_or_default());
            if trace.status() == BacktraceStatus::Captured {
                text += &format!("stack backtrace:\n{trace}\n");
            }
            to_stderr(text.as_bytes());
        }));
    }
    Writing(())
}

impl Drop for Writing {
    fn drop(&mut self) {
        QUEUE.flush(LAST_LINES);
    }
}

/// Writes lines to stderr. Where that takes nothing, the miner goes on.
pub fn to_stderr(lines: &[u8]) {
    if QUEUED.load(Ordering::Relaxed) {
        QUEUE.push(lines);
    } else {
        let _ = io::stderr().write_all(lines);
    }
}

/// Keeps lines from now on. Where stderr is no terminal they go there too.
pub fn keep() {
    *kept() = Some(VecDeque::new());
    QUEUE.flush(BEFORE_SCREEN);
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
    if io::stderr().is_terminal() {
        lines.into_iter().for_each(|line| to_stderr((line.text + "\n").as_bytes()));
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
        to_stderr(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
pub(crate) mod tests {
    use std::sync::{Arc, LazyLock};

    use tracing::Dispatch;
    use tracing::subscriber::{DefaultGuard, set_default};

    use super::*;

    /// A subscriber that hears nothing. Where there is one only, a line of code that another thread comes to first counts as
    /// one that nobody listens to, for all threads.
    static SECOND: LazyLock<Dispatch> =
        LazyLock::new(|| Dispatch::new(tracing_subscriber::fmt().with_writer(io::sink).finish()));

    /// What this thread logs, from `Heard::begin` on and until it is dropped.
    pub(crate) struct Heard {
        bytes: Bytes,
        _listening: DefaultGuard,
    }

    #[derive(Clone, Default)]
    struct Bytes(Arc<Mutex<Vec<u8>>>);

    impl Heard {
        pub(crate) fn begin() -> Self {
            LazyLock::force(&SECOND);
            let bytes = Bytes::default();
            let writer = bytes.clone();
            let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
            Self { bytes, _listening: set_default(subscriber.finish()) }
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.bytes.0.lock().expect("no panic while the lock is held"))
                .into_owned()
        }

        /// How many lines have this in them.
        pub(crate) fn lines(&self, with: &str) -> usize {
            self.text().lines().filter(|line| line.contains(with)).count()
        }
    }

    impl Write for Bytes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic while the lock is held").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

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
