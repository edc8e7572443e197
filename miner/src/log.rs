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

use self::queue::{MAX_WHOLE, Queue};

/// Lines that are kept: what a large screen shows, several times over.
const MAX_LINES: usize = 200;
/// Longest line that is kept, in bytes: with [`MAX_LINES`], 100 kB in all.
const MAX_LINE: usize = 500;

/// The target of lines that are kept whole, however long they are: what is in them is nowhere else. Below the module that
/// has such lines, so that whoever lets that module's lines through has these too.
pub const WHOLE: &str = "iop_miner::upstream::node::delivery::whole";

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

/// Lines, while they are kept from the screen.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    /// Those that must not be lost, as they are.
    whole: Vec<Vec<u8>>,
}

/// One for the process, as its subscriber is.
static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// Nothing that could panic is done with the lock; and a panic that is being reported must not become another.
fn kept() -> MutexGuard<'static, Option<Kept>> {
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
        // Where the screen could not be given back, they are kept still.
        release();
        QUEUE.flush(LAST_LINES);
    }
}

/// Has what must not be lost written before the program ends at once.
pub fn save_whole() {
    release();
    if QUEUE.has_whole() {
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

/// The same for a line that must not be lost, however long it is.
fn whole_to_stderr(line: &[u8]) {
    if QUEUED.load(Ordering::Relaxed) {
        QUEUE.push_whole(line);
    } else {
        let _ = io::stderr().write_all(line);
    }
}

/// Keeps lines from now on. Where stderr is no terminal they go there too.
pub fn keep() {
    *kept() = Some(Kept::default());
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
    let kept = kept.iter().map(|kept| &kept.lines);
    kept.flat_map(|kept| kept.iter().skip(kept.len().saturating_sub(lines)).cloned()).collect()
}

/// Lets lines go to stderr again. What was kept follows there, where it has not been seen there yet: first all that was
/// on the screen, then whole what must not be lost.
pub fn release() {
    let Kept { lines, whole } = kept().take().unwrap_or_default();
    if io::stderr().is_terminal() {
        lines.into_iter().for_each(|line| to_stderr((line.text + "\n").as_bytes()));
        whole.iter().for_each(|line| whole_to_stderr(line));
    }
}

/// Writes each line where lines go at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Log;

/// The writer of one line.
#[derive(Clone, Copy, Debug)]
pub struct LineWriter {
    level: Level,
    /// Whether it must not be lost.
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
    /// Takes a line for the screen. Whether it is kept from stderr: where that is the terminal, unless it must not be lost
    /// and there is no room for it. Better a spoilt screen than a lost block.
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

    /// Of each line, whether it must not be lost.
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
