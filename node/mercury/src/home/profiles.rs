//! Profiles: public, signed by the persona, with increasing versions.
//!
//! Here: who may set one and when it replaces another. Not here: the pictures themselves ([`super::blobs`]). Path:
//! the owner's envelope → verified → newer than the stored one, its pictures complete → one batch.

use super::{Asked, Failure, Home, Reply, refuse};
use crate::body::{self, BlobRef};
use crate::envelope::{Envelope, Order, Verified};
use crate::id::Id;
use crate::store::{Batch, Blob, Column, StoreError, StoredProfile, pair};
use crate::wire::{Answer, Code, Refusal};

impl Home {
    pub(super) fn get_profile(&self, asked: &Asked, persona: Id) -> Result<Reply, Failure> {
        if let Some(departure) = self.redirect(asked, persona)? {
            return Ok(Answer::Moved(departure).into());
        }
        match self.profile(persona)? {
            Some(stored) => Ok(Answer::Profile(Envelope::from_bytes(&stored.envelope)?).into()),
            None => Err(Refusal::not_for_you().into()),
        }
    }

    /// The profile of a persona as shown to others; none if it is banned.
    pub(super) fn profile(&self, persona: Id) -> Result<Option<StoredProfile>, StoreError> {
        if self.is_banned(persona)? {
            return Ok(None);
        }
        self.store.get(Column::Profiles, persona.digest())
    }

    pub(super) fn set_profile(&self, asked: &Asked, profile: &Envelope) -> Result<Reply, Failure> {
        let caller = self.hosted_caller(asked)?;
        let verified = self.verify::<body::Profile>(asked, profile, Some(caller), Some(caller))?;
        let Order::Sequence(version) = verified.order() else {
            return refuse(Code::Envelope, "a nonce where a profile's version is expected");
        };
        if let Some(stored) = self.store.get::<StoredProfile>(Column::Profiles, caller.digest())? {
            if Envelope::from_bytes(&stored.envelope)?.hash() == verified.hash() {
                // It was stored before, but may not be on disk yet.
                return Ok(Reply::done(self.store.so_far()));
            }
            check_newer(version, &stored)?;
        }
        let shown = self.shown(caller, &verified)?;
        let record = StoredProfile {
            version,
            tombstone: verified.body().tombstone,
            envelope: verified.bytes().to_vec().into(),
            blobs: shown.iter().map(|blob| blob.hash).collect(),
        };
        let mut batch = Batch::default();
        batch.put(Column::Profiles, caller.digest(), &record);
        Ok(Reply::done(self.commit(batch)?))
    }

    /// The blobs that a profile shows; all must be complete here.
    fn shown(&self, owner: Id, profile: &Verified<body::Profile>) -> Result<Vec<BlobRef>, Failure> {
        let body = profile.body();
        let mut shown = Vec::new();
        for (name, blob) in [("picture", body.picture), ("thumbnail", body.thumbnail)] {
            let Some(blob) = blob else { continue };
            let stored: Option<Blob> = self.store.get(Column::Blobs, &pair(owner.digest(), &blob.hash))?;
            if !stored.is_some_and(|stored| stored.complete && stored.size == blob.size) {
                let size = blob.size;
                return refuse(
                    Code::Malformed,
                    format!("the {name} is not here: send that blob of {size} bytes first"),
                );
            }
            shown.push(blob);
        }
        Ok(shown)
    }
}

fn check_newer(version: u64, stored: &StoredProfile) -> Result<(), Failure> {
    if stored.tombstone {
        return refuse(Code::Superseded, "the profile was taken back: no version follows");
    }
    if version <= stored.version {
        let newest = stored.version;
        return refuse(Code::Superseded, format!("version {version}, one above {newest} expected"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
