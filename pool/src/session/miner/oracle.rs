//! Verdicts against an oracle: random and mutated submits pass through the whole path from line to reply. An
//! independent implementation of the rules in `docs/pool.md`, with headers rebuilt by the `bitcoin` crate, predicts the
//! reply. `IOP_SUBMITS=10000000` for a long run.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::{Hash, sha256d as double};
use bitcoin::{BlockHash, CompactTarget, Target as BlockTarget, Transaction, TxMerkleNode};

use super::tests::*;
use super::*;

/// Submits of one job: fewer than the shares it may have.
const PER_JOB: usize = 4000;
/// Submits between two checks for commits.
const PER_COMMIT: usize = 200;

/// xorshift64*: the same sequence in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

/// A job as the miner received it.
struct Told {
    id: String,
    coinbase: [String; 2],
    branches: Vec<[u8; 32]>,
    parent: BlockHash,
    version: u32,
    bits: u32,
    min_time: u32,
    /// Headers that counted.
    counted: HashSet<[u8; 32]>,
}

impl Told {
    fn new(line: &serde_json::Value, template: &iop_mining::template::Template) -> Self {
        let text = |index: usize| line["params"][index].as_str().unwrap().to_owned();
        let number = |index| u32::from_str_radix(&text(index), 16).unwrap();
        let branch = |value: &serde_json::Value| -> [u8; 32] {
            hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
        };
        Self {
            id: text(0),
            coinbase: [text(2), text(3)],
            branches: line["params"][4].as_array().unwrap().iter().map(branch).collect(),
            parent: template.parent,
            version: number(5),
            bits: number(6),
            min_time: template.min_time,
            counted: HashSet::new(),
        }
    }

    fn hash(&self, extranonces: &str, ntime: u32, nonce: u32, rolled: u32) -> BlockHash {
        let coinbase = format!("{}{extranonces}{}", self.coinbase[0], self.coinbase[1]);
        let coinbase: Transaction = bitcoin::consensus::deserialize(&hex::decode(coinbase).unwrap()).unwrap();
        let mut root = coinbase.compute_txid().to_byte_array();
        for branch in &self.branches {
            root = double::Hash::hash(&[root, *branch].concat()).to_byte_array();
        }
        let header = Header {
            version: BlockVersion::from_consensus((self.version | rolled) as i32),
            prev_blockhash: self.parent,
            merkle_root: TxMerkleNode::from_byte_array(root),
            time: ntime,
            bits: CompactTarget::from_consensus(self.bits),
            nonce,
        };
        header.block_hash()
    }
}

/// A submit's parameters as text; `None` for one that is missing or not text.
#[derive(Debug, Clone)]
struct Tried {
    user: Option<String>,
    job: Option<String>,
    extranonce2: Option<String>,
    ntime: Option<String>,
    nonce: Option<String>,
    bits: Option<Option<String>>,
}

impl Tried {
    fn random(random: &mut Random, user: &str, jobs: &[Told], now: u32) -> Self {
        let mut change = |usual: String, others: &[&str]| match random.below(40) {
            0 => Some(random.one(others).to_owned()),
            1 if random.below(4) == 0 => None,
            2 => Some(usual.to_uppercase()),
            _ => Some(usual),
        };
        let wrong_user = format!("{user}x");
        let user = change(user.to_owned(), &[&wrong_user, "", "nobody"]);
        let extranonce2 =
            change("%".to_owned(), &["", "00", "0000000000000000aa", "zz00000000000000", "+000000000000000"]);
        let ntime = change("%".to_owned(), &["", "0", "000000000", "zzzzzzzz", "00000000", "ffffffff"]);
        let nonce =
            change("%".to_owned(), &["", "0", "ab", "ABC", "000000000", "zzzzzzzz", "+1", "ffffffff"]);
        let bits =
            change("%".to_owned(), &["", "0", "2000", "00000001", "20000000", "ffffffff", "zz", "000002000"]);
        // Small ranges, so that shares repeat.
        let job = &jobs[random.below(jobs.len() as u64) as usize].id;
        let job = if random.below(50) == 0 {
            random.one(&["0", "", "feed", "1\\u0000"]).to_owned()
        } else {
            job.clone()
        };
        let times = [
            jobs[0].min_time,
            jobs[0].min_time - 1,
            jobs[0].min_time + 900,
            jobs[0].min_time + 901,
            now + 5000,
        ];
        let weights = [2, 1, 30, 30, 1u64];
        let mut pick = random.below(weights.iter().sum());
        let place = weights.iter().position(|&weight| {
            let here = pick < weight;
            pick = pick.saturating_sub(weight);
            here
        });
        let time = times[place.unwrap()];
        let fill =
            |field: Option<String>, usual: String| field.map(|text| if text == "%" { usual } else { text });
        let rolled = (random.below(4) as u32) << 13;
        let bits = if random.below(2) == 0 { None } else { Some(fill(bits, format!("{rolled:08x}"))) };
        Self {
            user,
            job: (random.below(200) != 0).then_some(job),
            extranonce2: fill(extranonce2, format!("{:016x}", random.below(16))),
            ntime: fill(ntime, format!("{time:08x}")),
            nonce: fill(nonce, format!("{:08x}", random.below(512))),
            bits,
        }
    }

    fn line(&self, id: usize) -> String {
        let mut params = Vec::new();
        for field in [&self.user, &self.job, &self.extranonce2, &self.ntime, &self.nonce] {
            params.push(field.as_ref().map_or("7".to_owned(), |text| format!("\"{text}\"")));
        }
        if let Some(bits) = &self.bits {
            params.push(bits.as_ref().map_or("null".to_owned(), |text| format!("\"{text}\"")));
        }
        format!("{{\"id\":{id},\"method\":\"mining.submit\",\"params\":[{}]}}", params.join(","))
    }

    /// The error code that the reply must have; 0 for a share that counts.
    fn expected(
        &self,
        user: &str,
        extranonce1: &str,
        jobs: &mut [Told],
        target: &BlockTarget,
        rolls: bool,
        now: u32,
    ) -> u64 {
        let hex = |text: &str, least: usize, most: usize| -> Option<u64> {
            let fits =
                (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| u64::from_str_radix(text, 16).unwrap())
        };
        // The user is checked first, then the fields, the job, its time, the target, and whether the share is new.
        let Some(found) = &self.user else { return 20 };
        if found != user {
            return 24;
        }
        let Some(job) = self.job.as_deref().filter(|job| !job.is_empty()) else { return 20 };
        let Some(extranonce2) = self.extranonce2.as_deref().and_then(|text| hex(text, 16, 16)) else {
            return 20;
        };
        let Some(ntime) = self.ntime.as_deref().and_then(|text| hex(text, 8, 8)) else { return 20 };
        let Some(nonce) = self.nonce.as_deref().and_then(|text| hex(text, 1, 8)) else { return 20 };
        let rolled = match &self.bits {
            None | Some(None) => 0,
            Some(Some(text)) if text.is_empty() => 0,
            Some(Some(text)) => match hex(text, 1, 8) {
                Some(bits) if bits & !if rolls { 0x1fff_e000 } else { 0 } == 0 => bits,
                _ => return 20,
            },
        };
        let Some(told) = jobs.iter_mut().find(|told| told.id == job) else { return 21 };
        let (ntime, nonce, rolled) = (ntime as u32, nonce as u32, rolled as u32);
        if ntime < told.min_time || ntime > now + 2000 {
            return 20;
        }
        let hash = told.hash(&format!("{extranonce1}{extranonce2:016x}"), ntime, nonce, rolled);
        if !target.is_met_by(hash) {
            return 23;
        }
        if told.counted.insert(hash.to_byte_array()) { 0 } else { 22 }
    }
}

#[test]
fn random_submits_get_the_verdicts_that_the_rules_say() {
    let all = std::env::var("IOP_SUBMITS").ok().and_then(|text| text.parse().ok()).unwrap_or(40_000usize);
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut pool = Pool::new();
    let user = pool.user();
    let mut verdicts = std::collections::BTreeMap::<u64, usize>::new();
    let mut done = 0;
    while done < all {
        let (asks, rolls) = [(true, true), (false, true), (true, false)][random.below(3) as usize];
        let mut template = Pool::hard_template(1 + (done / PER_JOB) as u32);
        template.txids = (0..random.below(6)).map(|_| [random.next() as u8; 32]).collect();
        pool.new_tip();
        let first = pool.job(template.clone());
        let mut miner = match (asks, rolls) {
            (false, _) => pool.ready_unasked(),
            (true, true) => pool.ready(),
            (true, false) => pool.ready_without_rolling(),
        };
        let second = pool.job(template.clone());
        pool.tell(&mut miner);
        let line = |job: &Job| serde_json::from_slice(&job.line(false)).unwrap();
        let mut jobs = [Told::new(&line(&first), &template), Told::new(&line(&second), &template)];
        let target = iop_stratum::difficulty::Target::from_difficulty(pool.shared.difficulty.start);
        let target = BlockTarget::from_be_bytes(target.to_be_bytes());
        let extranonce1 = miner.session.extranonce1().to_string();
        for _ in 0..PER_JOB / PER_COMMIT {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
            let tried: Vec<Tried> =
                (0..PER_COMMIT).map(|_| Tried::random(&mut random, &user, &jobs, now)).collect();
            let mut expected = Vec::with_capacity(PER_COMMIT);
            for (id, one) in tried.iter().enumerate() {
                expected.push(one.expected(&user, &extranonce1, &mut jobs, &target, rolls, now));
                miner.on_line(one.line(id).as_bytes()).unwrap();
            }
            let mut found = vec![None; PER_COMMIT];
            for answer in committed(&mut miner) {
                let code = if answer["result"] == true { Some(0) } else { answer["error"][0].as_u64() };
                let place = &mut found[answer["id"].as_u64().unwrap() as usize];
                assert!(place.replace(code.unwrap()).is_none(), "answered twice: {answer}");
            }
            for ((one, expected), found) in tried.iter().zip(expected).zip(found) {
                assert_eq!(found, Some(expected), "{one:?}, rolling {rolls}, job {:?}", jobs[0].id);
                *verdicts.entry(expected).or_default() += 1;
            }
        }
        done += PER_JOB;
    }
    println!("{done} submits, 0 wrong verdicts: {verdicts:?}");
    // The rarest case, a duplicate, is one in a thousand: 40 of 40,000, and never fewer than 5 by chance.
    for code in [0, 20, 21, 22, 23, 24] {
        assert!(verdicts.get(&code).is_some_and(|&count| count > done / 10_000), "{code}: {verdicts:?}");
    }
}
