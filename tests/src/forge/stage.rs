//! A running node that is fed blocks from a forge.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, OutPoint, ScriptBuf};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::lock::{Lock, push};
use super::{ADMIN, Coin, Draft, Forge};
use crate::rpc::{Rpc, RpcFailure};
use crate::stand::{Network, Node};

/// Heights whose coinbases pay coins for tests; each lock recurs after [`FUNDS`] blocks.
const FUNDED: u32 = 120;
const FUNDS: [Lock; 12] = [
    Lock::Pkh(ADMIN),
    Lock::Anyone,
    Lock::Pkh(1),
    Lock::Open,
    Lock::Pk(2),
    Lock::Multisig(1, 2),
    Lock::ShMultisig(1, 2),
    Lock::ShAnyone,
    Lock::Wpkh(3),
    Lock::ShWpkh(4),
    Lock::Wsh(5),
    Lock::Pkh(ADMIN),
];

/// A node, the forge of its chain, and the tip.
pub struct Stage {
    /// The blocks.
    pub forge: Forge,
    /// The active tip's index in the forge.
    pub tip: usize,
    /// The node.
    pub node: Node,
    _dir: TempDir,
}

impl Stage {
    /// Starts a node on a forge's chain and mines up to `height`.
    ///
    /// # Panics
    /// When the node does not start or refuses a block.
    pub fn start(activation: u32, change: u32, votes: i32, height: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the test can be made");
        let network = Network::file(dir.path(), &Forge::network_file(activation, change));
        let node = Node::start(dir.path(), &network).unwrap_or_else(|error| panic!("{error}"));
        let mut stage = Self { forge: Forge::new(activation, change, votes), tip: 0, node, _dir: dir };
        for height in 1..=height {
            let lock = (height <= FUNDED).then(|| FUNDS[height as usize % FUNDS.len()]);
            let draft = stage.forge.draft(stage.tip, lock);
            stage.accepts(draft);
        }
        stage
    }

    /// The node's RPC.
    pub fn rpc(&self) -> &Rpc {
        &self.node.rpc
    }

    /// A draft on the tip.
    pub fn draft(&mut self) -> Draft {
        self.forge.draft(self.tip, None)
    }

    /// The answer of `submitblock`; null is the empty text.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn submit_hex(&self, hex: &str) -> String {
        match self.rpc().try_call("submitblock", json!([hex])) {
            Ok(Value::Null) => String::new(),
            Ok(answer) => answer.as_str().expect("an answer is a text").to_owned(),
            Err(RpcFailure::Answer { code, message }) => format!("{code}: {message}"),
            Err(failure) => panic!("{failure:?}"),
        }
    }

    /// The answer of `submitblock` to a block.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn submit(&self, block: &Block) -> String {
        self.submit_hex(&serialize_hex(block))
    }

    /// Submits the draft's block, which must become the tip.
    ///
    /// # Panics
    /// When it does not.
    pub fn accepts(&mut self, draft: Draft) -> usize {
        let parent = draft.parent;
        let block = self.forge.finish(draft);
        self.accepts_block(parent, block)
    }

    /// Submits a block, which must become the tip.
    ///
    /// # Panics
    /// When it does not.
    pub fn accepts_block(&mut self, parent: usize, block: Block) -> usize {
        let answer = self.submit(&block);
        assert_eq!(answer, "", "height {}", self.forge.blocks[parent].height + 1);
        self.tip = self.forge.keep(parent, block);
        self.assert_tip(self.tip);
        self.tip
    }

    /// Submits a block whose header came before with other data that were refused: it becomes the tip, and the answer
    /// is the reference's for a known header.
    ///
    /// # Panics
    /// When it is not so.
    pub fn accepts_known(&mut self, parent: usize, block: Block) {
        assert_eq!(self.submit(&block), "duplicate");
        self.tip = self.forge.keep(parent, block);
        self.assert_tip(self.tip);
    }

    /// Submits the draft's block, which must be refused for this reason and leave the tip alone.
    ///
    /// # Panics
    /// When it is not.
    pub fn refuses(&mut self, reason: &str, draft: Draft) -> Block {
        let block = self.forge.finish(draft);
        self.refuses_block(reason, &block);
        block
    }

    /// Submits a block, which must be refused for this reason and leave the tip alone.
    ///
    /// # Panics
    /// When it is not.
    pub fn refuses_block(&mut self, reason: &str, block: &Block) {
        assert_eq!(self.submit(block), reason);
        self.assert_tip(self.tip);
    }

    /// Submits the draft's block, which must become the tip if the reason is empty, and otherwise be refused for it.
    ///
    /// # Panics
    /// When it is not so.
    pub fn judges(&mut self, reason: &str, draft: Draft) {
        if reason.is_empty() {
            self.accepts(draft);
        } else {
            self.refuses(reason, draft);
        }
    }

    /// Submits the draft's block, which must get this answer, and keeps it, so that others can be built on it.
    ///
    /// # Panics
    /// When it is not.
    pub fn stores(&mut self, answer: &str, draft: Draft) -> usize {
        let parent = draft.parent;
        let block = self.forge.finish(draft);
        assert_eq!(self.submit(&block), answer, "height {}", self.forge.blocks[parent].height + 1);
        self.forge.keep(parent, block)
    }

    /// Asserts that the node's tip is the block with this index.
    ///
    /// # Panics
    /// When it is not.
    pub fn assert_tip(&self, place: usize) {
        let tip = self.rpc().call("getbestblockhash", json!([]));
        assert_eq!(tip, json!(self.forge.blocks[place].hash));
    }

    /// A mature coin of the draft's branch with this lock that the draft does not spend.
    ///
    /// # Panics
    /// When there is none.
    pub fn coin(&self, draft: &Draft, lock: Lock) -> OutPoint {
        self.coin_of(draft, |coin| coin.lock == lock)
    }

    /// A mature coin of the draft's branch that the draft does not spend.
    ///
    /// # Panics
    /// When there is none.
    pub fn coin_of(&self, draft: &Draft, wanted: impl Fn(&Coin) -> bool) -> OutPoint {
        let spent = |outpoint: &OutPoint| {
            draft.txs.iter().flat_map(|tx| &tx.input).any(|input| input.previous_output == *outpoint)
        };
        let mut coins = self.forge.blocks[draft.parent].coins.iter();
        let mature = |coin: &Coin| !coin.coinbase || draft.height - coin.height >= 100;
        let found = coins.find(|(outpoint, coin)| mature(coin) && wanted(coin) && !spent(outpoint));
        *found.expect("the stage has such a coin").0
    }

    /// Adds an admin action on addresses to the draft, signed by the admin.
    ///
    /// # Panics
    /// When the branch has no coin of the admin's.
    pub fn act(&self, draft: &mut Draft, verb: &[u8], keys: &[usize]) {
        let coin = self.coin(draft, Lock::Pkh(ADMIN));
        let verb = ScriptBuf::from_bytes([vec![0x6a], push(verb)].concat());
        let outputs = keys.iter().map(|&key| (1_000, self.forge.keys[key].address().script_pubkey()));
        let outputs = std::iter::once((0, verb)).chain(outputs).collect();
        let tx = self.forge.spend(draft, &[coin], outputs);
        draft.txs.push(tx);
    }

    /// The node's information on a key's license, as in `dumpminerstats`.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn license(&self, key: usize) -> Value {
        let address = self.forge.keys[key].address().to_base58(&self.forge.params.prefixes);
        self.rpc().call("dumpminerstats", json!([address]))["stats"].take()
    }
}
