//! The request box: requests to relate that wait for their recipient. Strangers may fill it, so it is small.
//!
//! Here: the box. Not here: what becomes of a request ([`super::relations`]).

use super::{Asked, Failure, Home, Reply};
use crate::body::RelationRequest;
use crate::envelope::{Envelope, Verified};
use crate::id::Id;
use crate::limits::MAX_REQUESTS;
use crate::store::{Batch, Column, Request, StoreError, pair};
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
        batch.delete(Column::Requests, &pair(owner.digest(), sender.digest()));
        Ok(Reply::done(self.commit(batch)?))
    }

    /// Puts a request into its recipient's box: one of each sender, the newest; the oldest gives way. Whether it is
    /// news.
    pub(super) fn box_request(
        &self,
        asked: &Asked,
        request: &Verified<RelationRequest>,
        batch: &mut Batch,
    ) -> Result<bool, StoreError> {
        let (recipient, sender) = (request.about(), request.signer());
        let boxed = self.boxed(recipient)?;
        let key = |sender: &Id| pair(recipient.digest(), sender.digest());
        let place = (request.issued(), request.hash());
        match boxed.iter().find(|(other, _)| *other == sender) {
            Some((_, old)) if (old.issued, *old.hash) >= place => return Ok(false),
            Some(_) => {}
            None if boxed.len() >= MAX_REQUESTS => {
                let oldest = boxed.iter().min_by_key(|(_, waiting)| waiting.number);
                oldest.inspect(|(other, _)| batch.delete(Column::Requests, &key(other)));
            }
            None => {}
        }
        let record = Request {
            received: asked.now.wall,
            envelope: request.bytes().to_vec().into(),
            number: boxed.iter().map(|(_, waiting)| waiting.number + 1).max().unwrap_or(0),
            hash: request.hash().into(),
            issued: request.issued(),
            expires: request.expires(),
        };
        batch.put(Column::Requests, &key(&sender), &record);
        Ok(true)
    }

    /// Removes a sender's request from a box if it was made up to a time, or has a hash.
    pub(super) fn unbox_request(
        &self,
        recipient: Id,
        sender: Id,
        upto: u64,
        hash: &[u8],
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let key = pair(recipient.digest(), sender.digest());
        let waiting: Option<Request> = self.store.get(Column::Requests, &key)?;
        if waiting.is_some_and(|waiting| waiting.issued <= upto || waiting.hash[..] == *hash) {
            batch.delete(Column::Requests, &key);
        }
        Ok(())
    }

    /// Who waits in a box, and with what.
    fn boxed(&self, recipient: Id) -> Result<Vec<(Id, Request)>, StoreError> {
        let prefix = *recipient.digest();
        let rows = self.store.rows(Column::Requests, prefix, b"");
        rows.map(|row| {
            let (key, value) = row?;
            let mut sender = [0; 32];
            sender.copy_from_slice(&key[32..64]);
            Ok((Id::from_digest(sender), self.store.record(Column::Requests, &value)?))
        })
        .collect()
    }
}
