//! Ports for programs that tests start. Uses only `std`: crates below this one include the file by path.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below the range that Linux uses for outgoing connections.
const PORTS: Range<u16> = 20_000..32_768;

/// A loopback port that was free a moment ago. The system does not use these for outgoing connections, and this
/// function returns each one once, so that a port freed for a while (by a program that is restarted) stays free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = u32::from(PORTS.end - PORTS.start);
    // Test programs that run concurrently start at different places.
    let first = std::process::id().wrapping_mul(997) % range;
    let ports = (0..range).map(|_| {
        let place = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % range;
        PORTS.start + u16::try_from(place).expect("the range is one of ports")
    });
    let mut free = ports.filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    free.next().expect("loopback has a free port")
}
