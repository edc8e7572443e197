//! kill -9 at any moment: the node restarts at a possible block, and its registry and coin set are those of a fresh
//! replay of that chain.
//!
//! `IOP_KILLS=300` sets the total number of kills (default 25), `IOP_KILL_SEED` repeats the moments of an earlier run.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, Transaction};
use iop_benches::synth::chain::{Chain, license_keys, secret_key};
use iop_benches::synth::load::{Load, Random};
use iop_benches::synth::{Shape, frame, network_file};
use iop_tests::program::{programs, run};
use iop_tests::replay::Replay;
use iop_tests::rpc::RpcFailure;
use iop_tests::stand::{Network, Node};
use serde_json::{Value, json};

/// Kills in each of the three tests.
fn kills() -> usize {
    let all = std::env::var("IOP_KILLS").map_or(25, |text| text.parse().unwrap());
    usize::max(all / 3, 1)
}

fn random() -> Random {
    let seed = std::env::var("IOP_KILL_SEED").map_or_else(
        |_| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        |text| text.parse().unwrap(),
    );
    // Shown when the test fails.
    println!("IOP_KILL_SEED={seed}");
    Random(seed)
}

/// Blocks, and the expected state of the chain up to each.
struct World {
    dir: tempfile::TempDir,
    network: Network,
    blocks: Vec<Block>,
    states: HashMap<String, Replay>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &network_file());
        let genesis = Replay::new(&network.params());
        let states = HashMap::from([(genesis.tip().to_string(), genesis)]);
        Self { dir, network, blocks: Vec::new(), states }
    }

    /// Adds a block whose parent is already here.
    fn add(&mut self, block: &Block) {
        let mut state = self.states[&block.header.prev_blockhash.to_string()].clone();
        state.extend(block);
        self.states.insert(state.tip().to_string(), state);
        self.blocks.push(block.clone());
    }

    /// Writes all blocks as a block file.
    fn write(&self) -> PathBuf {
        let file = self.dir.path().join("blocks.dat");
        let bytes: Vec<u8> =
            self.blocks.iter().flat_map(|block| frame(block, self.network.params().magic)).collect();
        std::fs::write(&file, bytes).unwrap();
        file
    }

    fn args(&self, command: &str) -> Vec<String> {
        let datadir = self.dir.path().join("node").display().to_string();
        let mut args = vec![command.to_owned(), "--datadir".to_owned(), datadir];
        args.extend(self.network.flags());
        args
    }

    /// Starts an import of the file with almost no memory, so that the tip is written often.
    fn import(&self, file: &Path) -> std::process::Child {
        let mut command = Command::new(programs().join("iop-node"));
        command.args(self.args("import")).args(["--dbcache", "4"]).arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Imports the file repeatedly, each time with a kill at a random moment, until there were enough. Returns the
    /// number of kills that hit a running import.
    fn kill_imports(&self, kills: usize, random: &mut Random) -> usize {
        let file = self.write();
        let started = Instant::now();
        assert!(self.import(&file).wait().unwrap().success());
        let whole = started.elapsed().as_micros() as usize;
        self.forget();
        let mut met = 0;
        while met < kills {
            let mut import = self.import(&file);
            std::thread::sleep(Duration::from_micros(random.below(whole) as u64));
            if import.try_wait().unwrap().is_some() {
                self.check_stopped();
                self.forget();
                continue;
            }
            import.kill().unwrap();
            import.wait().unwrap();
            met += 1;
            if self.dir.path().join("node/db/CURRENT").exists() {
                self.check();
            }
            // Some imports continue, some start over.
            if random.below(4) == 0 {
                self.forget();
            }
        }
        met
    }

    fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.dir.path().join("node"));
    }

    /// Starts the node, compares its state with the replay, stops it, and lets it verify all coins.
    fn check(&self) -> u64 {
        let node = Node::start(self.dir.path(), &self.network).unwrap();
        let height = self.check_running(&node);
        node.program.stop();
        self.check_stopped();
        height
    }

    fn check_running(&self, node: &Node) -> u64 {
        let tip = node.rpc.call("getbestblockhash", json!([]));
        let tip = tip.as_str().unwrap();
        let state = self.states.get(tip).unwrap_or_else(|| panic!("{tip} was never possible as a tip"));
        let (registry, params) = (state.registry(), self.network.params());
        let dump = node.rpc.call("dumpminerstats", json!([]));
        assert_eq!(dump["currentheight"], registry.globals().height, "{dump}");
        assert_eq!(dump["currentwhitelisted"], registry.globals().whitelisted, "{dump}");
        assert_eq!(dump["minercapenabled"], registry.globals().cap_enabled, "{dump}");
        assert_eq!(dump["currentcap"], registry.cap(&params), "{dump}");
        for license in license_keys().iter().chain([&secret_key("admin")]).map(|key| key.address()) {
            let record = registry.license(&license).copied().unwrap_or_default();
            let address = license.to_base58(&params.prefixes);
            let window = dump["stats"].get(&address).and_then(Value::as_u64).unwrap_or(0);
            assert_eq!(window, u64::from(record.window_blocks), "{address}: {dump}");
            let info = node.rpc.call("getlicenseinfo", json!([address]));
            assert_eq!(info[0]["whitelisted"], record.whitelisted, "{info}");
            assert_eq!(info[0]["blocks_in_window"], record.window_blocks, "{info}");
            let last = (record.last_block > 0).then_some(record.last_block);
            assert_eq!(info[0]["last_block"], json!(last), "{info}");
        }
        u64::from(registry.globals().height)
    }

    fn check_stopped(&self) {
        let mut args = self.args("verify");
        args.extend(["--full", "--json"].map(str::to_owned));
        let (status, stdout, stderr) = run("iop-node", args);
        assert_eq!(status, Some(0), "{stderr}");
        let result: Value = serde_json::from_str(&stdout).unwrap();
        let state = &self.states[result["tip"].as_str().unwrap()];
        assert_eq!(result["hash_serialized_2"], state.coins_hash(), "{result}");
    }
}

/// The synthetic chain's setup, and the chain and load to continue it.
fn chain(world: &mut World) -> (Chain, Load) {
    let (mut chain, mut load) = (Chain::new(), Load::new(Shape::Signatures, 7));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // All blocks are from today, so that the node does not consider itself far behind.
    chain.set_clock((now - 40_000) as u32, 10);
    for block in load.set_up_small(&mut chain) {
        world.add(&block);
    }
    (chain, load)
}

#[test]
fn an_import_killed_at_any_moment_goes_on_from_a_consistent_state() {
    let (mut world, mut random) = (World::new(), random());
    let (mut chain, mut load) = chain(&mut world);
    for transactions in load.group(&[6; 100]) {
        world.add(&chain.extend(transactions));
    }
    assert!(world.kill_imports(kills(), &mut random) >= kills());
}

#[test]
fn reorganisations_killed_at_any_moment_leave_one_branch_or_the_other() {
    let (mut world, mut random) = (World::new(), random());
    let (first, load) = chain(&mut world);
    let mut branches = [(first.clone(), load.clone()), (first, load)];
    // The branches overtake each other in turn, with deeper reorganisations each time.
    for round in 0..8 {
        for (salt, (chain, load)) in (1..).zip(&mut branches) {
            let blocks = if round == 0 && salt == 1 { 3 } else { 5 };
            for transactions in load.group(&vec![4; blocks]) {
                world.add(&chain.extend_salted(transactions, salt));
            }
        }
    }
    assert!(world.kill_imports(kills(), &mut random) >= kills());
}

#[test]
fn a_node_killed_under_a_load_of_transactions_and_blocks_keeps_every_block_it_answered_for() {
    let (mut world, mut random) = (World::new(), random());
    let (mut chain, mut load) = chain(&mut world);
    let file = world.write();
    assert!(world.import(&file).wait().unwrap().success());
    let mut answered = u64::from(chain.height());
    let mut rest: Vec<Transaction> = Vec::new();
    for _ in 0..kills() {
        let node = Node::start(world.dir.path(), &world.network).unwrap();
        assert!(world.check_running(&node) >= answered, "blocks that were answered for are gone");
        let pid = node.program.id();
        let delay = Duration::from_millis(random.below(400) as u64);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap()
        });
        while let Some(height) = send(&mut world, &node, &mut chain, &mut load, &mut rest) {
            answered = height;
        }
        assert!(killer.join().unwrap().success());
        drop(node);
        world.check_stopped();
    }
}

/// Sends some transactions and a block with some of them. Returns the block's height; `None` once the node is gone.
fn send(
    world: &mut World,
    node: &Node,
    chain: &mut Chain,
    load: &mut Load,
    rest: &mut Vec<Transaction>,
) -> Option<u64> {
    rest.extend(load.group(&[8]).remove(0));
    for tx in rest.iter() {
        match node.rpc.try_call("sendrawtransaction", json!([serialize_hex(tx)])) {
            // Already known, or in a block that came before the kill.
            Ok(_) | Err(RpcFailure::Answer { .. }) => {}
            Err(RpcFailure::Transport(_)) => return None,
        }
    }
    let block = chain.extend(std::mem::take(rest));
    // Even if it is not answered, it may be the tip after the kill.
    world.add(&block);
    let mut answered = None;
    // After a kill the unanswered blocks are submitted again, oldest first.
    let known = world.blocks.len().saturating_sub(3);
    for block in &world.blocks[known..] {
        match node.rpc.try_call("submitblock", json!([serialize_hex(block)])) {
            Ok(answer) => {
                assert!(answer.is_null() || answer == "duplicate", "{answer}");
                answered = Some(world.states[&block.block_hash().to_string()].registry().globals().height);
            }
            Err(RpcFailure::Answer { code, message }) => panic!("{code} {message}"),
            Err(RpcFailure::Transport(_)) => return None,
        }
    }
    answered.map(u64::from)
}
