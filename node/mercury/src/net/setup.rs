//! What a home on the network is started with, and why it cannot be there. Used by [`super::host`].

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::quotas::Quotas;
use crate::store::NotDurable;

/// What a home's owner decides about the network.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Addresses that others are told; those at which the home listens where there are none.
    pub external: Vec<Multiaddr>,
    /// Other homes, with their peer ids, to look people up with.
    pub peers: Vec<Multiaddr>,
    /// How much each peer and address may take.
    pub quotas: Quotas,
}

impl Setup {
    /// The other homes, each as its peer id and its address without that.
    pub(super) fn homes(&self) -> Vec<(PeerId, Multiaddr)> {
        let split = |address: &Multiaddr| {
            let mut address = address.clone();
            match address.pop() {
                Some(Protocol::P2p(peer)) => Some((peer, address)),
                _ => None,
            }
        };
        self.peers.iter().filter_map(split).collect()
    }
}

/// Why a home cannot be on the network, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// One of its addresses cannot be listened at.
    #[error("cannot listen at {address}: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system says.
        reason: String,
    },
    /// The keys cannot be used for encryption.
    #[error("no encryption with this key: {0}")]
    Noise(#[from] std::io::Error),
    /// Nothing may be acknowledged any more.
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
}

impl HostError {
    /// The innermost reason, without the layers around it.
    pub(super) fn listen(address: Multiaddr, error: &dyn std::error::Error) -> Self {
        let mut error = error;
        while let Some(inner) = error.source() {
            error = inner;
        }
        Self::Listen { address, reason: error.to_string() }
    }
}
