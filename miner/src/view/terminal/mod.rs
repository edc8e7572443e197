//! The live view on a terminal.
//!
//! Here: when it is used, its thread, the effect of keys. Not here: the terminal itself ([`screen`]), the picture
//! ([`draw`], [`parts`], [`table`], [`graph`]). It has its own thread, so that a blocked terminal, as after Ctrl-S,
//! delays no share.

mod draw;
mod graph;
mod parts;
mod screen;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ratatui::backend::{Backend, ClearType, CrosstermBackend};
use ratatui::layout::{Rect, Size};
use ratatui::{Terminal, TerminalOptions, Viewport};
use tracing::{info, warn};

use crate::log;
use crate::rig::{End, Rig};
use crate::stats::Stats;
use crate::upstream::Board;
use crate::view::numbers::Numbers;
use draw::{Colours, Shown};
use graph::History;
use screen::Key;

/// Time between two frames.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// Time between two checks whether the view is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time between two samples of the graph.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// The largest picture, in cells; on a larger terminal it is in the corner. Two of these are in memory, at some 40
/// bytes a cell.
const MAX_SIZE: Size = Size { width: 200, height: 60 };

/// Whether there is a usable terminal.
pub(super) fn is_possible() -> bool {
    screen::is_there()
}

/// Shows a rig while it runs.
pub(super) fn attach(rig: &mut Rig) {
    let view = View {
        stats: Arc::clone(&rig.stats),
        board: Arc::clone(&rig.board),
        end: rig.end(),
        history: History::default(),
        // By the convention of no-color.org: any nonempty value counts.
        colours: Colours(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())),
    };
    rig.serve(Box::pin(async move {
        // Dropped when the rig ends, for whatever reason.
        let _taken = Taken;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("the terminal view: {error}"));
        screen::enter().map_err(named)?;
        thread::Builder::new().name("view".to_owned()).spawn(|| view.run()).map_err(named)?;
        std::future::pending().await
    }));
}

/// Gives the terminal back, if it was taken.
pub(super) fn give_back() {
    screen::leave();
}

/// The terminal, until it is dropped.
struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        screen::leave();
    }
}

struct View {
    stats: Arc<Stats>,
    board: Arc<Board>,
    end: End,
    history: History,
    colours: Colours,
}

impl View {
    /// Draws until the screen has been given back; if the terminal fails, the miner continues.
    fn run(mut self) {
        let ended = self.draw_and_listen();
        screen::leave();
        if let Err(error) = ended {
            warn!("the terminal view ends: {error}");
        }
    }

    fn draw_and_listen(&mut self) -> io::Result<()> {
        let area = Rect::from((ratatui::layout::Position::ORIGIN, size()?));
        let options = TerminalOptions { viewport: Viewport::Fixed(area) };
        let mut terminal = Terminal::with_options(CrosstermBackend::new(screen::Frame::default()), options)?;
        let (mut next_frame, mut next_sample) = (Instant::now(), Instant::now() + SAMPLE_EVERY);
        let (mut drawn, mut anew) = (area.as_size(), false);
        loop {
            let wait = next_frame.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
            anew |= self.react(&screen::keys(wait)?);
            if !screen::is_ours() {
                return Ok(());
            }
            let now = Instant::now();
            if now < next_frame {
                continue;
            }
            let size = size()?;
            if size != drawn || std::mem::take(&mut anew) {
                terminal.backend_mut().clear_region(ClearType::All)?;
                terminal.resize(Rect::from((ratatui::layout::Position::ORIGIN, size)))?;
                drawn = size;
            }
            let numbers = Numbers::new(&self.stats.snapshot(), &self.board.sources());
            if now >= next_sample {
                self.history.push(numbers.total.hash_rate.ten_seconds);
                next_sample = now + SAMPLE_EVERY;
            }
            let shown = Shown {
                numbers: &numbers,
                history: &self.history,
                log: &log::last(usize::from(size.height)),
                colours: self.colours,
            };
            terminal.draw(|frame| draw::draw(frame, &shown))?;
            next_frame = now + DRAW_EVERY;
        }
    }

    /// Handles keys. Returns whether everything must be redrawn.
    fn react(&self, keys: &[Key]) -> bool {
        for key in keys {
            match key {
                Key::End => {
                    info!("asked to end by a key");
                    self.end.end(Ok(()));
                }
                Key::Source(number) if self.board.ask_for(*number) => {
                    info!("asked for source {}", number + 1)
                }
                Key::Source(number) => info!("there is no source {}", number + 1),
                Key::Redraw => {}
            }
        }
        keys.contains(&Key::Redraw)
    }
}

/// The size of the picture.
fn size() -> io::Result<Size> {
    let Size { width, height } = screen::size()?;
    Ok(Size::new(width.min(MAX_SIZE.width), height.min(MAX_SIZE.height)))
}
