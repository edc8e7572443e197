//! `iop-miner` as a library: devices, upstreams, and what stands between them.
//!
//! What lives here: the command line ([`cli`]), [`mine`], [`solo`], [`gateway`], [`mod@bench`], [`devices`]. What does not: the
//! nonce search (`iop-kernels`), Stratum's messages and sessions (`iop-stratum`), anything of the pool's or
//! the node's.
//! The way of the data: an [`upstream::Upstream`] gives a [`job::Job`] to the [`dispatcher::Dispatcher`],
//! which cuts it into assignments; a [`device::Device`] scans them and hands each nonce found to its
//! [`device::Feed`], which hashes it once more by other code and passes it to the upstream as a share.

pub mod bench;
pub mod choice;
pub mod cli;
pub mod device;
pub mod devices;
pub mod dispatcher;
pub mod gateway;
pub mod job;
pub mod log;
pub mod mine;
pub mod plot;
pub mod rarely;
pub mod rig;
pub mod setup;
mod signals;
pub mod solo;
pub mod split;
pub mod stats;
pub mod suggest;
pub mod upstream;
pub mod view;
pub mod wall;
