//! The pool's blocks, as a tree: each one's base is the nearest pool block below it.
//!
//! The amounts carried after a block depend only on that block and those below it. So a reorganisation takes back an
//! orphaned block's payments simply by building on another base; nothing is ever undone.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use iop_consensus::address::{Address, Prefixes};
use serde::{Deserialize, Serialize};

use super::LedgerError;
use super::split::{Amounts, Credit, Rules, Scheme, Split};
use super::store::{BlockId, Store};

/// Depth from which a block's coins can be spent, by the chain's rule: blocks in the chain from it on, itself included.
pub const MATURITY: u32 = 100;

/// Facts about a found block, except the members' credits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// When it was found, in seconds since 1970.
    pub time: u64,
    /// The license that signed, as an address.
    pub license: String,
    /// The user whose share it was.
    pub finder: String,
    /// The nearest pool block below it.
    pub base: Option<BlockId>,
    /// The first share of its window.
    pub begins: u64,
    /// The share after the last one of its window.
    pub ends: u64,
    /// The work that the window had to reach, in hashes.
    pub wanted: u128,
    /// What the coinbase claims, in base units.
    pub reward: u64,
    /// The chapter's part of that.
    pub fee: u64,
    /// The chapter's address.
    pub chapter_address: String,
    /// What the coinbase pays to it.
    pub chapter: u64,
    /// The rules it was split by.
    pub rules: Rules,
}

impl Facts {
    /// The block's terms; `None` if the chapter's address is invalid.
    pub(super) fn terms(&self, prefixes: &Prefixes) -> Option<Terms> {
        let chapter = Address::parse(&self.chapter_address, prefixes).ok()?;
        let &Self { base, begins, ends, wanted, reward, rules, .. } = self;
        Some(Terms { base, window: begins..ends, wanted, reward, rules, chapter })
    }

    /// The member that is paid in solo mode.
    pub(super) fn solo(&self, prefixes: &Prefixes) -> Option<Address> {
        let is_solo = self.rules.scheme == Scheme::Solo;
        super::share::member_of(&self.finder, prefixes).filter(|_| is_solo)
    }
}

/// The terms a block is paid on: together with the log they always yield the same split.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// The nearest pool block below it.
    pub base: Option<BlockId>,
    /// The window, as share numbers.
    pub window: Range<u64>,
    /// The work that the window had to reach, in hashes.
    pub wanted: u128,
    /// What the coinbase claims, in base units.
    pub reward: u64,
    /// The rules it is split by.
    pub rules: Rules,
    /// The chapter's address.
    pub chapter: Address,
}

/// How a block would be paid, computed with its template.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The terms it is paid on.
    pub terms: Terms,
    /// The split.
    pub split: Split,
}

impl Plan {
    /// A plan that pays all to the chapter, without a ledger.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn of_chapter(chapter: Address, reward: u64) -> Self {
        let rules = Rules { scheme: Scheme::Chapter, fee: 0, min_payout: 1, max_outputs: 0, window: 0.0 };
        let split = Split { fee: reward, chapter: reward, ..Split::default() };
        Self { terms: Terms { base: None, window: 0..0, wanted: 0, reward, rules, chapter }, split }
    }

    /// The coinbase's outputs in base units: members, largest first, then the chapter if anything is left. A zero
    /// reward goes to the chapter, as the chain requires at least one output.
    #[must_use]
    pub fn outputs(&self) -> Vec<(Address, u64)> {
        let has_chapter = self.split.chapter > 0 || self.split.paid.is_empty();
        let chapter = has_chapter.then_some((self.terms.chapter, self.split.chapter));
        self.split.paid.iter().copied().chain(chapter).collect()
    }

    /// The record of a block found with this plan.
    #[must_use]
    pub fn record(self: &Arc<Self>, id: BlockId, found: Finding<'_>, prefixes: &Prefixes) -> Record {
        Record { id, facts: self.facts(found, prefixes), plan: Arc::clone(self) }
    }

    fn facts(&self, found: Finding<'_>, prefixes: &Prefixes) -> Facts {
        let &Terms { base, ref window, wanted, reward, rules, chapter } = &self.terms;
        Facts {
            time: found.time,
            license: found.license.to_base58(prefixes),
            finder: found.finder.to_owned(),
            base,
            begins: window.start,
            ends: window.end,
            wanted,
            reward,
            fee: self.split.fee,
            chapter_address: chapter.to_base58(prefixes),
            chapter: self.split.chapter,
            rules,
        }
    }
}

/// The finder of a block, and the time.
#[derive(Debug, Clone, Copy)]
pub struct Finding<'a> {
    /// In seconds since 1970.
    pub time: u64,
    /// The license that signed.
    pub license: Address,
    /// The user whose share it is.
    pub finder: &'a str,
}

/// All that the ledger keeps of a block. Creating one is cheap for any number of members: their credits are derived
/// from the plan when it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The block's identity.
    pub id: BlockId,
    /// Facts about it.
    pub facts: Facts,
    /// How it is paid.
    pub plan: Arc<Plan>,
}

impl Record {
    /// The members' credits.
    #[must_use]
    pub fn credits(&self) -> BTreeMap<Address, Credit> {
        self.plan.split.credits()
    }

    /// The amounts carried after it.
    #[must_use]
    pub fn carried(&self) -> &Arc<Amounts> {
        &self.plan.split.carried
    }

    /// The part of it that a found-block file keeps.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry { id: self.id, facts: self.facts.clone() }
    }
}

/// A [`Record`] without what the log can recompute. Its size depends on the longest names, not on the number of
/// members, since it is written before a node has the block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The block's identity.
    pub id: BlockId,
    /// Facts about it.
    pub facts: Facts,
}

/// The tree, and the chain's position in it.
#[derive(Debug, Default)]
pub struct Book {
    /// Every block with its base.
    blocks: BTreeMap<BlockId, Option<BlockId>>,
    base: Option<BlockId>,
    /// The blocks in the chain of `base`, itself included.
    alive: HashSet<BlockId>,
    carried: Arc<Amounts>,
    /// Blocks that nodes may have before the database does.
    coming: BTreeMap<BlockId, Arc<Record>>,
    /// Counts additions and removals.
    changes: u64,
}

impl Book {
    /// Loads the book from the database.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn load(store: &Store) -> Result<Self, LedgerError> {
        let blocks = store.blocks()?.into_iter().map(|(id, facts)| (id, facts.base)).collect();
        let mut book = Self { blocks, ..Self::default() };
        let base = store.base()?;
        let carried = base.map_or_else(|| Ok(Amounts::new()), |base| store.carried(&base))?;
        book.stand_on(base, Arc::new(carried));
        Ok(book)
    }

    /// Adds a block that the database has. One already there stays as it is.
    pub(super) fn add(&mut self, record: &Record) {
        self.changes += 1;
        self.coming.remove(&record.id);
        self.blocks.entry(record.id).or_insert(record.facts.base);
    }

    /// Adds a block that the database will have.
    pub(super) fn announce(&mut self, record: Arc<Record>) {
        self.changes += 1;
        self.blocks.insert(record.id, record.facts.base);
        self.coming.insert(record.id, record);
    }

    /// Removes a block that the database will not get after all.
    pub(super) fn withdraw(&mut self, id: &BlockId) {
        if self.coming.remove(id).is_some() {
            self.changes += 1;
            self.blocks.remove(id);
        }
    }

    /// A counter that changes whenever the set of blocks does.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A block that the database does not have yet.
    #[must_use]
    pub fn coming(&self, id: &BlockId) -> Option<&Arc<Record>> {
        self.coming.get(id)
    }

    /// The number of blocks in the database.
    pub(super) fn stored(&self) -> u64 {
        (self.blocks.len() - self.coming.len()) as u64
    }

    /// A block with the one that it stands on, which is not in it. The first of ours stands on none.
    pub(super) fn torn(&self) -> Option<(BlockId, BlockId)> {
        let mut bases = self.blocks.iter().filter_map(|(id, base)| Some((*id, (*base)?)));
        bases.find(|(_, base)| !self.has(base))
    }

    /// Whether a block is in it.
    #[must_use]
    pub fn has(&self, id: &BlockId) -> bool {
        self.blocks.contains_key(id)
    }

    /// The nearest pool block in the chain that templates build on.
    #[must_use]
    pub fn base(&self) -> Option<BlockId> {
        self.base
    }

    /// The amounts carried after [`Book::base`].
    #[must_use]
    pub fn carried(&self) -> Arc<Amounts> {
        Arc::clone(&self.carried)
    }

    pub(super) fn stand_on(&mut self, base: Option<BlockId>, carried: Arc<Amounts>) {
        let before = self.base;
        (self.base, self.carried) = (base, carried);
        match base {
            // One more block on top of the chain: the usual case.
            Some(id) if before.is_some() && self.blocks.get(&id) == Some(&before) => {
                self.alive.insert(id);
            }
            _ => self.alive = self.in_chain().collect(),
        }
    }

    /// Whether a block is in the chain that templates build on.
    #[must_use]
    pub fn is_in_chain(&self, id: &BlockId) -> bool {
        self.alive.contains(id)
    }

    /// The greatest height below `height` that has a block.
    #[must_use]
    pub fn height_below(&self, height: u32) -> Option<u32> {
        let end = BlockId { height, hash: BlockHash::all_zeros() };
        self.blocks.range(..end).next_back().map(|(id, _)| id.height)
    }

    /// The blocks in the chain, from the highest down.
    pub fn in_chain(&self) -> impl Iterator<Item = BlockId> + '_ {
        chain_of(self.base, |id| self.blocks.get(id).copied().flatten())
    }
}

/// A block and the pool's blocks below it. A base is lower than its block; a book that violates this ends the chain
/// there.
pub(crate) fn chain_of(
    block: Option<BlockId>,
    base: impl Fn(&BlockId) -> Option<BlockId>,
) -> impl Iterator<Item = BlockId> {
    std::iter::successors(block, move |id| base(id).filter(|base| base.height < id.height))
}
