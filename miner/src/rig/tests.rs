//! The end of a rig, and the shares submitted then.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use iop_kernels::Found;
use tokio::sync::oneshot;

use super::*;
use crate::job::tests::{ANY_HASH, job};

/// Finds one more share when its work ends, like a device with a launch in progress.
struct Late(Mutex<Option<oneshot::Sender<()>>>);

impl Device for Late {
    fn name(&self) -> &'static str {
        "late"
    }

    fn run(&self, feed: &Feed) -> io::Result<()> {
        let assignment = feed.next(1).unwrap();
        self.0.lock().unwrap().take().unwrap().send(()).unwrap();
        while feed.is_current(&assignment) {
            thread::yield_now();
        }
        feed.found(&assignment, Found { nonce: 0, version: 0 });
        Ok(())
    }
}

/// Counts shares.
struct Counting(Arc<AtomicUsize>);

impl Upstream for Counting {
    async fn run(self, mut desk: Desk) -> Infallible {
        desk.dispatcher.set_job(Arc::new(job("1", 4, 0, ANY_HASH)));
        while desk.shares.recv().await.is_some() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        std::future::pending().await
    }
}

#[test]
fn what_a_device_finds_while_it_ends_is_handed_in() {
    let (started, start) = oneshot::channel();
    let mut rig = Rig::new(vec![Box::new(Late(Mutex::new(Some(started))))], Arc::new(Board::new([])));
    rig.hand_in_before_end();
    let taken = Arc::new(AtomicUsize::new(0));
    let until = async { start.await.map_err(io::Error::other) };
    rig.run(Counting(Arc::clone(&taken)), until).unwrap();
    assert_eq!(taken.load(Ordering::Relaxed), 1);
}

/// Finds more at the end than may wait for the upstream, like a device with an easy target and a launch in progress.
struct Flooding(Mutex<Option<oneshot::Sender<()>>>);

impl Device for Flooding {
    fn name(&self) -> &'static str {
        "flooding"
    }

    fn run(&self, feed: &Feed) -> io::Result<()> {
        let assignment = feed.next(1).unwrap();
        self.0.lock().unwrap().take().unwrap().send(()).unwrap();
        while feed.is_current(&assignment) {
            thread::yield_now();
        }
        let finder = Stats::new().device("flooding");
        let is_block = |found| assignment.share(found, Arc::clone(&finder)).is_block();
        let mut finds = (0..).map(|nonce| Found { nonce, version: 0 });
        let ordinary = finds.find(|found| !is_block(*found)).unwrap();
        (0..share_channel().0.max_capacity() + 7).for_each(|_| feed.found(&assignment, ordinary));
        Ok(())
    }
}

/// Provides a job, and takes no share.
struct Deaf;

impl Upstream for Deaf {
    async fn run(self, desk: Desk) -> Infallible {
        desk.dispatcher.set_job(Arc::new(job("1", 4, 0, ANY_HASH)));
        let _held = desk;
        std::future::pending().await
    }
}

#[test]
fn the_warning_at_the_end_counts_what_there_was_no_room_for_too() {
    let log = log::tests::Heard::begin();
    let (started, start) = oneshot::channel();
    let device = Flooding(Mutex::new(Some(started)));
    let mut rig = Rig::new(vec![Box::new(device)], Arc::new(Board::new([])));
    rig.hand_in_before_end();
    let until = async { start.await.map_err(io::Error::other) };
    rig.run(Deaf, until).unwrap();
    let all = share_channel().0.max_capacity() + 7;
    assert_eq!(log.lines(&format!("{all} shares had not gone up")), 1, "{}", log.text());
}

/// Waits for work, and hashes nothing.
struct Waiting;

impl Device for Waiting {
    fn name(&self) -> &'static str {
        "waiting"
    }

    fn run(&self, feed: &Feed) -> io::Result<()> {
        while feed.next(1).is_some() {}
        Ok(())
    }
}

struct Panicking;

impl Upstream for Panicking {
    async fn run(self, _: Desk) -> Infallible {
        panic!("for the test")
    }
}

#[test]
fn a_panic_of_the_upstream_ends_the_rig_and_its_devices() {
    let (ended, end) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let rig = Rig::new(vec![Box::new(Waiting)], Arc::new(Board::new([])));
        let run = || rig.run(Panicking, std::future::pending());
        ended.send(catch_unwind(AssertUnwindSafe(run)).is_err()).unwrap();
    });
    assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true));
}
