//! A home's network settings, and the errors of starting it. Used by [`super::host`].

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::quotas::Quotas;
use crate::store::NotDurable;

/// The owner's network settings.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Addresses to announce; if empty, the listen addresses are announced.
    pub external: Vec<Multiaddr>,
    /// Other homes, with their peer ids, to look people up with.
    pub peers: Vec<Multiaddr>,
    /// Quotas per peer and address.
    pub quotas: Quotas,
}

impl Setup {
    /// The other homes, each as its peer id and its address without it.
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

/// Why a home cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It cannot listen on one of its addresses.
    #[error("cannot listen at {address}: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// The system's error.
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
    /// Uses the innermost error, without the layers around it.
    pub(super) fn listen(address: Multiaddr, error: &dyn std::error::Error) -> Self {
        let mut error = error;
        while let Some(inner) = error.source() {
            error = inner;
        }
        Self::Listen { address, reason: error.to_string() }
    }
}
