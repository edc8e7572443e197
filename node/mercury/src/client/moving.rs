//! Moves from one home to another, also those that broke off: what is begun is in the folder, every step can be done
//! again, and the last one is that the old home is told.
//!
//! Here: the steps, and what a start finishes of earlier ones. Not here: what mail is to become of: whoever uses the
//! device fetches it from the homes in [`Device::left`] and keeps it, before each of them is told.
//! Path: registered there → relations, requests → pictures, profile → it is the home now → [`Device::fetch_from`] →
//! what came there meanwhile is brought along → [`Device::depart`].

use minicbor::bytes::ByteArray;
use sha2::{Digest, Sha256};

use super::device::{Device, now};
use super::error::ClientError;
use super::folder::{Contact, Moving, Standing, State};
use super::place::Home;
use super::state::{SENT_TIME, try_again};
use crate::body::{Departure, HomeAddress};
use crate::wire::{Answer, Code, Request};

/// Relations that are brought between two writes of the folder.
const STEP: usize = 64;
/// How often a home is asked again that says "later", a second apart.
const PATIENT: usize = 300;

/// What a move left undone.
#[derive(Debug)]
pub struct Moved {
    /// Relations that the new home did not take.
    pub unproven: usize,
    /// Whether the old home tells where to. It does not while mail waits there: fetch it, then [`Device::depart`]. Until
    /// then others find the new home by the directory of homes.
    pub left: Result<(), ClientError>,
}

impl Device {
    /// Moves to another home: registers there, brings relations, profile and pictures there, and tells the old home, if
    /// no mail waits there. A move that breaks off is finished by [`Self::settle`]; to move to where one is takes it back.
    ///
    /// # Errors
    /// The new home is not reached, is not to be believed or refuses: then nothing has changed. If that happens after it
    /// hosts the persona, the move goes on later. Or another program takes this move back, or finishes it.
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
            // The home may be the same as before: it must not be told that it is left.
            return Err(ClientError::Wrong(
                "another program has taken the move back or finished it".to_owned(),
            ));
        };
        let left = self.depart(&old, Some(0)).await;
        Ok(Moved { unproven, left })
    }

    /// Finishes what earlier runs could not, where its time has come: a move, relations and a profile that the home may not
    /// have, and blobs that were sent long ago. What fails is tried again later. Then [`Self::left`] says which homes to tell.
    ///
    /// # Errors
    /// A home is not reached, refuses, or is not to be believed, or the folder cannot be used.
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

    /// Homes that were left and are to be told now. Mail may wait there.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn left(&self) -> Result<Vec<Home>, ClientError> {
        let told = self.folder().update(|state| state.untold(now()))?;
        Ok(told.iter().filter_map(|one| Home::own(one).ok()).collect())
    }

    /// The steps of a move up to where the new home is the home; how many relations it did not take, or none where
    /// another program has taken the move back or finished it. `again` says that it was tried before.
    async fn go_on_moving(&self, again: bool) -> Result<Option<usize>, ClientError> {
        let Some(moving) = self.folder().state()?.moving else { return Ok(None) };
        let (home, old) = (Home::own(&moving.to)?, self.own_home()?);
        let enrolled = self.enroll(&home, moving.invitation.map(|code| *code)).await;
        let (address, proof) = match enrolled {
            Err(error) if is_final(&error, again) => {
                // It may host the persona all the same: then it is told that it is left.
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
                    // Given up before it hosted the persona, perhaps: so it is told that it is left.
                    state.leave(address, None, now());
                }
                return false;
            }
            if let Some(old) = state.home.take() {
                state.leave(old, None, now());
            }
            state.arrive(address, proof);
            // They are gone with the old home.
            state.sent.clear();
            true
        })?;
        Ok(done.then_some(unproven))
    }

    /// Tells a home that was left, after all that it knows of relations is brought to the persona's own home. With a
    /// number it is told only if no newer mail waits there than that: else it refuses with [`Code::Superseded`].
    ///
    /// # Errors
    /// The home is not reached, refuses, or is not to be believed: it is among [`Self::left`] again later. Or it is the
    /// persona's home again, or will be: then it is not told.
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
        // Another program may have moved back meanwhile.
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

    /// What is kept, if a home is neither the persona's nor will be: what goes there no more is forgotten.
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

    /// What came to a home that was left: answers to requests, what was taken back, and requests that wait there.
    async fn bring_rest(&self, from: &Home, to: &Home) -> Result<(), ClientError> {
        match self.relations_at(from).await {
            // It hosts the persona no more, has banned it, or lies: then it keeps nobody.
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

    /// Pictures and profile for the new home.
    async fn bring_profile(&self, old: &Home, home: &Home) -> Result<(), ClientError> {
        let mut pictures = self.own_pictures(old).await;
        if pictures.is_none() {
            // A move that goes on may have brought them before.
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

    /// Tells the persona's home about all relations; how many it did not take.
    pub(super) async fn bring_all(&self, home: &Home) -> Result<usize, ClientError> {
        let untaken = self.bring_relations(home).await?;
        self.folder().update(|state| state.unbrought &= !state.is_home(home.id))?;
        Ok(untaken)
    }

    /// Tells the new home about all relations, also of those that were taken back or only asked for; how many it did
    /// not take. What it knows already is not told again.
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
            Standing::Revoked => Some(self.revocation(contact.id, &request)?.1),
            _ => None,
        };
        let proof = match contact.acceptance.clone() {
            Some(acceptance) => Some(Request::Related(request, acceptance)),
            // Its acceptance, brought later, must not hold there.
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
            // It knows that this was taken back.
            Err(ClientError::Refused(refusal)) if refusal.code == Code::Superseded => return Ok(()),
            // Otherwise the other one could bring the old proof and be believed, also where there was no room for it now.
            Ok(()) | Err(ClientError::Refused(_)) => {}
            result => result?,
        }
        self.ask_patiently(home, Request::Revoke(revocation)).await
    }

    /// Asks again while a home wants fewer requests in a second.
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

/// A registration that will not go better later. Where it was tried before, the home may host the persona, and what has
/// changed since may change again: clocks are set right, and room is made.
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

/// What a home knows of a relation once this was brought to it.
fn mark(contact: &Contact) -> ByteArray<32> {
    let what = (contact.id, contact.standing, &contact.request, &contact.acceptance);
    <[u8; 32]>::from(Sha256::digest(crate::cbor::to_vec(&what))).into()
}
