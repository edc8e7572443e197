//! `iop-node verify`: checks that the stored data is complete and consistent.
//!
//! The state is loaded as when the node starts, which finishes what a crash interrupted. Then, by level: headers;
//! blocks; undo data; the newest blocks disconnected and connected again in memory, and the registry recomputed
//! from genesis; their scripts. `--full` connects the whole chain from genesis and compares every coin. Stops at
//! the first fault.

use std::sync::Arc;

use bitcoin::BlockHash;
use clap::Args;
use iop_consensus::block;
use iop_consensus::coins::CoinView;
use iop_consensus::difficulty::has_proof_of_work;
use iop_consensus::license::registry::Registry;
use iop_consensus::wire::whole_block;
use serde_json::json;

use super::coinset::CoinSetHash;
use super::progress::Progress;
use super::replay::{Fault, Loaded, Replay};
use super::{OfflineArgs, Place, Stop, failed};
use crate::chain::checked::CheckedBlock;
use crate::chain::state::ChainState;
use crate::failure::Failure;
use crate::output::print;
use crate::storage::BlockUndo;

/// The arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    offline: OfflineArgs,
    /// How much: 0 headers; 1 also blocks; 2 also what takes them back; 3 also blocks taken back and connected again,
    /// and the registry from genesis; 4 also scripts
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u8).range(0..=4))]
    level: u8,
    /// The newest blocks to look at
    #[arg(long, value_name = "N", default_value = "288", conflicts_with = "full")]
    blocks: u32,
    /// The whole chain, connected anew from genesis: every coin is compared
    #[arg(long)]
    full: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Reports success, or fails with the first fault.
pub(crate) fn verify(args: VerifyArgs) -> Result<(), Failure> {
    let place = Place::new(args.offline)?;
    let stop = Stop::listen()?;
    let storage = Arc::new(place.open()?);
    let mut state = ChainState::load_with(place.params.clone(), storage, place.options).map_err(failed)?;
    state.flush().map_err(failed)?;
    if args.full && state.pruned_below() > 0 {
        return Err(Failure::Failed(format!(
            "blocks below height {} were pruned: --full needs all of them",
            state.pruned_below()
        )));
    }
    let tip = state.index().get(state.index().tip()).record.height;
    let lowest = state.pruned_below().max(1);
    let from = if args.full { 1 } else { lowest.max(tip.saturating_sub(args.blocks) + 1) };
    let verify = Verify { state: &state, stop: &stop, level: args.level, tip, from };
    let found = if args.full { verify.full() } else { verify.newest() };
    match found {
        Ok(found) => verify.report(&found, args.json),
        Err(_) if stop.is_told() => Err(Failure::Failed("told to stop: no fault so far".to_owned())),
        Err(fault) => Err(Failure::Failed(format!("fault: {fault}"))),
    }
}

/// What was checked, besides headers.
#[derive(Default)]
struct Found {
    registry: bool,
    coins: Option<CoinSet>,
}

struct CoinSet {
    count: u64,
    amount: u64,
    hash: String,
}

struct Verify<'a> {
    state: &'a ChainState,
    stop: &'a Stop,
    level: u8,
    tip: u32,
    /// The lowest block to check.
    from: u32,
}

impl Verify<'_> {
    /// Checks the newest blocks.
    fn newest(&self) -> Result<Found, Fault> {
        self.headers()?;
        let mut found = Found::default();
        if self.level >= 1 {
            self.blocks()?;
        }
        if self.level >= 3 {
            self.reconnect()?;
            if self.state.pruned_below() == 0 {
                self.registry()?;
                found.registry = true;
            }
        }
        Ok(found)
    }

    /// Checks every header of the active chain: hash, position and work.
    fn headers(&self) -> Result<(), Fault> {
        let (index, limit) = (self.state.index(), self.state.params().pow.limit);
        let mut previous = None;
        for height in 0..=self.tip {
            let id = index.active_at(height).ok_or_else(|| format!("height {height} has no block"))?;
            let entry = index.get(id);
            let header = &entry.record.header;
            let named = |what: &str| format!("header {} at height {height}: {what}", entry.hash);
            if header.block_hash() != entry.hash {
                return Err(named("its hash is another"));
            }
            if entry.record.height != height || previous.is_some_and(|hash| hash != header.prev_blockhash) {
                return Err(named("it is not on top of the one before"));
            }
            if height > 0 && !has_proof_of_work(&entry.hash, header.bits, limit) {
                return Err(named("it has no proof of work"));
            }
            if entry.is_failed() {
                return Err(named("it is active and marked as invalid"));
            }
            previous = Some(entry.hash);
        }
        if self.state.registry().globals().height != self.tip {
            return Err("the registry is of another height than the tip".to_owned());
        }
        Ok(())
    }

    /// Checks the blocks, and from level 2 on their undo data.
    fn blocks(&self) -> Result<(), Fault> {
        let mut progress = self.progress("reading", self.from);
        for height in self.from..=self.tip {
            let loaded = self.load(height)?;
            let txs = loaded.block.txdata.iter().skip(1);
            let inputs: usize = txs.map(|tx| tx.input.len()).sum();
            let hash = loaded.hash;
            let checked = CheckedBlock::new(loaded.block, self.state.params());
            checked.map_err(|unsound| format!("block {hash} at height {height}: {}", unsound.error))?;
            if self.level >= 2 && self.undo(height, &hash)?.spent.len() != inputs {
                return Err(format!(
                    "block {hash} at height {height}: its undo is of another number of coins"
                ));
            }
            self.step(&mut progress, height, self.from)?;
        }
        Ok(())
    }

    /// Disconnects the newest blocks and connects them again: everything must be as before.
    fn reconnect(&self) -> Result<(), Fault> {
        let mut replay = Replay::at_tip(self.state, self.level >= 4);
        let mut progress = self.progress("taking back", self.from);
        for height in (self.from..=self.tip).rev() {
            let loaded = self.load(height)?;
            replay.disconnect(&loaded, &self.undo(height, &loaded.hash)?)?;
            self.step(&mut progress, self.tip - height + self.from, self.from)?;
        }
        progress.end();
        let mut progress = self.progress("connecting", self.from);
        for height in self.from..=self.tip {
            let loaded = self.load(height)?;
            replay.connect(&loaded, &self.undo(height, &loaded.hash)?)?;
            self.step(&mut progress, height, self.from)?;
        }
        for (outpoint, coin) in &replay.coins.changes {
            let stored = self.state.coins().coin(outpoint).map_err(|error| error.to_string())?;
            if stored != *coin {
                return Err(format!("coin {outpoint} is another after its block was connected again"));
            }
        }
        self.compare_registry(&replay.registry, "after the newest blocks were connected again")
    }

    /// Recomputes the registry from all blocks.
    fn registry(&self) -> Result<(), Fault> {
        let params = self.state.params();
        let mut registry = Registry::genesis(params);
        let mut progress = self.progress("registry", 1);
        for height in 1..=self.tip {
            registry.apply(&self.load(height)?.block, params);
            self.step(&mut progress, height, 1)?;
        }
        self.compare_registry(&registry, "than that recomputed from genesis")
    }

    fn compare_registry(&self, registry: &Registry, what: &str) -> Result<(), Fault> {
        let stored = self.state.storage().registry().map_err(|error| error.to_string())?;
        if self.state.registry() != registry || stored.as_ref() != Some(registry) {
            return Err(format!("the registry is another {what}"));
        }
        Ok(())
    }

    /// Checks the whole chain from genesis.
    fn full(&self) -> Result<Found, Fault> {
        self.headers()?;
        let mut replay = Replay::at_genesis(self.state, self.level >= 4);
        let mut progress = self.progress("connecting", 1);
        for height in 1..=self.tip {
            let loaded = self.load(height)?;
            let (hash, undo) = (loaded.hash, self.undo(height, &loaded.hash)?);
            // Only a block that passes its context-free checks may be connected: before, amounts may be anything.
            block::check_with_txids(&loaded.block, &loaded.txids, self.state.params())
                .map_err(|error| format!("block {hash} at height {height}: {error}"))?;
            replay.connect(&loaded, &undo)?;
            self.step(&mut progress, height, 1)?;
        }
        self.compare_registry(&replay.registry, "than that recomputed from genesis")?;
        let mut coins = replay.coins.changes;
        let tip = self.state.index().get(self.state.index().tip()).hash;
        let (mut digest, mut fault) = (CoinSetHash::new(&tip), None);
        let seen = self.state.storage().for_each_coin(|outpoint, coin| {
            if coins.remove(&outpoint).flatten().as_ref() != Some(&coin) {
                fault.get_or_insert_with(|| format!("coin {outpoint} should not exist, or is another"));
            }
            digest.add(&outpoint, &coin);
        });
        seen.map_err(|error| error.to_string())?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        if let Some((outpoint, _)) = coins.iter().find(|(_, coin)| coin.is_some()) {
            return Err(format!("coin {outpoint} is missing"));
        }
        let (count, amount) = (digest.coins, digest.amount);
        Ok(Found { registry: true, coins: Some(CoinSet { count, amount, hash: digest.finish() }) })
    }

    fn load(&self, height: u32) -> Result<Loaded, Fault> {
        let id = self.state.index().active_at(height).expect("heights up to the tip are active");
        let hash = self.state.index().get(id).hash;
        let named = |what: &str| format!("block {hash} at height {height}: {what}");
        let bytes = self.state.storage().block_bytes(&hash).map_err(|error| named(&error.to_string()))?;
        let block = bytes.and_then(|bytes| whole_block(&bytes).ok());
        let block = block.ok_or_else(|| named("it cannot be read"))?;
        if block.block_hash() != hash {
            return Err(named("its hash is another"));
        }
        let txids = block.txdata.iter().map(bitcoin::Transaction::compute_txid).collect();
        Ok(Loaded { hash, block, txids })
    }

    fn undo(&self, height: u32, hash: &BlockHash) -> Result<BlockUndo, Fault> {
        let undo = self.state.storage().undo(hash);
        undo.map_err(|error| format!("block {hash} at height {height}: {error}"))
    }

    fn progress(&self, what: &'static str, from: u32) -> Progress {
        Progress::new(what, u64::from(self.tip.saturating_sub(from)) + 1)
    }

    /// Shows the progress; returns an empty fault when told to stop.
    fn step(&self, progress: &mut Progress, height: u32, from: u32) -> Result<(), Fault> {
        let done = u64::from(height - from) + 1;
        progress.at(done, height, done);
        if self.stop.is_told() { Err(Fault::new()) } else { Ok(()) }
    }

    fn report(&self, found: &Found, as_json: bool) -> Result<(), Failure> {
        let tip = self.state.index().get(self.state.index().tip()).hash;
        let blocks = if self.level == 0 && found.coins.is_none() { 0 } else { self.tip + 1 - self.from };
        if as_json {
            let mut result = json!({
                "fault": null, "height": self.tip, "tip": tip.to_string(), "blocks": blocks,
                "level": self.level, "registry_recomputed": found.registry,
                "pruned_below": self.state.pruned_below(),
            });
            if let Some(coins) = &found.coins {
                result["coins"] = coins.count.into();
                result["amount"] = coins.amount.into();
                result["hash_serialized_2"] = coins.hash.clone().into();
            }
            return print(&result.to_string());
        }
        let registry = if found.registry { ", the registry is as recomputed from genesis" } else { "" };
        let coins = found.coins.as_ref().map_or_else(String::new, |coins| {
            format!(", all {} coins are as recomputed (hash_serialized_2 {})", coins.count, coins.hash)
        });
        print(&format!(
            "no fault: tip {tip} at height {}, {blocks} blocks looked at{registry}{coins}",
            self.tip
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chain::clock::now;
    use crate::generate::{Payee, mine};
    use crate::storage::{Batch, Storage};
    use crate::template::template;
    use bitcoin::OutPoint;
    use iop_consensus::address::{Address, AddressKind};
    use iop_consensus::params::Params;

    /// A stored chain of five blocks.
    fn state(dir: &std::path::Path) -> ChainState {
        let params = Arc::new(Params::regtest());
        let storage = Arc::new(Storage::open(dir, &params).unwrap());
        let mut state = ChainState::load(params, storage).unwrap();
        for n in 0..5 {
            let address = Address { kind: AddressKind::PubkeyHash, hash: [n; 20] };
            let block = mine(&template(&mut state, now()), &Payee { address, key: None }, || false).unwrap();
            state.submit(block, now()).unwrap();
        }
        state.flush().unwrap();
        state
    }

    fn hash(state: &ChainState, height: u32) -> BlockHash {
        state.index().get(state.index().active_at(height).unwrap()).hash
    }

    fn verdicts(state: &ChainState, level: u8) -> [Option<Fault>; 2] {
        let stop = Stop::default();
        let verify = Verify { state, stop: &stop, level, tip: 5, from: 1 };
        [verify.newest().err(), verify.full().err()]
    }

    /// The results of both ways of verifying after a change to the stored data.
    fn after(change: impl FnOnce(&ChainState, &mut Batch)) -> [Option<Fault>; 2] {
        let dir = tempfile::tempdir().unwrap();
        let mut state = state(dir.path());
        assert_eq!(verdicts(&state, 4), [None, None]);
        let mut batch = state.storage().batch();
        change(&state, &mut batch);
        state.storage().commit(batch).unwrap();
        // Loaded again, since the cache does not have the change.
        let (params, storage) = (state.params().clone(), state.storage().clone());
        state = ChainState::load(params, storage).unwrap();
        verdicts(&state, 3)
    }

    fn both_name(verdicts: [Option<Fault>; 2], what: &str) {
        for verdict in verdicts {
            assert!(verdict.as_ref().is_some_and(|fault| fault.contains(what)), "{verdict:?}");
        }
    }

    fn coinbase_of(state: &ChainState, height: u32) -> OutPoint {
        let block = state.storage().block(&hash(state, height)).unwrap().unwrap();
        OutPoint { txid: block.txdata[0].compute_txid(), vout: 0 }
    }

    #[test]
    fn a_coin_that_is_missing_too_much_or_another_is_found() {
        both_name(after(|state, batch| batch.delete_coin(&coinbase_of(state, 3))), "is missing");
        both_name(
            after(|state, batch| {
                let outpoint = coinbase_of(state, 3);
                let mut coin = state.coins().coin(&outpoint).unwrap().unwrap();
                coin.height += 1;
                batch.put_coin(&outpoint, &coin);
            }),
            "another",
        );
        let [_, full] = after(|state, batch| {
            let outpoint = coinbase_of(state, 3);
            let coin = state.coins().coin(&outpoint).unwrap().unwrap();
            batch.put_coin(&OutPoint { vout: 9, ..outpoint }, &coin);
        });
        assert!(full.is_some_and(|fault| fault.contains("should not exist")));
    }

    #[test]
    fn a_block_or_an_undo_that_cannot_be_read_or_is_another_is_named() {
        both_name(
            after(|state, batch| batch.put_block(&hash(state, 2), &[1, 2, 3])),
            "at height 2: it cannot be read",
        );
        both_name(
            after(|state, batch| {
                let other = state.storage().block_bytes(&hash(state, 4)).unwrap().unwrap();
                batch.put_block(&hash(state, 2), &other);
            }),
            "at height 2: its hash is another",
        );
        both_name(
            after(|state, batch| {
                let mut block = state.storage().block(&hash(state, 2)).unwrap().unwrap();
                let mut output = block.txdata[0].output[0].clone();
                output.value = bitcoin::Amount::from_sat(u64::MAX);
                block.txdata[0].output.push(output);
                batch.put_block(&hash(state, 2), &bitcoin::consensus::serialize(&block));
            }),
            "at height 2: ",
        );
        both_name(after(|state, batch| batch.put_undo(&hash(state, 4), &[7])), "at height 4");
        both_name(
            after(|state, batch| {
                let undo = state.storage().undo(&hash(state, 2)).unwrap();
                batch.put_undo(&hash(state, 4), &undo.encode());
            }),
            "registry",
        );
    }

    #[test]
    fn a_registry_that_is_not_that_of_the_chain_is_found() {
        both_name(
            after(|state, batch| {
                let registry = state.registry();
                let license = Address { kind: AddressKind::PubkeyHash, hash: [9; 20] };
                // The same height, and one more license.
                let (mut globals, mut licenses) = (*registry.globals(), std::collections::BTreeMap::new());
                licenses.extend(registry.licenses().map(|(address, record)| (*address, *record)));
                licenses.insert(license, Default::default());
                globals.whitelisted += 1;
                let registry = Registry::from_parts(globals, licenses, Default::default());
                batch.put_registry(&registry, [&license], []);
            }),
            "registry",
        );
    }
}
