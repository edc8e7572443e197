//! Requests of a miner: suggested difficulties and its minimum.

use super::*;

fn wish(difficulty: f64) -> Value {
    json!({"id": 1, "method": "mining.suggest_difficulty", "params": [difficulty]})
}

#[test]
fn a_small_wish_holds_from_the_next_job() {
    let mut pool = Pool::new();
    let first = pool.job(Pool::hard_template(1));
    let mut miner = pool.ready();
    assert_eq!(methods(&say(&mut miner, wish(EASY * 3.0))), ["answer"]);
    let nonce = solve(&first, *miner.session.extranonce1(), EASY, true);
    assert_eq!(submit(&mut miner, &pool.user(), &first, nonce), 0, "the first job keeps its difficulty");
    let second = pool.job(Pool::hard_template(1));
    assert!(is_about(&pool.tell(&mut miner)[0]["params"][0], EASY * 3.0));
    let nonce = solve(&second, *miner.session.extranonce1(), EASY * 3.0, false);
    assert_eq!(submit(&mut miner, &pool.user(), &second, nonce), 23);
    let nonce = solve(&first, *miner.session.extranonce1(), EASY, true);
    assert_eq!(submit(&mut miner, &pool.user(), &first, nonce), 22, "and still does");
    let params = json!([pool.user(), format!("x,d={}", EASY * 2.0)]);
    say(&mut miner, json!({"id": 1, "method": "mining.authorize", "params": params}));
    pool.job(Pool::hard_template(1));
    assert!(is_about(&pool.tell(&mut miner)[0]["params"][0], EASY * 2.0), "in the password too");
}

#[test]
fn a_great_wish_brings_a_job_at_once_within_bounds_and_a_few_times_for_the_same_work() {
    let mut pool = Pool::new();
    let first = pool.job(Pool::hard_template(1));
    let mut miner = pool.ready();
    for (wished, given) in [(1e9, 1.0), (1e-30, EASY / 4.0), (EASY * 1024.0, EASY * 1024.0)] {
        let lines = say(&mut miner, wish(wished));
        assert_eq!(methods(&lines), ["answer", "mining.set_difficulty", "mining.notify"]);
        assert!(is_about(&lines[1]["params"][0], given));
        assert_eq!(lines[2]["params"][8], true, "what the machine does meanwhile is of little use");
    }
    assert_eq!(methods(&say(&mut miner, wish(EASY * 1024.0))), ["answer"], "the same wish changes nothing");
    let nonce = solve(&first, *miner.session.extranonce1(), EASY, true);
    assert_eq!(submit(&mut miner, &pool.user(), &first, nonce), 0, "the first job keeps its difficulty");
    let params = json!([pool.user(), format!("x,d={EASY}")]);
    let lines = say(&mut miner, json!({"id": 1, "method": "mining.authorize", "params": params}));
    assert_eq!(methods(&lines)[1..], ["mining.set_difficulty", "mining.notify"], "in the password too");
    let jobs = (0..200).filter(|n| say(&mut miner, wish(EASY * [64.0, 2.0][n % 2])).len() > 1).count();
    assert_eq!(jobs + 4, MAX_ASKED as usize, "jobs of the same work");
}

#[test]
fn a_minimum_difficulty_is_a_bound_and_no_wish() {
    let mut pool = Pool::new();
    pool.job(Pool::hard_template(1));
    let mut miner = pool.ready();
    let given = |pool: &mut Pool, miner: &mut Miner, call: Value| {
        let answer = say(miner, call)[0]["result"].clone();
        pool.job(Pool::hard_template(1));
        pool.tell(miner);
        (answer, miner.told.unwrap().get())
    };
    let minimum = |value: f64| {
        let options = json!({"minimum-difficulty.value": value});
        json!({"id": 1, "method": "mining.configure", "params": [["minimum-difficulty"], options]})
    };
    let (answer, told) = given(&mut pool, &mut miner, minimum(EASY / 2.0));
    assert_eq!(
        (&answer["minimum-difficulty"], told),
        (&json!(true), EASY),
        "it does not lower what is given"
    );
    assert_eq!(given(&mut pool, &mut miner, minimum(EASY * 8.0)).1, EASY * 8.0);
    assert_eq!(given(&mut pool, &mut miner, wish(EASY * 2.0)).1, EASY * 8.0, "no wish goes below it");
    assert_eq!(given(&mut pool, &mut miner, wish(EASY * 16.0)).1, EASY * 16.0);
    let (answer, told) = given(&mut pool, &mut miner, minimum(2.0));
    assert_eq!((&answer["minimum-difficulty"], told), (&json!(false), EASY * 16.0), "above the pool's bound");
}

#[test]
fn a_minimum_far_above_the_job_does_not_wait_for_the_next() {
    let mut pool = Pool::new();
    pool.job(Pool::hard_template(1));
    let mut miner = pool.ready();
    let options = json!({"minimum-difficulty.value": EASY * 4.0});
    let call = json!({"id": 1, "method": "mining.configure", "params": [["minimum-difficulty"], options]});
    let lines = say(&mut miner, call);
    assert_eq!(methods(&lines), ["answer", "mining.set_difficulty", "mining.notify"]);
    assert!(is_about(&lines[1]["params"][0], EASY * 4.0));
}
