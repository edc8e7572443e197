//! Block templates: everything a miner needs for the block on top of the tip, except the coinbase.
//!
//! Lives here: [`Template`], how it is made on the chain thread, and the selection of transactions, cached until
//! tip or mempool change ([`Templates`]). `proposal.rs` judges a block without proof of work. Does not live here:
//! clients waiting for templates, and the JSON. Data goes: mempool -> selection (shared, each transaction's hex
//! made once) -> template with the current time. An empty template needs no selection, so it is the immediate
//! answer to a new tip.

mod proposal;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bitcoin::consensus::encode::serialize;
use bitcoin::{BlockHash, CompactTarget, ScriptBuf, Transaction, Txid, Wtxid};
use iop_consensus::ancestors::{Ancestors, median_time_past};
use iop_consensus::block::{SoftForks, witness_commitment_of};
use iop_consensus::difficulty::{next_work_required, times_of_same_work};
use iop_consensus::subsidy::subsidy;
use iop_consensus::versionbits::{State, block_version};
use iop_consensus::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT};

pub use proposal::Proposal;

use crate::chain::state::ChainState;
use crate::hexes;
use crate::mempool::{Entry, FeeRate, Mempool, Room};

/// Weight reserved for header and coinbase, weight units (Core's initial `nBlockWeight`).
const COINBASE_WEIGHT: u64 = 4_000;
/// The most that a template's block weighs (`DEFAULT_BLOCK_MAX_WEIGHT`).
const MAX_WEIGHT: u64 = MAX_BLOCK_WEIGHT - 4_000;
/// Signature operation cost reserved for the coinbase (Core's initial `nBlockSigOpsCost`).
const COINBASE_SIGOPS_COST: u64 = 400;
/// Packages with a lower rate are not mined (`DEFAULT_BLOCK_MIN_TX_FEE`).
const MIN_FEE: FeeRate = FeeRate(1_000);

/// One transaction of a template.
#[derive(Debug, Clone)]
pub struct TemplateTx {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its id.
    pub txid: Txid,
    /// The hash including the witness.
    pub wtxid: Wtxid,
    /// Fee in base units.
    pub fee: u64,
    /// Signature operation cost.
    pub sigop_cost: u64,
    /// Weight units.
    pub weight: u64,
    /// Positions (from 1) of the transactions in the template whose outputs it spends.
    pub depends: Vec<usize>,
    hex: Hex,
}

/// A transaction's hex, made on first use and shared by all consecutive templates that contain it.
type Hex = Arc<OnceLock<String>>;

impl TemplateTx {
    /// The transaction with its witness, in hex.
    pub fn hex(&self) -> &str {
        self.hex.get_or_init(|| hexes::encode(&serialize(&*self.tx)))
    }
}

/// The registry's figures as of the tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TipRegistry {
    /// Whether the cap is on.
    pub cap_enabled: bool,
    /// The cap's factor.
    pub factor: u32,
    /// Number of licenses that share the cap.
    pub sharers: u32,
}

/// The template of a block on top of the tip.
#[derive(Debug, Clone)]
pub struct Template {
    /// The tip.
    pub previous: BlockHash,
    /// The new block's height.
    pub height: u32,
    /// Its version, with votes.
    pub version: i32,
    /// Its difficulty bits, for `time`.
    pub bits: CompactTarget,
    /// The current time, or the earliest allowed time if that is later, seconds.
    pub time: u32,
    /// The earliest allowed time with these bits, seconds.
    pub min_time: u32,
    /// The latest time with these bits, seconds: on test networks the difficulty falls when no block has come for long.
    /// `None` where it does not; that nodes refuse blocks from the future is another matter.
    pub max_time: Option<u32>,
    /// The transactions, parents before children.
    pub transactions: Arc<[TemplateTx]>,
    /// The most that the coinbase may pay: subsidy and fees, base units.
    pub coinbase_value: u64,
    /// The script of the coinbase's witness commitment output, if segwit is active; it assumes a witness nonce of
    /// zeros.
    pub witness_commitment: Option<ScriptBuf>,
    /// The registry figures that licenses are judged by.
    pub registry: TipRegistry,
    /// The soft forks active for this block.
    pub forks: SoftForks,
    /// Names of the active deployments.
    pub rules: Vec<&'static str>,
    /// Deployments that may be signalled for: name and bit.
    pub votes: Vec<(&'static str, u8)>,
}

/// Which transactions a template contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contents {
    /// The best selection from the mempool.
    Full,
    /// The best selection without witnesses, for miners that do not support segwit.
    WithoutWitness,
    /// Nothing.
    Empty,
}

/// The selections for the tip, cached until tip or mempool change.
#[derive(Debug, Default)]
pub struct Templates {
    /// What the selections are for: the tip and the mempool's change counter.
    state: Option<(BlockHash, u64)>,
    choices: HashMap<Contents, Arc<[TemplateTx]>>,
    /// The hex of the transactions in the last selections.
    hexes: HashMap<Wtxid, Hex>,
}

impl Templates {
    /// The selected transactions for the tip; the same ones until tip or mempool change.
    pub fn choice(&mut self, contents: Contents, tip: BlockHash, mempool: &Mempool) -> Arc<[TemplateTx]> {
        if contents == Contents::Empty {
            return Arc::from([]);
        }
        let state = Some((tip, mempool.changes()));
        if self.state != state {
            self.state = state;
            let old = std::mem::take(&mut self.choices);
            self.hexes =
                old.values().flat_map(|choice| choice.iter()).map(|tx| (tx.wtxid, tx.hex.clone())).collect();
        }
        let hexes = &self.hexes;
        let made = self.choices.entry(contents).or_insert_with(|| choose(mempool, contents, hexes));
        Arc::clone(made)
    }
}

fn choose(mempool: &Mempool, contents: Contents, hexes: &HashMap<Wtxid, Hex>) -> Arc<[TemplateTx]> {
    let chosen = mempool.select(Room {
        max_weight: MAX_WEIGHT,
        reserved_weight: COINBASE_WEIGHT,
        max_sigops_cost: MAX_BLOCK_SIGOPS_COST,
        reserved_sigops_cost: COINBASE_SIGOPS_COST,
        min_fee: MIN_FEE,
        witness: contents == Contents::Full,
    });
    let mut positions = HashMap::with_capacity(chosen.entries.len());
    for (entry, position) in chosen.entries.iter().zip(1..) {
        positions.insert(entry.txid, position);
    }
    chosen.entries.iter().map(|entry| template_tx(entry, &positions, hexes)).collect()
}

fn template_tx(entry: &Entry, positions: &HashMap<Txid, usize>, hexes: &HashMap<Wtxid, Hex>) -> TemplateTx {
    let mut depends = Vec::new();
    // Without unconfirmed ancestors there are no dependencies.
    if entry.ancestors.count > 1 {
        let spent = entry.tx.input.iter().map(|input| input.previous_output.txid);
        depends.extend(spent.filter_map(|txid| positions.get(&txid).copied()));
        depends.sort_unstable();
        depends.dedup();
    }
    TemplateTx {
        tx: Arc::clone(&entry.tx),
        txid: entry.txid,
        wtxid: entry.wtxid,
        fee: entry.fee,
        sigop_cost: entry.sigop_cost,
        weight: entry.weight,
        depends,
        hex: hexes.get(&entry.wtxid).cloned().unwrap_or_default(),
    }
}

/// Makes a full template for the tip. `now` in seconds.
pub fn template(state: &mut ChainState, now: u64) -> Template {
    template_with(state, Contents::Full, now)
}

/// Makes a template for the tip. `now` in seconds.
pub fn template_with(state: &mut ChainState, contents: Contents, now: u64) -> Template {
    let params = state.params().clone();
    let forks = state.forks_after(state.index().tip());
    let contents = match contents {
        // Without segwit a block has no witness, even if transactions with one are in the pool since a branch on
        // which it was active (`fIncludeWitness`).
        Contents::Full if !forks.segwit => Contents::WithoutWitness,
        as_asked => as_asked,
    };
    let (chain, cache) = state.versionbits();
    let parent = chain.tip_height();
    let min_time = median_time_past(&chain, parent).saturating_add(1);
    let time = u32::try_from(now).unwrap_or(u32::MAX).max(min_time);
    let version = block_version(&chain, &params.deployments, cache);
    let states = params
        .deployments
        .named()
        .map(|(name, d)| (name, d.bit, cache.state_after(&chain, parent, d, &params.deployments)));
    let bits = next_work_required(&chain, time, &params);
    let times = times_of_same_work(&chain, time, &params);
    let previous = chain.hash(parent);
    let globals = state.registry().globals();
    let (cap_enabled, factor) = (globals.cap_enabled, globals.factor);
    let registry = TipRegistry { cap_enabled, factor, sharers: state.registry().sharers(&params) };
    let (templates, mempool) = state.templates();
    let transactions = templates.choice(contents, previous, mempool);
    let fees: u64 = transactions.iter().map(|tx| tx.fee).sum();
    let commits = forks.segwit && contents != Contents::WithoutWitness;
    let witness_commitment = commits.then(|| witness_commitment_of(transactions.iter().map(|tx| tx.wtxid)));
    Template {
        previous,
        height: parent + 1,
        version,
        bits,
        time,
        min_time: min_time.max(*times.start()),
        max_time: Some(*times.end()).filter(|time| *time < u32::MAX),
        coinbase_value: subsidy(parent + 1, params.halving_interval) + fees,
        transactions,
        witness_commitment,
        registry,
        forks,
        rules: states.iter().filter(|(.., s)| *s == State::Active).map(|(name, ..)| *name).collect(),
        votes: states
            .iter()
            .filter(|(.., s)| matches!(s, State::Started | State::LockedIn))
            .map(|(name, bit, _)| (*name, *bit))
            .collect(),
    }
}
