//! Connecting a block: applying it to its parent's coins and registry (`ConnectBlock`), with the data to undo it.
//!
//! [`connect`] reads the coin view, changes the registry, and returns the changes of coins and the undo data of both.
//! It writes nothing else, so the caller can put everything into one atomic batch. Script checks are collected and
//! given to a [`ScriptRunner`], which may use threads.
//! Order: BIP30, the coinbase's license, then for each transaction inputs, sigops and scripts, then the coinbase's
//! amount, then the registry changes. On an error nothing has changed.

use std::ops::Range;

use bitcoin::{Block, OutPoint, Transaction, TxOut, Txid};

use crate::MAX_BLOCK_SIGOPS_COST;
use crate::address::Address;
use crate::ancestors::Ancestors;
use crate::block::SoftForks;
use crate::coins::{Coin, CoinMap, CoinView};
use crate::error::{BlockError, LicenseError, TxError};
use crate::license::admin::{self, AdminAction};
use crate::license::coinbase;
use crate::license::registry::{Registry, RegistryUndo};
use crate::params::Params;
use crate::script::{self, ScriptFailure};
use crate::subsidy::subsidy;
use crate::tx;

/// One transaction whose input scripts must be run.
#[derive(Debug, Clone, Copy)]
pub struct TxScripts<'a> {
    /// The spending transaction.
    pub tx: &'a Transaction,
    /// Its id.
    pub txid: Txid,
    /// Its index in the block; the coinbase, which has no scripts to run, is at 0.
    pub place: usize,
    /// The coins it spends, in input order.
    pub spent: &'a [Coin],
    /// The script flags of the block.
    pub flags: u32,
}

/// Runs the scripts of a block. All must pass.
pub trait ScriptRunner {
    /// Runs the scripts of these transactions.
    ///
    /// # Errors
    /// An input whose script fails.
    fn run(&self, txs: &[TxScripts<'_>]) -> Result<(), ScriptFailure>;
}

/// What a block is checked against, apart from coins and registry.
pub struct Context<'a> {
    /// The network.
    pub params: &'a Params,
    /// The chain up to the block's parent.
    pub chain: &'a dyn Ancestors,
    /// The soft forks active for the block.
    pub forks: SoftForks,
    /// Height of the highest checkpoint in the header index; 0 for none. Coinbase signatures are checked only above it.
    pub last_checkpoint: u32,
    /// Runs the scripts; `None` if they may be assumed valid (`fScriptChecks`). Coinbase signatures are checked anyway.
    pub runner: Option<&'a dyn ScriptRunner>,
}

/// An admin action that a block performed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoneAction {
    /// The transaction.
    pub txid: Txid,
    /// What the action did.
    pub action: AdminAction,
    /// Whether the spent output needed the admin key's signature, which the chain does not require.
    pub signed: bool,
}

/// A net change of a coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'b> {
    /// A coin that did not exist before the block.
    Created {
        /// Amount and script.
        output: &'b TxOut,
        /// Whether a coinbase created it.
        coinbase: bool,
    },
    /// A coin from before the block that was spent.
    Spent,
}

/// What connecting a block changed.
#[derive(Debug, Clone)]
pub struct Connected<'b> {
    /// The block's height.
    pub height: u32,
    /// Coins created and spent, net.
    pub coins: CoinMap<Change<'b>>,
    /// The coins spent, in order of transactions and inputs, including those created in this block.
    pub spent: Vec<Coin>,
    /// Undo data for the registry.
    pub registry: RegistryUndo,
    /// The admin actions applied, in order.
    pub actions: Vec<DoneAction>,
}

/// Why a block did not connect: it breaks a rule, or the storage failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError<E> {
    /// A rule is broken.
    #[error(transparent)]
    Rule(#[from] BlockError),
    /// The coin view failed.
    #[error("reading coins: {0}")]
    View(E),
}

/// Applies a block that passed [`crate::block::check`] and [`crate::block::check_contextual`]. `txids` are the ids of
/// its transactions, in order.
///
/// # Errors
/// The first rule that the block breaks, or a failure of the view. The registry is unchanged in this case.
pub fn connect<'b, V: CoinView>(
    block: &'b Block,
    txids: &[Txid],
    view: &V,
    registry: &mut Registry,
    context: &Context<'_>,
) -> Result<Connected<'b>, ConnectError<V::Error>> {
    connect_licensed(block, txids, || coinbase::check(&block.txdata[0]), view, registry, context)
}

/// [`connect`] for callers that may already know the result of [`coinbase::check`] on the block's coinbase. `license`
/// is called only if the block must be licensed.
///
/// # Errors
/// As [`connect`].
pub fn connect_licensed<'b, V: CoinView>(
    block: &'b Block,
    txids: &[Txid],
    license: impl FnOnce() -> Result<Address, LicenseError>,
    view: &V,
    registry: &mut Registry,
    context: &Context<'_>,
) -> Result<Connected<'b>, ConnectError<V::Error>> {
    let height = context.chain.tip_height() + 1;
    let txs = || block.txdata.iter().zip(txids.iter().copied());
    check_bip30(txs(), view)?;
    check_license(height, license, registry, context)?;
    let mut overlay =
        Overlay { view, height, changes: CoinMap::default(), spent: Vec::new(), places: Vec::new() };
    let flags = script::flags(block.header.time, context.forks.csv, context.forks.segwit);
    let judged = apply_transactions(txs(), flags, &mut overlay, context)
        .and_then(|fees| Ok(check_amount(&block.txdata[0], fees, height, context.params)?));
    let Overlay { changes: coins, spent, places, .. } = overlay;
    // The reference runs a transaction's scripts before it looks at the next one. Here they run together, so a failing
    // script takes precedence over whatever broken rule was found after it.
    if let Some(runner) = context.runner
        && !matches!(judged, Err(ConnectError::View(_)))
    {
        let spending: Vec<TxScripts<'_>> = txs()
            .zip(&places)
            .enumerate()
            .skip(1)
            .map(|(place, ((tx, txid), coins))| TxScripts {
                tx,
                txid,
                place,
                spent: &spent[coins.clone()],
                flags,
            })
            .collect();
        let passed = runner.run(&spending);
        passed.map_err(|failure| BlockError::Tx { txid: failure.txid, error: failure.into() })?;
    }
    judged?;
    let (undo, actions) = registry.apply(block, context.params);
    let done = |(index, action): (usize, AdminAction)| {
        let coin = spent[places[index].clone()].get(action.input);
        let signed = coin.is_some_and(|coin| admin::is_signed_by(&coin.output, &action.pubkey));
        DoneAction { txid: txids[index], action, signed }
    };
    let actions = actions.into_iter().map(done).collect();
    Ok(Connected { height, coins, spent, registry: undo, actions })
}

/// Whether a block at `height` must be licensed. `last_checkpoint` is the height of the highest checkpoint in the
/// header index, 0 for none.
pub fn must_be_licensed(height: u32, last_checkpoint: u32, params: &Params) -> bool {
    params.license.requires_license(height) && height > last_checkpoint
}

/// Checks that no output of the block already exists unspent as of the parent (BIP30).
fn check_bip30<'b, V: CoinView>(
    txs: impl Iterator<Item = (&'b Transaction, Txid)>,
    view: &V,
) -> Result<(), ConnectError<V::Error>> {
    for (tx, txid) in txs {
        for vout in 0..tx.output.len() as u32 {
            let outpoint = OutPoint { txid, vout };
            if view.has_coin(&outpoint).map_err(ConnectError::View)? {
                return Err(BlockError::Bip30(outpoint).into());
            }
        }
    }
    Ok(())
}

fn check_license(
    height: u32,
    license: impl FnOnce() -> Result<Address, LicenseError>,
    registry: &Registry,
    context: &Context<'_>,
) -> Result<(), BlockError> {
    if !must_be_licensed(height, context.last_checkpoint, context.params) {
        return Ok(());
    }
    let license = license()?;
    Ok(registry.check_may_mine(&license, context.params)?)
}

/// Applies everything but scripts, transaction by transaction, and returns the sum of fees. On an error `overlay` holds
/// the places of the transactions before the failing one.
fn apply_transactions<'b, V: CoinView>(
    txs: impl Iterator<Item = (&'b Transaction, Txid)>,
    flags: u32,
    overlay: &mut Overlay<'b, '_, V>,
    context: &Context<'_>,
) -> Result<u64, ConnectError<V::Error>> {
    let (mut fees, mut sigops) = (0u64, 0u64);
    for (index, (tx, txid)) in txs.enumerate() {
        let broken = |error| BlockError::Tx { txid, error };
        let from = overlay.spent.len();
        if index > 0 {
            overlay.spend_inputs(tx)?.map_err(broken)?;
        }
        let coins = &overlay.spent[from..];
        if index > 0 && context.forks.csv {
            let heights = coins.iter().map(|coin| coin.height);
            if !tx::sequence_locks_passed(tx, heights, context.chain) {
                return Err(broken(TxError::NotBip68Final(txid)).into());
            }
        }
        sigops += script::sigop_cost(tx, coins.iter().map(|coin| &coin.output), flags);
        if sigops > MAX_BLOCK_SIGOPS_COST {
            return Err(BlockError::SigOps { found: sigops, at_most: MAX_BLOCK_SIGOPS_COST }.into());
        }
        if index > 0 {
            fees += tx::check_inputs(tx, coins, overlay.height).map_err(broken)?;
        }
        overlay.places.push(from..overlay.spent.len());
        overlay.create_outputs(tx, txid, index == 0);
    }
    Ok(fees)
}

fn check_amount(coinbase: &Transaction, fees: u64, height: u32, params: &Params) -> Result<(), BlockError> {
    let found = tx::value_out(coinbase);
    let at_most = fees + subsidy(height, params.halving_interval);
    if found > at_most { Err(BlockError::CoinbaseAmount { found, at_most }) } else { Ok(()) }
}

/// The parent's coins with this block's changes on top. No coin created by the block is in the view (BIP30), so one
/// that is both created and spent leaves no trace.
struct Overlay<'b, 'v, V> {
    view: &'v V,
    height: u32,
    changes: CoinMap<Change<'b>>,
    spent: Vec<Coin>,
    /// Range in `spent` of the coins of each transaction.
    places: Vec<Range<usize>>,
}

impl<'b, V: CoinView> Overlay<'b, '_, V> {
    /// Spends a transaction's inputs: moves their coins to `spent`. All must exist before any is removed.
    fn spend_inputs(&mut self, tx: &Transaction) -> Result<Result<(), TxError>, ConnectError<V::Error>> {
        for input in &tx.input {
            let outpoint = &input.previous_output;
            let coin = match self.changes.get(outpoint) {
                Some(Change::Spent) => None,
                Some(&Change::Created { output, coinbase }) => {
                    Some(Coin { output: output.clone(), height: self.height, coinbase })
                }
                None => self.view.coin(outpoint).map_err(ConnectError::View)?,
            };
            let Some(coin) = coin else { return Ok(Err(TxError::MissingInput(*outpoint))) };
            self.spent.push(coin);
        }
        for input in &tx.input {
            if self.changes.remove(&input.previous_output).is_none() {
                self.changes.insert(input.previous_output, Change::Spent);
            }
        }
        Ok(Ok(()))
    }

    fn create_outputs(&mut self, tx: &'b Transaction, txid: Txid, coinbase: bool) {
        for (output, vout) in tx.output.iter().zip(0u32..) {
            if !Coin::is_unspendable(output) {
                self.changes.insert(OutPoint { txid, vout }, Change::Created { output, coinbase });
            }
        }
    }
}

/// The coin changes that disconnect a block, from the coins that [`Connected::spent`] recorded: `None` for a coin to be
/// removed. Returns `None` if the number of coins is not that of the block's inputs.
pub fn disconnect(block: &Block, mut spent: Vec<Coin>) -> Option<CoinMap<Option<Coin>>> {
    let mut changes = CoinMap::default();
    for (index, tx) in block.txdata.iter().enumerate().rev() {
        let txid = tx.compute_txid();
        for (output, vout) in tx.output.iter().zip(0u32..) {
            if !Coin::is_unspendable(output) {
                changes.insert(OutPoint { txid, vout }, None);
            }
        }
        if index > 0 {
            for input in tx.input.iter().rev() {
                changes.insert(input.previous_output, Some(spent.pop()?));
            }
        }
    }
    spent.is_empty().then_some(changes)
}
