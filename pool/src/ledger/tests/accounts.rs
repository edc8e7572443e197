//! What members are shown of their blocks.

use super::*;

#[test]
fn a_members_account_counts_all_blocks_and_lists_the_latest() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    let mut base = None;
    for _ in 0..5 {
        pool.share(1, 1.0, 1, None);
        base = Some(pool.block(base, 1, 1_000_000));
    }
    pool.stand_on(base);
    let account = |limit| pool.ledger.member(&member(1), 9, 1000, limit).unwrap();
    for (limit, listed) in [(2, 2), (usize::MAX, 5)] {
        let (json, csv) = (serde_json::to_value(account(limit)).unwrap(), account(limit).to_csv());
        assert_eq!((&json["blocks_in_all"], &json["blocks"][0]["height"]), (&5.into(), &5.into()));
        assert_eq!((json["blocks"].as_array().unwrap().len(), csv.lines().count()), (listed, listed + 1));
    }
    pool.close();
}
