//! Mail: items that wait for a recipient until they are fetched and acknowledged.
//!
//! Here: put, fetch, acknowledge, and the counts for the limits. Not here: relations, and the content of messages,
//! which is sealed. Path: a related person's message → stored under the next number, with its hash so that it is
//! never delivered twice → fetched any number of times → acknowledged and deleted, or expired ([`super::sweep`]).

use std::collections::HashMap;

use super::{Asked, Failure, Home, Reply, nonce, refuse};
use crate::body::Message;
use crate::envelope::{Envelope, Verified};
use crate::id::Id;
use crate::limits::{
    ITEM_OVERHEAD, MAIL_TIME, MAX_FETCH, MAX_FETCH_BYTES, MAX_MAIL_COUNT, MAX_MAIL_OF_SENDER, MAX_MAILBOX,
    MAX_SEEN, MAX_SEEN_OF_SENDER,
};
use crate::store::{
    Batch, Column, Hosted, Item, ItemKind, Mailbox, Seen, Sender, StoreError, numbered, pair,
};
use crate::wire::{Answer, Code, Event, Mail, Refusal};

/// The bytes that an item counts towards the limits.
pub(super) fn size(envelope: &[u8]) -> u64 {
    envelope.len() as u64 + ITEM_OVERHEAD
}

impl Home {
    pub(super) fn put(&mut self, asked: &Asked, envelope: &Envelope) -> Result<Reply, Failure> {
        // Verified before any lookup: otherwise the answer to a forgery would reveal who is related.
        let message = self.verify::<Message>(asked, envelope, None, None)?;
        nonce(&message)?;
        let (sender, recipient) = (message.signer(), message.about());
        self.check_not_banned(sender)?;
        if self.recipient(recipient)?.is_none() || !self.related(recipient, sender)? {
            return Err(Refusal::not_for_you().into());
        }
        let mut batch = Batch::default();
        let hash = pair(recipient.digest(), &message.hash());
        if self.store.bytes(Column::Seen, &hash)?.is_some() {
            // The first copy may not be on disk yet.
            return Ok(Reply::done(self.store.so_far()));
        }
        batch.put(Column::Seen, &hash, &Seen { expires: message.expires(), sender });
        let number = self.deliver(asked, ItemKind::Message, &message, &mut batch)?;
        let ticket = self.commit(batch)?;
        self.counters.mail_stored += 1;
        self.tell_all(recipient, &Event::Mail(number), Some(ticket));
        Ok(Reply::done(ticket))
    }

    /// The record of a persona that may receive things: hosted here, and not banned.
    pub(super) fn recipient(&self, persona: Id) -> Result<Option<Hosted>, StoreError> {
        if self.is_banned(persona)? { Ok(None) } else { self.hosted_record(persona) }
    }

    /// Puts an envelope into the mail of the person that it is about; returns its number.
    pub(super) fn deliver<B>(
        &self,
        asked: &Asked,
        kind: ItemKind,
        envelope: &Verified<B>,
        batch: &mut Batch,
    ) -> Result<u64, Failure> {
        let (recipient, sender) = (envelope.about(), envelope.signer());
        let mut mailbox = self.mailbox(recipient)?;
        let mut of_sender = self.sender(recipient, sender)?;
        let size = size(envelope.bytes());
        mailbox.count += 1;
        mailbox.bytes += size;
        of_sender.bytes += size;
        if kind == ItemKind::Message {
            mailbox.seen += 1;
            of_sender.seen += 1;
        }
        check_limits(&mailbox, &of_sender)?;
        let received = asked.now.wall;
        let expires = match kind {
            // A message that can no longer be verified is useless to its recipient.
            ItemKind::Message => envelope.expires().min(received.saturating_add(MAIL_TIME)),
            ItemKind::Accepted | ItemKind::Revoked => received.saturating_add(MAIL_TIME),
        };
        mailbox.oldest_expires =
            if mailbox.count == 1 { expires } else { mailbox.oldest_expires.min(expires) };
        let number = mailbox.next;
        mailbox.next += 1;
        let item = Item { kind, sender, received, expires, envelope: envelope.bytes().to_vec().into() };
        batch.put(Column::Mail, &numbered(recipient, number), &item);
        batch.put(Column::Boxes, recipient.digest(), &mailbox);
        batch.put(Column::Senders, &pair(recipient.digest(), sender.digest()), &of_sender);
        Ok(number)
    }

    /// Like [`Self::deliver`], for something that the recipient can also learn otherwise: `None` if there is no
    /// room.
    pub(super) fn deliver_if_room<B>(
        &self,
        asked: &Asked,
        kind: ItemKind,
        envelope: &Verified<B>,
        batch: &mut Batch,
    ) -> Result<Option<u64>, Failure> {
        match self.deliver(asked, kind, envelope, batch) {
            Ok(number) => Ok(Some(number)),
            Err(Failure::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn fetch(&self, asked: &Asked, after: u64) -> Result<Reply, Failure> {
        let (mail, more) = self.mail_after(self.hosted_caller(asked)?, after, asked.now.wall)?;
        // Only once all of it is on disk: after a power failure, another item could get the number of a lost one.
        Ok(Reply::Now(Answer::Mail(mail, more), Some(self.store.so_far())))
    }

    /// A page of a mailbox, and whether there is more.
    pub(super) fn mail_after(&self, owner: Id, after: u64, wall: u64) -> Result<(Vec<Mail>, bool), Failure> {
        let (mut mail, mut bytes) = (Vec::new(), 0);
        let after = self.mailbox(owner)?.acknowledged.max(after);
        let Some(first) = after.checked_add(1) else { return Ok((mail, false)) };
        for item in self.items(owner, first) {
            let (number, item) = item?;
            if item.expires < wall {
                continue;
            }
            bytes += item.envelope.len();
            if mail.len() == MAX_FETCH || (bytes > MAX_FETCH_BYTES && !mail.is_empty()) {
                return Ok((mail, true));
            }
            let envelope = Envelope::from_bytes(&item.envelope)?;
            mail.push(Mail { number, received: item.received, envelope });
        }
        Ok((mail, false))
    }

    pub(super) fn acknowledge(&mut self, asked: &Asked, upto: u64) -> Result<Reply, Failure> {
        let owner = self.hosted_caller(asked)?;
        let mut mailbox = self.mailbox(owner)?;
        // Items that have not arrived yet are not acknowledged.
        let upto = upto.min(mailbox.next - 1);
        if upto <= mailbox.acknowledged {
            return Ok(Reply::done(self.store.so_far()));
        }
        let (mut batch, mut removed) = (Batch::default(), Removed::default());
        for item in self.items(owner, mailbox.acknowledged + 1) {
            let (number, item) = item?;
            if number > upto {
                break;
            }
            removed.item(&mut mailbox, number, &item, owner, &mut batch);
        }
        mailbox.acknowledged = upto;
        batch.put(Column::Boxes, owner.digest(), &mailbox);
        self.reduce_senders(owner, &removed.by_sender, &mut batch)?;
        let ticket = self.commit(batch)?;
        self.counters.mail_delivered += removed.count;
        Ok(Reply::done(ticket))
    }

    /// A recipient's mailbox; empty if nothing ever arrived.
    pub(super) fn mailbox(&self, recipient: Id) -> Result<Mailbox, StoreError> {
        let mailbox: Option<Mailbox> = self.store.get(Column::Boxes, recipient.digest())?;
        Ok(mailbox.unwrap_or(Mailbox { next: 1, ..Mailbox::default() }))
    }

    pub(super) fn sender(&self, recipient: Id, sender: Id) -> Result<Sender, StoreError> {
        let key = pair(recipient.digest(), sender.digest());
        Ok(self.store.get(Column::Senders, &key)?.unwrap_or_default())
    }

    /// A recipient's items in order, from a number on.
    pub(super) fn items(
        &self,
        recipient: Id,
        from: u64,
    ) -> impl Iterator<Item = Result<(u64, Item), StoreError>> + '_ {
        let prefix = *recipient.digest();
        let rows = self.store.rows(Column::Mail, prefix, &numbered(recipient, from));
        rows.map(|row| {
            let (key, value) = row?;
            let mut number = [0; 8];
            number.copy_from_slice(&key[32..40]);
            Ok((u64::from_be_bytes(number), self.store.record(Column::Mail, &value)?))
        })
    }

    /// Subtracts removed items from the senders' totals with a recipient.
    pub(super) fn reduce_senders(
        &self,
        recipient: Id,
        removed: &HashMap<Id, Sender>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        for (&sender, less) in removed {
            let key = pair(recipient.digest(), sender.digest());
            let mut left = self.sender(recipient, sender)?;
            left.bytes = left.bytes.saturating_sub(less.bytes);
            left.seen = left.seen.saturating_sub(less.seen);
            if left == Sender::default() {
                batch.delete(Column::Senders, &key);
            } else {
                batch.put(Column::Senders, &key, &left);
            }
        }
        Ok(())
    }
}

/// Removed items, with totals.
#[derive(Default)]
pub(super) struct Removed {
    pub(super) by_sender: HashMap<Id, Sender>,
    pub(super) count: u64,
}

impl Removed {
    pub(super) fn item(
        &mut self,
        mailbox: &mut Mailbox,
        number: u64,
        item: &Item,
        owner: Id,
        batch: &mut Batch,
    ) {
        let size = size(&item.envelope);
        self.count += 1;
        mailbox.count = mailbox.count.saturating_sub(1);
        mailbox.bytes = mailbox.bytes.saturating_sub(size);
        self.by_sender.entry(item.sender).or_default().bytes += size;
        batch.delete(Column::Mail, &numbered(owner, number));
    }
}

/// Checks that a mailbox and a sender's share of it are within the limits.
fn check_limits(mailbox: &Mailbox, sender: &Sender) -> Result<(), Failure> {
    if sender.bytes > MAX_MAIL_OF_SENDER {
        return refuse(Code::Full, "too much mail of this sender waits there");
    }
    if mailbox.bytes > MAX_MAILBOX || mailbox.count > MAX_MAIL_COUNT {
        return refuse(Code::Full, "the mailbox is full");
    }
    if sender.seen > MAX_SEEN_OF_SENDER || mailbox.seen > MAX_SEEN {
        return refuse(Code::Full, "too many messages in the last days");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
