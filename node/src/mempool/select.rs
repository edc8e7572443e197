//! The choice for a block: packages of a transaction with its ancestors, best fee rate first (`addPackageTxs`).
//!
//! The pool keeps its entries in the order of their rate with all ancestors. When a package is taken, its descendants
//! that are left need fewer ancestors: they go into a second, small order with what they still need. Each step takes the
//! better head of the two. So a choice looks at what it takes and at the descendants of that, not at the whole pool.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use bitcoin::Txid;

use super::Mempool;
use super::entry::{Entry, Slot, Totals};
use super::fee::{FeeRate, Score};
use super::graph::Graph;

/// After this many packages in a row that do not fit, a block that is nearly full is given up
/// (`MAX_CONSECUTIVE_FAILURES`).
const MAX_FAILURES: u32 = 1_000;
/// Weight units from the limit at which a block is nearly full.
const NEARLY_FULL: u64 = 4_000;

/// What a choice must keep to.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The block weighs less than this, header and coinbase included, weight units.
    pub max_weight: u64,
    /// What header and coinbase are taken to weigh, weight units.
    pub reserved_weight: u64,
    /// The block's signature operations cost less than this.
    pub max_sigops_cost: u64,
    /// What the coinbase's are taken to cost.
    pub reserved_sigops_cost: u64,
    /// Packages that pay less are left out.
    pub min_fee: FeeRate,
    /// Whether transactions with a witness may be in it.
    pub witness: bool,
}

/// The transactions for a block, parents before children.
#[derive(Debug, Default)]
pub struct Chosen<'a> {
    /// In the block's order.
    pub entries: Vec<&'a Entry>,
    /// What they pay together, base units.
    pub fees: u64,
}

type Rank = (Reverse<Score>, Txid, Slot);

/// A choice under way.
struct Choice<'a> {
    graph: &'a Graph,
    room: Room,
    chosen: Chosen<'a>,
    in_block: HashSet<Slot>,
    /// Entries some of whose ancestors are in the block, with what the others and they themselves are.
    left: HashMap<Slot, Totals>,
    by_left: BTreeSet<Rank>,
    failed: HashSet<Slot>,
    weight: u64,
    sigops_cost: u64,
}

impl Mempool {
    /// Chooses transactions for a block.
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

    /// Whether an entry is done with, or stands in the other order.
    fn is_settled(&self, slot: Slot) -> bool {
        self.in_block.contains(&slot) || self.left.contains_key(&slot) || self.failed.contains(&slot)
    }

    /// The better of the pool's next entry and the best of those with fewer ancestors left, with its package.
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

    /// One ancestor less to bring along.
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
