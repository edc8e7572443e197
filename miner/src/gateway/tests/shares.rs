//! Handling of machines' shares, and crediting.

use std::collections::HashSet;

use iop_stratum::fields::NTime;
use proptest::prelude::*;

use super::limits::Memory;
use super::*;
use crate::wall::WallClock;

#[test]
fn every_refusal_has_its_code_and_is_counted() {
    let stand = Stand::with_job(8, 0x0000_6000, 1.0);
    let mut stranger = stand.connect();
    assert_eq!(stranger.submit(&Told::default(), &[0; 4], 0, 0, None), 25);
    let (mut client, told) = stand.worker();
    let nobody = client.say("mining.submit", &json!(["b", told.job, "00000000", "00000000", "00000000"]));
    assert_eq!(nobody[0]["error"][0], 24);
    let unknown = Told { job: "none".into(), ..told.clone() };
    assert_eq!(client.submit(&unknown, &[0; 4], told.ntime, 0, None), 21);
    let codes: Vec<u64> =
        (0..3000).map(|nonce| client.submit(&told, &[0; 4], told.ntime, nonce, None)).collect();
    let good = codes.iter().position(|code| *code == 0).unwrap() as u32;
    assert!(codes.iter().all(|code| [0, 23].contains(code)));
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, good, None), 22);
    assert_eq!(client.submit(&told, &[0; 5], told.ntime, 0, None), 20, "width");
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 0, Some(0x8000)), 20, "outside the mask");
    assert_eq!(client.submit(&told, &[0; 4], told.ntime - 1, 0, None), 20, "before the job");
    assert_eq!(client.submit(&told, &[0; 4], u32::MAX, 0, None), 20, "far ahead");
    let counts = stand.shared.stats.snapshot().counts;
    assert_eq!(counts.stale, 1);
    let rejected = |reason: &str| counts.rejected[&format!("at the gateway: {reason}")];
    assert_eq!(rejected("duplicate (22)"), 1);
    assert_eq!(rejected("malformed (20)"), 4);
    assert_eq!(rejected("low difficulty (23)"), codes.iter().filter(|code| **code == 23).count() as u64);
}

#[test]
fn shares_of_many_jobs_count_when_they_all_came_within_a_minute() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    for _ in 0..100 {
        stand.changed_job(8, 0, ANY_HASH, |job| Arc::make_mut(&mut job.notify).clean = false);
        stand.tell(&mut client);
    }
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 0, None), 0);
    for _ in 0..100 {
        stand.changed_job(8, 0, ANY_HASH, |job| Arc::make_mut(&mut job.notify).clean = false);
        stand.tell(&mut client);
    }
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, None), 21, "a flood of them is bounded");
}

#[test]
fn a_machines_hashes_are_what_its_shares_are_worth() {
    let stand = Stand::with_job(8, 0, 1.0);
    let (mut client, told) = stand.worker();
    let good = (0..2000).filter(|nonce| client.submit(&told, &[0; 4], told.ntime, *nonce, None) == 0).count();
    let hashes = stand.shared.stats.snapshot().devices[0].hashes as f64;
    assert!(
        good > 0 && (hashes - 256.0 * good as f64).abs() <= good as f64,
        "{good} shares, {hashes} hashes"
    );
}

#[test]
fn machines_of_one_name_are_told_apart_and_forgotten_when_they_leave() {
    let stand = Stand::with_job(8, 0, 1.0);
    let clients = [stand.worker(), stand.worker()];
    let names =
        || stand.shared.stats.snapshot().devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(), ["a", "a#2"]);
    drop(clients);
    assert_eq!(names(), Vec::<String>::new());
    assert_eq!(stand.shared.seats.count(), 0);
    let mut odd = stand.connect();
    odd.say("mining.subscribe", &json!([]));
    let refused = odd.say("mining.authorize", &json!(["a\u{1b}[2J", "x"]));
    assert_eq!(refused[0]["error"][0], 24);
}

proptest! {
    #[test]
    fn what_goes_up_is_the_header_that_the_machine_hashed_and_no_device_here_has_it(
        size in 2..=8usize,
        upstream_mask in prop_oneof![Just(0x1fff_e000), any::<u32>()],
        asked in prop_oneof![Just(0x1fff_e000), any::<u32>()],
        extranonce2 in any::<[u8; 8]>(),
        (bits, nonce, machines) in any::<(u32, u32, u8)>(),
    ) {
        let mut stand = Stand::with_job(size, upstream_mask, ANY_HASH);
        let _others: Vec<_> = (0..machines % 8).map(|_| stand.worker()).collect();
        let mut client = stand.connect();
        let asks = json!([["version-rolling"], {"version-rolling.mask": format!("{asked:08x}")}]);
        client.say("mining.configure", &asks);
        let told = Told::of(&client.say("mining.subscribe", &json!([])));
        client.say("mining.authorize", &json!(["a", "x"]));
        let (extranonce2, mask) = (&extranonce2[..told.size], upstream_mask & asked);
        prop_assert_eq!(client.submit(&told, extranonce2, told.ntime, nonce, Some(bits & mask)), 0);
        let share = client.machine.shares().pop_front().unwrap();
        prop_assert!(stand.up.try_recv().is_err(), "the connection's task sends it");
        same_header(&share.job, &told, extranonce2, bits & mask, mask, &share);
        let counter = share.extranonce2.as_bytes().iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        prop_assert!(counter > Split::default().last_of_devices(size));
    }
}

#[test]
fn all_that_machines_and_devices_hash_is_different() {
    for size in 2..=4 {
        let stand = Stand::with_job(size, 0, ANY_HASH);
        let mut seen = HashSet::new();
        for _ in 0..20 {
            let (mut client, told) = stand.worker();
            let counters = 0..(1u64 << (8 * told.size)).min(200);
            for counter in counters {
                let extranonce2 = &counter.to_be_bytes()[8 - told.size..];
                assert_eq!(client.submit(&told, extranonce2, told.ntime, 7, None), 0);
                let share = client.machine.shares().pop_front().unwrap();
                assert!(seen.insert(share.extranonce2), "machines share {}", share.extranonce2);
            }
        }
        for _ in 0..(Split::default().last_of_devices(size) + 1).min(2000) {
            let assignment = stand.dispatcher.take(u64::MAX).unwrap();
            assert!(seen.insert(assignment.extranonce2), "a device gets {}", assignment.extranonce2);
        }
    }
}

#[test]
fn a_share_of_a_stale_job_is_refused_and_still_goes_up_where_the_upstream_may_want_it() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    stand.job(8, 0, 1.0);
    stand.tell(&mut client);
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, None), 21);
    assert_eq!(client.machine.shares().len(), 1, "whoever gave the job says what it is worth");
    stand.dispatcher.clear();
    stand.publish();
    assert_eq!(stand.tell(&mut client), Vec::<Value>::new(), "no work, and nothing that could be said");
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 2, None), 21);
    assert_eq!(stand.shared.stats.snapshot().counts.stale, 0, "the upstream counts these");
}

#[test]
fn a_time_that_a_machine_rolled_goes_up_as_it_is() {
    let stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    assert_eq!(client.submit(&told, &[0; 4], told.ntime + 30, 1, None), 0);
    assert_eq!(client.machine.shares()[0].ntime, NTime(told.ntime + 30));
}

/// Submits shares of a job until one is refused for their number; returns how many were accepted.
fn flood(client: &mut Client, told: &Told) -> usize {
    let mut taken = 0;
    for nonce in 0..1_000_000 {
        match client.submit(told, &[0; 4], told.ntime, nonce, None) {
            0 => taken += 1,
            20 => return taken,
            code => assert_eq!(code, 23),
        }
    }
    panic!("{taken} shares were taken");
}

#[test]
fn a_flood_of_shares_takes_no_more_than_half_of_the_memory_and_the_oldest_jobs_first() {
    let mut stand = Stand::new();
    Arc::get_mut(&mut stand.shared).unwrap().memory = Arc::new(Memory::new(40));
    stand.job(8, 0, 1.0);
    let (mut hog, first) = stand.worker();
    assert_eq!(flood(&mut hog, &first), 20);
    let (mut other, told) = stand.worker();
    assert_eq!(flood(&mut other, &told), 10, "half of what is left");
    hog.say("mining.suggest_difficulty", &json!([ONE_IN_256])); // it has a higher one by now
    stand.job(8, 0, 1.0);
    let second = Told::of(&stand.tell(&mut hog));
    // Its shares of the first job make room.
    let mut nonces = (0..).filter(|nonce| hog.submit(&second, &[0; 4], second.ntime, *nonce, None) == 0);
    let good = nonces.next().unwrap();
    drop(nonces);
    assert_eq!(hog.submit(&second, &[0; 4], second.ntime, good, None), 22);
    assert_eq!(hog.submit(&first, &[0; 4], first.ntime, 0, None), 21, "forgotten");
    drop(hog);
    assert_eq!(stand.shared.memory.taken(), 10);
    drop(other);
    assert_eq!(stand.shared.memory.taken(), 0);
}

#[test]
fn shares_for_the_upstream_are_taken_where_others_are_not() {
    let mut stand = Stand::new();
    Arc::get_mut(&mut stand.shared).unwrap().memory = Arc::new(Memory::new(40));
    stand.job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    assert_eq!(flood(&mut client, &told), 50, "and not without end");
    assert_eq!(client.machine.shares().len(), 50);
}

#[test]
fn a_block_counts_as_far_ahead_as_nodes_take_it_and_another_share_does_not() {
    let stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    let clock = WallClock::default().now() as u32;
    let mut codes = |ahead: u32| -> HashSet<u64> {
        (0..64).map(|nonce| client.submit(&told, &[0; 4], clock + ahead, nonce, None)).collect()
    };
    assert_eq!(codes(300), HashSet::from([0]));
    // Every second hash is a block here.
    assert_eq!(codes(3600), HashSet::from([0, 20]));
    assert_eq!(codes(7200 + 600), HashSet::from([20]), "nodes would not take it");
    let mut ahead = client.machine.shares().drain(..).filter(|share| share.ntime.0 > clock + 600).peekable();
    assert!(ahead.peek().is_some() && ahead.all(|share| share.is_block()));
}

#[test]
fn nothing_is_given_out_or_taken_after_the_jobs_latest_time() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    stand.repeat_job_until(3);
    let (mut client, told) = stand.worker();
    let mut newest = told.clone();
    let later = (0..6).map(|_| {
        stand.repeat_job(|_| ());
        newest = Told::of(&stand.tell(&mut client));
        newest.ntime - told.ntime
    });
    assert_eq!(later.collect::<Vec<_>>(), [1, 2, 3, 0, 0, 0], "the same again, rather than later");
    let mut code = |later, nonce| client.submit(&newest, &[0; 4], told.ntime + later, nonce, None);
    assert_eq!(code(3, 0), 0);
    // Every second hash is a block here; past the latest time its bits are wrong.
    assert!((0..64).all(|nonce| code(4, nonce) == 20));
}
