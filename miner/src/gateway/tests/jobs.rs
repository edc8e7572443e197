//! The jobs that machines are sent, and their difficulty.

use std::time::Instant;

use iop_stratum::fields::{JobId, VersionMask};
use iop_stratum::line::MAX_CLIENT_LINE;

use super::served::MAX_LINE;
use super::*;

#[test]
fn machines_never_get_a_share_harder_than_what_the_upstream_wants() {
    for (upstream, expected) in [(1.0, ONE_IN_256), (ONE_IN_256 / 16.0, ONE_IN_256 / 16.0)] {
        let stand = Stand::with_job(8, 0, upstream);
        // The test's own number parser rounds the last bit.
        assert!((stand.worker().1.difficulty / expected - 1.0).abs() < 1e-12);
    }
    let mut stand = Stand::with_job(8, 0, 1.0);
    let (mut client, _) = stand.worker();
    stand.job(8, 0, 1e-10);
    let lines = stand.tell(&mut client);
    assert_eq!(methods(&lines), ["mining.set_difficulty", "mining.notify"]);
    assert_eq!(lines[0]["params"][0], 1e-10);
    client.say("mining.suggest_difficulty", &json!([1e6]));
    stand.job(8, 0, 1.0);
    assert_eq!(stand.tell(&mut client)[0]["params"][0], 1.0);
}

#[test]
fn wishes_by_password_and_by_suggestion_hold_from_the_next_job_on() {
    let mut stand = Stand::with_job(8, 0, 1e9);
    let (mut client, _) = stand.worker();
    client.say("mining.suggest_difficulty", &json!([32.0]));
    stand.job(8, 0, 1e9);
    assert_eq!(stand.tell(&mut client)[0]["params"][0], 32.0);
    client.say("mining.authorize", &json!(["a", "x, d=64"]));
    stand.job(8, 0, 1e9);
    assert_eq!(stand.tell(&mut client)[0]["params"][0], 64.0);
}

#[test]
fn much_more_difficulty_comes_as_a_job_of_its_own_whose_headers_are_others() {
    let stand = Stand::with_job(8, 0, 1e9);
    let (mut client, told) = stand.worker();
    let (mut said, mut nonce) = (Vec::new(), 0);
    // Shares as fast as they can be checked: vardiff sees a machine that is too fast for its difficulty.
    while !methods(&said).contains(&"mining.notify") {
        nonce += 1;
        let params =
            json!(["a", told.job, "00000000", format!("{:08x}", told.ntime), format!("{nonce:08x}")]);
        said = client.say("mining.submit", &params);
        assert!(nonce < 100_000);
    }
    assert_eq!(methods(&said), ["answer", "mining.set_difficulty", "mining.notify"]);
    let mut harder = told.clone();
    said.iter().for_each(|line| harder.hear(line));
    assert!(harder.difficulty >= 4.0 * told.difficulty);
    assert_eq!((harder.ntime, said[2]["params"][8].clone()), (told.ntime + 1, json!(true)));
    // A share that is valid under both ids counts once.
    let good =
        (nonce + 1..).find(|nonce| client.submit(&harder, &[0; 4], told.ntime, *nonce, None) == 0).unwrap();
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, good, None), 22);
}

fn minimum(value: f64) -> Value {
    json!([["minimum-difficulty"], {"minimum-difficulty.value": value}])
}

#[test]
fn a_minimum_far_above_the_start_does_not_switch_vardiff_off() {
    let (start, least) = (ONE_IN_256 / 256.0, ONE_IN_256 / 2.0);
    for wish_is_last in [false, true] {
        let mut stand = Stand::with_job(8, 0, 1e9);
        let (mut client, _) = stand.worker();
        client.say("mining.suggest_difficulty", &json!([start * 2.0]));
        client.say("mining.configure", &minimum(least));
        if wish_is_last {
            client.say("mining.suggest_difficulty", &json!([start]));
        }
        stand.job(8, 0, 1e9);
        let lines = stand.tell(&mut client);
        let mut told = Told::of(&lines);
        let (mut raised, mut nonce) = (0.0, 0);
        while raised < 4.0 * least {
            nonce += 1;
            assert!(nonce < 20_000, "more than a hundred shares at once, and no harder job");
            let params =
                json!(["a", told.job, "00000000", format!("{:08x}", told.ntime), format!("{nonce:08x}")]);
            let said = client.say("mining.submit", &params);
            said.iter().for_each(|line| told.hear(line));
            raised = told.difficulty;
        }
    }
}

#[test]
fn a_minimum_far_above_the_job_does_not_wait_for_the_next_and_is_excused_nothing() {
    let stand = Stand::with_job(8, 0, 1e9);
    let (mut client, told) = stand.worker();
    let lines = client.say("mining.configure", &minimum(told.difficulty * 2.0));
    assert_eq!(methods(&lines), ["answer"], "not so far");
    let lines = client.say("mining.configure", &minimum(told.difficulty * 64.0));
    assert_eq!(methods(&lines), ["answer", "mining.set_difficulty", "mining.notify"]);
    let harder = Told { ..Told::of(&lines) };
    assert!((harder.difficulty / told.difficulty / 64.0 - 1.0).abs() < 1e-12);
    assert_eq!(harder.ntime, told.ntime + 1);
    for least in [1.0, 64.0, 2.0, 64.0] {
        let lines = client.say("mining.configure", &minimum(told.difficulty * least));
        assert_eq!(methods(&lines), ["answer"], "a lower one is nothing to hurry for");
    }
    // Only silence shows that a lower difficulty is needed.
    let silent = client.machine.silent_from();
    assert_eq!(silent, None, "at the minimum");
    client.say("mining.configure", &minimum(told.difficulty));
    client.machine.on_silence(client.machine.silent_from().unwrap());
    let eased = Told::of(&client.sent()).difficulty;
    assert!(eased < told.difficulty * 16.0 && eased > told.difficulty / 1.01, "{eased}");
}

#[test]
fn silence_eases_a_machine_that_was_given_too_much() {
    let stand = Stand::with_job(8, 0, 1.0);
    let (mut client, told) = stand.worker();
    let silent = client.machine.silent_from().unwrap();
    assert!(silent > Instant::now());
    client.machine.on_silence(silent);
    let said = client.sent();
    assert_eq!(methods(&said), ["mining.set_difficulty", "mining.notify"]);
    assert!(said[0]["params"][0].as_f64().unwrap() < told.difficulty / 4.0);
}

#[test]
fn a_second_subscription_gets_the_work_again_as_other_headers_and_in_the_end_as_it_was() {
    let stand = Stand::with_job(8, 0, 1.0);
    let (mut client, mut told) = stand.worker();
    let first = told.clone();
    for later in 1..32 {
        let said = client.say("mining.subscribe", &json!([]));
        assert_eq!(methods(&said), ["answer", "mining.set_difficulty", "mining.notify"]);
        said.iter().for_each(|line| told.hear(line));
        assert_eq!((told.ntime, &told.extranonce1), (first.ntime + later, &first.extranonce1));
    }
    let said = client.say("mining.subscribe", &json!([]));
    said.iter().for_each(|line| told.hear(line));
    assert_eq!((told.ntime, told.job), (first.ntime, first.job));
}

#[test]
fn a_job_beside_others_leaves_them_alive_and_a_clean_one_does_not_also_where_it_was_missed() {
    let mut stand = Stand::with_job(8, 0, 1e-10);
    let (mut client, told) = stand.worker();
    let beside = |stand: &mut Stand| {
        stand.changed_job(8, 0, 1e-10, |job| Arc::make_mut(&mut job.notify).clean = false);
    };
    beside(&mut stand);
    let lines = stand.tell(&mut client);
    assert_eq!((methods(&lines), &lines[0]["params"][8]), (vec!["mining.notify"], &json!(false)));
    let accepted = |client: &mut Client| {
        let mut codes = (0..4000).map(|nonce| client.submit(&told, &[1; 4], told.ntime, nonce, None));
        codes.find(|code| *code != 23).unwrap()
    };
    assert_eq!(accepted(&mut client), 0);
    stand.job(8, 0, 1e-10);
    beside(&mut stand);
    assert_eq!(stand.tell(&mut client)[0]["params"][8], true, "the clean one before it was not seen");
    assert_eq!(client.submit(&told, &[2; 4], told.ntime, 1, None), 21);
}

#[test]
fn another_mask_is_told_without_another_job_and_shares_from_before_go_up_as_they_were_found() {
    let mut stand = Stand::with_job(8, 0x1fff_e000, ANY_HASH);
    let (mut client, told) = stand.worker();
    let mut job = stand.dispatcher.follow().borrow().job.clone().unwrap().stratum().clone();
    job.version_mask = VersionMask(0x2000);
    stand.dispatcher.set_job(Arc::new(Job::new(Serial(99), job)));
    stand.publish();
    let lines = stand.tell(&mut client);
    assert_eq!(
        (methods(&lines), &lines[0]["params"][0]),
        (vec!["mining.set_version_mask"], &json!("00002000"))
    );
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, Some(0x2000)), 0);
    let share = client.machine.shares().pop_front().unwrap();
    assert_eq!((share.job.serial(), share.version_bits.0), (Serial(99), 0x2000));
    client.machine.take_asked_for();
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, Some(0x4000)), 21, "it was on its way");
    assert_eq!(client.machine.take_asked_for(), 1, "no fault of the machine");
    let share = client.machine.shares().pop_front().unwrap();
    assert_eq!(share.job.serial(), Serial(1), "whoever gave the job says what it is worth");
    same_header(&share.job, &told, &[0; 4], 0x4000, 0x1fff_e000, &share);
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, Some(1)), 20, "that was never allowed");
}

#[test]
fn a_share_of_another_upstreams_job_is_judged_by_the_mask_of_that() {
    let mut stand = Stand::with_job(8, 0x1fff_e000, ANY_HASH);
    let (mut client, old) = stand.worker();
    stand.job(8, 0, ANY_HASH);
    let lines = stand.tell(&mut client);
    assert_eq!(methods(&lines), ["mining.set_version_mask", "mining.notify"]);
    let mut new = old.clone();
    lines.iter().for_each(|line| new.hear(line));
    assert_eq!(client.submit(&old, &[0; 4], old.ntime, 1, Some(0x4000)), 21);
    let share = client.machine.shares().pop_front().unwrap();
    same_header(&share.job, &old, &[0; 4], 0x4000, 0x1fff_e000, &share);
    assert_eq!(client.submit(&new, &[0; 4], new.ntime, 1, Some(0x4000)), 20, "not in this job");
    assert_eq!(client.submit(&new, &[0; 4], new.ntime, 1, Some(0)), 0);
    assert!(stand.shared.stats.snapshot().counts.rejected.values().sum::<u64>() == 1);
}

#[test]
fn a_machine_that_asks_to_roll_late_may_roll_in_the_job_that_it_has() {
    let stand = Stand::with_job(8, 0x1fff_e000, ANY_HASH);
    let mut client = stand.connect();
    let told = Told::of(&client.say("mining.subscribe", &json!([])));
    client.say("mining.authorize", &json!(["a", "x"]));
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, Some(0x4000)), 0, "it never asked");
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, Some(1)), 20);
    let asks = |mask: &str| json!([["version-rolling"], {"version-rolling.mask": mask}]);
    client.say("mining.configure", &asks("00006000"));
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 2, Some(0x4000)), 0);
    client.say("mining.configure", &asks("00002000"));
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 3, Some(0x4000)), 0, "found before");
    let shares: Vec<_> = client.machine.shares().drain(..).collect();
    assert_eq!(shares.len(), 3);
    shares.iter().for_each(|share| same_header(&share.job, &told, &[0; 4], 0x4000, 0x6000, share));
}

/// The versions that jobs were announced with, by the names of the jobs.
fn versions(lines: &[Value]) -> Vec<(String, u32)> {
    let jobs = lines.iter().filter(|line| line["method"] == "mining.notify");
    let text = |line: &Value, place: usize| line["params"][place].as_str().unwrap().to_owned();
    jobs.map(|line| (text(line, 0), u32::from_str_radix(&text(line, 5), 16).unwrap())).collect()
}

#[test]
fn bits_that_may_be_rolled_are_cleared_in_what_machines_are_told_and_whole_in_what_goes_up() {
    const MASK: u32 = 0x1fff_e000;
    // Asked for all bits, for some, for none of these, and not at all.
    for (asked, machines) in
        [(Some("ffffffff"), MASK), (Some("00c00000"), 0x00c0_0000), (Some("e0000000"), 0), (None, MASK)]
    {
        let mut stand = Stand::new();
        stand.changed_job(8, MASK, ANY_HASH, |job| {
            Arc::make_mut(&mut job.notify).version = iop_stratum::fields::Version(0x2060_2001);
        });
        let mut client = stand.connect();
        if let Some(mask) = asked {
            let options = json!({"version-rolling.mask": mask});
            client.say("mining.configure", &json!([["version-rolling"], options]));
        }
        let lines = client.say("mining.subscribe", &json!([]));
        let told = Told::of(&lines);
        client.say("mining.authorize", &json!(["a", "x"]));
        let base = versions(&lines)[0].1;
        assert_eq!(base, 0x2000_0001);
        for (nonce, rolled) in [(0, 0), (1, 0x0040_0000 & machines), (2, 0x0080_0000 & machines)] {
            let version = base | rolled;
            // As ESP-Miner, cgminer and BIP310 have it: bits that differ, bits that are new, bits of the header.
            for (style, bits) in [version ^ base, version & !base, version & machines].into_iter().enumerate()
            {
                let nonce = nonce * 3 + style as u32;
                assert_eq!(client.submit(&told, &[0; 4], told.ntime, nonce, Some(bits)), 0, "{asked:?}");
                let share = client.machine.shares().pop_front().unwrap();
                assert_eq!(share.version_bits.0, version & MASK);
                same_header(&share.job, &told, &[0; 4], rolled, machines, &share);
            }
        }
        assert_eq!(client.submit(&told, &[0; 4], told.ntime, 99, None), 0, "who rolls nothing");
        let share = client.machine.shares().pop_front().unwrap();
        same_header(&share.job, &told, &[0; 4], 0, machines, &share);
    }
}

#[test]
fn a_mask_that_changes_what_machines_are_told_brings_the_job_again_under_another_name() {
    let mut stand = Stand::new();
    let set = |job: &mut iop_stratum::client::Job| {
        Arc::make_mut(&mut job.notify).version = iop_stratum::fields::Version(0x2060_0000);
    };
    stand.changed_job(8, 0x1fff_e000, ANY_HASH, set);
    let mut client = stand.connect();
    client.say("mining.configure", &json!([["version-rolling"], {}]));
    let lines = client.say("mining.subscribe", &json!([]));
    let (mut told, first) = (Told::of(&lines), versions(&lines).remove(0));
    client.say("mining.authorize", &json!(["a", "x"]));
    let mut job = stand.dispatcher.follow().borrow().job.clone().unwrap().stratum().clone();
    for (serial, mask, version) in [(50, 0x0040_0000, 0x2020_0000), (51, 0, 0x2060_0000)] {
        job.version_mask = VersionMask(mask);
        stand.dispatcher.set_job(Arc::new(Job::new(Serial(serial), job.clone())));
        stand.publish();
        let lines = stand.tell(&mut client);
        assert_eq!(methods(&lines), ["mining.set_version_mask", "mining.notify"]);
        let again = versions(&lines).remove(0);
        assert!(again.0 != first.0 && again.1 == version, "{again:x?}");
        lines.iter().for_each(|line| told.hear(line));
        assert_eq!(client.submit(&told, &[0; 4], told.ntime, serial as u32, Some(mask)), 0);
        let share = client.machine.shares().pop_front().unwrap();
        assert_eq!(share.job.serial(), Serial(serial));
        same_header(&share.job, &told, &[0; 4], mask, mask, &share);
    }
}

#[test]
fn time_without_work_is_no_silence() {
    let mut stand = Stand::with_job(8, 0, 1.0);
    let (mut client, _) = stand.worker();
    let before = client.machine.silent_from().unwrap();
    stand.dispatcher.clear();
    stand.publish();
    stand.tell(&mut client);
    assert_eq!(client.machine.silent_from(), None, "nothing is waited for");
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(20));
    stand.publish();
    stand.tell(&mut client); // and again
    let paused = begun.elapsed();
    stand.job(8, 0, 1.0);
    stand.tell(&mut client);
    assert!(client.machine.silent_from().unwrap() >= before + paused);
}

#[test]
fn the_longest_job_that_a_pool_may_send_is_told_to_machines() {
    let mut stand = Stand::with_job(8, 0, 1.0);
    let (mut client, _) = stand.worker();
    let around = stand.dispatcher.follow().borrow().job.as_ref().unwrap().stratum().notify.to_line().len();
    let longest = |job: &mut iop_stratum::client::Job| {
        let notify = Arc::make_mut(&mut job.notify);
        notify.coinbase2 = vec![2; (MAX_CLIENT_LINE - around) / 2];
        notify.job_id = JobId::new("1").unwrap();
        let line = notify.to_line().len();
        assert!((MAX_CLIENT_LINE - 200..=MAX_CLIENT_LINE).contains(&line), "{line}");
    };
    stand.changed_job(8, 0, 1.0, longest);
    assert_eq!(methods(&stand.tell(&mut client)), ["mining.notify"]);
    // A machine may be one job behind: its queue must hold that much.
    assert!(stand.shared.snapshots.borrow().job.as_ref().unwrap().line(true).len() <= MAX_LINE);
}
