//! The first inputs of each target: small, valid, and near limits. `iop-fuzz seed` writes them to `fuzz/corpus/`.

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use iop_consensus::license::coinbase;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use iop_consensus::params::networks::devnet_keys;

/// Named inputs for a target.
pub fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    let genesis = Params::regtest().genesis.block();
    let coinbase = &genesis.txdata[0];
    match target {
        "transaction" => {
            let plain = serialize(coinbase);
            let mut witness = coinbase.clone();
            witness.input[0].witness = bitcoin::Witness::from_slice(&[[9u8; 32]]);
            let marked =
                [&plain[..4], &[0, 1], &plain[4..plain.len() - 4], &[0], &plain[plain.len() - 4..]].concat();
            let empty = [&1i32.to_le_bytes()[..], &[0, 0], &5u32.to_le_bytes()].concat();
            let huge = [&1i32.to_le_bytes()[..], &[0xfe, 0xff, 0xff, 0xff, 0x01]].concat();
            vec![
                ("plain", plain),
                ("witness", serialize(&witness)),
                ("marker_without_witness", marked),
                ("no_inputs", empty),
                ("huge_count", huge),
            ]
        }
        "block" => {
            let whole = serialize(&genesis);
            let none = [&whole[..80], &[0]].concat();
            let huge = [&whole[..80], &[0xff; 9]].concat();
            let main = serialize(&Params::main().genesis.block());
            vec![("regtest", whole), ("main", main), ("no_transactions", none), ("huge_count", huge)]
        }
        "coinbase" => coinbases(),
        "admin" => admins(),
        "script" => vec![
            ("p2pkh", Params::devnet().license.admin_addresses[0].script_pubkey().into_bytes()),
            ("truncated_push", vec![0x4b, 0x01, 0xaa]),
            ("pushdata", vec![0x4c, 2, 1, 2, 0x4d, 1, 0, 7, 0x4e, 1, 0, 0, 0, 7]),
            ("multisig", vec![0x52, 0xae, 0x60, 0xaf, 0xac]),
        ],
        "spend" => vec![
            ("true", vec![0, 1, 0x51]),
            ("empty", vec![0, 1]),
            ("p2sh", [&[4, 7, 3, 1, 7, 0x51][..], &[0xa9, 20], &[7; 20], &[0x87]].concat()),
            ("multisig", [&[3, 7, 0, 1, 1][..], &[0x51, 33], &[2; 33], &[0x51, 0xae]].concat()),
            ("locks", vec![1, 7, 0x51, 0x51, 0xb1, 0x75, 0x51, 0xb2]),
        ],
        "kernels" => {
            let scan = |target: [u8; 32], first: u32, count: u16, versions: &[u32]| {
                let mut bytes = [&serialize(&genesis.header)[..], &target].concat();
                bytes.extend(first.to_le_bytes());
                bytes.extend(count.to_le_bytes());
                bytes.extend(versions.iter().flat_map(|version| version.to_le_bytes()));
                bytes
            };
            let some = std::array::from_fn(|i| if i == 31 { 1 } else { 0xff });
            vec![
                ("one", scan(some, 0, 300, &[1])),
                ("everything", scan([0xff; 32], u32::MAX - 40, 599, &[1, 2, 3])),
                ("nothing", scan([0; 32], 5, 100, &[7; 16])),
                ("short", vec![1, 2, 3]),
            ]
        }
        "address" => {
            let prefixes = Params::regtest().prefixes;
            let key = &devnet_keys()[0].1;
            vec![
                ("address", key.address().to_base58(&prefixes).into_bytes()),
                ("main", b"pGNcLNCavQLGXwXkVDwoHPCuQUBoXzJtPh".to_vec()),
                ("key", key.to_wif(&prefixes).as_bytes().to_vec()),
            ]
        }
        "network_file" => vec![
            ("small", b"base = \"regtest\"\nname = \"x\"\nhalving_interval = 3\n".to_vec()),
            ("votes", b"base = \"devnet\"\n[deployments]\nwindow = 9\nthreshold = 5\n".to_vec()),
            ("limit", [b"base = \"regtest\"\npow_limit = \"".as_slice(), &[b'0'; 64], b"\"\n"].concat()),
        ],
        "registry" => vec![
            ("turns", (0..=255u8).flat_map(|n| [n, n / 3, n / 5]).collect()),
            ("one_miner", [1, 0, 2].repeat(60)),
            ("caps", (0..=90u8).flat_map(|n| [n, 4 + 8 * (n % 30), n]).collect()),
        ],
        "stratum_line" => vec![("two", b"\x03{}\r\nab\n".to_vec()), ("long", b"\x07xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".to_vec())],
        "stratum_session" => vec![("miner", b"{\"id\":0,\"method\":\"mining.configure\",\"params\":[[\"version-rolling\"]]}\n{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"alice\"]}\n{\"id\":4,\"method\":\"mining.submit\",\"params\":[\"alice\",\"2f\",\"0011223344556677\",\"5f5e1000\",\"abcdef01\",\"00002000\"]}\n".to_vec()), ("pool", b"{\"id\":2,\"result\":[[],\"0a0b\",4],\"error\":null}\n{\"id\":null,\"method\":\"mining.set_difficulty\",\"params\":[0.5]}\n{\"id\":9,\"method\":\"client.get_version\",\"params\":[]}\n{\"id\":null,\"method\":\"client.reconnect\",\"params\":[]}\n".to_vec())],
        "stratum_submit" => vec![("usual", b"{\"id\":4,\"method\":\"mining.submit\",\"params\":[\"alice\",\"2f\",\"0011223344556677\",\"5f5e1000\",\"abcdef01\",\"00002000\"]}".to_vec()), ("short", b"{\"params\": [\"alice\", \"1\", \"0011223344556677\", \"5f5e1000\", \"c0ffee\"], \"id\": \"s-1\", \"method\": \"mining.submit\"}".to_vec())],
        "mercury_envelope" | "mercury_request" => crate::mercury::seeds(target),
        _ => iop_node::fuzzing::seeds(target),
    }
}

fn coinbases() -> Vec<(&'static str, Vec<u8>)> {
    // The transaction of the target has no outputs, and these sign exactly that.
    let key = LicenseKey::from_secret(&[9; 32], true).expect("a small number is a key");
    let mut tx = Params::regtest().genesis.block().txdata.remove(0);
    tx.version = bitcoin::transaction::Version::ONE;
    tx.output.clear();
    tx.input[0].previous_output = bitcoin::OutPoint { txid: Hash::all_zeros(), vout: u32::MAX };
    let signature = coinbase::sign(&tx, &key);
    let script = |unsigned: &[&[u8]]| coinbase::script_sig(&signature, unsigned, key.pubkey()).into_bytes();
    let whole = script(&[&[1, 2], &[3; 8]]);
    let lone = whole[..=signature.len()].to_vec();
    let truncated = [&lone[..], &[0x4b, 33], key.pubkey()].concat();
    let mut hybrid = key.pubkey().to_vec();
    hybrid[0] = 6;
    vec![
        ("signed", whole),
        ("signature_only", lone),
        ("truncated_push", truncated),
        ("empty_first_op", [&[0, 33], key.pubkey()].concat()),
        ("hybrid", coinbase::script_sig(&signature, &[], &hybrid).into_bytes()),
    ]
}

fn admins() -> Vec<(&'static str, Vec<u8>)> {
    let params = Params::devnet();
    let with = |verb: &[u8]| {
        let script = coinbase::script_sig(&[1; 9], &[], &params.license.admin_pubkeys[0]).into_bytes();
        [&[script.len() as u8], &script[..], &[0x6a, verb.len() as u8], verb].concat()
    };
    vec![
        ("add", with(b"add")),
        ("rem", with(b"rem")),
        ("enable", with(b"enable_cap:3")),
        ("enable_strange", with(b"enable_cap:\x3a")),
        ("disable", with(b"disable_cap")),
        ("truncated", with(b"add\x4b")),
    ]
}
