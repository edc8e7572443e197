//! What happened on the chain, for everyone who must hear of every change: relay, wallets of scripts, metrics.
//!
//! Lives here: [`ChainEvent`] and the bounded broadcast channel. Who only needs the newest state watches
//! [`super::actor::Published`] instead. A receiver that falls behind loses the oldest events and is told how many;
//! it then reads the state anew. Data goes: chain thread -> channel -> any number of receivers.

use std::sync::Arc;

use bitcoin::{Block, BlockHash, Txid};
use tokio::sync::broadcast;

use super::verdict::Rejection;

/// Events that a receiver may be behind. Blocks are shared, so a slow receiver holds at most this many alive.
const CAPACITY: usize = 512;

/// Something changed. Events come in the order of the changes.
#[derive(Debug, Clone)]
pub enum ChainEvent {
    /// A block on top of the tip passed every check but that of coins and scripts, and is about to be connected:
    /// compact blocks go out now (`NewPoWValidBlock`). Not sent during initial block download.
    Arrived {
        /// The block.
        block: Arc<Block>,
        /// Its height.
        height: u32,
    },
    /// The block is the tip now (`BlockConnected`).
    Connected {
        /// The block.
        block: Arc<Block>,
        /// Its height.
        height: u32,
    },
    /// The block was the tip and no longer is in the active chain (`BlockDisconnected`).
    Disconnected {
        /// The block.
        block: Arc<Block>,
        /// Its height.
        height: u32,
    },
    /// A block was judged to the end (`BlockChecked`): whoever sent it can be held to account.
    Checked {
        /// The block's hash.
        hash: BlockHash,
        /// The verdict.
        verdict: Result<(), Rejection>,
    },
    /// An operator takes back that this block, its ancestors or its descendants break rules.
    Reconsidered(BlockHash),
    /// A transaction came into the mempool.
    TxAccepted(Txid),
    /// A transaction left the mempool, for whatever reason but a block.
    TxRemoved(Txid),
}

/// The sending side; the chain state owns it.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<ChainEvent>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(CAPACITY).0)
    }
}

impl Events {
    /// A receiver of everything from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<ChainEvent> {
        self.0.subscribe()
    }

    /// Tells all receivers; nothing is built when there are none.
    pub fn send(&self, event: impl FnOnce() -> ChainEvent) {
        if self.0.receiver_count() > 0 {
            // The last receiver may have gone in between: no fault.
            let _ = self.0.send(event());
        }
    }
}
