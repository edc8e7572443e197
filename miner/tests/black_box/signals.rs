//! The effect of signals on the program.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::Ended;
use crate::support::{Client, JOB, PATIENCE, listen};

/// Mines at a pool, with default handling of all signals except those that are `ignored`: the tests themselves may be
/// run with some ignored.
fn mine(url: &str, ignored: &str) -> Command {
    let mut command = Command::new("env");
    command.args([
        "--default-signal",
        &format!("--ignore-signal={ignored}"),
        env!("CARGO_BIN_EXE_iop-miner"),
    ]);
    command.args(["mine", "--url", url, "--user", "pAddress.rig", "--threads", "1"]);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn send(signal: &str, process: u32) -> bool {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, &process.to_string()]).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn sigterm_ctrl_c_and_a_closed_terminal_end_mining_cleanly_with_a_summary() {
    for signal in ["TERM", "INT", "HUP"] {
        let (listener, address) = listen();
        let mut command = mine(&format!("stratum+tcp://{address}"), "PIPE");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut client = Client::accept(&listener);
        client.serve_until_share(&JOB);
        // Some programs send it twice.
        assert!(send(signal, child.id()) && send(signal, child.id()));
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("mined for") && stderr.contains("accepted"), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn signals_that_were_ignored_when_it_was_started_end_nothing() {
    let (listener, address) = listen();
    let mut command = mine(&format!("stratum+tcp://{address}"), "HUP,INT");
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    assert!(send("HUP", child.id()) && send("INT", child.id()));
    for _ in 0..1000 {
        client.accept_share();
    }
    let serving = client.serve_aside();
    assert!(send("TERM", child.id()));
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("asked to terminate"), "{stderr}");
    serving.join().unwrap();
}

#[test]
fn one_more_signal_ends_the_program_at_once() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let (listener, address) = listen();
        let (_reader, writer) = std::io::pipe().unwrap();
        let mut command = mine(&format!("stratum+tcp://{address}"), "PIPE");
        let mut child = Ended(command.env("RUST_LOG", "debug").stderr(writer).spawn().unwrap());
        let mut client = Client::accept(&listener);
        client.serve_until_share(&JOB);
        // A log that is not read delays the end for two seconds.
        for _ in 0..3_000 {
            client.accept_share();
        }
        let serving = client.serve_aside();
        let start = Instant::now();
        while child.0.try_wait().unwrap().is_none() {
            send(signal, child.0.id());
            assert!(start.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(child.0.wait().unwrap().code(), Some(status));
        serving.join().unwrap();
    }
}
