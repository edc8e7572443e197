//! Blobs: uploaded in chunks, resuming interrupted uploads; downloaded and verified by hash.

use std::time::Duration;

use minicbor::bytes::ByteArray;
use sha2::{Digest, Sha256};

use super::device::{Device, now};
use super::error::ClientError;
use super::place::Home;
use super::state::SENT_TIME;
use crate::body::BlobRef;
use crate::id::Id;
use crate::limits::{CHUNK, MAX_BLOB_COUNT, MAX_BLOBS};
use crate::wire::{Answer, Code, Request};

/// Base time for a download of any size: connecting takes time, and a home may be busy.
const DOWNLOAD_TIME: Duration = Duration::from_secs(60);
/// Minimum bytes per second of a download: a slow line. Without it, a home that sends each chunk just in time could
/// block the caller for an hour and a half with the longest blob.
const DOWNLOAD_RATE: u64 = 16 * 1024;

/// The bytes of a blob.
pub type Payload = Vec<u8>;

/// The hash that identifies a blob.
pub(super) fn hash_of(bytes: &[u8]) -> ByteArray<32> {
    ByteArray::from(<[u8; 32]>::from(Sha256::digest(bytes)))
}

/// Number of chunks of a blob.
fn chunks(size: u64) -> u32 {
    u32::try_from(size.div_ceil(CHUNK as u64)).unwrap_or(u32::MAX)
}

/// The timeout for a download of this many bytes.
pub(super) fn download_time(size: u64) -> Duration {
    DOWNLOAD_TIME + Duration::from_secs(size / DOWNLOAD_RATE)
}

impl Device {
    /// Uploads a blob to one's own home. An interrupted upload resumes where it stopped.
    ///
    /// # Errors
    /// The blob is empty or too large, or the home is unreachable, refuses or lies.
    pub async fn upload(&self, bytes: &[u8]) -> Result<BlobRef, ClientError> {
        self.upload_to(&self.own_home()?, bytes).await
    }

    pub(super) async fn upload_to(&self, home: &Home, bytes: &[u8]) -> Result<BlobRef, ClientError> {
        let size = bytes.len() as u64;
        let blob = BlobRef { hash: hash_of(bytes), size };
        if !blob.is_sensible() {
            return Err(ClientError::Wrong(format!("{size} bytes, 1 to {MAX_BLOBS} expected")));
        }
        let mut next = self.next_chunk(home, Request::Offer(blob)).await?;
        let all = chunks(size);
        while next < all {
            let begin = next as usize * CHUNK;
            let chunk = bytes[begin..bytes.len().min(begin + CHUNK)].to_vec();
            let wanted = self.next_chunk(home, Request::Chunk(blob.hash, next, chunk.into())).await?;
            if wanted != next + 1 {
                return Err(ClientError::Lie(format!("after chunk {next} it wants chunk {wanted}")));
            }
            next = wanted;
        }
        if next > all {
            return Err(ClientError::Lie(format!("it has {next} chunks of a blob of {all}")));
        }
        Ok(blob)
    }

    async fn next_chunk(&self, home: &Home, request: Request) -> Result<u32, ClientError> {
        match self.ask_as_me(home, request).await? {
            Answer::Next(next) => Ok(next),
            _ => Err(ClientError::unasked()),
        }
    }

    /// Downloads a persona's blob from a home, and verifies its hash.
    ///
    /// # Errors
    /// The home is unreachable or does not provide it, or the content is wrong.
    pub async fn download(&self, owner: Id, blob: &BlobRef, home: &Home) -> Result<Payload, ClientError> {
        if !blob.is_sensible() {
            return Err(ClientError::Lie(format!("a blob of {} bytes", blob.size)));
        }
        let mut bytes = Payload::new();
        for number in 0..chunks(blob.size) {
            let request = Request::GetChunk(owner, blob.hash, number);
            let Answer::Chunk(chunk) = self.ask_blob(home, request).await? else {
                return Err(ClientError::unasked());
            };
            let left = blob.size - bytes.len() as u64;
            if chunk.len() as u64 != left.min(CHUNK as u64) {
                return Err(ClientError::Lie(format!("chunk {number} has {} bytes", chunk.len())));
            }
            bytes.extend_from_slice(&chunk);
        }
        if blob.hash != hash_of(&bytes) {
            return Err(ClientError::Lie("the blob is not what its hash says".to_owned()));
        }
        Ok(bytes)
    }

    /// Anyone may read profile pictures; for others the home must know who asks, and gives the same refusal to all
    /// it does not know.
    async fn ask_blob(&self, home: &Home, request: Request) -> Result<Answer, ClientError> {
        match self.ask_as_me(home, request.clone()).await {
            Err(ClientError::Refused(refusal)) if refusal.code == Code::NotForYou => {
                self.know(home).await?;
                self.ask(home, request).await
            }
            result => result,
        }
    }

    /// Deletes one of one's own blobs from the home.
    ///
    /// # Errors
    /// The home is unreachable or refuses.
    pub async fn discard(&self, hash: [u8; 32]) -> Result<(), ClientError> {
        self.ask_done(&self.own_home()?, Request::Discard(hash.into())).await?;
        Ok(self.folder().update(|state| state.sent.retain(|one| *one.hash != hash))?)
    }

    /// Deletes attachment blobs that were sent at least `age` seconds ago; returns how many.
    pub(super) async fn discard_sent(&self, age: u64) -> Result<usize, ClientError> {
        let now = now();
        let mut sent = self.folder().state()?.sent;
        sent.retain(|one| one.at.saturating_add(age) <= now);
        for one in &sent {
            match self.discard(*one.hash).await {
                // The profile shows it as well.
                Err(ClientError::Refused(refusal)) if refusal.code == Code::Superseded => {
                    self.folder().update(|state| state.sent.retain(|other| other.hash != one.hash))?;
                }
                result => result?,
            }
        }
        Ok(sent.len())
    }

    /// Discards blobs that were uploaded for a letter that was not sent, because of `error`. What cannot be
    /// done now is left to [`Self::settle`], as with those whose time is over.
    pub(super) async fn discard_unsent(&self, hashes: &[ByteArray<32>], error: &ClientError) {
        let over = now().saturating_sub(SENT_TIME);
        let noted = self.folder().update(|state| {
            for one in state.sent.iter_mut().filter(|one| hashes.contains(&one.hash)) {
                one.at = over;
            }
        });
        let away =
            matches!(error, ClientError::Unreachable(_) | ClientError::TimedOut(_) | ClientError::Stopped);
        let done = match noted {
            Ok(()) if hashes.is_empty() || away => Ok(()),
            Ok(()) => self.discard_sent(SENT_TIME).await.map(drop),
            Err(error) => Err(error.into()),
        };
        done.unwrap_or_else(|error| tracing::debug!("attachments that were not sent are kept: {error}"));
    }

    /// One's own blobs, each with its number of uploaded chunks.
    ///
    /// # Errors
    /// The home is unreachable, refuses, or lies.
    pub async fn blobs(&self) -> Result<Vec<(BlobRef, u32)>, ClientError> {
        match self.ask_as_me(&self.own_home()?, Request::Blobs).await? {
            Answer::Blobs(blobs) if blobs.len() <= MAX_BLOB_COUNT => Ok(blobs),
            _ => Err(ClientError::unasked()),
        }
    }
}
