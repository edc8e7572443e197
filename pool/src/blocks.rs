//! Found blocks: to every node at once, again after a failure, until they are answered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::rpc::{CALL_TIME, Node, RpcError};
use crate::spool::{Found, Spool};

/// The first wait before a block is submitted again; it doubles up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait between two attempts: a node that comes back gets the block within this.
const MAX_WAIT: Duration = Duration::from_secs(15);
/// How long a node that does not answer is asked when another one has answered: by then it gets the block from
/// its peers.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Blocks that are listed at most, the latest ones.
const MAX_LISTED: usize = 1000;
/// Blocks of one height that may wait for an answer. Only one can be in the chain; while no node answers, an easy
/// chain's miners find hundreds on the last tip, and each would be kept and sent again.
const MAX_PENDING: usize = 8;
/// Core's error while it starts: it answers soon.
const WARMING_UP: i64 = -28;

/// What a node said of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeAnswer {
    /// `host:port`.
    pub node: String,
    /// `accepted`, or the node's words: `duplicate`, `inconclusive`, a reject reason.
    pub answer: String,
}

/// What became of a block: the best that any node answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No node has answered yet.
    Pending,
    /// Every node that answered refused it.
    Refused,
    /// It is valid and another block of its height was faster.
    Side,
    /// It became the tip of a node.
    Accepted,
}

/// A found block as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Its height.
    pub height: u32,
    /// Its hash, as printed.
    pub hash: String,
    /// The license that signed.
    pub license: String,
    /// Whose share it was.
    pub worker: String,
    /// When it was found, in seconds since 1970.
    pub time: u64,
    /// What became of it.
    pub status: Status,
    /// What the nodes said.
    pub answers: Vec<NodeAnswer>,
}

/// Delivers found blocks and remembers them.
#[derive(Debug)]
pub struct Blocks {
    nodes: Arc<[Node]>,
    spool: Spool,
    records: Mutex<VecDeque<Record>>,
    deliveries: Mutex<JoinSet<()>>,
}

impl Blocks {
    /// Delivers to these nodes.
    #[must_use]
    pub fn new(nodes: Arc<[Node]>, spool: Spool) -> Arc<Self> {
        Arc::new(Self { nodes, spool, records: Mutex::default(), deliveries: Mutex::default() })
    }

    /// The blocks of an earlier run that may not have been answered.
    pub fn resume(self: &Arc<Self>) {
        match self.spool.load() {
            Ok((blocks, broken)) => {
                broken.iter().for_each(|file| error!("found block cannot be read: {file}"));
                for found in blocks {
                    info!(height = found.height, hash = %found.hash, "submitting a block of an earlier run again");
                    self.deliver(found);
                }
            }
            Err(error) => error!("found blocks of earlier runs cannot be read: {error}"),
        }
    }

    /// Sends a block to all nodes at once and returns. Must be called within a tokio runtime.
    pub fn deliver(self: &Arc<Self>, found: Found) {
        if !self.list(&found) {
            warn!(height = found.height, hash = %found.hash, "block left out: {MAX_PENDING} of its height wait for a node");
            return;
        }
        let found = Arc::new(found);
        let mut attempts: JoinSet<()> = JoinSet::new();
        for index in 0..self.nodes.len() {
            attempts.spawn(Arc::clone(self).submit(index, Arc::clone(&found)));
        }
        let (blocks, stored) = (Arc::clone(self), Arc::clone(&found));
        let store = tokio::task::spawn_blocking(move || {
            if let Err(error) = blocks.spool.store(&stored) {
                error!(hash = %stored.hash, "found block cannot be written to disk: {error}");
            }
        });
        let blocks = Arc::clone(self);
        let mut deliveries = self.deliveries.lock().expect("no panic while the lock is held");
        while deliveries.try_join_next().is_some() {} // forget those that are done
        deliveries.spawn(async move {
            // A panic of a task leaves the file for the next start.
            let stored = store.await.is_ok();
            let mut answered = true;
            while let Some(attempt) = attempts.join_next().await {
                answered &= attempt.is_ok();
            }
            if stored
                && answered
                && let Err(error) = blocks.spool.remove(&found)
            {
                warn!(hash = %found.hash, "file of an answered block cannot be removed: {error}");
            }
        });
    }

    /// One node, until it answers or need not.
    async fn submit(self: Arc<Self>, index: usize, found: Arc<Found>) {
        let (node, begun, mut wait) = (&self.nodes[index], Instant::now(), FIRST_WAIT);
        loop {
            let answer: Result<Option<String>, RpcError> =
                node.call("submitblock", json!([found.block]), CALL_TIME).await;
            let trouble = match answer {
                Ok(verdict) => return self.answered(node, &found, verdict.as_deref().unwrap_or("accepted")),
                Err(RpcError::Node { code, message }) if code != WARMING_UP => {
                    return self.answered(node, &found, &message);
                }
                Err(trouble) => trouble,
            };
            warn!(hash = %found.hash, node = node.name(), "block not delivered yet: {trouble}");
            if begun.elapsed() > PATIENCE && self.is_answered(&found.hash) {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_WAIT);
        }
    }

    fn answered(&self, node: &Node, found: &Found, answer: &str) {
        let status = status(answer);
        let (height, hash, name) = (found.height, &found.hash, node.name());
        if status == Status::Refused {
            error!(height, %hash, node = name, "block refused: {answer}");
        } else {
            info!(height, %hash, node = name, "block {answer}");
        }
        let mut records = self.records.lock().expect("no panic while the lock is held");
        if let Some(record) = records.iter_mut().find(|record| record.hash == found.hash) {
            record.answers.push(NodeAnswer { node: name.to_owned(), answer: answer.to_owned() });
            record.status = record.status.max(status);
        }
    }

    fn is_answered(&self, hash: &str) -> bool {
        let records = self.records.lock().expect("no panic while the lock is held");
        records.iter().find(|record| record.hash == hash).is_none_or(|record| !record.answers.is_empty())
    }

    /// Whether the block is to be delivered.
    fn list(&self, found: &Found) -> bool {
        let mut records = self.records.lock().expect("no panic while the lock is held");
        let waits = |record: &&Record| record.height == found.height && record.status == Status::Pending;
        if records.iter().filter(waits).count() >= MAX_PENDING {
            return false;
        }
        let Found { height, hash, license, worker, time, block: _ } = found.clone();
        records.push_front(Record {
            height,
            hash,
            license,
            worker,
            time,
            status: Status::Pending,
            answers: Vec::new(),
        });
        records.truncate(MAX_LISTED);
        true
    }

    /// Blocks found since the start, the latest first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().expect("no panic while the lock is held").iter().cloned().collect()
    }

    /// Waits for deliveries in flight, but not for long: what is not answered by then is on disk.
    pub async fn finish(&self, limit: Duration) {
        let mut deliveries =
            std::mem::take(&mut *self.deliveries.lock().expect("no panic while the lock is held"));
        let all = async { while deliveries.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            warn!("a found block is not answered yet; it is on disk and will be submitted at the next start");
        }
    }
}

/// What an answer makes of a block.
fn status(answer: &str) -> Status {
    match answer {
        "accepted" | "duplicate" => Status::Accepted,
        "inconclusive" | "duplicate-inconclusive" => Status::Side,
        _ => Status::Refused,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rpc::NodeAddress;

    fn found(height: u32, number: usize) -> Found {
        let (license, worker, block) = ("license".into(), "worker".into(), "00".into());
        Found { height, hash: format!("{number:064x}"), license, worker, time: 5, block }
    }

    #[tokio::test]
    async fn while_no_node_answers_few_blocks_of_a_height_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let nobody = Node::new(NodeAddress::parse("http://u:p@127.0.0.1:1", None, 1).unwrap());
        let blocks = Blocks::new(Arc::from([nobody]), Spool::open(folder.path()).unwrap());
        for number in 0..MAX_PENDING + 5 {
            blocks.deliver(found(7, number));
        }
        blocks.deliver(found(8, 1000));
        assert_eq!(blocks.records().len(), MAX_PENDING + 1);
        blocks.finish(Duration::from_millis(300)).await;
        assert_eq!(blocks.spool.load().unwrap().0.len(), MAX_PENDING + 1, "what is kept is on disk");
    }

    #[test]
    fn the_best_answer_of_all_nodes_is_the_blocks_status() {
        assert_eq!(["accepted", "duplicate"].map(status), [Status::Accepted; 2]);
        assert_eq!(["inconclusive", "duplicate-inconclusive"].map(status), [Status::Side; 2]);
        assert_eq!(["high-hash", "bad-CAP-miner", "duplicate-invalid"].map(status), [Status::Refused; 3]);
        assert_eq!(
            [Status::Refused, Status::Accepted, Status::Side].into_iter().max(),
            Some(Status::Accepted)
        );
        assert!(Status::Pending < Status::Refused);
    }
}
