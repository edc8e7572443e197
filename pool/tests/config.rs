//! Configuration: accepted settings, and the one-line error for each mistake.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use iop_consensus::params::Params;
use iop_consensus::params::networks::devnet_keys;
use iop_pool::config::{Flags, LedgerFlags, NodeFlags, NodeUrl, Raw, Settings};
use iop_pool::ledger::Scheme;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, key) in devnet_keys() {
            folder.key(&format!("{name}.wif"), &key.to_wif(&Params::devnet().prefixes), 0o600);
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn key(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        self.path(name)
    }

    fn flags(&self) -> Flags {
        Flags {
            ledger: LedgerFlags {
                network: Some("devnet".into()),
                datadir: Some(self.path("data")),
                ..LedgerFlags::default()
            },
            nodes: NodeFlags { node: vec!["http://u:p@127.0.0.1:1".into()], ..NodeFlags::default() },
            license_key_file: vec![self.path("license-1.wif")],
            ..Flags::default()
        }
    }

    fn with_file(&self, toml: &str) -> Flags {
        fs::write(self.path("pool.toml"), toml).unwrap();
        LedgerFlags { config: Some(self.path("pool.toml")), ..LedgerFlags::default() }.into()
    }
}

fn settings(flags: Flags) -> Result<Settings, String> {
    let settings = Raw::load(flags).and_then(|raw| raw.validate()).map_err(|error| error.to_string());
    if let Err(line) = &settings {
        assert!(!line.contains('\n'), "one line: {line}");
    }
    settings
}

#[test]
fn the_example_is_taken() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("pool.example.toml")).unwrap();
    let folder = Folder::new();
    let [_, (_, one), (_, two), _] = devnet_keys();
    folder.key("license-1.wif", &one.to_wif(&Params::main().prefixes), 0o600);
    folder.key("license-2.wif", &two.to_wif(&Params::main().prefixes), 0o400);
    let settings = settings(folder.with_file(&text)).unwrap();
    assert_eq!((settings.params.name.as_str(), settings.licenses.len()), ("main", 2));
    assert_eq!(
        settings.nodes.iter().map(|node| node.name()).collect::<Vec<_>>(),
        ["127.0.0.1:8337", "node-2.example:8337"]
    );
    assert_eq!(settings.datadir, folder.path("pool-data"), "paths begin at the file's folder");
    assert!(settings.payout.is_some() && settings.difficulty.start.get() == 1024.0);
    let rules = settings.rules;
    assert_eq!((rules.scheme, rules.fee, rules.min_payout), (Scheme::Pplns, 10_000, 1_000_000));
}

#[test]
fn flags_suffice_and_have_defaults() {
    let folder = Folder::new();
    let settings = settings(folder.flags()).unwrap();
    assert_eq!(settings.stratum_bind.to_string(), "0.0.0.0:3333");
    assert!(settings.api_bind.ip().is_loopback());
    assert_eq!(settings.difficulty.start.get(), 0.0005);
    assert!(settings.payout.is_none());
    let rules = settings.rules;
    assert_eq!((rules.scheme, rules.fee, rules.max_outputs, rules.window), (Scheme::Pplns, 0, 15, 2.0));
}

#[test]
fn rules_of_payment_are_bounded() {
    let folder = Folder::new();
    for (line, expected) in [
        ("fee = 1.01", "fee is 1.01, a part of the reward from 0 to 1 expected"),
        ("fee = nan", "fee is NaN"),
        ("fee = 0.1234567", "fee is 0.1234567, whole millionths of the reward expected"),
        ("pplns_window = 0.0", "pplns_window is 0, a number from 0.01 to 1000 expected"),
        ("min_payout = 545", "min_payout is 545, at least 546 base units expected"),
        ("max_outputs = 0", "max_outputs is 0, 1 to 500 expected"),
        ("max_outputs = 501", "max_outputs is 501"),
        ("payout = 'pps'", "one of `pplns`, `solo`, `chapter`"),
    ] {
        let mut flags = folder.flags();
        flags.ledger.config = folder.with_file(line).ledger.config;
        let error = settings(flags).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn settings_that_are_probably_not_meant_are_named() {
    let folder = Folder::new();
    for (lines, expected) in [
        ("fee = 1", Some("fee is 1: the chapter keeps 100 % of each block; 0.01 is one percent")),
        ("fee = 1\npayout = 'chapter'", None),
        ("fee = 0.999999", None),
        (
            "max_outputs = 451",
            Some("max_outputs is 451: most machines take coinbases of 450 members at most"),
        ),
        ("max_outputs = 450", None),
    ] {
        let mut flags = folder.flags();
        flags.ledger.config = folder.with_file(lines).ledger.config;
        assert_eq!(settings(flags).unwrap().doubts(), Vec::from_iter(expected), "{lines}");
    }
}

#[test]
fn flags_override_the_file() {
    let folder = Folder::new();
    let file = folder.with_file(
        "network = 'main'\nstratum_bind = '1.2.3.4:1'\nstart_difficulty = 7\nlicense_key_files = ['missing.wif']\n\
         [[node]]\nurl = 'http://a:b@c'",
    );
    let mut flags =
        Flags { stratum_bind: Some("127.0.0.1:9".into()), start_difficulty: Some(0.25), ..folder.flags() };
    flags.ledger.config = file.ledger.config;
    let settings = settings(flags).unwrap();
    assert_eq!((settings.params.name.as_str(), settings.stratum_bind.port()), ("devnet", 9));
    assert_eq!((settings.difficulty.start.get(), settings.nodes[0].name()), (0.25, "127.0.0.1:1"));
}

#[test]
fn two_listeners_on_one_port_are_refused_before_anything_starts() {
    let folder = Folder::new();
    for (stratum, api, apart) in [
        ("127.0.0.1:5", "127.0.0.1:5", false),
        ("0.0.0.0:5", "127.0.0.1:5", false),
        ("127.0.0.1:5", "[::]:5", false),
        ("0.0.0.0:5", "[::1]:5", true),
        ("[::1]:5", "127.0.0.1:5", true),
        ("127.0.0.2:5", "127.0.0.1:5", true),
        ("0.0.0.0:5", "127.0.0.1:6", true),
        ("127.0.0.1:0", "127.0.0.1:0", true),
    ] {
        let flags =
            Flags { stratum_bind: Some(stratum.into()), api_bind: Some(api.into()), ..folder.flags() };
        let expected = format!("stratum-bind is {stratum} and api-bind is {api}, two ports expected");
        assert_eq!(settings(flags).map(|_| ()), if apart { Ok(()) } else { Err(expected) });
    }
}

#[test]
fn cookies_belong_to_the_nodes_without_password_in_order() {
    let folder = Folder::new();
    let node = ["http://a", "http://u:p@b", "http://c:5"].map(NodeUrl::from).to_vec();
    let node_cookie: Vec<PathBuf> = vec!["/1".into(), "/2".into()];
    let of = |node, node_cookie| Flags { nodes: NodeFlags { node, node_cookie }, ..folder.flags() };
    let flags = of(node.clone(), node_cookie.clone());
    assert_eq!(settings(flags).unwrap().nodes.len(), 3);
    let one_less = of(node.clone(), node_cookie[..1].to_vec());
    assert!(settings(one_less).unwrap_err().contains("node 'http://c:5' has no USER:PASSWORD@"));
    let one_more = of(node[..2].to_vec(), node_cookie);
    assert!(settings(one_more).unwrap_err().contains("node-cookie /2 belongs to no node"));
}

#[test]
fn each_mistake_in_a_file_is_named() {
    let folder = Folder::new();
    let rest = "network = 'devnet'\nlicense_key_files = ['license-1.wif']\n";
    let node = "[[node]]\nurl = 'http://u:p@h'\n";
    for (toml, expected) in [
        ("networ = 'main'".to_owned(), "line 1: unknown field `networ`"),
        ("network = ".to_owned(), "pool.toml, line 1"),
        (
            "network = 'mainnet'".to_owned(),
            "network is 'mainnet', one of main, test, regtest, devnet expected",
        ),
        ("network = 'main'\nnetwork_file = 'x'".to_owned(), "network and network_file are both set"),
        ("network_file = 'missing.toml'".to_owned(), "missing.toml cannot be read"),
        (rest.to_owned(), "no node is named"),
        (format!("{rest}stratum_bind = 'here'\n{node}"), "stratum-bind is 'here', ADDRESS:PORT expected"),
        (format!("{rest}start_difficulty = -1\n{node}"), "start_difficulty is -1"),
        (format!("{rest}start_difficulty = 1\nmin_difficulty = 2\n{node}"), "min_difficulty 2"),
        (format!("{rest}max_connections = 0\n{node}"), "max_connections is 0"),
        (
            format!("{rest}payout_address = 'pUSydiLr9kFjtL7VbtfMYXMz7GLV413coQ'\n{node}"),
            "belongs to main (version byte 117)",
        ),
        (format!("network = 'devnet'\n{node}"), "no license key is named"),
        (format!("{rest}[[node]]\nurl = 'http://h'"), "no cookie file"),
        (format!("{rest}[[node]]\nurl = 'h'\ncolour = 1"), "unknown field `colour`"),
    ] {
        let error = settings(folder.with_file(&toml)).unwrap_err();
        assert!(error.contains(expected), "{toml}: {error}");
    }
    let missing = LedgerFlags { config: Some(folder.path("nowhere.toml")), ..LedgerFlags::default() }.into();
    assert!(settings(missing).unwrap_err().contains("nowhere.toml cannot be read"));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_mode_found_and_expected() {
    let folder = Folder::new();
    let text = fs::read_to_string(folder.path("license-1.wif")).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o660, 0o601] {
        let path = folder.key("open.wif", &text, mode);
        let error = settings(Flags { license_key_file: vec![path.clone()], ..folder.flags() }).unwrap_err();
        let expected = format!("{} has mode {mode:04o}, 0600 expected", path.display());
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_wrong_key_is_named_by_its_file_and_never_shown() {
    let folder = Folder::new();
    let [_, (_, key), ..] = devnet_keys();
    let other = key.to_wif(&Params::main().prefixes);
    for (text, expected) in [
        (other.as_str(), "the key belongs to main (WIF prefix 49); this network's keys have 76"),
        ("nonsense", "not a private key"),
        (" \n", "is empty"),
    ] {
        let path = folder.key("wrong.wif", text, 0o600);
        let error = settings(Flags { license_key_file: vec![path], ..folder.flags() }).unwrap_err();
        assert!(error.contains(expected) && error.contains("wrong.wif"), "{error}");
        assert!(!error.contains(&other[..8]) && !error.contains("nonsense"), "{error}");
    }
}

#[test]
fn one_license_named_twice_counts_once_and_a_file_may_hold_several() {
    let folder = Folder::new();
    let texts: Vec<String> = ["license-1.wif", "license-2.wif", "license-1.wif"]
        .map(|name| fs::read_to_string(folder.path(name)).unwrap())
        .to_vec();
    let path = folder.key("all.wif", &format!("# keys\n{}\n", texts.join("\n")), 0o600);
    let settings = settings(Flags { license_key_file: vec![path], ..folder.flags() }).unwrap();
    assert_eq!(settings.licenses.len(), 2);
    assert!(!format!("{settings:?}").contains(texts[0].trim()), "keys are not shown");
}

#[test]
fn keys_come_from_the_environment_too() {
    let params = Params::devnet();
    let texts: Vec<String> =
        devnet_keys().iter().map(|(_, key)| key.to_wif(&params.prefixes).to_string()).collect();
    let keys = iop_mining::keys::load(
        &[],
        ("IOP_POOL_LICENSE_KEYS", Some(format!("{}, {},", texts[1], texts[2]).into())),
        &params,
    )
    .unwrap();
    assert_eq!(keys.len(), 2);
    let error = iop_mining::keys::load(&[], ("IOP_POOL_LICENSE_KEYS", Some("x".into())), &params)
        .unwrap_err()
        .to_string();
    assert!(error.contains("IOP_POOL_LICENSE_KEYS: not a private key"), "{error}");
}

#[test]
fn keys_in_the_environment_that_are_no_text_are_named_and_not_shown() {
    use std::os::unix::ffi::OsStringExt;

    let text = std::ffi::OsString::from_vec(b"secret\xff".to_vec());
    let error = iop_mining::keys::load(&[], ("IOP_POOL_LICENSE_KEYS", Some(text)), &Params::devnet())
        .unwrap_err()
        .to_string();
    assert!(error.contains("IOP_POOL_LICENSE_KEYS is not UTF-8") && !error.contains("secret"), "{error}");
}

#[test]
fn a_key_or_password_in_the_wrong_place_is_never_repeated() {
    let folder = Folder::new();
    let [_, (_, key), ..] = devnet_keys();
    let wif = key.to_wif(&Params::devnet().prefixes).to_string();
    let flags = Flags { license_key_file: vec![wif.as_str().into()], ..folder.flags() };
    let error = settings(flags).unwrap_err();
    assert!(error.contains("a key where a file name is expected") && !error.contains(&wif), "{error}");
    let node = "[[node]]\nurl = 'http://u:secret@h'\n";
    for toml in [
        format!("network = 'devnet'\nlicense_key_files = ['{wif}']\n{node}"),
        format!("license_key_files = '{wif}'\n{node}"),
        format!("network_file = '{wif}'\n{node}"),
        "node = 'http://u:secret@h'".to_owned(),
        "node = ['http://u:secret@h']".to_owned(),
        "[[node]]\nurl = ['http://u:secret@h']".to_owned(),
        "network = 'devnet'\n[[node]]\nurl = 'http://u:secret'".to_owned(),
        "max_connections = 'secret'".to_owned(),
    ] {
        let error = settings(folder.with_file(&toml)).unwrap_err();
        assert!(!error.contains(&wif) && !error.contains("secret"), "{toml}: {error}");
        assert!(error.contains("expected"), "{toml}: {error}");
    }
    let nodes = NodeFlags { node: vec!["http://u:secret@h".into()], ..NodeFlags::default() };
    let flags = Flags { nodes, ..folder.with_file(node) };
    assert!(!format!("{flags:?}{:?}", Raw::load(flags.clone()).unwrap()).contains("secret"));
}

#[test]
fn only_regular_files_of_bounded_size_are_read() {
    let folder = Folder::new();
    let error =
        |path: PathBuf| settings(Flags { license_key_file: vec![path], ..folder.flags() }).unwrap_err();
    let directory = folder.path("folder.wif");
    fs::create_dir(&directory).unwrap();
    assert!(error(directory).contains("not a regular file"));
    assert!(error(folder.key("long.wif", &"#".repeat(2 << 20), 0o600)).contains("more than 1048576 bytes"));
    // A device reports a size of zero and never ends.
    let mut endless = folder.flags();
    endless.ledger.config = Some("/dev/zero".into());
    assert!(settings(endless).unwrap_err().contains("not a regular file"));
}

#[test]
fn connections_are_bounded_by_address_too() {
    let folder = Folder::new();
    let rest = "network = 'devnet'\nlicense_key_files = ['license-1.wif']\n[[node]]\nurl = 'http://u:p@h'\n";
    assert_eq!(settings(folder.with_file(rest)).unwrap().max_connections_per_ip, 256);
    let with = |number| settings(folder.with_file(&format!("max_connections_per_ip = {number}\n{rest}")));
    assert_eq!(with(7).unwrap().max_connections_per_ip, 7);
    assert!(with(0).unwrap_err().contains("max_connections_per_ip is 0, at least 1 expected"));
}
