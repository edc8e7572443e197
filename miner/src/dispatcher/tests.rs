//! No header is assigned twice, and followers get the right jobs.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::thread;

use iop_stratum::fields::VersionMask;
use proptest::prelude::*;

use super::*;
use crate::job::Serial;
use crate::job::tests::{ANY_HASH, job};

/// Checks that no header is in two of the assignments, and returns their total number of headers.
fn disjoint(assignments: &[Assignment]) -> u128 {
    let mut by_header: HashMap<[u8; 80], Vec<NonceRange>> = HashMap::new();
    for assignment in assignments {
        for version in 0..u8::try_from(assignment.work.versions()).unwrap() {
            let header = assignment.work.header_of(Found { nonce: 0, version });
            by_header.entry(header).or_default().push(assignment.nonces);
        }
    }
    for ranges in by_header.values_mut() {
        ranges.sort_by_key(|range| range.first());
        assert!(
            ranges.windows(2).all(|pair| pair[0].last() < pair[1].first()),
            "a header was given out twice"
        );
    }
    assignments.iter().map(|assignment| u128::from(assignment.headers())).sum()
}

fn dispatcher(extranonce2_size: usize, mask: u32) -> Dispatcher {
    let dispatcher = Dispatcher::new();
    dispatcher.set_job(Arc::new(job("1", extranonce2_size, mask, ANY_HASH)));
    dispatcher
}

#[test]
fn threads_that_take_at_once_never_get_the_same_header() {
    let dispatcher = dispatcher(8, 0);
    let taken: Vec<Assignment> = thread::scope(|scope| {
        let take = |thread: u64| {
            let dispatcher = &dispatcher;
            scope.spawn(move || {
                (0..500)
                    .map(|i| dispatcher.take((thread + 1) * (i + 1) * 65_537).unwrap())
                    .collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..4).map(take).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(taken.len(), 2000);
    disjoint(&taken);
}

#[test]
fn a_job_is_given_out_whole_and_then_devices_wait() {
    let dispatcher = dispatcher(1, 0x0000_6000);
    let taken: Vec<Assignment> = (0..256).map(|_| dispatcher.take(u64::MAX).unwrap()).collect();
    assert_eq!(disjoint(&taken), 1 << (8 + 2 + 32));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| dispatcher.take(1));
        thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waiting.is_finished());
        dispatcher.set_job(Arc::new(job("2", 1, 0, ANY_HASH)));
        assert_eq!(waiting.join().unwrap().unwrap().job.id().as_str(), "2");
    });
}

#[test]
fn a_job_sent_again_goes_on_where_it_stood() {
    let dispatcher = dispatcher(2, 0);
    let mut taken: Vec<Assignment> = (0..3).map(|_| dispatcher.take(1 << 31).unwrap()).collect();
    dispatcher.set_job(Arc::new(job("1", 2, 0, ANY_HASH)));
    taken.extend((0..3).map(|_| dispatcher.take(1 << 31).unwrap()));
    disjoint(&taken);
}

#[test]
fn assignments_are_stale_as_soon_as_the_job_changes_or_goes() {
    let dispatcher = dispatcher(4, 0);
    let old = dispatcher.take(10).unwrap();
    assert!(dispatcher.is_current(&old));
    dispatcher.set_job(Arc::new(job("2", 4, 0, ANY_HASH)));
    assert!(!dispatcher.is_current(&old));
    let new = dispatcher.take(10).unwrap();
    assert!(dispatcher.is_current(&new));
    dispatcher.clear();
    assert!(!dispatcher.is_current(&new));
}

#[test]
fn a_split_job_leaves_all_but_the_first_prefix_to_machines() {
    // One of the two bytes is the prefix; two version bits quadruple the number of headers.
    let dispatcher = Dispatcher::new();
    dispatcher.split(Split::default());
    dispatcher.set_job(Arc::new(job("1", 2, 0x0000_6000, ANY_HASH)));
    let taken: Vec<Assignment> = (0..256).map(|_| dispatcher.take(u64::MAX).unwrap()).collect();
    assert_eq!(disjoint(&taken), 1 << (8 + 2 + 32));
    assert!(taken.iter().all(|assignment| assignment.extranonce2.as_bytes()[0] == 0));
    // A single byte cannot be divided: no machine gets any of it.
    dispatcher.set_job(Arc::new(job("2", 1, 0, ANY_HASH)));
    let taken: Vec<Assignment> = (0..256).map(|_| dispatcher.take(u64::MAX).unwrap()).collect();
    assert_eq!(disjoint(&taken), 1 << (8 + 32));
}

#[test]
fn whoever_follows_sees_the_newest_job_and_how_many_breaks_came_before_it() {
    let dispatcher = Dispatcher::new();
    let follower = dispatcher.follow();
    let seen = || {
        let current = follower.borrow();
        (current.job.as_ref().map(|job| job.id().to_string()), current.era)
    };
    assert_eq!(seen(), (None, 0));
    let first = Arc::new(job("1", 4, 0, ANY_HASH)); // a clean one
    dispatcher.set_job(Arc::clone(&first));
    assert_eq!(seen(), (Some("1".into()), 1));
    let mut again = first.stratum().clone();
    again.version_mask = VersionMask(0x2000);
    dispatcher.set_job(Arc::new(Job::new(Serial(2), again.clone())));
    assert_eq!(seen(), (Some("1".into()), 1), "another mask is no break");
    Arc::make_mut(&mut again.notify).clean = false;
    let beside = Arc::new(Job::new(Serial(3), again));
    dispatcher.set_job(Arc::clone(&beside));
    assert_eq!(seen(), (Some("1".into()), 1), "a job beside the one before neither");
    dispatcher.replace_job(beside, true);
    assert_eq!(seen(), (Some("1".into()), 2), "unless the upstream says so");
    dispatcher.clear();
    assert_eq!(seen(), (None, 3));
    dispatcher.set_job(first);
    assert_eq!(seen(), (Some("1".into()), 4));
}

#[test]
fn closing_ends_those_who_wait_and_those_who_come() {
    let dispatcher = Dispatcher::new();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| dispatcher.take(1).is_none());
        dispatcher.close();
        assert!(waiting.join().unwrap());
    });
    assert!(dispatcher.take(1).is_none());
}

proptest! {
    #[test]
    fn any_mix_of_jobs_and_sizes_stays_disjoint(
        size in 0usize..=8,
        mask in prop_oneof![Just(0), Just(0x1fff_e000), any::<u32>()],
        wants in proptest::collection::vec(prop_oneof![0..5u64, 1u64 << 28..1 << 33], 1..200),
    ) {
        let dispatcher = dispatcher(size, mask);
        // At most 2^120, which no list of requests reaches.
        let headers = 1u128 << (32 + 8 * size + mask.count_ones() as usize).min(120);
        let (mut taken, mut left) = (Vec::new(), headers);
        for want in wants {
            let expected = u128::from(want.max(1)).min(left);
            if expected == 0 { break; }
            let assignment = dispatcher.take(want).unwrap();
            let one_nonce = assignment.work.versions() as u128;
            prop_assert_eq!(one_nonce, 1 << mask.count_ones().min(3));
            prop_assert!(u128::from(assignment.headers()) <= expected.max(one_nonce));
            left -= u128::from(assignment.headers());
            taken.push(assignment);
        }
        prop_assert_eq!(disjoint(&taken), headers - left);
    }
}

#[test]
fn a_job_that_comes_again_unchanged_goes_to_machines_and_leaves_the_devices_where_they_are() {
    let dispatcher = dispatcher(1, 0);
    let (current, first) = (dispatcher.follow(), dispatcher.take(1000).unwrap());
    let taken: Vec<Assignment> = (2..600)
        .map(|serial| {
            let again = Job::new(Serial(serial), first.job.stratum().clone());
            dispatcher.replace_job(Arc::new(again), false);
            assert_eq!(current.borrow().job.as_ref().map(|job| job.serial()), Some(Serial(serial)));
            assert!(dispatcher.is_current(&first));
            let next = dispatcher.take(1000).unwrap();
            assert_eq!(next.job.serial(), Serial(serial), "its shares are of the job that came last");
            next
        })
        .collect();
    disjoint(&taken);
    // Another upstream's job is a different one, whatever its contents.
    dispatcher.replace_job(Arc::clone(&first.job), true);
    assert!(!dispatcher.is_current(&first));
}
