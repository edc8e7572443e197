//! Permitted proof of work: which licenses may mine, and how a block proves that it is licensed.
//!
//! Lives here: the coinbase signature ([`coinbase`]), the keys for it ([`key`], [`pubkey`]), the admin actions that
//! change the whitelist ([`admin`]), the arithmetic of windows and caps ([`cap`]), and the registry that all of them
//! read and write ([`registry`]). Not here: coins, scripts, the rest of a block.
//! Per block: [`coinbase::check`] gives the license, [`registry::Registry::check_may_mine`] checks it against the
//! parent's state, [`registry::Registry::apply`] counts the block and then applies its admin actions.

pub mod admin;
pub mod cap;
pub mod coinbase;
pub mod key;
pub mod pubkey;
pub mod registry;
