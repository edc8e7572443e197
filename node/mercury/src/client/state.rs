//! What a device knows: of itself, its homes and others.
//!
//! Here: what is kept and by which rules it changes. Not here: the files ([`super::folder`]), what homes are asked.
//! Every change is one write of the whole: what is noted before something is asked of a home is there after a crash.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::waiting::Waiting;
use crate::body::HomeAddress;
use crate::envelope::Envelope;
use crate::id::Id;
use crate::limits::{MAIL_TIME, MAX_BLOB_COUNT};

/// Number of the layout of the state.
pub(super) const FORMAT: u64 = 1;
/// Others that are remembered: all that may be related, and some strangers.
const MAX_CONTACTS: usize = 4_000;
/// Marks of mail that was taken: more than wait at a home at once.
const MAX_TAKEN: usize = 32 * 1024;
/// Strangers' profiles whose version is remembered.
const MAX_SEEN: usize = 1_000;
/// Homes that were left and do not know it yet.
const MAX_LEAVING: usize = 8;
/// For how long a home that was left is told so, in seconds. Its mail has long gone then.
const LEAVING_TIME: u64 = 4 * MAIL_TIME;
/// Shortest and longest pause before something is tried again, in seconds.
const PAUSE: (u64, u64) = (20, 6 * 3600);
/// How long a sent attachment stays at one's own home, in seconds: its mail may wait for fourteen days, and whoever
/// took the mail has fourteen more to get it.
pub const SENT_TIME: u64 = 2 * MAIL_TIME;

/// All that a device knows beside its secrets.
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
    /// Both halves of the proof that it does.
    #[n(3)]
    pub hosting: Option<(Envelope, Envelope)>,
    /// The persona's newest profile.
    #[n(4)]
    pub profile: Option<Envelope>,
    /// Hashes of mail that was taken, and until when each could come again, in seconds since 1970. Not the home's
    /// numbers: a home that was restored from a backup gives them anew.
    #[n(5)]
    pub taken: Vec<(ByteArray<32>, u64)>,
    /// Others, in the order of their ids.
    #[n(6)]
    pub contacts: Vec<Contact>,
    /// Attachments of mail that was taken, themselves not got yet; the oldest first.
    #[n(7)]
    #[cbor(default)]
    pub waiting: Vec<Waiting>,
    /// A move to another home that has begun.
    #[n(8)]
    #[cbor(default)]
    pub moving: Option<Moving>,
    /// Homes that were left and do not know it yet; the oldest first.
    #[n(9)]
    #[cbor(default)]
    pub leaving: Vec<Leaving>,
    /// A home that a move leads to, and marks of what it knows of relations already.
    #[n(10)]
    #[cbor(default)]
    pub brought: Option<(Id, Vec<ByteArray<32>>)>,
    /// The highest version of the persona's profile that was ever signed.
    #[n(11)]
    #[cbor(default)]
    pub version: u64,
    /// Whether the home may not have [`Self::profile`] yet.
    #[n(12)]
    #[cbor(default)]
    pub unshown: bool,
    /// The newest versions of strangers' profiles that were seen; the one that changed last is the last.
    #[n(13)]
    #[cbor(default)]
    pub seen: Vec<(Id, u64)>,
    /// Blobs of attachments that were sent; the oldest first.
    #[n(14)]
    #[cbor(default)]
    pub sent: Vec<Sent>,
    /// Whether the home may not have the relations yet.
    #[n(15)]
    #[cbor(default)]
    pub unbrought: bool,
}

/// A move that has begun: every step of it may be done again.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Moving {
    /// Where to.
    #[n(0)]
    pub to: HomeAddress,
    /// The invitation to there.
    #[n(1)]
    pub invitation: Option<ByteArray<16>>,
    /// Since when, in seconds since 1970.
    #[n(2)]
    pub since: u64,
    /// When it is tried again, in seconds since 1970.
    #[n(3)]
    pub next: u64,
}

/// A home that was left and does not know it yet: mail may wait there.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Leaving {
    /// Which.
    #[n(0)]
    pub home: HomeAddress,
    /// Where it is to send others, if the persona has no home then.
    #[n(1)]
    pub to: Option<HomeAddress>,
    /// Since when, in seconds since 1970.
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
    /// The name that it was sent under.
    #[n(1)]
    pub name: String,
    /// When, in seconds since 1970.
    #[n(2)]
    pub at: u64,
}

/// When something that began at a time and failed now is tried again: later and later.
pub(super) fn try_again(since: u64, now: u64) -> u64 {
    now.saturating_add(now.saturating_sub(since).clamp(PAUSE.0, PAUSE.1))
}

/// Another persona.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Contact {
    /// Who.
    #[n(0)]
    pub id: Id,
    /// How far the relation has come.
    #[n(1)]
    pub standing: Standing,
    /// Where the other one was last found.
    #[n(2)]
    pub home: Option<HomeAddress>,
    /// The newest version of the other one's profile that was seen: an older one is refused.
    #[n(3)]
    pub version: u64,
    /// The request, from whichever of the two.
    #[n(4)]
    pub request: Option<Envelope>,
    /// The acceptance: with the request, the proof.
    #[n(5)]
    pub acceptance: Option<Envelope>,
    /// The hash of the request that was taken back last: it never holds again.
    #[n(6)]
    pub revoked: Option<ByteArray<32>>,
    /// Requests issued up to then, in seconds since 1970, never hold again: something later was taken back.
    #[n(7)]
    pub revoked_upto: Option<u64>,
    /// If the other one took the relation back: when. Mail that was signed up to then is still taken.
    #[n(8)]
    pub left: Option<u64>,
}

/// How far a relation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Standing {
    /// Known, not related.
    #[n(0)]
    Known,
    /// Asked, not answered.
    #[n(1)]
    Asked,
    /// Both hold the proof.
    #[n(2)]
    Held,
    /// Taken back.
    #[n(3)]
    Revoked,
}

impl Contact {
    /// Somebody of whom nothing is known.
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

    /// Whether a request may hold: it was not taken back, and was signed after whatever was.
    #[must_use]
    pub fn may_hold(&self, request: [u8; 32], issued: u64) -> bool {
        self.revoked.is_none_or(|revoked| *revoked != request)
            && self.revoked_upto.is_none_or(|upto| issued > upto)
    }

    /// Notes that a request was taken back, and with it all up to a time; `left` is when, if the other one did it.
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

    /// Whether it is the persona's home.
    pub(super) fn is_home(&self, home: Id) -> bool {
        self.home.as_ref().is_some_and(|own| own.home == home)
    }

    /// The persona has a home.
    pub(super) fn arrive(&mut self, home: HomeAddress, hosting: (Envelope, Envelope)) {
        self.leaving.retain(|one| one.home.home != home.home);
        if self.moving.as_ref().is_some_and(|one| one.to.home == home.home) {
            self.moving = None;
        }
        (self.home, self.hosting) = (Some(home), Some(hosting));
    }

    /// A home is left: it is still to be told. Of too many the oldest is forgotten.
    pub(super) fn leave(&mut self, home: HomeAddress, to: Option<HomeAddress>, now: u64) {
        self.leaving.retain(|one| one.home.home != home.home);
        if self.leaving.len() >= MAX_LEAVING {
            self.leaving.remove(0);
        }
        self.leaving.push(Leaving { home, to, since: now, next: 0 });
    }

    /// A move that has begun comes to nothing: the home that it led to may host the persona all the same.
    pub(super) fn give_up_move(&mut self, now: u64) {
        if let Some(moving) = self.moving.take() {
            self.leave(moving.to, None, now);
        }
    }

    /// Homes that are to be told now that they were left. Those that were not reached for too long are forgotten.
    pub(super) fn untold(&mut self, now: u64) -> Vec<HomeAddress> {
        self.leaving.retain(|one| one.since.saturating_add(LEAVING_TIME) >= now);
        let going_there = |one: &Leaving| self.moving.as_ref().is_some_and(|to| to.to.home == one.home.home);
        let due = self.leaving.iter().filter(|one| one.next <= now && !going_there(one));
        due.map(|one| one.home.clone()).collect()
    }

    /// A home knows that it was left, or has to be told later.
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

    /// Marks of what a home knows of relations already.
    pub(super) fn brought_to(&self, home: Id) -> &[ByteArray<32>] {
        self.brought.as_ref().filter(|(to, _)| *to == home).map_or(&[], |(_, marks)| marks)
    }

    /// A home knows more.
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

    /// The version of the next profile: no other profile is ever signed with it.
    pub(super) fn next_version(&mut self, before: u64, now: u64) -> u64 {
        // By the clock, so that a folder that was put back from a copy does not begin again at what is there already.
        self.version = self.version.max(before).saturating_add(1).max(now);
        self.version
    }

    /// The newest version of somebody's profile that was seen.
    #[must_use]
    pub fn newest_seen(&self, id: Id) -> u64 {
        let of_stranger = self.seen.iter().find(|(one, _)| *one == id).map_or(0, |(_, version)| *version);
        self.contact(id).map_or(0, |contact| contact.version).max(of_stranger)
    }

    /// A version of somebody's profile was seen.
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

    /// An attachment is about to be uploaded.
    pub(super) fn send_blob(&mut self, sent: Sent) {
        self.sent.retain(|one| one.hash != sent.hash);
        if self.sent.len() >= MAX_BLOB_COUNT {
            self.sent.remove(0);
        }
        self.sent.push(sent);
    }

    /// What is known of somebody.
    #[must_use]
    pub fn contact(&self, id: Id) -> Option<&Contact> {
        self.contacts.binary_search_by_key(&id, |one| one.id).ok().map(|place| &self.contacts[place])
    }

    /// The same, to be changed; made where it is missing. Strangers make room, then relations that were taken back, the
    /// longest ago first. Others never do: homes hold fewer than `MAX_CONTACTS`, so there are hardly more here.
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

    /// Whether a relation with somebody holds.
    #[must_use]
    pub fn holds(&self, id: Id) -> bool {
        self.contact(id).is_some_and(|one| one.standing == Standing::Held)
    }

    /// Whether a message of somebody that was signed at a time is taken: while the relation holds, and what was signed
    /// before the other one took it back.
    #[must_use]
    pub fn takes(&self, from: Id, issued: u64) -> bool {
        self.contact(from).is_some_and(|one| match one.standing {
            Standing::Held => true,
            Standing::Revoked => one.left.is_some_and(|left| issued <= left),
            Standing::Known | Standing::Asked => false,
        })
    }

    /// Marks mail as taken; whether it was not before.
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
