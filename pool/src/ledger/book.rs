//! The pool's blocks, as a tree: each stands on the nearest one of ours below it.
//!
//! What is carried after a block depends on that block and those below it alone. So a reorganisation takes back
//! what an orphaned block paid by standing on another one; nothing is ever undone.

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

/// A block of which so many blocks in the chain are on top, itself included, can be spent from: the chain's rule.
pub const MATURITY: u32 = 100;

/// What is known of a found block, but for what its members have of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// When it was found, in seconds since 1970.
    pub time: u64,
    /// The license that signed, as an address.
    pub license: String,
    /// The user whose share it was.
    pub finder: String,
    /// The nearest block of ours below it.
    pub base: Option<BlockId>,
    /// The first share of its window.
    pub begins: u64,
    /// The share after the last one of its window.
    pub ends: u64,
    /// The work that the window was to reach, in hashes.
    pub wanted: u128,
    /// What the coinbase claims, in base units.
    pub reward: u64,
    /// The chapter's part of it.
    pub fee: u64,
    /// The chapter's address.
    pub chapter_address: String,
    /// What the coinbase pays there.
    pub chapter: u64,
    /// What it was split by.
    pub rules: Rules,
}

impl Facts {
    /// What the block is paid for by; none where the chapter's address is none.
    pub(super) fn terms(&self, prefixes: &Prefixes) -> Option<Terms> {
        let chapter = Address::parse(&self.chapter_address, prefixes).ok()?;
        let &Self { base, begins, ends, wanted, reward, rules, .. } = self;
        Some(Terms { base, window: begins..ends, wanted, reward, rules, chapter })
    }

    /// Who is paid where every member mines alone.
    pub(super) fn solo(&self, prefixes: &Prefixes) -> Option<Address> {
        let is_solo = self.rules.scheme == Scheme::Solo;
        super::live::member_of(&self.finder, prefixes).filter(|_| is_solo)
    }
}

/// What a block is paid for by: with the log this makes the split, at any time the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// The nearest block of ours below it.
    pub base: Option<BlockId>,
    /// The shares of the window, by number.
    pub window: Range<u64>,
    /// The work that the window was to reach, in hashes.
    pub wanted: u128,
    /// What the coinbase claims, in base units.
    pub reward: u64,
    /// What it is split by.
    pub rules: Rules,
    /// The chapter.
    pub chapter: Address,
}

/// How a block would be paid for, made with its template.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it is paid for by.
    pub terms: Terms,
    /// The split.
    pub split: Split,
}

impl Plan {
    /// One that gives all to the chapter, without a ledger.
    #[must_use]
    pub fn of_chapter(chapter: Address, reward: u64) -> Self {
        let rules = Rules { scheme: Scheme::Chapter, fee: 0, min_payout: 1, max_outputs: 0, window: 0.0 };
        let split = Split { fee: reward, chapter: reward, ..Split::default() };
        Self { terms: Terms { base: None, window: 0..0, wanted: 0, reward, rules, chapter }, split }
    }

    /// The coinbase's outputs in base units: members, the greatest first, then the chapter if anything is left. A
    /// reward of nothing goes to the chapter, as the chain wants one output at least.
    #[must_use]
    pub fn outputs(&self) -> Vec<(Address, u64)> {
        let has_chapter = self.split.chapter > 0 || self.split.paid.is_empty();
        let chapter = has_chapter.then_some((self.terms.chapter, self.split.chapter));
        self.split.paid.iter().copied().chain(chapter).collect()
    }

    /// The record of a block that was found with it.
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

/// Who found a block, and when.
#[derive(Debug, Clone, Copy)]
pub struct Finding<'a> {
    /// In seconds since 1970.
    pub time: u64,
    /// The license that signed.
    pub license: Address,
    /// The user whose share it is.
    pub finder: &'a str,
}

/// All that the ledger keeps of a block. To make one is cheap whatever members there are: what each has of the block is
/// made of its plan where it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its name.
    pub id: BlockId,
    /// What is known of it.
    pub facts: Facts,
    /// How it is paid for.
    pub plan: Arc<Plan>,
}

impl Record {
    /// What members have of it.
    #[must_use]
    pub fn credits(&self) -> BTreeMap<Address, Credit> {
        self.plan.split.credits()
    }

    /// What is carried after it.
    #[must_use]
    pub fn carried(&self) -> &Arc<Amounts> {
        &self.plan.split.carried
    }

    /// What a file keeps of it.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry { id: self.id, facts: self.facts.clone() }
    }
}

/// A [`Record`] without what the log makes again. As long as the longest names, however many members there are: it is
/// written before a node has the block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The block's name.
    pub id: BlockId,
    /// What is known of it.
    pub facts: Facts,
}

/// The tree, and where in it the chain stands.
#[derive(Debug, Default)]
pub struct Book {
    /// Every block with its base.
    blocks: BTreeMap<BlockId, Option<BlockId>>,
    base: Option<BlockId>,
    /// The blocks in the chain of `base`, itself included.
    alive: HashSet<BlockId>,
    carried: Arc<Amounts>,
    /// Blocks that nodes may have before the database has them.
    coming: BTreeMap<BlockId, Arc<Record>>,
    /// How often blocks were taken or forgotten.
    changes: u64,
}

impl Book {
    /// As it lies in the database.
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

    /// Takes a block that the database has. One that it had before stays as it is.
    pub(super) fn add(&mut self, record: &Record) {
        self.changes += 1;
        self.coming.remove(&record.id);
        self.blocks.entry(record.id).or_insert(record.facts.base);
    }

    /// Takes a block that the database will have.
    pub(super) fn announce(&mut self, record: Arc<Record>) {
        self.changes += 1;
        self.blocks.insert(record.id, record.facts.base);
        self.coming.insert(record.id, record);
    }

    /// Forgets a block that the database will not have after all.
    pub(super) fn withdraw(&mut self, id: &BlockId) {
        if self.coming.remove(id).is_some() {
            self.changes += 1;
            self.blocks.remove(id);
        }
    }

    /// A number that differs when other blocks are in it.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A block that the database does not have yet.
    #[must_use]
    pub fn coming(&self, id: &BlockId) -> Option<&Arc<Record>> {
        self.coming.get(id)
    }

    /// How many blocks the database has.
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

    /// The nearest block of ours in the chain that templates stand on.
    #[must_use]
    pub fn base(&self) -> Option<BlockId> {
        self.base
    }

    /// What is carried after [`Book::base`].
    #[must_use]
    pub fn carried(&self) -> Arc<Amounts> {
        Arc::clone(&self.carried)
    }

    pub(super) fn stand_on(&mut self, base: Option<BlockId>, carried: Arc<Amounts>) {
        let before = self.base;
        (self.base, self.carried) = (base, carried);
        match base {
            // One more block on those that were in the chain: the usual case.
            Some(id) if before.is_some() && self.blocks.get(&id) == Some(&before) => {
                self.alive.insert(id);
            }
            _ => self.alive = self.in_chain().collect(),
        }
    }

    /// Whether a block is in the chain that templates stand on.
    #[must_use]
    pub fn is_in_chain(&self, id: &BlockId) -> bool {
        self.alive.contains(id)
    }

    /// The greatest height below another at which there are blocks.
    #[must_use]
    pub fn height_below(&self, height: u32) -> Option<u32> {
        let end = BlockId { height, hash: BlockHash::all_zeros() };
        self.blocks.range(..end).next_back().map(|(id, _)| id.height)
    }

    /// The blocks that are in the chain, from the nearest down.
    pub fn in_chain(&self) -> impl Iterator<Item = BlockId> + '_ {
        chain_of(self.base, |id| self.blocks.get(id).copied().flatten())
    }
}

/// A block and those of ours below it. A base is lower than its block; in a book that says otherwise the chain ends.
pub(crate) fn chain_of(
    block: Option<BlockId>,
    base: impl Fn(&BlockId) -> Option<BlockId>,
) -> impl Iterator<Item = BlockId> {
    std::iter::successors(block, move |id| base(id).filter(|base| base.height < id.height))
}
