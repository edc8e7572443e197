//! Events of the chain, for subscribers that must see every change: relay, script notifications, metrics.
//!
//! Lives here: [`ChainEvent`] and the bounded broadcast channel. A subscriber that only needs the newest state
//! watches [`super::actor::Published`] instead. A receiver that falls behind loses the oldest events and is told
//! how many; it must then read the state anew. Data goes: chain thread -> channel -> any number of receivers.

use std::sync::Arc;

use bitcoin::{Block, BlockHash, Txid};
use tokio::sync::broadcast;

use super::verdict::Rejection;

/// Events a receiver may fall behind by. Blocks are shared, so a slow receiver keeps at most this many alive.
const CAPACITY: usize = 512;

/// A change. Events are sent in the order of the changes.
#[derive(Debug, Clone)]
pub enum ChainEvent {
    /// A block on top of the tip passed every check except coins and scripts and is about to be connected: compact
    /// blocks are sent now (`NewPoWValidBlock`). Not sent during initial block download.
    Arrived {
        /// The block.
        block: Arc<Block>,
        /// Its height.
        height: u32,
    },
    /// The block became the tip (`BlockConnected`).
    Connected {
        /// The block.
        block: Arc<Block>,
        /// Its height.
        height: u32,
    },
    /// The block was the tip and is no longer in the active chain (`BlockDisconnected`).
    Disconnected {
        /// The block.
        block: Arc<Block>,
        /// Its height.
        height: u32,
    },
    /// A block was fully validated (`BlockChecked`), so the peer that sent it can be held to account.
    Checked {
        /// The block's hash.
        hash: BlockHash,
        /// The verdict.
        verdict: Result<(), Rejection>,
    },
    /// An operator cleared the failure marks of this block, its ancestors and its descendants.
    Reconsidered(BlockHash),
    /// A transaction entered the mempool.
    TxAccepted(Txid),
    /// A transaction left the mempool for any reason other than a block.
    TxRemoved(Txid),
}

/// The sending side, owned by the chain state.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<ChainEvent>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(CAPACITY).0)
    }
}

impl Events {
    /// A receiver of all events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<ChainEvent> {
        self.0.subscribe()
    }

    /// Sends an event to all receivers; it is not built when there are none.
    pub fn send(&self, event: impl FnOnce() -> ChainEvent) {
        if self.0.receiver_count() > 0 {
            // The last receiver may have been dropped in between; that is no error.
            let _ = self.0.send(event());
        }
    }
}
