//! The demo, run to its end and interrupted.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use iop_tests::program::{Program, wait_for};

/// Blocks take a second on a core with AVX-512, ten on one without SIMD.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn programs_killed_in_the_middle_are_started_again_and_the_blocks_come() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Program::start("iop-demo", dir.path(), ["--once", "--blocks", "7"]).unwrap();
    for (height, name) in [(1, "iop-node"), (3, "iop-pool"), (5, "iop-miner")] {
        let line = format!("\n{height:>6}  0000");
        assert!(wait_for(LONG, || demo.log().contains(&line).then_some(())).is_some(), "{}", demo.log());
        demo.kill_children(name);
    }
    let log = dir.path().join("iop-demo.log");
    let status = demo.wait(LONG);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(status.success(), "{log}");
    for name in ["iop-node", "iop-pool", "iop-miner"] {
        assert!(log.contains(&format!("{name} ended, starting it again")), "{log}");
    }
    assert!(log.contains("7 licensed blocks mined"), "{log}");
}
