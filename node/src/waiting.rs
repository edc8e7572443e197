//! The mempool file: loaded at the start, saved when the node stops.
//!
//! Lives here: when that happens, and what is logged. Does not live here: the file's format (see
//! [`crate::mempool::persist`]). Transactions are offered one by one, so that the node serves meanwhile. A stop
//! before the last one loses none: what was not offered yet is saved behind what the mempool holds. An unusable
//! file costs one log line, and never prevents the start.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::Txid;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::chain::actor::{ChainHandle, Stopped};
use crate::chain::clock::now;
use crate::mempool::persist::{self, FILE_NAME, Kept, Waiting};
use crate::p2p::handle::NetHandle;

/// The mempool file, and the chain that its transactions are offered to.
#[derive(Clone)]
pub(crate) struct WaitingFile {
    path: PathBuf,
    chain: ChainHandle,
    left: Arc<Mutex<Left>>,
}

/// What the file held and was not taken over yet.
#[derive(Debug, Default)]
struct Left {
    /// The file was read, or is unusable or not there.
    read: bool,
    waiting: VecDeque<Waiting>,
    own: HashSet<Txid>,
}

impl Left {
    fn read(&mut self, path: &Path) {
        if std::mem::replace(&mut self.read, true) {
            return;
        }
        match persist::load(path) {
            Ok(kept) => {
                let Kept { waiting, own } = kept.unwrap_or_default();
                self.waiting = waiting.into();
                self.own = own.into_iter().collect();
            }
            Err(error) => warn!("{} {error}: waiting transactions are not taken over", path.display()),
        }
    }

    /// What to save if this is in the mempool; `own` are the ids of what was sent at this node.
    fn with(&mut self, pool: Vec<Waiting>, own: Vec<Txid>) -> Kept {
        let mut waiting = pool;
        // Children are offered after their parents, so what is left has no children in the mempool.
        if !self.waiting.is_empty() {
            let here: HashSet<Txid> = waiting.iter().map(id).collect();
            waiting.extend(self.waiting.drain(..).filter(|left| !here.contains(&id(left))));
        }
        self.own.extend(own);
        let own = if self.own.is_empty() {
            Vec::new()
        } else {
            waiting.iter().map(id).filter(|txid| self.own.contains(txid)).collect()
        };
        Kept { waiting, own }
    }
}

fn id((tx, _): &Waiting) -> Txid {
    tx.compute_txid()
}

fn lock(left: &Mutex<Left>) -> MutexGuard<'_, Left> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WaitingFile {
    pub(crate) fn new(datadir: &Path, chain: ChainHandle) -> Self {
        Self { path: datadir.join(FILE_NAME), chain, left: Arc::default() }
    }

    /// Offers the file's transactions, and has those that were sent at this node announced.
    pub(crate) async fn load(self, net: NetHandle) {
        let (path, left) = (self.path.clone(), self.left.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut left = lock(&left);
            left.read(&path);
            left.waiting.len()
        });
        let Ok(total) = read.await else { return };
        let mut accepted = 0usize;
        while let Some((tx, time)) = self.first() {
            let txid = tx.compute_txid();
            match self.chain.run(move |state| state.offer_again(tx, time, now())).await {
                Ok(Ok(_)) => {
                    accepted += 1;
                    if self.was_sent_here(&txid) {
                        let _ = net.announce(txid).await; // a network that has ended tells nobody
                    }
                }
                Ok(Err(_)) => {}
                Err(Stopped) => return,
            }
            self.take_first(&txid);
        }
        if total > 0 {
            info!(accepted, dropped = total - accepted, "waiting transactions taken over from the last run");
        }
    }

    fn first(&self) -> Option<Waiting> {
        lock(&self.left).waiting.front().cloned()
    }

    fn was_sent_here(&self, txid: &Txid) -> bool {
        lock(&self.left).own.contains(txid)
    }

    fn take_first(&self, txid: &Txid) {
        let mut left = lock(&self.left);
        left.waiting.pop_front();
        left.own.remove(txid);
    }

    /// Saves the mempool, and what was not loaded yet; `own` are the ids of what was sent at this node and that no
    /// peer has fetched.
    pub(crate) async fn save(self, loading: JoinHandle<()>, own: Vec<Txid>) {
        loading.abort();
        let _ = loading.await;
        // Whatever was offered is judged before this.
        let Ok(pool) = self.chain.run(|state| Ok(state.mempool().waiting())).await else { return };
        let (path, left) = (self.path.clone(), self.left.clone());
        let written = tokio::task::spawn_blocking(move || {
            let mut left = lock(&left);
            left.read(&path);
            save(&path, &left.with(pool, own))
        });
        if let Ok(Err(error)) = written.await {
            warn!("{} cannot be written: {error}", self.path.display());
        }
    }
}

fn save(path: &Path, kept: &Kept) -> std::io::Result<()> {
    persist::save(path, kept)?;
    info!(transactions = kept.waiting.len(), "waiting transactions kept for the next run");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::hashes::{Hash, hash160};
    use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, absolute, transaction};
    use iop_consensus::address::{Address, AddressKind};
    use iop_consensus::params::Params;

    use super::*;
    use crate::chain::actor;
    use crate::chain::state::ChainState;
    use crate::chain::verdict::Submitted;
    use crate::generate::{Payee, mine};
    use crate::storage::Storage;
    use crate::template::template;

    const NOW: u64 = 1_700_000_000;
    /// OP_TRUE.
    const ANYONE: u8 = 0x51;

    /// A regtest chain with one transaction in the mempool, and its id.
    fn chain(dir: &Path) -> (ChainState, Txid) {
        let params = Arc::new(Params::regtest());
        let storage = Arc::new(Storage::open(&dir.join("db"), &params).unwrap());
        let mut state = ChainState::load(params, storage).unwrap();
        let hash = hash160::Hash::hash(&[ANYONE]).to_byte_array();
        let payee = Payee { address: Address { kind: AddressKind::ScriptHash, hash }, key: None };
        let mut coinbases = Vec::new();
        for _ in 0..102 {
            let block = mine(&template(&mut state, NOW), &payee, || false).unwrap();
            coinbases.push(block.txdata[0].clone());
            assert_eq!(state.submit(block, NOW).unwrap(), Submitted::Accepted);
        }
        let spent = &coinbases[1];
        let input = TxIn {
            previous_output: OutPoint { txid: spent.compute_txid(), vout: 0 },
            script_sig: ScriptBuf::from_bytes(vec![1, ANYONE]),
            ..TxIn::default()
        };
        let value = spent.output[0].value - Amount::from_sat(10_000);
        let output = vec![TxOut { value, script_pubkey: ScriptBuf::from_bytes(vec![ANYONE]) }];
        let (version, lock_time) = (transaction::Version::TWO, absolute::LockTime::ZERO);
        let tx = Transaction { version, lock_time, input: vec![input], output };
        let accepted = state.offer(tx, u64::MAX, NOW).unwrap().unwrap();
        (state, accepted.txid)
    }

    fn waiting(number: u32) -> Waiting {
        let lock_time = absolute::LockTime::from_consensus(number);
        let (version, input) = (transaction::Version::TWO, vec![TxIn::default()]);
        let tx = Transaction { version, lock_time, input, output: vec![] };
        (Arc::new(tx), u64::from(number))
    }

    #[test]
    fn what_is_left_of_the_file_is_saved_behind_the_mempool_and_once() {
        let [loaded, tried, unread, sent_before, new, sent] = [1, 2, 3, 4, 5, 6].map(waiting);
        let mut left = Left {
            read: true,
            waiting: [tried.clone(), unread.clone(), sent_before.clone()].into(),
            own: HashSet::from([id(&sent_before)]),
        };
        let pool = vec![loaded.clone(), tried.clone(), new.clone(), sent.clone()];
        let kept = left.with(pool, vec![id(&sent), id(&waiting(7))]);
        let own = vec![id(&sent), id(&sent_before)];
        assert_eq!(kept, Kept { waiting: vec![loaded, tried, new, sent, unread, sent_before], own });
    }

    /// The file stayed as it was, without what had come since the start.
    #[tokio::test]
    async fn a_stop_while_the_file_loads_loses_neither_what_is_in_it_nor_what_has_come() {
        let dir = tempfile::tempdir().unwrap();
        let (state, new) = chain(dir.path());
        let (chain, thread) = actor::spawn(state);
        let file = WaitingFile::new(dir.path(), chain);
        let before = Kept { waiting: vec![waiting(1), waiting(2)], own: vec![id(&waiting(2))] };
        persist::save(&file.path, &before).unwrap();
        let (path, loading) = (file.path.clone(), tokio::spawn(std::future::pending::<()>()));
        file.save(loading, vec![new]).await;
        let kept = persist::load(&path).unwrap().unwrap();
        let ids: Vec<Txid> = kept.waiting.iter().map(id).collect();
        assert_eq!(ids, [new, id(&waiting(1)), id(&waiting(2))]);
        assert_eq!(kept.own, [new, id(&waiting(2))]);
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap().unwrap();
    }
}
