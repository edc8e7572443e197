//! Found blocks: how long they are kept, and the states that the nodes' answers lead to.

#![allow(clippy::unwrap_used)]
use std::path::Path;

use super::*;
use iop_consensus::params::Params;
use iop_mining::rpc::NodeAddress;

use crate::ledger::writer::Writer;
use crate::spool::tests::{fill, found};

#[tokio::test(flavor = "multi_thread")]
async fn while_no_node_answers_few_blocks_of_a_height_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = Node::new(NodeAddress::parse("http://u:p@127.0.0.1:1", None, 1).unwrap());
    let chain = ChainIdentity::of(&Params::devnet());
    let spool = Spool::open(folder.path()).unwrap();
    let blocks = Blocks::new(Arc::from([nobody]), spool, chain, crate::ledger::tests::temporary());
    for nonce in 0..MAX_PENDING as u32 + 5 {
        blocks.deliver(found(7, nonce));
    }
    blocks.deliver(found(8, 1000));
    assert_eq!(blocks.records().len(), MAX_PENDING + 1);
    assert_eq!(blocks.spool.load().unwrap().0.len(), MAX_PENDING + 1, "on disk when deliver returns");
    blocks.finish(Duration::from_millis(10)).await;
    assert_eq!(blocks.spool.load().unwrap().0.len(), MAX_PENDING + 1, "and stays there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocks_file_stays_until_the_ledger_has_the_block() {
    let folder = tempfile::tempdir().unwrap();
    let chain = ChainIdentity::of(&Params::devnet());
    let ledger = crate::ledger::tests::temporary();
    let spool = Spool::open(folder.path()).unwrap();
    // No nodes, so all have answered at once.
    let blocks = Blocks::new(Arc::from([]), spool, chain, Arc::clone(&ledger));
    let mut block = found(7, 1);
    let record = crate::ledger::tests::record(&ledger, 7, &block.hash);
    block.record = Some(record.entry());
    ledger.announce(Arc::new(record.clone()));
    blocks.deliver(block);
    blocks.finish(STORED_POLL * 2).await;
    assert_eq!(blocks.spool.load().unwrap().0.len(), 1);
    // Killed and restarted before the log had it.
    let ledger = crate::ledger::tests::temporary();
    let chain = ChainIdentity::of(&Params::devnet());
    let again = Blocks::new(Arc::from([]), blocks.spool.clone(), chain, Arc::clone(&ledger));
    again.resume().unwrap();
    assert!(ledger.has_stored(&record.id));
    again.finish(Duration::from_secs(60)).await;
    assert_eq!(again.spool.load().unwrap().0.len(), 0);
}

/// Captures log output as one text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stand(datadir: &Path) -> (Arc<Blocks>, Arc<Ledger>) {
    let ledger = crate::ledger::tests::temporary();
    let chain = ChainIdentity::of(&Params::devnet());
    let spool = Spool::open(datadir).unwrap();
    (Blocks::new(Arc::from([]), spool, chain, Arc::clone(&ledger)), ledger)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_no_disk_took_is_put_back_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (blocks, ledger) = stand(folder.path());
    fill(folder.path(), 1000); // the reserve does not help then
    let mut block = found(7, 1);
    block.worker = "with \"quotes\" and é".into();
    let record = crate::ledger::tests::record(&ledger, 7, &block.hash);
    block.record = Some(record.entry());
    let log = Log::default();
    let writer = {
        let log = log.clone();
        move || log.clone()
    };
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    tracing::subscriber::with_default(subscriber, || blocks.deliver(block.clone()));
    assert_eq!(ledger.off_disk(), [record.id]);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = log.lines().find(|line| line.contains("found block cannot be written")).unwrap();
    assert!(line.contains("ERROR"), "{line}");
    let (name, text) = line.split_once(" put it into ").unwrap().1.split_once(": ").unwrap();

    // As if the pool ended and an operator made room and restored the block's file.
    let folder = tempfile::tempdir().unwrap();
    let (blocks, ledger) = stand(folder.path());
    std::fs::write(folder.path().join(name), text).unwrap();
    blocks.resume().unwrap();
    assert!(ledger.has_stored(&record.id));
    assert_eq!(blocks.records()[0].worker, block.worker);
}

/// A pipe that nobody reads, in the file's place, stands for a disk that hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_holds_up_no_block_and_its_share_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://u:p@{}", listener.local_addr().unwrap());
    let node = Node::new(NodeAddress::parse(&url, None, 1).unwrap());
    let (chain, spool) = (ChainIdentity::of(&Params::devnet()), Spool::open(folder.path()).unwrap());
    let blocks = Blocks::new(Arc::from([node]), spool, chain, crate::ledger::tests::temporary());
    let block = found(7, 1);
    let place = folder.path().join(format!("found/7-{}.json", block.hash));
    let [first, second] = ["tmp", "tmp2"].map(|end| place.with_extension(end));
    for path in [&first, &second] {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).unwrap();
    }
    let delivered = tokio::spawn({
        let (blocks, block) = (Arc::clone(&blocks), block.clone());
        async move { blocks.deliver(block) }
    });
    let asked = tokio::time::timeout(Duration::from_secs(20), listener.accept()).await;
    let is_answered = delivered.is_finished();
    let mut disk = std::fs::File::open(&second).unwrap();
    for path in [&first, &second] {
        std::fs::remove_file(path).unwrap();
    }
    io::copy(&mut disk, &mut io::sink()).unwrap();
    assert!(delivered.await.unwrap());
    assert!(asked.is_ok(), "a node was asked while the disk hung");
    assert!(!is_answered, "and the share was not answered then");
    assert_eq!(blocks.spool.load().unwrap().0, [(place, block)], "it is on the disk in the end");
}

/// A pool whose ledger is in the same folder as its blocks.
fn whole(datadir: &Path) -> (Arc<Blocks>, Arc<Ledger>, Writer) {
    let (ledger, writer) = crate::ledger::tests::open(datadir);
    let chain = ChainIdentity::of(&Params::devnet());
    let spool = Spool::open(datadir).unwrap();
    (Blocks::new(Arc::from([]), spool, chain, Arc::clone(&ledger)), ledger, writer)
}

/// A found block that the ledger has been told of.
fn announced(ledger: &Ledger) -> (Found, crate::ledger::book::Record) {
    let mut block = found(7, 1);
    let record = crate::ledger::tests::record(ledger, 7, &block.hash);
    block.record = Some(record.entry());
    ledger.announce(Arc::new(record.clone()));
    (block, record)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_no_disk_took_keeps_the_next_run_from_paying_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let (blocks, ledger, writer) = whole(folder.path());
    let (block, record) = announced(&ledger);
    fill(folder.path(), 1000);
    ledger.fill_disk(true);
    blocks.deliver(block.clone());
    // Killed, and started again where there is room: neither a file nor the ledger has the block.
    blocks.finish(Duration::ZERO).await;
    writer.close();
    drop((blocks, ledger));
    std::fs::remove_file(folder.path().join("found/0.txt")).unwrap();
    let (blocks, ledger, writer) = whole(folder.path());
    let error = blocks.resume().unwrap_err().to_string();
    assert!(
        error.contains(&format!("{} at height 7", block.hash)) && error.contains("put it back"),
        "{error}"
    );
    assert!(!error.contains('\n') && !error.contains("  "), "{error}");
    // An operator puts it back.
    let text = serde_json::to_string(&block).unwrap();
    std::fs::write(folder.path().join(format!("found/7-{}.json", block.hash)), text).unwrap();
    blocks.resume().unwrap();
    assert!(ledger.has_stored(&record.id));
    assert_eq!(ledger.off_disk(), []);
    writer.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_no_disk_took_is_written_as_soon_as_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let (blocks, ledger, writer) = whole(folder.path());
    let (block, record) = announced(&ledger);
    fill(folder.path(), 1000);
    blocks.deliver(block.clone());
    assert_eq!((ledger.off_disk(), blocks.spool.load().unwrap().0.len()), (vec![record.id], 0));
    std::fs::remove_file(folder.path().join("found/0.txt")).unwrap();
    let written = async {
        while !ledger.off_disk().is_empty() {
            tokio::time::sleep(STORED_POLL).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
    assert_eq!(blocks.spool.load().unwrap().0[0].1, block);
    writer.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_found_block_that_cannot_be_read_keeps_the_pool_from_paying_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let (blocks, ledger) = stand(folder.path());
    let mut block = found(7, 1);
    block.record = Some(crate::ledger::tests::record(&ledger, 7, &block.hash).entry());
    std::fs::write(folder.path().join("found/6-ab.json"), "{").unwrap();
    blocks.deliver(block.clone());
    let (blocks, ledger) = stand(folder.path());
    let error = blocks.resume().unwrap_err().to_string();
    assert!(error.contains("found/6-ab.json") && error.contains("move it away"), "{error}");
    assert!(!error.contains('\n') && !error.contains("  "), "{error}");
    assert!(ledger.has_block(&block.record.unwrap().id), "the others are taken");
    assert_eq!(
        blocks.records().iter().map(|sent| &sent.hash).collect::<Vec<_>>(),
        [&block.hash],
        "and handed in"
    );
    std::fs::rename(folder.path().join("found/6-ab.json"), folder.path().join("6-ab.json")).unwrap();
    blocks.resume().unwrap();
    std::fs::remove_dir_all(folder.path().join("found")).unwrap();
    let error = blocks.resume().unwrap_err().to_string();
    assert!(error.contains("found blocks of earlier runs cannot be read"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_without_a_block_that_another_stands_on_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let (blocks, ledger) = stand(folder.path());
    let [low, high] = [1, 2].map(|nonce| found(nonce, nonce).hash);
    let below = crate::ledger::tests::record(&ledger, 7, &low);
    let mut above = crate::ledger::tests::record(&ledger, 9, &high);
    above.facts.base = Some(below.id);
    ledger.adopt(&above).unwrap();
    let error = blocks.resume().unwrap_err().to_string();
    assert!(
        error.contains(&format!("block {high} at height 9 stands on block {low} at height 7")),
        "{error}"
    );
    assert!(!error.contains('\n') && !error.contains("  "), "{error}");
    ledger.adopt(&below).unwrap();
    blocks.resume().unwrap();
}

#[test]
fn a_silent_node_is_given_up_only_when_another_has_taken_the_block() {
    let late = PATIENCE + Duration::from_secs(1);
    for (status, given_up) in
        [(Status::Pending, false), (Status::Refused, false), (Status::Side, true), (Status::Accepted, true)]
    {
        assert_eq!(may_give_up(late, Some(status)), given_up, "{status:?}");
        assert!(!may_give_up(PATIENCE, Some(status)));
    }
}

#[test]
fn a_block_that_the_chain_has_gone_past_is_stale_and_no_more_is_asked() {
    for (before, place, depth, after) in [
        (Status::Pending, Place::Unknown, 5, Status::Pending),
        (Status::Pending, Place::Unknown, 6, Status::Stale),
        (Status::Side, Place::Side, 6, Status::Stale),
        (Status::Accepted, Place::Side, 1, Status::Side),
        (Status::Accepted, Place::Unknown, 1, Status::Accepted),
        (Status::Accepted, Place::Unknown, 6, Status::Stale),
        (Status::Side, Place::Active, 1, Status::Accepted),
        (Status::Pending, Place::Active, 9, Status::Accepted),
        (Status::Refused, Place::Unknown, 9, Status::Refused),
    ] {
        assert_eq!(reviewed(before, place, depth), after, "{before:?} {place:?} {depth}");
    }
    assert!(may_give_up(Duration::ZERO, Some(Status::Stale)));
}

#[test]
fn the_best_answer_of_all_nodes_is_the_blocks_status() {
    assert_eq!(["accepted", "duplicate"].map(status), [Status::Accepted; 2]);
    assert_eq!(["inconclusive", "duplicate-inconclusive"].map(status), [Status::Side; 2]);
    assert_eq!(["high-hash", "bad-CAP-miner", "duplicate-invalid"].map(status), [Status::Refused; 3]);
    assert_eq!([Status::Refused, Status::Accepted, Status::Side].into_iter().max(), Some(Status::Accepted));
    assert!(Status::Pending < Status::Refused);
}
