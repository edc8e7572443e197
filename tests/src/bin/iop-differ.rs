//! Submits random blocks, valid and broken in every way, to two nodes of one chain, and reports all disagreements.
//!
//! One node is ours; the other is IoP Core, built to take the license parameters of a private network (see
//! docs/consensus-rules.md). Both must be fresh. `--network` prints how they must be started.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use iop_tests::differ::{Offer, Player, admin};
use iop_tests::forge::Forge;
use iop_tests::rpc::{Rpc, RpcFailure};
use serde_json::{Value, json};

/// Every this many steps each license is queried by its address.
const ADDRESSES_EVERY: u64 = 25;

/// Submits random blocks to two nodes and reports where they disagree.
#[derive(Debug, Parser)]
#[command(name = "iop-differ")]
struct Args {
    /// Our node: http://user:password@host:port
    #[arg(long, value_name = "URL", required_unless_present = "network")]
    ours: Option<String>,
    /// The node to agree with
    #[arg(long, value_name = "URL", required_unless_present = "network")]
    reference: Option<String>,
    /// Which choices are made
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Blocks to submit
    #[arg(long, default_value_t = 2_000)]
    steps: u64,
    /// License activation height of the network
    #[arg(long, default_value_t = 110)]
    activation: u32,
    /// Cap change height of the network
    #[arg(long, default_value_t = 150)]
    change: u32,
    /// Vote bits of all blocks: 3 votes for csv and segwit
    #[arg(long, default_value_t = 0)]
    votes: i32,
    /// Odd admin actions of every form, and no branches
    #[arg(long)]
    odd: bool,
    /// Go on after a difference
    #[arg(long)]
    go_on: bool,
    /// Write every step with the reference's answers to this file, as JSON; no step depends on the clock then
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print the network file for ours and the environment for the reference, and stop
    #[arg(long)]
    network: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let forge = Forge::new(args.activation, args.change, args.votes);
    if args.network {
        print!("{}", Forge::network_file(args.activation, args.change));
        println!("# reference: {}", environment(&forge));
        return ExitCode::SUCCESS;
    }
    let rpc = |url: &Option<String>| url.as_deref().and_then(Rpc::at);
    let (Some(ours), Some(reference)) = (rpc(&args.ours), rpc(&args.reference)) else {
        eprintln!("iop-differ: a node's URL is not of the form http://user:password@host:port");
        return ExitCode::from(2);
    };
    match Run::new(&args, forge, ours, reference).play() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(differences) => {
            eprintln!("iop-differ: {differences} differences");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("iop-differ: {error}");
            ExitCode::FAILURE
        }
    }
}

fn environment(forge: &Forge) -> String {
    let license = &forge.params.license;
    format!(
        "IOP_LICENSE_ACTIVATION_HEIGHT={} IOP_CAP_CHANGE_HEIGHT={} IOP_ADMIN_PUBKEYS={} IOP_ADMIN_ADDRESSES={}",
        license.activation_height,
        license.cap_change_height,
        hex::encode(&license.admin_pubkeys[0]),
        license.admin_addresses[0].to_base58(&forge.params.prefixes)
    )
}

struct Run<'a> {
    args: &'a Args,
    player: Player,
    ours: Rpc,
    reference: Rpc,
    addresses: Vec<String>,
    counts: BTreeMap<String, BTreeMap<String, u64>>,
    recorded: Vec<Value>,
    differences: u64,
    steps: u64,
    height: u64,
}

impl<'a> Run<'a> {
    fn new(args: &'a Args, forge: Forge, ours: Rpc, reference: Rpc) -> Self {
        let prefixes = forge.params.prefixes;
        let mut player = Player::new(forge, args.seed, !args.odd);
        player.timeless = args.record.is_some();
        let mut addresses: BTreeSet<String> =
            admin::targets(&player).iter().map(|address| address.to_base58(&prefixes)).collect();
        addresses.insert("nobody".to_owned());
        Self {
            args,
            player,
            ours,
            reference,
            addresses: addresses.into_iter().collect(),
            counts: BTreeMap::new(),
            recorded: Vec::new(),
            differences: 0,
            steps: 0,
            height: 0,
        }
    }

    fn play(mut self) -> Result<u64, String> {
        for rpc in [&self.ours, &self.reference] {
            match rpc.try_call("getblockcount", json!([])) {
                Ok(height) if height == 0 => {}
                Ok(height) => return Err(format!("a node is at height {height}, a fresh one expected")),
                Err(failure) => return Err(format!("a node does not answer: {failure:?}")),
            }
        }
        'steps: while self.steps < self.args.steps {
            for offer in self.player.make_up() {
                self.steps += 1;
                self.step(&offer)?;
                if self.differences > 0 && !self.args.go_on {
                    break 'steps;
                }
            }
        }
        for (kind, verdicts) in &self.counts {
            println!("{kind:45} {verdicts:?}");
        }
        println!("{} steps, height {}, {} differences", self.steps, self.height, self.differences);
        self.write_record()?;
        Ok(self.differences)
    }

    fn step(&mut self, offer: &Offer) -> Result<(), String> {
        let ours = submit(&self.ours, &offer.hex)?;
        let reference = submit(&self.reference, &offer.hex)?;
        let mut found = Vec::new();
        compare(&mut found, "verdict", class(&ours).into(), class(&reference).into());
        let tip = self.ask(&mut found, "getbestblockhash", json!([]))?;
        self.height = self.ask(&mut found, "getblockcount", json!([]))?.as_u64().unwrap_or(0);
        let stats = self.ask(&mut found, "dumpminerstats", json!([]))?;
        let mut miners = BTreeMap::new();
        if self.steps.is_multiple_of(ADDRESSES_EVERY) {
            for address in self.addresses.clone() {
                let record = self.ask(&mut found, "dumpminerstats", json!([address]))?;
                miners.insert(address, record.get("stats").cloned());
            }
        }
        *self.counts.entry(offer.kind.clone()).or_default().entry(reference.clone()).or_default() += 1;
        if self.args.record.is_some() {
            let mut step = json!({ "kind": offer.kind, "note": "", "block_hex": offer.hex, "tip_hash": tip,
                "tip_height": self.height, "minerstats": stats, "miners": miners });
            step["result"] = if reference == "null" { Value::Null } else { json!(reference) };
            self.recorded.push(step);
        }
        if !found.is_empty() {
            self.differences += 1;
            println!("step {} at height {}, {}:", self.steps, self.height, offer.kind);
            found.iter().for_each(|difference| println!("  {difference}"));
            if offer.hex.len() < 20_000 {
                println!("  block {}", offer.hex);
            }
        }
        let accepted =
            ["null", "inconclusive"].contains(&reference.as_str()) || is_connect_failure(&reference);
        if let Some(hash) = tip.as_str().and_then(|text| text.parse().ok()) {
            self.player.told(offer, accepted, &hash);
        }
        Ok(())
    }

    /// Asks both nodes and returns the reference's answer.
    fn ask(&self, found: &mut Vec<String>, method: &str, params: Value) -> Result<Value, String> {
        let answer = |rpc: &Rpc, name: &str| {
            let answer = rpc.try_call(method, params.clone());
            answer.map(normal).map_err(|failure| format!("{name} on {method}: {failure:?}"))
        };
        let (ours, mut reference) = (answer(&self.ours, "ours")?, answer(&self.reference, "the reference")?);
        // A pseudo-address of the reference, with negative counts.
        if let Some(stats) = reference.get_mut("stats").and_then(Value::as_object_mut) {
            stats.remove("0000");
        }
        let unknown = json!({ "whitelisted": 0, "windowBlocks": 0, "totalBlocks": 0, "lastBlock": 0 });
        let (mut a, mut b) = (ours, reference.clone());
        if method == "dumpminerstats" && !self.args.odd {
            // The reference's undo leaves empty entries.
            for value in [&mut a, &mut b] {
                if value.get("stats") == Some(&unknown) {
                    value.as_object_mut().map(|object| object.remove("stats"));
                }
            }
        }
        compare(found, &format!("{method} {params}"), a, b);
        Ok(reference)
    }

    fn write_record(&self) -> Result<(), String> {
        let Some(path) = &self.args.record else { return Ok(()) };
        let license = &self.player.forge.params.license;
        let prefixes = self.player.forge.params.prefixes;
        let text = json!({
            "params": {
                "license_activation_height": license.activation_height,
                "cap_change_height": license.cap_change_height,
                "admin_pubkeys": [hex::encode(&license.admin_pubkeys[0])],
                "admin_addresses": [license.admin_addresses[0].to_base58(&prefixes)],
            },
            "steps": self.recorded,
        });
        let write = || std::fs::File::create(path)?.write_all(text.to_string().as_bytes());
        write().map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn submit(rpc: &Rpc, hex: &str) -> Result<String, String> {
    match rpc.try_call("submitblock", json!([hex])) {
        Ok(Value::Null) => Ok("null".to_owned()),
        Ok(answer) => Ok(answer.as_str().unwrap_or("no text").to_owned()),
        Err(RpcFailure::Answer { code, message }) => Ok(format!("rpc-error {code}: {message}")),
        Err(RpcFailure::Transport(reason)) => Err(format!("submitblock is not answered: {reason}")),
    }
}

/// The class of a verdict: failed scripts have many texts.
fn class(verdict: &str) -> &str {
    if verdict == "block-validation-failed" || verdict.contains("script-verify-flag") {
        "script"
    } else {
        verdict
    }
}

/// Whether the block was stored before it was refused, so that others can name it as their parent.
fn is_connect_failure(verdict: &str) -> bool {
    let connect =
        ["bad-C", "bad-cb-amount", "bad-txns-inputs", "bad-txns-in-", "bad-txns-prem", "bad-txns-nonfinal"];
    class(verdict) == "script" || connect.iter().any(|start| verdict.starts_with(start))
}

/// Replaces booleans by numbers, as the reference writes them in places.
fn normal(value: Value) -> Value {
    match value {
        Value::Bool(yes) => json!(u8::from(yes)),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, normal(value))).collect(),
        other => other,
    }
}

fn compare(found: &mut Vec<String>, what: &str, ours: Value, reference: Value) {
    if ours != reference {
        found.push(format!("{what}: ours {ours}, the reference {reference}"));
    }
}
