//! The program: exit status, streams, JSON.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, EASY, JOB, PATIENCE, listen};

fn miner(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iop-miner"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    miner(arguments).output().unwrap()
}

#[test]
fn wrong_usage_exits_with_2_and_one_line_on_stderr() {
    let mine = |more: [&'static str; 2]| {
        [&["mine", "--url", "stratum+tcp://127.0.0.1:1", "--user", "a.b"], &more[..]].concat()
    };
    for (arguments, named) in [
        (vec![], "no command given"),
        (vec!["mine", "--frobnicate"], "--frobnicate"),
        (vec!["bench", "--kernel", "warp"], "\"warp\""),
        (
            vec!["mine", "--url", "pool:3333", "--user", "a"],
            "\"pool:3333\": expected stratum+tcp://HOST:PORT, or stratum+ssl://HOST:PORT for TLS",
        ),
        (vec!["mine", "--url", "stratum+tcp://127.0.0.1:1", "--user", ""], "--user \"\""),
        (mine(["--kernel", "warp"]), "unknown kernel \"warp\""),
        (mine(["--devices", "opencl:0"]), "\"opencl:0\": expected cpu and opencl:PLATFORM.DEVICE"),
        (mine(["--threads", "0"]), "--threads 0"),
        (
            [&["gateway", "--listen", "127.0.0.1:1", "--network", "main"], &mine(["--threads", "1"])[1..]]
                .concat(),
            "'--network <NAME>' cannot be used with '--url <URL>'",
        ),
        (mine(["--tls-ca", "/nowhere.pem"]), "--tls-ca /nowhere.pem: No such file"),
    ] {
        let output = run(&arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("iop-miner: ") && stderr.contains(named), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_kernel_that_this_cpu_lacks_is_refused() {
    let lacking: Vec<_> = iop_kernels::all().iter().filter(|kernel| !kernel.is_supported()).collect();
    if lacking.is_empty() {
        eprintln!("SKIPPED: this CPU can run every kernel");
    }
    for kernel in lacking {
        let output = run(&["bench", "--kernel", kernel.name()]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("is not for this CPU"));
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for argument in ["--help", "--version"] {
        let output = run(&[argument]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains("iop-miner"));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn bench_prints_one_object_per_kernel_with_the_promised_fields() {
    let output = run(&["bench", "--kernel", "all", "--threads", "2", "--seconds", "0.2", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let objects: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kernels: Vec<&str> = objects.iter().map(|object| object["kernel"].as_str().unwrap()).collect();
    assert_eq!(kernels, iop_kernels::supported().map(|kernel| kernel.name()).collect::<Vec<_>>());
    for object in &objects {
        let mut fields: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        let mut expected = [
            "kernel",
            "device",
            "threads",
            "versions",
            "hashes",
            "seconds",
            "hashes_per_second",
            "cycles_per_hash",
            "core_cycles_per_hash",
            "fraction_of_limit",
        ];
        expected.sort_unstable();
        assert_eq!(fields, expected);
        assert_eq!((&object["device"], &object["threads"]), (&"cpu".into(), &2.into()));
        let number = |field: &str| object[field].as_f64().unwrap();
        assert!(number("seconds") >= 0.2);
        let rate = number("hashes") / number("seconds");
        assert!((number("hashes_per_second") / rate - 1.0).abs() < 1e-6);
        if cfg!(target_arch = "x86_64") {
            assert!(number("cycles_per_hash") > 1.0);
        }
    }
}

#[test]
fn bench_ends_with_a_comparison_the_fastest_first() {
    let output = run(&["bench", "--threads", "1", "--seconds", "0.2"]);
    assert_eq!(output.status.code(), Some(0));
    let table = String::from_utf8(output.stdout).unwrap();
    let (_, compared) = table.split_once("fastest first:").expect("there are several kernels");
    let parts: Vec<f64> = compared
        .lines()
        .skip(1)
        .map(|line| line.split(" %").next().unwrap().split(' ').next_back().unwrap().parse().unwrap())
        .collect();
    assert_eq!((parts[0], parts.len()), (100.0, iop_kernels::supported().count()), "{table}");
    assert!(parts.windows(2).all(|pair| pair[0] >= pair[1]), "{table}");
}

/// The CPUs that a miner's worker threads are bound to, sorted, and the nice value of its main thread. Workers set
/// their nice value before they are bound.
#[cfg(target_os = "linux")]
fn threads_of(miner: u32) -> (Vec<String>, Option<i64>) {
    let (mut bound, mut main_nice) = (Vec::new(), None);
    for thread in std::fs::read_dir(format!("/proc/{miner}/task")).unwrap() {
        let thread = thread.unwrap().path();
        let read = |file: &str| std::fs::read_to_string(thread.join(file)).unwrap();
        let nice: i64 =
            read("stat").rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap();
        let status = read("status");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let name = read("comm");
        if name.starts_with("cpu-") {
            bound.extend((nice >= 10).then(|| allowed.trim().to_owned()));
        } else if name.trim() == "iop-miner" {
            main_nice = Some(nice);
        }
    }
    bound.sort_unstable();
    (bound, main_nice)
}

#[cfg(target_os = "linux")]
#[test]
fn threads_are_bound_to_cpus_at_low_priority_and_the_pools_thread_is_not() {
    let (listener, address) = listen();
    let url = format!("stratum+tcp://{address}");
    let arguments = ["mine", "--url", &*url, "--user", "pAddress.rig"];
    let child = Ended(miner(&arguments).stderr(Stdio::null()).spawn().unwrap());
    let mut pool = Client::accept(&listener);
    pool.serve_until_share(&JOB);
    // A thread is bound when it gets work: there must be some until the last one has it.
    let _serving = pool.serve_aside();
    let devices = run(&["devices", "--json"]).stdout;
    let cpu: Value = serde_json::from_slice(devices.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    let mut expected: Vec<String> =
        cpu["pinned_to"].as_array().unwrap().iter().map(ToString::to_string).collect();
    expected.sort_unstable();
    let start = Instant::now();
    let main_nice = loop {
        let (seen, main_nice) = threads_of(child.0.id());
        if !seen.is_empty() && (expected.is_empty() || seen == expected) {
            break main_nice;
        }
        assert!(start.elapsed() < PATIENCE, "bound to {seen:?}, not to {expected:?}");
        thread::sleep(Duration::from_millis(10));
    };
    // The program started with our own value.
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own: i64 = own.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap();
    assert_eq!(main_nice, Some(own));
}

/// Runs the program with these lines on stdin.
fn run_with_input(folder: &std::path::Path, arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut command = miner(arguments);
    command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended before reading everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn setup_writes_a_file_and_run_mines_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, address) = listen();
    // A regtest address whose hash is all ones.
    let user = iop_consensus::address::Address {
        kind: iop_consensus::address::AddressKind::PubkeyHash,
        hash: [1; 20],
    };
    let params = iop_consensus::params::Params::by_name("regtest").unwrap();
    let user = user.to_base58(&params.prefixes);
    let answers = format!("pool\nregtest\nstratum+tcp://{address}\n\n{user}\nrig\n\n\n\n");
    let output = run_with_input(folder.path(), &["setup"], &answers);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("H/s with kernel ") && said.contains("miner.toml is written"), "{said}");
    let _child = Ended(
        miner(&["run", "--threads", "1"]).current_dir(folder.path()).stderr(Stdio::null()).spawn().unwrap(),
    );
    let mut client = Client::accept(&listener);
    let authorize = client.read_request("mining.configure");
    assert!(authorize["params"].is_array());
}

#[test]
fn setup_without_answers_and_run_without_a_file_fail_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_with_input(folder.path(), &["setup"], "pool\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr, "iop-miner: setup: the input ended before all was answered; nothing is written\n");
    // Before any question is answered.
    std::os::unix::fs::symlink("nothing", folder.path().join("link")).unwrap();
    for (out, reason) in [
        ("no/such", "No such file or directory"),
        (".", "it is no file"),
        ("link", "it is no file"),
        ("new/", "it is no file"),
    ] {
        let output = run_with_input(folder.path(), &["setup", "--out", out], "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
        assert!(stderr.starts_with(&format!("iop-miner: {out}: {reason}")), "{stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the link");
    let output = run_with_input(folder.path(), &["run"], "");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("iop-miner: configuration file miner.toml cannot be read: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn devices_lists_the_cpu_with_its_kernels() {
    let output = run(&["devices", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let first = output.stdout.split(|byte| *byte == b'\n').next().unwrap();
    let cpu: Value = serde_json::from_slice(first).unwrap();
    assert_eq!(cpu["device"], "cpu");
    assert!(cpu["threads"].as_u64().unwrap() >= 1);
    assert!(cpu["kernels"].as_array().unwrap().contains(&cpu["auto"]));
    let table = String::from_utf8(run(&["devices"]).stdout).unwrap();
    // Columns are separated, whichever kernel is chosen.
    let words: Vec<&str> = table.split_whitespace().collect();
    let kernels = cpu["kernels"].as_array().unwrap().iter().chain([&cpu["auto"], &cpu["device"]]);
    for word in kernels.map(|word| word.as_str().unwrap()) {
        assert!(words.contains(&word), "{word}: {table}");
    }
    if cfg!(target_os = "linux") {
        let (cores, cpus) = (cpu["cores"].as_u64().unwrap(), cpu["cpus"].as_u64().unwrap());
        assert!(cores >= 1 && cpus >= cores && cpu["numa_nodes"].as_u64().unwrap() >= 1, "{cpu}");
        assert!(table.contains(&format!("{cores} physical core")), "{table}");
        // Each thread has its own CPU, unless a quota leaves fewer threads than CPUs.
        let (pinned, threads) = (cpu["pinned_to"].as_array().unwrap(), cpu["threads"].as_u64().unwrap());
        assert!(pinned.len() as u64 == threads || threads < cpus, "{cpu}");
    }
}

#[test]
fn a_missing_pool_is_named_in_one_line_and_tried_again() {
    let (listener, address) = listen();
    drop(listener);
    let url = format!("stratum+tcp://{address}");
    let mut child = Ended(
        miner(&["mine", "--url", &*url, "--user", "a.b", "--threads", "1"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let lines = lines(child.0.stderr.take().unwrap());
    let mut refused = 0;
    while refused < 2 {
        let line = lines.recv_timeout(PATIENCE).expect("it goes on and says so");
        if line.contains("cannot connect") {
            assert!(line.contains(&url) && line.contains("trying again in"), "{line}");
            refused += 1;
        }
    }
    assert!(child.0.try_wait().unwrap().is_none(), "it goes on");
}

/// A program that is killed when the test ends.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of a stream as they arrive.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

/// The program's suggestion to a pool: the parameters, or `None` if its next request is another one.
fn suggested(more: &[&str], password: &str) -> Option<Value> {
    let (listener, address) = listen();
    let url = format!("stratum+tcp://{address}");
    let mut arguments =
        vec!["mine", "--url", &*url, "--user", "pAddress.rig", "--threads", "1", "--password", password];
    arguments.extend(more);
    let _child = Ended(miner(&arguments).stderr(Stdio::null()).spawn().unwrap());
    let mut client = Client::accept(&listener);
    assert!(client.try_handshake(&JOB, password), "the miner stays");
    let next = client.read().expect("the miner stays");
    match next["method"].as_str().unwrap() {
        "mining.suggest_difficulty" => Some(next["params"].clone()),
        other => {
            assert_eq!(other, "mining.extranonce.subscribe");
            None
        }
    }
}

#[test]
fn a_pool_is_told_the_difficulty_that_suits_the_machine_or_the_one_that_was_asked_for() {
    let measured = suggested(&[], "x").expect("something is suggested");
    // From 100 kH/s to 1 TH/s: a thread of any CPU.
    let difficulty = measured[0].as_f64().unwrap();
    assert!((0.0002..=2500.0).contains(&difficulty), "{difficulty}");
    assert_eq!(suggested(&["--suggest-difficulty", "0.25"], "x"), Some(json!([0.25])));
    assert_eq!(suggested(&[], "x,d=2"), None);
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_nobody_takes_is_an_error_or_the_end_but_no_panic() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&["--help"][..], &["--version"], &["mine", "--help"], &["devices"]] {
        let output = miner(arguments).stdout(full()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("iop-miner: ") && stderr.lines().count() == 1, "{stderr}");
        // A reader that closed the pipe has seen enough.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = miner(arguments).stdout(writer).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{arguments:?}");
        // The error message cannot be written either.
        assert_eq!(miner(arguments).stdout(full()).stderr(full()).status().unwrap().code(), Some(1));
    }
    assert_eq!(miner(&["dig"]).stderr(full()).status().unwrap().code(), Some(2));
}

#[cfg(target_os = "linux")]
#[test]
fn mining_goes_on_where_nobody_takes_the_log() {
    let (listener, address) = listen();
    let url = format!("stratum+tcp://{address}");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let arguments = ["mine", "--url", &*url, "--user", "pAddress.rig", "--threads", "1"];
    let _child = Ended(miner(&arguments).stderr(full).spawn().unwrap());
    Client::accept(&listener).serve_until_share(&JOB);
}

#[cfg(target_os = "linux")]
#[test]
fn mining_goes_on_and_ends_in_time_where_nobody_reads_the_log_and_what_is_lost_is_counted() {
    for read_again in [true, false] {
        let (listener, address) = listen();
        let url = format!("stratum+tcp://{address}");
        let arguments = ["mine", "--url", &*url, "--user", "pAddress.rig", "--threads", "1"];
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut child = Ended(miner(&arguments).env("RUST_LOG", "debug").stderr(writer).spawn().unwrap());
        let mut client = Client::accept(&listener);
        client.serve_until_share(&JOB);
        // Each causes two log lines: in all, twice what the pipe and the miner hold.
        for _ in 0..3_000 {
            client.accept_share();
        }
        let serving = client.serve_aside();
        let mut log = String::new();
        if read_again {
            let mut reader = BufReader::new(&mut reader);
            while !log.contains(" lines of the log are lost here") {
                assert!(reader.read_line(&mut log).unwrap() > 0, "it goes on");
            }
        }
        let sent = Command::new("kill").args(["-s", "TERM", &child.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
        if read_again {
            reader.read_to_string(&mut log).unwrap();
            assert!(log.contains("mined for"), "{}", &log[log.len() - 1000..]);
        }
        let start = Instant::now();
        while child.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "a log that nobody reads holds up the end");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(child.0.wait().unwrap().code(), Some(0));
        serving.join().unwrap();
    }
}

/// `mine --json` at a pool that accepts `most` shares and then stops answering.
fn mine_with_json(stdout: impl Into<Stdio>, most: u64) -> Ended {
    let (listener, address) = listen();
    let url = format!("stratum+tcp://{address}");
    let arguments = ["mine", "--url", &*url, "--user", "pAddress.rig", "--threads", "1", "--json"];
    let child = miner(&arguments).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    thread::spawn(move || {
        let mut client = Client::accept(&listener);
        client.handshake(&JOB);
        client.set_difficulty(EASY);
        client.send(&JOB.notify(true));
        let mut taken = 0;
        while let Some(submit) = client.read_submit_if_any() {
            if taken < most {
                client.answer(&submit, json!(true));
                taken += 1;
            }
        }
    });
    Ended(child)
}

#[cfg(unix)]
#[test]
fn json_has_the_counts_of_the_pool_every_ten_seconds_and_at_the_end() {
    const TAKEN: u64 = 50;
    let mut child = mine_with_json(Stdio::piped(), TAKEN);
    let lines = lines(child.0.stdout.take().unwrap());
    let status = || -> Value { serde_json::from_str(&lines.recv_timeout(PATIENCE).unwrap()).unwrap() };
    let first = std::iter::repeat_with(status).find(|status| status["accepted"] == TAKEN).unwrap();
    let sent = Command::new("kill").args(["-s", "TERM", &child.0.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let last = status();
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
    assert!(lines.recv_timeout(PATIENCE).is_err(), "that was the last line");
    for status in [&first, &last] {
        assert_eq!((&status["accepted"], &status["rejected"]), (&json!(TAKEN), &json!(0)), "{status}");
        let work = status["accepted_work"].as_f64().unwrap();
        assert!((work / (TAKEN as f64 * EASY) - 1.0).abs() < 1e-9, "{status}");
        let cpu = &status["devices"][0];
        assert_eq!((&cpu["name"], &cpu["accepted"]), (&json!("cpu"), &json!(TAKEN)), "{status}");
        let [hashes, uptime, average] =
            [&status["hashes"], &status["uptime"], &status["hash_rate"]["average"]]
                .map(|number| number.as_f64().unwrap());
        assert!((average * uptime / hashes - 1.0).abs() < 1e-6, "{status}");
    }
    // On a busy machine no chunk need end between the two.
    assert!(last["hashes"].as_u64() >= first["hashes"].as_u64());
}

#[cfg(target_os = "linux")]
#[test]
fn json_that_nobody_takes_ends_the_miner() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    // A closed pipe means the reader has seen enough; a full disk is a failure.
    for (mut child, status) in [(mine_with_json(writer, 1), 0), (mine_with_json(full, 1), 1)] {
        let mut stderr = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(status), "{stderr}");
        assert_eq!(stderr.contains("iop-miner: "), status == 1, "{stderr}");
    }
}
