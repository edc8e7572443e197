//! Work that the upstream repeats, and what a machine is not blamed for.

use std::collections::HashSet;

use iop_mining::bans::HOPELESS_RUN;
use iop_stratum::fields::{JobId, NBits, NTime};

use super::limits::Memory;
use super::*;
use crate::log::tests::Heard;
use crate::wall::WallClock;

/// The codes for the first `nonces` nonces.
fn codes(client: &mut Client, told: &Told, nonces: u32) -> Vec<u64> {
    (0..nonces).map(|nonce| client.submit(told, &[0; 4], told.ntime, nonce, None)).collect()
}

fn id(name: &str) -> impl FnOnce(&mut iop_stratum::client::Job) {
    let id = JobId::new(name).unwrap();
    move |job| Arc::make_mut(&mut job.notify).job_id = id
}

#[test]
fn a_share_of_work_that_the_upstream_sends_again_counts_once_and_goes_up_once() {
    for clean in [false, true] {
        let mut stand = Stand::with_job(8, 0, ANY_HASH);
        let (mut client, mut told) = stand.worker();
        let first = told.clone();
        assert_eq!(codes(&mut client, &first, 10), [0; 10]);
        for (number, name) in ["up-1", "another", "up-1"].into_iter().enumerate() {
            stand.repeat_job(|job| {
                id(name)(job);
                Arc::make_mut(&mut job.notify).clean = clean;
            });
            let said = stand.tell(&mut client);
            said.iter().for_each(|line| told.hear(line));
            assert_eq!(told.ntime, first.ntime + number as u32 + 1, "other headers than before");
            let old = Told { ntime: first.ntime, ..told.clone() };
            assert_eq!(codes(&mut client, &old, 10), [22; 10]);
            assert_eq!(codes(&mut client, &told, 10), [0; 10]);
        }
        assert_eq!(client.machine.shares().len(), 40);
        let headers: HashSet<_> = client.machine.shares().iter().map(Share::header).collect();
        assert_eq!(headers.len(), 40);
        assert_eq!(stand.shared.memory.taken(), 40);
    }
}

#[test]
fn work_that_comes_again_and_again_is_remembered_as_long_as_it_comes() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, first) = stand.worker();
    assert_eq!(codes(&mut client, &first, 10), [0; 10]);
    let mut told = first.clone();
    // More than are known even if they all come within a minute.
    for _ in 0..150 {
        stand.repeat_job(|_| ());
        let said = stand.tell(&mut client);
        said.iter().for_each(|line| told.hear(line));
    }
    let old = Told { ntime: first.ntime, ..told.clone() };
    assert_eq!(codes(&mut client, &old, 10), [22; 10]);
    assert_eq!(client.submit(&first, &[0; 4], first.ntime, 0, None), 21, "its job is forgotten");
    // The shares of a work are forgotten with its last job.
    for _ in 0..150 {
        stand.job(8, 0, ANY_HASH);
        stand.tell(&mut client);
    }
    assert_eq!(stand.shared.memory.taken(), 0);
}

#[test]
fn work_that_comes_again_has_other_headers_each_time_and_times_that_every_pool_takes() {
    let now = || WallClock::default().now() as u32;
    for (age, repeats) in [(200, 150), (0, 31)] {
        let mut stand = Stand::with_job(8, 0, ANY_HASH);
        stand.repeat_job(|job| Arc::make_mut(&mut job.notify).ntime = NTime(now() - age));
        let (mut client, mut told) = stand.worker();
        for _ in 0..repeats {
            stand.repeat_job(|_| ());
            let before = told.ntime;
            stand.tell(&mut client).iter().for_each(|line| told.hear(line));
            assert_eq!(told.ntime, before + 1);
        }
        for _ in 0..100 {
            stand.repeat_job(|_| ());
            stand.tell(&mut client).iter().for_each(|line| told.hear(line));
            assert!(told.ntime < now() + 32);
        }
    }
}

#[test]
fn a_machine_that_asks_for_its_work_again_is_excused_nothing() {
    let stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    assert_eq!(codes(&mut client, &told, 10), [0; 10]);
    client.machine.take_asked_for();
    client.say("mining.subscribe", &json!([]));
    assert_eq!(codes(&mut client, &told, 10), [22; 10]);
    assert_eq!(client.machine.take_asked_for(), 0);
}

#[test]
fn a_later_time_of_the_same_work_is_told_as_it_is() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, first) = stand.worker();
    stand.repeat_job(|job| Arc::make_mut(&mut job.notify).ntime = NTime(first.ntime + 30));
    let told = Told::of(&stand.tell(&mut client));
    assert_eq!(told.ntime, first.ntime + 30);
    // A header of the first job, with a time that the machine rolled, is also one of the second.
    assert_eq!(client.submit(&first, &[0; 4], first.ntime + 30, 7, None), 21, "stale, and sent up");
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 7, None), 22);
    assert_eq!(client.machine.shares().len(), 1);
}

#[test]
fn duplicates_of_work_that_was_given_out_again_are_no_fault_of_the_machine_and_others_are() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, mut told) = stand.worker();
    let first = told.clone();
    let shares = HOPELESS_RUN + 10;
    assert!(codes(&mut client, &first, shares).iter().all(|code| *code == 0));
    assert_eq!(client.machine.take_asked_for(), shares);
    stand.repeat_job(|_| ());
    stand.tell(&mut client).iter().for_each(|line| told.hear(line));
    let again = Told { ntime: first.ntime, ..told };
    assert!(codes(&mut client, &again, shares).iter().all(|code| *code == 22));
    assert_eq!((client.machine.take_asked_for(), client.machine.is_hopeless()), (shares, false));
    assert!(codes(&mut client, &again, shares).iter().all(|code| *code == 22));
    assert_eq!((client.machine.take_asked_for(), client.machine.is_hopeless()), (0, true));
}

#[test]
fn shares_that_find_no_room_are_no_fault_of_the_machine() {
    let mut stand = Stand::new();
    Arc::get_mut(&mut stand.shared).unwrap().memory = Arc::new(Memory::new(8));
    stand.job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    let (taken, shares) = (10, HOPELESS_RUN + 100);
    let codes = codes(&mut client, &told, shares);
    assert!(codes[..taken].iter().all(|code| *code == 0) && codes[taken..].iter().all(|code| *code == 20));
    assert!(!client.machine.is_hopeless());
    assert_eq!(client.machine.take_asked_for(), shares);
    let counts = stand.shared.stats.snapshot().counts;
    assert_eq!(counts.rejected["at the gateway: too many (20)"], u64::from(shares) - taken as u64);
}

#[test]
fn a_block_goes_up_also_where_there_is_no_room_for_its_share() {
    for (nbits, goes_up) in [(0x1d00_ffff, false), (0x2100_ffff, true)] {
        let mut stand = Stand::new();
        Arc::get_mut(&mut stand.shared).unwrap().memory = Arc::new(Memory::new(0));
        stand.changed_job(8, 0, ANY_HASH, |job| Arc::make_mut(&mut job.notify).nbits = NBits(nbits));
        let (mut client, told) = stand.worker();
        assert_eq!(codes(&mut client, &told, 1), [20]);
        assert_eq!(client.machine.shares().len(), usize::from(goes_up));
    }
}

#[test]
fn figures_tell_shares_that_were_taken_from_late_ones_that_went_up_besides() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    assert_eq!(codes(&mut client, &told, 3), [0; 3]);
    stand.job(8, 0, 1.0);
    let hard = Told::of(&stand.tell(&mut client));
    let late = Told { ntime: told.ntime, job: told.job.clone(), ..hard.clone() };
    assert_eq!(
        (10..15).map(|nonce| client.submit(&late, &[0; 4], late.ntime, nonce, None)).collect::<Vec<_>>(),
        [21; 5]
    );
    let good = (0..3000).filter(|nonce| client.submit(&hard, &[0; 4], hard.ntime, *nonce, None) == 0).count();
    assert!(good > 0, "one in 256");
    let expected = format!(
        "1 connections; {} shares of machines taken, 3 of them sent up; 5 late ones sent up besides",
        3 + good
    );
    assert_eq!(Figures::of(&stand.shared).to_string(), expected);
    assert_eq!(client.machine.shares().len(), 8);
}

#[test]
fn jobs_that_cannot_be_shared_are_logged_once_in_a_while_however_they_alternate() {
    let log = Heard::begin();
    let mut stand = Stand::new();
    for _ in 0..50 {
        stand.job(0, 0, 1.0);
        stand.job(1, 0, 1.0);
        stand.job(8, 0, 1.0);
    }
    assert_eq!(log.lines("no work for machines"), 1, "{}", log.text());
}
