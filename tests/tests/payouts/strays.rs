//! A miner with a job without transactions can send its block to a node itself, and its coinbase pays out what the pool
//! owed: the pool must notice and owe it no more, whatever happened to the pool since it made the job.

use std::path::Path;

use bitcoin::Block;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::script::{Builder, Instruction};
use iop_consensus::address::Address;
use iop_tests::chain::{devnet_like, generate};
use iop_tests::program::wait_for;
use iop_tests::stand::{Pool, new_address};
use iop_tests::worker::{Job, Share, Worker};
use serde_json::{Value, json};

use super::{SOON, Stand, number};

/// Events between the job and its block.
enum Meanwhile {
    Nothing,
    Killed,
    /// The pool is killed, and the chapter chooses another scheme.
    Scheme(&'static str),
    /// The pool is killed, and another license replaces the one that signed.
    License,
    /// The pool is killed, and a submitted block of the same job is orphaned.
    Orphaned,
    /// The pool is killed, and the chain grows by more than a pool looks back.
    Long,
}

/// Of 50 coins 20 are the member's, which is paid once it is owed 35. The first block's reward is different.
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

    fn path(&self) -> &Path {
        self.stand.path()
    }

    fn tip(&self) -> String {
        self.stand.node.rpc.call("getbestblockhash", json!([])).as_str().unwrap().to_owned()
    }

    fn pays_member(&self, worker: &Worker, job: &Job) -> bool {
        let script = Address::parse(&self.member, &self.stand.params.prefixes).unwrap().script_pubkey();
        worker.paid(job).iter().any(|(payee, _)| *payee == script)
    }

    /// Finds a block and submits it.
    fn hand_in(&self, worker: &mut Worker, height: u64) {
        let job = worker.job_on(&self.tip());
        let share = worker.solve_block(&job);
        assert_eq!(worker.submit(&share), 0);
        self.stand.wait_for_height(height);
    }

    /// Submits blocks until a job pays the member; returns that job and the height of its parent.
    fn job_that_pays(&self, worker: &mut Worker) -> (Job, u64) {
        for height in 0..5 {
            let job = worker.job_on(&self.tip());
            if height > 0 && self.pays_member(worker, &job) {
                return (job, height);
            }
            self.hand_in(worker, height + 1);
        }
        panic!("nothing is owed after five blocks");
    }

    /// Sends the block of a share to the node only; returns its hash.
    fn send_alone(&self, worker: &Worker, job: &Job, share: &Share) -> String {
        self.send(&worker.whole_block(job, share))
    }

    fn send(&self, block: &Block) -> String {
        let answer = self.stand.node.rpc.call("submitblock", json!([serialize_hex(block)]));
        assert_eq!((answer, self.tip()), (Value::Null, block.block_hash().to_string()));
        block.block_hash().to_string()
    }

    /// Blocks of another license, unknown to the pool.
    fn others_mine(&self, blocks: u32) {
        let key = self.path().join("keys/license-2.wif");
        generate(&self.stand.node.rpc, blocks, &key, &self.stand.params);
    }

    /// The finder of a block in the pool's books, once it is there and in the chain.
    fn finder(&self, pool: &Pool, hash: &str) -> String {
        let listed = wait_for(SOON, || {
            let blocks = pool.api("payouts")["blocks"].as_array().unwrap().clone();
            blocks.into_iter().find(|one| one["hash"] == hash && one["state"] != "orphaned")
        });
        let listed = listed.unwrap_or_else(|| panic!("it is not in the books: {}", pool.program.log()));
        listed["finder"].as_str().unwrap().to_owned()
    }

    /// Asserts that this many blocks are in the books, without mistakes.
    fn audit(&self, blocks: u64) {
        let audit = self.stand.audit();
        assert_eq!((number(&audit["blocks"]), number(&audit["compared"])), (blocks, blocks), "{audit}");
        assert_eq!(audit["unbooked"], json!([]));
    }
}

/// The same coinbase outputs, with their signature, on top of another block.
fn moved(block: &Block, parent: &str, height: i64) -> Block {
    let mut block = block.clone();
    let coinbase = &mut block.txdata[0];
    let mut script = Builder::new();
    for (place, instruction) in coinbase.input[0].script_sig.instructions().enumerate() {
        script = match instruction.unwrap() {
            // Signature, height, number, extranonces.
            _ if place == 1 => script.push_int(height),
            Instruction::PushBytes(bytes) => script.push_slice(bytes),
            Instruction::Op(code) => script.push_opcode(code),
        };
    }
    coinbase.input[0].script_sig = script.into_script();
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    block.header.prev_blockhash = parent.parse().unwrap();
    block.header.time += 600; // above the median time of blocks found in quick succession
    while !block.header.target().is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    block
}

fn is_taken_into_the_books(scheme: &str, meanwhile: &Meanwhile) {
    let (mut stray, pool, mut worker) = Stray::start(scheme);
    let (job, height) = stray.job_that_pays(&mut worker);
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
            stray.stand.licenses = vec![stray.path().join("keys/license-3.wif")];
        }
        Meanwhile::Orphaned => {
            stray.stand.node.rpc.call("invalidateblock", json!([stray.tip()]));
        }
        Meanwhile::Nothing | Meanwhile::Killed | Meanwhile::Long => {}
    }
    let hash = stray.send_alone(&worker, &job, &share);
    let later = if let Meanwhile::Long = meanwhile { 110 } else { 0 };
    stray.others_mine(later);
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
    // Submitting it afterwards makes no second block.
    assert!([0, 21].contains(&worker.submit(&share)));
    let share = worker.solve_block(&job);
    assert_eq!(worker.submit(&share), 0);
    let height = height + 1 + u64::from(later);
    stray.stand.wait_for_height(height + 1);
    assert!(stray.stand.coinbase(height + 1).iter().all(|(payee, _)| *payee != stray.member));
    pool.program.stop();
    let orphaned = u64::from(matches!(meanwhile, Meanwhile::Orphaned));
    stray.audit(height + 1 - u64::from(later) + orphaned);
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

#[test]
fn one_far_below_the_tip_is_found_after_a_restart() {
    is_taken_into_the_books("pplns", &Meanwhile::Long);
}

/// The license's signature covers neither parent nor height.
#[test]
fn a_jobs_outputs_on_a_newer_parent_are_taken_into_the_books_once() {
    let (stray, pool, mut worker) = Stray::start("pplns");
    let (job, height) = stray.job_that_pays(&mut worker);
    let share = worker.solve_block(&job);
    let block = worker.whole_block(&job, &share);
    // Another member's work comes in, so that later jobs pay differently.
    let mut other = Worker::connect(&stray.stand.stratum, &new_address(stray.path(), &stray.stand.network));
    let job = other.job();
    let share = other.solve(&job);
    assert_eq!(other.submit(&share), 0);
    stray.others_mine(1);
    let job = worker.job_on(&stray.tip());
    assert!(worker.paid(&job) != worker.paid(&worker.jobs[worker.jobs.len() - 2]));
    let height = i64::try_from(height).unwrap();
    let first = stray.send(&moved(&block, &stray.tip(), height + 2));
    let job = worker.job_on(&first);
    assert!(!stray.pays_member(&worker, &job), "{:?}", worker.paid(&job));
    assert_eq!(stray.finder(&pool, &first), "not handed in");
    // Nothing is owed any more, so the next one pays out of its own reward and does not change the books.
    let second = stray.send(&moved(&block, &first, height + 3));
    let job = worker.job_on(&second);
    assert!(!stray.pays_member(&worker, &job), "{:?}", worker.paid(&job));
    pool.program.stop();
    let audit = stray.stand.audit();
    assert_eq!(audit["blocks"], height + 1, "{audit}");
    assert_eq!((&audit["unbooked"][0]["hash"], &audit["unbooked"][1]), (&json!(second), &Value::Null));
}

/// No member has worked, so it pays the chapter alone, like any program that mines with the license: only its number
/// tells.
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

/// A member owed less than the minimum is not among the outputs. The number of its own job identifies it as the finder.
#[test]
fn a_block_that_does_not_pay_its_finder_is_the_finders_all_the_same() {
    let (stray, pool, mut worker) = Stray::start("solo");
    stray.hand_in(&mut worker, 1);
    let job = worker.job_on(&stray.tip());
    assert!(!stray.pays_member(&worker, &job));
    let share = worker.solve_block(&job);
    let hash = stray.send_alone(&worker, &job, &share);
    let job = worker.job_on(&hash);
    assert!(stray.pays_member(&worker, &job), "with this block's part it is owed enough");
    assert!([0, 21].contains(&worker.submit(&share)));
    assert_eq!(stray.finder(&pool, &hash), stray.member);
    let share = worker.solve_block(&job);
    assert_eq!(worker.submit(&share), 0);
    stray.stand.wait_for_height(3);
    assert_eq!(stray.stand.coinbase(3)[0], (stray.member.clone(), 4_000_000_000));
    pool.program.stop();
    stray.audit(3);
}

/// A later run does not know which member's job had a number; the payments to others are booked all the same.
#[test]
fn what_a_block_of_an_unknown_finder_pays_is_not_paid_again() {
    let (stray, pool, mut worker) = Stray::start("solo");
    stray.hand_in(&mut worker, 1);
    let restart = |pool: Pool, least: &str| {
        pool.program.kill();
        std::fs::write(&stray.stand.config, config("solo").replace("3500000000", least)).unwrap();
        stray.stand.pool()
    };
    let pool = restart(pool, "10000000000");
    let mut worker = stray.worker();
    (2..4).for_each(|height| stray.hand_in(&mut worker, height));
    let pool = restart(pool, "3500000000");
    let stranger = new_address(stray.path(), &stray.stand.network);
    let mut other = Worker::connect(&stray.stand.stratum, &stranger);
    let job = other.job_on(&stray.tip());
    assert!(stray.pays_member(&other, &job), "the member, not the finder");
    let share = other.solve_block(&job);
    pool.program.kill();
    let hash = stray.send_alone(&other, &job, &share);
    let pool = stray.stand.pool();
    let mut worker = stray.worker();
    let job = worker.job_on(&hash);
    assert!(!stray.pays_member(&worker, &job), "{:?}", worker.paid(&job));
    assert_eq!(stray.finder(&pool, &hash), "not handed in");
    pool.program.stop();
    stray.audit(4);
}
