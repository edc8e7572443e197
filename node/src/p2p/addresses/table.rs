//! The address table: known addresses, in buckets that no single owner of addresses can fill (`CAddrMan`).
//!
//! Lives here: [`AddressTable`]. Does not live here: its file, and any connection. An address that was only heard
//! of is *new*: it is in up to eight of 1,024 buckets, chosen under a secret key by its group and that of its
//! source, 64 per source group. One that was connected to is *tried*: it is in one of 256 buckets, 8 per group. A
//! bucket has 64 slots, and the slot follows from the address: two addresses with the same slot conflict.
//!
//! Sizes: at most 16,384 tried and 65,536 new addresses, together at most [`MAX_MEMORY`] bytes.

use std::collections::HashMap;

use bitcoin::secp256k1::rand::rngs::StdRng;
use bitcoin::secp256k1::rand::{Rng, SeedableRng};

use super::buckets::{BUCKET_SIZE, Buckets, NEW_BUCKETS, Placement, TRIED_BUCKETS};
use super::ip::{Ip, NetAddress, TimedAddress};

/// Maximum number of new buckets that one address can be in.
const NEW_BUCKETS_PER_ADDRESS: u8 = 8;
/// Maximum number of addresses in the table.
pub const MAX_ADDRESSES: usize = (TRIED_BUCKETS + NEW_BUCKETS) * BUCKET_SIZE;
/// Maximum bytes that the table takes: slots of 4, entries of 88, 8 for the lists of them, and 48 for the index by
/// address, whose lists grow by doubling (131,072 entries for 81,920).
pub const MAX_MEMORY: usize = 4 * MAX_ADDRESSES + 131_072 * (88 + 8 + 48);

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Seconds after which an address that was not seen is replaced first (`ADDRMAN_HORIZON_DAYS`).
const HORIZON: u64 = 30 * DAY;
/// Failures after which an address that never worked is considered terrible (`ADDRMAN_RETRIES`).
const RETRIES: u32 = 3;
/// Consecutive failures over [`MIN_FAIL`] after which any address is considered terrible (`ADDRMAN_MAX_FAILURES`).
const MAX_FAILURES: u32 = 10;
/// See [`MAX_FAILURES`] (`ADDRMAN_MIN_FAIL_DAYS`).
const MIN_FAIL: u64 = 7 * DAY;
/// Percentage of the table returned for one `getaddr` (`ADDRMAN_GETADDR_MAX_PCT`).
const SAMPLE_PER_CENT: usize = 23;
/// Maximum number of addresses returned for one `getaddr` (`ADDRMAN_GETADDR_MAX`).
const SAMPLE_MAX: usize = 2_500;
/// An address in the table. Times are seconds since 1970, 0 for never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: NetAddress,
    /// The source that it was first heard from.
    pub(super) source: Ip,
    pub(super) services: u64,
    /// When it was last seen, according to others.
    pub(super) time: u64,
    pub(super) last_success: u64,
    last_try: u64,
    last_counted_try: u64,
    /// Failures since the last success.
    pub(super) failures: u32,
    /// Number of new buckets it is in; 0 if it is tried.
    in_new: u8,
    tried: bool,
    /// Its position in the shuffled list.
    shuffled_at: u32,
}

impl Entry {
    /// Whether it is so bad that any other address may replace it (`IsTerrible`).
    fn is_terrible(&self, now: u64) -> bool {
        if self.last_try != 0 && self.last_try + MINUTE >= now {
            return false;
        }
        self.time > now + 10 * MINUTE
            || self.time == 0
            || now.saturating_sub(self.time) > HORIZON
            || (self.last_success == 0 && self.failures >= RETRIES)
            || (now.saturating_sub(self.last_success) > MIN_FAIL && self.failures >= MAX_FAILURES)
    }

    /// The chance of being selected, relative to 1 for a good address (`GetChance`).
    fn chance(&self, now: u64) -> f64 {
        let recent = if now.saturating_sub(self.last_try) < 10 * MINUTE { 0.01 } else { 1.0 };
        // At least a twenty-eighth however many failures: an outage of ours must not make the search endless.
        recent * 0.66f64.powi(self.failures.min(8).cast_signed())
    }
}

/// An address to try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The address.
    pub address: NetAddress,
    /// The services it is said to offer, as a bit field.
    pub services: u64,
    /// When it was last tried, seconds since 1970; 0 if not since the start.
    pub last_try: u64,
}

/// The address table. No method reads a clock: `now` is in seconds since 1970.
#[derive(Debug)]
pub struct AddressTable {
    pub(super) placement: Placement,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_ip: HashMap<Ip, u32>,
    shuffled: Vec<u32>,
    new: Buckets,
    tried: Buckets,
    tried_count: usize,
    /// Failures count once per success of any address, so that an outage of ours counts once.
    last_good: u64,
    random: StdRng,
}

impl AddressTable {
    /// An empty table. `seed` must be secret and random: it determines the placement and all random choices.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);
        Self {
            placement: Placement(random.r#gen()),
            entries: Vec::new(),
            free: Vec::new(),
            by_ip: HashMap::new(),
            shuffled: Vec::new(),
            new: Buckets::new(NEW_BUCKETS),
            tried: Buckets::new(TRIED_BUCKETS),
            tried_count: 0,
            last_good: 1,
            random,
        }
    }

    /// Number of addresses.
    pub fn len(&self) -> usize {
        self.shuffled.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.shuffled.is_empty()
    }

    /// Number of tried addresses.
    pub fn tried(&self) -> usize {
        self.tried_count
    }

    /// Adds an address heard from `source`; returns whether it was unknown (`Add_`). Its time is reduced by
    /// `penalty` seconds, unless the source announced itself.
    pub fn add(&mut self, heard: &TimedAddress, source: Ip, penalty: u64, now: u64) -> bool {
        heard.address.ip.is_routable() && self.add_seeded(heard, source, penalty, now)
    }

    /// Like [`Self::add`], for an address from a seed, which on a private chain may be one of a private network.
    pub fn add_seeded(&mut self, heard: &TimedAddress, source: Ip, penalty: u64, now: u64) -> bool {
        let penalty = if heard.address.ip == source { 0 } else { penalty };
        let (id, unknown) = match self.by_ip.get(&heard.address.ip).copied() {
            Some(id) if self.hear_again(id, heard, penalty, now) => (id, false),
            Some(_) => return false,
            None => (self.create(heard, source, penalty), true),
        };
        // The slot follows from the entry's own port, whatever port was heard: removing the entry must find its
        // slots.
        let address = self.entry(id).address;
        let bucket = self.placement.new_bucket(&address.ip, &source);
        let place = self.placement.new_place(bucket, &address);
        let holder = self.new.get(bucket, place);
        let gives_way = holder.is_none_or(|holder| {
            let holder = self.entry(holder);
            holder.is_terrible(now) || (holder.in_new > 1 && self.entry(id).in_new == 0)
        });
        if holder != Some(id) && gives_way {
            self.put_new(bucket, place, id);
        } else if self.entry(id).in_new == 0 {
            self.delete(id);
        }
        unknown
    }

    /// Updates a known address; returns whether, if it is untried, it may get one more bucket.
    fn hear_again(&mut self, id: u32, heard: &TimedAddress, penalty: u64, now: u64) -> bool {
        let entry = self.entries[id as usize].as_mut().expect("an id in use has an entry");
        let online = now.saturating_sub(heard.time) < DAY;
        let interval = if online { HOUR } else { DAY };
        if heard.time != 0 && (entry.time == 0 || entry.time + interval + penalty < heard.time) {
            entry.time = heard.time.saturating_sub(penalty);
        }
        entry.services |= heard.services;
        let nothing_new = heard.time == 0 || (entry.time != 0 && heard.time <= entry.time);
        if nothing_new || entry.tried || entry.in_new == NEW_BUCKETS_PER_ADDRESS {
            return false;
        }
        // Each further bucket is half as likely.
        let odds = 1u32 << entry.in_new;
        self.random.gen_range(0..odds) == 0
    }

    fn create(&mut self, heard: &TimedAddress, source: Ip, penalty: u64) -> u32 {
        let entry = Entry {
            address: heard.address,
            source,
            services: heard.services,
            time: heard.time.saturating_sub(penalty),
            last_success: 0,
            last_try: 0,
            last_counted_try: 0,
            failures: 0,
            in_new: 0,
            tried: false,
            shuffled_at: 0,
        };
        self.insert(entry)
    }

    fn insert(&mut self, mut entry: Entry) -> u32 {
        entry.shuffled_at = self.shuffled.len() as u32;
        let ip = entry.address.ip;
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        self.entries[id as usize] = Some(entry);
        self.by_ip.insert(ip, id);
        self.shuffled.push(id);
        id
    }

    fn delete(&mut self, id: u32) {
        let entry = self.entries[id as usize].take().expect("an id in use has an entry");
        self.by_ip.remove(&entry.address.ip);
        let at = entry.shuffled_at as usize;
        self.shuffled.swap_remove(at);
        if let Some(&moved) = self.shuffled.get(at) {
            self.entry_mut(moved).shuffled_at = entry.shuffled_at;
        }
        self.free.push(id);
    }

    fn entry(&self, id: u32) -> &Entry {
        self.entries[id as usize].as_ref().expect("an id in use has an entry")
    }

    fn entry_mut(&mut self, id: u32) -> &mut Entry {
        self.entries[id as usize].as_mut().expect("an id in use has an entry")
    }

    /// The entry with exactly this address and port.
    fn find(&self, address: &NetAddress) -> Option<u32> {
        self.by_ip.get(&address.ip).copied().filter(|id| self.entry(*id).address == *address)
    }

    /// Puts an entry into a new bucket. The entry in that slot is removed from it, and from the table if that was
    /// its last.
    fn put_new(&mut self, bucket: usize, place: usize, id: u32) {
        if let Some(old) = self.new.get(bucket, place) {
            let entry = self.entry_mut(old);
            entry.in_new -= 1;
            if entry.in_new == 0 {
                self.delete(old);
            }
        }
        self.entry_mut(id).in_new += 1;
        self.new.set(bucket, place, Some(id));
    }

    /// Records a connection attempt (`Attempt_`). `count` is whether a failure counts: not if we have no peers
    /// ourselves.
    pub fn attempt(&mut self, address: &NetAddress, count: bool, now: u64) {
        let Some(id) = self.find(address) else { return };
        let last_good = self.last_good;
        let entry = self.entry_mut(id);
        entry.last_try = now;
        if count && entry.last_counted_try < last_good {
            entry.last_counted_try = now;
            entry.failures += 1;
        }
    }

    /// Records that it answered as a node of this chain: it is tried from now on (`Good_`).
    pub fn good(&mut self, address: &NetAddress, now: u64) {
        self.last_good = now;
        let Some(id) = self.find(address) else { return };
        let entry = self.entry_mut(id);
        entry.last_success = now;
        entry.last_try = now;
        entry.failures = 0;
        // `time` is not updated: it would reveal our connections.
        if !entry.tried {
            self.make_tried(id);
        }
    }

    fn make_tried(&mut self, id: u32) {
        let address = self.entry(id).address;
        self.new.remove(id);
        self.entry_mut(id).in_new = 0;
        let (bucket, place) = self.placement.tried_place(&address);
        if let Some(old) = self.tried.get(bucket, place) {
            self.tried.set(bucket, place, None);
            self.tried_count -= 1;
            self.entry_mut(old).tried = false;
            let Entry { address, source, .. } = self.entry(old).clone();
            let bucket = self.placement.new_bucket(&address.ip, &source);
            self.put_new(bucket, self.placement.new_place(bucket, &address), old);
        }
        self.put_tried(bucket, place, id);
    }

    fn put_tried(&mut self, bucket: usize, place: usize, id: u32) {
        self.entry_mut(id).tried = true;
        self.tried.set(bucket, place, Some(id));
        self.tried_count += 1;
    }

    /// Records the end of a long connection: the node was up until now (`Connected_`).
    pub fn connected(&mut self, address: &NetAddress, now: u64) {
        let Some(id) = self.find(address) else { return };
        let entry = self.entry_mut(id);
        if now.saturating_sub(entry.time) > 20 * MINUTE {
            entry.time = now;
        }
    }

    /// Records the services it announced (`SetServices_`).
    pub fn set_services(&mut self, address: &NetAddress, services: u64) {
        if let Some(id) = self.find(address) {
            self.entry_mut(id).services = services;
        }
    }

    /// Selects a random address to try, half of the time a tried one; `None` if there is none (`Select_`).
    pub fn select(&mut self, new_only: bool, now: u64) -> Option<Candidate> {
        let new_count = self.len() - self.tried_count;
        if self.is_empty() || (new_only && new_count == 0) {
            return None;
        }
        let from_tried =
            !new_only && self.tried_count > 0 && (new_count == 0 || self.random.gen_range(0..2) == 0);
        // Grows, so that the search ends even if every address is bad: after about 45 rounds at most.
        let mut factor = 1.0;
        loop {
            let buckets = if from_tried { &self.tried } else { &self.new };
            let id = buckets.choose(&mut self.random);
            let entry = self.entries[id as usize].as_ref().expect("an id in use has an entry");
            if self.random.r#gen::<f64>() < factor * entry.chance(now) {
                let Entry { address, services, last_try, .. } = *entry;
                return Some(Candidate { address, services, last_try });
            }
            factor *= 1.2;
        }
    }

    /// The answer to `getaddr`: a random part of the table, without terrible addresses (`GetAddr_`).
    pub fn sample(&mut self, now: u64) -> Vec<TimedAddress> {
        let most = (self.len() * SAMPLE_PER_CENT / 100).min(SAMPLE_MAX);
        let mut chosen = Vec::with_capacity(most);
        for at in 0..self.len() {
            if chosen.len() >= most {
                break;
            }
            let other = self.random.gen_range(at..self.shuffled.len());
            self.shuffled.swap(at, other);
            for at in [at, other] {
                self.entry_mut(self.shuffled[at]).shuffled_at = at as u32;
            }
            let entry = self.entry(self.shuffled[at]);
            if !entry.is_terrible(now) {
                let Entry { address, services, time, .. } = *entry;
                chosen.push(TimedAddress { address, services, time });
            }
        }
        chosen
    }

    /// All entries with their new buckets; none for a tried entry.
    pub(super) fn entries_with_buckets(&self) -> Vec<(&Entry, Vec<u16>)> {
        let mut buckets = vec![Vec::new(); self.entries.len()];
        for (bucket, id) in self.new.holders() {
            buckets[id as usize].push(bucket as u16);
        }
        let entries = self.entries.iter().zip(buckets);
        entries.filter_map(|(entry, buckets)| Some((entry.as_ref()?, buckets))).collect()
    }

    /// Restores an entry from [`Self::entries_with_buckets`]; returns whether there was room, which is certain in
    /// an empty table with the same key.
    pub(super) fn restore(&mut self, known: Restored, buckets: &[u16]) -> bool {
        let Restored { address, source, services, time, last_success, failures } = known;
        if !address.ip.is_routable() || self.by_ip.contains_key(&address.ip) {
            return false;
        }
        let id = self.create(&TimedAddress { address, services, time }, source, 0);
        let entry = self.entry_mut(id);
        (entry.last_success, entry.failures) = (last_success, failures);
        let placed = if buckets.is_empty() {
            let (bucket, place) = self.placement.tried_place(&address);
            let free = self.tried.get(bucket, place).is_none();
            if free {
                self.put_tried(bucket, place, id);
            }
            free
        } else {
            for bucket in buckets.iter().map(|bucket| usize::from(*bucket)) {
                let place = self.placement.new_place(bucket, &address);
                if self.new.get(bucket, place).is_none() {
                    self.put_new(bucket, place, id);
                }
            }
            self.entry(id).in_new > 0
        };
        if !placed {
            self.delete(id);
        }
        placed
    }
}

/// The stored form of an address; fields as in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restored {
    pub(super) address: NetAddress,
    pub(super) source: Ip,
    pub(super) services: u64,
    pub(super) time: u64,
    pub(super) last_success: u64,
    pub(super) failures: u32,
}

#[cfg(test)]
mod tests;
