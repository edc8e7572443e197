//! The buckets of the address table, placed by a secret key.
//!
//! Lives here: [`Buckets`], the slots and the entries in them, and [`Placement`], which computes an address's slot.
//! Does not live here: which entry is replaced in a conflict.

use bitcoin::hashes::siphash24;
use bitcoin::secp256k1::rand::Rng;
use bitcoin::secp256k1::rand::rngs::StdRng;

use super::ip::{Ip, NetAddress};

/// Buckets of tried addresses (`ADDRMAN_TRIED_BUCKET_COUNT_LOG2`).
pub(super) const TRIED_BUCKETS: usize = 256;
/// Buckets of new addresses (`ADDRMAN_NEW_BUCKET_COUNT_LOG2`).
pub(super) const NEW_BUCKETS: usize = 1_024;
/// Slots per bucket (`ADDRMAN_BUCKET_SIZE_LOG2`).
pub(super) const BUCKET_SIZE: usize = 64;
/// Tried buckets per group.
const TRIED_BUCKETS_PER_GROUP: u64 = 8;
/// New buckets per group of sources.
const NEW_BUCKETS_PER_SOURCE_GROUP: u64 = 64;
/// An empty slot.
const NOBODY: u32 = u32::MAX;

/// The buckets of one kind (new or tried): each slot holds the id of an entry.
#[derive(Debug)]
pub(super) struct Buckets {
    places: Vec<u32>,
    /// Number of used slots in each bucket.
    taken: Vec<u8>,
}

impl Buckets {
    pub(super) fn new(count: usize) -> Self {
        Self { places: vec![NOBODY; count * BUCKET_SIZE], taken: vec![0; count] }
    }

    pub(super) fn get(&self, bucket: usize, place: usize) -> Option<u32> {
        Some(self.places[bucket * BUCKET_SIZE + place]).filter(|id| *id != NOBODY)
    }

    pub(super) fn set(&mut self, bucket: usize, place: usize, id: Option<u32>) {
        let old = std::mem::replace(&mut self.places[bucket * BUCKET_SIZE + place], id.unwrap_or(NOBODY));
        self.taken[bucket] -= u8::from(old != NOBODY);
        self.taken[bucket] += u8::from(id.is_some());
    }

    /// Empties every slot that holds this entry.
    pub(super) fn remove(&mut self, id: u32) {
        for at in 0..self.places.len() {
            if self.places[at] == id {
                self.set(at / BUCKET_SIZE, at % BUCKET_SIZE, None);
            }
        }
    }

    /// Chooses a random non-empty bucket, and in it the first entry from a random slot on. The reference (0.15)
    /// chooses a random used slot; choosing the bucket first, as later versions of Core do, gives an owner of many
    /// slots in few buckets no advantage.
    pub(super) fn choose(&self, random: &mut StdRng) -> u32 {
        let bucket = loop {
            let bucket = random.gen_range(0..self.taken.len());
            if self.taken[bucket] != 0 {
                break bucket;
            }
        };
        let start = random.gen_range(0..BUCKET_SIZE);
        let places = (0..BUCKET_SIZE).map(|step| (start + step) % BUCKET_SIZE);
        places.filter_map(|place| self.get(bucket, place)).next().expect("the bucket is not empty")
    }

    /// Every used slot: its bucket and its entry.
    pub(super) fn holders(&self) -> impl Iterator<Item = (usize, u32)> {
        let places = self.places.iter().enumerate().filter(|(_, id)| **id != NOBODY);
        places.map(|(place, id)| (place / BUCKET_SIZE, *id))
    }
}

/// The secret key that determines an address's slots; without it, nobody can target a bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement(pub(super) [u8; 16]);

impl Placement {
    pub(super) fn new_bucket(&self, ip: &Ip, source: &Ip) -> usize {
        let (group, source) = (ip.group(), source.group());
        let of_source = self.hash(&[b"n", &group, &source]) % NEW_BUCKETS_PER_SOURCE_GROUP;
        (self.hash(&[b"N", &source, &of_source.to_le_bytes()]) % NEW_BUCKETS as u64) as usize
    }

    pub(super) fn new_place(&self, bucket: usize, address: &NetAddress) -> usize {
        self.place(b"new", bucket, address)
    }

    pub(super) fn tried_place(&self, address: &NetAddress) -> (usize, usize) {
        let port = address.port.to_le_bytes();
        let of_group = self.hash(&[b"t", &address.ip.0, &port]) % TRIED_BUCKETS_PER_GROUP;
        let bucket = self.hash(&[b"T", &address.ip.group(), &of_group.to_le_bytes()]) % TRIED_BUCKETS as u64;
        (bucket as usize, self.place(b"tried", bucket as usize, address))
    }

    fn place(&self, kind: &[u8], bucket: usize, address: &NetAddress) -> usize {
        let (bucket, port) = (bucket.to_le_bytes(), address.port.to_le_bytes());
        (self.hash(&[kind, &bucket, &address.ip.0, &port]) % BUCKET_SIZE as u64) as usize
    }

    fn hash(&self, parts: &[&[u8]]) -> u64 {
        let key = u128::from_le_bytes(self.0);
        let mut bytes = Vec::with_capacity(64);
        for part in parts {
            bytes.push(part.len() as u8);
            bytes.extend_from_slice(part);
        }
        siphash24::Hash::hash_to_u64_with_keys(key as u64, (key >> 64) as u64, &bytes)
    }
}
