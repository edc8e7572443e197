//! Import and export of block files; checking and rebuilding stored data: import, export, verify, reindex.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bitcoin::Block;
use bitcoin::consensus::encode::deserialize;
use iop_benches::synth::chain::Chain;
use iop_benches::synth::load::{Load, Random};
use iop_benches::synth::{Shape, frame, network, network_file};
use iop_consensus::params::Params;
use iop_tests::program::{programs, run, run_into, run_into_full};
use iop_tests::stand::{Network, Node};
use serde_json::{Value, json};

/// A folder with a network file and a chain of some hundred blocks.
struct World {
    dir: tempfile::TempDir,
    network: Network,
    chain: Chain,
    blocks: Vec<Block>,
}

impl World {
    fn new(more: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &network_file());
        let (mut chain, mut load) = (Chain::new(), Load::new(Shape::Signatures, 3));
        let mut blocks = load.set_up_small(&mut chain);
        blocks.extend(load.group(&vec![4; more]).into_iter().map(|txs| chain.extend(txs)));
        Self { dir, network, chain, blocks }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn tip(&self) -> String {
        self.chain.tip().to_string()
    }

    /// A named pipe.
    fn pipe(&self, name: &str) -> PathBuf {
        assert!(Command::new("mkfifo").arg(self.path(name)).status().unwrap().success());
        self.path(name)
    }

    /// The arguments of a command on the data in a folder.
    fn args(&self, command: &str, data: &str) -> Vec<String> {
        let mut args =
            vec![command.to_owned(), "--datadir".to_owned(), self.path(data).display().to_string()];
        args.extend(self.network.flags());
        args
    }

    fn run(&self, command: &str, data: &str, more: &[&str]) -> (Option<i32>, String, String) {
        let mut args = self.args(command, data);
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        run("iop-node", args)
    }

    /// Runs a command that must succeed; returns its result as JSON.
    fn json(&self, command: &str, data: &str, more: &[&str]) -> Value {
        let (status, stdout, stderr) = self.run(command, data, &[more, &["--json"]].concat());
        assert_eq!(status, Some(0), "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Runs a command that must fail with one line that contains all of these.
    fn refuses(&self, command: &str, data: &str, more: &[&str], status: i32, said: &[&str]) {
        let (found, _, stderr) = self.run(command, data, more);
        assert_eq!(found, Some(status), "{stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
        said.iter().for_each(|said| assert!(stderr.contains(said), "'{said}' expected in: {stderr}"));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn bytes<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Vec<u8> {
    blocks.into_iter().flat_map(|block| frame(block, network().magic)).collect()
}

#[test]
fn blocks_come_in_in_any_order_between_padding_and_garbage_and_from_several_files() {
    let world = World::new(60);
    let (first, second) = world.blocks.split_at(90);
    let mut shuffled: Vec<&Block> = first.iter().collect();
    let mut random = Random(5);
    (1..shuffled.len()).for_each(|n| shuffled.swap(n, random.below(n + 1)));
    let cut = frame(&world.blocks[0], network().magic);
    let garbage = b"\x35\xb2\xcc\x9eno block";
    let one = [&[0; 5000][..], garbage, &bytes(shuffled), &[0; 77]].concat();
    let two = [&bytes(second), &cut[..cut.len() - 9]].concat();
    let (one, two) = (world.write("one.dat", &one), world.write("two.dat", &two));
    // The second file's blocks come before their parents.
    let result = world.json("import", "a", &[text(&two), text(&one)]);
    assert_eq!(result["tip"], world.tip(), "{result}");
    assert_eq!((result["new"].as_u64(), result["refused"].as_u64()), (Some(170), Some(0)), "{result}");
    assert_eq!(result["without_parent"], 0);
    assert!(result["skipped_bytes"].as_u64().unwrap() > 10, "{result}");
    let again = world.json("import", "a", &[text(&one), text(&two)]);
    assert_eq!((again["new"].as_u64(), again["known"].as_u64()), (Some(0), Some(170)), "{again}");
    let full = world.json("verify", "a", &["--full", "--level", "4"]);
    assert_eq!((&full["height"], &full["tip"]), (&json!(170), &json!(world.tip())));
}

#[test]
fn what_is_no_block_file_of_this_network_is_refused_in_one_line_and_nothing_is_made() {
    let world = World::new(0);
    let magic = Params::main().magic;
    let main = world.write("main.dat", &frame(&Params::main().genesis.block(), magic));
    let missing = world.path("missing.dat");
    let (empty, zeros) = (world.write("empty.dat", &[]), world.write("zeros.dat", &[0; 100]));
    let refuses =
        |files: &[&str], status, said: &[&str]| world.refuses("import", "data", files, status, said);
    refuses(&[text(&missing)], 1, &["missing.dat", "cannot be read"]);
    refuses(&[text(world.dir.path())], 1, &["is not a regular file"]);
    refuses(&[text(&world.pipe("pipe.dat"))], 1, &["pipe.dat is not a regular file"]);
    refuses(&[text(&main)], 1, &["main.dat", "fd b0 bb d3, the magic of main", "magic 35 b2 cc 9e"]);
    refuses(&[text(&empty)], 1, &["the file is empty"]);
    refuses(&[text(&zeros)], 1, &["begins with 00 00 00 00"]);
    refuses(&[], 2, &["FILE"]);
    assert!(!world.path("data").exists());
    for command in ["verify", "reindex", "export"] {
        let more: &[&str] = if command == "export" { &["x.dat"] } else { &[] };
        world.refuses(command, "data", more, 1, &["holds no node's data"]);
    }
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure_and_one_that_nobody_reads_is_none() {
    let world = World::new(3);
    let file = world.write("all.dat", &bytes(&world.blocks));
    let pubkey = ["key", "new", "--out"].map(str::to_owned).into_iter();
    let keys = pubkey.chain([world.path("key.wif").display().to_string()]).chain(world.network.flags());
    let import = [world.args("import", "a"), vec![file.display().to_string()]].concat();
    for args in [import, world.args("verify", "a"), world.args("reindex", "a"), keys.collect()] {
        let (status, said) = run_into_full("iop-node", &args);
        assert_eq!(status, Some(1), "{args:?}: {said}");
        assert!(
            said.ends_with("stdout cannot be written: No space left on device (os error 28)\n"),
            "{said}"
        );
        if args[0] != "key" {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let (status, _, said) = run_into(writer.into(), "iop-node", &args);
            assert_eq!(status, Some(0), "{args:?}: {said}");
        }
    }
}

#[test]
fn a_block_that_breaks_a_rule_is_named_with_its_reason_and_what_is_valid_stays() {
    let world = World::new(10);
    let mut blocks = world.blocks.clone();
    // The license was never added: the signature is from another key.
    let bad = &mut blocks[115];
    let value = &mut bad.txdata[0].output[0].value;
    *value *= 2;
    bad.header.merkle_root = bad.compute_merkle_root().unwrap();
    while !bad.header.target().is_met_by(bad.block_hash()) {
        bad.header.nonce += 1;
    }
    let file = world.write("bad.dat", &bytes(&blocks));
    let (status, stdout, stderr) = world.run("import", "data", &["--json", text(&file)]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("bad-CB-signature") && stderr.contains("bad.dat"), "{stderr}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&result["height"], &result["refused"]), (&json!(115), &json!(1)), "{result}");
    assert_eq!(result["without_parent"], 4);
    let good = world.write("good.dat", &bytes(&world.blocks));
    assert_eq!(world.json("import", "data", &[text(&good)])["tip"], world.tip());
}

#[test]
fn an_import_stops_on_sigint_and_goes_on_from_there_and_a_datadir_in_use_is_refused() {
    let world = World::new(50);
    let file = world.write("all.dat", &bytes(&world.blocks));
    let mut command = Command::new(programs().join("iop-node"));
    command.args(world.args("import", "node")).arg("--json").arg(&file);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    // Before the handler is installed, the signal ends it at once; if it is already done, there is nothing to
    // interrupt.
    if told.success() && output.status.success() {
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(result["height"].as_u64().unwrap() <= 160, "{result}");
    }
    assert_eq!(world.json("import", "node", &[text(&file)])["tip"], world.tip());
    let node = Node::start(world.dir.path(), &world.network).unwrap();
    world.refuses("import", "node", &[text(&file)], 1, &["is in use by another node"]);
    world.refuses("verify", "node", &[], 1, &["is in use by another node"]);
    assert_eq!(node.rpc.call("getbestblockhash", json!([])), world.tip());
}

#[test]
fn the_genesis_block_is_known_where_the_limit_is_harder_than_it_meets() {
    let dir = tempfile::tempdir().unwrap();
    let hard = format!("base = \"regtest\"\nname = \"hard\"\npow_limit = \"00000fff{}\"\n", "f".repeat(56));
    let world = World { network: Network::file(dir.path(), &hard), dir, ..World::new(0) };
    let params = Params::from_network_file(&hard).unwrap();
    let file = world.write("genesis.dat", &frame(&params.genesis.block(), params.magic));
    let said = world.json("import", "a", &[text(&file)]);
    assert_eq!((&said["known"], &said["refused"]), (&json!(1), &json!(0)), "{said}");
}

#[test]
fn an_exported_chain_is_the_same_chain_and_a_range_is_just_that_range() {
    let world = World::new(20);
    let file = world.write("all.dat", &bytes(&world.blocks));
    world.json("import", "a", &[text(&file)]);
    let out = world.write("out.dat", b"an old file");
    let (status, _, stderr) = world.run("export", "a", &[text(&out)]);
    assert_eq!(status, Some(0), "{stderr}");
    let genesis = network().genesis.block();
    assert!(std::fs::read(&out).unwrap() == bytes(std::iter::once(&genesis).chain(&world.blocks)));
    assert_eq!(world.json("import", "b", &[text(&out)])["tip"], world.tip());
    // To a stdout that does not accept text.
    let mut command = Command::new(programs().join("iop-node"));
    command.args(world.args("export", "b")).args(["--from", "7", "--to", "7", "-"]);
    let range = command.output().unwrap().stdout;
    assert_eq!(deserialize::<Block>(&range[8..]).unwrap(), world.blocks[6]);
    world.refuses("export", "b", &["--from", "9", "--to", "8", "x"], 2, &["heights 9 to 8"]);
    world.refuses("export", "b", &["--to", "131", "x"], 2, &["tip at 130"]);
    world.refuses("export", "b", &["/missing/x.dat"], 1, &["/missing/x.dat cannot be written"]);
    world.refuses("export", "b", &[text(world.dir.path())], 1, &["cannot be written: is a directory"]);
    // Through a link, and into a pipe.
    let link = world.path("link.dat");
    std::os::unix::fs::symlink("out.dat", &link).unwrap();
    assert_eq!(world.run("export", "b", &["--to", "0", text(&link)]).0, Some(0));
    assert!(std::fs::read(&out).unwrap() == bytes([&genesis]) && link.is_symlink());
    std::fs::remove_file(&out).unwrap();
    assert_eq!(world.run("export", "b", &["--to", "0", text(&link)]).0, Some(0));
    assert!(std::fs::read(&out).unwrap() == bytes([&genesis]) && link.is_symlink());
    // Output already on stdout stays.
    for from in ["0", "1"] {
        let file = std::fs::File::options().append(true).create(true).open(world.path("both.dat")).unwrap();
        let mut command = Command::new(programs().join("iop-node"));
        command.args(world.args("export", "b")).args(["--from", from, "--to", from, "/dev/stdout"]);
        assert!(command.stdout(file).output().unwrap().status.success());
    }
    let both = bytes([&genesis, &world.blocks[0]]);
    assert!(std::fs::read(world.path("both.dat")).unwrap() == both);
    let pipe = world.pipe("pipe.dat");
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).unwrap()
    });
    assert_eq!(world.run("export", "b", &["--to", "3", text(&pipe)]).0, Some(0));
    assert!(reader.join().unwrap() == bytes(std::iter::once(&genesis).chain(&world.blocks[..3])));
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&pipe.metadata().unwrap().file_type()));
    let left: Vec<_> = std::fs::read_dir(world.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("tmp")), "{left:?}");
}

#[test]
fn a_reindex_killed_at_any_moment_loses_nothing_and_one_that_ends_gives_the_same_chain() {
    let world = World::new(40);
    // A stale branch, so that there is more than one tip.
    let (mut branch, mut load) = (Chain::new(), Load::new(Shape::Signatures, 3));
    load.set_up_small(&mut branch);
    let stale: Vec<Block> = (0..3).map(|_| branch.extend_salted(Vec::new(), 9)).collect();
    let file = world.write("all.dat", &bytes(world.blocks.iter().chain(&stale)));
    let before = world.json("import", "node", &[text(&file)]);
    assert_eq!(before["tip"], world.tip());
    let coins = world.json("verify", "node", &["--full"])["hash_serialized_2"].clone();
    let mut random = Random(std::process::id().into());
    for _ in 0..6 {
        let mut command = Command::new(programs().join("iop-node"));
        command.args(world.args("reindex", "node")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random.below(150) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = world.json("verify", "node", &["--full"]);
        assert_eq!((&found["tip"], &found["hash_serialized_2"]), (&json!(world.tip()), &coins));
    }
    let result = world.json("reindex", "node", &[]);
    assert_eq!((&result["tip"], &result["headers"]), (&json!(world.tip()), &json!(154)), "{result}");
    assert_eq!(world.json("verify", "node", &["--full"])["hash_serialized_2"], coins);
}

/// Blocks above the assumed one, so that it is buried under two weeks' work: 2,016, and one since they must be exceeded.
const BURIED: usize = 2_017;

#[test]
fn scripts_of_an_assumed_block_are_not_run_though_all_that_buries_it_comes_later_in_the_files() {
    let mut world = World::new(0);
    let mut load = Load::new(Shape::Signatures, 3);
    world.chain = Chain::new();
    world.blocks = load.set_up_small(&mut world.chain);
    let mut txs = load.group(&[4]).remove(0);
    let mut script = txs[0].input[0].script_sig.to_bytes();
    // The signature's last byte before its hash type: well formed, but of other data.
    let last = usize::from(script[0]) - 1;
    script[last] ^= 1;
    txs[0].input[0].script_sig = script.into();
    let bad = world.chain.extend(txs);
    let (assumed, height) = (bad.block_hash().to_string(), world.chain.height());
    world.blocks.push(bad);
    world.blocks.extend((0..BURIED).map(|_| world.chain.extend(Vec::new())));
    let (first, second) = world.blocks.split_at(height as usize);
    let (first, second) =
        (world.write("first.dat", &bytes(first)), world.write("second.dat", &bytes(second)));
    let (first, second) = (text(&first), text(&second));
    for (data, files) in [("a", [first, second]), ("b", [second, first])] {
        let result = world.json("import", data, &["--assume-valid", &assumed, files[0], files[1]]);
        assert_eq!((&result["tip"], &result["refused"]), (&json!(world.tip()), &json!(0)), "{result}");
    }
    // With no assumed block, with another one, or with too little work on it, the script is checked; and a child of a
    // refused block is refused.
    let other = world.blocks[0].block_hash().to_string();
    for (data, assumed, files) in
        [("c", "0", vec![first, second]), ("d", &other, vec![first, second]), ("e", &assumed, vec![first])]
    {
        let more = [&["--json", "--assume-valid", assumed], &files[..]].concat();
        let (status, stdout, stderr) = world.run("import", data, &more);
        assert_eq!(status, Some(1), "{stderr}");
        let result: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(
            (&result["refused"], &result["height"]),
            (&json!(files.len()), &json!(height - 1)),
            "{result}"
        );
    }
}
