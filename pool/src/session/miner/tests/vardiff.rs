//! A connection's difficulty under floods of shares and under silence.

use super::*;

/// A pool with vardiff.
fn varying() -> Pool {
    let mut pool = Pool::new();
    Arc::get_mut(&mut pool.shared).unwrap().vardiff = Some(5.0);
    pool
}

/// Good shares at the easiest difficulty.
fn shares(miner: &Miner, user: &str, job: &Job, count: usize) -> Vec<Value> {
    shares_at(EASY, miner, user, job, count)
}

fn shares_at(within: f64, miner: &Miner, user: &str, job: &Job, count: usize) -> Vec<Value> {
    let target = Target::from_difficulty(difficulty(within));
    let extranonce1 = *miner.session.extranonce1();
    let extranonce2 = Extranonce2::from_counter(0, 8).unwrap();
    let (version, ntime) = (job.version, NTime(job.template.time));
    let header = |nonce| job.work.header(&extranonce1, &extranonce2, version, ntime, Nonce(nonce));
    let time = format!("{:08x}", job.template.time);
    let submit = |nonce: u32| {
        let params = json!([user, job.id.as_str(), "0".repeat(16), time, Nonce(nonce).to_string()]);
        json!({"id": 9, "method": "mining.submit", "params": params})
    };
    (0..).filter(|&nonce| target.is_met_by(&sha256d(&header(nonce)))).take(count).map(submit).collect()
}

fn flood(miner: &mut Miner, user: &str, job: &Job, count: usize) -> Vec<Value> {
    shares(miner, user, job, count).into_iter().flat_map(|share| say(miner, share)).collect()
}

#[test]
fn a_flood_of_shares_brings_a_harder_job_at_once_and_the_old_one_still_counts() {
    let mut pool = varying();
    let job = pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    let said = flood(&mut miner, &user, &job, 6);
    assert_eq!(said.iter().filter(|line| line["result"] == true).count(), 6, "all count: {said:?}");
    let told: Vec<&Value> = said.iter().filter(|line| line["method"] == "mining.set_difficulty").collect();
    let jobs: Vec<&Value> = said.iter().filter(|line| line["method"] == "mining.notify").collect();
    assert_eq!((told.len(), jobs.len()), (1, 1), "{said:?}");
    assert!(is_about(&told[0]["params"][0], EASY * 256.0));
    assert_ne!(jobs[0]["params"][0], job.id.as_str(), "a job id is never used twice");
    assert_ne!(jobs[0]["params"][2], serde_json::from_slice::<Value>(&job.line(true)).unwrap()["params"][2]);
    assert_eq!(jobs[0]["params"][8], true, "most machines go on with the old one otherwise");
    let variant = Arc::clone(&miner.sent.back().unwrap().job);
    let easy = solve(&variant, *miner.session.extranonce1(), EASY * 256.0, false);
    assert_eq!(submit(&mut miner, &user, &variant, easy), 23, "the new job is harder");
    assert!(pool.tell(&mut miner).is_empty(), "the same work is not sent again");
    say(&mut miner, json!({"id": 1, "method": "mining.subscribe", "params": []}));
    let nonce = solve(&job, *miner.session.extranonce1(), EASY, true);
    assert_eq!(
        submit(&mut miner, &user, &job, nonce),
        22,
        "a share counts once, also after a new subscription"
    );
}

#[test]
fn silence_brings_an_easier_job_down_to_the_least_that_the_miner_can() {
    let mut pool = varying();
    pool.job(Pool::hard_template(1));
    let mut miner = pool.ready();
    let options = json!({"minimum-difficulty.value": EASY / 2.0});
    say(
        &mut miner,
        json!({"id": 1, "method": "mining.configure", "params": [["minimum-difficulty"], options]}),
    );
    say(&mut miner, json!({"id": 1, "method": "mining.suggest_difficulty", "params": [EASY * 64.0]}));
    pool.job(Pool::hard_template(1));
    pool.tell(&mut miner);
    let mut told = Vec::new();
    while let Some(silent) = miner.silent_from() {
        miner.on_silence(silent - std::time::Duration::from_millis(1));
        assert!(heard(&mut miner).is_empty(), "not too early");
        miner.on_silence(silent);
        told.extend(heard(&mut miner));
    }
    assert_eq!(methods(&told[..2]), ["mining.set_difficulty", "mining.notify"]);
    let last = last_told(&told).unwrap();
    assert!(is_about(last, EASY / 2.0), "{last}");
    assert!(told.len() <= 6, "in few steps: {told:?}");
}

#[test]
fn wishes_that_alternate_do_not_keep_a_machine_at_the_least_difficulty() {
    let mut pool = varying();
    let job = pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    let told = |said: &[Value]| last_told(said).map(|difficulty| difficulty.as_f64().unwrap());
    let mut said = Vec::new();
    for (number, share) in (0u32..).zip(shares(&miner, &user, &job, 99)) {
        if number % 3 == 0 {
            let wish = if number % 2 == 0 { EASY / 4.0 } else { EASY / 3.0 };
            let wish = json!({"id": 1, "method": "mining.suggest_difficulty", "params": [wish]});
            said.extend(say(&mut miner, wish));
        }
        said.extend(say(&mut miner, share));
    }
    // 98 shares within five seconds, or a few more on a slow machine: vardiff would ask for 98 times as much.
    assert!(told(&said).unwrap() > EASY * 4.0, "{said:?}");
    say(&mut miner, json!({"id": 1, "method": "mining.suggest_difficulty", "params": [EASY / 2.0]}));
    pool.new_tip();
    pool.job(Pool::hard_template(2));
    said.extend(pool.tell(&mut miner));
    assert!(told(&said).unwrap() > EASY * 4.0, "{said:?}");
    // A justified or harder difficulty may still be suggested.
    let mut said =
        say(&mut miner, json!({"id": 1, "method": "mining.suggest_difficulty", "params": [EASY * 128.0]}));
    pool.job(Pool::hard_template(2));
    said.extend(pool.tell(&mut miner));
    assert!((told(&said).unwrap() / EASY - 128.0).abs() < 0.01);
}

/// The difficulty that a client was last sent, if any.
fn last_told(said: &[Value]) -> Option<&Value> {
    said.iter().rfind(|line| line["method"] == "mining.set_difficulty").map(|line| &line["params"][0])
}

/// Suggests two very different difficulties in turn, `times` times.
fn alternate(miner: &mut Miner, times: usize) {
    for number in 0..times {
        let wish = [EASY / 4.0, EASY][number % 2];
        say(miner, json!({"id": 1, "method": "mining.suggest_difficulty", "params": [wish]}));
    }
}

fn answers(miner: &mut Miner, shares: impl IntoIterator<Item = Value>) -> Vec<Value> {
    for share in shares {
        miner.on_line(share.to_string().as_bytes()).unwrap();
    }
    committed(miner).into_iter().filter(|line| line["id"] == 9).collect()
}

fn accepted(answers: &[Value]) -> usize {
    answers.iter().filter(|answer| answer["result"] == true).count()
}

#[test]
fn wishes_before_the_first_share_leave_vardiff_its_numbers() {
    let mut pool = varying();
    pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    alternate(&mut miner, 80);
    assert!(miner.sent.len() <= 9, "a few new jobs, not one for each wish: {}", miner.sent.len());
    for _ in 0..80 {
        say(&mut miner, json!({"id": 1, "method": "mining.subscribe", "params": []}));
    }
    let easy = Arc::clone(&miner.sent.back().unwrap().job);
    let said = flood(&mut miner, &user, &easy, 6);
    let told = last_told(&said).expect("a harder job");
    assert!(told.as_f64().unwrap() > EASY * 4.0, "{said:?}");
    // With the next work a machine may ask again.
    let count = miner.sent.len();
    pool.job(Pool::hard_template(1));
    pool.tell(&mut miner);
    say(&mut miner, json!({"id": 1, "method": "mining.suggest_difficulty", "params": [EASY * 65_536.0]}));
    assert_eq!(miner.sent.len(), count + 2);
}

#[test]
fn a_wish_that_brought_no_job_holds_when_a_far_easier_share_comes() {
    let mut pool = varying();
    pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    alternate(&mut miner, 81);
    let easy = Arc::clone(&miner.sent.back().unwrap().job);
    say(&mut miner, json!({"id": 1, "method": "mining.suggest_difficulty", "params": [EASY * 64.0]}));
    assert!(holds(&miner, &easy), "it has asked too often");
    let said = flood(&mut miner, &user, &easy, 1);
    let told = last_told(&said).expect("a harder job");
    assert!(is_about(told, EASY * 64.0), "{said:?}");
}

#[test]
fn the_jobs_of_a_connection_take_so_many_shares_together_and_the_newest_has_room() {
    let mut pool = varying();
    pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    alternate(&mut miner, 3);
    let hoard: Vec<Arc<Job>> = miner.sent.iter().map(|sent| Arc::clone(&sent.job)).collect();
    assert_eq!(hoard.len(), 4);
    let mut taken = 0;
    for job in &hoard[..3] {
        let shares = shares(&miner, &user, job, 3000);
        taken += accepted(&answers(&mut miner, shares));
    }
    assert_eq!(taken, 8192, "of all together, however many jobs there are");
    let newest = miner.sent.len() - 1;
    assert!(miner.has_room(newest) && !miner.has_room(0), "what is asked for now counts");
}

#[test]
fn shares_of_a_job_far_easier_than_the_next_count_for_a_while() {
    let mut pool = varying();
    let job = pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    let said = flood(&mut miner, &user, &job, 6);
    assert_eq!(accepted(&said), 6, "those in flight count");
    let [easy, hard] = [0, 1].map(|place: usize| miner.sent[place].until);
    assert!(easy.is_some_and(|until| until > Instant::now()) && hard.is_none(), "{easy:?} {hard:?}");
    miner.sent[0].until = Some(Instant::now() - std::time::Duration::from_millis(1));
    let next = solutions(&job, *miner.session.extranonce1(), EASY, true).nth(6).unwrap();
    assert_eq!(submit(&mut miner, &user, &job, next), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_a_job_that_has_become_too_easy_is_delivered() {
    let mut pool = varying();
    let job = pool.job(template(4));
    let (mut miner, user) = (pool.ready(), pool.user());
    miner.sent[0].until = Some(Instant::now() - std::time::Duration::from_millis(1));
    let block = solve(&job, *miner.session.extranonce1(), job.network_difficulty.get(), true);
    assert_eq!(submit(&mut miner, &user, &job, block), 0);
    assert_eq!(pool.shared.blocks.records().len(), 1);
    pool.shared.blocks.finish(std::time::Duration::from_secs(5)).await;
}

#[test]
fn a_job_takes_so_many_shares_of_a_connection_and_no_more() {
    let mut pool = varying();
    let job = pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    let shares = shares(&miner, &user, &job, 8192 + 10);
    let answers = answers(&mut miner, shares);
    let refused = answers.iter().filter(|answer| answer["error"][0] == 20).count();
    assert_eq!((answers.len(), refused), (8192 + 10, 10));
}

/// A miner that reconnects again and again begins at the start difficulty each time.
#[test]
fn thousands_of_shares_that_are_too_easy_are_an_offence_over_all_connections() {
    let mut pool = varying();
    let job = pool.job(Pool::hard_template(1));
    let peer: SocketAddr = "9.9.9.9:1".parse().unwrap();
    for is_banned in [false, true] {
        // Six offences each.
        let slot = pool.shared.slots.take(peer.ip()).unwrap();
        let mut miner = pool.introduce(Miner::new(Arc::clone(&pool.shared), slot, peer));
        let mut shares = shares(&miner, &pool.user(), &job, 8192);
        let rest = shares.split_off(8);
        assert_eq!(accepted(&answers(&mut miner, shares)), 8);
        // However slow this machine is.
        miner.sent[0].until = Some(Instant::now() + std::time::Duration::from_secs(3600));
        assert_eq!(accepted(&answers(&mut miner, rest)), 8192 - 8, "they are shares all the same");
        assert_eq!(pool.shared.bans.count(Instant::now()) > 0, is_banned);
    }
}

#[test]
fn a_minimum_far_above_the_start_does_not_switch_vardiff_off() {
    let least = EASY * 128.0;
    let minimum = |value: f64| {
        let options = json!({"minimum-difficulty.value": value});
        json!({"id": 1, "method": "mining.configure", "params": [["minimum-difficulty"], options]})
    };
    let wish = json!({"id": 1, "method": "mining.suggest_difficulty", "params": [EASY / 4.0]});
    for asked in [vec![minimum(least)], vec![minimum(least), wish.clone()], vec![wish, minimum(least)]] {
        let mut pool = varying();
        pool.job(Pool::hard_template(1));
        let (mut miner, user) = (pool.ready(), pool.user());
        asked.into_iter().for_each(|call| drop(say(&mut miner, call)));
        let job = Arc::clone(&miner.sent.back().unwrap().job);
        assert!(is_about(&json!(miner.sent.back().unwrap().difficulty.get()), least));
        let shares = shares_at(least, &miner, &user, &job, 12);
        let said: Vec<Value> = shares.into_iter().flat_map(|share| say(&mut miner, share)).collect();
        let told = last_told(&said).expect("a harder job").as_f64().unwrap();
        assert!(told >= least * 4.0, "{told}: {said:?}");
        // Without further shares the difficulty falls to the minimum, and below it once the client asks for less.
        let ease = |miner: &mut Miner| {
            while let Some(silent) = miner.silent_from() {
                miner.on_silence(silent);
            }
            miner.wanted().get()
        };
        assert!(is_about(&json!(ease(&mut miner)), least));
        say(&mut miner, minimum(EASY));
        assert!(is_about(&json!(ease(&mut miner)), EASY));
    }
}
