//! Moves from one home to another, including interrupted ones: a move is recorded in the folder, every step can be
//! repeated, and the last one tells the old home.
//!
//! Here: the steps, and completing earlier moves at a start. Not here: what happens to mail: the program fetches it
//! from the homes in [`Device::left`] and stores it before each of them is told. Path: registered there →
//! relations, requests → pictures, profile → it becomes the home → [`Device::fetch_from`] → what arrived there
//! meanwhile is brought along → [`Device::depart`].

use minicbor::bytes::ByteArray;
use sha2::{Digest, Sha256};

use super::device::{Device, now};
use super::error::ClientError;
use super::folder::{Contact, Moving, Standing, State};
use super::place::Home;
use super::state::{SENT_TIME, try_again};
use crate::body::{Departure, HomeAddress};
use crate::wire::{Answer, Code, Request};

/// Number of relations brought between two writes of the folder.
const STEP: usize = 64;
/// Number of retries, a second apart, when a home answers "later".
const PATIENT: usize = 300;

/// What a move left undone.
#[derive(Debug)]
pub struct Moved {
    /// Number of relations that the new home did not take.
    pub unproven: usize,
    /// Whether the old home redirects others. It does not while mail waits there: fetch it, then call
    /// [`Device::depart`]. Until then others find the new home through the directory.
    pub left: Result<(), ClientError>,
}

impl Device {
    /// Moves to another home: registers there, brings relations, profile and pictures, and tells the old home if no
    /// mail waits there. An interrupted move is completed by [`Self::settle`]; moving to the current home cancels
    /// it.
    ///
    /// # Errors
    /// The new home is unreachable, lies or refuses: then nothing has changed. If that happens after it hosts the
    /// persona, the move continues later. Or another program cancels or completes this move.
    pub async fn move_to(&self, home: &Home, invitation: Option<[u8; 16]>) -> Result<Moved, ClientError> {
        let old = self.own_home()?;
        if old.id == home.id {
            let given_up = self.folder().update(|state| {
                let begun = state.moving.is_some();
                state.give_up_move(now());
                begun
            })?;
            let already = || ClientError::Wrong("hosted there already".to_owned());
            return given_up.then_some(Moved { unproven: 0, left: Ok(()) }).ok_or_else(already);
        }
        let (_, to) = self.about(home).await?;
        let (since, invitation) = (now(), invitation.map(ByteArray::from));
        let moving = Moving { to, invitation, since, next: 0 };
        let again = self.folder().update(|state| {
            let again = state.moving.as_ref().is_some_and(|other| other.to.home == home.id);
            if !again {
                state.give_up_move(since);
            }
            state.moving = Some(moving);
            again
        })?;
        let Some(unproven) = self.go_on_moving(again).await? else {
            // The home may be the same as before: it must not be told that the persona left.
            return Err(ClientError::Wrong(
                "another program has taken the move back or finished it".to_owned(),
            ));
        };
        let left = self.depart(&old, Some(0)).await;
        Ok(Moved { unproven, left })
    }

    /// Completes what earlier runs could not, if it is due: a move, relations and a profile that the home may not
    /// have, and deletion of old sent blobs. What fails is retried later. Afterwards [`Self::left`] lists the homes
    /// to tell.
    ///
    /// # Errors
    /// A home is unreachable, refuses, or lies, or the folder cannot be used.
    pub async fn settle(&self) -> Result<(), ClientError> {
        let state = self.folder().state()?;
        if let Some(moving) = state.moving.filter(|moving| moving.next <= now()) {
            let done = self.go_on_moving(true).await;
            if done.is_err() {
                self.folder().update(|state| {
                    for one in state.moving.iter_mut().filter(|one| one.to.home == moving.to.home) {
                        one.next = try_again(one.since, now());
                    }
                })?;
            }
            done?;
        }
        let Ok(home) = self.own_home() else { return Ok(()) };
        if state.unbrought {
            self.bring_all(&home).await?;
        }
        if state.unshown {
            self.show_profile(&home).await?;
        }
        self.discard_sent(SENT_TIME).await.map(drop)
    }

    /// Homes that were left and are due to be told. Mail may wait there.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn left(&self) -> Result<Vec<Home>, ClientError> {
        let told = self.folder().update(|state| state.untold(now()))?;
        Ok(told.iter().filter_map(|one| Home::own(one).ok()).collect())
    }

    /// Performs a move up to where the new home becomes the home. Returns the number of relations it did not take,
    /// or `None` if another program has cancelled or completed the move. `again` is whether it was tried before.
    async fn go_on_moving(&self, again: bool) -> Result<Option<usize>, ClientError> {
        let Some(moving) = self.folder().state()?.moving else { return Ok(None) };
        let (home, old) = (Home::own(&moving.to)?, self.own_home()?);
        let enrolled = self.enroll(&home, moving.invitation.map(|code| *code)).await;
        let (address, proof) = match enrolled {
            Err(error) if is_final(&error, again) => {
                // It may host the persona all the same; then it must be told that the persona left.
                self.folder().update(|state| state.give_up_move(now()))?;
                return Err(error);
            }
            other => other?,
        };
        let unproven = self.bring_relations(&home).await?;
        self.bring_profile(&old, &home).await?;
        self.log_out().await.unwrap_or_else(|error| tracing::debug!("not logged out: {error}"));
        let done = self.folder().update(|state| {
            if state.moving.as_ref().is_none_or(|one| one.to.home != home.id) {
                if !state.is_home(home.id) {
                    // Perhaps cancelled before it hosted the persona, so it must be told that the persona left.
                    state.leave(address, None, now());
                }
                return None;
            }
            if let Some(old) = state.home.take() {
                state.leave(old, None, now());
            }
            state.arrive(address, proof);
            // These blobs are gone with the old home.
            Some(std::mem::take(&mut state.sent).len())
        })?;
        let Some(sent) = done else { return Ok(None) };
        if sent > 0 {
            tracing::warn!(
                "sent attachments stayed at the old home ({sent}): who has not got them gets them no more"
            );
        }
        Ok(Some(unproven))
    }

    /// Tells a home that the persona left, after all it knows of relations is brought to the persona's own home.
    /// With a number, the home refuses with [`Code::Superseded`] if newer mail than that waits there.
    ///
    /// # Errors
    /// The home is unreachable, refuses, or lies: it will be in [`Self::left`] again later. Or it is the persona's
    /// home again, or will be: then it is not told.
    pub async fn depart(&self, home: &Home, upto: Option<u64>) -> Result<(), ClientError> {
        let told = self.tell_of_departure(home, upto).await;
        let knows = match &told {
            Ok(()) => true,
            // It does not host the persona.
            Err(ClientError::Refused(refusal)) => refusal.code == Code::NotForYou,
            Err(_) => false,
        };
        self.folder().update(|state| state.told(home.id, knows, now()))?;
        if knows { Ok(()) } else { told }
    }

    async fn tell_of_departure(&self, home: &Home, upto: Option<u64>) -> Result<(), ClientError> {
        self.check_left(home)?;
        if let Ok(own) = self.own_home() {
            self.bring_rest(home, &own).await?;
        }
        let order = self.challenge(home).await?;
        // Another program may have moved back in the meantime.
        let state = self.check_left(home)?;
        let entry = state.leaving.into_iter().find(|one| one.home.home == home.id);
        let to: Option<HomeAddress> = state.home.or_else(|| entry.and_then(|entry| entry.to));
        let departure = self.sign(home.id, order, &Departure { to });
        self.unknown(home);
        match self.ask(home, Request::Unregister(departure, upto)).await? {
            Answer::Done => Ok(()),
            _ => Err(ClientError::unasked()),
        }
    }

    /// The state, if a home is neither the persona's nor will be. A home that is the persona's again is removed
    /// from those left.
    fn check_left(&self, home: &Home) -> Result<State, ClientError> {
        let state = self.folder().update(|state| {
            if state.is_home(home.id) {
                state.leaving.retain(|one| one.home.home != home.id);
            }
            state.clone()
        })?;
        if state.is_home(home.id) || state.moving.as_ref().is_some_and(|one| one.to.home == home.id) {
            return Err(ClientError::Wrong(format!("the persona is not leaving {}", home.id)));
        }
        Ok(state)
    }

    /// Brings what arrived at a home that was left: answers to requests, revocations, and waiting requests.
    async fn bring_rest(&self, from: &Home, to: &Home) -> Result<(), ClientError> {
        match self.relations_at(from).await {
            // It no longer hosts the persona, has banned it, or lies; then it cannot keep the persona from leaving.
            Err(error @ (ClientError::Refused(_) | ClientError::Lie(_))) => {
                tracing::debug!("no relations from {}: {error}", from.id);
            }
            result => drop(result?),
        }
        self.bring_relations(to).await?;
        let Ok(wishes) = self.requests_at(from).await else { return Ok(()) };
        for wish in wishes {
            match self.ask_patiently(to, Request::Relate(wish.envelope().clone())).await {
                Err(ClientError::Refused(refusal)) => tracing::debug!("{}: {refusal}", wish.from),
                result => result?,
            }
        }
        Ok(())
    }

    /// Brings pictures and profile to the new home.
    async fn bring_profile(&self, old: &Home, home: &Home) -> Result<(), ClientError> {
        let mut pictures = self.own_pictures(old).await;
        if pictures.is_none() {
            // A continued move may have brought them before.
            pictures = self.own_pictures(home).await;
        }
        let Some(pictures) = pictures else {
            tracing::warn!("the old home does not give the pictures: the profile goes on without them");
            let without =
                |profile: &mut crate::body::Profile| (profile.picture, profile.thumbnail) = (None, None);
            return self.set_profile_at(home, without).await.map(drop);
        };
        for picture in &pictures {
            self.upload_to(home, picture).await?;
        }
        self.show_profile(home).await
    }

    /// Brings all relations to the persona's home; returns how many it did not take.
    pub(super) async fn bring_all(&self, home: &Home) -> Result<usize, ClientError> {
        let untaken = self.bring_relations(home).await?;
        self.folder().update(|state| state.unbrought &= !state.is_home(home.id))?;
        Ok(untaken)
    }

    /// Brings all relations to the new home, including revoked and requested ones; returns how many it did not
    /// take. Those it knows already are skipped.
    async fn bring_relations(&self, home: &Home) -> Result<usize, ClientError> {
        let state = self.folder().state()?;
        if state.contacts.iter().all(|contact| contact.standing == Standing::Known) {
            return Ok(0);
        }
        self.know(home).await?;
        let (mut unproven, mut fresh) = (0, Vec::new());
        for contact in &state.contacts {
            let mark = mark(contact);
            if contact.standing == Standing::Known || state.brought_to(home.id).contains(&mark) {
                continue;
            }
            match self.bring_relation(home, contact).await {
                Ok(()) => fresh.push(mark),
                Err(ClientError::Refused(refusal)) if refusal.code != Code::Fault => {
                    tracing::warn!("the relation to {} is not taken: {refusal}", contact.id);
                    unproven += 1;
                }
                Err(error) => {
                    self.folder().update(|state| state.bring_to(home.id, fresh))?;
                    return Err(error);
                }
            }
            if fresh.len() >= STEP {
                let step = std::mem::take(&mut fresh);
                self.folder().update(|state| state.bring_to(home.id, step))?;
            }
        }
        self.folder().update(|state| state.bring_to(home.id, fresh))?;
        Ok(unproven)
    }

    async fn bring_relation(&self, home: &Home, contact: &Contact) -> Result<(), ClientError> {
        let Some(request) = contact.request.clone() else { return Ok(()) };
        let revocation = match contact.standing {
            // Dated as the one before, or it would also end what the two have asked each other since.
            Standing::Revoked => {
                let issued = contact.revoked_upto.map_or_else(now, |upto| upto.min(now()));
                Some(self.revocation(contact.id, &request, issued)?.1)
            }
            _ => None,
        };
        let proof = match contact.acceptance.clone() {
            Some(acceptance) => Some(Request::Related(request, acceptance)),
            // An acceptance brought later must not make it hold there.
            None if revocation.is_some() => None,
            // So that the answer is expected there.
            None if self.is_mine(&request) => Some(Request::Relate(request)),
            None => return Ok(()),
        };
        let done = match proof {
            Some(proof) => self.ask_patiently(home, proof).await,
            None => Ok(()),
        };
        let Some(revocation) = revocation else { return done };
        match done {
            // It knows that this was revoked.
            Err(ClientError::Refused(refusal)) if refusal.code == Code::Superseded => return Ok(()),
            // Otherwise the other persona could bring the old proof and be believed, even if there was no room for
            // it now.
            Ok(()) | Err(ClientError::Refused(_)) => {}
            result => result?,
        }
        self.ask_patiently(home, Request::Revoke(revocation)).await
    }

    /// Sends a request, retrying while the home limits the rate.
    async fn ask_patiently(&self, home: &Home, request: Request) -> Result<(), ClientError> {
        for _ in 0..PATIENT {
            match self.ask_done(home, request.clone()).await {
                Err(ClientError::Refused(refusal)) if refusal.code == Code::Later => {
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
                result => return result,
            }
        }
        Err(ClientError::TimedOut("the home wants fewer requests"))
    }
}

/// Whether a registration will not succeed later either. If it was tried before, the home may host the persona, and
/// conditions may change again: clocks are corrected, and room is made.
fn is_final(error: &ClientError, again: bool) -> bool {
    match error {
        ClientError::Refused(refusal) => match refusal.code {
            Code::Later | Code::Fault => false,
            Code::Full | Code::Envelope => !again,
            _ => true,
        },
        ClientError::Wrong(_) => !again,
        ClientError::Lie(_) => true,
        _ => false,
    }
}

/// A mark of what a home knows of a relation after it was brought there.
fn mark(contact: &Contact) -> ByteArray<32> {
    let what = (contact.id, contact.standing, &contact.request, &contact.acceptance);
    <[u8; 32]>::from(Sha256::digest(crate::cbor::to_vec(&what))).into()
}
