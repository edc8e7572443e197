//! A device's knowledge about itself, its homes and others.
//!
//! Here: the data and the rules by which it changes. Not here: the files ([`super::folder`]), requests to homes.
//! Every change writes the whole state, so what is noted before a request to a home survives a crash.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::waiting::Waiting;
use crate::body::HomeAddress;
use crate::envelope::Envelope;
use crate::id::Id;
use crate::limits::{MAIL_TIME, MAX_BLOB_COUNT};

/// Format number of the state.
pub(super) const FORMAT: u64 = 1;
/// Maximum number of contacts: all that may be related, and some strangers.
const MAX_CONTACTS: usize = 4_000;
/// Maximum number of marks of mail that was taken: more than can wait at a home at once.
const MAX_TAKEN: usize = 32 * 1024;
/// Maximum number of strangers' profiles whose version is remembered.
const MAX_SEEN: usize = 1_000;
/// Maximum number of homes that were left and do not know it yet.
const MAX_LEAVING: usize = 8;
/// How long to keep telling a home that it was left, seconds. Its mail has long expired then.
const LEAVING_TIME: u64 = 4 * MAIL_TIME;
/// Shortest and longest delay before a retry, seconds.
const PAUSE: (u64, u64) = (20, 6 * 3600);
/// How long a sent attachment stays at one's own home, seconds: its mail may wait for fourteen days, and the
/// recipient has fourteen more to download it.
pub const SENT_TIME: u64 = 2 * MAIL_TIME;

/// Everything that a device stores besides its secrets.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct State {
    #[n(0)]
    format: u64,
    /// The network's name.
    #[n(1)]
    pub network: String,
    /// The home that hosts the persona.
    #[n(2)]
    pub home: Option<HomeAddress>,
    /// Both halves of the proof of hosting.
    #[n(3)]
    pub hosting: Option<(Envelope, Envelope)>,
    /// The persona's newest profile.
    #[n(4)]
    pub profile: Option<Envelope>,
    /// Hashes of mail that was taken, and until when each could come again, in seconds since 1970. Not the home's
    /// numbers: a home restored from a backup reuses them.
    #[n(5)]
    pub taken: Vec<(ByteArray<32>, u64)>,
    /// Contacts, ordered by id.
    #[n(6)]
    pub contacts: Vec<Contact>,
    /// Attachments of taken mail that were not downloaded yet; the oldest first.
    #[n(7)]
    #[cbor(default)]
    pub waiting: Vec<Waiting>,
    /// A move in progress.
    #[n(8)]
    #[cbor(default)]
    pub moving: Option<Moving>,
    /// Homes that were left and do not know it yet; the oldest first.
    #[n(9)]
    #[cbor(default)]
    pub leaving: Vec<Leaving>,
    /// The target of a move, and marks of the relations that it knows already.
    #[n(10)]
    #[cbor(default)]
    pub brought: Option<(Id, Vec<ByteArray<32>>)>,
    /// The highest version of the persona's profile that was ever signed.
    #[n(11)]
    #[cbor(default)]
    pub version: u64,
    /// Whether the home may lack [`Self::profile`].
    #[n(12)]
    #[cbor(default)]
    pub unshown: bool,
    /// The newest versions seen of strangers' profiles; the one that changed last is the last.
    #[n(13)]
    #[cbor(default)]
    pub seen: Vec<(Id, u64)>,
    /// Blobs of sent attachments; the oldest first.
    #[n(14)]
    #[cbor(default)]
    pub sent: Vec<Sent>,
    /// Whether the home may lack the relations.
    #[n(15)]
    #[cbor(default)]
    pub unbrought: bool,
}

/// A move in progress; every step can be repeated.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Moving {
    /// The new home.
    #[n(0)]
    pub to: HomeAddress,
    /// The invitation to it.
    #[n(1)]
    pub invitation: Option<ByteArray<16>>,
    /// When it began, in seconds since 1970.
    #[n(2)]
    pub since: u64,
    /// When it is retried, in seconds since 1970.
    #[n(3)]
    pub next: u64,
}

/// A home that was left and does not know it yet: mail may wait there.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Leaving {
    /// The home.
    #[n(0)]
    pub home: HomeAddress,
    /// Where it should redirect others, if the persona has no home by then.
    #[n(1)]
    pub to: Option<HomeAddress>,
    /// When it was left, in seconds since 1970.
    #[n(2)]
    pub since: u64,
    /// When it is told again, in seconds since 1970.
    #[n(3)]
    pub next: u64,
}

/// A blob at one's own home that was sent to somebody.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Sent {
    /// Its hash.
    #[n(0)]
    pub hash: ByteArray<32>,
    /// The name that it was sent with.
    #[n(1)]
    pub name: String,
    /// When it was sent, in seconds since 1970.
    #[n(2)]
    pub at: u64,
}

/// The time of the next try for something that began at `since` and failed now; the delays increase.
pub(super) fn try_again(since: u64, now: u64) -> u64 {
    now.saturating_add(now.saturating_sub(since).clamp(PAUSE.0, PAUSE.1))
}

/// Another persona.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Contact {
    /// The persona.
    #[n(0)]
    pub id: Id,
    /// The state of the relation.
    #[n(1)]
    pub standing: Standing,
    /// The home where the persona was last found.
    #[n(2)]
    pub home: Option<HomeAddress>,
    /// The newest version seen of the persona's profile; older ones are refused.
    #[n(3)]
    pub version: u64,
    /// The request, from whichever of the two.
    #[n(4)]
    pub request: Option<Envelope>,
    /// The acceptance: with the request, the proof.
    #[n(5)]
    pub acceptance: Option<Envelope>,
    /// The hash of the request that was revoked last: it never holds again.
    #[n(6)]
    pub revoked: Option<ByteArray<32>>,
    /// Requests issued up to this time, in seconds since 1970, never hold again, because of a later revocation.
    #[n(7)]
    pub revoked_upto: Option<u64>,
    /// If the other persona revoked the relation: when. Mail signed up to then is still accepted.
    #[n(8)]
    pub left: Option<u64>,
}

/// The state of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Standing {
    /// Known, not related.
    #[n(0)]
    Known,
    /// Requested, not answered.
    #[n(1)]
    Asked,
    /// Both hold the proof.
    #[n(2)]
    Held,
    /// Revoked.
    #[n(3)]
    Revoked,
}

impl Contact {
    /// A contact of which nothing else is known.
    #[must_use]
    pub fn new(id: Id) -> Self {
        Self {
            id,
            standing: Standing::Known,
            home: None,
            version: 0,
            request: None,
            acceptance: None,
            revoked: None,
            revoked_upto: None,
            left: None,
        }
    }

    /// Whether a request may hold: it was not revoked, and was issued after every revocation.
    #[must_use]
    pub fn may_hold(&self, request: [u8; 32], issued: u64) -> bool {
        self.revoked.is_none_or(|revoked| *revoked != request)
            && self.revoked_upto.is_none_or(|upto| issued > upto)
    }

    /// Notes that a request was revoked, and with it all up to a time; `left` is when, if the other persona
    /// revoked.
    pub fn take_back(&mut self, request: [u8; 32], upto: u64, left: Option<u64>) {
        self.left = if self.standing == Standing::Revoked { self.left.and(left) } else { left };
        self.standing = Standing::Revoked;
        self.revoked = Some(request.into());
        self.revoked_upto = self.revoked_upto.max(Some(upto));
    }
}

impl State {
    pub(super) fn new(network: &str) -> Self {
        Self {
            format: FORMAT,
            network: network.to_owned(),
            home: None,
            hosting: None,
            profile: None,
            taken: Vec::new(),
            contacts: Vec::new(),
            waiting: Vec::new(),
            moving: None,
            leaving: Vec::new(),
            brought: None,
            version: 0,
            unshown: false,
            seen: Vec::new(),
            sent: Vec::new(),
            unbrought: false,
        }
    }

    pub(super) fn format(&self) -> u64 {
        self.format
    }

    /// Whether this is the persona's home.
    pub(super) fn is_home(&self, home: Id) -> bool {
        self.home.as_ref().is_some_and(|own| own.home == home)
    }

    /// Sets the persona's home.
    pub(super) fn arrive(&mut self, home: HomeAddress, hosting: (Envelope, Envelope)) {
        self.leaving.retain(|one| one.home.home != home.home);
        if self.moving.as_ref().is_some_and(|one| one.to.home == home.home) {
            self.moving = None;
        }
        (self.home, self.hosting) = (Some(home), Some(hosting));
    }

    /// Notes that a home was left and has to be told. Of too many, the oldest is dropped.
    pub(super) fn leave(&mut self, home: HomeAddress, to: Option<HomeAddress>, now: u64) {
        self.leaving.retain(|one| one.home.home != home.home);
        if self.leaving.len() >= MAX_LEAVING {
            self.leaving.remove(0);
        }
        self.leaving.push(Leaving { home, to, since: now, next: 0 });
    }

    /// Cancels a move: its target may host the persona all the same.
    pub(super) fn give_up_move(&mut self, now: u64) {
        if let Some(moving) = self.moving.take() {
            self.leave(moving.to, None, now);
        }
    }

    /// Left homes that are due to be told. Those that were unreachable for too long are dropped.
    pub(super) fn untold(&mut self, now: u64) -> Vec<HomeAddress> {
        self.leaving.retain(|one| one.since.saturating_add(LEAVING_TIME) >= now);
        let going_there = |one: &Leaving| self.moving.as_ref().is_some_and(|to| to.to.home == one.home.home);
        let due = self.leaving.iter().filter(|one| one.next <= now && !going_there(one));
        due.map(|one| one.home.clone()).collect()
    }

    /// Notes whether a home knows that it was left, or has to be told later.
    pub(super) fn told(&mut self, home: Id, knows: bool, now: u64) {
        if knows {
            self.leaving.retain(|one| one.home.home != home);
        }
        if self.leaving.is_empty() && self.moving.is_none() {
            self.brought = None;
        }
        for one in self.leaving.iter_mut().filter(|one| one.home.home == home) {
            one.next = try_again(one.since, now);
        }
    }

    /// Marks of the relations that a home knows already.
    pub(super) fn brought_to(&self, home: Id) -> &[ByteArray<32>] {
        self.brought.as_ref().filter(|(to, _)| *to == home).map_or(&[], |(_, marks)| marks)
    }

    /// Adds marks for a home.
    pub(super) fn bring_to(&mut self, home: Id, fresh: Vec<ByteArray<32>>) {
        match &mut self.brought {
            Some((to, marks)) if *to == home => marks.extend(fresh),
            other => *other = Some((home, fresh)),
        }
        if let Some((_, marks)) = &mut self.brought
            && marks.len() > 2 * MAX_CONTACTS
        {
            marks.drain(..MAX_CONTACTS);
        }
    }

    /// The version of the next profile; it is never used for another one.
    pub(super) fn next_version(&mut self, before: u64, now: u64) -> u64 {
        // Based on the clock, so that a folder restored from a copy does not reuse versions.
        self.version = self.version.max(before).saturating_add(1).max(now);
        self.version
    }

    /// The newest version seen of a persona's profile.
    #[must_use]
    pub fn newest_seen(&self, id: Id) -> u64 {
        let of_stranger = self.seen.iter().find(|(one, _)| *one == id).map_or(0, |(_, version)| *version);
        self.contact(id).map_or(0, |contact| contact.version).max(of_stranger)
    }

    /// Notes a version seen of a persona's profile.
    pub(super) fn see(&mut self, id: Id, version: u64) {
        if version <= self.newest_seen(id) && self.contact(id).is_none() {
            return;
        }
        let version = version.max(self.newest_seen(id));
        self.seen.retain(|(one, _)| *one != id);
        if self.contact(id).is_some() {
            self.contact_mut(id).version = version;
            return;
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.remove(0);
        }
        self.seen.push((id, version));
    }

    /// Notes an attachment before it is uploaded.
    pub(super) fn send_blob(&mut self, sent: Sent) {
        self.sent.retain(|one| one.hash != sent.hash);
        if self.sent.len() >= MAX_BLOB_COUNT {
            self.sent.remove(0);
        }
        self.sent.push(sent);
    }

    /// The contact with this id.
    #[must_use]
    pub fn contact(&self, id: Id) -> Option<&Contact> {
        self.contacts.binary_search_by_key(&id, |one| one.id).ok().map(|place| &self.contacts[place])
    }

    /// Mutable access to a contact, created if missing. To make room, strangers are dropped first, then revoked
    /// relations, the oldest first. Others are never dropped: homes hold fewer than `MAX_CONTACTS`, so there are
    /// hardly more here.
    pub fn contact_mut(&mut self, id: Id) -> &mut Contact {
        if self.contact(id).is_none() && self.contacts.len() >= MAX_CONTACTS {
            let places = self.contacts.iter().enumerate().filter_map(|(place, one)| match one.standing {
                Standing::Known => Some((false, None, place)),
                Standing::Revoked => Some((true, one.revoked_upto, place)),
                Standing::Asked | Standing::Held => None,
            });
            if let Some((_, _, place)) = places.min() {
                self.contacts.remove(place);
            }
        }
        let place = match self.contacts.binary_search_by_key(&id, |one| one.id) {
            Ok(place) => place,
            Err(place) => {
                self.contacts.insert(place, Contact::new(id));
                place
            }
        };
        &mut self.contacts[place]
    }

    /// Whether a relation with a persona holds.
    #[must_use]
    pub fn holds(&self, id: Id) -> bool {
        self.contact(id).is_some_and(|one| one.standing == Standing::Held)
    }

    /// Whether to accept a persona's message that was signed at `issued`: while the relation holds, or if it was
    /// signed before the other persona revoked, also where the persona was asked anew since.
    #[must_use]
    pub fn takes(&self, from: Id, issued: u64) -> bool {
        self.contact(from).is_some_and(|one| match one.standing {
            Standing::Held => true,
            Standing::Revoked | Standing::Asked => one.left.is_some_and(|left| issued <= left),
            Standing::Known => false,
        })
    }

    /// Marks mail as taken; returns whether it was not marked before.
    pub fn take(&mut self, hash: [u8; 32], expires: u64, now: u64) -> bool {
        if self.taken.iter().any(|(one, _)| **one == hash) {
            return false;
        }
        self.taken.retain(|(_, until)| *until >= now);
        if self.taken.len() >= MAX_TAKEN {
            self.taken.remove(0);
        }
        self.taken.push((hash.into(), expires));
        true
    }
}

#[cfg(test)]
mod tests;
