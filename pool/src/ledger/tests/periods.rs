//! Reports on periods: each thing is counted once, and the balances of one period lead to those of the next.

use std::ops::Range;

use super::*;
use crate::ledger::report::{Line, report, to_csv};
use crate::ledger::views::Role;

const REWARD: u64 = 999_999;

fn reported(folder: &Path, time: &Range<u64>) -> Vec<Line> {
    report(&Store::open_to_read(folder).unwrap(), &prefixes(), time).unwrap()
}

/// The line of an address; an empty one for who has none.
fn line(lines: &[Line], address: Address, role: Role) -> Line {
    let address = address.to_base58(&prefixes());
    lines.iter().find(|line| line.address == address && line.role == role).cloned().unwrap_or_default()
}

#[test]
fn consecutive_periods_count_each_thing_once_and_join_to_the_last_unit() {
    let folder = tempfile::tempdir().unwrap();
    let rules = Rules { fee: 20_000, min_payout: 400_000, ..rules() };
    let (mut pool, mut base) = (Pool::open(folder.path(), rules), None);
    // Two blocks at a boundary, and one after the clock was set back over another: it counts with the one below it.
    for (finder, clock) in (0..).zip([10, 20, 20, 30, 45, 40, 60]) {
        (0..4).for_each(|number| pool.share(number % 3, 1.0, 1, None));
        pool.clock = clock;
        base = Some(pool.block(base, finder % 3, REWARD));
    }
    pool.stand_on(base);
    pool.close();
    let whole = reported(folder.path(), &(0..u64::MAX));
    let periods = [0..20, 20..30, 30..45, 45..u64::MAX].map(|period| reported(folder.path(), &period));
    for number in 0..3 {
        let (all, mut sum) = (line(&whole, member(number), Role::Member), Line::default());
        assert!(all.opening == 0 && all.earned > 0 && all.paid > 0, "{all:?}");
        for period in &periods {
            let part = line(period, member(number), Role::Member);
            assert_eq!(part.opening, sum.balance, "as the period before has left it");
            assert_eq!(part.opening + part.earned, part.paid + part.balance, "{part:?}");
            sum.shares += part.shares;
            sum.blocks += part.blocks;
            sum.earned += part.earned;
            sum.paid += part.paid;
            sum.balance = part.balance;
        }
        assert_eq!(
            (sum.shares, sum.blocks, sum.earned, sum.paid, sum.balance),
            (all.shares, all.blocks, all.earned, all.paid, all.balance)
        );
    }
    for (lines, blocks) in periods.iter().chain([&whole]).zip([1, 2, 1, 3, 7]) {
        let chapter = line(lines, member(200), Role::Chapter);
        let sum = |of: fn(&Line) -> u64| lines.iter().map(of).sum::<u64>();
        assert_eq!(chapter.blocks, blocks, "{chapter:?}");
        assert_eq!(chapter.fees + sum(|line| line.earned), REWARD * blocks, "all is credited");
        assert_eq!(chapter.chapter + sum(|line| line.paid), REWARD * blocks, "all is paid");
        let (opening, balance) = (sum(|line| line.opening), sum(|line| line.balance));
        assert_eq!(chapter.chapter + opening, chapter.fees + balance, "the chapter holds what is carried");
    }
    let (csv, chapter) = (to_csv(&whole), line(&whole, member(200), Role::Chapter));
    assert!(csv.starts_with("address,shares,work,blocks,earned,paid,balance,opening,role,fees,chapter\n"));
    let last = format!("{},0,0,7,0,0,0,0,chapter,{},{}", chapter.address, chapter.fees, chapter.chapter);
    assert_eq!(csv.lines().last(), Some(&last[..]));
}

#[test]
fn a_block_that_has_left_the_chain_is_in_no_report() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), Rules { min_payout: 400_000, ..rules() });
    (0..6).for_each(|number| pool.share(number % 3, 1.0, 1, None));
    let first = pool.block(None, 0, REWARD);
    pool.block(Some(first), 1, REWARD);
    pool.stand_on(Some(first));
    let carried: u64 = pool.ledger.store().carried(&first).unwrap().values().sum();
    pool.close();
    let lines = reported(folder.path(), &(0..u64::MAX));
    assert_eq!(line(&lines, member(200), Role::Chapter).blocks, 1);
    assert_eq!(lines.iter().map(|line| line.balance).sum::<u64>(), carried);
    let later = reported(folder.path(), &(6..u64::MAX));
    assert!(later.iter().all(|line| line.blocks == 0 && line.opening == line.balance), "{later:?}");
}
