//! Messages: sent to wherever their recipient is, and taken from one's own home.

use super::blobs::Payload;
use super::device::Device;
use super::error::ClientError;
use super::seal::{Attachment, Binding, Letter, open_attachment, seal, seal_attachment};
use crate::body::Message;
use crate::envelope::{Bytes32, Envelope, Kind, Order};
use crate::id::Id;
use crate::limits::{MAIL_TIME, MAX_FETCH};
use crate::wire::{Answer, Mail, Request};

/// Something that came with the mail.
#[derive(Debug)]
pub enum Received {
    /// A message of a related person.
    Letter {
        /// Of whom.
        from: Id,
        /// When it was signed, in seconds since 1970.
        sent: u64,
        /// What it says.
        letter: Letter,
    },
    /// Somebody accepted a request of ours.
    Accepted(Id),
    /// Somebody took a relation back.
    Revoked(Id),
    /// Something that is not to be believed, and why: it was thrown away.
    Refused(String),
}

/// The hash of something that came, and until when it could come again, in seconds since 1970.
type Mark = (Bytes32, u64);

/// Mail, in the order in which it came.
#[derive(Debug, Default)]
pub struct Page {
    /// What came.
    pub items: Vec<Received>,
    /// Whether there is more.
    pub more: bool,
    /// Number of the last one.
    last: u64,
    /// What is marked as taken when this page is acknowledged.
    marks: Vec<Mark>,
}

impl Device {
    /// Sends a message to a related person.
    ///
    /// # Errors
    /// There is no relation, the recipient is nowhere, or its home refuses.
    pub async fn send(&self, to: Id, letter: &Letter) -> Result<(), ClientError> {
        if !self.folder().state()?.holds(to) {
            return Err(ClientError::Wrong(format!("no relation to {to} that holds")));
        }
        let (home, profile) = self.locate(to).await?;
        if profile.body().tombstone {
            return Err(ClientError::Wrong(format!("{to} has taken its profile back")));
        }
        let nonce = super::seal::random()?;
        let binding = Binding { sender: self.id(), recipient: to, nonce };
        let message = seal(&profile.body().encryption_key, &binding, letter)?;
        let envelope = self.sign(to, Order::Nonce(nonce), &message);
        match self.ask(&home, Request::Put(envelope)).await? {
            Answer::Done => Ok(()),
            _ => Err(ClientError::unasked()),
        }
    }

    /// Seals a file and uploads it to one's own home, to be sent with a letter.
    ///
    /// # Errors
    /// It is empty or too large, or the home is not reached or refuses.
    pub async fn attach(&self, name: &str, plain: &[u8]) -> Result<Attachment, ClientError> {
        let (sealed, key) = seal_attachment(plain)?;
        let blob = self.upload(&sealed).await?;
        let home = self.folder().state()?.home;
        let home = home.ok_or_else(|| ClientError::Wrong("no home yet".to_owned()))?;
        Ok(Attachment { name: name.to_owned(), blob, owner: self.id(), home, key: key.into() })
    }

    /// Gets an attachment and opens it.
    ///
    /// # Errors
    /// It is not reached, its owner's home does not give it, or it is not what was sealed.
    pub async fn attachment(&self, attachment: &Attachment) -> Result<Payload, ClientError> {
        // Where it lay when it was sent; if the owner has moved since, wherever the owner is now.
        let home = super::place::Home::from_told(&attachment.home);
        let first = match home {
            Ok(home) => self.download(attachment.owner, &attachment.blob, &home).await,
            Err(error) => Err(error),
        };
        let sealed = match first {
            Ok(sealed) => sealed,
            Err(error) => match self.locate(attachment.owner).await {
                Ok((home, _)) if home.id != attachment.home.home => {
                    self.download(attachment.owner, &attachment.blob, &home).await?
                }
                _ => return Err(error),
            },
        };
        Ok(open_attachment(&sealed, &attachment.key)?)
    }

    /// Mail that waits at one's own home: one page. Nothing of it is gone before it is acknowledged.
    ///
    /// # Errors
    /// The home is not reached, refuses, or is not to be believed.
    pub async fn fetch(&self) -> Result<Page, ClientError> {
        let home = self.own_home()?;
        // From the beginning: what was acknowledged is gone there, and what came before is known by its hash.
        let Answer::Mail(items, more) = self.ask_as_me(&home, Request::Fetch(0)).await? else {
            return Err(ClientError::unasked());
        };
        let upward = items.iter().try_fold(0, |last, item| (item.number > last).then_some(item.number));
        let Some(last) = upward.filter(|_| items.len() <= MAX_FETCH) else {
            return Err(ClientError::Lie("its mail is in no order, or more than a page".to_owned()));
        };
        let mut page = Page { more: more && !items.is_empty(), last, ..Page::default() };
        // What was just accepted may not be known here, where another device did it.
        let strangers = self.strangers(&items)?;
        if strangers {
            self.relations().await?;
        }
        for item in items {
            match self.take(&item, &mut page.marks) {
                Ok(Some(received)) => page.items.push(received),
                Ok(None) => {}
                Err(ClientError::Folder(error)) => return Err(error.into()),
                Err(error) => page.items.push(Received::Refused(error.to_string())),
            }
        }
        Ok(page)
    }

    fn strangers(&self, items: &[Mail]) -> Result<bool, ClientError> {
        let state = self.folder().state()?;
        let now = super::device::now();
        let signer = |item: &Mail| {
            self.verify_at::<Message>("a message", &item.envelope, Some(self.id()), None, now)
                .ok()
                .map(|message| message.signer())
        };
        Ok(items.iter().filter_map(signer).any(|from| !state.holds(from)))
    }

    /// What an item is, and its mark; `None` if it was taken before.
    fn take(&self, item: &Mail, marks: &mut Vec<Mark>) -> Result<Option<Received>, ClientError> {
        let now = super::device::now();
        let (received, hash, expires) = match item.envelope.kind() {
            Kind::RelationAcceptance => {
                let (from, hash) = self.take_acceptance(&item.envelope)?;
                (Received::Accepted(from), hash, now.saturating_add(2 * MAIL_TIME))
            }
            Kind::RelationRevocation => {
                let (from, hash) = self.take_revocation(&item.envelope)?;
                (Received::Revoked(from), hash, now.saturating_add(2 * MAIL_TIME))
            }
            Kind::Message => return self.take_message(&item.envelope, now, marks),
            other => return Err(ClientError::Lie(format!("mail of kind {other:?}"))),
        };
        Ok(self.mark(hash, expires, marks)?.then_some(received))
    }

    /// Marks mail; whether it was not before.
    fn mark(&self, hash: Bytes32, expires: u64, marks: &mut Vec<Mark>) -> Result<bool, ClientError> {
        let state = self.folder().state()?;
        let known = state.taken.iter().any(|(one, _)| **one == hash);
        if known || marks.iter().any(|(one, _)| *one == hash) {
            return Ok(false);
        }
        marks.push((hash, expires));
        Ok(true)
    }

    fn take_message(
        &self,
        envelope: &Envelope,
        now: u64,
        marks: &mut Vec<Mark>,
    ) -> Result<Option<Received>, ClientError> {
        let message = self.verify_at::<Message>("a message", envelope, Some(self.id()), None, now)?;
        let (from, hash) = (message.signer(), message.hash());
        if !self.folder().state()?.holds(from) {
            return Err(ClientError::Lie(format!("a message of {from}, to whom no relation holds")));
        }
        if !self.mark(hash, message.expires(), marks)? {
            return Ok(None);
        }
        let Order::Nonce(nonce) = message.order() else {
            return Err(ClientError::Lie("a message without a nonce".to_owned()));
        };
        let binding = Binding { sender: from, recipient: self.id(), nonce };
        let letter = self.0.sealing.open(&binding, message.body())?;
        Ok(Some(Received::Letter { from, sent: message.issued(), letter }))
    }

    /// Tells the home that a page is safe here: it throws it away.
    ///
    /// # Errors
    /// The home is not reached or refuses, or the folder cannot be written.
    pub async fn acknowledge(&self, page: &Page) -> Result<(), ClientError> {
        if page.last == 0 {
            return Ok(());
        }
        let now = super::device::now();
        self.folder().update(|state| {
            for (hash, expires) in &page.marks {
                state.take(*hash, *expires, now);
            }
        })?;
        self.ask_done(&self.own_home()?, Request::Acknowledge(page.last)).await
    }
}
