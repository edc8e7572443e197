//! Reads files named by the user: regular files of bounded size, opened once so that the file checked is the file read.

use std::fmt::Display;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use iop_consensus::license::key::has_wif_form;
use zeroize::Zeroizing;

use crate::ConfigError;

/// Largest configuration, network, key or cookie file, in bytes. A real one has a few hundred.
const MAX_TEXT: u64 = 1024 * 1024;

/// The bytes of a regular file, at most `max`.
///
/// # Errors
/// The reason, without the path: the file cannot be opened or read, is not a regular file, or is too long.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let (file, _) = open_regular(path)?;
    take(&file, max)
}

/// The contents of a text file.
///
/// # Errors
/// The file cannot be read, is not UTF-8 or is too long, or its name is a private key.
pub fn read_text(path: &Path, what: &str) -> Result<Zeroizing<String>, ConfigError> {
    refuse_key(path, what)?;
    let wrong = |reason: &dyn Display| unreadable(path, what, reason);
    let (file, _) = open_regular(path).map_err(|reason| wrong(&reason))?;
    text(&file).map_err(|reason| wrong(&reason))
}

/// The contents of a text file that only its owner may read.
///
/// # Errors
/// As for [`read_text`]; also if others may read the file.
pub fn read_secret(path: &Path, what: &str) -> Result<Zeroizing<String>, ConfigError> {
    refuse_key(path, what)?;
    let wrong = |reason: &dyn Display| unreadable(path, what, reason);
    let (file, metadata) = open_regular(path).map_err(|reason| wrong(&reason))?;
    let mode = metadata.permissions().mode() & 0o777;
    // On a file from systemd (LoadCredential) the group bits may show the mask of its ACL.
    let handed_over = std::env::var_os("CREDENTIALS_DIRECTORY")
        .is_some_and(|folder| !folder.is_empty() && path.parent() == Some(Path::new(&folder)));
    let forbidden = if handed_over { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(ConfigError(format!(
            "{what} {} has mode {mode:04o}, 0600 expected: others must not read it",
            path.display()
        )));
    }
    text(&file).map_err(|reason| wrong(&reason))
}

/// Refuses a private key given in place of a file name.
///
/// # Errors
/// The file name is a key in WIF form.
pub fn refuse_key(path: &Path, what: &str) -> Result<(), ConfigError> {
    // A path from the configuration file is prefixed with that file's folder, so only the last part is checked.
    if path.file_name().and_then(|name| name.to_str()).is_some_and(has_wif_form) {
        return Err(ConfigError(format!("{what}: a key where a file name is expected")));
    }
    Ok(())
}

fn unreadable(path: &Path, what: &str, reason: &dyn Display) -> ConfigError {
    ConfigError(format!("{what} {} cannot be read: {reason}", path.display()))
}

/// Opens without blocking: a pipe without a writer would block forever.
fn open_regular(path: &Path) -> Result<(File, Metadata), String> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let open = File::options().read(true).custom_flags(nonblocking).open(path);
    let file = open.map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err("it is not a regular file".to_owned()) }
}

fn take(file: &File, max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > max { Err(format!("more than {max} bytes")) } else { Ok(bytes) }
}

fn text(file: &File) -> Result<Zeroizing<String>, String> {
    match String::from_utf8(take(file, MAX_TEXT)?) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err("it is not UTF-8 text".to_owned())
        }
    }
}
