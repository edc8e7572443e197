//! A template, a license and tips for the tests and benches of this crate and its dependents.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use iop_consensus::license::key::LicenseKey;
use iop_stratum::difficulty::Target;

use crate::template::{LicenseInfo, Template};
use crate::tips::{ChainTip, ChainWork};

/// A template without transactions, at a difficulty of about 128 hashes per block.
///
/// # Panics
/// Never: its target is a sensible one.
#[must_use]
pub fn template(height: u32) -> Template {
    let bits = 0x2001_ffff;
    Template {
        height,
        parent: BlockHash::from_byte_array([height as u8; 32]),
        version: 0x2000_0000,
        bits,
        target: Target::from_compact(bits).expect("a sensible constant"),
        time: 1_700_000_000,
        min_time: 1_699_999_000,
        max_time: u32::MAX,
        coinbase_value: 50 * iop_consensus::COIN,
        witness_commitment: None,
        txids: vec![],
        transactions: vec![],
        license_required: true,
        long_poll_id: None,
        outputs_room: 18,
    }
}

/// A fixed license key.
///
/// # Panics
/// Never: the secret is in the curve's range.
#[must_use]
pub fn key(compressed: bool) -> LicenseKey {
    LicenseKey::from_secret(&[11; 32], compressed).expect("a sensible constant")
}

/// A whitelisted license without a cap, as the registry reports it.
#[must_use]
pub fn license(address: String) -> LicenseInfo {
    LicenseInfo {
        address,
        whitelisted: true,
        admin: false,
        blocks_in_window: 0,
        cap: None,
        remaining: None,
        last_block: None,
        eligible_next: true,
        eligible_from_height: None,
    }
}

/// A tip at this height on branch `branch`, with 10 units of work per block.
#[must_use]
pub fn tip(height: u8, branch: u8) -> ChainTip {
    let (mut hash, mut work) = ([height; 32], [0; 32]);
    hash[0] = branch;
    work[31] = height * 10;
    ChainTip { hash: BlockHash::from_byte_array(hash), height: height.into(), work: ChainWork(work) }
}
