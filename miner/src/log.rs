//! The destination of log lines: stderr, or a ring buffer while the live view uses the screen.
//!
//! Here: the writer for `tracing-subscriber`, the ring that [`crate::view`] reads, and the nonblocking path to stderr
//! (`queue`). Not here: what is logged.

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

use self::queue::{MAX_WHOLE, Queue};

/// Most lines kept: several times what a large screen shows.
const MAX_LINES: usize = 200;
/// Longest line kept, in bytes: with [`MAX_LINES`], 100 kB in all.
const MAX_LINE: usize = 500;

/// The target of lines that are kept in full, whatever their length: their contents exist nowhere else. It is below the
/// module that logs such lines, so that a filter for that module includes it.
pub const WHOLE: &str = "iop_miner::upstream::node::delivery::whole";

/// How long a blocked stderr can delay the program's end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Time to write pending lines to a terminal before the screen is taken.
const BEFORE_SCREEN: Duration = Duration::from_millis(200);

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its severity.
    pub level: Level,
    /// Its text, without colours and line end.
    pub text: String,
}

/// Lines kept while the screen is taken.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    /// Lines that must not be lost, in full.
    whole: Vec<Vec<u8>>,
}

/// One per process, like the subscriber.
static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// Nothing that could panic runs under the lock; and reporting a panic must not cause another.
fn kept() -> MutexGuard<'static, Option<Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines to be written to stderr, and whether a thread writes them.
static QUEUE: Queue = Queue::new();
static QUEUED: AtomicBool = AtomicBool::new(false);

/// While this lives, lines are written to stderr in the background; when dropped, it waits a limited time for pending
/// ones.
#[derive(Debug)]
pub struct Writing(());

/// Starts a thread that writes to stderr, including panic messages, for which a panicking thread would otherwise wait.
/// If the system provides no thread, each thread writes its own lines.
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
        // Lines are still kept if the screen could not be given back.
        release();
        QUEUE.flush(LAST_LINES);
    }
}

/// Writes the lines that must not be lost before the program exits immediately.
pub fn save_whole() {
    release();
    if QUEUE.has_whole() {
        QUEUE.flush(LAST_LINES);
    }
}

/// Writes lines to stderr, without failing or blocking the miner.
pub fn to_stderr(lines: &[u8]) {
    if QUEUED.load(Ordering::Relaxed) {
        QUEUE.push(lines);
    } else {
        let _ = io::stderr().write_all(lines);
    }
}

/// The same for a line of any length that must not be lost.
fn whole_to_stderr(line: &[u8]) {
    if QUEUED.load(Ordering::Relaxed) {
        QUEUE.push_whole(line);
    } else {
        let _ = io::stderr().write_all(line);
    }
}

/// Keeps lines from now on. If stderr is not a terminal, they are also written to it.
pub fn keep() {
    *kept() = Some(Kept::default());
    QUEUE.flush(BEFORE_SCREEN);
}

/// Whether lines are kept.
#[must_use]
pub fn is_kept() -> bool {
    kept().is_some()
}

/// The last lines, at most `lines`, oldest first.
#[must_use]
pub fn last(lines: usize) -> Vec<Line> {
    let kept = kept();
    let kept = kept.iter().map(|kept| &kept.lines);
    kept.flat_map(|kept| kept.iter().skip(kept.len().saturating_sub(lines)).cloned()).collect()
}

/// Stops keeping lines. Kept ones that stderr has not shown are written to it: first those that were on the screen,
/// then in full those that must not be lost.
pub fn release() {
    let Kept { lines, whole } = kept().take().unwrap_or_default();
    if io::stderr().is_terminal() {
        lines.into_iter().for_each(|line| to_stderr((line.text + "\n").as_bytes()));
        whole.iter().for_each(|line| whole_to_stderr(line));
    }
}

/// Writes each line to its current destination.
#[derive(Clone, Copy, Debug)]
pub struct Log;

/// The writer of one line.
#[derive(Clone, Copy, Debug)]
pub struct LineWriter {
    level: Level,
    /// Whether the line must not be lost.
    whole: bool,
}

impl MakeWriter<'_> for Log {
    type Writer = LineWriter;

    fn make_writer(&self) -> LineWriter {
        LineWriter { level: Level::INFO, whole: false }
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> LineWriter {
        LineWriter { level: *meta.level(), whole: meta.target() == WHOLE }
    }
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_kept = kept().as_mut().is_some_and(|kept| kept.take(*self, line, io::stderr().is_terminal()));
        match self.whole {
            _ if is_kept => {}
            true => whole_to_stderr(line),
            false => to_stderr(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    /// Keeps a line for the screen. Returns whether it stays off stderr: it does if that is the terminal, unless the
    /// line must not be lost and there is no room for it. A spoilt screen is better than a lost block.
    fn take(&mut self, LineWriter { level, whole }: LineWriter, line: &[u8], is_terminal: bool) -> bool {
        push(&mut self.lines, level, line);
        let is_kept = is_terminal && (!whole || self.whole.len() < MAX_WHOLE);
        if whole && is_kept {
            self.whole.push(line.to_vec());
        }
        is_kept
    }
}

fn push(kept: &mut VecDeque<Line>, level: Level, line: &[u8]) {
    // Truncate before processing: text from a pool can be long.
    let line = &line[..line.len().min(2 * MAX_LINE)];
    let mut text = plain(String::from_utf8_lossy(line).trim_end());
    text.truncate(text.floor_char_boundary(MAX_LINE));
    text.shrink_to_fit();
    if kept.len() == MAX_LINES {
        kept.pop_front();
    }
    kept.push_back(Line { level, text });
}

/// Removes the colours that the subscriber writes for a terminal.
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

    /// A second subscriber that records nothing. With only one, a log statement that another thread reaches first is
    /// cached as disabled for all threads.
    static SECOND: LazyLock<Dispatch> =
        LazyLock::new(|| Dispatch::new(tracing_subscriber::fmt().with_writer(io::sink).finish()));

    /// The log of this thread, from `Heard::begin` until it is dropped.
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

        /// Number of lines that contain this text.
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
    fn a_line_that_must_not_be_lost_is_kept_whole_behind_the_screen_as_long_as_there_is_room() {
        let mut kept = Kept::default();
        let whole = LineWriter { level: Level::ERROR, whole: true };
        let other = LineWriter { level: Level::INFO, whole: false };
        let block = "b".repeat(1 << 20);
        assert!(!kept.take(whole, block.as_bytes(), false) && kept.whole.is_empty(), "it is on stderr");
        for _ in 0..MAX_WHOLE {
            assert!(kept.take(whole, block.as_bytes(), true));
            (0..MAX_LINES).for_each(|_| assert!(kept.take(other, b"line", true)));
        }
        assert!(!kept.take(whole, block.as_bytes(), true), "to the terminal");
        assert!(kept.whole.len() == MAX_WHOLE && kept.whole.iter().all(|line| line == block.as_bytes()));
        assert!(kept.lines.iter().all(|line| line.text.len() <= MAX_LINE));
    }

    /// For each line, whether it must not be lost.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<bool>>>);

    impl MakeWriter<'_> for Seen {
        type Writer = io::Sink;

        fn make_writer(&self) -> io::Sink {
            io::sink()
        }

        fn make_writer_for(&self, meta: &Metadata<'_>) -> io::Sink {
            let whole = Log.make_writer_for(meta).whole;
            self.0.lock().expect("no panic while the lock is held").push(whole);
            io::sink()
        }
    }

    #[test]
    fn lines_that_must_not_be_lost_are_known_by_their_target() {
        LazyLock::force(&SECOND);
        let seen = Seen::default();
        let _listening = set_default(tracing_subscriber::fmt().with_writer(seen.clone()).finish());
        tracing::error!("any");
        tracing::error!(target: WHOLE, "a block");
        assert_eq!(*seen.0.lock().expect("no panic while the lock is held"), [false, true]);
    }

    #[test]
    fn colours_go_and_nothing_else() {
        assert_eq!(plain("\x1b[2mtime\x1b[0m \x1b[32m INFO\x1b[0m text"), "time  INFO text");
        assert_eq!(plain("\x1b[1;31mred"), "red");
        assert_eq!(plain("a\x1b[2J\x1b[x"), "a\x1b[2J\x1b[x");
    }
}
