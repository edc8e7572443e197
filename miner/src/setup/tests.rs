#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use tempfile::TempDir;

use super::*;
use crate::cli::{self, Command};

struct Setup {
    folder: TempDir,
    said: String,
    ended: io::Result<()>,
}

impl Setup {
    fn run(answers: &str) -> Self {
        Self::run_in(tempfile::tempdir().unwrap(), answers)
    }

    fn run_in(folder: TempDir, answers: &str) -> Self {
        let settings =
            SetupSettings { out: folder.path().join("m.toml"), measure: Duration::from_millis(20) };
        let mut out = Vec::new();
        let ended = run(&settings, &mut answers.as_bytes(), &mut out);
        Self { folder, said: String::from_utf8(out).unwrap(), ended }
    }

    fn file(&self) -> String {
        fs::read_to_string(self.folder.path().join("m.toml")).unwrap()
    }
}

/// A devnet license key in a file that only its owner may read, and its address.
fn license(folder: &TempDir) -> (String, String) {
    let (params, path) = (Params::by_name("devnet").unwrap(), folder.path().join("license.wif"));
    let key = LicenseKey::from_secret(&[7; 32], true).unwrap();
    fs::write(&path, &*key.to_wif(&params.prefixes)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (path.display().to_string(), key.address().to_base58(&params.prefixes))
}

/// The answer to the question about spare cores, which is not asked on a machine with one core.
fn spare() -> &'static str {
    if Machine::here().cores() > 1 { "1\n" } else { "" }
}

#[test]
fn answers_for_a_pool_become_a_file_that_mines_there() {
    let folder = tempfile::tempdir().unwrap();
    let (_, address) = license(&folder);
    let main = "pKyUUnY9hMSgXEpJCFcJgYSmjjqsYXrGsN";
    let answers = [
        "ring\npool\ndevnet\n",
        "http://a:1\nstratum+tcp://a:1\nstratum+tcp://b:2\n\n",
        &format!("x\n{main}\n{address}\n"),
        "my rig\nrig-1\nse\"cret\n",
        "cpu,cpu\ngpu\ncpu\n",
        spare(),
    ];
    let setup = Setup::run_in(folder, &answers.concat());
    setup.ended.as_ref().unwrap();
    for explained in [
        "  \"ring\": expected pool or solo or gateway\n",
        "  malformed pool URL \"http://a:1\": expected stratum+tcp://HOST:PORT",
        "  'x' is not a valid address",
        "(network devnet)\n",
        "  \"my rig\": expected 1 to 60 letters",
        "  cpu is named twice\n",
        "  \"gpu\" is none of these devices\n",
        "H/s with kernel ",
    ] {
        assert!(setup.said.contains(explained), "{explained}: {}", setup.said);
    }
    let path = setup.folder.path().join("m.toml");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let arguments = ["iop-miner".into(), "run".into(), "--config".into(), path.into_os_string()];
    let Command::Mine(settings) = cli::parse(arguments).unwrap() else { panic!("a pool is mined at") };
    assert_eq!(settings.pool.urls.iter().map(|url| url.port).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((settings.pool.user, &*settings.pool.password), (format!("{address}.rig-1"), "se\"cret"));
    assert_eq!(settings.rig.tuning.spare_cores, usize::from(!spare().is_empty()));
    assert!(setup.file().contains("# Measured: cpu: "), "{}", setup.file());
}

/// A certificate as a chapter would make it, in a file.
fn certificate(folder: &TempDir) -> String {
    let path = folder.path().join("cert.pem");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(&path, made.cert.pem()).unwrap();
    path.display().to_string()
}

#[test]
fn whom_to_trust_is_asked_where_a_pool_speaks_tls() {
    let folder = tempfile::tempdir().unwrap();
    let ((_, address), certificate) = (license(&folder), certificate(&folder));
    // A part of the file is unusable.
    let text = fs::read_to_string(&certificate).unwrap();
    fs::write(&certificate, text + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let answers = [
        "pool\ndevnet\nstratum+tcp://a:1\nstratum+ssl://b:2\n\n",
        &format!("/nowhere.pem\n{}\n{certificate}\n", folder.path().join("license.wif").display()),
        &format!("{address}\n\n\n\n"),
        spare(),
    ];
    let setup = Setup::run_in(folder, &answers.concat());
    setup.ended.as_ref().unwrap();
    let part = format!("  {certificate}: certificate 2 cannot be used: ");
    for explained in
        ["  /nowhere.pem: No such file", "license.wif: it holds no certificate, PEM expected", &part]
    {
        assert!(setup.said.contains(explained), "{explained}: {}", setup.said);
    }
    let file = setup.file();
    assert!(file.contains(&format!("\ntls_ca = {certificate:?}\n")), "{file}");
    assert!(file.contains("\n# follow_reconnect = true\n"), "{file}");
    let path = setup.folder.path().join("m.toml");
    let arguments = ["iop-miner".into(), "run".into(), "--config".into(), path.into_os_string()];
    let Command::Mine(settings) = cli::parse(arguments).unwrap() else { panic!("a pool is mined at") };
    assert!(settings.pool.tls.is_some() && !settings.pool.follow_reconnect);
}

#[test]
fn every_key_that_the_file_shows_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let (key, address) = license(&folder);
    let (cookie, certificate) = (folder.path().join("cookie"), certificate(&folder));
    fs::write(&cookie, "__cookie__:1").unwrap();
    let node = format!("\n{}\n{key}\n\n\n", cookie.display());
    let pool = format!("stratum+tcp://a:1\n\n{address}\n\n\n");
    let rest = if spare().is_empty() { "\n" } else { "\n\n" };
    for (mode, answers) in [
        ("pool", format!("pool\ndevnet\n{pool}{rest}")),
        ("solo", format!("solo\ndevnet\n{node}{rest}")),
        ("gateway", format!("gateway\n127.0.0.1:3334\npool\ndevnet\n{pool}none\n")),
        ("gateway", format!("gateway\n127.0.0.1:3334\nsolo\ndevnet\n{node}{rest}")),
    ] {
        let setup = Setup::run(&answers);
        setup.ended.as_ref().unwrap();
        let file = setup.file();
        assert!(file.contains(&format!("mode = \"{mode}\"")), "{file}");
        // The examples in comments must be valid too.
        let whole = file
            .replace("# ", "")
            .lines()
            .filter(|line| is_key(line))
            .fold(String::new(), |all, line| all + line + "\n");
        let whole = whole.replace("\"ADDRESS\"", &format!("\"{address}\""));
        let whole = whole.replace("\"FILE\"", &format!("{certificate:?}"));
        let whole = whole.replace("threads = 4", "threads = 1");
        let path = setup.folder.path().join("whole.toml");
        fs::write(&path, &whole).unwrap();
        let arguments = ["iop-miner", "run", "--config"].map(OsString::from);
        match cli::parse(arguments.into_iter().chain([path.into_os_string()])) {
            Ok(_) => {}
            Err(cli::Exit::Usage(error))
                if error.to_string().contains(&format!("mode {mode:?}: expected")) =>
            {
                eprintln!("SKIPPED: this program has no {mode}");
            }
            Err(error) => panic!("{error:?}\n{whole}"),
        }
    }
}

fn is_key(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
}

#[test]
fn where_machines_cannot_be_listened_for_is_said() {
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, address) = (listening.local_addr().unwrap(), license(&tempfile::tempdir().unwrap()).1);
    // 192.0.2.0/24 is reserved for examples: no machine has it.
    let setup = Setup::run(&format!(
        "gateway\n3333\n192.0.2.1:3333\n{taken}\npool\ndevnet\nstratum+tcp://a:1\n\n{address}\n\n\nnone\n"
    ));
    setup.ended.as_ref().unwrap();
    for explained in [
        "  \"3333\" is no address: expected ADDRESS:PORT",
        "  192.0.2.1:3333: no address of this machine",
        &format!("  {taken}: cannot be listened at now"),
    ] {
        assert_eq!(setup.said.matches(explained).count(), 1, "{explained}: {}", setup.said);
    }
    assert!(setup.file().contains(&format!("listen = \"{taken}\"")), "{}", setup.file());
}

#[test]
fn keys_and_cookies_that_cannot_be_used_are_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let (key, address) = license(&folder);
    let open = folder.path().join("open.wif");
    fs::copy(&key, &open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let cookie = folder.path().join("cookie");
    fs::write(&cookie, "__cookie__:1").unwrap();
    let wif = fs::read_to_string(&key).unwrap();
    let (open, cookie) = (open.display(), cookie.display());
    let answers = format!(
        "solo\ndevnet\nftp://x\n\n/nowhere\n{cookie}\n/nowhere.wif\n{open}\n{key}\n\n{wif}\n{address}\ncpu\n\n"
    );
    let setup = Setup::run_in(folder, &answers);
    setup.ended.as_ref().unwrap();
    for explained in [
        "  a node's URL must begin with http://\n",
        "cookie file /nowhere cannot be read",
        "license key file /nowhere.wif cannot be read",
        "has mode 0644, 0600 expected",
        &format!("  license {address}\n"),
        "  that is a private key: expected an address",
    ] {
        assert!(setup.said.contains(explained), "{explained}: {}", setup.said);
    }
    assert!(!setup.said.contains(&*wif) && !setup.file().contains(&*wif));
    assert!(setup.file().contains(&format!("payout = \"{address}\"")), "{}", setup.file());
}

#[test]
fn a_file_that_is_there_is_replaced_only_when_its_owner_says_so() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("m.toml"), "mine").unwrap();
    let setup = Setup::run_in(folder, "maybe\nno\n");
    setup.ended.as_ref().unwrap();
    assert!(setup.said.contains("  expected yes or no\n") && setup.said.ends_with("Nothing is changed.\n"));
    assert_eq!(setup.file(), "mine");
    let (folder, address) = (setup.folder, license(&tempfile::tempdir().unwrap()).1);
    let setup = Setup::run_in(folder, &format!("yes\n\ndevnet\nstratum+tcp://a:1\n\n{address}\n\n\n\n\n"));
    setup.ended.as_ref().unwrap();
    assert!(setup.file().contains("mode = \"pool\""));
    assert_eq!(fs::read_dir(setup.folder.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn the_end_of_the_input_writes_nothing() {
    for answers in ["", "pool\n", "pool\nmain\nhttp://never.right\n"] {
        let setup = Setup::run(answers);
        let error = setup.ended.unwrap_err().to_string();
        assert_eq!(error, "setup: the input ended before all was answered; nothing is written");
        assert_eq!(fs::read_dir(setup.folder.path()).unwrap().count(), 0);
    }
}
