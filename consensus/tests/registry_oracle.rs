//! The incremental registry against an oracle: the licensing rules implemented a second time from `IOP_CONSENSUS.md`,
//! computed from the whole list of blocks at every step, also after blocks were undone.
//!
//! The oracle shares no code with the registry. It represents a block as a miner's number and the intended admin
//! transactions; the registry is given real transactions, with all the odd forms that scripts allow.

#![allow(clippy::unwrap_used)]

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, absolute, transaction,
};
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::error::LicenseError;
use iop_consensus::license::registry::{Registry, RegistryUndo};
use iop_consensus::params::{History, Params};

const ADMIN: usize = 0;
const THIRD_ADMIN: usize = 1;
const SCRIPT_HASH: usize = 9;
/// Licenses used in the cases; one is the admin's, one a script's.
const LICENSES: usize = 10;
/// The admin key on every network below height 38304.
const OLD_ADMIN: &str = "038f21c88b0d7f60e736cc447a3a6716c81a7b403b27bede2b67522d7c29b6e608";

/// SplitMix64: small, with the same sequence everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// A made-up public key; the registry looks only at its encoding.
fn pubkey(n: usize) -> Vec<u8> {
    let mut key = vec![n as u8; 33];
    key[0] = 2;
    key
}

fn address(n: usize) -> Address {
    match n {
        SCRIPT_HASH => Address { kind: AddressKind::ScriptHash, hash: [6; 20] },
        n => Address::of_pubkey(&pubkey(n)),
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Verb {
    Add,
    Remove,
    Enable(u8),
    Disable,
    Nothing,
}

/// An admin transaction as intended: it acts `times` (once for each admin input) on each target.
#[derive(Clone, Debug)]
struct Action {
    verb: Verb,
    targets: Vec<usize>,
    times: usize,
}

#[derive(Clone, Debug)]
struct Facts {
    miner: usize,
    actions: Vec<Action>,
}

/// The parameters of the rules, named as in `IOP_CONSENSUS.md`.
struct Rules {
    activation: u32,
    change: u32,
    factor: Option<u32>,
    whitelisted_at: Option<(u32, usize)>,
    third_admin_until: u32,
    fewer_below: u32,
    too_fast_above: Option<u32>,
}

/// The state after all blocks, computed from scratch.
struct Plain {
    known: [bool; LICENSES],
    whitelisted: [bool; LICENSES],
    cap: Option<u32>,
    window: [u32; LICENSES],
    total: [u32; LICENSES],
    last: [u32; LICENSES],
    height: u32,
}

impl Plain {
    fn of(blocks: &[Facts], rules: &Rules) -> Self {
        let height = blocks.len() as u32;
        let mut plain = Self {
            known: [false; LICENSES],
            whitelisted: [false; LICENSES],
            cap: rules.factor,
            window: [0; LICENSES],
            total: [0; LICENSES],
            last: [0; LICENSES],
            height,
        };
        for n in [ADMIN, THIRD_ADMIN] {
            (plain.known[n], plain.whitelisted[n]) = (true, true);
        }
        let from = window_start(height, rules);
        for (block, h) in blocks.iter().zip(1u32..) {
            if h > rules.activation {
                plain.total[block.miner] += 1;
                plain.last[block.miner] = h;
                if h >= from {
                    plain.window[block.miner] += 1;
                }
                if let Some((_, n)) = rules.whitelisted_at.filter(|(at, _)| *at == h) {
                    (plain.known[n], plain.whitelisted[n]) = (true, true);
                }
            }
            block.actions.iter().filter(|action| action.times > 0).for_each(|action| plain.act(action));
        }
        plain
    }

    fn act(&mut self, action: &Action) {
        for &n in &action.targets {
            match action.verb {
                Verb::Enable(factor) => self.cap = Some(u32::from(factor)),
                Verb::Disable => self.cap = None,
                Verb::Add | Verb::Remove if n != ADMIN => {
                    self.known[n] = true;
                    self.whitelisted[n] = action.verb == Verb::Add;
                }
                _ => {}
            }
        }
    }

    fn sharers(&self, rules: &Rules) -> u32 {
        let count = self.whitelisted.iter().filter(|listed| **listed).count() as u32;
        if self.height < rules.fewer_below { count - 1 } else { count }
    }

    fn cap(&self, rules: &Rules) -> u32 {
        let (factor, n) = (self.cap.unwrap_or(0), self.sharers(rules));
        // The reference would divide by zero here.
        if n == 0 {
            return 2016;
        }
        if self.height < rules.change { factor * (2016 / n) } else { factor * 2016 / n }
    }

    /// The verdict on a block of this license on top.
    fn verdict(&self, n: usize, rules: &Rules) -> &'static str {
        if !self.whitelisted[n] {
            return "bad-CB-miner";
        }
        let spared = n == ADMIN || (n == THIRD_ADMIN && self.height < rules.third_admin_until);
        if self.cap.is_none() || spared {
            return "";
        }
        let (cap, blocks) = (self.cap(rules), self.window[n]);
        if blocks == cap + 1 && self.height < rules.change && self.last[n] == self.height {
            return "";
        }
        let too_fast =
            rules.too_fast_above.is_some_and(|above| self.height > above && self.height - 1 <= self.last[n]);
        if blocks > cap || too_fast { "bad-CAP-miner" } else { "" }
    }
}

/// The lowest height that counts in the window at `height`. Up to the change height a window starts after the last
/// multiple of 2016; from then on it is the last 2016 blocks, but none that the old system had dropped.
fn window_start(height: u32, rules: &Rules) -> u32 {
    let last_reset_below = |h: u32| h / 2016 * 2016;
    if height < rules.change {
        last_reset_below(height) + 1
    } else {
        (height + 1).saturating_sub(2016).max(last_reset_below(rules.change.saturating_sub(1)) + 1)
    }
}

fn push(script: &mut Vec<u8>, data: &[u8], form: usize) {
    match form {
        0 => script.push(data.len() as u8),
        1 => script.extend([0x4c, data.len() as u8]),
        _ => script.extend([0x4d, data.len() as u8, 0]),
    }
    script.extend(data);
}

/// A script whose last data is `data`, in one of many forms.
fn ending_in(data: &[u8], random: &mut Random) -> Vec<u8> {
    let mut script = match random.below(6) {
        0 => vec![0x61],
        1 => vec![0x51, 0x02, 9, 9],
        // A truncated push: its opcode is skipped and reading continues.
        2 => vec![0x4b],
        _ => vec![],
    };
    push(&mut script, data, random.below(3));
    script
}

/// An output script that pays a license's address, in one of the forms with an address.
fn paying(n: usize, random: &mut Random) -> Vec<u8> {
    if n == SCRIPT_HASH {
        return [&[0xa9, 20][..], &[6; 20], &[0x87]].concat();
    }
    let mut script = Vec::new();
    if random.below(3) == 0 {
        push(&mut script, &pubkey(n), random.below(3));
        script.push(0xac);
    } else {
        script.extend([0x76, 0xa9]);
        push(&mut script, &address(n).hash, random.below(3));
        script.extend([0x88, 0xac]);
    }
    script
}

/// An output without an address: a witness program, a bare multisig, a wrong opcode, data, a key of unknown form.
fn paying_nobody(random: &mut Random) -> Vec<u8> {
    match random.below(5) {
        0 => [&[0x00, 20][..], &[6; 20]].concat(),
        1 => [&[0x51, 33][..], &pubkey(3), &[0x51, 0xae]].concat(),
        2 => [&[0x76, 0xa9, 20][..], &address(3).hash, &[0x88, 0xac, 0x61]].concat(),
        3 => [&[0x6a, 20][..], &address(3).hash].concat(),
        _ => [&[33, 5][..], &pubkey(3)[1..], &[0xac]].concat(),
    }
}

fn transaction(inputs: Vec<Vec<u8>>, outputs: Vec<Vec<u8>>) -> Transaction {
    let input = |script: Vec<u8>| TxIn {
        previous_output: OutPoint::null(),
        script_sig: ScriptBuf::from_bytes(script),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let output =
        |script: Vec<u8>| TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) };
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: inputs.into_iter().map(input).collect(),
        output: outputs.into_iter().map(output).collect(),
    }
}

/// A random admin transaction, as intended and as encoded.
fn admin_transaction(height: u32, random: &mut Random) -> (Action, Transaction) {
    let (verb, mut data) = match random.below(8) {
        0 | 1 => (Verb::Add, b"add".to_vec()),
        2 | 3 => (Verb::Remove, b"rem".to_vec()),
        4 => (Verb::Disable, b"disable_cap".to_vec()),
        5 | 6 => {
            let byte = random.below(256) as u8;
            // The last hex digit as a character: '0' is 0, 'a' is 49.
            let digit = byte & 15;
            let factor = if digit < 10 { digit } else { digit - 10 + 49 };
            (Verb::Enable(factor), [&b"enable_cap:"[..], &[byte]].concat())
        }
        _ => (
            Verb::Nothing,
            [&b"Add"[..], b"enable_cap:", b"enable_cap:11", b"rem "][random.below(4)].to_vec(),
        ),
    };
    let mut verb_script = [vec![0x6a], ending_in(&data, random)].concat();
    let mut verb = verb;
    match random.below(12) {
        // Anything after the verb, or no OP_RETURN before it, makes it invalid.
        0 => (verb, verb_script) = (Verb::Nothing, [verb_script, vec![0x61]].concat()),
        1 => (verb, verb_script) = (Verb::Nothing, ending_in(&std::mem::take(&mut data), random)),
        2 => (verb, verb_script) = (Verb::Nothing, vec![]),
        _ => {}
    }
    let targets: Vec<usize> = (0..random.below(5)).map(|_| random.below(LICENSES)).collect();
    let mut outputs = vec![verb_script];
    for &n in &targets {
        if random.below(3) == 0 {
            outputs.push(paying_nobody(random));
        }
        outputs.push(paying(n, random));
    }
    let (mut inputs, mut times) = (Vec::new(), 0);
    for _ in 0..1 + random.below(3) {
        let old_admin = hex::decode(OLD_ADMIN).unwrap();
        inputs.push(match random.below(6) {
            0 => ending_in(&pubkey(4), random),
            1 => [ending_in(&pubkey(ADMIN), random), vec![0x61]].concat(),
            2 => {
                times += usize::from(height < 38_304);
                ending_in(&old_admin, random)
            }
            _ => {
                times += 1;
                ending_in(&pubkey(ADMIN), random)
            }
        });
    }
    (Action { verb, targets, times }, transaction(inputs, outputs))
}

fn block(facts: &Facts, transactions: Vec<Transaction>, random: &mut Random) -> Block {
    let mut script = vec![3, 1, 2, 3];
    push(&mut script, &pubkey(facts.miner), random.below(3));
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::from_consensus(0),
        nonce: 0,
    };
    let coinbase = transaction(vec![script], vec![vec![]]);
    Block { header, txdata: std::iter::once(coinbase).chain(transactions).collect() }
}

impl Rules {
    fn params(&self) -> Params {
        let mut params = Params::devnet();
        params.license.activation_height = self.activation;
        params.license.cap_change_height = self.change;
        params.license.admin_pubkeys = vec![pubkey(ADMIN)];
        params.license.admin_addresses = vec![address(ADMIN)];
        params.license.initial_licenses = vec![address(THIRD_ADMIN)];
        params.license.initial_cap_factor = self.factor;
        params.license.history = History {
            whitelisted_at: self.whitelisted_at.iter().map(|&(at, n)| (at, address(n))).collect(),
            exempt_below: Some((address(THIRD_ADMIN), self.third_admin_until)),
            one_license_fewer_below: self.fewer_below,
            too_fast_above: self.too_fast_above,
        };
        params
    }
}

fn compare(registry: &Registry, plain: &Plain, rules: &Rules, params: &Params) {
    let (globals, height) = (registry.globals(), plain.height);
    assert_eq!(globals.height, height);
    assert_eq!(
        (globals.cap_enabled, globals.factor),
        (plain.cap.is_some(), plain.cap.unwrap_or(0)),
        "{height}"
    );
    assert_eq!(registry.sharers(params), plain.sharers(rules), "at {height}");
    assert_eq!(registry.cap(params), plain.cap(rules), "at {height}");
    for n in 0..LICENSES {
        let found = registry
            .license(&address(n))
            .map(|record| (record.whitelisted, record.window_blocks, record.total_blocks, record.last_block));
        let expected =
            plain.known[n].then(|| (plain.whitelisted[n], plain.window[n], plain.total[n], plain.last[n]));
        assert_eq!(found, expected, "license {n} at {height}");
        let verdict = registry.check_may_mine(&address(n), params);
        let verdict = verdict.as_ref().map_or_else(LicenseError::reject_reason, |()| "");
        assert_eq!(verdict, plain.verdict(n, rules), "license {n} on top of {height}");
    }
}

/// Plays `length` blocks and some reorganisations, comparing after each.
fn play(rules: &Rules, length: u32, seed: u64) {
    let (params, random) = (rules.params(), &mut Random(seed));
    let mut registry = Registry::genesis(&params);
    let (mut blocks, mut undos): (Vec<Facts>, Vec<RegistryUndo>) = (Vec::new(), Vec::new());
    let mut plain = Plain::of(&blocks, rules);
    compare(&registry, &plain, rules, &params);
    while (blocks.len() as u32) < length {
        let boundary = (plain.height + 4) % 2016 < 8 || plain.height.abs_diff(rules.change) < 4;
        if random.below(if boundary { 4 } else { 40 }) == 0 {
            for _ in 0..random.below(6).min(blocks.len()) {
                blocks.pop();
                registry.undo(&undos.pop().unwrap());
            }
            plain = Plain::of(&blocks, rules);
            compare(&registry, &plain, rules, &params);
        }
        let miners: Vec<usize> =
            (0..LICENSES).filter(|&n| n != SCRIPT_HASH && plain.verdict(n, rules).is_empty()).collect();
        // Favour one license, so that the cap is reached.
        let miner =
            if random.below(3) > 0 { miners[miners.len() - 1] } else { miners[random.below(miners.len())] };
        let mut facts = Facts { miner, actions: Vec::new() };
        let mut transactions = Vec::new();
        for _ in 0..random.below(8).saturating_sub(5) {
            let (action, tx) = admin_transaction(plain.height + 1, random);
            facts.actions.push(action);
            transactions.push(tx);
        }
        let (undo, _) = registry.apply(&block(&facts, transactions, random), &params);
        undos.push(undo);
        blocks.push(facts);
        plain = Plain::of(&blocks, rules);
        compare(&registry, &plain, rules, &params);
    }
    while let Some(undo) = undos.pop() {
        blocks.pop();
        registry.undo(&undo);
    }
    compare(&registry, &Plain::of(&blocks, rules), rules, &params);
}

const PLAIN_RULES: Rules = Rules {
    activation: 5,
    change: 0,
    factor: None,
    whitelisted_at: None,
    third_admin_until: 0,
    fewer_below: 0,
    too_fast_above: None,
};

#[test]
fn a_sliding_window_from_early_on() {
    play(&Rules { change: 150, activation: 110, ..PLAIN_RULES }, 4_400, 1);
    play(&Rules { change: 1, activation: 0, factor: Some(2), ..PLAIN_RULES }, 2_100, 2);
}

#[test]
fn windows_that_reset_and_then_slide() {
    for (seed, change) in [2015, 2016, 2017, 2018, 2300, 4031, 4032, 4033].into_iter().enumerate() {
        play(&Rules { change, ..PLAIN_RULES }, 4_100, 10 + seed as u64);
    }
}

#[test]
fn windows_that_only_reset() {
    play(&Rules { change: u32::MAX, ..PLAIN_RULES }, 4_200, 30);
}

/// The exceptions needed for main's past, with heights scaled down by a factor of about ten.
#[test]
fn the_historical_exceptions() {
    let rules = Rules {
        activation: 11,
        change: 4_032,
        factor: None,
        whitelisted_at: Some((62, 5)),
        third_admin_until: 3_830,
        fewer_below: 3_434,
        too_fast_above: Some(4_100),
    };
    for seed in 50..53 {
        play(&rules, 4_400, seed);
    }
}

#[test]
fn an_activation_height_of_thousands_and_admins_before_it() {
    play(&Rules { activation: 1_500, change: 1_700, ..PLAIN_RULES }, 3_900, 70);
    play(&Rules { activation: 2_500, change: 1_700, ..PLAIN_RULES }, 4_700, 71);
}
