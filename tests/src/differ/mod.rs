//! Random blocks for two nodes, which must agree on each.
//!
//! Lives here: a player that makes up blocks ([`Player`]): licensed ones, admin transactions, one broken rule at a
//! time, branches. Does not live here: how blocks are built ([`crate::forge`]), and the program that submits them and
//! compares (`iop-differ`).
//! Data goes: [`Player::make_up`] -> offers -> both nodes -> [`Player::told`] with the new tip.

pub mod admin;
pub mod blocks;
pub mod branches;
pub mod coinbases;
pub mod random;
pub mod spends;

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf};

use crate::forge::lock::Lock;
use crate::forge::{ADMIN, Coin, Draft, Forge, LICENSES};
use admin::Listed;
use random::Random;

/// Blocks from height 1 on that pay coins for later transactions; they are mature a hundred blocks later.
const FUNDED: u32 = 60;
/// Most earlier blocks kept for being submitted again.
const HISTORY: usize = 400;

/// A block to keep once it has been offered.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its parent's index in the forge.
    pub parent: usize,
    /// The block.
    pub block: Block,
    /// What plain actions have listed after it.
    pub listed: Listed,
}

/// A block submitted to both nodes.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The rule that was broken, or its kind.
    pub kind: String,
    /// The argument of `submitblock`.
    pub hex: String,
    /// The block, if others could be built on it.
    pub made: Option<Made>,
}

/// Makes up blocks.
pub struct Player {
    /// The blocks so far.
    pub forge: Forge,
    /// The source of random choices.
    pub random: Random,
    /// The active tip's index.
    pub tip: usize,
    /// Makes branches, and only plain admin actions; otherwise odd admin actions and no branch that could win.
    pub plain: bool,
    /// Makes no block whose verdict depends on the clock.
    pub timeless: bool,
    listed: HashMap<usize, Listed>,
    history: Vec<Offer>,
}

impl Player {
    /// A player on a fresh chain.
    pub fn new(forge: Forge, seed: u64, plain: bool) -> Self {
        let listed = HashMap::from([(0, Listed::default())]);
        Self { forge, random: Random::new(seed), tip: 0, plain, timeless: false, listed, history: Vec::new() }
    }

    /// The next blocks to submit, in order.
    pub fn make_up(&mut self) -> Vec<Offer> {
        let height = self.forge.blocks[self.tip].height;
        if height < FUNDED + 101 {
            return vec![self.opening(height + 1)];
        }
        let offers = self.choose();
        self.history.extend(offers.iter().filter(|offer| offer.hex.len() < 100_000).cloned());
        let excess = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..excess);
        offers
    }

    /// The first blocks pay coins, and split them once they are mature.
    fn opening(&mut self, height: u32) -> Offer {
        let key = height as usize % 8 + 1;
        let locks = [Lock::Pkh(ADMIN), Lock::Anyone, Lock::Pkh(key), Lock::Open, Lock::Pk(key)];
        let lock = (height <= FUNDED).then(|| locks[height as usize % locks.len()]);
        let mut draft = self.forge.draft(self.tip, lock);
        if let Some(coin) = self.coin(&draft, |coin| coin.coinbase).filter(|_| height > 101) {
            let value = self.forge.coin(&draft, &coin).map_or(0, |coin| coin.value) / 16;
            let key = |n: u32| ((height + n) % 9) as usize;
            let outputs = [
                Lock::Pkh(ADMIN),
                Lock::Pkh(ADMIN),
                Lock::Pkh(ADMIN),
                Lock::Anyone,
                Lock::Anyone,
                Lock::Open,
                Lock::Pkh(key(1)),
                Lock::Pk(key(2)),
                Lock::Multisig(1, 2),
                Lock::ShMultisig(1, 2),
                Lock::ShAnyone,
                Lock::Wpkh(key(3)),
                Lock::ShWpkh(key(4)),
                Lock::Wsh(key(5)),
            ];
            let outputs = outputs.iter().map(|lock| (value, lock.script(&self.forge.keys))).collect();
            let tx = self.forge.spend(&draft, &[coin], outputs);
            draft.txs.push(tx);
        }
        let parent = draft.parent;
        let block = self.forge.finish(draft);
        self.offer("opening", parent, block)
    }

    fn choose(&mut self) -> Vec<Offer> {
        let draft = self.block(self.tip);
        match self.random.below(20) {
            0..3 => vec![self.with_admin(draft)],
            3..8 => vec![self.with_spend(draft)],
            8..11 => vec![self.with_coinbase(draft)],
            11..14 => blocks::make(self, draft).into_iter().collect(),
            14 => vec![self.again()],
            15 if self.plain && self.random.one_in(3) => branches::hollow(self),
            15 | 16 if self.plain => branches::branch(self),
            15 => self.side_block().into_iter().collect(),
            _ => vec![self.simple(draft)],
        }
    }

    fn simple(&mut self, draft: Draft) -> Offer {
        let parent = draft.parent;
        let block = self.forge.finish(draft);
        self.offer("licensed", parent, block)
    }

    fn with_admin(&mut self, mut draft: Draft) -> Offer {
        let parent = draft.parent;
        let listed = self.listed(parent);
        let count = if self.plain { 1 } else { 1 + self.random.below(3) };
        let mut after = listed.clone();
        for _ in 0..count {
            after = admin::act(self, &mut draft, &listed).unwrap_or(after);
        }
        let block = self.forge.finish(draft);
        let mut offer = self.offer("admin", parent, block);
        if let Some(made) = &mut offer.made {
            made.listed = after;
        }
        offer
    }

    fn with_spend(&mut self, mut draft: Draft) -> Offer {
        let mut kind = spends::add(self, &mut draft).unwrap_or("tx none").to_owned();
        // Sometimes a second fault, for the order of checks.
        if self.random.one_in(6) {
            kind = format!("{kind} + {}", spends::add(self, &mut draft).unwrap_or("none"));
        }
        let parent = draft.parent;
        let block = self.forge.finish(draft);
        self.offer(&kind, parent, block)
    }

    fn with_coinbase(&mut self, mut draft: Draft) -> Offer {
        let kind = coinbases::dress(self, &mut draft);
        let parent = draft.parent;
        let block = self.forge.finish(draft);
        self.offer(kind, parent, block)
    }

    /// Submits an earlier block again, unchanged or with another witness.
    fn again(&mut self) -> Offer {
        if self.random.one_in(12) {
            let block = self.forge.blocks[0].block.clone();
            return Offer { kind: "again genesis".to_owned(), hex: serialize_hex(&block), made: None };
        }
        if self.history.is_empty() {
            let draft = self.block(self.tip);
            return self.simple(draft);
        }
        let recent = self.random.below(2) * self.history.len().saturating_sub(10);
        let at = recent + self.random.below(self.history.len() - recent);
        let mut offer = self.history[at].clone();
        offer.kind = format!("again {}", offer.kind.trim_start_matches("again "));
        if let Some(made) = offer.made.as_mut().filter(|_| self.random.one_in(3)) {
            for tx in &mut made.block.txdata {
                tx.input.iter_mut().for_each(|input| input.witness.clear());
            }
            offer.hex = serialize_hex(&made.block);
        }
        offer
    }

    /// A block that loses against the active chain.
    fn side_block(&mut self) -> Option<Offer> {
        let height = self.forge.blocks[self.tip].height;
        let depth = 1 + self.random.below(5) as u32;
        (height > self.lowest_fork() + depth).then_some(())?;
        let draft = self.block(self.forge.below(self.tip, depth));
        let mut offer = self.with_spend(draft);
        offer.kind = format!("side {}", offer.kind);
        Some(offer)
    }

    /// No branch forks below this height: IoP Core aborts if licensing is undone.
    pub fn lowest_fork(&self) -> u32 {
        self.forge.params.license.activation_height.max(FUNDED + 101)
    }

    /// A block on a parent, by a miner that is probably allowed.
    pub fn block(&mut self, parent: usize) -> Draft {
        let lock =
            self.random.one_in(8).then(|| self.random.pick(&[Lock::Pkh(ADMIN), Lock::Anyone, Lock::Pk(1)]));
        let mut draft = self.forge.draft(parent, lock);
        if draft.miner.is_some() && self.random.one_in(2) {
            let listed = self.listed(parent);
            let miners: Vec<usize> = LICENSES.filter(|key| !self.plain || listed.0.contains(key)).collect();
            // One mines more than the others, and reaches its cap.
            let often = miners.iter().take(1).cycle().take(miners.len());
            let miners: Vec<usize> = miners.iter().chain(often).copied().collect();
            if !miners.is_empty() {
                draft.miner = Some(self.random.pick(&miners));
            }
        }
        draft.time += self.random.below(600) as u32;
        draft
    }

    /// What plain actions have listed after a kept block.
    pub fn listed(&self, place: usize) -> Listed {
        self.listed.get(&place).cloned().unwrap_or_default()
    }

    /// The draft's finished block, as an offer of this kind.
    pub fn finished(&mut self, kind: &str, draft: Draft) -> Option<Offer> {
        let parent = draft.parent;
        let block = self.forge.finish(draft);
        Some(self.offer(kind, parent, block))
    }

    /// A block on a kept parent; its listing is the parent's.
    pub fn offer(&self, kind: &str, parent: usize, block: Block) -> Offer {
        let hex = serialize_hex(&block);
        let listed = self.listed(parent);
        Offer { kind: kind.to_owned(), hex, made: Some(Made { parent, block, listed }) }
    }

    /// Keeps a block, so that others can be built on it.
    pub fn keep(&mut self, parent: usize, block: Block, listed: Listed) -> usize {
        let place = self.forge.keep(parent, block);
        self.listed.insert(place, listed);
        place
    }

    /// Processes the nodes' verdict and tip.
    pub fn told(&mut self, offer: &Offer, accepted: bool, tip: &BlockHash) {
        if let Some(made) = offer.made.as_ref().filter(|_| accepted) {
            self.keep(made.parent, made.block.clone(), made.listed.clone());
        }
        if let Some(place) = self.forge.find(tip) {
            self.tip = place;
        }
    }

    /// A mature coin of the draft's branch that the draft does not spend yet.
    pub fn coin(&mut self, draft: &Draft, wanted: impl Fn(&Coin) -> bool) -> Option<OutPoint> {
        let height = draft.height;
        self.young_coin(draft, |coin| (!coin.coinbase || height - coin.height >= 100) && wanted(coin))
    }

    /// A coin of the draft's branch that the draft does not spend yet, mature or not.
    pub fn young_coin(&mut self, draft: &Draft, wanted: impl Fn(&Coin) -> bool) -> Option<OutPoint> {
        let spent: Vec<OutPoint> =
            draft.txs.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
        // If segwit is not active, a witness is a fault that would hide all others.
        let witness = self.forge.segwit_active(draft.height) || self.random.one_in(12);
        let usable = |(outpoint, coin): &(&OutPoint, &Coin)| {
            !spent.contains(outpoint) && (witness || !coin.lock.has_witness()) && wanted(coin)
        };
        let coins = self.forge.blocks[draft.parent].coins.iter();
        let found: Vec<OutPoint> = coins.filter(usable).map(|(outpoint, _)| *outpoint).collect();
        (!found.is_empty()).then(|| self.random.pick(&found))
    }

    /// A coin that one of the last blocks of the draft's branch spent.
    pub fn spent_coin(&mut self, draft: &Draft) -> Option<(OutPoint, Coin)> {
        let older = self.forge.below(draft.parent, 10);
        let now = &self.forge.blocks[draft.parent].coins;
        let gone: Vec<(OutPoint, Coin)> = self.forge.blocks[older]
            .coins
            .iter()
            .filter(|(outpoint, coin)| !now.contains_key(outpoint) && !coin.coinbase)
            .map(|(outpoint, coin)| (*outpoint, *coin))
            .collect();
        (!gone.is_empty()).then(|| self.random.pick(&gone))
    }

    /// One to three outputs with locks that can be spent again.
    pub fn outputs(&mut self, value: u64) -> Vec<(u64, ScriptBuf)> {
        let count = if value > 100_000 { 1 + self.random.below(3) as u64 } else { 1 };
        (0..count)
            .map(|_| {
                let key = self.random.below(9);
                let locks = [
                    Lock::Pkh(ADMIN),
                    Lock::Pkh(key),
                    Lock::Pk(key),
                    Lock::Anyone,
                    Lock::Open,
                    Lock::Multisig(1, 2),
                    Lock::ShMultisig(1, 2),
                    Lock::ShAnyone,
                    Lock::Wpkh(key),
                    Lock::ShWpkh(key),
                    Lock::Wsh(key),
                ];
                (value / count, self.random.pick(&locks).script(&self.forge.keys))
            })
            .collect()
    }

    /// This machine's clock, seconds.
    pub fn now(&self) -> u32 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
    }
}
