//! License keys: from files that only their owner can read, or from the environment; never from an argument.

use std::path::{Path, PathBuf};

use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use zeroize::Zeroizing;

use crate::config::{ConfigError, read_text};

/// Environment variable with keys in WIF form, separated by commas.
pub const KEYS_VARIABLE: &str = "IOP_POOL_LICENSE_KEYS";

/// Reads all keys; a license that is named twice counts once.
///
/// # Errors
/// A file that cannot be read or that others may read, a text that is no key, a key of another network.
pub fn load(
    files: &[PathBuf],
    environment: Option<String>,
    params: &Params,
) -> Result<Vec<LicenseKey>, ConfigError> {
    let mut keys: Vec<LicenseKey> = Vec::new();
    let mut add = |origin: &str, text: &str| -> Result<(), ConfigError> {
        let key = LicenseKey::from_wif(text, &params.prefixes)
            .map_err(|error| ConfigError(format!("{origin}: {error} (network {})", params.name)))?;
        if !keys.iter().any(|known| known.pubkey() == key.pubkey()) {
            keys.push(key);
        }
        Ok(())
    };
    for path in files {
        let origin = format!("license key file {}", path.display());
        let text = read_secret(path)?;
        let mut lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
        if lines.peek().is_none() {
            return Err(ConfigError(format!("{origin} is empty, a key in WIF form expected")));
        }
        lines.try_for_each(|line| add(&origin, line))?;
    }
    let environment = Zeroizing::new(environment.unwrap_or_default());
    environment
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .try_for_each(|text| add(&format!("environment variable {KEYS_VARIABLE}"), text))?;
    Ok(keys)
}

fn read_secret(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    check_mode(path)?;
    read_text(path, "license key file").map(Zeroizing::new)
}

/// Refuses a key that others on this machine could read.
#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt;

    let metadata = std::fs::metadata(path).map_err(|error| {
        ConfigError(format!("license key file {} cannot be read: {error}", path.display()))
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError(format!(
            "license key file {} has mode {mode:04o}, 0600 expected: others must not read it",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), ConfigError> {
    Ok(())
}
