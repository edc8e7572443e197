//! The request box: relation requests that wait for their recipient. Strangers may fill it, so it is small.
//!
//! Here: the box. Not here: the effect of requests ([`super::relations`]).

use super::{Asked, Failure, Home, Reply};
use crate::body::RelationRequest;
use crate::envelope::{Envelope, Verified};
use crate::id::Id;
use crate::limits::MAX_REQUESTS;
use crate::store::{Batch, Column, Request, StoreError};
use crate::wire::Answer;

impl Home {
    pub(super) fn requests(&self, asked: &Asked) -> Result<Reply, Failure> {
        let mut waiting: Vec<_> =
            self.boxed(self.hosted_caller(asked)?)?.into_iter().map(|(_, request)| request).collect();
        waiting.retain(|request| request.expires >= asked.now.wall);
        waiting.sort_unstable_by_key(|request| request.number);
        let envelopes = waiting.iter().map(|request| Envelope::from_bytes(&request.envelope));
        Ok(Answer::Requests(envelopes.collect::<Result<_, _>>()?).into())
    }

    pub(super) fn dismiss(&self, asked: &Asked, sender: Id) -> Result<Reply, Failure> {
        let owner = self.hosted_caller(asked)?;
        let mut batch = Batch::default();
        self.unbox_request(owner, sender, &mut batch, |_| true)?;
        Ok(Reply::done(self.commit(batch)?))
    }

    /// Puts a request into its recipient's box. It keeps the newest one of each sender; if full, the oldest is
    /// dropped. Returns whether the request is new.
    pub(super) fn box_request(
        &self,
        asked: &Asked,
        request: &Verified<RelationRequest>,
        batch: &mut Batch,
    ) -> Result<bool, StoreError> {
        let (recipient, sender) = (request.about(), request.signer());
        let boxed = self.boxed(recipient)?;
        let slot = match boxed.iter().find(|(_, waiting)| waiting.sender == sender) {
            Some((_, old)) if (old.issued, *old.hash) >= (request.issued(), request.hash()) => {
                return Ok(false);
            }
            Some((slot, _)) => *slot,
            None if boxed.len() < MAX_REQUESTS => (0..)
                .find(|slot| boxed.iter().all(|(used, _)| used != slot))
                .expect("fewer are used than there are"),
            None => boxed.iter().min_by_key(|(_, waiting)| waiting.number).map_or(0, |(slot, _)| *slot),
        };
        let record = Request {
            received: asked.now.wall,
            envelope: request.bytes().to_vec().into(),
            number: boxed.iter().map(|(_, waiting)| waiting.number + 1).max().unwrap_or(0),
            hash: request.hash().into(),
            issued: request.issued(),
            expires: request.expires(),
            sender,
        };
        batch.put(Column::Requests, &in_slot(recipient, slot), &record);
        Ok(true)
    }

    /// Removes a sender's request from a box if `meant` applies to it; returns what was removed.
    pub(super) fn unbox_request(
        &self,
        recipient: Id,
        sender: Id,
        batch: &mut Batch,
        meant: impl Fn(&Request) -> bool,
    ) -> Result<Option<Request>, StoreError> {
        // There is at most one per sender.
        let mut boxed = self.boxed(recipient)?.into_iter();
        let found = boxed.find(|(_, request)| request.sender == sender && meant(request));
        Ok(found.map(|(slot, request)| {
            batch.delete(Column::Requests, &in_slot(recipient, slot));
            request
        }))
    }

    /// The requests in a box, with their slots.
    fn boxed(&self, recipient: Id) -> Result<Vec<(u8, Request)>, StoreError> {
        let rows = self.store.rows(Column::Requests, *recipient.digest(), b"");
        rows.map(|row| {
            let (key, value) = row?;
            Ok((key[32], self.store.record(Column::Requests, &value)?))
        })
        .collect()
    }
}

/// The key of a slot. Slots are reused: a flood must not leave a trail of deleted keys that every reader of the box
/// would have to skip.
fn in_slot(recipient: Id, slot: u8) -> [u8; 33] {
    let mut key = [slot; 33];
    key[..32].copy_from_slice(recipient.digest());
    key
}
