//! What people are shown of the pool's blocks and of theirs.

use super::*;
use crate::ledger::views::MAX_BLOCKS;

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

#[test]
fn csv_has_all_blocks_and_whose_each_line_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), Rules { min_payout: 400_000, ..rules() });
    let (count, mut base) = (MAX_BLOCKS as u32 + 3, None);
    for number in 0..count {
        pool.share((number % 3) as u8, 1.0, 1, None);
        base = Some(pool.block(base, 1, 1_000_000));
    }
    pool.stand_on(base);
    let mut parts = Vec::new();
    let take = |part| {
        parts.push(part);
        true
    };
    pool.ledger.payouts_csv(0..u32::MAX, count + 1, take).unwrap();
    assert!(parts.len() > 1, "it comes in parts");
    let csv = parts.concat();
    assert!(csv.starts_with("height,hash,time,state,license,finder,address,amount,role,reward,fee\n"));
    let lines: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let mut expected = (1..=count).rev();
    for block in lines.chunk_by(|one, other| one[0] == other[0]) {
        assert_eq!(block[0][0].parse::<u32>().ok(), expected.next());
        assert!(block.iter().all(|line| line[9] == "1000000" && line[10] == "10000"), "{block:?}");
        assert_eq!(block.iter().map(|line| line[7].parse::<u64>().unwrap()).sum::<u64>(), 1_000_000);
        let chapter = member(200).to_base58(&prefixes());
        assert!(block.iter().all(|line| (line[8] == "chapter") == (line[6] == chapter)), "{block:?}");
    }
    assert_eq!(expected.next(), None, "down to the first");
    let mut taken = 0;
    let take = |_| {
        taken += 1;
        false
    };
    pool.ledger.payouts_csv(0..u32::MAX, count + 1, take).unwrap();
    assert_eq!(taken, 1, "who has gone away gets no more");
    // Pieces of any heights make the whole.
    let lines_of = |heights| {
        let mut csv = String::new();
        let take = |part: String| {
            csv.push_str(&part);
            true
        };
        pool.ledger.payouts_csv(heights, count + 1, take).unwrap();
        csv.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let pieces = [120..u32::MAX, 119..120, 50..119, 50..50, 0..50].map(lines_of);
    assert!(pieces[1].iter().all(|line| line.starts_with("119,")) && !pieces[1].is_empty());
    assert_eq!(pieces.concat(), lines_of(0..u32::MAX));
    let json = serde_json::to_value(pool.ledger.payouts(count + 1).unwrap()).unwrap();
    assert_eq!(json["blocks"].as_array().unwrap().len(), MAX_BLOCKS, "the latest");
    pool.close();
}
