//! The demo: a private licensed chain with one node, one pool holding three licenses, and one miner.
//!
//! `scripts/demo` builds everything and starts this. It mines blocks over real Stratum, prints a line for each, and
//! leaves nothing behind: its programs and folders are removed whether it completes, is interrupted or fails.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use iop_consensus::license::coinbase::named_license;
use iop_consensus::params::Params;
use iop_tests::program::Program;
use iop_tests::rpc::{Rpc, RpcFailure};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address, start_miner};
use serde_json::{Value, json};

/// How often the chain is polled.
const LOOK: Duration = Duration::from_millis(200);
/// Total number of restarts of programs that exited.
const MAX_RESTARTS: u32 = 20;
/// Longest time without a new block: a block takes some seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// Prints a line on stdout; if stdout is closed, the demo ends.
macro_rules! say {
    ($($text:tt)*) => {
        writeln!(io::stdout(), $($text)*)?
    };
}

/// Mines on a private licensed chain and shows how.
#[derive(Debug, Parser)]
#[command(name = "scripts/demo", bin_name = "scripts/demo")]
struct Args {
    /// Stop when the blocks are mined, instead of staying up
    #[arg(long)]
    once: bool,
    /// Blocks to mine
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    blocks: u64,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => {
            // Ignore a closed stdout.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = error.to_string();
            eprintln!("demo: {}", text.lines().next().unwrap_or_default().trim_start_matches("error: "));
            return ExitCode::from(2);
        }
    };
    match demo(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(args: &Args) -> io::Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let dir = tempfile::Builder::new().prefix("iop-demo-").tempdir()?;
    let mut stand = Stand::start(dir.path())?;
    let params = stand.network.params();
    say!(
        "node    http://127.0.0.1:{}  (devnet, genesis {})",
        stand.node.port,
        params.genesis.block().block_hash()
    );
    say!("pool    stratum+tcp://{}  {} licenses", stand.pool.stratum, stand.licenses.len());
    say!("miner   {}\n", stand.user);
    let shown = show_blocks(&mut stand, args.blocks, &params, &interrupted)?;
    if shown == args.blocks {
        say!("\n{shown} licensed blocks mined; {}", shares(&stand.pool.api("workers")));
        if !args.once {
            say!("dashboard http://{}/   (Ctrl-C stops everything)", stand.pool.api);
            while !interrupted.load(Ordering::Relaxed) {
                stand.mend()?;
                std::thread::sleep(LOOK);
            }
        }
    }
    drop(stand);
    dir.close()?;
    if args.once && shown < args.blocks {
        return Err(io::Error::other(format!("interrupted after {shown} of {} blocks", args.blocks)));
    }
    Ok(())
}

/// The three programs. Dropped in this order: the miner first, the node last.
struct Stand {
    miner: Program,
    pool: Pool,
    node: Node,
    dir: PathBuf,
    network: Network,
    licenses: [PathBuf; 3],
    user: String,
    restarts_left: u32,
}

impl Stand {
    fn start(dir: &Path) -> io::Result<Self> {
        let network = Network::Named("devnet");
        let [_admin, licenses @ ..] = devnet_keys(dir);
        let user = format!("{}.demo", new_address(dir, &network));
        let node = Node::start(dir, &network)?;
        let pool = Pool::start(dir, &network, node.port, &licenses)?;
        let miner = start_miner(dir, &pool.stratum, &user)?;
        Ok(Self {
            miner,
            pool,
            node,
            dir: dir.to_owned(),
            network,
            licenses,
            user,
            restarts_left: MAX_RESTARTS,
        })
    }

    /// Restarts a program that has exited, with the same folders and ports: the others wait for it.
    fn mend(&mut self) -> io::Result<()> {
        let (dir, network) = (self.dir.clone(), self.network.clone());
        if !self.node.program.is_running() {
            self.say_restart("iop-node", &self.node.program.log())?;
            self.node = Node::start_on(&dir, &network, self.node.port)?;
        }
        if !self.pool.program.is_running() {
            self.say_restart("iop-pool", &self.pool.program.log())?;
            self.pool = Pool::start_on(&dir, &network, self.node.port, &self.licenses, &self.pool.stratum)?;
        }
        if !self.miner.is_running() {
            self.say_restart("iop-miner", &self.miner.log())?;
            self.miner = start_miner(&dir, &self.pool.stratum, &self.user)?;
        }
        Ok(())
    }

    fn say_restart(&mut self, name: &str, log: &str) -> io::Result<()> {
        if self.restarts_left == 0 {
            return Err(io::Error::other(format!("{name} ends again and again; its log:\n{log}")));
        }
        self.restarts_left -= 1;
        say!("        {name} ended, starting it again");
        Ok(())
    }
}

/// Prints a line for each new block; returns their number when done or interrupted.
fn show_blocks(stand: &mut Stand, count: u64, params: &Params, interrupted: &AtomicBool) -> io::Result<u64> {
    say!("{:>6}  {:<64}  {:<34}  {:>13}  payee", "height", "hash", "license", "blocks / cap");
    let mut by_license: HashMap<String, u64> = HashMap::new();
    let mut shown = 0;
    let mut last = Instant::now();
    while shown < count && !interrupted.load(Ordering::Relaxed) {
        stand.mend()?;
        let before = shown;
        match show_new(&stand.node.rpc, &mut shown, count, params, &mut by_license) {
            // The node has just ended, or is just starting.
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            outcome => outcome?,
        }
        if shown > before {
            last = Instant::now();
        }
        if last.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("no block for {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(LOOK);
    }
    Ok(shown)
}

fn show_new(
    rpc: &Rpc,
    shown: &mut u64,
    count: u64,
    params: &Params,
    by_license: &mut HashMap<String, u64>,
) -> io::Result<()> {
    let height = call(rpc, "getblockcount", json!([]))?.as_u64().unwrap_or(0);
    while *shown < height.min(count) {
        print_block(rpc, *shown + 1, params, by_license)?;
        *shown += 1;
    }
    Ok(())
}

fn print_block(
    rpc: &Rpc,
    height: u64,
    params: &Params,
    by_license: &mut HashMap<String, u64>,
) -> io::Result<()> {
    let hash = call(rpc, "getblockhash", json!([height]))?;
    let block = call(rpc, "getblock", json!([hash, 0]))?;
    let block: bitcoin::Block =
        bitcoin::consensus::encode::deserialize_hex(block.as_str().unwrap_or_default())
            .map_err(|error| io::Error::other(format!("block {height}: {error}")))?;
    let coinbase = &block.txdata[0];
    let license = named_license(coinbase).map_or("none".to_owned(), |l| l.to_base58(&params.prefixes));
    let payee = iop_consensus::address::Address::from_script(&coinbase.output[0].script_pubkey);
    let cap = &call(rpc, "getlicenseinfo", json!([license]))?[0]["cap"];
    // The demo's chain is shorter than one window: all its blocks count.
    let blocks = by_license.entry(license.clone()).or_default();
    *blocks += 1;
    say!(
        "{height:>6}  {:<64}  {license:<34}  {:>13}  {}",
        hash.as_str().unwrap_or_default(),
        format!("{blocks} / {cap}"),
        payee.map_or("none".to_owned(), |p| p.to_base58(&params.prefixes))
    );
    Ok(())
}

fn call(rpc: &Rpc, method: &str, params: Value) -> io::Result<Value> {
    rpc.try_call(method, params).map_err(|failure| match failure {
        RpcFailure::Answer { code, message } => io::Error::other(format!("{method}: {message} ({code})")),
        RpcFailure::Transport(error) => io::Error::new(ErrorKind::NotConnected, format!("{method}: {error}")),
    })
}

/// The workers' accepted shares, as text.
fn shares(workers: &Value) -> String {
    let listed = workers["workers"].as_array().into_iter().flatten();
    let accepted: u64 = listed.filter_map(|worker| worker["accepted"].as_u64()).sum();
    format!("{accepted} shares accepted by the pool")
}
