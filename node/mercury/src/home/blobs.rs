//! Blobs: pictures and attachments, by hash, in chunks.
//!
//! Here: uploading, downloading and deleting them, the owner's quota, and who may read them. Not here: what refers
//! to them. Path: offer → chunks in order, each on disk before the next is requested → the whole hashed with the
//! last one → readable. An upload resumes where it stopped, also after a restart: the record has the next number.

use minicbor::bytes::ByteArray;
use sha2::{Digest, Sha256};

use super::{Asked, Failure, Home, Now, Reply, refuse};
use crate::body::BlobRef;
use crate::envelope::Bytes32;
use crate::id::Id;
use crate::limits::{CHUNK, MAX_BLOB_COUNT, MAX_BLOBS, UPLOAD_TIME};
use crate::store::{Batch, Blob, Column, Hosted, StoreError, StoredProfile, Ticket, pair};
use crate::wire::{Answer, Code, Refusal};

/// Blobs checked per tick: covers a full home in some hours, without noticeable load.
const SWEPT: usize = 1024;
/// Blobs deleted per tick: each has up to 256 chunks.
const THROWN: usize = 64;

/// Number of chunks of a blob of this size.
const fn chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK as u64)
}

/// Bytes of a chunk; 0 after the last.
fn chunk_size(size: u64, number: u32) -> u64 {
    size.saturating_sub(u64::from(number) * CHUNK as u64).min(CHUNK as u64)
}

fn chunk_key(owner: Id, hash: &Bytes32, number: u32) -> [u8; 68] {
    let mut key = [0; 68];
    key[..64].copy_from_slice(&pair(owner.digest(), hash));
    key[64..].copy_from_slice(&number.to_be_bytes());
    key
}

impl Home {
    fn blob(&self, owner: Id, hash: &Bytes32) -> Result<Option<Blob>, StoreError> {
        self.store.get(Column::Blobs, &pair(owner.digest(), hash))
    }

    pub(super) fn offer(&self, asked: &Asked, offered: BlobRef) -> Result<Reply, Failure> {
        let owner = self.hosted_caller(asked)?;
        let size = offered.size;
        if !offered.is_sensible() {
            return refuse(Code::Malformed, format!("a blob of {size} bytes, 1 to {MAX_BLOBS} expected"));
        }
        let mut batch = Batch::default();
        let next = match self.blob(owner, &offered.hash)? {
            Some(blob) if blob.size == size => blob.next,
            Some(blob) => {
                let first = blob.size;
                return refuse(
                    Code::Superseded,
                    format!("this blob was offered with {first} bytes: discard it first"),
                );
            }
            None => {
                self.count_in(owner, size, &mut batch)?;
                let blob = Blob { size, next: 0, complete: false, since: asked.now.wall };
                batch.put(Column::Blobs, &pair(owner.digest(), &offered.hash), &blob);
                0
            }
        };
        // For a known blob the answer also confirms earlier chunks: its ticket, of an empty batch, comes after
        // theirs.
        Ok(Reply::Now(Answer::Next(next), Some(self.commit(batch)?)))
    }

    /// Counts a new blob towards its owner's quota.
    fn count_in(&self, owner: Id, size: u64, batch: &mut Batch) -> Result<(), Failure> {
        let Some(mut record) = self.hosted_record(owner)? else {
            return refuse(Code::LogInFirst, "not hosted here");
        };
        if record.blobs >= MAX_BLOB_COUNT as u64 {
            return refuse(Code::Full, format!("{MAX_BLOB_COUNT} blobs are here: discard some"));
        }
        record.blobs += 1;
        record.blob_bytes = record.blob_bytes.saturating_add(size);
        if record.blob_bytes > MAX_BLOBS {
            return refuse(
                Code::Full,
                format!("all blobs together have at most {MAX_BLOBS} bytes: discard some"),
            );
        }
        batch.put(Column::Hosted, owner.digest(), &record);
        Ok(())
    }

    pub(super) fn chunk(
        &mut self,
        asked: &Asked,
        hash: &Bytes32,
        number: u32,
        bytes: &[u8],
    ) -> Result<Reply, Failure> {
        let owner = self.hosted_caller(asked)?;
        let Some(mut blob) = self.blob(owner, hash)? else {
            return refuse(Code::NotForYou, "no such blob was offered");
        };
        if number < blob.next {
            // The chunk was stored before and its answer was lost.
            return Ok(Reply::Now(Answer::Next(blob.next), Some(self.store.so_far())));
        }
        if number > blob.next || blob.complete {
            return refuse(Code::Malformed, format!("chunk {number}, {} expected", blob.next));
        }
        let (found, expected) = (bytes.len(), chunk_size(blob.size, number));
        if found as u64 != expected {
            return refuse(Code::Malformed, format!("chunk {number} has {found} bytes, {expected} expected"));
        }
        blob.next += 1;
        if u64::from(blob.next) == chunks(blob.size) {
            if self.hash_of_chunks(owner, hash, number, bytes)? != Some(*hash) {
                self.throw_away(owner, hash, &blob)?;
                return refuse(Code::Malformed, "the chunks do not have the hash: all were thrown away");
            }
            blob.complete = true;
        }
        let mut batch = Batch::default();
        batch.put_bytes(Column::Chunks, &chunk_key(owner, hash, number), bytes);
        batch.put(Column::Blobs, &pair(owner.digest(), hash), &blob);
        let ticket = self.commit(batch)?;
        self.counters.blobs_completed += u64::from(blob.complete);
        Ok(Reply::Now(Answer::Next(blob.next), Some(ticket)))
    }

    /// The hash of all chunks before the last one plus the last; `None` if one is missing.
    fn hash_of_chunks(
        &self,
        owner: Id,
        hash: &Bytes32,
        last: u32,
        bytes: &[u8],
    ) -> Result<Option<Bytes32>, StoreError> {
        let mut hasher = Sha256::new();
        for number in 0..last {
            match self.store.bytes(Column::Chunks, &chunk_key(owner, hash, number))? {
                Some(chunk) => hasher.update(&chunk),
                None => return Ok(None),
            }
        }
        hasher.update(bytes);
        Ok(Some(hasher.finalize().into()))
    }

    pub(super) fn get_chunk(
        &self,
        asked: &Asked,
        owner: Id,
        hash: &Bytes32,
        number: u32,
    ) -> Result<Reply, Failure> {
        if !self.is_shown(owner, hash)? {
            let caller = self.caller(asked)?;
            if caller != owner && (self.is_banned(owner)? || !self.related(owner, caller)?) {
                return Err(Refusal::not_for_you().into());
            }
        }
        let Some(blob) = self.blob(owner, hash)?.filter(|blob| blob.complete) else {
            return Err(Refusal::not_for_you().into());
        };
        let all = chunks(blob.size);
        if u64::from(number) >= all {
            return refuse(Code::Malformed, format!("chunk {number} of a blob that has {all}"));
        }
        match self.store.bytes(Column::Chunks, &chunk_key(owner, hash, number))? {
            Some(bytes) => Ok(Answer::Chunk(bytes.into()).into()),
            None => refuse(Code::Fault, "the home has lost this chunk"),
        }
    }

    /// Whether a persona's profile shows a blob, so that anyone may read it.
    fn is_shown(&self, owner: Id, hash: &Bytes32) -> Result<bool, StoreError> {
        let shows = |profile: StoredProfile| profile.blobs.iter().any(|shown| **shown == *hash);
        Ok(self.profile(owner)?.is_some_and(shows))
    }

    pub(super) fn discard(&self, asked: &Asked, hash: &Bytes32) -> Result<Reply, Failure> {
        let owner = self.hosted_caller(asked)?;
        if self.is_shown(owner, hash)? {
            return refuse(Code::Superseded, "the profile shows this blob: set another profile first");
        }
        let ticket = match self.blob(owner, hash)? {
            Some(blob) => self.throw_away(owner, hash, &blob)?,
            None => self.store.so_far(),
        };
        Ok(Reply::done(ticket))
    }

    pub(super) fn blobs(&self, asked: &Asked) -> Result<Reply, Failure> {
        let owner = self.hosted_caller(asked)?;
        let mut blobs = Vec::new();
        for row in self.store.rows(Column::Blobs, owner.digest(), b"") {
            let (key, record) = row?;
            let Some((_, hash)) = owner_and_hash(&key) else { continue };
            let blob: Blob = self.store.record(Column::Blobs, &record)?;
            blobs.push((BlobRef { hash: ByteArray::from(hash), size: blob.size }, blob.next));
        }
        Ok(Answer::Blobs(blobs).into())
    }

    /// Deletes a blob, which then no longer counts.
    fn throw_away(&self, owner: Id, hash: &Bytes32, blob: &Blob) -> Result<Ticket, StoreError> {
        let mut batch = Batch::default();
        batch.delete(Column::Blobs, &pair(owner.digest(), hash));
        for number in 0..blob.next {
            batch.delete(Column::Chunks, &chunk_key(owner, hash, number));
        }
        let record: Option<Hosted> = self.hosted_record(owner)?;
        if let Some(mut record) = record {
            record.blobs = record.blobs.saturating_sub(1);
            record.blob_bytes = record.blob_bytes.saturating_sub(blob.size);
            batch.put(Column::Hosted, owner.digest(), &record);
        }
        self.commit(batch)
    }

    /// Deletes uploads that were offered a day ago and are incomplete: a few per tick, in rounds.
    pub(super) fn sweep_blobs(&self, from: &mut Vec<u8>, now: Now) -> Result<(), StoreError> {
        let mut late = Vec::new();
        let (mut seen, mut after) = (0, Vec::new());
        for row in self.store.rows(Column::Blobs, b"", from) {
            let (key, record) = row?;
            if seen == SWEPT || late.len() == THROWN {
                after = key.into_vec();
                break;
            }
            seen += 1;
            let blob: Blob = self.store.record(Column::Blobs, &record)?;
            if !blob.complete && blob.since.saturating_add(UPLOAD_TIME) <= now.wall {
                late.extend(owner_and_hash(&key).map(|(owner, hash)| (owner, hash, blob)));
            }
        }
        *from = after;
        for (owner, hash, blob) in late {
            self.throw_away(owner, &hash, &blob)?;
        }
        Ok(())
    }
}

/// Parses a key of the column `blobs`.
fn owner_and_hash(key: &[u8]) -> Option<(Id, Bytes32)> {
    let (owner, hash) = key.split_first_chunk::<32>()?;
    Some((Id::from_digest(*owner), hash.try_into().ok()?))
}

#[cfg(test)]
mod tests;
