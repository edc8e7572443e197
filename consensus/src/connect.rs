//! A block applied to its parent's coins and registry (`ConnectBlock`), and what undoes it.
//!
//! [`connect`] reads the view, changes the registry, and gives the changes of coins and the undo of both; it
//! writes nothing else, so the caller can put all of it into one atomic batch. Script checks are collected
//! and handed to a [`ScriptRunner`], which may have threads.
//! Order: BIP30, the coinbase's license, inputs and sigops transaction by transaction, the coinbase's amount,
//! scripts; then the registry changes. On an error nothing has changed.

use std::collections::HashMap;

use bitcoin::{Block, OutPoint, Transaction, TxOut};

use crate::MAX_BLOCK_SIGOPS_COST;
use crate::ancestors::Ancestors;
use crate::block::SoftForks;
use crate::coins::{Coin, CoinView};
use crate::error::{BlockError, TxError};
use crate::license::admin::{self, AdminAction};
use crate::license::coinbase;
use crate::license::registry::{Registry, RegistryUndo};
use crate::params::Params;
use crate::script::{self, ScriptCheck, ScriptFailure};
use crate::subsidy::subsidy;
use crate::tx;

/// Runs script checks; all must pass.
pub trait ScriptRunner {
    /// # Errors
    /// A failing input.
    fn run(&self, checks: &[ScriptCheck<'_>]) -> Result<(), ScriptFailure>;
}

/// What a block is judged with besides coins and registry.
pub struct Context<'a> {
    /// The network.
    pub params: &'a Params,
    /// The chain up to the block's parent.
    pub chain: &'a dyn Ancestors,
    /// The soft forks active for the block.
    pub forks: SoftForks,
    /// Height of the highest checkpoint that the header index knows; 0 for none. Coinbase signatures are
    /// checked above it.
    pub last_checkpoint: u32,
    /// Who runs the scripts.
    pub runner: &'a dyn ScriptRunner,
}

/// An admin action that a block did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoneAction {
    /// The transaction.
    pub txid: bitcoin::Txid,
    /// What it did.
    pub action: AdminAction,
    /// Whether the spent output needed the admin key's signature. Not demanded by the chain.
    pub signed: bool,
}

/// What connecting a block changed.
#[derive(Debug, Clone)]
pub struct Connected {
    /// Coins created and spent, net: `None` for a coin of before that is gone.
    pub coins: HashMap<OutPoint, Option<Coin>>,
    /// The coins spent, in order of transactions and inputs; created and spent in this block included.
    pub spent: Vec<Coin>,
    /// What undoes the registry's changes.
    pub registry: RegistryUndo,
    /// The admin actions applied, in order.
    pub actions: Vec<DoneAction>,
}

/// A block did not connect: it breaks a rule, or the storage failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError<E> {
    /// A rule.
    #[error(transparent)]
    Rule(#[from] BlockError),
    /// The view of coins.
    #[error("reading coins: {0}")]
    View(E),
}

/// Applies a block that passed [`crate::block::check`] and [`crate::block::check_contextual`].
///
/// # Errors
/// The first rule that the block breaks, or a failure of the view. The registry is then unchanged.
pub fn connect<V: CoinView>(
    block: &Block,
    view: &V,
    registry: &mut Registry,
    context: &Context<'_>,
) -> Result<Connected, ConnectError<V::Error>> {
    let height = context.chain.tip_height() + 1;
    let mut overlay = Overlay { view, changes: HashMap::new() };
    check_bip30(block, &overlay)?;
    check_license(block, height, registry, context)?;
    let (spent, checks, fees) = apply_transactions(block, height, &mut overlay, context)?;
    check_amount(&block.txdata[0], fees, height, context.params)?;
    context
        .runner
        .run(&checks)
        .map_err(|failure| BlockError::Tx { txid: failure.txid, error: failure.into() })?;
    let (undo, actions) = registry.apply(block, context.params);
    let actions = actions.into_iter().map(|(index, action)| done(block, index, action, &checks)).collect();
    Ok(Connected { coins: overlay.changes, spent, registry: undo, actions })
}

fn done(block: &Block, index: usize, action: AdminAction, checks: &[ScriptCheck<'_>]) -> DoneAction {
    let signed = checks
        .get(index - 1)
        .and_then(|check| check.spent.get(action.input))
        .is_some_and(|spent| admin::is_signed_by(spent, &action.pubkey));
    DoneAction { txid: block.txdata[index].compute_txid(), action, signed }
}

/// No output may come to be that exists and is unspent (BIP30), as of the parent.
fn check_bip30<V: CoinView>(block: &Block, overlay: &Overlay<'_, V>) -> Result<(), ConnectError<V::Error>> {
    for tx in &block.txdata {
        let txid = tx.compute_txid();
        for vout in 0..tx.output.len() as u32 {
            let outpoint = OutPoint { txid, vout };
            if overlay.coin(&outpoint)?.is_some() {
                return Err(BlockError::Bip30(outpoint).into());
            }
        }
    }
    Ok(())
}

fn check_license(
    block: &Block,
    height: u32,
    registry: &Registry,
    context: &Context<'_>,
) -> Result<(), BlockError> {
    if !context.params.license.requires_license(height) || height <= context.last_checkpoint {
        return Ok(());
    }
    let license = coinbase::check(&block.txdata[0])?;
    Ok(registry.check_may_mine(&license, context.params)?)
}

type Applied<'b> = (Vec<Coin>, Vec<ScriptCheck<'b>>, u64);

fn apply_transactions<'b, V: CoinView>(
    block: &'b Block,
    height: u32,
    overlay: &mut Overlay<'_, V>,
    context: &Context<'_>,
) -> Result<Applied<'b>, ConnectError<V::Error>> {
    let flags = script::flags(block.header.time, context.forks.csv, context.forks.segwit);
    let (mut all_spent, mut checks, mut fees, mut sigops) = (Vec::new(), Vec::new(), 0u64, 0u64);
    for (index, tx) in block.txdata.iter().enumerate() {
        let broken = |error| BlockError::Tx { txid: tx.compute_txid(), error };
        let coins = if index == 0 { Vec::new() } else { overlay.spent_by(tx)?.map_err(broken)? };
        if index > 0 && context.forks.csv {
            let heights: Vec<u32> = coins.iter().map(|coin| coin.height).collect();
            if !tx::sequence_locks_passed(tx, &heights, context.chain) {
                return Err(broken(TxError::NotFinal(tx.compute_txid())).into());
            }
        }
        let outputs: Vec<&TxOut> = coins.iter().map(|coin| &coin.output).collect();
        sigops += script::sigop_cost(tx, &outputs, flags);
        if sigops > MAX_BLOCK_SIGOPS_COST {
            return Err(BlockError::SigOps { found: sigops, at_most: MAX_BLOCK_SIGOPS_COST }.into());
        }
        if index > 0 {
            fees += tx::check_inputs(tx, &coins, height).map_err(broken)?;
            checks.push(ScriptCheck { tx, spent: coins.iter().map(|c| c.output.clone()).collect(), flags });
        }
        overlay.apply(tx, height, index == 0);
        all_spent.extend(coins);
    }
    Ok((all_spent, checks, fees))
}

fn check_amount(coinbase: &Transaction, fees: u64, height: u32, params: &Params) -> Result<(), BlockError> {
    let found = tx::value_out(coinbase);
    let at_most = fees + subsidy(height, params.halving_interval);
    if found > at_most { Err(BlockError::CoinbaseAmount { found, at_most }) } else { Ok(()) }
}

/// The parent's coins with this block's changes on top.
struct Overlay<'v, V> {
    view: &'v V,
    changes: HashMap<OutPoint, Option<Coin>>,
}

impl<V: CoinView> Overlay<'_, V> {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ConnectError<V::Error>> {
        match self.changes.get(outpoint) {
            Some(changed) => Ok(changed.clone()),
            None => self.view.coin(outpoint).map_err(ConnectError::View),
        }
    }

    /// The coins a transaction spends, in input order.
    fn spent_by(&self, tx: &Transaction) -> Result<Result<Vec<Coin>, TxError>, ConnectError<V::Error>> {
        let mut coins = Vec::with_capacity(tx.input.len());
        for input in &tx.input {
            match self.coin(&input.previous_output)? {
                Some(coin) => coins.push(coin),
                None => return Ok(Err(TxError::MissingInput(input.previous_output))),
            }
        }
        Ok(Ok(coins))
    }

    fn apply(&mut self, tx: &Transaction, height: u32, coinbase: bool) {
        if !coinbase {
            for input in &tx.input {
                self.changes.insert(input.previous_output, None);
            }
        }
        for (outpoint, coin) in created(tx, height, coinbase) {
            self.changes.insert(outpoint, Some(coin));
        }
    }
}

/// The coins that a transaction creates: its outputs that can be spent at all.
pub fn created(tx: &Transaction, height: u32, coinbase: bool) -> impl Iterator<Item = (OutPoint, Coin)> + '_ {
    let txid = tx.compute_txid();
    tx.output.iter().zip(0u32..).filter(|(output, _)| !Coin::is_unspendable(output)).map(
        move |(output, vout)| (OutPoint { txid, vout }, Coin { output: output.clone(), height, coinbase }),
    )
}

/// The changes of coins that take a connected block back, from the coins that [`Connected::spent`] recorded;
/// `None` if their number is not that of the block's inputs.
pub fn disconnect(block: &Block, mut spent: Vec<Coin>) -> Option<HashMap<OutPoint, Option<Coin>>> {
    let mut changes = HashMap::new();
    for (index, tx) in block.txdata.iter().enumerate().rev() {
        for (outpoint, _) in created(tx, 0, index == 0) {
            changes.insert(outpoint, None);
        }
        if index > 0 {
            for input in tx.input.iter().rev() {
                changes.insert(input.previous_output, Some(spent.pop()?));
            }
        }
    }
    spent.is_empty().then_some(changes)
}
