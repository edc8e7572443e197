//! Devices that fail in every way, next to one that works, at a pool over real sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use iop_kernels::Found;
use iop_miner::device::{Cpu, Device, Feed};
use iop_miner::rig::Rig;
use iop_miner::stats::{DeviceSnapshot, Health};
use tokio::sync::oneshot;

use crate::support::{Client, EASY, JOB, TIMING, listen, pool};

/// Panics when it gets work.
struct Panics;

impl Device for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn run(&self, feed: &Feed) -> io::Result<()> {
        let _work = feed.next(1);
        panic!("a flaw in a driver")
    }
}

/// Has only wrong finds.
struct Liar;

impl Device for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }

    fn run(&self, feed: &Feed) -> io::Result<()> {
        while let Some(assignment) = feed.next(1) {
            feed.add_hashes(1);
            feed.found(&assignment, Found { nonce: assignment.nonces.first(), version: 0 });
        }
        Ok(())
    }
}

/// Works until it is pulled out of its slot.
struct Pulled(Arc<AtomicBool>);

impl Device for Pulled {
    fn name(&self) -> &'static str {
        "pulled"
    }

    fn run(&self, feed: &Feed) -> io::Result<()> {
        let _work = feed.next(1);
        feed.add_hashes(1);
        self.0.store(true, Ordering::Relaxed);
        Err(io::Error::other("not in its slot"))
    }

    fn may_come_back(&self) -> bool {
        true
    }
}

fn health(devices: &[DeviceSnapshot], name: &str) -> Health {
    devices.iter().find(|device| device.name == name).unwrap().health.clone()
}

fn has_failed(devices: &[DeviceSnapshot], name: &str, why: &str) -> bool {
    matches!(health(devices, name), Health::Failed(text) if text.contains(why))
}

#[test]
fn devices_that_fail_are_named_and_the_others_go_on() {
    let (listener, address): (_, SocketAddr) = listen();
    let pulled = Arc::new(AtomicBool::new(false));
    let devices: Vec<Box<dyn Device>> = vec![
        Box::new(Panics),
        Box::new(Liar),
        Box::new(Pulled(Arc::clone(&pulled))),
        Box::new(Cpu::new(iop_kernels::auto(), 1)),
    ];
    let upstream = pool(&[address], None, TIMING);
    let (rig, (stop, stopped)) = (Rig::new(devices, upstream.board()), oneshot::channel::<()>());
    let stats = Arc::clone(&rig.stats);
    let until = async {
        let _ = stopped.await;
        Ok(())
    };
    let running = thread::spawn(move || rig.run(upstream, until));
    let mut client = Client::accept(&listener);
    client.handshake(&JOB);
    client.set_difficulty(EASY);
    client.send(&JOB.notify(true));
    loop {
        // These are the CPU's, not the liar's: every share is valid.
        JOB.check(&client.accept_share());
        let devices = stats.snapshot().devices;
        let failed = has_failed(&devices, "panics", "it panicked: a flaw in a driver")
            && has_failed(&devices, "liar", "10 wrong finds in a row: stopped")
            && has_failed(&devices, "pulled", "not in its slot; trying again in 60 s");
        if failed {
            assert_eq!(health(&devices, "cpu"), Health::Working);
            break;
        }
    }
    assert!(pulled.load(Ordering::Relaxed));
    let liar = stats.snapshot().devices.into_iter().find(|device| device.name == "liar").unwrap();
    assert_eq!((liar.counts.hardware_errors, liar.counts.accepted), (10, 0));
    // It continues with the next job as well.
    client.send(&JOB.notify(true));
    JOB.check(&client.accept_share());
    // The end of the miner does not wait for a device to come back.
    drop(stop);
    running.join().unwrap().unwrap();
}
