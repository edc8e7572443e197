//! Finds while there is no work, and nodes that misbehave.

#![allow(clippy::unwrap_used)]

use iop_mining::sample::{key, license, template, tip};
use iop_mining::template::Template;

use super::work::tests::share;
use super::*;
use crate::dispatcher::{Current, Dispatcher};
use crate::stats::{DeviceStats, Stats};

/// With two nodes that do not exist.
fn miner(datadir: &Path) -> Miner {
    let params = Params::devnet();
    let nodes: Arc<[Node]> =
        [1, 2].map(|_| Node::new(NodeAddress::parse("http://u:p@127.0.0.1:1", None, 1).unwrap())).into();
    let board = Arc::new(Board::new([1, 2].map(|_| (String::new(), String::new()))));
    let (deliveries, _) = deliveries(&nodes, datadir, &params, &board, TICK).unwrap();
    Miner {
        nodes: Nodes::new(["node", "spare"].map(str::to_owned), Arc::clone(&board)),
        clients: nodes,
        chain: ChainIdentity::of(&params).to_string(),
        dispatcher: Arc::new(Dispatcher::new()),
        deliveries,
        board,
        wishes: Arc::new(Wishes::new(2)),
        maker: Maker::new(Arc::from([key(true)]), None, params.prefixes),
        clocks: Clocks::default(),
        started: Instant::now(),
        failed: None,
        jobs: VecDeque::new(),
        tip: None,
        held: Held::default(),
        waiting: None,
        working: false,
        ending: false,
        last_offer: Instant::now(),
        words: Rarely::default(),
    }
}

/// A block of this job.
fn block(prepared: &Prepared, finder: &Arc<DeviceStats>) -> Share {
    (0..).map(|nonce| share(prepared, nonce, finder)).find(|share| prepared.solve(share).is_some()).unwrap()
}

#[tokio::test]
async fn another_template_of_the_same_tip_voids_no_job_and_a_find_of_an_earlier_one_is_a_block() {
    let folder = tempfile::tempdir().unwrap();
    let mut miner = miner(folder.path());
    let now = Instant::now();
    let offered = |height: u8| {
        let (template, tip) = (template(height.into()), tip(height - 1, 0));
        let licenses = vec![license(String::new())];
        Event::Offer(0, Box::new(Offer { template, licenses, tip, received: now }))
    };
    let current = |miner: &Miner| -> Current { miner.dispatcher.follow().borrow().clone() };
    let is_clean = |current: &Current| current.job.as_ref().unwrap().stratum().notify.clean;
    miner.on_event(offered(7));
    let first = current(&miner);
    miner.on_event(offered(7));
    let second = current(&miner);
    assert!(is_clean(&first) && !is_clean(&second));
    assert_eq!(second.era, first.era, "machines may go on with the first");
    let finder = Stats::new().device("machine");
    let prepared = miner.jobs[1].clone();
    assert_eq!(prepared.job.serial(), first.job.unwrap().serial());
    miner.found(&block(&prepared, &finder));
    assert_eq!((finder.snapshot().counts.stale, miner.board.sources()[0].blocks), (0, 1));
    miner.on_event(offered(8));
    assert!(is_clean(&current(&miner)), "the tip is new");
}

#[tokio::test]
async fn without_a_node_the_time_goes_on_in_steps_and_no_further_than_the_templates_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut miner = miner(folder.path());
    let now = Instant::now();
    let steps = |miner: &mut Miner, max_time| {
        let until = Template { max_time, ..template(7) };
        let prepared = miner.maker.make(until, 0, now, true);
        (miner.tip, miner.last_offer, miner.jobs) = (Some(prepared.template.parent), now, VecDeque::new());
        miner.start(0, prepared);
        (1..280).for_each(|second| miner.alone(now + Duration::from_secs(second)));
        let times = miner.jobs.iter().rev().map(|job| job.job.ntime().0 - job.template.time);
        times.collect::<Vec<_>>()
    };
    let step = u32::try_from(REFRESH.as_secs()).unwrap();
    assert_eq!(steps(&mut miner, template(7).time + step + 10), [0, step, step + 10]);
    assert_eq!(steps(&mut miner, u32::MAX)[..4], [0, step, 2 * step, 3 * step]);
}

#[tokio::test]
async fn a_block_that_was_found_before_the_work_was_taken_away_is_kept_until_a_node_takes_it() {
    let no_license = NoLicense { reasons: Vec::new(), resumes_from_height: None, height: 8 };
    let without_node = |miner: &mut Miner| miner.give_up(Instant::now() + NO_NODE_PATIENCE);
    let without_license = |miner: &mut Miner| miner.wait(0, &no_license);
    for take_away in [&without_node as &dyn Fn(&mut Miner), &without_license] {
        let folder = tempfile::tempdir().unwrap();
        let mut miner = miner(folder.path());
        let prepared = miner.maker.make(template(7), 0, Instant::now(), true);
        miner.tip = Some(prepared.template.parent);
        miner.start(0, prepared.clone());
        take_away(&mut miner);
        assert!(miner.dispatcher.follow().borrow().job.is_none());
        let finder = Stats::new().device("machine");
        miner.found(&block(&prepared, &finder));
        assert_eq!(finder.snapshot().counts.stale, 0);
        let found = folder.path().join("found");
        while std::fs::read_dir(&found).unwrap().next().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn the_last_work_is_taken_for_dead_also_where_a_node_is_in_use_that_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut miner = miner(folder.path());
    let now = Instant::now();
    let offered = |index, received| {
        let (template, tip) = (template(7), tip(6, 0));
        let licenses = vec![license(String::new())];
        Event::Offer(index, Box::new(Offer { template, licenses, tip, received }))
    };
    let long_ago = now.checked_sub(NO_NODE_PATIENCE).unwrap();
    miner.on_event(offered(0, now));
    miner.on_event(offered(1, now));
    miner.tick(&mut JoinSet::new());
    assert!(miner.working && miner.nodes.in_use() == Some(0), "it is new");
    // The other one is asked, and has a while to answer.
    miner.last_offer = long_ago;
    for _ in 0..3 {
        miner.tick(&mut JoinSet::new());
        assert!(miner.working && miner.nodes.in_use() == Some(1));
    }
    miner.last_offer = long_ago;
    miner.tick(&mut JoinSet::new());
    assert!(!miner.working && miner.dispatcher.follow().borrow().job.is_none());
    assert_eq!(miner.nodes.in_use(), None);
    // It answers again, on the same tip.
    miner.on_event(offered(0, now));
    assert!(miner.working && miner.dispatcher.follow().borrow().job.is_some());
}

#[tokio::test]
async fn a_node_with_less_work_is_used_as_soon_as_the_last_work_does_not_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut miner = miner(folder.path());
    let now = Instant::now();
    miner.nodes.up(0, tip(7, 0), now);
    miner.nodes.up(1, tip(6, 0), now);
    miner.decide(now);
    let prepared = miner.maker.make(template(7), 0, now, true);
    miner.tip = Some(prepared.template.parent);
    miner.start(0, prepared);
    let gone = Trouble::from(RpcError::Unreachable("gone".into()));
    miner.on_event(Event::Lost(0, gone));
    miner.tick(&mut JoinSet::new());
    assert_eq!(miner.nodes.in_use(), None, "the last work goes on");
    // As after a block was found.
    miner.rest();
    miner.tick(&mut JoinSet::new());
    assert_eq!(miner.nodes.in_use(), Some(1));
    // It stays in use when there is work again.
    miner.working = true;
    miner.decide(now);
    assert_eq!(miner.nodes.in_use(), Some(1));
}

#[tokio::test]
async fn a_spare_node_that_is_wrong_ends_the_miner_at_the_start_and_is_left_when_another_has_worked_for_long()
{
    let wrong: fn() -> Trouble = || {
        let expected = ChainIdentity::of(&Params::devnet());
        let found = ChainIdentity { name: "other".into(), ..expected.clone() };
        Trouble::from(ChainError::Wrong { found, expected })
    };
    for trouble in [wrong, || Trouble::from(RpcError::Unauthorized)] {
        for (works, after, ends) in [
            (true, START, false),
            (true, START / 2, true),
            (false, START / 2, true),
            (false, 9 * START, true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut miner = miner(folder.path());
            let (failed, mut failure) = oneshot::channel();
            miner.failed = Some(failed);
            if works {
                miner.nodes.up(0, tip(5, 0), miner.started);
            }
            miner.lost(1, &trouble(), miner.started + after);
            assert_eq!(failure.try_recv().is_ok(), ends, "{works} {after:?}");
            let is_away = matches!(&miner.board.sources()[1].condition, Condition::Away(_));
            assert_eq!(is_away, !ends, "{works} {after:?}");
        }
    }
}
