//! License keys, read from files that only their owner can read or from the environment; never from an argument.

use std::ffi::OsString;
use std::path::PathBuf;

use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use zeroize::Zeroizing;

use crate::{ConfigError, files};

/// Reads all keys: those in `files`, and those in the environment variable `variable`, which holds WIF keys separated
/// by commas. A key given twice counts once.
///
/// # Errors
/// A file that cannot be read or that others may read, text that is not a key, or a key of another network.
pub fn load(
    files: &[PathBuf],
    (variable, environment): (&str, Option<OsString>),
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
        let text = files::read_secret(path, "license key file")?;
        let origin = format!("license key file {}", path.display());
        let mut lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
        if lines.peek().is_none() {
            return Err(ConfigError(format!("{origin} is empty, a key in WIF form expected")));
        }
        lines.try_for_each(|line| add(&origin, line))?;
    }
    let environment = environment.unwrap_or_default().into_string().map_err(|text| {
        drop(Zeroizing::new(text.into_encoded_bytes()));
        ConfigError(format!("environment variable {variable} is not UTF-8 text"))
    })?;
    let environment = Zeroizing::new(environment);
    environment
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .try_for_each(|text| add(&format!("environment variable {variable}"), text))?;
    Ok(keys)
}
