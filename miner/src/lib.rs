//! `iop-miner` as a library: devices, upstreams, and what connects them.
//!
//! Here: the command line ([`cli`]), [`mine`], [`solo`], [`gateway`], [`mod@bench`], [`devices`]. Not here: the nonce
//! search (`iop-kernels`), Stratum's messages and sessions (`iop-stratum`), code of the pool or the node. Path: an
//! [`upstream::Upstream`] gives a [`job::Job`] to the [`dispatcher::Dispatcher`], which splits it into assignments; a
//! [`device::Device`] scans them and passes each nonce found to its [`device::Feed`], which hashes it once more by
//! other code and sends it to the upstream as a share.

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
