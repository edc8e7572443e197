//! Assignment of the extranonce2's parts.

use iop_stratum::fields::Extranonce1;

use super::*;
use crate::log::tests::Heard;

#[test]
fn a_machine_gets_the_upstreams_extranonce1_with_a_prefix_and_what_is_left_to_roll() {
    for (size, prefix, left) in [(8, 4, 4), (7, 2, 5), (6, 2, 4), (5, 1, 4), (4, 1, 3), (3, 1, 2), (2, 1, 1)]
    {
        let stand = Stand::with_job(size, 0, 1.0);
        let (told, other) = (stand.worker().1, stand.worker().1);
        let number = |number: u8| [vec![0, 0, 0, 7], vec![0; prefix - 1], vec![number]].concat();
        assert_eq!((told.extranonce1, told.size), (number(1), left));
        assert_eq!((other.extranonce1, other.size), (number(2), left));
        assert_eq!(told.ntime, 1_700_000_000);
    }
}

#[test]
fn an_extranonce2_without_room_for_two_is_served_to_nobody() {
    for size in [0, 1] {
        let stand = Stand::with_job(size, 0, 1.0);
        assert!(!stand.connect().machine.may_speak());
    }
    let mut stand = Stand::new();
    stand.changed_job(8, 0, 1.0, |job| job.extranonce1 = Extranonce1::new(&[1; 29]).unwrap());
    assert!(!stand.connect().machine.may_speak(), "33 bytes are no extranonce1");
}

#[test]
fn machines_that_refuse_what_the_upstream_leaves_them_are_warned_of_once() {
    for (size, bytes) in [(2, 1), (3, 2)] {
        let log = Heard::begin();
        let mut stand = Stand::with_job(size, 0, 1.0);
        stand.job(size, 0, 1.0);
        assert_eq!(
            log.lines(&format!(
                "WARN iop_miner::gateway::served: the upstream's extranonce2 leaves {bytes} byte"
            )),
            1
        );
        assert_eq!(stand.worker().1.size, bytes, "they are served all the same");
    }
    let log = Heard::begin();
    for size in 4..=8 {
        Stand::with_job(size, 0, 1.0);
    }
    assert_eq!(log.lines("WARN"), 0);
}

#[test]
fn other_extranonces_are_told_before_the_job_to_who_takes_them_and_others_come_again() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut knows, mut told) = stand.worker();
    knows.say("mining.extranonce.subscribe", &json!([]));
    let (mut old, _) = stand.worker();
    stand.changed_job(5, 0, ANY_HASH, |job| job.extranonce1 = Extranonce1::new(&[9, 9]).unwrap());
    let lines = stand.tell(&mut knows);
    assert_eq!(methods(&lines), ["mining.set_extranonce", "mining.notify"]);
    lines.iter().for_each(|line| told.hear(line));
    assert_eq!((told.extranonce1[..2].to_vec(), told.extranonce1.len(), told.size), (vec![9, 9], 3, 4));
    assert_eq!(knows.submit(&told, &[0; 4], told.ntime, 1, None), 0);
    let share = knows.machine.shares().pop_front().unwrap();
    same_header(&share.job, &told, &[0; 4], 0x2000_2000, 0, &share);
    assert_eq!(methods(&stand.tell(&mut old)), ["client.reconnect"]);
    assert!(old.machine.is_leaving().is_some());
}

#[test]
fn a_share_on_its_way_when_the_upstreams_extranonces_change_is_judged_by_those_of_its_own_job() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, old) = stand.worker();
    client.say("mining.extranonce.subscribe", &json!([]));
    stand.changed_job(4, 0, ANY_HASH, |job| job.extranonce1 = Extranonce1::new(&[9, 9]).unwrap());
    let mut new = old.clone();
    stand.tell(&mut client).iter().for_each(|line| new.hear(line));
    assert_eq!((old.size, new.size), (4, 3));
    client.machine.take_asked_for();
    assert_eq!(client.submit(&old, &[1; 4], old.ntime, 1, None), 21, "late, and no fault of the machine");
    assert_eq!(client.machine.take_asked_for(), 1);
    let share = client.machine.shares().pop_front().unwrap();
    same_header(&share.job, &old, &[1; 4], 0x2000_2000, 0, &share);
    assert_eq!(client.submit(&new, &[1; 3], new.ntime, 1, None), 0);
    // Each width is that of one job only.
    assert_eq!(client.submit(&new, &[1; 4], new.ntime, 1, None), 20);
    assert_eq!(client.submit(&old, &[1; 3], old.ntime, 1, None), 20);
}

#[test]
fn more_machines_than_prefixes_are_told_to_go() {
    let stand = Stand::with_job(2, 0, 1.0);
    let held: Vec<_> = (0..255).map(|_| stand.worker()).collect();
    let mut late = stand.connect();
    late.machine.on_line(b"{}").unwrap();
    assert!(late.machine.is_leaving().is_some());
    drop(held);
}

#[test]
fn an_address_that_comes_and_goes_takes_no_more_than_its_share() {
    let stand = Stand::with_job(2, 0, 1.0);
    let [hog, other] = [8, 9].map(|last| IpAddr::V4(Ipv4Addr::new(9, 9, 9, last)));
    let refused = (0..250).find(|_| {
        let mut client = stand.connect_from(hog);
        client.say("mining.subscribe", &json!([]));
        client.machine.is_leaving().is_some()
    });
    assert_eq!(refused, Some(192), "three quarters of 255");
    let (mut client, told) = stand.worker_from(other);
    let good = (0..).find(|nonce| client.submit(&told, &[0], told.ntime, *nonce, None) == 0);
    assert!(good.is_some());
}

#[test]
fn machines_that_must_come_again_for_other_extranonces_all_find_room() {
    let mut stand = Stand::with_job(2, 0, 1.0);
    let mut machines: Vec<_> = (0..255).map(|_| stand.worker().0).collect();
    for number in 2..20 {
        stand.changed_job(2, 0, 1.0, |job| job.extranonce1 = Extranonce1::new(&[number]).unwrap());
        for machine in &mut machines {
            assert_eq!(methods(&stand.tell(machine)), ["client.reconnect"]);
        }
        // They reconnect before the old connections have ended.
        let again: Vec<_> = (0..255).map(|_| stand.worker()).collect();
        assert!(again.iter().all(|(_, told)| told.extranonce1[0] == number && !told.job.is_empty()));
        machines = again.into_iter().map(|(machine, _)| machine).collect();
    }
}

#[test]
fn who_left_during_a_work_that_comes_again_has_no_successor_in_it() {
    let mut stand = Stand::with_job(2, 0, ANY_HASH);
    let first = stand.dispatcher.follow().borrow().job.clone().unwrap().stratum().clone();
    let left: Vec<_> = (0..10).map(|_| stand.worker()).collect();
    let used: Vec<_> = left.iter().map(|(_, told)| told.extranonce1.clone()).collect();
    drop(left);
    stand.job(2, 0, ANY_HASH);
    // Prefixes are cyclic: these have the same ones, and take them over.
    let mut taken = Vec::new();
    while taken.len() < 255 {
        let (mut client, told) = stand.worker();
        client.say("mining.extranonce.subscribe", &json!([]));
        taken.push((client, told));
    }
    stand.jobs += 1;
    stand.dispatcher.set_job(Arc::new(Job::new(Serial(stand.jobs), first)));
    stand.publish();
    let mut gone = 0;
    for (client, told) in &mut taken {
        let said = stand.tell(client);
        said.iter().for_each(|line| told.hear(line));
        assert!(client.machine.is_leaving().is_some() || !used.contains(&told.extranonce1));
        gone += usize::from(client.machine.is_leaving().is_some());
    }
    assert_eq!(gone, 10, "as there is no other for them");
}
