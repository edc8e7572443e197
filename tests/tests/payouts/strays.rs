//! Who has a job without transactions can send its block to a node alone, and be paid by its coinbase what the pool still
//! owes: the pool must notice, and owe it no more, whatever happened to it since it made the job.

use bitcoin::consensus::encode::serialize_hex;
use iop_consensus::address::Address;
use iop_tests::chain::devnet_like;
use iop_tests::program::wait_for;
use iop_tests::stand::{Pool, new_address};
use iop_tests::worker::{Job, Share, Worker};
use serde_json::{Value, json};

use super::{SOON, Stand, number};

/// What happens between the job and its block.
enum Meanwhile {
    Nothing,
    Killed,
    /// Killed, and the chapter decides otherwise.
    Scheme(&'static str),
    /// Killed, and another license takes the place of the one that signed.
    License,
    /// Killed, and a block of the same job that was handed in is orphaned.
    Orphaned,
}

/// Of 50 coins 20 are the member's, who is paid when it is owed 35. The first block's reward is another.
fn config(scheme: &str) -> String {
    format!(
        "payout = \"{scheme}\"\nfee = 0.6\nmin_payout = 3500000000\nstart_difficulty = 1e-7\n\
         min_difficulty = 1e-9\nvardiff = false\n"
    )
}

struct Stray {
    stand: Stand,
    member: String,
}

impl Stray {
    fn start(scheme: &str) -> (Self, Pool, Worker) {
        let mut stand = Stand::start(&devnet_like("strays", "0000ffff", ""), &config(scheme));
        stand.licenses.truncate(1);
        let (pool, member) = (stand.pool(), new_address(stand.path(), &stand.network));
        let stray = Self { stand, member };
        let worker = stray.worker();
        (stray, pool, worker)
    }

    fn worker(&self) -> Worker {
        Worker::connect(&self.stand.stratum, &format!("{}.rig", self.member))
    }

    fn tip(&self) -> String {
        self.stand.node.rpc.call("getbestblockhash", json!([])).as_str().unwrap().to_owned()
    }

    fn pays_member(&self, worker: &Worker, job: &Job) -> bool {
        let script = Address::parse(&self.member, &self.stand.params.prefixes).unwrap().script_pubkey();
        worker.paid(job).iter().any(|(payee, _)| *payee == script)
    }

    /// Sends the block of a share to the node alone; gives its hash.
    fn send_alone(&self, worker: &Worker, job: &Job, share: &Share) -> String {
        let block = worker.whole_block(job, share);
        let answer = self.stand.node.rpc.call("submitblock", json!([serialize_hex(&block)]));
        assert_eq!((answer, self.tip()), (Value::Null, block.block_hash().to_string()));
        block.block_hash().to_string()
    }

    /// Who found a block, by the pool's books, as soon as it is there and in the chain.
    fn finder(&self, pool: &Pool, hash: &str) -> String {
        let listed = wait_for(SOON, || {
            let blocks = pool.api("payouts")["blocks"].as_array().unwrap().clone();
            blocks.into_iter().find(|one| one["hash"] == hash && one["state"] == "immature")
        });
        let listed = listed.unwrap_or_else(|| panic!("it is not in the books: {}", pool.program.log()));
        listed["finder"].as_str().unwrap().to_owned()
    }

    /// So many blocks are in the books, and nothing is wrong with them.
    fn audit(&self, blocks: u64) {
        let audit = self.stand.audit();
        assert_eq!((number(&audit["blocks"]), number(&audit["compared"])), (blocks, blocks), "{audit}");
        assert_eq!(audit["unbooked"], json!([]));
    }
}

fn is_taken_into_the_books(scheme: &str, meanwhile: &Meanwhile) {
    let (mut stray, pool, mut worker) = Stray::start(scheme);
    // Blocks are handed in until enough is owed.
    let mut height = 0;
    let job = loop {
        let job = worker.job_on(&stray.tip());
        if height > 0 && stray.pays_member(&worker, &job) {
            break job;
        }
        let share = worker.solve_block(&job);
        assert_eq!(worker.submit(&share), 0);
        height += 1;
        assert!(height < 5, "nothing is owed after {height} blocks");
        stray.stand.wait_for_height(height);
    };
    let mut share = worker.solve_block(&job);
    if let Meanwhile::Orphaned = meanwhile {
        assert_eq!(worker.submit(&share), 0);
        stray.stand.wait_for_height(height + 1);
        stray.finder(&pool, &stray.tip());
        share = worker.solve_block(&job);
    }
    let running = match meanwhile {
        Meanwhile::Nothing => Some(pool),
        _ => {
            pool.program.kill();
            None
        }
    };
    match meanwhile {
        Meanwhile::Scheme(other) => std::fs::write(&stray.stand.config, config(other)).unwrap(),
        Meanwhile::License => {
            stray.stand.licenses = vec![stray.stand.path().join("keys/license-3.wif")];
        }
        Meanwhile::Orphaned => {
            stray.stand.node.rpc.call("invalidateblock", json!([stray.tip()]));
        }
        Meanwhile::Nothing | Meanwhile::Killed => {}
    }
    let hash = stray.send_alone(&worker, &job, &share);
    if let Meanwhile::Killed = meanwhile {
        let audit = stray.stand.audit();
        assert_eq!((&audit["unbooked"][0]["hash"], &audit["unbooked"][1]), (&json!(hash), &Value::Null));
    }
    let pool = running.unwrap_or_else(|| {
        let pool = stray.stand.pool();
        worker = stray.worker();
        pool
    });
    // Nothing is owed now, from the first job on.
    let job = worker.job_on(&stray.tip());
    assert!(!stray.pays_member(&worker, &job), "{:?}", worker.paid(&job));
    let finder = if scheme == "solo" { &stray.member[..] } else { "not handed in" };
    assert_eq!(stray.finder(&pool, &hash), finder);
    // Handed in after all, it is no second block.
    assert!([0, 21].contains(&worker.submit(&share)));
    let share = worker.solve_block(&job);
    assert_eq!(worker.submit(&share), 0);
    stray.stand.wait_for_height(height + 2);
    assert!(stray.stand.coinbase(height + 2).iter().all(|(payee, _)| *payee != stray.member));
    pool.program.stop();
    let orphaned = u64::from(matches!(meanwhile, Meanwhile::Orphaned));
    stray.audit(height + 2 + orphaned);
}

#[test]
fn a_block_that_nobody_handed_in_is_taken_into_the_books() {
    is_taken_into_the_books("pplns", &Meanwhile::Nothing);
}

#[test]
fn so_is_that_of_one_who_mines_alone() {
    is_taken_into_the_books("solo", &Meanwhile::Nothing);
}

#[test]
fn so_they_are_where_the_pool_was_killed_meanwhile() {
    is_taken_into_the_books("pplns", &Meanwhile::Killed);
    is_taken_into_the_books("solo", &Meanwhile::Killed);
}

#[test]
fn a_block_of_an_earlier_run_is_split_as_its_job_said() {
    is_taken_into_the_books("pplns", &Meanwhile::Scheme("solo"));
    is_taken_into_the_books("solo", &Meanwhile::Scheme("pplns"));
}

#[test]
fn a_license_that_is_no_longer_the_pools_has_signed_blocks_all_the_same() {
    is_taken_into_the_books("pplns", &Meanwhile::License);
}

#[test]
fn one_that_takes_the_place_of_an_orphaned_one_is_found_after_a_restart() {
    is_taken_into_the_books("pplns", &Meanwhile::Orphaned);
}

/// Nobody has worked, so it pays the chapter alone as any program that mines with the license does: its number tells.
#[test]
fn the_very_first_block_is_found_after_a_restart() {
    let (stray, pool, mut worker) = Stray::start("pplns");
    let job = worker.job_on(&stray.tip());
    let share = worker.solve_block(&job);
    pool.program.kill();
    let hash = stray.send_alone(&worker, &job, &share);
    let pool = stray.stand.pool();
    assert_eq!(stray.finder(&pool, &hash), "not handed in");
    pool.program.stop();
    stray.audit(1);
}
