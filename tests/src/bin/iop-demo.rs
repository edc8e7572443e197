//! The demo: a private licensed chain with one node, one pool holding three licenses, and one miner.
//!
//! `scripts/demo` builds everything and starts this. It mines blocks through real Stratum, prints a line for each,
//! and leaves nothing behind: programs end and folders go with it, whether it is done, interrupted or failing.

use std::collections::HashMap;
use std::io::{self, Write};
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

/// How often the chain is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Without a new block for this long something is wrong: a block takes some seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// A line on stdout; whoever closed it ends the demo.
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
            // Whoever closed stdout does not want it.
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
    let network = Network::Named("devnet");
    let params = network.params();
    let [_admin, licenses @ ..] = devnet_keys(dir.path());
    let member = new_address(dir.path(), &network);
    let node = Node::start(dir.path(), &network)?;
    let pool = Pool::start(dir.path(), &network, node.port, &licenses)?;
    let mut stand =
        Stand { miner: start_miner(dir.path(), &pool.stratum, &format!("{member}.demo"))?, node, pool };
    say!(
        "node    http://127.0.0.1:{}  (devnet, genesis {})",
        stand.node.port,
        params.genesis.block().block_hash()
    );
    say!("pool    stratum+tcp://{}  {} licenses", stand.pool.stratum, licenses.len());
    say!("miner   {member}.demo\n");
    let shown = show_blocks(&mut stand, args.blocks, &params, &interrupted)?;
    if shown == args.blocks {
        say!("\n{shown} licensed blocks mined; {}", shares(&stand.pool.api("workers")));
        if !args.once {
            say!("dashboard http://{}/   (Ctrl-C stops everything)", stand.pool.api);
            while !interrupted.load(Ordering::Relaxed) {
                stand.check()?;
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

/// Dropped in this order: the miner first, the node last.
struct Stand {
    miner: Program,
    pool: Pool,
    node: Node,
}

impl Stand {
    /// All three still run.
    fn check(&mut self) -> io::Result<()> {
        let programs = [&mut self.miner, &mut self.pool.program, &mut self.node.program];
        match programs.into_iter().find_map(|program| (!program.is_running()).then(|| program.log())) {
            Some(log) => Err(io::Error::other(format!("a program ended by itself; its log:\n{log}"))),
            None => Ok(()),
        }
    }
}

/// Prints a line for each block as it comes; gives how many there were when done or interrupted.
fn show_blocks(stand: &mut Stand, count: u64, params: &Params, interrupted: &AtomicBool) -> io::Result<u64> {
    say!("{:>6}  {:<64}  {:<34}  {:>13}  payee", "height", "hash", "license", "blocks / cap");
    let mut by_license: HashMap<String, u64> = HashMap::new();
    let mut shown = 0;
    let mut last = Instant::now();
    while shown < count && !interrupted.load(Ordering::Relaxed) {
        stand.check()?;
        let height = call(&stand.node.rpc, "getblockcount", json!([]))?.as_u64().unwrap_or(0);
        while shown < height.min(count) {
            shown += 1;
            print_block(&stand.node.rpc, shown, params, &mut by_license)?;
            last = Instant::now();
        }
        if last.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("no block for {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(LOOK);
    }
    Ok(shown)
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
    // The demo's chain is younger than one window: every block of it counts.
    let blocks = by_license.entry(license.clone()).or_default();
    *blocks += 1;
    let cap = &call(rpc, "getlicenseinfo", json!([license]))?[0]["cap"];
    say!(
        "{height:>6}  {:<64}  {license:<34}  {:>13}  {}",
        hash.as_str().unwrap_or_default(),
        format!("{blocks} / {cap}"),
        payee.map_or("none".to_owned(), |p| p.to_base58(&params.prefixes))
    );
    Ok(())
}

fn call(rpc: &Rpc, method: &str, params: Value) -> io::Result<Value> {
    rpc.try_call(method, params).map_err(|failure| {
        io::Error::other(match failure {
            RpcFailure::Answer { code, message } => format!("{method}: {message} ({code})"),
            RpcFailure::Transport(error) => format!("{method}: {error}"),
        })
    })
}

/// The workers' accepted shares, in words.
fn shares(workers: &Value) -> String {
    let listed = workers["workers"].as_array().into_iter().flatten();
    let accepted: u64 = listed.filter_map(|worker| worker["accepted"].as_u64()).sum();
    format!("{accepted} shares accepted by the pool")
}
