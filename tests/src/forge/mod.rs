//! Blocks of any kind on a private chain, valid and broken, made without a node.
//!
//! Lives here: a tree of blocks with the coins that tests can spend on each branch ([`Forge`]), a block in the making
//! ([`Draft`]), keys and scripts. Does not live here: a node's expected verdict; the caller knows that.
//! Data goes: [`Forge::draft`] -> the caller adds and breaks -> [`Forge::finish`] (license, commitment, merkle root,
//! work) -> a node -> [`Forge::keep`], if more is to be built on it. Difficulty is regtest's: two hashes a block.

pub mod key;
pub mod lock;
pub mod stage;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, absolute, transaction,
};
use iop_consensus::block::witness_commitment_script;
use iop_consensus::license::coinbase::message;
use iop_consensus::merkle;
use iop_consensus::params::Params;
use iop_consensus::subsidy::subsidy;

use key::{Form, TestKey};
use lock::{Lock, push};

/// The admin's index among the keys.
pub const ADMIN: usize = 0;
/// Licenses, as indices of the keys: six compressed, one uncompressed, one hybrid.
pub const LICENSES: std::ops::Range<usize> = 1..9;
/// A key without a license.
pub const STRANGER: usize = 9;
/// Most coins kept per branch; older ones are dropped.
const REMEMBERED: usize = 150;
/// All deployments are active from this height on, if every block votes.
const FORKS_ACTIVE_FROM: u32 = 432;

/// An output that tests can spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coin {
    /// Base units.
    pub value: u64,
    /// How it is spent.
    pub lock: Lock,
    /// Height of its block.
    pub height: u32,
    /// Whether it is a coinbase output.
    pub coinbase: bool,
}

/// A block that others can be built on.
#[derive(Debug, Clone)]
pub struct Forged {
    /// The block.
    pub block: Block,
    /// Its hash.
    pub hash: BlockHash,
    /// Its parent's index; genesis is its own.
    pub parent: usize,
    /// Its height.
    pub height: u32,
    /// Spendable coins after it, the newest `REMEMBERED`.
    pub coins: Rc<BTreeMap<OutPoint, Coin>>,
}

/// A block in the making: everything may be changed before [`Forge::finish`].
#[derive(Debug, Clone)]
pub struct Draft {
    /// The parent's index.
    pub parent: usize,
    /// Its height.
    pub height: u32,
    /// Header version.
    pub version: i32,
    /// Header time, seconds.
    pub time: u32,
    /// Header bits.
    pub bits: CompactTarget,
    /// Pays the subsidy, and no fees, to one output.
    pub coinbase: Transaction,
    /// The key that signs the coinbase; `None` below the activation height.
    pub miner: Option<usize>,
    /// Everything but the coinbase.
    pub txs: Vec<Transaction>,
    /// Whether the coinbase commits to the witnesses.
    pub commit: bool,
}

/// A tree of blocks.
pub struct Forge {
    /// The network.
    pub params: Params,
    /// All keys: admin, licenses, a stranger.
    pub keys: Vec<TestKey>,
    /// All blocks kept so far; genesis is the first.
    pub blocks: Vec<Forged>,
    /// Vote bits of all blocks.
    pub votes: i32,
    locks: HashMap<ScriptBuf, Lock>,
    by_hash: HashMap<BlockHash, usize>,
    unique: u32,
}

impl Forge {
    /// The network file of a chain with the forge's admin, based on regtest.
    pub fn network_file(activation: u32, change: u32) -> String {
        let admin = TestKey::new(1, Form::Compressed);
        let address = admin.address().to_base58(&Params::regtest().prefixes);
        format!(
            "base = \"regtest\"\nname = \"forge\"\nlicense_activation_height = {activation}\n\
             cap_change_height = {change}\nadmin_pubkeys = [\"{}\"]\nadmin_addresses = [\"{address}\"]\n",
            hex::encode(&admin.pubkey)
        )
    }

    /// A forge with the genesis block of [`Forge::network_file`].
    ///
    /// # Panics
    /// Never: the network file is a valid one.
    pub fn new(activation: u32, change: u32, votes: i32) -> Self {
        let text = Self::network_file(activation, change);
        let params = Params::from_network_file(&text).expect("the network file is valid");
        let form = |number: u32| match number {
            8 => Form::Uncompressed,
            9 => Form::Hybrid,
            _ => Form::Compressed,
        };
        let keys: Vec<TestKey> = (1..=10).map(|number| TestKey::new(number, form(number))).collect();
        let block = params.genesis.block();
        let hash = block.block_hash();
        let genesis = Forged { block, hash, parent: 0, height: 0, coins: Rc::default() };
        let by_hash = HashMap::from([(hash, 0)]);
        let mut forge =
            Self { params, keys, blocks: vec![genesis], votes, locks: HashMap::new(), by_hash, unique: 0 };
        for key in 0..forge.keys.len() {
            for lock in [Lock::Pkh(key), Lock::Pk(key), Lock::Wpkh(key), Lock::ShWpkh(key), Lock::Wsh(key)] {
                forge.know(lock);
            }
        }
        for lock in [Lock::Multisig(1, 2), Lock::ShMultisig(1, 2), Lock::ShSigops, Lock::WshSigops] {
            forge.know(lock);
        }
        for lock in [Lock::Open, Lock::Anyone, Lock::ShAnyone] {
            forge.know(lock);
        }
        forge
    }

    /// Registers a lock, so that outputs with its script can be spent.
    pub fn know(&mut self, lock: Lock) {
        self.locks.insert(lock.script(&self.keys), lock);
    }

    /// The index of a kept block.
    pub fn find(&self, hash: &BlockHash) -> Option<usize> {
        self.by_hash.get(hash).copied()
    }

    /// The ancestor of a block `depth` blocks below it, or genesis.
    pub fn below(&self, mut place: usize, depth: u32) -> usize {
        for _ in 0..depth {
            place = self.blocks[place].parent;
        }
        place
    }

    /// Median of the times of the eleven blocks up to this one, seconds.
    pub fn median_time(&self, place: usize) -> u32 {
        let count = 11.min(self.blocks[place].height + 1);
        let mut times: Vec<u32> =
            (0..count).map(|depth| self.blocks[self.below(place, depth)].block.header.time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// Whether segwit is active for a block at this height.
    pub fn segwit_active(&self, height: u32) -> bool {
        self.votes & 2 != 0 && height >= FORKS_ACTIVE_FROM
    }

    /// A number that no earlier draft has.
    pub fn unique(&mut self) -> u32 {
        self.unique += 1;
        self.unique
    }

    /// A valid block on a parent, mined by the admin. It pays to `lock`, or else to an output that is never spent.
    pub fn draft(&mut self, parent: usize, lock: Option<Lock>) -> Draft {
        let height = self.blocks[parent].height + 1;
        let value = subsidy(height, self.params.halving_interval);
        let script =
            lock.map_or_else(|| lock::pay_to_script(&data_output(0)), |lock| lock.script(&self.keys));
        let mut coinbase = transaction(vec![OutPoint::null()], vec![(value, script)]);
        // No two coinbases may be the same: the license's signature and this number do not depend on the block.
        coinbase.output.push(TxOut { value: Amount::ZERO, script_pubkey: data_output(self.unique()) });
        let licensed = self.params.license.requires_license(height);
        Draft {
            parent,
            height,
            version: 0x2000_0000 | self.votes,
            time: self.blocks[parent].block.header.time.max(self.median_time(parent)) + 60,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            coinbase,
            miner: licensed.then_some(ADMIN),
            txs: Vec::new(),
            commit: self.segwit_active(height),
        }
    }

    /// A transaction that spends coins of the draft's branch, signed.
    ///
    /// # Panics
    /// When a coin is not of the branch.
    pub fn spend(&self, draft: &Draft, coins: &[OutPoint], outputs: Vec<(u64, ScriptBuf)>) -> Transaction {
        let mut tx = transaction(coins.to_vec(), outputs);
        self.sign(draft, &mut tx);
        tx
    }

    /// Signs every input that spends a coin of the draft's branch.
    pub fn sign(&self, draft: &Draft, tx: &mut Transaction) {
        for input in 0..tx.input.len() {
            if let Some(coin) = self.coin(draft, &tx.input[input].previous_output) {
                coin.lock.unlock(tx, input, coin.value, &self.keys, 1);
            }
        }
    }

    /// A coin of the draft's branch, or one that the draft itself creates.
    pub fn coin(&self, draft: &Draft, outpoint: &OutPoint) -> Option<Coin> {
        let own = draft.txs.iter().find(|tx| tx.compute_txid() == outpoint.txid).and_then(|tx| {
            let output = tx.output.get(outpoint.vout as usize)?;
            let lock = *self.locks.get(&output.script_pubkey)?;
            Some(Coin { value: output.value.to_sat(), lock, height: draft.height, coinbase: false })
        });
        own.or_else(|| self.blocks[draft.parent].coins.get(outpoint).copied())
    }

    /// The finished block: signed, committed, with merkle root and work.
    pub fn finish(&self, mut draft: Draft) -> Block {
        if draft.commit {
            self.commit(&mut draft.coinbase, &draft.txs);
        }
        if draft.coinbase.input[0].script_sig.is_empty() {
            let script = self.license(&draft.coinbase, draft.miner);
            draft.coinbase.input[0].script_sig = script;
        }
        self.assemble(&draft)
    }

    /// Adds the witness commitment of these transactions to a coinbase.
    pub fn commit(&self, coinbase: &mut Transaction, txs: &[Transaction]) {
        let script_pubkey = witness_commitment_script(txs);
        coinbase.output.push(TxOut { value: Amount::ZERO, script_pubkey });
        coinbase.input[0].witness = Witness::from_slice(&[[0u8; 32]]);
    }

    /// A block of the draft's current header fields and transactions, with merkle root and work.
    pub fn assemble(&self, draft: &Draft) -> Block {
        let txdata: Vec<Transaction> = std::iter::once(&draft.coinbase).chain(&draft.txs).cloned().collect();
        let header = Header {
            version: Version::from_consensus(draft.version),
            prev_blockhash: self.blocks[draft.parent].hash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: draft.time,
            bits: draft.bits,
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        seal(&mut block);
        block
    }

    /// The usual script of a coinbase: signature, a number, key; without a miner two pushes.
    pub fn license(&self, coinbase: &Transaction, miner: Option<usize>) -> ScriptBuf {
        let Some(key) = miner.map(|miner| &self.keys[miner]) else {
            return ScriptBuf::from_bytes(vec![0x02, 0x01, 0x02]);
        };
        let signature = [key.sign(message(coinbase)), vec![1]].concat();
        ScriptBuf::from_bytes([push(&signature), push(&[7; 4]), push(&key.pubkey)].concat())
    }

    /// Keeps a block, so that others can be built on it. Returns its index.
    pub fn keep(&mut self, parent: usize, block: Block) -> usize {
        let hash = block.block_hash();
        if let Some(place) = self.find(&hash) {
            return place;
        }
        let height = self.blocks[parent].height + 1;
        let mut coins = (*self.blocks[parent].coins).clone();
        for (index, tx) in block.txdata.iter().enumerate() {
            for input in &tx.input {
                coins.remove(&input.previous_output);
            }
            let txid = tx.compute_txid();
            for (output, vout) in tx.output.iter().zip(0..) {
                if let Some(&lock) = self.locks.get(&output.script_pubkey) {
                    let value = output.value.to_sat();
                    coins.insert(OutPoint { txid, vout }, Coin { value, lock, height, coinbase: index == 0 });
                }
            }
        }
        while coins.len() > REMEMBERED {
            let oldest = coins.iter().min_by_key(|(_, coin)| coin.height).map(|(outpoint, _)| *outpoint);
            oldest.map(|outpoint| coins.remove(&outpoint));
        }
        self.blocks.push(Forged { block, hash, parent, height, coins: Rc::new(coins) });
        self.by_hash.insert(hash, self.blocks.len() - 1);
        self.blocks.len() - 1
    }
}

/// An unsigned transaction of version 1.
pub fn transaction(inputs: Vec<OutPoint>, outputs: Vec<(u64, ScriptBuf)>) -> Transaction {
    let input = |previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let output = |(value, script_pubkey)| TxOut { value: Amount::from_sat(value), script_pubkey };
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: inputs.into_iter().map(input).collect(),
        output: outputs.into_iter().map(output).collect(),
    }
}

/// OP_RETURN with a number.
fn data_output(number: u32) -> ScriptBuf {
    ScriptBuf::from_bytes([&[0x6a, 4][..], &number.to_le_bytes()].concat())
}

/// Computes the merkle root and finds a nonce.
pub fn seal(block: &mut Block) {
    let leaves = block.txdata.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
    block.header.merkle_root = TxMerkleNode::from_byte_array(merkle::root(leaves).0);
    work(block);
}

/// Finds a nonce for the header by the target of regtest, whatever its bits are.
pub fn work(block: &mut Block) {
    let target = Target::from_compact(CompactTarget::from_consensus(0x207f_ffff));
    while !target.is_met_by(block.block_hash()) {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
}
