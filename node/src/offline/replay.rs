//! Connects and disconnects blocks in memory, for `verify`; nothing is written.
//!
//! Lives here: [`Layer`], changes of coins on top of a view, and [`Replay`], a position in the active chain with
//! its registry, which moves by whole blocks. Does not live here: the comparisons; see `verify.rs`. A fault is one
//! line that names the block.

use std::collections::HashSet;

use bitcoin::{Block, BlockHash, OutPoint, Txid};
use iop_consensus::block::SoftForks;
use iop_consensus::coins::{Coin, CoinMap, CoinView};
use iop_consensus::connect::{self, Change, Connected, Context, ScriptRunner, TxScripts};
use iop_consensus::license::registry::Registry;
use iop_consensus::script::{ScriptFailure, TxVerifier};
use iop_consensus::versionbits::Cache;
use rayon::prelude::*;

use crate::chain::state::ChainState;
use crate::storage::{BlockUndo, StorageError};

/// A fault, in one line.
pub(super) type Fault = String;

/// Changes of coins on top of a view. Over [`Nothing`] it is a whole coin set.
pub(super) struct Layer<V> {
    base: V,
    /// `None` for a coin of the base that was spent.
    pub(super) changes: CoinMap<Option<Coin>>,
}

/// An empty coin set.
pub(super) struct Nothing;

impl CoinView for Nothing {
    type Error = StorageError;

    fn coin(&self, _: &OutPoint) -> Result<Option<Coin>, StorageError> {
        Ok(None)
    }
}

/// The coins as of the node's tip.
pub(super) struct Tip<'a>(pub(super) &'a ChainState);

impl CoinView for Tip<'_> {
    type Error = StorageError;

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StorageError> {
        self.0.coins().coin(outpoint)
    }
}

impl<V: CoinView> CoinView for Layer<V> {
    type Error = V::Error;

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, V::Error> {
        match self.changes.get(outpoint) {
            Some(changed) => Ok(changed.clone()),
            None => self.base.coin(outpoint),
        }
    }
}

/// A block with what was computed from it.
pub(super) struct Loaded {
    pub(super) hash: BlockHash,
    pub(super) block: Block,
    pub(super) txids: Vec<Txid>,
}

/// Runs scripts on all cores.
struct AllCores;

impl ScriptRunner for AllCores {
    fn run(&self, txs: &[TxScripts<'_>]) -> Result<(), ScriptFailure> {
        txs.par_iter().try_for_each(|check| {
            let verifier = TxVerifier::new(check.tx);
            let spent = check.spent.par_iter().enumerate();
            spent.try_for_each(|(input, coin)| verifier.verify(input, &coin.output, check.flags))
        })
    }
}

/// A position in the active chain.
pub(super) struct Replay<'a, V> {
    state: &'a ChainState,
    scripts: bool,
    /// Whether the base is empty, so that a spent coin needs no entry.
    from_nothing: bool,
    cache: Cache,
    pub(super) height: u32,
    pub(super) registry: Registry,
    pub(super) coins: Layer<V>,
}

impl<'a> Replay<'a, Nothing> {
    /// A replay at genesis, without coins.
    pub(super) fn at_genesis(state: &'a ChainState, scripts: bool) -> Self {
        let registry = Registry::genesis(state.params());
        Self { from_nothing: true, ..Self::new(state, scripts, 0, registry, Nothing) }
    }
}

impl<'a> Replay<'a, Tip<'a>> {
    /// A replay at the tip.
    pub(super) fn at_tip(state: &'a ChainState, scripts: bool) -> Self {
        let height = state.index().get(state.index().tip()).record.height;
        Self::new(state, scripts, height, state.registry().clone(), Tip(state))
    }
}

impl<'a, V: CoinView<Error = StorageError>> Replay<'a, V> {
    fn new(state: &'a ChainState, scripts: bool, height: u32, registry: Registry, base: V) -> Self {
        let coins = Layer { base, changes: CoinMap::default() };
        Self { state, scripts, from_nothing: false, cache: Cache::default(), height, registry, coins }
    }

    /// Connects the next block, which must spend and change exactly what `undo` says.
    pub(super) fn connect(&mut self, loaded: &Loaded, undo: &BlockUndo) -> Result<(), Fault> {
        let parent = self.state.index().active_at(self.height).expect("the replay is in the active chain");
        let params = self.state.params();
        let chain = self.state.index().chain(parent);
        let context = Context {
            params,
            chain: &chain,
            forks: SoftForks::on_top_of(&chain, params, &mut self.cache),
            last_checkpoint: self.state.index().last_checkpoint(params),
            runner: self.scripts.then_some(&AllCores as &dyn ScriptRunner),
        };
        let named = |what: &str| format!("block {} at height {}: {what}", loaded.hash, self.height + 1);
        let connected =
            connect::connect(&loaded.block, &loaded.txids, &self.coins, &mut self.registry, &context)
                .map_err(|error| named(&format!("it does not connect: {error}")))?;
        if connected.spent != undo.spent {
            return Err(named("its undo holds other coins than it spends"));
        }
        if connected.registry != undo.registry {
            return Err(named("its undo holds another registry than the one before it"));
        }
        let Connected { coins, .. } = connected;
        let height = self.height + 1;
        for (outpoint, change) in coins {
            let coin = match change {
                Change::Created { output, coinbase } => {
                    Some(Coin { output: output.clone(), height, coinbase })
                }
                Change::Spent => None,
            };
            if coin.is_none() && self.from_nothing {
                self.coins.changes.remove(&outpoint);
            } else {
                self.coins.changes.insert(outpoint, coin);
            }
        }
        self.height = height;
        Ok(())
    }

    /// Disconnects the newest block. The coins it created must exist unchanged, and those it spent must not.
    pub(super) fn disconnect(&mut self, loaded: &Loaded, undo: &BlockUndo) -> Result<(), Fault> {
        let named = |what: &str| format!("block {} at height {}: {what}", loaded.hash, self.height);
        let changes = connect::disconnect(&loaded.block, undo.spent.clone())
            .ok_or_else(|| named("its undo is of another number of coins"))?;
        for (outpoint, change) in &changes {
            let found = self.coins.coin(outpoint).map_err(|error| named(&error.to_string()))?;
            if change.is_some() && found.is_some() {
                return Err(named(&format!("coin {outpoint}, which it spends, is still there")));
            }
        }
        let inputs = loaded.block.txdata.iter().skip(1).flat_map(|tx| &tx.input);
        let spent_within: HashSet<OutPoint> = inputs.map(|input| input.previous_output).collect();
        for (index, (tx, &txid)) in loaded.block.txdata.iter().zip(&loaded.txids).enumerate() {
            for (output, vout) in tx.output.iter().zip(0u32..) {
                let outpoint = OutPoint { txid, vout };
                if Coin::is_unspendable(output) || spent_within.contains(&outpoint) {
                    continue;
                }
                let expected = Coin { output: output.clone(), height: self.height, coinbase: index == 0 };
                let found = self.coins.coin(&outpoint).map_err(|error| named(&error.to_string()))?;
                if found.as_ref() != Some(&expected) {
                    return Err(named(&format!("coin {outpoint}, which it makes, is missing or another")));
                }
            }
        }
        self.registry.undo(&undo.registry);
        self.coins.changes.extend(changes);
        self.height -= 1;
        Ok(())
    }
}
