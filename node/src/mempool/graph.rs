//! The entries, their spending links, and the orderings over them.
//!
//! Lives here: adding and removing entries while keeping every total and index correct, and walks over ancestors
//! and descendants. Does not live here: which transactions enter and which are evicted. A change touches the
//! relatives of the entries involved, so it costs their number times the logarithm of the pool's size.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use bitcoin::{OutPoint, Transaction, Txid};

use super::entry::{Entry, Slot, Totals};
use super::fee::Score;

/// All entries.
#[derive(Debug, Default)]
pub(super) struct Graph {
    slots: Vec<Option<Entry>>,
    free: Vec<Slot>,
    by_txid: HashMap<Txid, Slot>,
    /// An outpoint and the entry that spends it.
    spends: HashMap<OutPoint, Slot>,
    /// Eviction order: worst rate first; of equal ones, the newest first.
    by_eviction: BTreeSet<(Score, Reverse<u64>, Slot)>,
    /// Mining order: best rate with ancestors first; of equal ones, the lower id first.
    by_mining: BTreeSet<(Reverse<Score>, Txid, Slot)>,
    by_time: BTreeSet<(u64, Slot)>,
    usage: usize,
    vsize: u64,
}

impl Graph {
    pub(super) fn len(&self) -> usize {
        self.by_txid.len()
    }

    /// Memory of all entries, bytes.
    pub(super) fn usage(&self) -> usize {
        self.usage
    }

    /// Virtual bytes of all entries.
    pub(super) fn vsize(&self) -> u64 {
        self.vsize
    }

    pub(super) fn find(&self, txid: &Txid) -> Option<Slot> {
        self.by_txid.get(txid).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> &Entry {
        self.slots[slot].as_ref().expect("a slot in an index holds an entry")
    }

    fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        self.slots[slot].as_mut().expect("a slot in an index holds an entry")
    }

    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<Slot> {
        self.spends.get(outpoint).copied()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.by_txid.values().copied()
    }

    /// The entries in mining order, best first.
    pub(super) fn in_mining_order(&self) -> impl Iterator<Item = Slot> + '_ {
        self.by_mining.iter().map(|(.., slot)| *slot)
    }

    pub(super) fn first_to_evict(&self) -> Option<Slot> {
        self.by_eviction.first().map(|(.., slot)| *slot)
    }

    /// Entries that arrived before a time.
    pub(super) fn older_than(&self, time: u64) -> Vec<Slot> {
        self.by_time.range(..(time, 0)).map(|(_, slot)| *slot).collect()
    }

    /// The entries whose outputs a transaction spends.
    pub(super) fn parents_of(&self, tx: &Transaction) -> BTreeSet<Slot> {
        tx.input.iter().filter_map(|input| self.find(&input.previous_output.txid)).collect()
    }

    /// All ancestors of a transaction with these parents, including the parents.
    pub(super) fn ancestors_through(&self, parents: &BTreeSet<Slot>) -> HashSet<Slot> {
        self.walk(parents, |entry| &entry.parents)
    }

    pub(super) fn ancestors(&self, slot: Slot) -> HashSet<Slot> {
        self.ancestors_through(&self.get(slot).parents)
    }

    /// All descendants, excluding the entry itself.
    pub(super) fn descendants(&self, slot: Slot) -> HashSet<Slot> {
        self.walk(&self.get(slot).children, |entry| &entry.children)
    }

    fn walk(&self, from: &BTreeSet<Slot>, next: impl Fn(&Entry) -> &BTreeSet<Slot>) -> HashSet<Slot> {
        let (mut found, mut queue) = (HashSet::new(), Vec::from_iter(from.iter().copied()));
        while let Some(slot) = queue.pop() {
            if found.insert(slot) {
                queue.extend(next(self.get(slot)).iter().filter(|slot| !found.contains(slot)));
            }
        }
        found
    }

    /// Adds an entry. Children that are in the pool already (after a block was disconnected) are not linked to it
    /// until [`Graph::adopt`].
    pub(super) fn add(&mut self, mut entry: Entry) -> Slot {
        entry.parents = self.parents_of(&entry.tx);
        let ancestors = self.ancestors_through(&entry.parents);
        entry.ancestors = entry.own();
        ancestors.iter().for_each(|slot| entry.ancestors.add(self.get(*slot).own()));
        let (own, parents) = (entry.own(), entry.parents.clone());
        self.usage += entry.full_usage();
        self.vsize += entry.vsize;
        let slot = self.place(entry);
        for parent in parents {
            self.get_mut(parent).children.insert(slot);
        }
        for ancestor in ancestors {
            self.change(ancestor, |entry| entry.descendants.add(own));
        }
        slot
    }

    fn place(&mut self, entry: Entry) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.by_txid.insert(entry.txid, slot);
        for input in &entry.tx.input {
            self.spends.insert(input.previous_output, slot);
        }
        self.by_time.insert((entry.time, slot));
        self.slots[slot] = Some(entry);
        self.index(slot);
        slot
    }

    /// Links added entries to the children that were in the pool before them (`UpdateTransactionsFromBlock`).
    /// `added` is in order of addition; the links among the added entries are known already.
    ///
    /// Entries are processed from last to first; each learns all earlier descendants below it, and those learn
    /// about it. The earlier descendants found below an added entry are remembered, so nothing is walked twice for
    /// the same entry.
    pub(super) fn adopt(&mut self, added: &[Slot]) {
        let mut waited_below: HashMap<Slot, HashSet<Slot>> =
            added.iter().map(|&slot| (slot, HashSet::new())).collect();
        for &slot in added.iter().rev() {
            let entry = self.get(slot);
            let (txid, outputs) = (entry.txid, entry.tx.output.len() as u32);
            let spenders: BTreeSet<Slot> =
                (0..outputs).filter_map(|vout| self.spender(&OutPoint { txid, vout })).collect();
            for &child in spenders.iter().filter(|child| !waited_below.contains_key(child)) {
                self.link(slot, child);
            }
            let (mut below, mut queue) = (HashSet::new(), Vec::from_iter(spenders));
            while let Some(next) = queue.pop() {
                match waited_below.get(&next) {
                    Some(known) => below.extend(known),
                    None if below.insert(next) => queue.extend(&self.get(next).children),
                    None => {}
                }
            }
            let (own, mut total) = (self.get(slot).own(), Totals::default());
            for &descendant in &below {
                total.add(self.get(descendant).own());
                self.change(descendant, |entry| entry.ancestors.add(own));
            }
            self.change(slot, |entry| entry.descendants.add(total));
            waited_below.insert(slot, below);
        }
    }

    fn link(&mut self, parent: Slot, child: Slot) {
        self.get_mut(parent).children.insert(child);
        let before = self.get(child).full_usage();
        self.get_mut(child).parents.insert(parent);
        self.usage += self.get(child).full_usage() - before;
    }

    /// Removes one entry; its relatives stay.
    pub(super) fn remove(&mut self, slot: Slot) -> Entry {
        let own = self.get(slot).own();
        for ancestor in self.ancestors(slot) {
            self.change(ancestor, |entry| entry.descendants.subtract(own));
        }
        for descendant in self.descendants(slot) {
            self.change(descendant, |entry| entry.ancestors.subtract(own));
        }
        self.unindex(slot);
        let entry = self.slots[slot].take().expect("the caller found it in an index");
        self.free.push(slot);
        self.usage -= entry.full_usage();
        self.vsize -= entry.vsize;
        for parent in &entry.parents {
            self.get_mut(*parent).children.remove(&slot);
        }
        for child in &entry.children {
            let before = self.get(*child).full_usage();
            self.get_mut(*child).parents.remove(&slot);
            self.usage -= before - self.get(*child).full_usage();
        }
        for input in &entry.tx.input {
            self.spends.remove(&input.previous_output);
        }
        self.by_time.remove(&(entry.time, slot));
        self.by_txid.remove(&entry.txid);
        entry
    }

    /// Removes entries and all their descendants, children first.
    pub(super) fn remove_with_descendants(&mut self, slots: impl IntoIterator<Item = Slot>) -> Vec<Entry> {
        let mut all = HashSet::new();
        for slot in slots {
            if all.insert(slot) {
                all.extend(self.descendants(slot));
            }
        }
        let mut order: Vec<Slot> = all.into_iter().collect();
        // A child has more ancestors than its parent, so this sorts children first.
        order.sort_unstable_by_key(|slot| Reverse(self.get(*slot).ancestors.count));
        order.into_iter().map(|slot| self.remove(slot)).collect()
    }

    /// Changes an entry's totals and its places in the orderings that depend on them.
    fn change(&mut self, slot: Slot, act: impl FnOnce(&mut Entry)) {
        self.unindex(slot);
        act(self.get_mut(slot));
        self.index(slot);
    }

    fn index(&mut self, slot: Slot) {
        let entry = self.get(slot);
        let (eviction, mining) = Self::keys(slot, entry);
        self.by_eviction.insert(eviction);
        self.by_mining.insert(mining);
    }

    fn unindex(&mut self, slot: Slot) {
        let (eviction, mining) = Self::keys(slot, self.get(slot));
        self.by_eviction.remove(&eviction);
        self.by_mining.remove(&mining);
    }

    #[allow(clippy::type_complexity, reason = "these are the keys of the two orders")]
    fn keys(slot: Slot, entry: &Entry) -> ((Score, Reverse<u64>, Slot), (Reverse<Score>, Txid, Slot)) {
        (
            (entry.eviction_score(), Reverse(entry.time), slot),
            (Reverse(entry.ancestors.score()), entry.txid, slot),
        )
    }
}

#[cfg(test)]
impl Graph {
    fn sum(&self, slot: Slot, relatives: &HashSet<Slot>) -> Totals {
        let mut total = self.get(slot).own();
        relatives.iter().for_each(|slot| total.add(self.get(*slot).own()));
        total
    }

    /// Panics unless every total, link, index and sum matches what the transactions alone imply.
    pub(super) fn assert_consistent(&self) {
        let all: Vec<Slot> = self.slots().collect();
        let mut spends = HashMap::new();
        for &slot in &all {
            let entry = self.get(slot);
            assert_eq!(self.by_txid[&entry.txid], slot);
            for input in &entry.tx.input {
                assert!(spends.insert(input.previous_output, slot).is_none(), "spent twice");
            }
        }
        assert_eq!(self.spends, spends);
        // Recompute the links from the transactions alone.
        let parents = |slot: Slot| -> BTreeSet<Slot> {
            let spent = self.get(slot).tx.input.iter().map(|input| input.previous_output.txid);
            all.iter().copied().filter(|other| spent.clone().any(|id| id == self.get(*other).txid)).collect()
        };
        let parents: HashMap<Slot, BTreeSet<Slot>> = all.iter().map(|slot| (*slot, parents(*slot))).collect();
        let ancestors = |slot: Slot| {
            let (mut found, mut queue) = (HashSet::new(), vec![slot]);
            while let Some(next) = queue.pop() {
                queue.extend(parents[&next].iter().filter(|parent| found.insert(**parent)));
            }
            found
        };
        let ancestors: HashMap<Slot, HashSet<Slot>> =
            all.iter().map(|slot| (*slot, ancestors(*slot))).collect();
        for &slot in &all {
            let entry = self.get(slot);
            let children: BTreeSet<Slot> =
                all.iter().copied().filter(|other| parents[other].contains(&slot)).collect();
            let below: HashSet<Slot> =
                all.iter().copied().filter(|other| ancestors[other].contains(&slot)).collect();
            assert_eq!(entry.parents, parents[&slot]);
            assert_eq!(entry.children, children);
            assert_eq!(entry.ancestors, self.sum(slot, &ancestors[&slot]));
            assert_eq!(entry.descendants, self.sum(slot, &below));
        }
        let keys = |slot: &Slot| Self::keys(*slot, self.get(*slot));
        assert_eq!(self.by_eviction, all.iter().map(|slot| keys(slot).0).collect());
        assert_eq!(self.by_mining, all.iter().map(|slot| keys(slot).1).collect());
        assert_eq!(self.by_time, all.iter().map(|slot| (self.get(*slot).time, *slot)).collect());
        assert_eq!(self.usage, all.iter().map(|slot| self.get(*slot).full_usage()).sum::<usize>());
        assert_eq!(self.vsize, all.iter().map(|slot| self.get(*slot).vsize).sum::<u64>());
        assert_eq!(self.slots.len(), all.len() + self.free.len());
    }
}
