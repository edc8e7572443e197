//! Stratum over TLS, with clients that verify the certificate.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::program::{Miner, Program, connect, free_port};
use common::{Chain, PATIENCE, wait_until};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Writes a new certificate for localhost and its key.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    made.cert.der().clone()
}

fn start(folder: &Path, node: SocketAddr, more: &str) -> (Program, SocketAddr) {
    let address = format!("127.0.0.1:{}", free_port());
    let config = format!(
        "stratum_tls_bind = \"{address}\"\ntls_certificate_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\n{more}"
    );
    (Program::start(folder, node, &config), address.parse().unwrap())
}

fn secure(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, connect(address))
}

#[test]
fn miners_work_over_both_versions_of_tls_and_are_told_to_come_again() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let (node, certificate) = (chain.serve(0), certify(folder.path()));
    let (mut pool, address) = start(folder.path(), node.address, "");
    let mut plain = Miner::new(connect(pool.stratum));
    let mut miners: Vec<_> = [&rustls::version::TLS13, &rustls::version::TLS12]
        .map(|version| Miner::new(secure(address, &certificate, &[version])))
        .into();
    for miner in &mut miners {
        miner.mine(2);
    }
    plain.mine(1);
    pool.signal("-TERM");
    for miner in &mut miners {
        wait_until("the connection is closed", || {
            miner.exchange();
            miner.is_closed
        });
        assert!(miner.is_told_to_reconnect, "and closed in order: read gives an end, not an error");
    }
    assert_eq!(pool.ended().code(), Some(0));
}

#[test]
fn hangup_shows_new_connections_the_new_certificate_and_a_bad_one_changes_nothing() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let (node, first) = (chain.serve(0), certify(folder.path()));
    let (pool, address) = start(folder.path(), node.address, "");
    let versions = rustls::ALL_VERSIONS;
    let mut old = Miner::new(secure(address, &first, versions));
    fs::write(folder.path().join("cert.pem"), "nonsense").unwrap();
    pool.signal("-HUP");
    wait_until("it says what is wrong", || pool.log().contains("stays as it was: TLS certificate file"));
    Miner::new(secure(address, &first, versions)).mine(1);
    let second = certify(folder.path());
    pool.signal("-HUP");
    wait_until("it is read again", || pool.log().contains("the TLS certificate as it is now"));
    Miner::new(secure(address, &second, versions)).mine(1);
    let mut distrusting = secure(address, &first, versions);
    distrusting.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(
        distrusting.flush().and(distrusting.read(&mut [0; 9])).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
    old.mine(1);
}

#[test]
fn openssl_can_talk_to_it() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("there is no openssl here");
        return;
    }
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    certify(folder.path());
    let (_pool, address) = start(folder.path(), node.address, "");
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-connect", &address.to_string(), "-CAfile"])
        .arg(folder.path().join("cert.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    client
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"{\"id\":7,\"method\":\"mining.ping\",\"params\":[]}\n")
        .unwrap();
    let mut answer = [0; 12];
    client.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    let _ = client.kill();
    let _ = client.wait();
    assert!(answer.starts_with(b"{\"id\":7,"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn who_does_not_shake_hands_is_closed_and_holds_up_nobody() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let (node, certificate) = (chain.serve(0), certify(folder.path()));
    let (pool, address) = start(folder.path(), node.address, "handshake_seconds = 2.0");
    let mut strangers: Vec<TcpStream> =
        [&b""[..], b"\x16\x03\x01", b"{\"id\":1,\"method\":\"mining.subscribe\"}\n", b"GET / HTTP/1.1\r\n"]
            .map(|said| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(said).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
                stream
            })
            .into();
    Miner::new(secure(address, &certificate, rustls::ALL_VERSIONS)).mine(2);
    for stranger in &mut strangers {
        let ended = stranger.read_to_end(&mut Vec::new());
        assert!(!ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "still open");
    }
    wait_until("the operator is told", || {
        pool.log().contains("seems to speak plain TCP at the port for TLS")
    });
    assert_eq!(pool.log().matches("seems to speak plain TCP").count(), 1, "once a minute");
}

#[test]
fn files_that_cannot_serve_are_named_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let path = |name: &str| folder.path().join(name);
    fs::copy(path("key.pem"), path("open.pem")).unwrap();
    fs::set_permissions(path("open.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(path("other.pem"), other.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(path("other.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    let wif = path("license.wif");
    let (_, license) = &iop_consensus::params::networks::devnet_keys()[1];
    fs::write(&wif, license.to_wif(&iop_consensus::params::Params::devnet().prefixes).as_bytes()).unwrap();
    fs::set_permissions(&wif, fs::Permissions::from_mode(0o600)).unwrap();
    for (certificate, key, expected) in [
        ("missing.pem", "key.pem", "TLS certificate file"),
        ("license.wif", "key.pem", "it holds no certificate"),
        ("cert.pem", "open.pem", "mode 0644, 0600 expected"),
        ("cert.pem", "license.wif", "it holds no private key"),
        ("cert.pem", "other.pem", "does not fit TLS certificate file"),
        ("cert.pem", "", "all or none expected"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iop-pool"));
        command.args([
            "run",
            "--network",
            "devnet",
            "--node",
            "http://u:p@127.0.0.1:1",
            "--license-key-file",
        ]);
        command.arg(&wif).args(["--stratum-tls-bind", "127.0.0.1:0", "--tls-certificate-file"]);
        command.arg(path(certificate)).env_remove("IOP_POOL_LICENSE_KEYS").arg("--datadir").arg(path("data"));
        if !key.is_empty() {
            command.arg("--tls-key-file").arg(path(key));
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("error:") && said.lines().count() == 1, "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
