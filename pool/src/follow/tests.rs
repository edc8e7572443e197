//! The follower's reactions to what nodes report, and to nodes that report nothing.

#![allow(clippy::unwrap_used)]
use iop_mining::rpc::NodeAddress;
use iop_mining::sample::{self, key, template, tip};

use super::*;
use crate::ledger::Ledger;

fn follower() -> (Follower, watch::Receiver<Arc<Snapshot>>) {
    with_nodes(0)
}

fn with_nodes(count: u16) -> (Follower, watch::Receiver<Arc<Snapshot>>) {
    with(count, crate::ledger::tests::temporary())
}

fn with(count: u16, ledger: Arc<Ledger>) -> (Follower, watch::Receiver<Arc<Snapshot>>) {
    let node = |port: u16| Node::new(NodeAddress::parse(&format!("http://u:p@h:{port}"), None, 1).unwrap());
    let nodes: Arc<[Node]> = (1..=count).map(node).collect();
    let health = Arc::new(Health::new(&nodes));
    let payouts = Payouts::new(ledger, None, Vec::new());
    Follower::new(Params::devnet(), nodes, vec![key(true)], payouts, health)
}

fn license(follower: &Follower, eligible_next: bool) -> LicenseInfo {
    let address = follower.addresses[0].to_base58(&follower.params.prefixes);
    LicenseInfo { eligible_next, ..sample::license(address) }
}

fn with_job() -> (Follower, watch::Receiver<Arc<Snapshot>>, Arc<Job>) {
    let (mut follower, snapshots) = follower();
    let licenses = vec![license(&follower, true)];
    follower.take(template(3), licenses, None, None);
    let Work::Job(job) = snapshots.borrow().work.clone() else { panic!("a job") };
    (follower, snapshots, job)
}

#[test]
fn the_last_job_is_taken_back_when_no_node_has_given_work_for_long() {
    let (mut follower, snapshots, job) = with_job();
    let last = follower.last_work;
    follower.give_up(last + NO_NODE_PATIENCE - Duration::from_secs(1));
    assert!(matches!(snapshots.borrow().work, Work::Job(_)) && !job.tip.is_retired());
    follower.give_up(last + NO_NODE_PATIENCE);
    assert!(matches!(snapshots.borrow().work, Work::NoNode) && job.tip.is_retired());
    // The node returns on the same tip.
    let licenses = vec![license(&follower, true)];
    follower.take(template(3), licenses, None, None);
    let Work::Job(job) = snapshots.borrow().work.clone() else { panic!("a job") };
    assert!(!job.tip.is_retired());
}

/// A block of such a job might be unknown to the next run.
#[tokio::test]
async fn a_job_that_the_ledger_cannot_keep_is_taken_back_until_it_can() {
    let ledger = crate::ledger::tests::temporary();
    let (mut follower, snapshots) = with(0, Arc::clone(&ledger));
    let mut refusal = follower.payouts.refusal();
    ledger.fill_disk(true);
    let licenses = vec![license(&follower, true)];
    follower.take(template(3), licenses.clone(), None, None);
    let Work::Job(job) = snapshots.borrow().work.clone() else { panic!("a job") };
    follower.payouts.keep_jobs();
    assert_eq!(refusal.has_changed().ok(), Some(true));
    follower.on_refusal(refusal.borrow_and_update().clone());
    let no_ledger =
        |work: &Work| matches!(work, Work::NoLedger(trouble) if trouble.contains("No space left"));
    assert!(no_ledger(&snapshots.borrow().work) && job.tip.is_retired());
    follower.take(template(3), licenses.clone(), None, None);
    assert!(no_ledger(&snapshots.borrow().work), "another template changes nothing");
    ledger.fill_disk(false);
    follower.payouts.keep_jobs();
    assert_eq!(*refusal.borrow_and_update(), None);
    assert_eq!(ledger.kept_jobs().unwrap().len(), 2, "those that could not be kept are not forgotten");
    follower.take(template(3), licenses, None, None);
    assert!(matches!(snapshots.borrow().work, Work::Job(_)));
}

#[test]
fn the_last_job_is_taken_back_also_where_a_node_is_in_use_that_says_nothing() {
    let (mut follower, snapshots) = with_nodes(2);
    for index in 0..2 {
        let event = offer(&follower, index, tip(5, 0));
        follower.on_event(event, Instant::now());
    }
    let Work::Job(job) = snapshots.borrow().work.clone() else { panic!("a job") };
    assert_eq!(follower.wishes.in_use(), Some(0));
    // The other one is asked, and has a while to answer.
    let late = follower.last_work + NO_NODE_PATIENCE;
    for later in [0, 1, 10] {
        follower.give_up(late + Duration::from_secs(later));
        assert_eq!(follower.wishes.in_use(), Some(1));
        assert!(!job.tip.is_retired());
    }
    follower.give_up(late + CALL_TIME);
    assert_eq!(follower.wishes.in_use(), None);
    assert!(matches!(snapshots.borrow().work, Work::NoNode) && job.tip.is_retired());
}

#[tokio::test]
async fn a_node_whose_task_panics_is_lost_and_tried_again_later() {
    let (follower, _) = with_nodes(1);
    let (sender, mut events) = mpsc::channel(2);
    follower.health.up(0, tip(5, 0));
    let pause = follower.source(0, sender).attempt(async { panic!("as the test wants it") }).await;
    assert!(pause > Duration::from_secs(1), "no flood of words");
    assert!(matches!(events.recv().await, Some(Event::Lost(0))));
    let trouble = follower.health.read()[0].trouble.clone();
    assert_eq!(trouble.as_deref(), Some("its task panicked: as the test wants it"));
}

fn offer(follower: &Follower, index: usize, tip: ChainTip) -> Event {
    let template = Template { parent: tip.hash, ..template(3) };
    let licenses = vec![license(follower, true)];
    let begun = Some(follower.telling.begin());
    Event::Offer(index, Box::new(Offer { template, licenses, base: None, tip, begun }))
}

/// The parent of the published job, and the node in use.
fn state(follower: &Follower) -> (Option<BlockHash>, Option<usize>) {
    let Work::Job(job) = follower.publish.borrow().work.clone() else {
        return (None, follower.wishes.in_use());
    };
    (Some(job.template.parent), follower.wishes.in_use())
}

#[test]
fn a_tip_with_more_work_is_taken_at_once_from_whichever_node_has_it_first() {
    let (mut follower, _) = with_nodes(2);
    for (index, found, expected) in [
        (0, tip(5, 0), (tip(5, 0), 0)),
        (1, tip(5, 0), (tip(5, 0), 0)),
        (1, tip(6, 0), (tip(6, 0), 1)),
        (0, tip(6, 1), (tip(6, 0), 1)), // equal work: no reason to switch
        (0, tip(7, 1), (tip(7, 1), 0)),
        (1, tip(6, 0), (tip(7, 1), 0)),
    ] {
        let event = offer(&follower, index, found);
        follower.on_event(event, Instant::now());
        assert_eq!(state(&follower), (Some(expected.0.hash), Some(expected.1)));
    }
}

#[test]
fn an_offer_on_the_same_tip_from_another_node_makes_no_job() {
    let (mut follower, _) = with_nodes(2);
    let mut snapshots = follower.publish.subscribe();
    for (index, published) in [(0, true), (1, false), (0, true)] {
        let event = offer(&follower, index, tip(5, 0));
        assert!(follower.telling.is_on(), "whoever can wait waits for the follower");
        follower.on_event(event, Instant::now());
        assert_eq!(snapshots.has_changed().unwrap(), published);
        assert_eq!(follower.telling.is_on(), published, "whoever tells miners says when it is over");
        snapshots.mark_unchanged();
        follower.telling.over(follower.telling.count());
    }
}

/// Nodes with these tips, all of which gave work in turn.
fn with_tips(tips: &[ChainTip]) -> Follower {
    let (mut follower, _) = with_nodes(u16::try_from(tips.len()).unwrap());
    for (index, &found) in tips.iter().enumerate() {
        let event = offer(&follower, index, found);
        follower.on_event(event, Instant::now());
    }
    follower
}

#[test]
fn a_node_that_falls_back_is_left_for_the_best_of_the_others() {
    let mut follower = with_tips(&[tip(7, 0), tip(5, 0), tip(6, 0)]);
    let event = offer(&follower, 0, tip(4, 0)); // its blocks were invalidated
    follower.on_event(event, Instant::now());
    assert_eq!(state(&follower), (Some(tip(7, 0).hash), Some(2)), "its job stays until the other's is here");
    let event = offer(&follower, 2, tip(6, 0));
    follower.on_event(event, Instant::now());
    assert_eq!(state(&follower), (Some(tip(6, 0).hash), Some(2)));
}

/// Work on a lesser tip meanwhile would be wasted.
#[test]
fn where_the_node_with_most_work_is_lost_its_job_goes_on_until_another_one_has_as_much() {
    let mut follower = with_tips(&[tip(7, 0), tip(5, 0)]);
    follower.on_event(Event::Lost(0), Instant::now());
    let held = (Some(tip(7, 0).hash), None);
    assert_eq!(state(&follower), held);
    follower.health.up(1, tip(5, 0));
    assert_eq!(follower.health.read()[1].trouble.as_deref(), Some("has less work than h:1 had"));
    for (found, expected) in [(tip(6, 0), held), (tip(7, 1), (Some(tip(7, 1).hash), Some(1)))] {
        follower.health.up(1, found);
        let event = offer(&follower, 1, found);
        follower.on_event(event, Instant::now());
        assert_eq!(state(&follower), expected);
    }
    assert_eq!(follower.health.read()[1].trouble, None);
    // A node that comes back is used as it is.
    follower.on_event(Event::Lost(1), Instant::now());
    for (index, found) in [(0, tip(6, 0)), (1, tip(5, 0)), (0, tip(6, 0))] {
        let event = offer(&follower, index, found);
        follower.on_event(event, Instant::now());
    }
    assert_eq!(state(&follower), (Some(tip(6, 0).hash), Some(0)));
}

#[test]
fn a_node_with_less_work_is_used_when_the_last_job_is_dead() {
    for answers in [true, false] {
        let mut follower = with_tips(&[tip(7, 0), tip(5, 0)]);
        let Work::Job(job) = follower.publish.borrow().work.clone() else { panic!("a job") };
        follower.on_event(Event::Lost(0), Instant::now());
        let late = Instant::now() + NO_NODE_PATIENCE;
        follower.tick(late - Duration::from_secs(60));
        assert_eq!(state(&follower), (Some(tip(7, 0).hash), None));
        follower.tick(late);
        assert_eq!(state(&follower), (Some(tip(7, 0).hash), Some(1)));
        if answers {
            let event = offer(&follower, 1, tip(5, 0));
            follower.on_event(event, late);
            assert_eq!(state(&follower), (Some(tip(5, 0).hash), Some(1)));
        } else {
            follower.tick(late + CALL_TIME);
            assert!(matches!(follower.publish.borrow().work, Work::NoNode));
        }
        assert!(job.tip.is_retired());
    }
}

#[test]
fn before_the_first_template_there_is_nothing_to_take_back() {
    let (mut follower, snapshots) = follower();
    follower.give_up(follower.last_work + NO_NODE_PATIENCE * 2);
    assert!(matches!(snapshots.borrow().work, Work::Waiting));
}

#[test]
fn a_block_of_ours_is_in_the_chain_also_where_no_license_may_mine_on_it() {
    let ledger = crate::ledger::tests::temporary();
    let (mut follower, snapshots) = with(0, Arc::clone(&ledger));
    let record = crate::ledger::tests::record(&ledger, 2, &template(3).parent.to_string());
    ledger.adopt(&record).unwrap();
    let state = || serde_json::to_value(ledger.payouts(3).unwrap()).unwrap()["blocks"][0]["state"].clone();
    let wanted = || serde_json::to_value(ledger.shares()).unwrap()["window"]["wanted"].as_f64().unwrap();
    assert_eq!(wanted(), 0.0, "as no template has come");
    assert_eq!(state(), "orphaned", "as far as is known");
    let licenses = vec![license(&follower, false)];
    follower.take(template(3), licenses, Some(record.id), None);
    assert!(matches!(snapshots.borrow().work, Work::NoLicense(_)));
    assert_eq!(state(), "immature");
    assert!(wanted() > 0.0, "members see their part of the window");
}

#[test]
fn without_a_license_all_jobs_are_dead_also_those_on_the_same_tip() {
    let (mut follower, snapshots, job) = with_job();
    let licenses = vec![license(&follower, false)];
    follower.take(template(3), licenses, None, None);
    assert!(matches!(snapshots.borrow().work, Work::NoLicense(_)) && job.tip.is_retired());
    let licenses = vec![license(&follower, true)];
    follower.take(template(3), licenses, None, None);
    let Work::Job(job) = snapshots.borrow().work.clone() else { panic!("a job") };
    assert!(!job.tip.is_retired(), "and work resumes");
}
