//! The contents of synthetic blocks: coins that are spent and created, picked at random.
//!
//! Transactions of a group spend only coins from before the group, so that they can be signed on all cores.

use std::sync::OnceLock;

use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, Block, OutPoint, PubkeyHash, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute,
    opcodes, transaction,
};
use iop_consensus::subsidy::subsidy;
use rayon::prelude::*;

use super::chain::{Chain, license_keys, secret, secret_key};
use super::{SETUP_BLOCKS, Shape};

/// Blocks per group.
pub const GROUP: u32 = 50;
/// Keys that own the coins of [`Shape::Signatures`].
const OWNERS: usize = 200;
/// Coins that the setup creates, in transactions of [`SPREAD`] outputs. A group spends at most a part of them.
const FIRST_COINS: usize = 24_000;
/// Outputs of a transaction that distributes money: 34 bytes each, far below a megabyte.
const SPREAD: usize = 6_000;

/// The fee of each transaction, in base units: enough for a mempool's lowest rate.
const FEE: u64 = 10_000;

/// A coin that the load can spend.
#[derive(Debug, Clone, Copy)]
struct Spendable {
    outpoint: OutPoint,
    value: u64,
    /// The owner, or the number that makes the script unique.
    tag: u64,
}

/// Tracks the spendable coins of a chain.
#[derive(Debug, Clone)]
pub struct Load {
    shape: Shape,
    random: Random,
    coins: Vec<Spendable>,
    tags: u64,
}

/// A planned transaction that is not yet signed.
struct Plan {
    inputs: Vec<Spendable>,
    outputs: Vec<(u64, u64)>,
}

impl Load {
    /// A load in which the seed determines every choice.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self { shape, random: Random(seed), coins: Vec::new(), tags: seed << 32 }
    }

    /// Coins that can be spent.
    pub fn coins(&self) -> usize {
        self.coins.len()
    }

    /// The first [`SETUP_BLOCKS`] blocks: they mature the money, add the licenses, turn the cap on, and distribute the
    /// money.
    pub fn set_up(&mut self, chain: &mut Chain) -> Vec<Block> {
        self.set_up_with(chain, FIRST_COINS)
    }

    /// [`Load::set_up`] with few coins, for tests.
    pub fn set_up_small(&mut self, chain: &mut Chain) -> Vec<Block> {
        self.set_up_with(chain, FIRST_COINS / 20)
    }

    fn set_up_with(&mut self, chain: &mut Chain, coins: usize) -> Vec<Block> {
        let mut blocks: Vec<Block> = (0..101).map(|_| chain.extend(Vec::new())).collect();
        let money = subsidy(1, super::network().halving_interval);
        let first = Spendable {
            outpoint: OutPoint { txid: blocks[0].txdata[0].compute_txid(), vout: 0 },
            value: money,
            tag: 0,
        };
        let (add, rest) = self.admin(first, b"add");
        blocks.push(chain.extend(vec![add]));
        chain.license_all();
        // Factor 9 for nine licenses: a cap of 2,016 blocks, which cannot be reached.
        let (enable, rest) = self.admin(rest, b"enable_cap:9");
        blocks.push(chain.extend(vec![enable]));
        let lots = FIRST_COINS / SPREAD;
        let spread = coins / lots;
        let split = self.admin_pays(rest, lots);
        let txid = split.compute_txid();
        let values: Vec<u64> = split.output.iter().map(|output| output.value.to_sat()).collect();
        blocks.push(chain.extend(vec![split]));
        for (vout, value) in (0..).zip(values) {
            let lot = Spendable { outpoint: OutPoint { txid, vout }, value, tag: 0 };
            let outputs = self.share(lot.value, spread);
            let tx = self.spread(lot, &outputs);
            self.gain(&tx, &outputs);
            blocks.push(chain.extend(vec![tx]));
        }
        while chain.height() < SETUP_BLOCKS {
            blocks.push(chain.extend(Vec::new()));
        }
        blocks
    }

    /// The transactions of a group of blocks, given the number of inputs of each block.
    pub fn group(&mut self, inputs: &[usize]) -> Vec<Vec<Transaction>> {
        let (take, make) = match self.shape {
            Shape::Signatures => (2, 2),
            Shape::Coins => (8, 20),
        };
        let mut plans: Vec<Vec<Plan>> = Vec::new();
        for &count in inputs {
            let sizes = (0..count.div_ceil(take)).map(|n| take.min(count - n * take));
            plans.push(sizes.map(|size| self.plan(size, make)).collect());
        }
        let shape = self.shape;
        let made: Vec<Vec<Transaction>> =
            plans.par_iter().map(|block| block.iter().map(|plan| plan.sign(shape)).collect()).collect();
        for (tx, plan) in made.iter().flatten().zip(plans.iter().flatten()) {
            self.gain(tx, &plan.outputs);
        }
        made
    }

    fn plan(&mut self, inputs: usize, outputs: usize) -> Plan {
        let mut taken = Vec::with_capacity(inputs);
        for _ in 0..inputs {
            let at = self.random.below(self.coins.len());
            taken.push(self.coins.swap_remove(at));
        }
        let value: u64 = taken.iter().map(|coin| coin.value).sum();
        Plan { inputs: taken, outputs: self.share(value - FEE, outputs) }
    }

    /// Value and tag of each output: equal parts, the rest to the first.
    fn share(&mut self, value: u64, count: usize) -> Vec<(u64, u64)> {
        let part = value / count as u64;
        let rest = value - part * (count as u64 - 1);
        (0..count).map(|n| (if n == 0 { rest } else { part }, self.tag())).collect()
    }

    fn tag(&mut self) -> u64 {
        match self.shape {
            Shape::Signatures => self.random.below(OWNERS) as u64,
            Shape::Coins => {
                self.tags += 1;
                self.tags
            }
        }
    }

    fn gain(&mut self, tx: &Transaction, outputs: &[(u64, u64)]) {
        let txid = tx.compute_txid();
        self.coins.extend((0..).zip(outputs).map(|(vout, &(value, tag))| Spendable {
            outpoint: OutPoint { txid, vout },
            value,
            tag,
        }));
    }

    /// An admin transaction on all licenses; the change goes back to the admin.
    fn admin(&self, coin: Spendable, verb: &[u8]) -> (Transaction, Spendable) {
        let verb = PushBytesBuf::try_from(verb.to_vec()).expect("verbs are short");
        let mut output = vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(verb) }];
        let keys = license_keys();
        let little = 100_000;
        output.extend(keys.iter().map(|key| pay(little, key.address().script_pubkey())));
        let left = coin.value - little * keys.len() as u64;
        output.push(pay(left, admin_script()));
        let vout = output.len() as u32 - 1;
        let tx = sign(vec![(coin, admin_secret())], output);
        let rest = Spendable { outpoint: OutPoint { txid: tx.compute_txid(), vout }, value: left, tag: 0 };
        (tx, rest)
    }

    /// Splits the admin's coin into equal coins of the admin.
    fn admin_pays(&self, coin: Spendable, lots: usize) -> Transaction {
        let part = coin.value / lots as u64;
        sign(vec![(coin, admin_secret())], (0..lots).map(|_| pay(part, admin_script())).collect())
    }

    fn spread(&self, lot: Spendable, outputs: &[(u64, u64)]) -> Transaction {
        let output = outputs.iter().map(|&(value, tag)| pay(value, script(self.shape, tag))).collect();
        sign(vec![(lot, admin_secret())], output)
    }
}

impl Plan {
    fn sign(&self, shape: Shape) -> Transaction {
        let output = self.outputs.iter().map(|&(value, tag)| pay(value, script(shape, tag))).collect();
        match shape {
            Shape::Signatures => {
                sign(self.inputs.iter().map(|&coin| (coin, &owners()[coin.tag as usize])).collect(), output)
            }
            Shape::Coins => {
                let mut tx = unsigned(self.inputs.iter(), output);
                for (input, coin) in tx.input.iter_mut().zip(&self.inputs) {
                    let redeem = PushBytesBuf::try_from(redeem_script(coin.tag).into_bytes());
                    input.script_sig = Builder::new().push_slice(redeem.expect("eleven bytes")).into_script();
                }
                tx
            }
        }
    }
}

/// A key with what is needed to sign for it.
struct Owner {
    secret: SecretKey,
    pubkey: bitcoin::PublicKey,
    script: ScriptBuf,
}

impl Owner {
    fn new(name: &str) -> Self {
        let secret = SecretKey::from_slice(&secret(name)).expect("a digest below the curve's order");
        let pubkey = bitcoin::PublicKey::new(PublicKey::from_secret_key(secp(), &secret));
        Self { secret, pubkey, script: ScriptBuf::new_p2pkh(&PubkeyHash::from(pubkey)) }
    }
}

fn secp() -> &'static Secp256k1<All> {
    static SECP: OnceLock<Secp256k1<All>> = OnceLock::new();
    SECP.get_or_init(Secp256k1::new)
}

fn owners() -> &'static [Owner] {
    static OWNED: OnceLock<Vec<Owner>> = OnceLock::new();
    OWNED.get_or_init(|| (0..OWNERS).map(|n| Owner::new(&format!("owner {n}"))).collect())
}

fn admin_secret() -> &'static Owner {
    static ADMIN: OnceLock<Owner> = OnceLock::new();
    ADMIN.get_or_init(|| Owner::new("admin"))
}

fn admin_script() -> ScriptBuf {
    secret_key("admin").address().script_pubkey()
}

fn script(shape: Shape, tag: u64) -> ScriptBuf {
    match shape {
        Shape::Signatures => owners()[tag as usize].script.clone(),
        Shape::Coins => redeem_script(tag).to_p2sh(),
    }
}

/// A script that drops a number and leaves true.
fn redeem_script(tag: u64) -> ScriptBuf {
    Builder::new()
        .push_slice(tag.to_le_bytes())
        .push_opcode(opcodes::all::OP_DROP)
        .push_opcode(opcodes::OP_TRUE)
        .into_script()
}

fn pay(value: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey }
}

fn unsigned<'a>(coins: impl Iterator<Item = &'a Spendable>, output: Vec<TxOut>) -> Transaction {
    let input = coins.map(|coin| TxIn {
        previous_output: coin.outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    });
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: input.collect(),
        output,
    }
}

fn sign(inputs: Vec<(Spendable, &Owner)>, output: Vec<TxOut>) -> Transaction {
    let mut tx = unsigned(inputs.iter().map(|(coin, _)| coin), output);
    let cache = SighashCache::new(&tx);
    let scripts: Vec<ScriptBuf> = inputs
        .iter()
        .enumerate()
        .map(|(index, (_, owner))| {
            let hash = cache
                .legacy_signature_hash(index, &owner.script, EcdsaSighashType::All.to_u32())
                .expect("the input exists");
            let signature = bitcoin::ecdsa::Signature {
                signature: secp().sign_ecdsa(&Message::from_digest(hash.to_byte_array()), &owner.secret),
                sighash_type: EcdsaSighashType::All,
            };
            Builder::new().push_slice(signature.serialize()).push_key(&owner.pubkey).into_script()
        })
        .collect();
    for (input, script) in tx.input.iter_mut().zip(scripts) {
        input.script_sig = script;
    }
    tx
}

/// SplitMix64: small, and reproducible on all platforms.
#[derive(Debug, Clone, Copy)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0; the bias does not matter here.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next_u64() % limit as u64) as usize
    }
}
