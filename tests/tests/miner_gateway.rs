//! Machines behind a gateway, from outside: the real `iop-miner gateway` at a real pool and at a real node, simulated
//! machines, and real miners that do not know what they are connected to.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bitcoin::Block;
use bitcoin::consensus::encode::deserialize_hex;
use iop_consensus::license::coinbase::check;
use iop_tests::chain::{devnet_like, easy_devnet, license_address};
use iop_tests::program::{Program, free_port, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address, start_miner};
use iop_tests::worker::Worker;
use serde_json::{Value, json};

/// Everything here takes seconds; a loaded machine may need longer.
const SOON: Duration = Duration::from_secs(60);

/// About a thousand hashes: milliseconds for a simulated machine.
const EASY: f64 = 1.0 / (1u64 << 22) as f64;

struct Stand {
    dir: tempfile::TempDir,
    network: Network,
    node: Node,
    licenses: Vec<PathBuf>,
}

impl Stand {
    fn start(network: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), network);
        let [_, licenses @ ..] = devnet_keys(dir.path());
        let node = Node::start(dir.path(), &network).unwrap();
        Self { network, node, licenses: licenses.into(), dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A pool whose shares are all of one difficulty.
    fn pool(&self) -> Pool {
        let config = format!("vardiff = false\nstart_difficulty = {EASY}\n");
        Pool::start_configured(self.path(), &self.network, self.node.port, &self.licenses, &config).unwrap()
    }

    /// A gateway, and the address that machines connect to.
    fn gateway(&self, more: &[&str]) -> (Program, String) {
        let listen = format!("127.0.0.1:{}", free_port());
        (self.gateway_on(&listen, more), listen)
    }

    fn gateway_on(&self, listen: &str, more: &[&str]) -> Program {
        let difficulty = EASY.to_string();
        let mut args = vec!["gateway", "--listen", listen];
        args.extend(["--start-difficulty", &difficulty, "--min-difficulty", &difficulty]);
        args.extend(more);
        let program = Program::start("iop-miner", self.path(), args).unwrap();
        let listens = || program.log().contains("machines may connect to").then_some(());
        wait_for(SOON, listens).unwrap_or_else(|| panic!("{}", program.log()));
        program
    }

    fn gateway_at(&self, pool: &Pool, user: &str) -> (Program, String) {
        self.gateway(&["--url", &format!("stratum+tcp://{}", pool.stratum), "--user", user])
    }

    /// A pool, the user that it credits, and the gateway that works there as that user.
    fn farm(&self) -> (Pool, String, Program, String) {
        let pool = self.pool();
        let user = format!("{}.farm", new_address(self.path(), &self.network));
        let (gateway, listen) = self.gateway_at(&pool, &user);
        (pool, user, gateway, listen)
    }

    /// A real miner behind a gateway.
    fn machine(&self, listen: &str) -> Program {
        let folder = self.path().join("machine");
        std::fs::create_dir(&folder).unwrap();
        start_miner(&folder, listen, "rig").unwrap()
    }

    fn block(&self, height: u64) -> Block {
        let hash = self.node.rpc.call("getblockhash", json!([height]));
        deserialize_hex(self.node.rpc.call("getblock", json!([hash, 0])).as_str().unwrap()).unwrap()
    }
}

/// The pool's workers, with their accepted shares.
fn workers(pool: &Pool) -> Vec<(String, u64)> {
    let workers = pool.api("workers");
    let list = workers["workers"].as_array().unwrap();
    let worker =
        |worker: &Value| (worker["user"].as_str().unwrap().to_owned(), worker["accepted"].as_u64().unwrap());
    list.iter().map(worker).collect()
}

fn wait_for_shares(pool: &Pool, user: &str, shares: u64, gateway: &Program) {
    let enough = || workers(pool).iter().any(|(name, has)| name == user && *has >= shares).then_some(());
    let words = || format!("{shares} shares expected: {:?}\n{}", workers(pool), gateway.log());
    wait_for(SOON, enough).unwrap_or_else(|| panic!("{}", words()));
}

/// Blocks so rare that none is found by chance.
const RARE: &str = "00000000";

#[test]
fn shares_of_all_machines_are_credited_to_the_gateways_user_and_to_nobody_else() {
    let stand = Stand::start(&devnet_like("gateway", RARE, ""));
    let (pool, user, gateway, listen) = stand.farm();
    let names = ["rack-1", "rack-2", "rack-2", "somebody else's address"];
    let mut machines: Vec<Worker> = names.iter().map(|name| Worker::connect(&listen, name)).collect();
    machines[0].roll_versions();
    for (number, machine) in machines.iter_mut().enumerate() {
        let job = machine.job();
        assert!((job.difficulty / EASY - 1.0).abs() < 1e-9, "no harder than the pool's");
        for _ in 0..3 {
            let bits = (number == 0).then_some(0x0040_2000);
            let share = machine.solve_with(&job, job.time, bits, |worth, _| worth >= job.difficulty);
            assert_eq!(machine.submit(&share), 0);
            assert_eq!(machine.submit(&share), 22);
        }
    }
    wait_for_shares(&pool, &user, 12, &gateway);
    assert_eq!(workers(&pool), [(user, 12)]);
    assert_eq!(pool.api("status")["shares"]["rejected"], json!({}));
}

#[test]
fn a_true_miner_behind_the_gateway_finds_blocks_of_the_pool() {
    let stand = Stand::start(&devnet_like("gateway", "000003ff", ""));
    let (pool, user, gateway, listen) = stand.farm();
    let machine = stand.machine(&listen);
    // New tips come as clean jobs; the machine switches to them.
    let mined = wait_for(SOON, || (stand.node.rpc.height() >= 3).then_some(()));
    assert!(mined.is_some(), "gateway:\n{}\nmachine:\n{}", gateway.log(), machine.log());
    wait_for_shares(&pool, &user, 3, &gateway);
    assert_eq!(workers(&pool).len(), 1);
    drop(machine);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_gateway_that_is_started_again_has_its_machine_back() {
    let stand = Stand::start(&devnet_like("gateway", RARE, ""));
    let (pool, user, gateway, listen) = stand.farm();
    let machine = stand.machine(&listen);
    wait_for_shares(&pool, &user, 1, &gateway);
    assert_eq!(gateway.stop().code(), Some(0));
    let told = wait_for(SOON, || machine.log().contains("the pool asks us to connect to").then_some(()));
    assert!(told.is_some(), "{}", machine.log());
    let before = workers(&pool)[0].1;
    let url = format!("stratum+tcp://{}", pool.stratum);
    let gateway = stand.gateway_on(&listen, &["--url", &url, "--user", &user]);
    wait_for_shares(&pool, &user, before + 1, &gateway);
}

#[test]
fn machines_at_the_license_holders_own_node_find_licensed_blocks() {
    let stand = Stand::start(&easy_devnet("gateway", ""));
    let [node, cookie, license, datadir] = [
        format!("http://127.0.0.1:{}", stand.node.port),
        stand.node.datadir.join(".cookie").display().to_string(),
        stand.licenses[0].display().to_string(),
        stand.path().join("miner").display().to_string(),
    ];
    let mut flags = vec!["--node", &node, "--node-cookie", &cookie, "--license-key-file", &license];
    let network = stand.network.flags();
    flags.extend(["--datadir", &datadir]);
    flags.extend(network.iter().map(String::as_str));
    let (gateway, listen) = stand.gateway(&flags);
    let mut machine = Worker::connect(&listen, "asic");
    for height in 1..=3 {
        let parent = stand.node.rpc.call("getbestblockhash", json!([]));
        let job = machine.job_on(parent.as_str().unwrap());
        // A share that meets the block's target is a block; the gateway only counts the others.
        let block = machine.solve_block(&job);
        assert_eq!(machine.submit(&block), 0);
        let found = wait_for(SOON, || (stand.node.rpc.height() >= height).then_some(()));
        assert!(found.is_some(), "{}", gateway.log());
        let owner = license_address(&stand.licenses[0], &stand.network.params());
        let signer = check(&stand.block(height).txdata[0]).unwrap();
        assert_eq!(signer.to_base58(&stand.network.params().prefixes), owner);
    }
}

/// A third-party program, killed at the end.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs if `IOP_TEST_MINERD` names a `minerd` of cpuminer, or another program that takes its flags.
#[test]
fn an_unchanged_cpuminer_mines_behind_the_gateway() {
    let Some(minerd) = std::env::var_os("IOP_TEST_MINERD") else { return };
    let stand = Stand::start(&devnet_like("gateway", "000003ff", ""));
    let (pool, user, gateway, listen) = stand.farm();
    let url = format!("stratum+tcp://{listen}");
    let mut command = Command::new(minerd);
    command.args(["-a", "sha256d", "-t", "1", "-o", &url, "-u", "cpuminer", "-p", "x"]);
    let _stranger = Stranger(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for_shares(&pool, &user, 5, &gateway);
    let mined = wait_for(SOON, || (stand.node.rpc.height() >= 2).then_some(()));
    assert!(mined.is_some(), "{}", gateway.log());
}
