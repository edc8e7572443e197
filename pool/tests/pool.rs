//! The program against a failing node, over real TCP: nothing is lost, and each failure is one clear line.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::program::{Miner, Program, command, connect, free_port, output, wait_for_exit};
use common::{Chain, PATIENCE, wait_until};
use iop_consensus::params::Params;
use iop_consensus::params::networks::devnet_keys;
use iop_stratum::client::Verdict;
use serde_json::{Value, json};

/// Starts the pool with one node and devnet's three licenses.
fn start(folder: &Path, node: &str, extra: &[&str]) -> Program {
    Program::spawn(command(folder, node, extra))
}

/// A miner that may have no work yet.
fn join(pool: &Program) -> Miner<TcpStream> {
    Miner::joined(connect(pool.stratum))
}

impl Miner<TcpStream> {
    /// Solves a share and waits for the verdict.
    fn solve_and_wait(&mut self) -> Verdict {
        self.solve();
        self.next_verdict()
    }

    /// Mines until the chain has `height` blocks.
    fn mine_to(&mut self, chain: &Chain, height: usize) {
        wait_until("the chain grows", || {
            let before = chain.height();
            if before < height && self.job.is_some() {
                self.solve();
                let begun = Instant::now();
                while chain.height() == before && begun.elapsed() < Duration::from_secs(2) {
                    self.exchange();
                }
            }
            let job = self.job.as_ref().map(|job| job.notify.job_id.clone());
            self.exchange();
            let begun = Instant::now();
            while self.job.as_ref().map(|job| job.notify.job_id.clone()) == job
                && begun.elapsed() < Duration::from_millis(300)
            {
                self.exchange();
            }
            chain.height() >= height
        });
    }
}

#[test]
fn blocks_are_licensed_counted_and_shown() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    chain.set_cap(2);
    let pool = start(folder.path(), &format!("http://u:p@{}", node.address), &[]);
    let mut miner = join(&pool);
    miner.mine_to(&chain, 6);
    let licenses: Vec<String> =
        pool.api("blocks").as_array().unwrap().iter().map(|b| b["license"].to_string()).collect();
    assert!(licenses.len() >= 6, "{licenses:?}");
    // Three licenses with two blocks each: none is left.
    wait_until("the pool says that no license is left", || pool.api("status")["state"] == "no_license");
    let status = pool.api("status");
    assert!(status["reason"].as_str().unwrap().contains("no license may mine block 7"), "{status}");
    assert_eq!(status["resumes_from_height"], 2016);
    assert!(pool.log().contains("no license may mine block 7"));
    wait_until("the miner, whose job is dead, is closed", || {
        miner.exchange();
        miner.is_closed
    });
    let mut late = join(&pool);
    late.exchange();
    assert!(late.job.is_none(), "no work to burn");
    chain.set_cap(3);
    wait_until("work resumes", || pool.api("status")["state"] == "mining");
    wait_until("the late miner gets work", || {
        late.exchange();
        late.job.is_some()
    });
    assert!(!late.is_closed, "who came after the work ended just waits");
    let workers = pool.api("workers");
    assert_eq!((&workers["total"], &workers["workers"][0]["connections"]), (&1.into(), &1.into()));
    assert!(workers["workers"][0]["accepted"].as_u64().unwrap() >= 6);
    assert_eq!(pool.api("licenses").as_array().unwrap().len(), 3);
    assert_eq!(pool.get("/healthz"), "ok\n");
    let page = pool.get("/");
    assert!(page.contains("src=\"/assets/main.js\""), "{page}");
    assert!(pool.get("/assets/main.js").contains("/api/v1/"), "the page's script is served");
    let rate = &pool.api("status")["hash_rate"];
    let user = workers["workers"][0]["user"].as_str().unwrap();
    let history = pool.api(&format!("history?span=day&worker={user}"));
    assert!(rate["ten_minutes"].as_u64().unwrap() > 0 && rate["hour"].as_u64().unwrap() > 0, "{rate}");
    assert_eq!((&history["worker"], &history["step"]), (&user.into(), &900.into()));
    assert!(history["hash_rate"][0].as_u64().unwrap() > 0, "{history}");
    assert_eq!(pool.api("history")["step"], 60);
    assert_eq!(pool.end(), Some(0));
}

#[test]
fn the_node_may_be_missing_at_first_and_die_later() {
    let (folder, chain, port) = (tempfile::tempdir().unwrap(), Chain::new("devnet"), free_port());
    let cookie = folder.path().join(".cookie");
    let url = format!("http://127.0.0.1:{port}");
    let pool = start(folder.path(), &url, &["--node-cookie", cookie.to_str().unwrap()]);
    wait_until("it says so", || pool.log().contains("node gives no work, waiting for it"));
    assert_eq!(pool.api("status")["state"], "no_node");
    fs::write(&cookie, "u:p").unwrap();
    let node = chain.serve(port);
    let mut miner = join(&pool);
    miner.mine_to(&chain, 2);

    drop(node);
    wait_until("it notices", || pool.api("status")["nodes"][0]["in_use"] == false);
    wait_until("the miner has the job of the last tip", || {
        miner.exchange();
        miner.job.as_ref().is_some_and(|job| job.notify.clean)
    });
    assert_eq!(miner.solve_and_wait(), Verdict::Accepted, "answered while the node is away");
    wait_until("it could not be delivered", || pool.log().contains("block not delivered yet"));
    *chain.password.lock().unwrap() = "u:new".into();
    fs::write(&cookie, "u:new").unwrap();
    let _node = chain.serve(port);
    wait_until("the block found meanwhile is in the chain", || chain.height() == 3);
    miner.mine_to(&chain, 4);
    let said = pool.log().matches("node gives no work").count();
    assert_eq!(said, 2, "once per time that the node was away:\n{}", pool.log());
    assert!(pool.log().contains("node is back"));
    assert_eq!(pool.end(), Some(0));
}

#[test]
fn a_block_survives_the_pool() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let (port, url) = (node.address.port(), format!("http://u:p@{}", node.address));
    let mut pool = start(folder.path(), &url, &[]);
    let mut miner = join(&pool);
    miner.wait_for_work();
    drop(node);
    let files = || {
        let all = fs::read_dir(folder.path().join("data/found")).unwrap().flatten();
        all.filter(|file| file.file_name() != "reserve").collect::<Vec<_>>()
    };
    assert_eq!(miner.solve_and_wait(), Verdict::Accepted);
    let stored: Vec<_> = files().iter().map(|file| file.path()).collect();
    assert!(
        stored.len() == 1 && stored[0].extension().is_some_and(|e| e == "json"),
        "on disk before it is answered: {stored:?}"
    );
    pool.signal("-KILL");
    pool.ended();
    let _node = chain.serve(port);
    let again = start(folder.path(), &url, &[]);
    wait_until("the block is in the chain", || chain.height() == 1);
    wait_until("it is forgotten", || files().is_empty());
    assert_eq!(again.end(), Some(0));
}

#[test]
fn hostile_connections_disturb_nobody() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let pool = start(folder.path(), &format!("http://u:p@{}", node.address), &[]);
    let mut miner = join(&pool);
    let hostile: Vec<TcpStream> = (0..50)
        .map(|number| {
            let mut stream = TcpStream::connect(pool.stratum).unwrap();
            let bytes = match number % 4 {
                0 => vec![b'x'; 100_000],
                1 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                2 => b"{\"id\":1,\"method\":\"mining.ping\"}\n".repeat(1000), // and never reads
                _ => vec![b'\n'; 50_000],
            };
            stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let _ = stream.write_all(&bytes);
            stream
        })
        .collect();
    miner.mine_to(&chain, 2);
    for (number, mut stream) in hostile.into_iter().enumerate().filter(|(number, _)| number % 4 < 2) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Closed, or reset if it had unread input; but not still open.
        let ended = stream.read_to_end(&mut Vec::new());
        let open = ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!open, "{number} is closed");
    }
    assert_eq!(pool.end(), Some(0));
}

fn fails(mut command: Command, status: i32, line: &str) {
    let ended = output(&mut command);
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(status), "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|found| found.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(line), "'{line}' expected in:\n{stderr}");
}

/// The same command under another limit of open files.
fn few_files(command: &Command, limit: &str) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.env_remove("IOP_POOL_LICENSE_KEYS").stdout(Stdio::piped()).stderr(Stdio::piped());
    limited
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let folder = tempfile::tempdir().unwrap();
    let command = command(folder.path(), "http://u:p@127.0.0.1:1", &[]);
    let mut soft = Command::new("sh");
    soft.args(["-c", "ulimit -Sn 90; ulimit -Hn 500; exec \"$0\" \"$@\""]);
    soft.arg(command.get_program()).args(command.get_args());
    soft.env_remove("IOP_POOL_LICENSE_KEYS").stdout(Stdio::piped()).stderr(Stdio::piped());
    let pool = Program::spawn(soft);
    let limits = fs::read_to_string(format!("/proc/{}/limits", pool.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[3..5], ["500", "500"], "{line}");
    assert_eq!(pool.end(), Some(0));
}

#[test]
fn trouble_of_a_node_is_no_verdict_on_a_block() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    chain.script.lock().unwrap().extend([
        json!({"result": null, "error": {"code": -32603, "message": "the node is stopping"}}),
        json!({"result": "prev-blk-not-found", "error": null}),
    ]);
    let pool = start(folder.path(), &format!("http://u:p@{}", node.address), &[]);
    let mut miner = join(&pool);
    miner.wait_for_work();
    assert_eq!(miner.solve_and_wait(), Verdict::Accepted);
    wait_until("the block is in the chain", || chain.height() == 1);
    wait_until("its answer is known", || pool.api("blocks")[0]["status"] == "accepted");
    assert_eq!(pool.api("blocks")[0]["answers"].as_array().unwrap().len(), 1);
    assert!(pool.log().contains("the node is stopping") && pool.log().contains("prev-blk-not-found"));
    assert_eq!(pool.end(), Some(0));
}

#[test]
fn a_node_that_turns_to_another_chain_is_left_out_until_it_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, other, port) = (Chain::new("devnet"), Chain::new("regtest"), free_port());
    let first = chain.serve(0);
    let url = format!("http://u:p@{}", first.address);
    let pool = start(folder.path(), &url, &["--node", &format!("http://u:p@127.0.0.1:{port}")]);
    let mut miner = join(&pool);
    miner.wait_for_work();
    let _second = other.serve(port); // only now, after the start
    assert_eq!(miner.solve_and_wait(), Verdict::Accepted);
    wait_until("the first node has the block", || chain.height() == 1);
    wait_until("the pool says what is wrong", || {
        pool.log().contains("block not delivered yet: on chain 'regtest'")
    });
    drop(first);
    let trouble = || pool.api("status")["nodes"][1]["trouble"].as_str().unwrap_or_default().to_owned();
    wait_until("no template is asked there either", || trouble().contains("on chain 'regtest'"));
    assert_eq!(other.offered.load(Ordering::SeqCst), 0, "it was offered nothing");
    "devnet".clone_into(&mut other.name.lock().unwrap());
    wait_until("it is in use", || pool.api("status")["nodes"][1]["in_use"] == true);
    wait_until("it has the block, too", || other.height() == 1);
    assert_eq!(pool.end(), Some(0));
}

#[test]
fn what_cannot_work_ends_with_one_line() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("regtest"));
    let node = chain.serve(0);
    let url = format!("http://u:p@{}", node.address);
    let ports = ["--stratum-bind", "127.0.0.1:0", "--api-bind", "127.0.0.1:0"];
    fails(command(folder.path(), &url, &ports), 1, "is on chain 'regtest' (genesis ");
    let right = Chain::new("devnet").serve(0);
    let both = [&ports[..], &["--node", &url]].concat();
    let first = format!("http://u:p@{}", right.address);
    fails(command(folder.path(), &first, &both), 1, "is on chain 'regtest' (genesis "); // even if it is not the first node
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let in_use = ["--stratum-bind", &taken.to_string(), "--api-bind", "127.0.0.1:0"].map(String::from);
    let in_use: Vec<&str> = in_use.iter().map(String::as_str).collect();
    fails(command(folder.path(), &url, &in_use), 1, &format!("Stratum cannot listen on {taken}"));
    drop(holder);
    let lock = fs::File::create(folder.path().join("data/lock")).unwrap();
    lock.lock().unwrap();
    fails(command(folder.path(), &url, &ports), 1, "is in use by another iop-pool");
    drop(lock);
    let mark = folder.path().join("data/network");
    assert!(fs::read_to_string(&mark).unwrap().starts_with("'devnet' (genesis "));
    fs::write(&mark, "'main' (genesis 00)\n").unwrap();
    fails(
        command(folder.path(), &url, &ports),
        1,
        "belongs to network 'main' (genesis 00), 'devnet' (genesis ",
    );
    let pipe = folder.path().join("pipe.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fails(command(folder.path(), &url, &["--config", pipe.to_str().unwrap()]), 2, "not a regular file");
    let many = folder.path().join("many.toml");
    fs::write(&many, "max_connections = 1000").unwrap();
    let mut few_files =
        few_files(&command(folder.path(), &url, &["--config", many.to_str().unwrap()]), "300");
    few_files.stdout(Stdio::piped());
    fails(few_files, 2, "max_connections is 1000, at most 68 expected");
    fails(command(folder.path(), &url, &["--colour"]), 2, "unexpected argument '--colour'");
    fails(command(folder.path(), &url, &["--start-difficulty", "x"]), 2, "invalid value 'x'");
    fails(command(folder.path(), &url, &["--start-difficulty", "5e-324"]), 2, "start_difficulty is 5e-324");
    let [_, (_, key), ..] = devnet_keys();
    let wif = key.to_wif(&Params::devnet().prefixes);
    for arguments in [["check", "--license-key-file", wif.as_str()], [wif.as_str(), "x", "y"]] {
        let mut leaking = Command::new(env!("CARGO_BIN_EXE_iop-pool"));
        leaking.args(arguments).args(if arguments[0] == "check" {
            &["--node", "http://u:p@h"][..]
        } else {
            &[]
        });
        let said = String::from_utf8(output(leaking.env_remove("IOP_POOL_LICENSE_KEYS")).stderr).unwrap();
        assert!(
            said.starts_with("error: ") && said.contains("a key ") && !said.contains(wif.as_str()),
            "{said}"
        );
    }
    fails(command(folder.path(), &url, &["--log", "a=b=c"]), 2, "log is 'a=b=c'");
    fails(command(folder.path(), &url, &["--log", "verbose"]), 2, "log is 'verbose'");
    fails(command(folder.path(), "ftp://h", &[]), 2, "must begin with http://");
    fails(Command::new(env!("CARGO_BIN_EXE_iop-pool")), 2, "");
    fs::set_permissions(folder.path().join("license-1.wif"), fs::Permissions::from_mode(0o644)).unwrap();
}

/// Shares are judged, and books are dated, by the pool's clock; a new machine's may be anything.
#[test]
fn a_clock_that_is_hours_from_the_nodes_is_told() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let run = command(folder.path(), &format!("http://u:p@{}", node.address), &[]);
    let mut check = Command::new(run.get_program());
    check.arg("check").args(run.get_args().skip(1));
    let said = |check: &mut Command| String::from_utf8(output(check).stdout).unwrap();
    assert!(!said(&mut check).contains("warning"), "the clocks agree");
    chain.ahead.store(3 * 3600, Ordering::SeqCst);
    let told = said(&mut check);
    assert!(told.contains("warning   this machine's clock (") && told.contains("3.0 h behind the node's"));
    let pool = start(folder.path(), &format!("http://u:p@{}", node.address), &[]);
    wait_until("the pool warns", || pool.log().contains("3.0 h behind the node's"));
    assert_eq!(pool.log().matches("have the time set by NTP").count(), 1);
}

#[test]
fn check_prints_what_would_be_mined() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let run = command(folder.path(), &format!("http://u:p@{}", node.address), &[]);
    let mut check = Command::new(run.get_program());
    check.arg("check").args(run.get_args().skip(1));
    let output_of = output(&mut check);
    let stdout = String::from_utf8(output_of.stdout).unwrap();
    assert!(output_of.status.success() && stdout.contains("would mine block 1 with license"), "{stdout}");
    assert_eq!(stdout.matches("whitelisted, 0 blocks in the window").count(), 3);
    let mut for_programs = Command::new(check.get_program());
    for_programs.args(check.get_args()).arg("--json");
    let told = output(&mut for_programs);
    let found: Value = serde_json::from_slice(&told.stdout).unwrap();
    let node_found = &found["nodes"][0];
    assert!(told.status.success() && found["error"].is_null() && node_found["error"].is_null(), "{found}");
    assert_eq!(found["network"], "devnet");
    assert_eq!((&node_found["node"], &found["warnings"]), (&json!(node.address.to_string()), &json!([])));
    assert_eq!(node_found["licenses"].as_array().unwrap().len(), 3);
    let work = &node_found["would_mine"];
    assert_eq!((&work["height"], &work["coinbase_value"]), (&json!(1), &json!(5_000_000_000_u64)));
    assert!(
        stdout.contains(&format!("would mine block 1 with license {},", work["license"].as_str().unwrap()))
    );
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut closed = Command::new(check.get_program());
    let mut closed = closed.args(check.get_args()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let status = wait_for_exit(&mut closed);
    let mut said = String::new();
    closed.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""), "nobody reads it");
    let disk = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut full = Command::new(check.get_program());
    let mut full = full.args(check.get_args()).stdout(disk).stderr(Stdio::piped()).spawn().unwrap();
    let status = wait_for_exit(&mut full);
    said.clear();
    full.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.code() == Some(1) && said.contains("stdout cannot be written: No space left"), "{said}");
    drop(node);
    assert_eq!(output(&mut check).status.code(), Some(1));
    let told = output(&mut for_programs);
    let found: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(1));
    let trouble = found["nodes"][0]["error"].as_str().unwrap();
    assert!(found["error"].as_str().unwrap().ends_with(trouble), "{found}");
}
