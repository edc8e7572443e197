//! Relations: one persona asks, the other accepts, both hold the proof; either can revoke it.
//!
//! Here: what each envelope changes in the record of those of the two that are hosted here. Not here: the request
//! box ([`super::requests`]), mail. Rules: no request issued up to the newest revocation between the two ever holds
//! again; of two proofs the later one wins, so that homes that received them in different order agree. Path:
//! verified → [`Home::change`] → one batch.

use minicbor::bytes::ByteVec;

use super::{Asked, Failure, Home, Reply, nonce, refuse};
use crate::body::{RelationAcceptance, RelationRequest, RelationRevocation};
use crate::envelope::{Bytes32, Envelope, EnvelopeError, Verified};
use crate::id::Id;
use crate::limits::{MAX_FETCH, MAX_FETCH_BYTES, MAX_RELATIONS, MAX_REVOKED};
use crate::store::{
    Batch, Column, Hosted, ItemKind, Relation, RelationState, Request as Boxed, StoreError, Ticket, behind,
    pair,
};
use crate::wire::{self, Answer, Code, Event, Refusal};

/// What was changed in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Its owner is not hosted here.
    NotHere,
    /// Nothing had to change.
    Same,
    /// It changed from the first state to the second.
    Changed(Option<RelationState>, RelationState),
}

impl Home {
    pub(super) fn relate(&mut self, asked: &Asked, request: &Envelope) -> Result<Reply, Failure> {
        let request = self.verify_request(asked, request)?;
        let (requester, recipient) = (request.signer(), request.about());
        self.check_not_banned(requester)?;
        let mut batch = Batch::default();
        // The request counts as asked only if it comes from the requester's own device: a copy in other hands has
        // no effect.
        if self.hosted_caller(asked).is_ok_and(|caller| caller == requester) {
            self.change(requester, recipient, &mut batch, |old, forgotten| ask(old, forgotten, &request))?;
        }
        let news = match self.recipient(recipient)? {
            Some(hosted) if self.is_open(&hosted, &request)? => {
                self.box_request(asked, &request, &mut batch)?
            }
            _ => false,
        };
        // Commits even an empty batch, so that a stranger always waits equally long.
        let ticket = self.commit(batch)?;
        if news {
            self.tell_all(recipient, &Event::Request(requester), Some(ticket));
        }
        Ok(Reply::done(ticket))
    }

    pub(super) fn relate_both(
        &mut self,
        asked: &Asked,
        request: &Envelope,
        acceptance: &Envelope,
    ) -> Result<Reply, Failure> {
        let request = self.verify_request(asked, request)?;
        let (requester, accepter) = (request.signer(), request.about());
        let acceptance =
            self.verify::<RelationAcceptance>(asked, acceptance, Some(requester), Some(accepter))?;
        if nonce(&acceptance)? != nonce(&request)? || *acceptance.body().request != request.hash() {
            return refuse(Code::Envelope, "the acceptance is of another request");
        }
        let one_of_them = self.caller(asked).is_ok_and(|caller| [requester, accepter].contains(&caller));
        match self.hold(asked, &request, &acceptance) {
            // Anyone may send a proof, but only the two are told the outcome.
            Err(Failure::Refused(_)) if !one_of_them => Ok(Reply::done(self.commit(Batch::default())?)),
            other => other,
        }
    }

    fn hold(
        &mut self,
        asked: &Asked,
        request: &Verified<RelationRequest>,
        acceptance: &Verified<RelationAcceptance>,
    ) -> Result<Reply, Failure> {
        let (requester, accepter) = (request.signer(), request.about());
        let mut batch = Batch::default();
        let mut change = |owner, other| {
            self.change(owner, other, &mut batch, |old, forgotten| hold(old, forgotten, request, acceptance))
        };
        let (asked_here, accepted_here) = (change(requester, accepter)?, change(accepter, requester)?);
        if (asked_here, accepted_here) == (Outcome::NotHere, Outcome::NotHere) {
            return Err(Refusal::not_for_you().into());
        }
        self.unbox_request(accepter, requester, &mut batch, |waiting| waiting.issued <= request.issued())?;
        let expected = asked_here == Outcome::Changed(Some(RelationState::Asked), RelationState::Held);
        let number = match expected && !self.is_by(asked, requester) {
            true => self.deliver_if_room(asked, ItemKind::Accepted, acceptance, &mut batch)?,
            false => None,
        };
        let ticket = self.commit_and_tell(requester, number, batch)?;
        self.tell_outcome(requester, accepter, asked_here, ticket);
        self.tell_outcome(accepter, requester, accepted_here, ticket);
        Ok(Reply::done(ticket))
    }

    pub(super) fn revoke(&mut self, asked: &Asked, revocation: &Envelope) -> Result<Reply, Failure> {
        let revocation = self.verify::<RelationRevocation>(asked, revocation, None, None)?;
        let (revoker, other) = (revocation.signer(), revocation.about());
        check_two(revoker, other)?;
        let nonce = nonce(&revocation)?;
        let mut batch = Batch::default();
        let (own, others) = (
            self.end(asked, revoker, other, &revocation, &nonce, &mut batch)?,
            self.end(asked, other, revoker, &revocation, &nonce, &mut batch)?,
        );
        // A request that only waited in the box was never answered, so its revocation is no news.
        let news = matches!(others, Outcome::Changed(Some(from), to) if from != to);
        let number = match news && !self.is_by(asked, other) {
            true => self.deliver_if_room(asked, ItemKind::Revoked, &revocation, &mut batch)?,
            false => None,
        };
        let ticket = self.commit_and_tell(other, number, batch)?;
        self.tell_outcome(revoker, other, own, ticket);
        self.tell_outcome(other, revoker, others, ticket);
        Ok(Reply::done(ticket))
    }

    /// Tells `other` that the owner is online when their relation begins to hold, and offline when it ends.
    fn tell_outcome(&mut self, owner: Id, other: Id, outcome: Outcome, ticket: Ticket) {
        let Outcome::Changed(from, to) = outcome else { return };
        let (held, holds) = (from == Some(RelationState::Held), to == RelationState::Held);
        if held != holds {
            self.tell_presence_to(other, owner, holds, Some(ticket));
        }
    }

    /// Applies a revocation to one side's record, if that side is hosted here.
    ///
    /// It may arrive before its request. It is then remembered if it is the owner's own, comes from the owner's
    /// session, or ends a request waiting for the owner. Revocations by strangers that never asked are not
    /// remembered.
    fn end(
        &self,
        asked: &Asked,
        owner: Id,
        other: Id,
        revocation: &Verified<RelationRevocation>,
        nonce: &Bytes32,
        batch: &mut Batch,
    ) -> Result<Outcome, Failure> {
        let waiting = self.unbox_request(owner, other, batch, |waiting| {
            waiting.issued <= revocation.issued() || *waiting.hash == *revocation.body().request
        })?;
        let own = revocation.signer() == owner || self.is_by(asked, owner);
        self.change(owner, other, batch, |old, forgotten| match old {
            Some(old) => take_back(old, waiting.as_ref(), own, revocation, nonce),
            None => take_back_unseen(other, forgotten, waiting.as_ref(), own, revocation, nonce),
        })
    }

    pub(super) fn relations(&self, asked: &Asked, after: Option<Id>) -> Result<Reply, Failure> {
        let owner = self.hosted_caller(asked)?;
        let from = after.map_or_else(Vec::new, |after| behind(&pair(owner.digest(), after.digest())));
        let (mut relations, mut bytes) = (Vec::new(), 0);
        for row in self.store.rows(Column::Relations, *owner.digest(), &from) {
            let (key, value) = row?;
            let record: Relation = self.store.record(Column::Relations, &value)?;
            if record.request.is_empty() {
                continue;
            }
            bytes += value.len();
            if relations.len() == MAX_FETCH || (bytes > MAX_FETCH_BYTES && !relations.is_empty()) {
                return Ok(Answer::Relations(relations, true).into());
            }
            let envelope = |bytes: &ByteVec| Envelope::from_bytes(bytes);
            // The revocation of an earlier relation does not concern one that holds.
            let revocation = record.revocation.as_ref().filter(|_| record.state == RelationState::Revoked);
            relations.push(wire::Relation {
                other: other_of(&key),
                request: envelope(&record.request)?,
                acceptance: record.acceptance.as_ref().map(envelope).transpose()?,
                revocation: revocation.map(envelope).transpose()?,
            });
        }
        Ok(Answer::Relations(relations, false).into())
    }

    fn verify_request(
        &self,
        asked: &Asked,
        request: &Envelope,
    ) -> Result<Verified<RelationRequest>, Failure> {
        let request = self.verify::<RelationRequest>(asked, request, None, None)?;
        nonce(&request)?;
        check_two(request.signer(), request.about())?;
        Ok(request)
    }

    /// Whether a request can still be accepted by its recipient, and was not yet.
    fn is_open(&self, hosted: &Hosted, request: &Verified<RelationRequest>) -> Result<bool, StoreError> {
        let key = pair(request.about().digest(), request.signer().digest());
        let record: Option<Relation> = self.store.get(Column::Relations, &key)?;
        Ok(match record {
            Some(held) if held.state == RelationState::Held => {
                (held.issued, *held.request_hash) < (request.issued(), request.hash())
            }
            Some(other) => !other.has_ended(&request.hash(), request.issued()),
            None => hosted.forgotten < request.issued(),
        })
    }

    /// Whether a request comes from a device of this persona, which then needs no mail about it.
    fn is_by(&self, asked: &Asked, persona: Id) -> bool {
        self.caller(asked).is_ok_and(|caller| caller == persona)
    }

    fn commit_and_tell(
        &mut self,
        recipient: Id,
        number: Option<u64>,
        batch: Batch,
    ) -> Result<Ticket, StoreError> {
        let ticket = self.commit(batch)?;
        if let Some(number) = number {
            self.counters.mail_stored += 1;
            self.tell_all(recipient, &Event::Mail(number), Some(ticket));
        }
        Ok(ticket)
    }

    /// Changes an owner's relation if the owner is hosted here, and updates the counts. `change` gets the record
    /// and the time up to which revocations are remembered without one.
    fn change(
        &self,
        owner: Id,
        other: Id,
        batch: &mut Batch,
        change: impl FnOnce(Option<&Relation>, u64) -> Result<Option<Relation>, Refusal>,
    ) -> Result<Outcome, Failure> {
        let Some(mut hosted) = self.hosted_record(owner)? else { return Ok(Outcome::NotHere) };
        let key = pair(owner.digest(), other.digest());
        let old: Option<Relation> = self.store.get(Column::Relations, &key)?;
        let Some(new) = change(old.as_ref(), hosted.forgotten)? else { return Ok(Outcome::Same) };
        let (from, to) = (old.map(|old| old.state), new.state);
        let before = (hosted.relations, hosted.revoked);
        count(&mut hosted, from, Some(to));
        if hosted.relations > before.0 && hosted.relations > MAX_RELATIONS as u64 {
            return refuse(Code::Full, format!("{MAX_RELATIONS} relations, and there may be no more"));
        }
        if hosted.revoked > before.1 && hosted.revoked > MAX_REVOKED as u64 {
            // Strangers can withdraw any number of requests: that must not displace anything, nor make the home
            // search.
            if new.withdrawn {
                return Ok(Outcome::Same);
            }
            self.forget_revoked(owner, &mut hosted, batch)?;
        }
        if (hosted.relations, hosted.revoked) != before {
            batch.put(Column::Hosted, owner.digest(), &hosted);
        }
        batch.put(Column::Relations, &key, &new);
        Ok(Outcome::Changed(from, to))
    }

    /// Drops the oldest quarter of an owner's revoked relations, which are remembered only by their time from then
    /// on. Withdrawn requests of strangers are dropped first and leave nothing, since only the owner could still
    /// accept them.
    fn forget_revoked(&self, owner: Id, hosted: &mut Hosted, batch: &mut Batch) -> Result<(), StoreError> {
        let mut revoked = Vec::new();
        for row in self.store.rows(Column::Relations, *owner.digest(), b"") {
            let (key, value) = row?;
            let record: Relation = self.store.record(Column::Relations, &value)?;
            if record.state == RelationState::Revoked {
                revoked.push((!record.withdrawn, record.revoked, key));
            }
        }
        revoked.sort_unstable();
        for (was_one, time, key) in revoked.into_iter().take(MAX_REVOKED / 4) {
            batch.delete(Column::Relations, &key);
            if was_one {
                hosted.forgotten = hosted.forgotten.max(time);
            }
            hosted.revoked = hosted.revoked.saturating_sub(1);
        }
        Ok(())
    }
}

/// The other persona in a relation's key.
pub(super) fn other_of(key: &[u8]) -> Id {
    let mut digest = [0; 32];
    digest.copy_from_slice(&key[32..64]);
    Id::from_digest(digest)
}

/// Updates an owner's counts when a relation changes state; `None` is no record.
pub(super) fn count(hosted: &mut Hosted, from: Option<RelationState>, to: Option<RelationState>) {
    let counted = |state| match state {
        None => (0, 0),
        Some(RelationState::Asked | RelationState::Held) => (1, 0),
        Some(RelationState::Revoked) => (0, 1),
    };
    let ((held, revoked), (holds, is_revoked)) = (counted(from), counted(to));
    hosted.relations = (hosted.relations + holds).saturating_sub(held);
    hosted.revoked = (hosted.revoked + is_revoked).saturating_sub(revoked);
}

fn check_two(one: Id, other: Id) -> Result<(), Failure> {
    if one == other { refuse(Code::Malformed, "a relation to oneself") } else { Ok(()) }
}

fn superseded() -> Refusal {
    Refusal::new(Code::Superseded, "this was taken back, or is older than what was")
}

/// The record that a request creates.
fn asked_for(
    old: Option<&Relation>,
    forgotten: u64,
    request: &Verified<RelationRequest>,
) -> Result<Relation, Refusal> {
    let revoked = old.map_or(forgotten, |old| old.revoked);
    let ended = old.is_some_and(|old| old.has_ended(&request.hash(), request.issued()));
    if ended || request.issued() <= revoked {
        return Err(superseded());
    }
    let crate::envelope::Order::Nonce(nonce) = request.order() else {
        return Err(Refusal::new(Code::Envelope, EnvelopeError::Malformed.to_string()));
    };
    Ok(Relation {
        state: RelationState::Asked,
        request_hash: request.hash().into(),
        nonce: nonce.into(),
        requester: request.signer(),
        request: request.bytes().to_vec().into(),
        acceptance: None,
        revoked,
        issued: request.issued(),
        expires: request.expires(),
        revocation: old.and_then(|old| old.revocation.clone()),
        named: old.and_then(|old| old.named),
        withdrawn: false,
    })
}

/// The owner asks.
fn ask(
    old: Option<&Relation>,
    forgotten: u64,
    request: &Verified<RelationRequest>,
) -> Result<Option<Relation>, Refusal> {
    let new = asked_for(old, forgotten, request)?;
    Ok(match old {
        Some(old) if old.state == RelationState::Held => None,
        Some(old) if old.state == RelationState::Asked && !is_later(&new, old) => None,
        _ => Some(new),
    })
}

/// There is a proof of the relation.
fn hold(
    old: Option<&Relation>,
    forgotten: u64,
    request: &Verified<RelationRequest>,
    acceptance: &Verified<RelationAcceptance>,
) -> Result<Option<Relation>, Refusal> {
    let new = asked_for(old, forgotten, request)?;
    if old.is_some_and(|old| old.state == RelationState::Held && !is_later(&new, old)) {
        return Ok(None);
    }
    Ok(Some(Relation {
        state: RelationState::Held,
        acceptance: Some(acceptance.bytes().to_vec().into()),
        expires: new.expires.min(acceptance.expires()),
        ..new
    }))
}

/// One of the two revokes the named request, and all that were issued before. `waiting` is the request that this
/// removed from the box; `own` is whether it is the owner's own doing.
fn take_back(
    old: &Relation,
    waiting: Option<&Boxed>,
    own: bool,
    revocation: &Verified<RelationRevocation>,
    nonce: &Bytes32,
) -> Result<Option<Relation>, Refusal> {
    let request = revocation.body().request;
    let named = old.request_hash == request;
    if named && !old.request.is_empty() && *old.nonce != *nonce {
        return Err(Refusal::new(Code::Envelope, "the nonce is not that of the request"));
    }
    // A slow clock does not keep a revocation from ending the request it names.
    let time = ended_at(revocation, waiting).max(if named { old.issued } else { 0 });
    if time <= old.revoked {
        return Ok(None);
    }
    let state = if old.issued <= time { RelationState::Revoked } else { old.state };
    let revocation = Some(revocation.bytes().to_vec().into());
    let withdrawn = old.withdrawn && !own;
    let known = named && !old.request.is_empty() || waiting.is_some_and(|waiting| waiting.hash == request);
    let by_name = old.named.is_some_and(|before| old.request.is_empty() || before != old.request_hash);
    let named = match old.named {
        // The time covers it.
        before if known => before,
        // Otherwise the other persona could displace what the owner has revoked.
        before if by_name && !own => before,
        _ => Some(request),
    };
    Ok(Some(Relation { state, revoked: time, revocation, named, withdrawn, ..old.clone() }))
}

/// Like [`take_back`], without a record. One is created if the other is known to have asked, or if it is the
/// owner's own doing.
fn take_back_unseen(
    other: Id,
    forgotten: u64,
    waiting: Option<&Boxed>,
    own: bool,
    revocation: &Verified<RelationRevocation>,
    nonce: &Bytes32,
) -> Result<Option<Relation>, Refusal> {
    let time = ended_at(revocation, waiting);
    if (waiting.is_none() && !own) || time <= forgotten {
        return Ok(None);
    }
    let request = revocation.body().request;
    Ok(Some(Relation {
        state: RelationState::Revoked,
        request_hash: request,
        nonce: (*nonce).into(),
        requester: other,
        request: Vec::new().into(),
        acceptance: None,
        revoked: time,
        issued: 0,
        expires: 0,
        revocation: Some(revocation.bytes().to_vec().into()),
        named: Some(request),
        withdrawn: !own,
    }))
}

/// The time up to which a revocation applies, in seconds since 1970.
fn ended_at(revocation: &Verified<RelationRevocation>, waiting: Option<&Boxed>) -> u64 {
    let named = waiting.filter(|waiting| waiting.hash == revocation.body().request);
    revocation.issued().max(named.map_or(0, |waiting| waiting.issued))
}

/// Whether the new request is later, and so wins; the hash decides if the times are equal.
fn is_later(new: &Relation, old: &Relation) -> bool {
    (new.issued, *new.request_hash) > (old.issued, *old.request_hash)
}

#[cfg(test)]
mod tests;
