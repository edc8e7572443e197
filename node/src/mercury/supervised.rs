//! Keeps the hosted relay running while the node runs.
//!
//! Lives here: the low-priority thread, the delays between runs, and the view from outside. Does not live here:
//! what a run consists of (`mercury.rs`). Data goes: a run ends by an error or a panic -> one log line, gauges at 0
//! -> a delay -> the next run, until [`Hosted`] is dropped.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use iop_mercury::net::{Figure, Handle};
use tokio::sync::watch;
use tracing::error;

/// Delay after the first failed run; each further delay is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest delay. After a run longer than this the delays start over.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// The current or last run of the relay. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Watched(Arc<Mutex<(bool, Option<Handle>)>>);

impl Watched {
    /// Marks the relay as listening.
    pub(super) fn is_up(&self, handle: Handle) {
        *self.lock() = (true, Some(handle));
    }

    fn is_down(&self) {
        self.lock().0 = false;
    }

    /// Whether it listens, and its figures. While it does not, gauges are 0 and counters keep their values.
    pub(crate) fn figures(&self) -> (bool, Vec<Figure>) {
        let (up, handle) = self.lock().clone();
        let mut figures = handle.map(|handle| handle.figures()).unwrap_or_default();
        figures.iter_mut().filter(|figure| !up && !figure.counter).for_each(|figure| figure.value = 0);
        (up, figures)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (bool, Option<Handle>)> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

/// Resolves when the node stops.
pub(super) type Stop = watch::Receiver<()>;

/// Returns when the node stops.
pub(super) async fn stopped(mut stop: Stop) {
    while stop.changed().await.is_ok() {}
}

/// A hosted relay. Dropping it stops it, and waits until its database is closed.
pub(crate) struct Hosted {
    /// The view from outside.
    pub(crate) watched: Watched,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Hosted {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("Mercury's thread panicked");
        }
    }
}

impl Hosted {
    /// Runs the relay repeatedly in its own thread. Returns when the first run listens or has failed. A run calls
    /// [`Watched::is_up`] and its last argument when it listens.
    pub(super) fn start(
        first: impl FnOnce() + Send + 'static,
        life: impl Fn(Stop, &Watched, &dyn Fn()) -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<Self> {
        let patience = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (stop, stopping) = watch::channel(());
        let (tell, told) = mpsc::sync_channel(1);
        let watched = Watched::default();
        let seen = watched.clone();
        let thread = std::thread::Builder::new().name("mercury".to_owned()).spawn(move || {
            first();
            // It does not matter whether the caller still waits.
            let begun = || {
                let _ = tell.try_send(());
            };
            live(
                &patience,
                FIRST_WAIT,
                &stopping,
                || {
                    let lived = life(stopping.clone(), &seen, &begun);
                    seen.is_down();
                    lived
                },
                || {
                    seen.is_down();
                    begun();
                },
            );
        })?;
        // An error means that the thread has ended; joining it shows why.
        let _ = told.recv();
        Ok(Self { watched, stop: Some(stop), thread: Some(thread) })
    }
}

/// Repeats runs until the node stops. `ended` is called after each run that ended before.
fn live(
    patience: &tokio::runtime::Runtime,
    first_wait: Duration,
    stop: &Stop,
    life: impl Fn() -> Result<(), String>,
    ended: impl Fn(),
) {
    let mut wait = first_wait;
    loop {
        let since = Instant::now();
        // All state of a run is gone with it: the next one starts from what is on disk.
        let lived = catch_unwind(AssertUnwindSafe(&life)).unwrap_or_else(|panic| Err(said(&*panic)));
        if stop.has_changed().is_err() {
            if let Err(reason) = lived {
                error!("Mercury has stopped: {reason}");
            }
            return;
        }
        ended();
        if since.elapsed() > LONGEST_WAIT {
            wait = first_wait;
        }
        let reason = lived.err().unwrap_or_else(|| "it has ended by itself".to_owned());
        error!("Mercury is not running: {reason}; tried again in {} s", wait.as_secs());
        let told = async { tokio::time::timeout(wait, stopped(stop.clone())).await.is_ok() };
        if patience.block_on(told) {
            return;
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("no reason given"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_life_that_panics_or_fails_is_followed_by_another_until_the_node_stops() {
        let patience =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (stop, stopping) = watch::channel(());
        let stop = Cell::new(Some(stop));
        let (lives, ends) = (Cell::new(0), Cell::new(0));
        let life = || {
            lives.set(lives.get() + 1);
            match lives.get() {
                1 => panic!("a first life, as the test wants it"),
                2 => Err("the database is gone".to_owned()),
                3 => Ok(()),
                _ => {
                    drop(stop.take());
                    Ok(())
                }
            }
        };
        live(&patience, Duration::from_millis(1), &stopping, life, || ends.set(ends.get() + 1));
        assert_eq!((lives.get(), ends.get()), (4, 3));
    }

    #[test]
    fn a_wait_ends_when_the_node_stops() {
        let (begun, beginning) = mpsc::channel();
        let hosted = Hosted::start(
            || (),
            move |_, _, _| {
                let _ = begun.send(());
                Err("never".to_owned())
            },
        );
        let hosted = hosted.expect("a thread");
        assert!(!hosted.watched.figures().0);
        // The third delay is 4 s.
        (0..3).for_each(|_| beginning.recv().expect("another life"));
        drop(hosted);
        assert!(beginning.try_recv().is_err(), "no life after the end");
    }
}
