//! Takes the terminal and gives it back: its modes, its alternate screen, its keys, its size.
//!
//! It is given back by the first of: the end of the rig, the view's own end, a panic anywhere. After that nothing is
//! drawn any more. Not here: what is drawn.

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::{Mutex, MutexGuard, Once, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Size;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{tcgetpgrp, tcgetwinsize};

use crate::log;

/// How long a blocked terminal, as after Ctrl-S, may delay the miner's end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the screen is ours. Held while drawing, so that nothing is drawn on a screen that was given back.
static OURS: Mutex<bool> = Mutex::new(false);

/// Whether there is a terminal to draw on and to read keys from: stdin and stdout are one, it can move its cursor, and
/// we are not in the background.
pub(super) fn is_there() -> bool {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let foreground = || tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
    stdin.is_terminal() && stdout.is_terminal() && !dumb && foreground()
}

/// Takes the terminal, and keeps log lines off it.
pub(super) fn enter() -> io::Result<()> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // First, so that the panic message is not lost with the alternate screen.
            leave();
            before(info);
        }));
    });
    let mut ours = ours(PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
    enable_raw_mode()?;
    *ours = true;
    log::keep();
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

/// Gives the terminal back, and the log to stderr. Does nothing if that is already done. On a blocked terminal only the
/// modes are restored, or the miner could not end.
pub(super) fn leave() {
    let Some(mut ours) = ours(PATIENCE) else {
        let _ = disable_raw_mode();
        return;
    };
    if std::mem::take(&mut *ours) {
        // A failure cannot be reported.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        log::release();
    }
}

/// Whether the screen is still ours.
pub(super) fn is_ours() -> bool {
    ours(PATIENCE).is_some_and(|ours| *ours)
}

/// Takes the lock, unless that takes longer than `patience`.
fn ours(patience: Duration) -> Option<MutexGuard<'static, bool>> {
    let start = Instant::now();
    loop {
        match OURS.try_lock() {
            Ok(ours) => return Some(ours),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if start.elapsed() > patience => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The size of the screen; 0 by 0 if the terminal does not know it.
pub(super) fn size() -> io::Result<Size> {
    let size = tcgetwinsize(io::stdout())?;
    Ok(Size::new(size.ws_col, size.ws_row))
}

/// A key press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// q or Ctrl-C.
    End,
    /// 1 to 9, as a number from 0.
    Source(usize),
    /// Ctrl-L: redraw everything.
    Redraw,
}

/// Waits for keys, up to `wait`.
///
/// # Errors
/// The terminal is gone.
pub(super) fn keys(wait: Duration) -> io::Result<Vec<Key>> {
    let stdin = io::stdin();
    let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos().min(999_999_999) as _ };
    let mut ends = [PollFd::new(&stdin, PollFlags::IN)];
    match poll(&mut ends, Some(&wait)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
        other => other?,
    };
    let mut bytes = [0; 256];
    // Bypasses the buffer of the standard library, which poll does not see.
    match rustix::io::read(&stdin, &mut bytes) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
        Ok(read) => Ok(parse(&bytes[..read])),
    }
}

/// Parses the keys among a terminal's bytes. The bytes after an escape belong to a key that we do not know, and may
/// contain digits.
fn parse(bytes: &[u8]) -> Vec<Key> {
    let known = bytes.split(|byte| *byte == 0x1b).next().unwrap_or_default();
    known
        .iter()
        .filter_map(|byte| match byte {
            b'q' | b'Q' | 0x03 => Some(Key::End),
            b'1'..=b'9' => Some(Key::Source(usize::from(byte - b'1'))),
            0x0c => Some(Key::Redraw),
            _ => None,
        })
        .collect()
}

/// A frame to be written to the screen: as a whole or not at all.
#[derive(Debug, Default)]
pub(super) struct Frame(Vec<u8>);

impl Write for Frame {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let ours = ours(PATIENCE).ok_or(io::ErrorKind::TimedOut)?;
        if *ours {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&self.0)?;
            stdout.flush()?;
        }
        self.0.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_what_terminals_send_for_others() {
        assert_eq!(parse(b"x2\x0c"), [Key::Source(1), Key::Redraw]);
        assert_eq!([parse(b"q"), parse(b"\x03")], [[Key::End], [Key::End]]);
        // F5, an arrow and Alt-1.
        for other in [&b"\x1b[15~"[..], b"\x1b[A", b"\x1b1", b"0", "é".as_bytes()] {
            assert_eq!(parse(other), []);
        }
    }
}
