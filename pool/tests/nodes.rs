//! The follower against nodes with a faulty long poll.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Chain, LongPoll, Server, wait_until};
use iop_consensus::params::Params;
use iop_consensus::params::networks::devnet_keys;
use iop_mining::rpc::{Node, NodeAddress};
use iop_pool::follow::telling::Telling;
use iop_pool::follow::{Follower, Health, Snapshot, Work};
use iop_pool::job::Job;
use iop_pool::ledger::writer::Writer;
use iop_pool::ledger::{Ledger, Rules, Scheme};
use iop_pool::payouts::Payouts;
use iop_stratum::fields::{Extranonce1, Extranonce2, NTime, Nonce};
use iop_stratum::work::sha256d;
use tokio::sync::watch;

/// A running follower with some fake nodes; it ends when this is dropped.
struct Following {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    health: Arc<Health>,
    telling: Telling,
    runtime: Option<tokio::runtime::Runtime>,
    writer: Option<Writer>,
    _folder: tempfile::TempDir,
}

impl Following {
    fn start(servers: &[&Server]) -> Self {
        let address = |server: &&Server| {
            NodeAddress::parse(&format!("http://u:p@{}", server.address), None, 1).unwrap()
        };
        let nodes: Arc<[Node]> = servers.iter().map(address).map(Node::new).collect();
        let (folder, params) = (tempfile::tempdir().unwrap(), Params::devnet());
        let rules = Rules { scheme: Scheme::Chapter, fee: 0, min_payout: 1, max_outputs: 10, window: 2.0 };
        let (ledger, writer) = Ledger::open(folder.path(), rules, params.prefixes).unwrap();
        let [_, (_, key), ..] = devnet_keys();
        let health = Arc::new(Health::new(&nodes));
        let payouts = Payouts::new(ledger, None, Vec::new());
        let (follower, snapshots) = Follower::new(params, nodes, vec![key], payouts, Arc::clone(&health));
        let telling = follower.telling();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(follower.run());
        Self { snapshots, health, telling, runtime: Some(runtime), writer: Some(writer), _folder: folder }
    }

    fn job(&self) -> Option<Arc<Job>> {
        match &self.snapshots.borrow().work {
            Work::Job(job) => Some(Arc::clone(job)),
            _ => None,
        }
    }

    /// Waits for the job whose parent is the block at this height.
    fn job_after(&self, blocks: u32) -> Arc<Job> {
        let mut found = None;
        wait_until(&format!("there is work on block {blocks}"), || {
            found = self.job().filter(|job| job.template.height == blocks + 1);
            found.is_some()
        });
        found.unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
        self.writer.take().unwrap().close();
    }
}

/// A block of a job, as someone else might find it.
fn block(job: &Job) -> String {
    let (one, two) = (Extranonce1::from_u32(1), Extranonce2::from_counter(1, 8).unwrap());
    let header = |nonce| {
        let ntime = NTime(job.template.time);
        job.work.header(&one, &two, job.version, ntime, Nonce(nonce))
    };
    let nonce = (0..1_000_000).find(|&nonce| job.is_block(&sha256d(&header(nonce)))).unwrap();
    hex::encode(job.block(&header(nonce), &one, &two))
}

#[test]
fn a_tip_that_the_long_poll_does_not_tell_is_found_by_polling() {
    let chain = Chain::new("devnet");
    *chain.long_poll.lock().unwrap() = LongPoll::Hangs;
    let node = chain.serve(0);
    let following = Following::start(&[&node]);
    let job = following.job_after(0);
    assert!(chain.submit(&block(&job)).is_null());
    following.job_after(1);
    assert!(job.tip.is_retired());
}

#[test]
fn a_long_poll_that_does_not_wait_makes_nobody_spin() {
    let chain = Chain::new("devnet");
    *chain.long_poll.lock().unwrap() = LongPoll::Returns;
    let (node, begun) = (chain.serve(0), Instant::now());
    let following = Following::start(&[&node]);
    let first = following.job_after(0);
    wait_until("there is a newer job on the same tip", || following.job().unwrap().id != first.id);
    assert!(!first.tip.is_retired());
    while begun.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let (asked, seconds) = (chain.templates.lock().unwrap().len(), begun.elapsed().as_secs_f64());
    assert!((asked as f64) < 5.0 * (seconds + 1.0), "{asked} templates in {seconds} s");
    // A new tip is not missed because of that.
    assert!(chain.submit(&block(&following.job().unwrap())).is_null());
    following.job_after(1);
}

#[test]
fn the_next_template_waits_while_miners_are_told_of_a_tip_and_not_for_ever() {
    let chain = Chain::new("devnet");
    *chain.long_poll.lock().unwrap() = LongPoll::Returns;
    let node = chain.serve(0);
    // Nothing reports that miners have been told.
    let _following = Following::start(&[&node]);
    wait_until("the next one is asked for", || chain.templates.lock().unwrap().len() > 1);
    let asked = chain.templates.lock().unwrap().clone();
    assert!(asked[1] - asked[0] >= Duration::from_millis(250), "{:?}", asked[1] - asked[0]);
}

#[test]
fn an_offer_on_the_same_tip_holds_nothing_back() {
    let chain = Chain::new("devnet");
    *chain.long_poll.lock().unwrap() = LongPoll::Returns;
    let node = chain.serve(0);
    let following = Following::start(&[&node]);
    let first = following.job_after(0);
    following.telling.over(following.telling.count());
    wait_until("there is a newer job on the same tip", || following.job().unwrap().id != first.id);
    let from = chain.templates.lock().unwrap().len();
    // Each job on the tip asks for the next one at once, and the node answers at once.
    wait_until("a template is asked for at once", || {
        let asked = chain.templates.lock().unwrap();
        asked[from..].windows(2).any(|two| two[1] - two[0] < Duration::from_millis(250))
    });
}

#[test]
fn of_two_nodes_each_new_tip_comes_from_the_one_that_has_it() {
    let chains = [Chain::new("devnet"), Chain::new("devnet")];
    let nodes = [chains[0].serve(0), chains[1].serve(0)];
    let following = Following::start(&[&nodes[0], &nodes[1]]);
    let in_use = || following.health.read().iter().position(|node| node.in_use);
    for height in 0..4 {
        let job = following.job_after(height);
        let (first, second) = if height % 2 == 0 { (1, 0) } else { (0, 1) };
        let found = block(&job);
        assert!(chains[first].submit(&found).is_null());
        following.job_after(height + 1);
        wait_until("the first that has it is in use", || in_use() == Some(first));
        assert!(chains[second].submit(&found).is_null());
        wait_until("the other follows", || {
            following.health.read().iter().all(|node| node.lag == Some(0) && node.height == Some(height + 1))
        });
        assert_eq!(in_use(), Some(first), "a tie keeps the node in use");
    }
}
