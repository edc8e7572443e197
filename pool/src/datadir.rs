//! The folder for data that must survive a restart: used by one pool at a time, and for one network for ever.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use iop_mining::files;
use iop_mining::template::ChainIdentity;

use crate::run::RunError;

/// The file that says which network the folder belongs to.
const NETWORK_FILE: &str = "network";
/// Most bytes of [`NETWORK_FILE`]: a name and a hash.
const MAX_NETWORK_FILE: u64 = 4096;

/// A folder locked for this pool while this value lives.
#[derive(Debug)]
pub struct Datadir {
    _lock: File,
}

impl Datadir {
    /// Creates the folder if it is missing, locks it, and checks or writes its network.
    ///
    /// # Errors
    /// It cannot be used, is in use (two pools in one folder would submit and delete each other's blocks), or belongs
    /// to another network (whose blocks this one's nodes would refuse, so they would be deleted).
    pub fn open(folder: &Path, network: &ChainIdentity) -> Result<Self, RunError> {
        let wrong = |error: io::Error| unusable(folder, &error.to_string());
        fs::create_dir_all(folder).map_err(wrong)?;
        let lock = File::create(folder.join("lock")).map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(RunError(format!("datadir {} is in use by another iop-pool", folder.display())));
            }
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
        }
        check_network(folder, network)?;
        Ok(Self { _lock: lock })
    }
}

fn unusable(folder: &Path, reason: &str) -> RunError {
    RunError(format!("datadir {} cannot be used: {reason}", folder.display()))
}

fn check_network(folder: &Path, network: &ChainIdentity) -> Result<(), RunError> {
    let path = folder.join(NETWORK_FILE);
    let expected = network.to_string();
    match path.try_exists() {
        Ok(false) => write_network(&path, &expected).map_err(|error| unusable(folder, &error.to_string())),
        Ok(true) => {
            let bytes = files::read(&path, MAX_NETWORK_FILE).map_err(|reason| unusable(folder, &reason))?;
            let found = String::from_utf8_lossy(&bytes);
            let found = found.lines().next().unwrap_or_default();
            if found == expected {
                return Ok(());
            }
            let found: String = found.chars().filter(|char| !char.is_control()).collect();
            if found.trim().is_empty() {
                let reason = format!(
                    "its file {NETWORK_FILE} is damaged, there is nothing in it, {expected} expected: put it back as it \
                     was, or remove it if the folder is of this network"
                );
                return Err(unusable(folder, &reason));
            }
            Err(RunError(format!(
                "datadir {} belongs to network {found}, {expected} expected",
                folder.display()
            )))
        }
        Err(error) => Err(unusable(folder, &error.to_string())),
    }
}

/// Checks a folder that a pool has used, without locking it.
///
/// # Errors
/// It does not exist, or belongs to another network.
pub fn check_network_of(folder: &Path, network: &ChainIdentity) -> Result<(), RunError> {
    if !folder.join(NETWORK_FILE).exists() {
        return Err(unusable(folder, "no pool has used it"));
    }
    check_network(folder, network)
}

/// Checks a folder that a pool will use, without locking or creating anything.
///
/// # Errors
/// It is not a folder, or belongs to another network.
pub fn check_future(folder: &Path, network: &ChainIdentity) -> Result<(), RunError> {
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Err(unusable(folder, "it is no folder")),
        Ok(_) if folder.join(NETWORK_FILE).exists() => check_network(folder, network),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(folder, &error.to_string())),
        _ => Ok(()),
    }
}

/// Free bytes of the file system that a file or folder is in, as far as they are not kept for root.
///
/// # Errors
/// It is not there, or its file system does not tell.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Writes the file atomically.
fn write_network(path: &Path, network: &str) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    writeln!(file, "{network}")?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use iop_consensus::params::Params;

    use super::*;

    #[test]
    fn a_folder_belongs_to_the_network_that_it_was_first_used_for() {
        let folder = tempfile::tempdir().unwrap();
        let [main, devnet] = [Params::main(), Params::devnet()].map(|params| ChainIdentity::of(&params));
        drop(Datadir::open(folder.path(), &main).unwrap());
        let error = Datadir::open(folder.path(), &devnet).unwrap_err().to_string();
        assert!(error.contains("belongs to network 'main' (genesis") && !error.contains('\n'), "{error}");
        drop(Datadir::open(folder.path(), &main).unwrap());
        // Private chains may share a name, but not their genesis block.
        let namesake = ChainIdentity { genesis: devnet.genesis, ..main.clone() };
        assert!(Datadir::open(folder.path(), &namesake).is_err());
    }

    #[test]
    fn a_damaged_file_of_the_network_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let network = ChainIdentity::of(&Params::devnet());
        for damage in ["", "\n", "\0\0\0\0"] {
            fs::write(folder.path().join(NETWORK_FILE), damage).unwrap();
            let error = Datadir::open(folder.path(), &network).unwrap_err().to_string();
            assert!(
                error.contains("file network is damaged") && error.contains("'devnet' (genesis"),
                "{error}"
            );
            assert!(error.contains("or remove it") && !error.contains(['\n', '\0']), "{error}");
        }
        fs::remove_file(folder.path().join(NETWORK_FILE)).unwrap();
        drop(Datadir::open(folder.path(), &network).unwrap());
    }

    #[test]
    fn a_folder_is_checked_without_being_made_or_locked() {
        let folder = tempfile::tempdir().unwrap();
        let [main, devnet] = [Params::main(), Params::devnet()].map(|params| ChainIdentity::of(&params));
        let missing = folder.path().join("missing");
        assert_eq!((check_future(&missing, &main), missing.exists()), (Ok(()), false));
        assert_eq!(check_future(folder.path(), &main), Ok(()));
        let _used = Datadir::open(folder.path(), &main).unwrap();
        assert_eq!(check_future(folder.path(), &main), Ok(()), "also while the pool runs");
        assert!(check_future(folder.path(), &devnet).is_err());
        let file = folder.path().join("lock");
        assert!(check_future(&file, &main).unwrap_err().to_string().ends_with("it is no folder"));
    }

    #[test]
    fn the_free_bytes_of_a_folder_are_known_while_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).unwrap() > 0);
        assert!(free_bytes(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn one_pool_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let network = ChainIdentity::of(&Params::devnet());
        let first = Datadir::open(folder.path(), &network).unwrap();
        assert!(Datadir::open(folder.path(), &network).unwrap_err().to_string().contains("in use"));
        drop(first);
        Datadir::open(folder.path(), &network).unwrap();
    }
}
