//! Messages: sent to wherever the recipient is hosted, and fetched from one's own home.

use super::blobs::{Payload, download_time, hash_of};
use super::device::{Device, locked, now};
use super::error::ClientError;
use super::folder::{Sent, State};
use super::people::Change;
use super::place::Home;
use super::seal::{
    ATTACHMENT_OVERHEAD, Attachment, Binding, Letter, check_attachment, open_attachment, seal,
    seal_attachment,
};
use super::state::SENT_TIME;
use super::waiting::Waiting;
use crate::body::{BlobRef, Message};
use crate::envelope::{Bytes32, Envelope, Kind, Order};
use crate::id::Id;
use crate::limits::{CLOCK_SKEW, MAIL_TIME, MAX_FETCH, MAX_MAIL_COUNT};
use crate::wire::{Answer, Code, Mail, Request};

/// A received item of mail.
#[derive(Debug)]
pub enum Received {
    /// A message from a related person.
    Letter {
        /// The sender.
        from: Id,
        /// When it was signed, in seconds since 1970.
        sent: u64,
        /// The content.
        letter: Letter,
    },
    /// Somebody accepted our request.
    Accepted(Id),
    /// Somebody revoked a relation.
    Revoked(Id),
    /// Something invalid was discarded; the text says why.
    Refused(String),
}

/// The hash of a received item, and until when it could come again, in seconds since 1970.
type Mark = (Bytes32, u64);

/// Progress over consecutive pages of a home: the number acknowledged last, and the number of items.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Row {
    of: Option<Id>,
    last: u64,
    count: u64,
}

/// A page of mail, in order of arrival.
#[derive(Debug, Default)]
pub struct Page {
    /// The items.
    pub items: Vec<Received>,
    /// Whether there is more.
    pub more: bool,
    /// The home it came from.
    home: Option<Home>,
    /// Number of the last item, and the count since the first page.
    row: Row,
    /// Marks to set when this page is acknowledged.
    marks: Vec<Mark>,
    /// Changes of relations to apply when this page is acknowledged.
    changes: Vec<Change>,
}

/// The time at which an item is judged: by our own clock, or by the home's if ours is behind it within the
/// permitted skew.
fn judged_at(item: &Mail) -> u64 {
    let now = now();
    now.max(item.received.min(now.saturating_add(2 * CLOCK_SKEW)))
}

/// Why a letter was not sent.
struct Unsent {
    error: ClientError,
    /// Whether the recipient's home may have it all the same.
    perhaps: bool,
}

impl From<ClientError> for Unsent {
    fn from(error: ClientError) -> Self {
        Self { error, perhaps: false }
    }
}

impl Device {
    /// Sends a message to a related person.
    ///
    /// # Errors
    /// There is no relation, the recipient is not found, or its home refuses.
    pub async fn send(&self, to: Id, letter: &Letter) -> Result<(), ClientError> {
        self.put(to, letter).await.map_err(|unsent| unsent.error)
    }

    /// Sends a message with files, each with its name. What can be checked is checked before they are
    /// uploaded; if the recipient's home certainly does not have the message, they are discarded again.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::attach`].
    pub async fn send_files(
        &self,
        to: Id,
        text: String,
        files: &[(String, Payload)],
    ) -> Result<(), ClientError> {
        let mut letter = Letter { text, attachments: Vec::new() };
        if !files.is_empty() {
            self.check_letter(to, &letter.text, files).await?;
        }
        let Err(unsent) = self.attach_and_put(to, &mut letter, files).await else { return Ok(()) };
        if !unsent.perhaps {
            let uploaded: Vec<_> = letter.attachments.iter().map(|one| one.blob.hash).collect();
            self.discard_unsent(&uploaded, &unsent.error).await;
        }
        Err(unsent.error)
    }

    async fn attach_and_put(
        &self,
        to: Id,
        letter: &mut Letter,
        files: &[(String, Payload)],
    ) -> Result<(), Unsent> {
        for (name, bytes) in files {
            letter.attachments.push(self.attach(name, bytes).await?);
        }
        self.put(to, letter).await
    }

    /// Seals a letter as it will be with its attachments, whose hashes and keys do not matter yet.
    async fn check_letter(&self, to: Id, text: &str, files: &[(String, Payload)]) -> Result<(), ClientError> {
        let home = self.own_address()?;
        let mut letter = Letter { text: text.to_owned(), attachments: Vec::new() };
        for (name, bytes) in files {
            check_attachment(bytes)?;
            let size = (bytes.len() + ATTACHMENT_OVERHEAD) as u64;
            letter.attachments.push(Attachment {
                name: name.clone(),
                blob: BlobRef { hash: [0; 32].into(), size },
                owner: self.id(),
                home: home.clone(),
                key: [0; 32].into(),
            });
        }
        self.sealed(to, &letter).await.map(drop)
    }

    /// A letter as it is sent, and the home to which.
    async fn sealed(&self, to: Id, letter: &Letter) -> Result<(Home, Envelope), ClientError> {
        self.check_relation(to)?;
        let (home, profile) = self.locate(to).await?;
        if profile.body().tombstone {
            return Err(ClientError::Wrong(format!("{to} has taken its profile back")));
        }
        let nonce = super::seal::random()?;
        let binding = Binding { sender: self.id(), recipient: to, nonce };
        let message = seal(&profile.body().encryption_key, &binding, letter)?;
        Ok((home, self.sign(to, Order::Nonce(nonce), &message)))
    }

    async fn put(&self, to: Id, letter: &Letter) -> Result<(), Unsent> {
        let (home, envelope) = self.sealed(to, letter).await?;
        self.connect(&home).await?;
        match self.ask(&home, Request::Put(envelope)).await {
            Ok(Answer::Done) => Ok(()),
            Ok(_) => Err(Unsent { error: ClientError::unasked(), perhaps: true }),
            Err(error) => {
                // With a fault of its disk the home may have written it.
                let refused = matches!(&error, ClientError::Refused(refusal) if refusal.code != Code::Fault);
                Err(Unsent { error, perhaps: !refused })
            }
        }
    }

    /// Checks whether a letter may be sent to a persona at all: worth doing before attachments are uploaded for it.
    ///
    /// # Errors
    /// There is no relation that holds, or the folder cannot be read.
    pub fn check_relation(&self, to: Id) -> Result<(), ClientError> {
        if self.folder().state()?.holds(to) {
            return Ok(());
        }
        Err(ClientError::Wrong(format!("no relation to {to} that holds")))
    }

    /// Encrypts a file and uploads it to one's own home, to be sent with a letter.
    ///
    /// # Errors
    /// It is empty or too large, or the home is unreachable or refuses.
    pub async fn attach(&self, name: &str, plain: &[u8]) -> Result<Attachment, ClientError> {
        let (sealed, key) = seal_attachment(plain)?;
        let home = self.own_address()?;
        // Noted first: an uploaded blob that is not noted would stay forever.
        let hash = hash_of(&sealed);
        let sent = Sent { hash, name: name.to_owned(), at: now() };
        self.folder().update(|state| state.send_blob(sent))?;
        let uploaded = match self.upload(&sealed).await {
            // Blobs sent longer ago than mail waits are deleted to make room.
            Err(ClientError::Refused(refusal)) if refusal.code == Code::Full => {
                match self.discard_sent(MAIL_TIME).await {
                    Ok(0) => Err(ClientError::Refused(refusal)),
                    Ok(_) => self.upload(&sealed).await,
                    Err(error) => Err(error),
                }
            }
            result => result,
        };
        let blob = match uploaded {
            Ok(blob) => blob,
            Err(error) => {
                self.discard_unsent(&[hash], &error).await;
                return Err(error);
            }
        };
        Ok(Attachment { name: name.to_owned(), blob, owner: self.id(), home, key: key.into() })
    }

    /// Downloads and decrypts an attachment, with a timeout for slow homes.
    ///
    /// # Errors
    /// It is not found, its owner's home does not provide it in time, or it is not what was encrypted.
    pub async fn attachment(&self, attachment: &Attachment) -> Result<Payload, ClientError> {
        let time = download_time(attachment.blob.size);
        let sealed = tokio::time::timeout(time, self.sealed_attachment(attachment)).await;
        let sealed = sealed.map_err(|_| ClientError::TimedOut("the attachment comes too slowly"))??;
        Ok(open_attachment(&sealed, &attachment.key)?)
    }

    async fn sealed_attachment(&self, attachment: &Attachment) -> Result<Payload, ClientError> {
        // First from where it was when sent; if the owner has moved since, from the owner's current home.
        let first = match Home::from_told(&attachment.home) {
            Ok(home) => self.download(attachment.owner, &attachment.blob, &home).await,
            Err(error) => Err(error),
        };
        let Err(error) = first else { return first };
        match self.locate(attachment.owner).await {
            Ok((home, _)) if home.id != attachment.home.home => {
                self.download(attachment.owner, &attachment.blob, &home).await
            }
            _ => Err(error),
        }
    }

    /// Fetches one page of mail from one's own home. Nothing is deleted before it is acknowledged.
    ///
    /// # Errors
    /// The home is unreachable, refuses, or lies.
    pub async fn fetch(&self) -> Result<Page, ClientError> {
        self.fetch_from(&self.own_home()?).await
    }

    /// Fetches mail from a home that hosts the persona or hosted it before.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn fetch_from(&self, home: &Home) -> Result<Page, ClientError> {
        // From the beginning: acknowledged items are deleted there, and items that were taken are known by their
        // hash.
        let Answer::Mail(items, more) = self.ask_as_me(home, Request::Fetch(0)).await? else {
            return Err(ClientError::unasked());
        };
        let mut before = *locked(&self.0.row);
        if before.of != Some(home.id) {
            before = Row { of: Some(home.id), ..Row::default() };
        }
        let page = self.read_page(home, before, items, more).await;
        if matches!(page, Err(ClientError::Lie(_))) {
            *locked(&self.0.row) = Row::default();
        }
        page
    }

    async fn read_page(
        &self,
        home: &Home,
        before: Row,
        items: Vec<Mail>,
        more: bool,
    ) -> Result<Page, ClientError> {
        // Acknowledged items must not come again; otherwise a home could repeat one page forever.
        let upward =
            items.iter().try_fold(before.last, |last, item| (item.number > last).then_some(item.number));
        let Some(last) = upward.filter(|_| items.len() <= MAX_FETCH) else {
            return Err(ClientError::Lie("its mail is in no order, or more than a page".to_owned()));
        };
        let row = Row { of: before.of, last, count: before.count + items.len() as u64 };
        let more = more && !items.is_empty() && row.count < MAX_MAIL_COUNT;
        let mut page = Page { more, row, home: Some(home.clone()), ..Page::default() };
        // The state as it will be after the earlier items of this page are applied.
        let mut state = self.folder().state()?;
        // A request accepted through another device is not known here yet.
        if self.strangers(&state, &items) {
            self.relations_at(home).await?;
            state = self.folder().state()?;
        }
        for item in items {
            match self.take(&item, &mut state, &mut page) {
                Ok(Some(received)) => page.items.push(received),
                Ok(None) => {}
                Err(ClientError::Folder(error)) => return Err(error.into()),
                Err(error) => page.items.push(Received::Refused(error.to_string())),
            }
        }
        Ok(page)
    }

    /// Whether there is mail that does not fit the folder's state.
    fn strangers(&self, state: &State, items: &[Mail]) -> bool {
        items.iter().any(|item| {
            let (envelope, at) = (&item.envelope, judged_at(item));
            match envelope.kind() {
                Kind::Message => self
                    .verify_at::<Message>("a message", envelope, Some(self.id()), None, at)
                    .is_ok_and(|message| !state.takes(message.signer(), message.issued())),
                Kind::RelationAcceptance => {
                    !matches!(self.take_acceptance(state, envelope, at), Ok((_, Some(_))))
                }
                _ => false,
            }
        })
    }

    /// Verifies an item; `None` if it was taken before. Its mark and its changes are added to the page.
    fn take(&self, item: &Mail, state: &mut State, page: &mut Page) -> Result<Option<Received>, ClientError> {
        let at = judged_at(item);
        let (hash, change) = match item.envelope.kind() {
            Kind::RelationAcceptance => self.take_acceptance(state, &item.envelope, at)?,
            Kind::RelationRevocation => {
                let (hash, change) = self.take_revocation(state, &item.envelope, at)?;
                (hash, Some(change))
            }
            Kind::Message => return self.take_message(item, state, page),
            other => return Err(ClientError::Lie(format!("mail of kind {other:?}"))),
        };
        if !page.mark(state, hash, now().saturating_add(2 * MAIL_TIME)) {
            return Ok(None);
        }
        let Some(change) = change else { return Ok(None) };
        change.apply(self, state);
        let received = match &change {
            Change::Accepted { other, .. } => Some(Received::Accepted(*other)),
            // It revoked an earlier request than the one by which the relation holds.
            Change::Revoked { other, .. } if state.holds(*other) => None,
            Change::Revoked { other, .. } => Some(Received::Revoked(*other)),
        };
        page.changes.push(change);
        Ok(received)
    }

    fn take_message(
        &self,
        item: &Mail,
        state: &State,
        page: &mut Page,
    ) -> Result<Option<Received>, ClientError> {
        let (me, at) = (Some(self.id()), judged_at(item));
        let message = self.verify_at::<Message>("a message", &item.envelope, me, None, at)?;
        let from = message.signer();
        if !state.takes(from, message.issued()) {
            return Err(ClientError::Lie(format!("a message of {from}, to whom no relation holds")));
        }
        if !page.mark(state, message.hash(), message.expires()) {
            return Ok(None);
        }
        let Order::Nonce(nonce) = message.order() else {
            return Err(ClientError::Lie("a message without a nonce".to_owned()));
        };
        let binding = Binding { sender: from, recipient: self.id(), nonce };
        let letter = self.0.sealing.open(&binding, message.body())?;
        Ok(Some(Received::Letter { from, sent: message.issued(), letter }))
    }

    /// Stores the attachments of a page, so that they can be downloaded after it is acknowledged.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn keep_attachments(&self, page: &Page) -> Result<(), ClientError> {
        let now = now();
        let fresh = page.items.iter().filter_map(|item| match item {
            Received::Letter { from, sent, letter } => Some((*from, *sent, &letter.attachments)),
            _ => None,
        });
        // For as long as the sender keeps them.
        let fresh = fresh.flat_map(|(from, sent, all)| {
            let until = sent.saturating_add(SENT_TIME);
            all.iter().map(move |one| Waiting { from, until, attachment: one.clone() })
        });
        Ok(self.folder().update(|state| state.keep_waiting(fresh, now))?)
    }

    /// Stored attachments that were neither downloaded nor have expired.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn kept_attachments(&self) -> Result<Vec<Waiting>, ClientError> {
        Ok(self.folder().update(|state| {
            state.keep_waiting([], now());
            state.waiting.clone()
        })?)
    }

    /// Removes a stored attachment.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn forget_attachment(&self, attachment: &Attachment) -> Result<(), ClientError> {
        Ok(self.folder().update(|state| state.waiting.retain(|one| one.attachment != *attachment))?)
    }

    /// Tells the home that a page is stored here, so that it deletes the page.
    ///
    /// # Errors
    /// The home is unreachable or refuses, or the folder cannot be written.
    pub async fn acknowledge(&self, page: &Page) -> Result<(), ClientError> {
        let Some(home) = page.home.as_ref().filter(|_| page.row.count > 0) else { return Ok(()) };
        let now = now();
        self.folder().update(|state| {
            for (hash, expires) in &page.marks {
                state.take(*hash, *expires, now);
            }
            page.changes.iter().for_each(|change| change.apply(self, state));
        })?;
        self.ask_done(home, Request::Acknowledge(page.row.last)).await?;
        *locked(&self.0.row) = if page.more { page.row } else { Row::default() };
        Ok(())
    }
}

impl Page {
    /// The number of the last item, for [`Device::depart`].
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.row.last
    }

    /// Marks an item as taken; returns whether it was not marked before.
    fn mark(&mut self, state: &State, hash: Bytes32, expires: u64) -> bool {
        let known = state.taken.iter().any(|(one, _)| **one == hash);
        if known || self.marks.iter().any(|(one, _)| *one == hash) {
            return false;
        }
        self.marks.push((hash, expires));
        true
    }
}
