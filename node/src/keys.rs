//! Key files: one key in wallet import format, readable by its owner only.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use iop_consensus::address::Prefixes;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use iop_consensus::params::networks::devnet_keys;
use zeroize::Zeroizing;

use crate::args::NetworkArgs;
use crate::failure::Failure;
use crate::output::print;
use crate::settings::{network_params, read_secret};

/// Creates a key file and prints the address.
pub(crate) fn new(network: &NetworkArgs, out: &Path) -> Result<(), Failure> {
    let params = network_params(network)?;
    let key = loop {
        let mut secret = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut *secret)
            .map_err(|error| Failure::Failed(format!("the system gives no random numbers: {error}")))?;
        // The secret is out of range about once in 2^128 times.
        if let Some(key) = LicenseKey::from_secret(&secret, true) {
            break key;
        }
    };
    write(out, &key, &params.prefixes)?;
    print(&key.address().to_base58(&params.prefixes))
}

/// Prints the public data of a key file.
pub(crate) fn show(network: &NetworkArgs, file: &Path) -> Result<(), Failure> {
    let params = network_params(network)?;
    let key = LicenseKey::from_wif(&read_secret(file)?, &params.prefixes)
        .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
    print(&format!("address {}", key.address().to_base58(&params.prefixes)))?;
    print(&format!("pubkey  {}", hex::encode(key.pubkey())))
}

/// Writes devnet's published keys; files that contain them already are left alone.
pub(crate) fn devnet(out: &Path) -> Result<(), Failure> {
    let prefixes = Params::devnet().prefixes;
    std::fs::create_dir_all(out)
        .map_err(|error| Failure::Failed(format!("{} cannot be made: {error}", out.display())))?;
    for (name, key) in devnet_keys() {
        let path = out.join(format!("{name}.wif"));
        let there = path.exists() && read_secret(&path)?.as_str() == key.to_wif(&prefixes).as_str();
        if !there {
            write(&path, &key, &prefixes)?;
        }
        print(&format!("{} {}", path.display(), key.address().to_base58(&prefixes)))?;
    }
    Ok(())
}

/// Never overwrites a file: it may hold the only copy of another key.
fn write(path: &Path, key: &LicenseKey, prefixes: &Prefixes) -> Result<(), Failure> {
    let cannot =
        |error: std::io::Error| Failure::Failed(format!("{} cannot be made: {error}", path.display()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    let written = writeln!(file, "{}", key.to_wif(prefixes).as_str()).and_then(|()| file.sync_all());
    if written.is_err() {
        // The key was not used yet, and an empty file would block the next attempt.
        let _ = std::fs::remove_file(path);
    }
    written.map_err(cannot)
}
