//! Block templates: everything a miner needs for the block on top of the tip, but the coinbase.

use bitcoin::{BlockHash, CompactTarget, ScriptBuf, Transaction, Txid};
use iop_consensus::ancestors::{Ancestors, median_time_past};
use iop_consensus::block::{SoftForks, witness_commitment_script};
use iop_consensus::difficulty::next_work_required;
use iop_consensus::subsidy::subsidy;
use iop_consensus::versionbits::{State, block_version};
use iop_consensus::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT};

use crate::chain::state::ChainState;

/// Weight left free for header and coinbase, weight units (Core's `nBlockWeight` start).
const COINBASE_WEIGHT: u64 = 4_000;
/// Signature operation cost left free for the coinbase (Core's `nBlockSigOpsCost` start).
const COINBASE_SIGOPS_COST: u64 = 400;

/// One transaction of a template.
#[derive(Debug, Clone)]
pub struct TemplateTx {
    /// The transaction.
    pub tx: Transaction,
    /// Its id.
    pub txid: Txid,
    /// Base units.
    pub fee: u64,
    /// Cost units.
    pub sigop_cost: u64,
    /// Weight units.
    pub weight: u64,
    /// Positions (from 1) of the transactions of the template that it spends.
    pub depends: Vec<usize>,
}

/// The registry's numbers as of the tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TipRegistry {
    /// Whether the cap is on.
    pub cap_enabled: bool,
    /// Its factor.
    pub factor: u32,
    /// Licenses that the cap is shared among.
    pub sharers: u32,
}

/// A block to be mined on top of the tip.
#[derive(Debug, Clone)]
pub struct Template {
    /// The tip.
    pub previous: BlockHash,
    /// The new block's height.
    pub height: u32,
    /// Its version, with votes.
    pub version: i32,
    /// Its difficulty bits, for the time below.
    pub bits: CompactTarget,
    /// The clock, or the earliest allowed time if the clock is behind it, seconds.
    pub time: u32,
    /// The earliest allowed time, seconds.
    pub min_time: u32,
    /// The transactions, parents before children.
    pub transactions: Vec<TemplateTx>,
    /// What the coinbase may pay: subsidy and fees, base units.
    pub coinbase_value: u64,
    /// The script of the coinbase output that commits to the witnesses, where segwit is active; for a witness
    /// nonce of zeros.
    pub witness_commitment: Option<ScriptBuf>,
    /// The registry that licenses are judged by.
    pub registry: TipRegistry,
    /// Which soft forks are active for it.
    pub forks: SoftForks,
    /// Deployments that are active, by name.
    pub rules: Vec<&'static str>,
    /// Deployments that may be voted for, by name with their bit.
    pub votes: Vec<(&'static str, u8)>,
}

/// Makes a template for the tip. `now` in seconds.
pub fn template(state: &mut ChainState, now: u64) -> Template {
    let params = state.params().clone();
    let forks = state.forks_after(state.index().tip());
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
    let previous = chain.hash(parent);
    let globals = state.registry().globals();
    let (cap_enabled, factor) = (globals.cap_enabled, globals.factor);
    let registry = TipRegistry { cap_enabled, factor, sharers: state.registry().sharers(&params) };
    let transactions = chosen_transactions(state);
    let fees: u64 = transactions.iter().map(|tx| tx.fee).sum();
    let witness_commitment = forks.segwit.then(|| {
        let others: Vec<Transaction> = transactions.iter().map(|tx| tx.tx.clone()).collect();
        witness_commitment_script(&others)
    });
    Template {
        previous,
        height: parent + 1,
        version,
        bits,
        time,
        min_time,
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

fn chosen_transactions(state: &ChainState) -> Vec<TemplateTx> {
    let entries = state
        .mempool()
        .select(MAX_BLOCK_WEIGHT - COINBASE_WEIGHT, MAX_BLOCK_SIGOPS_COST - COINBASE_SIGOPS_COST);
    let mut positions = std::collections::HashMap::new();
    let mut transactions = Vec::with_capacity(entries.len());
    for entry in entries {
        let tx = Transaction::clone(&entry.tx);
        let txid = tx.compute_txid();
        let mut depends: Vec<usize> =
            tx.input.iter().filter_map(|input| positions.get(&input.previous_output.txid).copied()).collect();
        depends.sort_unstable();
        depends.dedup();
        positions.insert(txid, transactions.len() + 1);
        transactions.push(TemplateTx {
            txid,
            fee: entry.fee,
            sigop_cost: entry.sigop_cost,
            weight: entry.weight,
            depends,
            tx,
        });
    }
    transactions
}
