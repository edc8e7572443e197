//! Pools over TLS: which certificates the miner trusts, and its messages about others.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iop_miner::upstream::Tls;
use iop_miner::upstream::board::Condition;
use iop_miner::upstream::pool::{Pool, PoolSettings};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SigningKey, date_time_ymd};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{Client, JOB, Miner, TIMING, accept, listen, settings};

/// A certificate with its key, and the file to trust.
struct Identity {
    config: Arc<ServerConfig>,
    pem: String,
}

/// Self-signed, or signed by an issuer.
fn identity(change: impl FnOnce(&mut CertificateParams), issuer: Option<&Issuer<'_, KeyPair>>) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    change(&mut params);
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    let certificate = certificate.unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    Identity { config: Arc::new(config), pem: certificate.pem() }
}

impl Identity {
    fn serve(&self, listener: &TcpListener) -> StreamOwned<ServerConnection, TcpStream> {
        let connection = ServerConnection::new(Arc::clone(&self.config)).unwrap();
        StreamOwned::new(connection, accept(listener))
    }
}

/// A miner that trusts the certificates in a file.
fn miner(address: SocketAddr, host: &str, trusted: &str) -> Miner {
    let folder = TempDir::new().unwrap();
    let tls = Tls::load(Some(&file(&folder, trusted))).unwrap();
    let urls = [format!("stratum+ssl://{host}:{}", address.port())];
    let settings = PoolSettings { tls: Some(tls), ..settings(&urls) };
    Miner::start_at(Pool::new(settings, None, TIMING))
}

fn file(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("trusted.pem");
    fs::write(&path, text).unwrap();
    path
}

/// Why the miner rejects a pool with this identity.
fn refusal(shown: &Identity, host: &str, trusted: &str) -> String {
    let (listener, address) = listen();
    let miner = miner(address, host, trusted);
    let mut socket = shown.serve(&listener);
    assert!(socket.conn.complete_io(&mut socket.sock).is_err() || Client::over(socket).read().is_none());
    match miner.wait_for_source(0, |source| matches!(source.condition, Condition::Away(_))).condition {
        Condition::Away(why) => why,
        other => panic!("{other:?}"),
    }
}

/// A CA, and its certificate.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

#[test]
fn pools_are_mined_at_that_show_a_trusted_certificate_or_one_of_a_trusted_ca() {
    let (issuer, ca) = authority();
    let own = identity(|_| {}, None);
    // As created by `openssl req -x509`.
    let openssl = identity(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), None);
    let signed = identity(|_| {}, Some(&issuer));
    for (shown, trusted) in [(&own, &own.pem), (&openssl, &openssl.pem), (&signed, &ca)] {
        let (listener, address) = listen();
        let _miner = miner(address, "localhost", trusted);
        Client::over(shown.serve(&listener)).serve_until_share(&JOB);
    }
}

/// A DER element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match length {
        [0, short @ 0..=0x7f] => vec![short],
        [0, long] => vec![0x81, long],
        [high, low] => vec![0x82, high, low],
    };
    [&[tag], &length[..], content].concat()
}

/// An element's content, and what follows it; lengths of up to two bytes.
fn content(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, header) = match der[1] {
        0x81 => (usize::from(der[2]), 3),
        0x82 => (usize::from(u16::from_be_bytes([der[2], der[3]])), 4),
        length => (usize::from(length), 2),
    };
    der[header..].split_at(length)
}

/// The same certificate as X.509 version 1, without extensions, signed again by its key.
fn version_1(certificate: &[u8], key: &KeyPair) -> String {
    let (mut fields, algorithm) = content(content(certificate).0);
    let mut kept = Vec::new();
    while !fields.is_empty() {
        let rest = content(fields).1;
        // Version and extensions are fields 0 and 3.
        if !matches!(fields[0], 0xa0 | 0xa3) {
            kept.extend_from_slice(&fields[..fields.len() - rest.len()]);
        }
        fields = rest;
    }
    let (body, signature) = (element(0x30, &kept), content(algorithm).1);
    let algorithm = &algorithm[..algorithm.len() - signature.len()];
    let signed = [&[0], &key.sign(&body).unwrap()[..]].concat();
    let whole = element(0x30, &[&body, algorithm, &element(0x03, &signed)].concat());
    let base64 = base64(&whole);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

fn base64(bytes: &[u8]) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().chain([&0; 2]).take(3).fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        for place in 0..4 {
            let letter = letters[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= three.len() { letter.into() } else { '=' });
        }
    }
    text
}

#[test]
fn an_old_root_is_trusted_and_what_cannot_be_used_is_named_and_the_rest_is_trusted() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Old Root");
    let old = version_1(params.self_signed(&key).unwrap().der(), &key);
    let issuer = Issuer::new(params, key);
    // As old, but not a root.
    let leaf_key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(Vec::new()).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "Old Leaf");
    let leaf = version_1(leaf.signed_by(&leaf_key, &issuer).unwrap().der(), &leaf_key);
    let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let (_, ca) = authority();
    let shown = identity(|_| {}, Some(&issuer));
    for trusted in [old.clone(), [garbled, &leaf, &ca, &old].concat()] {
        let (listener, address) = listen();
        let _miner = miner(address, "localhost", &trusted);
        Client::over(shown.serve(&listener)).serve_until_share(&JOB);
    }
    let folder = TempDir::new().unwrap();
    let path = file(&folder, &[garbled, &leaf, &ca, &old].concat());
    let refused = Tls::load(Some(&path)).unwrap().refused().to_vec();
    let named = |number: &str| format!("{}: certificate {number} cannot be used: ", path.display());
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].starts_with(&named("1")), "{refused:?}");
    assert!(
        refused[1].starts_with(&named("2 (Old Leaf)")) && refused[1].contains("version 1"),
        "{refused:?}"
    );
    let path = file(&folder, &[garbled, &leaf].concat());
    let line = Tls::load(Some(&path)).unwrap_err().to_string();
    assert!(line.starts_with(&format!("--tls-ca {}", named("1"))), "{line}");
    let path = file(&folder, &(garbled.repeat(13) + &ca));
    let refused = Tls::load(Some(&path)).unwrap().refused().to_vec();
    let more = format!("{}: 3 certificates more cannot be used", path.display());
    assert_eq!((refused.len(), refused.last()), (11, Some(&more)));
}

#[test]
fn a_certificate_that_is_no_cas_is_trusted_as_itself_and_signs_no_other() {
    for kind in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = kind;
        let trusted = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let why = refusal(&identity(|_| {}, Some(&issuer)), "localhost", &trusted);
        assert!(why.contains("nobody whom we trust has signed its certificate"), "{why}");
    }
}

/// As on a system without ca-certificates.
#[test]
fn where_the_system_trusts_nobody_a_pools_very_certificate_is_enough() {
    let (folder, (listener, address)) = (TempDir::new().unwrap(), listen());
    let own = identity(|_| {}, None);
    let path = file(&folder, &own.pem);
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let miner = |trusted: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_iop-miner"));
        let url = format!("stratum+ssl://localhost:{}", address.port());
        command.args(["mine", "--url", &url, "--user", "pAddress.rig", "--threads", "1"]).args(trusted);
        command.env("SSL_CERT_FILE", &empty).env_remove("SSL_CERT_DIR");
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let mut child = miner(&["--tls-ca", path.to_str().unwrap()]);
    Client::over(own.serve(&listener)).serve_until_share(&JOB);
    child.kill().unwrap();
    child.wait().unwrap();
    let output = miner(&[]).wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("this system trusts no CA"), "{stderr}");
}

#[test]
fn a_pool_that_cannot_be_trusted_is_refused_with_the_reason() {
    let own = identity(|_| {}, None);
    let (issuer, ca) = authority();
    // With the same name but another key, as after a chapter has made a new one.
    let renewed = identity(|_| {}, None);
    let expired = identity(
        |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        },
        Some(&issuer),
    );
    for (why, expected) in [
        (refusal(&own, "localhost", &ca), "nobody whom we trust has signed its certificate"),
        (refusal(&own, "localhost", &renewed.pem), "nobody whom we trust has signed its certificate"),
        (refusal(&own, "127.0.0.1", &own.pem), "its certificate is for another host than 127.0.0.1"),
        (refusal(&expired, "localhost", &ca), "its certificate has expired"),
    ] {
        assert!(why.starts_with("no TLS with it: ") && why.contains(expected), "{why}");
    }
}

#[test]
fn a_pool_that_speaks_no_tls_is_said_so() {
    let own = identity(|_| {}, None);
    let (listener, address) = listen();
    let miner = miner(address, "localhost", &own.pem);
    let mut client = Client::over(accept(&listener));
    client.send_bytes(b"{\"id\":null,\"method\":\"client.show_message\",\"params\":[\"hello\"]}\n");
    let away = miner.wait_for_source(0, |source| matches!(source.condition, Condition::Away(_))).condition;
    assert!(
        matches!(&away, Condition::Away(why) if why.contains("does not speak TLS at this port")),
        "{away:?}"
    );
}

#[test]
fn a_file_that_names_nobody_to_trust_is_named_with_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    for (text, expected) in [
        ("", "it holds no certificate, PEM expected"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "invalid peer certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "missing"),
        (&"x".repeat(1024 * 1024 + 1), "more than 1048576 bytes"),
    ] {
        let path = file(&folder, text);
        let line = Tls::load(Some(&path)).unwrap_err().to_string();
        assert!(line.starts_with(&format!("--tls-ca {}: ", path.display())), "{line}");
        assert!(line.contains(expected) && !line.contains('\n'), "{line}");
    }
    assert!(Tls::load(Some(Path::new("/nowhere"))).unwrap_err().to_string().contains("No such file"));
}
