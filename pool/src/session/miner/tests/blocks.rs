//! Blocks that miners find, and shares that come too often or too late in time.

use iop_consensus::header::MAX_FUTURE_BLOCK_TIME;

use super::*;
use crate::ledger::store::BlockId;

/// Finds a nonce at this time whose hash is, or is not, a block.
fn solve_at(job: &Job, extranonce1: Extranonce1, ntime: NTime, is_block: bool) -> (Nonce, [u8; 32]) {
    let (extranonce2, version) = (Extranonce2::from_counter(0, 8).unwrap(), Version(job.template.version));
    let hash = |nonce| sha256d(&job.work.header(&extranonce1, &extranonce2, version, ntime, Nonce(nonce)));
    let nonce = (0..).find(|&nonce| job.is_block(&hash(nonce)) == is_block).unwrap();
    (Nonce(nonce), hash(nonce))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_whose_time_is_ahead_is_delivered_and_is_its_finders() {
    let mut pool = Pool::new();
    let job = pool.job(template(4));
    let (mut miner, user) = (pool.ready(), pool.user());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let at = |ahead: u64| NTime(u32::try_from(now + ahead).unwrap());
    let extranonce1 = *miner.session.extranonce1();
    let mut submit = |ntime: NTime, is_block| {
        let (nonce, hash) = solve_at(&job, extranonce1, ntime, is_block);
        let params = json!([user, job.id.as_str(), "0".repeat(16), ntime.to_string(), nonce.to_string()]);
        let answers = say(&mut miner, json!({"id": 9, "method": "mining.submit", "params": params}));
        (answers[0]["result"] == true, hash)
    };
    assert!(!submit(at(3600), false).0, "no work is taken from so far ahead");
    assert!(!submit(at(2 * MAX_FUTURE_BLOCK_TIME), true).0, "nor a block that nodes refuse");
    let (is_taken, hash) = submit(at(3600), true);
    assert!(is_taken);
    let records = pool.shared.blocks.records();
    assert_eq!((records.len(), records[0].height, records[0].worker.as_str()), (1, 4, user.as_str()));
    let ledger = &pool.shared.ledger;
    assert!(ledger.has_stored(&BlockId { height: 4, hash: BlockHash::from_byte_array(hash) }));
    assert_eq!(ledger.log_state().logged, 1, "it is a share too");
    pool.shared.blocks.finish(std::time::Duration::from_secs(5)).await;
}
