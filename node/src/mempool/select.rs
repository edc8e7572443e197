//! Selects transactions for a block: packages of a transaction with its ancestors, best fee rate first
//! (`addPackageTxs`).
//!
//! The pool keeps its entries ordered by their rate with all ancestors. When a package is taken, its remaining
//! descendants need fewer ancestors: they enter a second, small ordering with their remaining totals. Each step
//! takes the better head of the two. So a selection looks only at what it takes and at the descendants of that, not
//! at the whole pool.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use bitcoin::Txid;

use super::Mempool;
use super::entry::{Entry, Slot, Totals};
use super::fee::{FeeRate, Score};
use super::graph::Graph;

/// After this many consecutive packages that do not fit, selection stops if the block is nearly full
/// (`MAX_CONSECUTIVE_FAILURES`).
const MAX_FAILURES: u32 = 1_000;
/// A block is nearly full when this many weight units or fewer are left.
const NEARLY_FULL: u64 = 4_000;

/// Limits for a selection.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The block weighs less than this, header and coinbase included, weight units.
    pub max_weight: u64,
    /// Weight reserved for header and coinbase, weight units.
    pub reserved_weight: u64,
    /// The block's signature operation cost stays below this.
    pub max_sigops_cost: u64,
    /// Signature operation cost reserved for the coinbase.
    pub reserved_sigops_cost: u64,
    /// Packages with a lower rate are left out.
    pub min_fee: FeeRate,
    /// Whether transactions with a witness may be included.
    pub witness: bool,
}

/// The selected transactions, parents before children.
#[derive(Debug, Default)]
pub struct Chosen<'a> {
    /// In the block's order.
    pub entries: Vec<&'a Entry>,
    /// Their total fees, base units.
    pub fees: u64,
}

type Rank = (Reverse<Score>, Txid, Slot);

/// A selection in progress.
struct Choice<'a> {
    graph: &'a Graph,
    room: Room,
    chosen: Chosen<'a>,
    in_block: HashSet<Slot>,
    /// Entries with some ancestors in the block: the totals of the entry and its ancestors that are not.
    left: HashMap<Slot, Totals>,
    by_left: BTreeSet<Rank>,
    failed: HashSet<Slot>,
    weight: u64,
    sigops_cost: u64,
}

impl Mempool {
    /// Selects transactions for a block.
    pub fn select(&self, room: Room) -> Chosen<'_> {
        let mut choice = Choice {
            graph: &self.graph,
            room,
            chosen: Chosen::default(),
            in_block: HashSet::new(),
            left: HashMap::new(),
            by_left: BTreeSet::new(),
            failed: HashSet::new(),
            weight: room.reserved_weight,
            sigops_cost: room.reserved_sigops_cost,
        };
        choice.run();
        choice.chosen
    }
}

impl Choice<'_> {
    fn run(&mut self) {
        let graph = self.graph;
        let mut fresh = graph.in_mining_order().peekable();
        let mut failures = 0;
        loop {
            while fresh.next_if(|slot| self.is_settled(*slot)).is_some() {}
            let head = fresh.peek().map(|slot| rank(graph.get(*slot), graph.get(*slot).ancestors, *slot));
            let Some((slot, package)) = self.better(head) else { return };
            if !self.left.contains_key(&slot) {
                fresh.next();
            }
            if package.fees < self.room.min_fee.fee(package.size) {
                return;
            }
            if !self.fits(package) {
                self.give_up(slot);
                failures += 1;
                if failures > MAX_FAILURES && self.weight + NEARLY_FULL > self.room.max_weight {
                    return;
                }
                continue;
            }
            let members = self.members(slot);
            if !self.room.witness && members.iter().any(|member| has_witness(graph.get(*member))) {
                self.give_up(slot);
                continue;
            }
            failures = 0;
            self.take(&members);
        }
    }

    /// Whether an entry is in the block, failed to fit, or is in the second ordering.
    fn is_settled(&self, slot: Slot) -> bool {
        self.in_block.contains(&slot) || self.left.contains_key(&slot) || self.failed.contains(&slot)
    }

    /// The better of the pool's next entry and the best entry of the second ordering, with its package totals.
    fn better(&self, fresh: Option<Rank>) -> Option<(Slot, Totals)> {
        let left = self.by_left.first().copied();
        let (.., slot) = match (left, fresh) {
            (Some(left), Some(fresh)) => left.min(fresh),
            (left, fresh) => left.or(fresh)?,
        };
        Some((slot, self.left.get(&slot).copied().unwrap_or(self.graph.get(slot).ancestors)))
    }

    fn fits(&self, package: Totals) -> bool {
        self.weight + 4 * package.size < self.room.max_weight
            && self.sigops_cost + package.sigop_cost < self.room.max_sigops_cost
    }

    fn give_up(&mut self, slot: Slot) {
        if let Some(totals) = self.left.remove(&slot) {
            self.by_left.remove(&rank(self.graph.get(slot), totals, slot));
        }
        self.failed.insert(slot);
    }

    /// An entry and those of its ancestors that are not in the block, parents before children.
    fn members(&self, slot: Slot) -> Vec<Slot> {
        let mut members: Vec<Slot> = self.graph.ancestors(slot).into_iter().collect();
        members.retain(|member| !self.in_block.contains(member));
        members.push(slot);
        members.sort_unstable_by_key(|member| {
            let entry = self.graph.get(*member);
            (entry.ancestors.count, entry.txid)
        });
        members
    }

    fn take(&mut self, members: &[Slot]) {
        for &member in members {
            let entry = self.graph.get(member);
            if let Some(totals) = self.left.remove(&member) {
                self.by_left.remove(&rank(entry, totals, member));
            }
            self.in_block.insert(member);
            self.weight += entry.weight;
            self.sigops_cost += entry.sigop_cost;
            self.chosen.fees += entry.fee;
            self.chosen.entries.push(entry);
        }
        for &member in members {
            let own = self.graph.get(member).own();
            for below in self.graph.descendants(member) {
                if !self.in_block.contains(&below) {
                    self.lighten(below, own);
                }
            }
        }
    }

    /// Removes an ancestor that is in the block now from the entry's remaining totals.
    fn lighten(&mut self, slot: Slot, ancestor: Totals) {
        let entry = self.graph.get(slot);
        let totals = self.left.entry(slot).or_insert(entry.ancestors);
        self.by_left.remove(&rank(entry, *totals, slot));
        totals.subtract(ancestor);
        let lighter = rank(entry, *totals, slot);
        self.by_left.insert(lighter);
    }
}

fn rank(entry: &Entry, totals: Totals, slot: Slot) -> Rank {
    (Reverse(totals.score()), entry.txid, slot)
}

fn has_witness(entry: &Entry) -> bool {
    entry.tx.input.iter().any(|input| !input.witness.is_empty())
}
