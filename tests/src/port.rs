//! Ports for programs that tests start. Of `std` alone: crates below this one use the file by its path.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below those that Linux gives to outgoing connections.
const PORTS: Range<u16> = 20_000..32_768;

/// A port of loopback that was free a moment ago. The system gives these to no outgoing connection, and this function
/// gives each one once, so that who frees a port for a while (a program that is started again) finds it free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = u32::from(PORTS.end - PORTS.start);
    // Programs of tests that run beside each other begin at other places.
    let first = std::process::id().wrapping_mul(997) % range;
    let ports = (0..range).map(|_| {
        let place = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % range;
        PORTS.start + u16::try_from(place).expect("the range is one of ports")
    });
    let mut free = ports.filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    free.next().expect("loopback has a free port")
}
