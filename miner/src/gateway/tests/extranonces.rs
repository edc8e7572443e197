//! Which part of the extranonce2 is whose.

use iop_stratum::fields::Extranonce1;

use super::*;

#[test]
fn a_machine_gets_the_upstreams_extranonce1_with_a_prefix_and_what_is_left_to_roll() {
    for (size, prefix, left) in [(8, 4, 4), (7, 2, 5), (4, 2, 2), (3, 1, 2), (2, 1, 1)] {
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
fn other_extranonces_are_told_before_the_job_to_who_takes_them_and_others_come_again() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut knows, mut told) = stand.worker();
    knows.say("mining.extranonce.subscribe", &json!([]));
    let (mut old, _) = stand.worker();
    stand.changed_job(5, 0, ANY_HASH, |job| job.extranonce1 = Extranonce1::new(&[9, 9]).unwrap());
    let lines = stand.tell(&mut knows);
    assert_eq!(methods(&lines), ["mining.set_extranonce", "mining.notify"]);
    lines.iter().for_each(|line| told.hear(line));
    assert_eq!((told.extranonce1[..2].to_vec(), told.extranonce1.len(), told.size), (vec![9, 9], 4, 3));
    assert_eq!(knows.submit(&told, &[0; 3], told.ntime, 1, None), 0);
    let share = knows.machine.shares().pop_front().unwrap();
    same_header(&share.job, &told, &[0; 3], 0x2000_2000, 0, &share);
    assert_eq!(methods(&stand.tell(&mut old)), ["client.reconnect"]);
    assert!(old.machine.is_leaving().is_some());
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
