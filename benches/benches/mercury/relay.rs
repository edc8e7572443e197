//! The speed of a relay circuit on loopback, in wall time and in CPU time of the home's thread.
#![allow(clippy::unwrap_used)]

mod people;

use std::sync::Arc;
use std::time::Duration;

use iop_mercury::home::{Home, Settings};
use iop_mercury::id::Key;
use iop_mercury::net::{Host, Setup};
use iop_mercury::store::Store;
use iop_mercury::wire::Hosting;

/// Bytes through a circuit; a circuit may take 64 MiB.
const BYTES: usize = 60 << 20;
/// Circuits, one after another.
const CIRCUITS: usize = 12;

/// CPU time of a thread of this process.
fn cpu_time(thread: &str) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        network: "bench".into(),
        hosting: Hosting::Open,
        max_hosted: 10,
        owner: None,
        addresses: Vec::new(),
        backups: folder.path().join("backups"),
    };
    let store = Arc::new(Store::open(&folder.path().join("store")).unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        let name = link.file_name().unwrap().to_str().unwrap().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let home = Home::new(store, Key::generate().unwrap(), settings).unwrap();
            let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
            let host = Host::new(listen, home, Setup::default()).unwrap();
            tell.send((name, host.handle())).unwrap();
            host.run(async {
                let _ = stopped.await;
            })
            .await
            .unwrap();
        });
    });
    let (name, mut handle) = told.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = handle.addresses().await[0].clone();
        let (mut caller, mut callee) = people::pair(&address, "bench").await;
        people::pour(&mut caller, &mut callee, &address, BYTES).await;
        let (mut clock, before) = (Duration::ZERO, cpu_time(&name));
        for _ in 0..CIRCUITS {
            clock += people::pour(&mut caller, &mut callee, &address, BYTES).await;
        }
        let cpu = cpu_time(&name) - before;
        let megabytes = (BYTES * CIRCUITS) as f64 / 1e6;
        println!("{megabytes:.0} MB through {CIRCUITS} circuits, one after the other");
        println!("by the clock, both ends in one other thread: {:.0} MB/s", megabytes / clock.as_secs_f64());
        println!("by CPU time of the home's thread: {:.0} MB/s", megabytes / cpu.as_secs_f64());
    });
    drop(stop);
    thread.join().unwrap();
}
