//! The consensus rules of the IoP chain, and nothing else.
//!
//! Lives here: networks as data, header, transaction and block checks, BIP9, the license registry, and the application
//! of a block to a view of coins and to the registry, with an exact undo.
//! Does not live here: storage, sockets, clocks, threads, mempool policy. Time is a parameter.
//! Data goes one way: bytes -> `bitcoin` types -> [`block::check`] (no context) -> [`header::check_contextual`] and
//! [`block::check_contextual`] (ancestors) -> [`connect::connect`] (coins and registry) -> changes and undo data.
//!
//! The reference is IoP Core 6.3; every rule names the function of it that decides. Where Bitcoin's rule is unchanged,
//! "Core 0.15" is the source.

pub mod address;
pub mod ancestors;
pub mod block;
pub mod coins;
pub mod connect;
pub mod difficulty;
pub mod error;
pub mod genesis;
pub mod header;
pub mod license;
pub mod merkle;
pub mod p2pkh;
pub mod params;
pub mod script;
pub mod subsidy;
pub mod tx;
pub mod versionbits;
pub mod wire;

/// Base units in one coin.
pub const COIN: u64 = 100_000_000;
/// No single amount and no sum of a transaction's amounts may exceed this, in base units (`amount.h`).
pub const MAX_MONEY: u64 = 21_000_000 * COIN;
/// A coinbase output can be spent this many blocks after its own (`consensus.h`).
pub const COINBASE_MATURITY: u32 = 100;
/// Limit of a block's weight, in weight units (BIP141, `consensus.h`).
pub const MAX_BLOCK_WEIGHT: u64 = 4_000_000;
/// Limit of a block's signature operations, in cost units: a legacy operation costs 4 (`consensus.h`).
pub const MAX_BLOCK_SIGOPS_COST: u64 = 80_000;
/// Weight of a byte or operation outside the witness, relative to one inside.
pub const WITNESS_SCALE_FACTOR: u64 = 4;
/// The licensing window and the retarget interval of every built-in network, in blocks.
pub const WINDOW: u32 = 2_016;
