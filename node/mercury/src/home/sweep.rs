//! Deletes what is too old: mail, marks of seen messages, requests, expired relations, redirects.
//!
//! Here: a walk over each column with such data, some rows per tick, and a pause after each round. Data may
//! therefore stay for an hour after its expiry; where expired data must not be used, that is checked on use. Path:
//! [`Home::tick`] → one step of each walk → a batch.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::mail::Removed;
use super::relations::{count, other_of};
use super::{Home, Now};
use crate::body::RelationRequest;
use crate::envelope::Body;
use crate::id::Id;
use crate::limits::CLOCK_SKEW;
use crate::store::{
    Batch, Column, Hosted, Mailbox, Relation, RelationState, Request, Row, Seen, Sender, StoreError, behind,
};

/// Rows per tick of a walk: some hundred kilobytes of the longest.
const ROWS: usize = 256;
/// Mailboxes searched for old mail per tick: at most 4 MiB each.
const SEARCHED: usize = 2;
/// Pause between two rounds over a column, and between two searches of a mailbox, seconds.
const REST: u64 = 3600;

/// The positions of the walks.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    boxes: Walk,
    seen: Walk,
    requests: Walk,
    relations: Walk,
    hosted: Walk,
    /// The next blob to check. Uploads are few, and expired ones free quota, so this walk does not pause.
    blobs: Vec<u8>,
}

/// A walk over a column.
#[derive(Debug, Default)]
struct Walk {
    /// The next key; empty for the first.
    from: Vec<u8>,
    /// Paused until then.
    rest: Option<Instant>,
}

impl Walk {
    /// Returns the next rows and advances; pauses at the end.
    fn step(&mut self, home: &Home, column: Column, now: Now) -> Result<Vec<Row>, StoreError> {
        if self.rest.is_some_and(|rest| now.instant < rest) {
            return Ok(Vec::new());
        }
        let rows = home.store.rows(column, b"", &self.from).take(ROWS).collect::<Result<Vec<_>, _>>()?;
        match rows.last() {
            Some((key, _)) if rows.len() == ROWS => self.go_on_after(key),
            _ => *self = Self { from: Vec::new(), rest: Some(now.instant + Duration::from_secs(REST)) },
        }
        Ok(rows)
    }

    fn go_on_after(&mut self, key: &[u8]) {
        self.from = behind(key);
        self.rest = None;
    }
}

/// The persona at the start of a key.
pub(super) fn owner_of(key: &[u8]) -> Id {
    let mut digest = [0; 32];
    digest.copy_from_slice(&key[..32]);
    Id::from_digest(digest)
}

impl Home {
    /// Makes a step of each walk.
    pub(super) fn sweep(&mut self, now: Now) {
        let mut sweep = std::mem::take(&mut self.sweep);
        for step in [
            self.sweep_blobs(&mut sweep.blobs, now),
            self.sweep_boxes(&mut sweep.boxes, now),
            self.sweep_seen(&mut sweep.seen, now),
            self.sweep_requests(&mut sweep.requests, now),
            self.sweep_relations(&mut sweep.relations, now),
            self.sweep_hosted(&mut sweep.hosted, now),
        ] {
            if let Err(error) = step {
                self.counters.faults += 1;
                tracing::error!("{error}");
            }
        }
        self.sweep = sweep;
    }

    fn sweep_boxes(&self, walk: &mut Walk, now: Now) -> Result<(), StoreError> {
        let mut searched = 0;
        for (key, value) in walk.step(self, Column::Boxes, now)? {
            let mailbox: Mailbox = self.store.record(Column::Boxes, &value)?;
            if mailbox.count > 0 && mailbox.oldest_expires < now.wall {
                self.sweep_box(owner_of(&key), mailbox, now)?;
                searched += 1;
            }
            if searched == SEARCHED {
                walk.go_on_after(&key);
                break;
            }
        }
        Ok(())
    }

    /// Deletes expired items of a mailbox.
    fn sweep_box(&self, owner: Id, mut mailbox: Mailbox, now: Now) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut removed = Removed::default();
        let mut oldest = u64::MAX;
        for item in self.items(owner, mailbox.acknowledged + 1) {
            let (number, item) = item?;
            if item.expires < now.wall {
                removed.item(&mut mailbox, number, &item, owner, &mut batch);
            } else {
                oldest = oldest.min(item.expires);
            }
        }
        // With mail expiring every second, the home must not read all of it every second.
        mailbox.oldest_expires = oldest.max(now.wall + REST);
        batch.put(Column::Boxes, owner.digest(), &mailbox);
        self.reduce_senders(owner, &removed.by_sender, &mut batch)?;
        self.commit(batch).map(drop)
    }

    fn sweep_seen(&self, walk: &mut Walk, now: Now) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut gone: HashMap<Id, HashMap<Id, Sender>> = HashMap::new();
        for (key, value) in walk.step(self, Column::Seen, now)? {
            let seen: Seen = self.store.record(Column::Seen, &value)?;
            // Kept longer by the clock skew, so that a clock that is set back a little does not accept the message
            // again.
            if seen.expires.saturating_add(CLOCK_SKEW) < now.wall {
                gone.entry(owner_of(&key)).or_default().entry(seen.sender).or_default().seen += 1;
                batch.delete(Column::Seen, &key);
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        for (owner, by_sender) in gone {
            let mut mailbox = self.mailbox(owner)?;
            let all: u64 = by_sender.values().map(|sender| sender.seen).sum();
            mailbox.seen = mailbox.seen.saturating_sub(all);
            batch.put(Column::Boxes, owner.digest(), &mailbox);
            self.reduce_senders(owner, &by_sender, &mut batch)?;
        }
        self.commit(batch).map(drop)
    }

    fn sweep_requests(&self, walk: &mut Walk, now: Now) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (key, value) in walk.step(self, Column::Requests, now)? {
            let request: Request = self.store.record(Column::Requests, &value)?;
            if request.expires < now.wall {
                batch.delete(Column::Requests, &key);
            }
        }
        self.commit_any(batch)
    }

    fn sweep_relations(&mut self, walk: &mut Walk, now: Now) -> Result<(), StoreError> {
        let (mut batch, mut ended) = (Batch::default(), Vec::new());
        let mut owners: HashMap<Id, Hosted> = HashMap::new();
        for (key, value) in walk.step(self, Column::Relations, now)? {
            let record: Relation = self.store.record(Column::Relations, &value)?;
            let Some(to) = aged(&record, now.wall) else { continue };
            let owner = owner_of(&key);
            let hosted = match owners.entry(owner) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => match self.hosted_record(owner)? {
                    Some(hosted) => entry.insert(hosted),
                    None => continue,
                },
            };
            count(hosted, Some(record.state), to);
            match to {
                Some(state) => batch.put(Column::Relations, &key, &Relation { state, ..record }),
                None => batch.delete(Column::Relations, &key),
            }
            let other = other_of(&key);
            if record.state == RelationState::Held {
                ended.push((other, owner));
            }
            tracing::debug!("a relation of {owner} to {other} has expired");
        }
        for (owner, hosted) in owners {
            batch.put(Column::Hosted, owner.digest(), &hosted);
        }
        self.commit_any(batch)?;
        ended.into_iter().for_each(|(other, owner)| self.tell_presence_to(other, owner, false, None));
        Ok(())
    }

    /// Deletes the records of personas whose redirect has expired.
    fn sweep_hosted(&mut self, walk: &mut Walk, now: Now) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (key, value) in walk.step(self, Column::Hosted, now)? {
            let hosted: Hosted = self.store.record(Column::Hosted, &value)?;
            if hosted.departure.is_some() && hosted.redirect_until < now.wall {
                batch.delete(Column::Hosted, &key);
                self.redirects.forget(owner_of(&key), &hosted);
            }
        }
        self.commit_any(batch)
    }

    /// Commits without a ticket to wait for; an empty batch is not written.
    fn commit_any(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() { Ok(()) } else { self.commit(batch).map(drop) }
    }
}

/// The effect of age on a relation: nothing (`None`), another state, or no record.
fn aged(record: &Relation, wall: u64) -> Option<Option<RelationState>> {
    let over = |time: u64| time.saturating_add(CLOCK_SKEW) < wall;
    let remembered =
        record.revocation.is_some() && !over(record.revoked.saturating_add(RelationRequest::LIFE));
    match record.state {
        RelationState::Revoked if remembered => None,
        RelationState::Asked | RelationState::Held if !over(record.expires) => None,
        // An earlier proof may still be valid, so the revocation stays remembered.
        _ => Some(remembered.then_some(RelationState::Revoked)),
    }
}

#[cfg(test)]
mod tests;
