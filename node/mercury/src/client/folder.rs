//! A persona's folder on a device: two secrets and a state.
//!
//! Here: the files, which are written atomically. Not here: the content of the state (`state`). `persona.key` and
//! `sealing.key` are 32 bytes each in hexadecimal, mode 0600; `state` is CBOR. Two programs may share a folder:
//! each change is read, made and written while holding the lock on `lock`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::seal::SealingKey;
use super::state::FORMAT;
pub use super::state::{Contact, Leaving, Moving, Sent, Standing, State};
use crate::id::Key;
use crate::limits::MAX_NETWORK;

/// Maximum length in bytes of a state: all contacts with long addresses, and the marks of all mail of 14 days.
const MAX_STATE: u64 = 32 << 20;

/// A folder cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FolderError {
    path: String,
    reason: String,
}

fn wrong(path: &Path, reason: impl ToString) -> FolderError {
    FolderError { path: path.display().to_string(), reason: reason.to_string() }
}

/// A persona's folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Creates a new persona: its two secrets and an empty state.
    ///
    /// # Errors
    /// When a persona exists already, or the folder cannot be written.
    pub fn create(path: &Path, network: &str) -> Result<Self, FolderError> {
        let folder = Self { path: path.to_owned() };
        if network.is_empty() || network.len() > MAX_NETWORK {
            return Err(wrong(path, format!("the network's name has 1 to {MAX_NETWORK} bytes")));
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| wrong(path, error))?;
        let key = Key::generate().map_err(|error| wrong(path, error))?;
        let sealing = SealingKey::generate().map_err(|error| wrong(path, error))?;
        let _lock = folder.lock()?;
        let (fresh, state) = (State::new(network), path.join("state"));
        // Completes an interrupted creation. A fresh state means that the key next to it was never used.
        let begun = state.exists();
        if begun && folder.state()? != fresh {
            return Err(wrong(&state, "exists already; a state is never written over"));
        }
        folder.write_state(&fresh)?;
        if !begun || !path.join("sealing.key").exists() {
            folder.write_secret("sealing.key", sealing.secret())?;
        }
        // Last: a folder without it has no persona.
        folder.write_secret("persona.key", &key.secret())?;
        Ok(folder)
    }

    /// Opens a folder made by [`Self::create`].
    ///
    /// # Errors
    /// When it is no such folder, or its state cannot be read.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let folder = Self { path: path.to_owned() };
        folder.key()?;
        folder.state()?;
        Ok(folder)
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The persona's key.
    ///
    /// # Errors
    /// When it cannot be read, or is readable by others.
    pub fn key(&self) -> Result<Key, FolderError> {
        self.read_secret("persona.key").map(|secret| Key::from_secret(&secret))
    }

    /// The key for opening messages.
    ///
    /// # Errors
    /// When it cannot be read, or is readable by others.
    pub fn sealing_key(&self) -> Result<SealingKey, FolderError> {
        self.read_secret("sealing.key").map(|secret| SealingKey::from_secret(&secret))
    }

    fn read_secret(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, FolderError> {
        read_secret(&self.path.join(name))
    }

    fn write_secret(&self, name: &str, secret: &[u8; 32]) -> Result<(), FolderError> {
        write_secret(&self.path.join(name), secret)
    }

    fn lock(&self) -> Result<File, FolderError> {
        let path = self.path.join("lock");
        let locked = (|| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        })();
        locked.map_err(|error: io::Error| wrong(&path, error))
    }

    /// The current state.
    ///
    /// # Errors
    /// When it cannot be read, or was written by another version.
    pub fn state(&self) -> Result<State, FolderError> {
        let path = self.path.join("state");
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_STATE + 1).read_to_end(&mut bytes));
        read.map_err(|error| wrong(&path, error))?;
        if bytes.len() as u64 > MAX_STATE {
            return Err(wrong(&path, format!("longer than {MAX_STATE} bytes")));
        }
        match crate::cbor::from_slice::<State>(&bytes) {
            Some(state) if state.format() == FORMAT => Ok(state),
            Some(state) => Err(wrong(&path, format!("its format is {}, {FORMAT} expected", state.format()))),
            None => Err(wrong(&path, "damaged, or no state of a persona")),
        }
    }

    /// Changes the state atomically.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, FolderError> {
        let _lock = self.lock()?;
        let before = self.state()?;
        let mut after = before.clone();
        let result = change(&mut after);
        if after != before {
            self.write_state(&after)?;
        }
        Ok(result)
    }

    fn write_state(&self, state: &State) -> Result<(), FolderError> {
        let (path, fresh) = (self.path.join("state"), self.path.join("state.new"));
        let written = (|| {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&crate::cbor::to_vec(state))?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(|error: io::Error| wrong(&path, error))
    }
}

/// Reads a secret written by [`write_secret`].
///
/// # Errors
/// When it is missing, readable by others, or invalid.
pub fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, FolderError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => wrong(path, "no such file; `iop-mercury-cli new` makes a persona"),
        _ => wrong(path, error),
    })?;
    let mode = file.metadata().map_err(|error| wrong(path, error))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(wrong(path, format!("others may read it (mode {mode:o}), 600 expected")));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(66).read_to_string(&mut text).map_err(|error| wrong(path, error))?;
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), &mut *secret)
        .map_err(|_| wrong(path, "64 hexadecimal digits expected"))?;
    Ok(secret)
}

/// Writes a new file, readable by its owner only; never overwrites one. It is durable and complete: a file cut off
/// by a full disk or the end of the program has another name.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Others may write the same file at the same time.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let part = parent.join(format!(".{}-{number}.part", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Fails if the file exists, unlike a rename.
        std::fs::hard_link(&part, path)
    })();
    let removed = std::fs::remove_file(&part);
    written?;
    removed?;
    File::open(parent)?.sync_all()
}

/// Writes a secret into a new file that only its owner can read.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_secret(path: &Path, secret: &[u8; 32]) -> Result<(), FolderError> {
    let digits = Zeroizing::new(hex::encode(secret));
    let text = Zeroizing::new(format!("{}\n", digits.as_str()));
    write_new(path, text.as_bytes()).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => wrong(path, "exists already; a secret is never written over"),
        _ => wrong(path, error),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder() -> (tempfile::TempDir, Folder) {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("me"), "test").unwrap();
        (place, folder)
    }

    #[test]
    fn a_persona_is_made_once_and_read_back_and_its_secrets_are_its_owners_alone() {
        let (place, folder) = folder();
        let again = Folder::open(&place.path().join("me")).unwrap();
        assert_eq!(again.key().unwrap().id(), folder.key().unwrap().id());
        assert_eq!(again.sealing_key().unwrap().public(), folder.sealing_key().unwrap().public());
        assert_eq!(again.state().unwrap().network, "test");
        for name in ["persona.key", "sealing.key", "state"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let error = Folder::create(folder.path(), "test").unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        assert_eq!(folder.key().unwrap().id(), again.key().unwrap().id());
    }

    #[test]
    fn what_was_cut_off_while_a_persona_was_made_is_finished_and_nothing_that_was_used_is_written_over() {
        let (_place, folder) = folder();
        let (path, key) = (folder.path().to_owned(), folder.path().join("persona.key"));
        for cut_off in [&["persona.key"][..], &["persona.key", "sealing.key"]] {
            cut_off.iter().for_each(|name| std::fs::remove_file(path.join(name)).unwrap());
            Folder::create(&path, "test").unwrap();
            Folder::open(&path).unwrap().sealing_key().unwrap();
        }
        let id = folder.key().unwrap().id();
        folder.update(|state| state.contact_mut(id).version = 1).unwrap();
        std::fs::remove_file(&key).unwrap();
        let error = Folder::create(&path, "test").unwrap_err().to_string();
        assert!(error.contains("exists already") && !key.exists(), "{error}");
        assert!(folder.state().unwrap().contact(id).is_some());
    }

    #[test]
    fn secrets_that_others_may_read_or_that_are_none_are_refused() {
        let (_place, folder) = folder();
        let path = folder.path().join("persona.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(folder.key().unwrap_err().to_string().contains("mode 640"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            std::fs::write(&path, text).unwrap();
            assert!(folder.key().is_err(), "{text}");
        }
        let error = Folder::open(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("iop-mercury-cli new"), "{error}");
    }

    #[test]
    fn changes_are_kept_and_damage_is_told() {
        let (_place, folder) = folder();
        let id = Key::from_secret(&[1; 32]).id();
        folder.update(|state| state.contact_mut(id).standing = Standing::Held).unwrap();
        assert!(folder.state().unwrap().holds(id));
        std::fs::write(folder.path().join("state"), b"no").unwrap();
        assert!(folder.state().unwrap_err().to_string().contains("damaged"));
        assert!(folder.update(|_| ()).is_err());
    }

    #[test]
    fn two_at_once_lose_none_of_their_changes() {
        let (_place, folder) = folder();
        let id = Key::from_secret(&[1; 32]).id();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    (0..50).for_each(|_| folder.update(|state| state.contact_mut(id).version += 1).unwrap());
                });
            }
        });
        assert_eq!(folder.state().unwrap().contact(id).unwrap().version, 100);
    }
}
