//! Authentication: a user with a password, or the cookie file.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The user name in the cookie file, as in Core.
const COOKIE_USER: &str = "__cookie__";

/// What a client must present: `user:password`. Zeroed on drop; the cookie file is removed then.
pub(crate) struct Credentials {
    user_password: Zeroizing<String>,
    cookie: Option<PathBuf>,
}

impl Credentials {
    /// A fixed user name and password.
    pub(crate) fn password(user: &str, password: &str) -> Self {
        Self { user_password: Zeroizing::new(format!("{user}:{password}")), cookie: None }
    }

    /// A new random password in a file that only this user can read; the file is replaced atomically.
    pub(crate) fn cookie(path: &Path) -> std::io::Result<Self> {
        let mut secret = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut *secret).map_err(std::io::Error::other)?;
        let user_password = Zeroizing::new(format!("{COOKIE_USER}:{}", hex::encode(secret.as_slice())));
        let fresh = path.with_extension("new");
        let _ = std::fs::remove_file(&fresh);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(user_password.as_bytes())?;
        drop(file);
        std::fs::rename(&fresh, path)?;
        Ok(Self { user_password, cookie: Some(path.to_owned()) })
    }

    /// Whether the value of an `Authorization` header is correct. Takes the same time for any wrong one.
    pub(crate) fn accept(&self, header: &str) -> bool {
        let Some(encoded) = header.strip_prefix("Basic ") else { return false };
        let Ok(given) = STANDARD.decode(encoded.trim()) else { return false };
        Zeroizing::new(given).ct_eq(self.user_password.as_bytes()).into()
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        if let Some(path) = &self.cookie {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_cookies_own_words_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".cookie");
        let credentials = Credentials::cookie(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let right = std::fs::read_to_string(&path).unwrap();
        assert!(credentials.accept(&basic(&right)));
        for wrong in ["", "__cookie__:", &right[1..], &format!("{right}0")] {
            assert!(!credentials.accept(&basic(wrong)), "{wrong}");
        }
        assert!(!credentials.accept(&right));
        drop(credentials);
        assert!(!path.exists());
    }
}
