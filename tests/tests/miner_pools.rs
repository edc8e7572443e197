//! The miner at several real pools: which one it uses while programs die and come back, and over TLS.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iop_tests::chain::devnet_like;
use iop_tests::program::{Program, free_port, run, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address};
use serde_json::Value;

/// A better pool is checked every half minute at first; a loaded machine may need longer.
const SOON: Duration = Duration::from_secs(120);

/// A chain whose blocks take a minute or more, so that no license comes near its cap, and the keys of its licenses.
struct Setting {
    dir: tempfile::TempDir,
    network: Network,
    licenses: [PathBuf; 3],
    user: String,
}

impl Setting {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &devnet_like(name, "00000000", ""));
        let [_, licenses @ ..] = devnet_keys(dir.path());
        let user = format!("{}.rig", new_address(dir.path(), &network));
        Self { dir, network, licenses, user }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A pool with its own folder and license, at a node that need not run. Its shares take about a million hashes.
    fn pool(&self, number: usize, node_port: u16, stratum: &str, config: &str) -> Pool {
        let folder = self.path().join(format!("pool-{number}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("pool.toml"), format!("vardiff = false\n{config}")).unwrap();
        let more = ["--config", folder.join("pool.toml").to_str().unwrap(), "--start-difficulty", "0.00025"]
            .map(str::to_owned);
        let node = (node_port, self.path().join("node/.cookie"));
        let license = &self.licenses[number..=number];
        Pool::start_at(&folder, &self.network, &[node], license, stratum, &more).unwrap()
    }

    fn miner(&self, urls: &[String], more: &[&str]) -> Program {
        let mut args = vec!["mine", "--user", &self.user, "--threads", "1"];
        args.extend(["--suggest-difficulty", "0.00025"]);
        urls.iter().for_each(|url| args.extend(["--url", url]));
        args.extend(more);
        Program::start("iop-miner", self.path(), args).unwrap()
    }
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn accepted(pool: &Pool) -> u64 {
    pool.api("status")["shares"]["accepted"].as_u64().unwrap()
}

/// Waits until the pool has accepted this many more shares.
fn wait_for_shares(pool: &Pool, more: u64, miner: &Program) {
    let wanted = accepted(pool) + more;
    let came = wait_for(SOON, || (accepted(pool) >= wanted).then_some(()));
    assert!(came.is_some(), "no shares at {}; the miner's log:\n{}", pool.stratum, miner.log());
}

fn wait_for_log(program: &Program, text: &str) {
    let logged = wait_for(SOON, || program.log().contains(text).then_some(()));
    assert!(logged.is_some(), "'{text}' expected in:\n{}", program.log());
}

/// Asserts that no share was refused except as stale.
fn assert_none_refused(pool: &Pool) {
    let rejected = &pool.api("status")["shares"]["rejected"];
    let others = rejected.as_object().unwrap().iter().filter(|(code, count)| *code != "21" && **count != 0);
    assert_eq!(others.count(), 0, "{rejected}");
}

#[test]
fn the_first_pool_is_left_when_it_dies_and_gone_back_to_when_it_is_there_again() {
    let at = Setting::new("return");
    let node = Node::start(at.path(), &at.network).unwrap();
    let [stratum, other] = [address(), address()];
    let first = at.pool(0, node.port, &stratum, "");
    let second = at.pool(1, node.port, &other, "");
    let urls = [&stratum, &other].map(|pool| format!("stratum+tcp://{pool}"));
    let miner = at.miner(&urls, &[]);
    wait_for_shares(&first, 3, &miner);
    assert_eq!(accepted(&second), 0, "the fallback is not mined at while the first is there");

    first.program.kill();
    wait_for_shares(&second, 3, &miner);
    let first = at.pool(0, node.port, &stratum, "");
    // The fallback's work continues until the first one's is there.
    wait_for_shares(&first, 3, &miner);
    let then = accepted(&second);
    wait_for_shares(&first, 10, &miner);
    // At most the shares in flight when the miner switched.
    assert!(accepted(&second) <= then + 2, "both are mined at");
    for pool in [&first, &second] {
        assert_none_refused(pool);
    }

    // First the miner is killed and restarted, then the node; the first pool has its work again each time.
    miner.kill();
    let miner = at.miner(&urls, &[]);
    wait_for_shares(&first, 3, &miner);
    let _node = node.kill_and_restart(at.path(), &at.network).unwrap();
    let mining = |status: &Value| status["state"] == "mining" && status["nodes"][0]["trouble"].is_null();
    assert!(wait_for(SOON, || mining(&first.api("status")).then_some(())).is_some());
    wait_for_shares(&first, 3, &miner);
    assert_none_refused(&first);
    assert!(miner.stop().success(), "SIGTERM ends the miner with status 0");
}

#[test]
fn a_pool_without_a_node_has_no_job_and_is_gone_over_to_when_it_has_one() {
    let at = Setting::new("jobless");
    let node = Node::start(at.path(), &at.network).unwrap();
    let [stratum, other] = [address(), address()];
    let nowhere = free_port();
    let first = at.pool(0, nowhere, &stratum, "");
    let second = at.pool(1, node.port, &other, "");
    let urls = [&stratum, &other].map(|pool| format!("stratum+tcp://{pool}"));
    let miner = at.miner(&urls, &[]);
    wait_for_shares(&second, 3, &miner);
    let meanwhile = format!("mining at {} meanwhile", urls[1]);
    assert!(miner.log().contains(&meanwhile), "{}", miner.log());
    assert_eq!(accepted(&first), 0);
    // It comes back with a running node.
    first.program.kill();
    let first = at.pool(0, node.port, &stratum, "");
    wait_for_shares(&first, 3, &miner);
    wait_for_log(&miner, &format!("{}: mining here from now on, no longer at {}", urls[0], urls[1]));
    assert_none_refused(&first);
}

#[test]
fn a_pool_is_mined_at_over_tls_only_by_those_who_trust_its_certificate() {
    let at = Setting::new("tls");
    let node = Node::start(at.path(), &at.network).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| at.path().join(name));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let port = free_port();
    let config = format!(
        "stratum_tls_bind = \"127.0.0.1:{port}\"\ntls_certificate_file = {certificate:?}\ntls_key_file = {key:?}\n"
    );
    let pool = at.pool(0, node.port, &address(), &config);
    let trusted = certificate.to_str().unwrap();
    let miner = at.miner(&[format!("stratum+ssl://localhost:{port}")], &["--tls-ca", trusted]);
    wait_for_shares(&pool, 3, &miner);
    assert_none_refused(&pool);
    assert!(miner.stop().success());

    let then = accepted(&pool);
    let stranger = Setting::new("stranger");
    let other = rcgen::generate_simple_self_signed(vec!["elsewhere".to_owned()]).unwrap();
    let others = stranger.path().join("other.pem");
    fs::write(&others, other.cert.pem()).unwrap();
    let trusts_another = ["--tls-ca", others.to_str().unwrap()];
    let miner = stranger.miner(&[format!("stratum+ssl://localhost:{port}")], &trusts_another);
    wait_for_log(&miner, "nobody whom we trust has signed its certificate; name the CA, or the certificate");
    let by_address = stranger.miner(&[format!("stratum+ssl://127.0.0.1:{port}")], &["--tls-ca", trusted]);
    wait_for_log(&by_address, "its certificate is for another host than 127.0.0.1");
    assert_eq!(accepted(&pool), then);
    drop((miner, by_address));

    let url = format!("stratum+ssl://localhost:{port}");
    let (status, _, stderr) = run("iop-miner", ["mine", "--url", &url, "--user", "a.b", "--tls-ca", "none"]);
    assert_eq!((status, stderr.lines().count()), (Some(2), 1), "{stderr}");
}
