//! Blocks in flight: where they are stored, how often they are counted, how long nodes are retried.

#![allow(clippy::unwrap_used)]

use iop_consensus::params::Params;
use iop_mining::rpc::NodeAddress;

use super::*;
use crate::log::tests::Heard;
use crate::stats::Stats;

fn found(chain: &str, nonce: u32) -> Found {
    let mut block = Params::devnet().genesis.block().clone();
    block.header.nonce = nonce;
    Found {
        chain: chain.into(),
        height: 7,
        hash: block.block_hash().to_string(),
        license: "license".into(),
        block: bitcoin::consensus::encode::serialize_hex(&block),
    }
}

fn deliveries(datadir: &Path, nodes: usize) -> (Arc<Deliveries>, mpsc::UnboundedReceiver<News>) {
    let nobody = || Node::new(NodeAddress::parse("http://u:p@127.0.0.1:1", None, 1).unwrap());
    let nodes: Arc<[Node]> = (0..nodes).map(|_| nobody()).collect();
    let board = Arc::new(Board::new([]));
    let chain = ChainIdentity::of(&Params::devnet());
    Deliveries::new(nodes, datadir, chain, board, Duration::from_millis(50)).unwrap()
}

fn files(datadir: &Path) -> usize {
    std::fs::read_dir(datadir.join("found")).unwrap().count()
}

#[test]
fn a_block_knows_its_parent_and_its_difficulty() {
    let block = Params::devnet().genesis.block().clone();
    assert_eq!(found("x", 1).parent(), Some(block.header.prev_blockhash));
    let expected = block.header.target().difficulty_float();
    assert!((difficulty(&found("x", 1)) / expected - 1.0).abs() < 1e-6);
    let short = Found { block: "00".into(), ..found("x", 1) };
    assert_eq!((short.parent(), difficulty(&short)), (None, 0.0));
}

#[tokio::test]
async fn a_block_that_no_node_answers_stays_on_disk_and_is_taken_up_by_the_next_run_of_its_chain() {
    let folder = tempfile::tempdir().unwrap();
    let chain = ChainIdentity::of(&Params::devnet()).to_string();
    let (first, _news) = deliveries(folder.path(), 1);
    first.deliver(found(&chain, 1), None, None);
    first.deliver(found("another", 2), None, None);
    first.finish(Duration::from_secs(1)).await;
    // Its tasks are aborted, and release the folder when they are polled next.
    let gone = Arc::downgrade(&first);
    drop(first);
    while gone.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(files(folder.path()), 2);
    // A run without nodes: all have answered at once.
    let (second, mut news) = deliveries(folder.path(), 0);
    assert_eq!(second.resume(), [found(&chain, 1).parent().unwrap()]);
    assert_eq!(news.recv().await.unwrap().fate, Fate::Unheard);
    second.finish(Duration::from_secs(60)).await;
    assert_eq!(files(folder.path()), 1, "the other chain's block stays");
}

#[tokio::test]
async fn a_block_is_counted_once_for_its_finder() {
    let folder = tempfile::tempdir().unwrap();
    let cpu = Stats::new().device("cpu");
    for fate in [Fate::Accepted, Fate::Stale, Fate::Refused("bad-CB-miner".into()), Fate::Unheard] {
        count(Some(&cpu), &fate, &found("x", 1));
    }
    let counts = cpu.snapshot().counts;
    assert_eq!((counts.accepted, counts.stale, counts.refused()), (1, 2, 1));
    let (none, mut news) = deliveries(folder.path(), 0);
    none.deliver(found("x", 1), None, Some(Arc::clone(&cpu)));
    assert!(news.recv().await.unwrap().node.is_none());
    assert_eq!(cpu.snapshot().counts.stale, 3);
}

#[test]
fn nodes_words_have_their_meaning() {
    for (answer, fate) in [
        ("accepted", Fate::Accepted),
        ("duplicate", Fate::Accepted),
        ("inconclusive", Fate::Stale),
        ("duplicate-inconclusive", Fate::Stale),
        ("bad-CAP-miner", Fate::Refused("bad-CAP-miner".into())),
        ("duplicate-invalid", Fate::Refused("duplicate-invalid".into())),
        ("a\u{1b}[2Jb", Fate::Refused("a[2Jb".into())),
    ] {
        assert_eq!(Fate::of(answer), fate);
    }
    assert!(Fate::Accepted > Fate::Stale && Fate::Stale > Fate::of("x") && Fate::of("x") > Fate::Unheard);
}

#[test]
fn a_node_that_is_away_is_asked_until_the_block_is_decided_without_it() {
    let (short, long) = (Duration::from_secs(1), PATIENCE + Duration::from_secs(1));
    for (asked_for, depth, taken, expected) in [
        (short, 0, false, false),
        (long, 5, false, false),
        (short, 6, false, false),
        (long, 6, false, true),
        (short, 0, true, false),
        (short, 6, true, true),
        (long, 0, true, true),
    ] {
        assert_eq!(may_give_up(asked_for, depth, taken), expected, "{asked_for:?} {depth} {taken}");
    }
}

/// Fills the folder, so that it takes no further block; returns one of the files in it.
fn fill(datadir: &Path) -> PathBuf {
    let file = |number: u32| datadir.join("found").join(format!("{number}.other"));
    (0..1000).for_each(|number| drop(File::create(file(number)).unwrap()));
    file(0)
}

/// Waits until a condition holds.
async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_block_that_the_disk_refuses_is_in_the_log_and_on_disk_as_soon_as_there_is_room() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Heard::begin());
    let chain = ChainIdentity::of(&Params::devnet()).to_string();
    let (deliveries, _news) = deliveries(folder.path(), 1);
    let in_the_way = fill(folder.path());
    let block = found(&chain, 1);
    deliveries.deliver(block.clone(), None, None);
    until(|| log.lines("found block cannot be written to disk") > 0).await;
    let name = format!("found/7-{}.json", block.hash);
    let put = format!("put it into {name}: {}", serde_json::to_string(&block).unwrap());
    assert_eq!((log.lines(&put), folder.path().join(&name).exists()), (1, false));
    std::fs::remove_file(in_the_way).unwrap();
    until(|| folder.path().join(&name).exists()).await;
    until(|| log.lines("on disk now") > 0).await;
    deliveries.finish(Duration::ZERO).await;
    assert_eq!(log.lines("on disk and will be submitted at the next start"), 1, "{}", log.text());
    assert_eq!(log.lines("cannot be written"), 1, "once is enough");
    assert_eq!(log.lines(crate::log::WHOLE), 1, "so that it is not cut, and has room");
}

#[tokio::test]
async fn the_last_words_do_not_say_of_a_block_that_it_is_on_disk_where_it_is_not() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Heard::begin());
    let chain = ChainIdentity::of(&Params::devnet()).to_string();
    let (deliveries, _news) = deliveries(folder.path(), 1);
    let in_the_way = fill(folder.path());
    let (lost, kept) = (found(&chain, 1), found(&chain, 2));
    deliveries.deliver(lost.clone(), None, None);
    until(|| log.lines("cannot be written") > 0).await;
    deliveries.deliver(kept.clone(), Some(in_the_way), None); // of an earlier run
    deliveries.finish(Duration::ZERO).await;
    let said = |hash: &str, words: &str| {
        log.text().lines().filter(|line| line.contains(hash) && line.contains(words)).count()
    };
    assert_eq!(said(&lost.hash, "it is on disk"), 0);
    assert_eq!(said(&lost.hash, "it is not on disk: only this log has it"), 1, "{}", log.text());
    assert_eq!(said(&kept.hash, "it is on disk"), 1);
}
