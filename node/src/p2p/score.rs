//! Penalties for refused blocks and headers, and bans.
//!
//! Lives here: [`Refusal`], with points as the reference gives them (`CValidationState::DoS`) and reject
//! codes; and [`Bans`] with its file. Does not live here: adding up points (`net.rs`). A ban is for one
//! address and one day; the file is text with an address and a time per line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use iop_consensus::error::{BlockError, TxError};
use tracing::warn;

use crate::chain::verdict::Rejection;

/// Duration of a ban, seconds (`DEFAULT_MISBEHAVING_BANTIME`).
pub(crate) const BANNED_FOR: u64 = 24 * 60 * 60;
/// Maximum number of banned addresses at a time; the ban that ends first makes room. 10,000 take 1 MB.
const MAX_BANS: usize = 10_000;

/// Reject codes (`consensus/validation.h`).
const INVALID: u8 = 0x10;
const OBSOLETE: u8 = 0x11;
const CHECKPOINT: u8 = 0x43;

/// Why a block or header was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For the reject message; 0 is not sent.
    pub(crate) code: u8,
    /// The reference's reject reason.
    pub(crate) reason: String,
    /// Penalty points for the sender.
    pub(crate) points: u32,
    /// What it says of the block with this hash.
    pub(crate) scope: Scope,
}

impl Refusal {
    /// Whether the block with this hash is invalid for good, not only the copy that was sent.
    pub(crate) fn is_final(&self) -> bool {
        self.scope != Scope::ThisCopy
    }
}

/// What a refusal says of the block with the hash of what was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nothing: another copy may be valid, or the same one later.
    ThisCopy,
    /// It is invalid for good.
    ForGood,
    /// It is, and that was known before.
    KnownBefore,
}

/// The consequences of a refused block or header for its sender.
pub(crate) fn refusal(rejection: &Rejection) -> Refusal {
    let reason = rejection.reason();
    let ((code, points), scope) = match rejection {
        Rejection::Rule(error) if error.corruption_possible() || is_of_the_moment(error) => {
            (rule_points(error), Scope::ThisCopy)
        }
        Rejection::Rule(error) => (rule_points(error), Scope::ForGood),
        Rejection::Unsound(error) => (rule_points(error), Scope::ThisCopy),
        Rejection::KnownInvalid => ((0, 0), Scope::KnownBefore),
        Rejection::UnknownParent => ((0, 10), Scope::ThisCopy),
        Rejection::InvalidParent => ((INVALID, 100), Scope::ForGood),
    };
    Refusal { code, reason, points, scope }
}

/// Whether the error may pass with time: a block from the future may be valid later.
fn is_of_the_moment(error: &BlockError) -> bool {
    matches!(error, BlockError::TimeTooNew { .. })
}

fn rule_points(error: &BlockError) -> (u8, u32) {
    match error {
        BlockError::HighHash { .. } => (INVALID, 50),
        BlockError::TimeTooOld { .. } | BlockError::TimeTooNew { .. } => (INVALID, 0),
        BlockError::BadVersion { .. } => (OBSOLETE, 0),
        BlockError::ForkBeforeCheckpoint { .. } => (CHECKPOINT, 100),
        BlockError::Tx { error: TxError::ImmatureCoinbase { .. }, .. } => (INVALID, 0),
        BlockError::Tx {
            error: TxError::NoInputs | TxError::NoOutputs | TxError::NullInput { .. } | TxError::NotFinal(_),
            ..
        } => (INVALID, 10),
        _ => (INVALID, 100),
    }
}

/// The banned addresses.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    until: BTreeMap<IpAddr, u64>,
    file: Option<PathBuf>,
}

impl Bans {
    /// Loads the bans from a file; lines that cannot be read are skipped.
    pub(crate) fn load(file: PathBuf, now: u64) -> Self {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let entry = |line: &str| {
            let (ip, until) = line.split_once(' ')?;
            Some((ip.parse().ok()?, until.trim().parse().ok()?))
        };
        let until = text.lines().filter_map(entry).filter(|(_, until)| *until > now).take(MAX_BANS).collect();
        Self { until, file: Some(file) }
    }

    /// Bans an address until this time, seconds since 1970.
    pub(crate) fn ban(&mut self, ip: IpAddr, until: u64, now: u64) {
        self.until.retain(|_, until| *until > now);
        if self.until.len() >= MAX_BANS {
            let first = self.until.iter().min_by_key(|(_, until)| **until).map(|(ip, _)| *ip);
            first.map(|ip| self.until.remove(&ip));
        }
        self.until.insert(ip.to_canonical(), until);
        if let Some(file) = &self.file
            && let Err(error) = self.save(file)
        {
            warn!("{} cannot be written: {error}", file.display());
        }
    }

    fn save(&self, file: &Path) -> std::io::Result<()> {
        let lines: String = self.until.iter().map(|(ip, until)| format!("{ip} {until}\n")).collect();
        let beside = file.with_extension("new");
        std::fs::write(&beside, lines)?;
        std::fs::rename(&beside, file)
    }

    pub(crate) fn is_banned(&self, ip: IpAddr, now: u64) -> bool {
        self.until.get(&ip.to_canonical()).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::hashes::Hash;
    use bitcoin::{OutPoint, Txid};

    use super::*;

    #[test]
    fn bans_end_are_bounded_and_outlive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bans.txt");
        let mut bans = Bans::load(file.clone(), 0);
        let ip = |n: u32| IpAddr::from(n.to_be_bytes());
        bans.ban(ip(1), 100, 0);
        assert!(bans.is_banned(ip(1), 99) && !bans.is_banned(ip(1), 100) && !bans.is_banned(ip(2), 0));
        assert!(Bans::load(file.clone(), 50).is_banned(ip(1), 60));
        assert!(!Bans::load(file, 100).is_banned(ip(1), 99), "what is over is not read");
        let mut many = Bans::default();
        (0..20_000u32).for_each(|n| many.until.insert(ip(n), 5 + u64::from(n)).map_or((), drop));
        many.until.retain(|_, until| *until < 5 + MAX_BANS as u64);
        many.ban(ip(70_000), 999_999, 0);
        assert_eq!(many.until.len(), MAX_BANS);
        assert!(!many.is_banned(ip(0), 0) && many.is_banned(ip(70_000), 0));
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_ipv6_clothes() {
        let mut bans = Bans::default();
        bans.ban("::ffff:1.2.3.4".parse().unwrap(), 9, 0);
        assert!(bans.is_banned("1.2.3.4".parse().unwrap(), 0));
    }

    #[test]
    fn points_are_those_of_the_reference() {
        assert_eq!(refusal(&Rejection::UnknownParent).points, 10);
        assert_eq!(refusal(&Rejection::InvalidParent).points, 100);
        let txid = Txid::all_zeros();
        let of_tx = |error| refusal(&Rejection::Rule(BlockError::Tx { txid, error })).points;
        assert_eq!(of_tx(TxError::ImmatureCoinbase { outpoint: OutPoint::null(), depth: 1 }), 0);
        assert_eq!(of_tx(TxError::NoInputs), 10);
        assert_eq!(of_tx(TxError::NoOutputs), 10);
        assert_eq!(of_tx(TxError::NullInput { input: 0 }), 10);
        assert_eq!(of_tx(TxError::NotFinal(txid)), 10);
        assert_eq!(of_tx(TxError::NotBip68Final(txid)), 100);
        assert_eq!(of_tx(TxError::DuplicateInput(OutPoint::null())), 100);
    }
}
