//! A tree of valid licensed blocks with spends and admin actions on any branch, built without a node, for tests.
//!
//! Anyone can spend the coins: their script drops what is pushed and succeeds. So pushing the admin's public key
//! makes an admin transaction, and every block can contain some.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, absolute, transaction,
};
use iop_consensus::difficulty::has_proof_of_work;
use iop_consensus::license::coinbase;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::merkle;
use iop_consensus::params::Params;
use iop_consensus::params::networks::devnet_keys;
use iop_consensus::subsidy::subsidy;

/// Number of blocks before the first coin is mature.
pub(super) const TRUNK: u32 = 101;
/// OP_DROP OP_TRUE.
const ANYONE: [u8; 2] = [0x75, 0x51];

/// Regtest, licensed from block 4 on by devnet's keys, with the cap turned on.
pub(super) fn params() -> Params {
    let mut params = Params::regtest();
    params.license = Params::devnet().license;
    (params.license.activation_height, params.license.cap_change_height) = (3, 20);
    params
}

/// A block and the coins that can be spent on top of it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) block: Block,
    pub(super) height: u32,
    coins: Vec<(OutPoint, u64)>,
}

/// The tree: a trunk of [`TRUNK`] blocks, and the blocks added to it.
#[derive(Debug)]
pub(super) struct Tree {
    params: Params,
    licenses: Vec<LicenseKey>,
    pub(super) nodes: Vec<Node>,
    salt: u32,
}

impl Tree {
    pub(super) fn new() -> Self {
        let params = params();
        let [_, licenses @ ..] = devnet_keys().map(|(_, key)| key);
        let genesis = Node { block: params.genesis.block(), height: 0, coins: Vec::new() };
        let mut tree = Self { params, licenses: licenses.into(), nodes: vec![genesis], salt: 0 };
        for parent in 0..TRUNK as usize {
            tree.grow(parent, Vec::new(), 0);
        }
        let first = &tree.nodes[1].block.txdata[0];
        let coin = (OutPoint { txid: first.compute_txid(), vout: 0 }, first.output[0].value.to_sat());
        tree.nodes[TRUNK as usize].coins.push(coin);
        tree
    }

    /// Adds a block to `parent`, with spends and actions derived from `seed`; returns its number.
    pub(super) fn extend(&mut self, parent: usize, seed: u64) -> usize {
        let mut coins = self.nodes[parent].coins.clone();
        let mut txs = Vec::new();
        for n in 0..seed % 4 {
            let at = (seed >> (8 + n)) as usize % coins.len();
            let (outpoint, value) = coins.remove(at);
            let tx = self.spend(outpoint, value, seed >> n);
            let txid = tx.compute_txid();
            let spendable = |output: &TxOut| output.script_pubkey.as_bytes() == ANYONE;
            let created = tx.output.iter().zip(0u32..).filter(|(output, _)| spendable(output));
            coins.extend(created.map(|(output, vout)| (OutPoint { txid, vout }, output.value.to_sat())));
            txs.push(tx);
        }
        let node = self.grow(parent, txs, 0);
        self.nodes[node].coins = coins;
        node
    }

    /// Adds a block to `parent` whose coinbase pays one base unit too much: it fails only when it is connected.
    pub(super) fn extend_badly(&mut self, parent: usize) -> usize {
        self.grow(parent, Vec::new(), 1)
    }

    /// Adds a block to `parent` whose only spend has a failing script.
    pub(super) fn extend_with_bad_script(&mut self, parent: usize) -> usize {
        let (outpoint, value) = self.nodes[parent].coins[0];
        let mut tx = self.spend(outpoint, value, 4);
        tx.input[0].script_sig = ScriptBuf::new();
        self.grow(parent, vec![tx], 0)
    }

    /// The node added last, minus `back`, but at least the end of the trunk.
    pub(super) fn back(&self, back: usize) -> usize {
        (self.nodes.len() - 1).saturating_sub(back).max(TRUNK as usize)
    }

    pub(super) fn hash(&self, node: usize) -> BlockHash {
        self.nodes[node].block.block_hash()
    }

    /// The blocks from height 1 up to `node`.
    pub(super) fn branch(&self, node: usize) -> Vec<Block> {
        let (mut blocks, mut walk) = (Vec::new(), self.nodes[node].block.clone());
        while walk.header.prev_blockhash != BlockHash::all_zeros() {
            let parent = self.nodes.iter().find(|n| n.block.block_hash() == walk.header.prev_blockhash);
            blocks.push(std::mem::replace(&mut walk, parent.expect("parents are here").block.clone()));
        }
        blocks.reverse();
        blocks
    }

    fn spend(&mut self, outpoint: OutPoint, value: u64, seed: u64) -> Transaction {
        let mut output = Vec::new();
        let mut pushed = vec![seed as u8; 3];
        let target = ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::from_byte_array([seed as u8 % 8; 20]));
        if seed % 5 < 3 {
            let verb: &[u8] = [&b"add"[..], b"rem", b"enable_cap:2"][seed as usize % 5];
            let verb = bitcoin::script::PushBytesBuf::try_from(verb.to_vec()).expect("verbs are short");
            output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(verb) });
            pushed = self.params.license.admin_pubkeys[0].clone();
        }
        output.push(TxOut { value: Amount::from_sat(value / 2), script_pubkey: ANYONE.to_vec().into() });
        output.push(TxOut { value: Amount::from_sat(value / 4), script_pubkey: ANYONE.to_vec().into() });
        output.push(TxOut { value: Amount::from_sat(value / 8), script_pubkey: target });
        let push = bitcoin::script::PushBytesBuf::try_from(pushed).expect("a push is short");
        let script_sig = bitcoin::script::Builder::new().push_slice(push).into_script();
        transaction_of(TxIn { previous_output: outpoint, script_sig, ..TxIn::default() }, output)
    }

    fn grow(&mut self, parent: usize, txs: Vec<Transaction>, too_much: u64) -> usize {
        self.salt += 1;
        let (height, previous) = (self.nodes[parent].height + 1, self.nodes[parent].block.header);
        let value = subsidy(height, self.params.halving_interval) + too_much;
        let out = TxOut { value: Amount::from_sat(value), script_pubkey: ANYONE.to_vec().into() };
        let mut coinbase = transaction_of(
            TxIn {
                previous_output: OutPoint::null(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
                script_sig: ScriptBuf::new(),
            },
            vec![out],
        );
        let key = &self.licenses[self.salt as usize % self.licenses.len()];
        let signature = coinbase::sign(&coinbase, key);
        let unsigned = [&coinbase::script_number(height)[..], &self.salt.to_le_bytes()];
        coinbase.input[0].script_sig = coinbase::script_sig(&signature, &unsigned, key.pubkey());
        let txdata: Vec<Transaction> = std::iter::once(coinbase).chain(txs).collect();
        let leaves = txdata.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
        let mut header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: previous.block_hash(),
            merkle_root: TxMerkleNode::from_byte_array(merkle::root(leaves).0),
            time: previous.time + 600,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        while !has_proof_of_work(&header.block_hash(), header.bits, self.params.pow.limit) {
            header.nonce += 1;
        }
        let coins = self.nodes[parent].coins.clone();
        self.nodes.push(Node { block: Block { header, txdata }, height, coins });
        self.nodes.len() - 1
    }
}

fn transaction_of(input: TxIn, output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input],
        output,
    }
}
