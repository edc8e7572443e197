//! Relations: requesting, accepting, and revoking.

use super::device::Device;
use super::error::ClientError;
use super::folder::{Contact, Standing, State};
use super::place::Home;
use crate::body::{RelationAcceptance, RelationRequest, RelationRevocation};
use crate::envelope::{Bytes32, Envelope, Verified};
use crate::id::Id;
use crate::limits::{MAX_RELATIONS, MAX_REQUESTS};
use crate::wire::{self, Answer, Request};

/// A relation request that waits for an answer.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The requester.
    pub from: Id,
    envelope: Envelope,
    verified: Verified<RelationRequest>,
}

impl Wish {
    /// The request's content.
    #[must_use]
    pub fn body(&self) -> &RelationRequest {
        self.verified.body()
    }

    pub(super) fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

/// Whether the other persona's home knows too what was done here.
#[derive(Debug)]
pub enum Delivery {
    /// It does.
    Done,
    /// Not yet, with the reason. Repeating the operation delivers it again.
    Later(ClientError),
}

/// A change of a relation found in mail. It is applied once the mail is acknowledged.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The other persona accepted: the request and the acceptance.
    Accepted { other: Id, proof: Box<(Envelope, Envelope)> },
    /// The other persona revoked the request with this hash and all issued up to the revocation's own time.
    Revoked { other: Id, request: Bytes32, issued: u64 },
}

impl Change {
    /// Applies the change. An acceptance applies to the folder's request, unless that has been replaced since; a
    /// revocation applies to whichever request it is of.
    pub(super) fn apply(&self, device: &Device, state: &mut State) {
        match self {
            Self::Accepted { other, proof } => {
                let (request, acceptance) = &**proof;
                let contact = state.contact_mut(*other);
                if contact.request.as_ref() == Some(request) && contact.standing != Standing::Revoked {
                    (contact.standing, contact.acceptance) = (Standing::Held, Some(acceptance.clone()));
                }
            }
            Self::Revoked { other, request, issued } => {
                let contact = state.contact_mut(*other);
                device.end(contact, *request, *issued, Some(*issued));
            }
        }
    }
}

impl Device {
    /// Sends a relation request. The answer comes with the mail.
    ///
    /// # Errors
    /// One's own or the other's home is unreachable or refuses, or the other persona is not found.
    pub async fn relate(&self, persona: Id, label: &str, note: &str) -> Result<(), ClientError> {
        if persona == self.id() {
            return Err(ClientError::Wrong("that is yourself".to_owned()));
        }
        let state = self.folder().state()?;
        if state.holds(persona) {
            return Err(ClientError::Wrong(format!("related to {persona} already")));
        }
        let own = self.own_home()?;
        let home = self.own_address()?;
        let body = RelationRequest { label: label.to_owned(), note: note.to_owned(), home };
        let request = self.sign(persona, Self::nonce()?, &body);
        self.verify_own::<RelationRequest>("the request", &request, persona)?;
        let (theirs, _) = self.locate(persona).await?;
        // First at one's own home, which then expects the answer, provided that it knows who asks. If both have the
        // same home, it has both roles.
        self.know(&own).await?;
        self.ask_done(&own, Request::Relate(request.clone())).await?;
        if theirs.id != own.id {
            self.ask_done(&theirs, Request::Relate(request.clone())).await?;
        }
        self.folder().update(|state| {
            let contact = state.contact_mut(persona);
            contact.standing = Standing::Asked;
            contact.home = Some(theirs.address());
            (contact.request, contact.acceptance) = (Some(request), None);
        })?;
        Ok(())
    }

    /// The waiting requests. Those that the home cannot prove are left out.
    ///
    /// # Errors
    /// The home is unreachable, refuses, or lies.
    pub async fn requests(&self) -> Result<Vec<Wish>, ClientError> {
        self.requests_at(&self.own_home()?).await
    }

    pub(super) async fn requests_at(&self, home: &Home) -> Result<Vec<Wish>, ClientError> {
        let Answer::Requests(all) = self.ask_as_me(home, Request::Requests).await? else {
            return Err(ClientError::unasked());
        };
        if all.len() > MAX_REQUESTS {
            return Err(ClientError::Lie(format!("it shows {} requests at once", all.len())));
        }
        let now = super::device::now();
        let believe = |envelope: Envelope| {
            let verified =
                self.verify_at::<RelationRequest>("a request", &envelope, Some(self.id()), None, now).ok()?;
            Some(Wish { from: verified.signer(), envelope, verified })
        };
        Ok(all.into_iter().filter_map(believe).collect())
    }

    /// Accepts a persona's request: both homes get the proof. If it holds already, both get it again.
    ///
    /// # Errors
    /// There is no such request, or one's own home is unreachable or refuses.
    pub async fn accept(&self, persona: Id) -> Result<Delivery, ClientError> {
        let own = self.own_home()?;
        let (request, acceptance, told) = match self.held_proof(persona)? {
            Some((request, acceptance)) => (request, acceptance, None),
            None => {
                let wishes = self.requests().await?;
                let none = || ClientError::Wrong(format!("no request of {persona} waits"));
                let state = self.folder().state()?;
                let may = |one: &Wish| {
                    let (hash, issued) = (one.verified.hash(), one.verified.issued());
                    state.contact(persona).is_none_or(|contact| contact.may_hold(hash, issued))
                };
                let wish = wishes.into_iter().rev().find(|one| one.from == persona && may(one));
                let wish = wish.ok_or_else(none)?;
                let body = RelationAcceptance { request: wish.verified.hash().into() };
                let acceptance = self.sign(persona, wish.verified.order(), &body);
                (wish.envelope, acceptance, Some(wish.verified.body().home.clone()))
            }
        };
        let proof = Request::Related(request.clone(), acceptance.clone());
        self.ask_done(&own, proof.clone()).await?;
        let accepted = self.kept_request(persona, &request)?;
        self.folder().update(|state| {
            let contact = state.contact_mut(persona);
            // Requests may cross, and another program may have stored the later proof in the meantime.
            let over = contact.standing == Standing::Held
                && self.is_later(contact, (accepted.issued(), accepted.hash()));
            if over || !contact.may_hold(accepted.hash(), accepted.issued()) {
                return;
            }
            contact.standing = Standing::Held;
            contact.home = told.clone().or_else(|| contact.home.take());
            (contact.request, contact.acceptance) = (Some(request), Some(acceptance));
        })?;
        Ok(self.deliver(persona, told.and_then(|told| Home::from_told(&told).ok()), proof).await)
    }

    fn held_proof(&self, persona: Id) -> Result<Option<(Envelope, Envelope)>, ClientError> {
        let state = self.folder().state()?;
        let held = state.contact(persona).filter(|contact| contact.standing == Standing::Held);
        Ok(held.and_then(|contact| contact.request.clone().zip(contact.acceptance.clone())))
    }

    /// Sends something to the other persona's home: the one given in the request, or wherever it is found.
    async fn deliver(&self, persona: Id, told: Option<Home>, what: Request) -> Delivery {
        let own = self.own_home().ok().map(|home| home.id);
        let brought = match &told {
            Some(home) if Some(home.id) != own => {
                self.ask_done(home, what.clone()).await.is_ok().then_some(home.id)
            }
            _ => None,
        };
        // Even if the other persona was at our own home, which knows already: it may have moved since.
        let delivered = async {
            let (home, _) = self.locate(persona).await?;
            let knows = [brought, own].contains(&Some(home.id));
            if knows { Ok(()) } else { self.ask_done(&home, what).await }
        };
        delivered.await.map_or_else(Delivery::Later, |()| Delivery::Done)
    }

    /// Discards a persona's request; nobody is told.
    ///
    /// # Errors
    /// The home is unreachable or refuses.
    pub async fn dismiss(&self, persona: Id) -> Result<(), ClientError> {
        self.ask_done(&self.own_home()?, Request::Dismiss(persona)).await
    }

    /// Revokes a relation. From now on nothing from the other persona is accepted here, whatever homes say.
    ///
    /// # Errors
    /// There is no relation, or one's own home is unreachable or refuses.
    pub async fn revoke(&self, persona: Id) -> Result<Delivery, ClientError> {
        let state = self.folder().state()?;
        let none = || ClientError::Wrong(format!("no relation to {persona}"));
        let request = state.contact(persona).and_then(|one| one.request.clone()).ok_or_else(none)?;
        let now = super::device::now();
        let (verified, revocation) = self.revocation(persona, &request, now)?;
        let upto = now.max(verified.issued());
        self.folder().update(|state| state.contact_mut(persona).take_back(verified.hash(), upto, None))?;
        let own = self.own_home()?;
        self.ask_done(&own, Request::Revoke(revocation.clone())).await?;
        let told = state.contact(persona).and_then(|one| one.home.clone());
        let told = told.and_then(|told| Home::from_told(&told).ok());
        Ok(self.deliver(persona, told, Request::Revoke(revocation)).await)
    }

    /// The request in the folder, and a revocation of it that is dated `issued`: it also ends what was asked up to
    /// then.
    pub(super) fn revocation(
        &self,
        persona: Id,
        request: &Envelope,
        issued: u64,
    ) -> Result<(Verified<RelationRequest>, Envelope), ClientError> {
        let verified = self.kept_request(persona, request)?;
        let body = RelationRevocation { request: verified.hash().into() };
        let revocation = self.sign_at(issued, persona, verified.order(), &body);
        Ok((verified, revocation))
    }

    /// The verified request in the folder, by whichever of the two.
    fn kept_request(&self, other: Id, request: &Envelope) -> Result<Verified<RelationRequest>, ClientError> {
        let (first, second) = self.parties(request, other);
        self.verify("the request in the folder", request, second, first)
    }

    /// The two personas of a request: its signer, by its key, and the other.
    fn parties(&self, request: &Envelope, other: Id) -> (Id, Id) {
        let me = self.id();
        if self.is_mine(request) { (me, other) } else { (other, me) }
    }

    pub(super) fn is_mine(&self, envelope: &Envelope) -> bool {
        envelope.claimed_signer() == self.0.key.public().to_bytes()
    }

    /// All contacts, after merging those that the home has and can prove.
    ///
    /// # Errors
    /// The home is unreachable, refuses, or lies.
    pub async fn relations(&self) -> Result<Vec<Contact>, ClientError> {
        self.relations_at(&self.own_home()?).await
    }

    pub(super) async fn relations_at(&self, home: &Home) -> Result<Vec<Contact>, ClientError> {
        let (mut after, mut count) = (None, 0);
        loop {
            let request = Request::Relations(after);
            let Answer::Relations(page, more) = self.ask_as_me(home, request).await? else {
                return Err(ClientError::unasked());
            };
            let (mut changes, mut ordered) = (Vec::new(), true);
            for relation in &page {
                ordered = after.is_none_or(|last| relation.other > last);
                if !ordered {
                    break;
                }
                after = Some(relation.other);
                count += 1;
                match self.take_over(relation) {
                    Ok(change) => changes.push(change),
                    Err(error) => {
                        tracing::warn!("the home's word on the relation to {}: {error}", relation.other);
                    }
                }
            }
            self.folder().update(|state| changes.into_iter().for_each(|change| change(state)))?;
            if !ordered {
                return Err(ClientError::Lie("its relations are in no order".to_owned()));
            }
            if !more || page.is_empty() {
                return Ok(self.folder().state()?.contacts);
            }
            if count > 2 * MAX_RELATIONS {
                return Err(ClientError::Lie("its relations have no end".to_owned()));
            }
        }
    }

    /// What a home proves about a relation, as a change of the state; a page of them is applied at once.
    fn take_over<'a>(
        &self,
        relation: &'a wire::Relation,
    ) -> Result<impl FnOnce(&mut State) + use<'_, 'a>, ClientError> {
        let other = relation.other;
        let (first, second) = self.parties(&relation.request, other);
        let request = self.verify::<RelationRequest>("a request", &relation.request, second, first)?;
        let mut standing = Standing::Asked;
        if let Some(acceptance) = &relation.acceptance {
            let acceptance = self.verify::<RelationAcceptance>("an acceptance", acceptance, first, second)?;
            if *acceptance.body().request != request.hash() || acceptance.order() != request.order() {
                return Err(ClientError::Lie("an acceptance of another request".to_owned()));
            }
            standing = Standing::Held;
        } else if first == other {
            return Err(ClientError::Lie("a request of somebody else's as a relation".to_owned()));
        }
        let mut revoked = None;
        if let Some(revocation) = &relation.revocation {
            let (by, issued) = self.believe_revocation(revocation, other, &request)?;
            standing = Standing::Revoked;
            revoked = Some((issued.max(request.issued()), (by == other).then_some(issued)));
        }
        let hash = request.hash();
        Ok(move |state: &mut State| {
            let contact = state.contact_mut(other);
            if contact.standing == Standing::Held && self.is_later(contact, (request.issued(), hash)) {
                if let Some((upto, left)) = revoked {
                    self.end(contact, hash, upto, left);
                }
                return;
            }
            let over = !contact.may_hold(hash, request.issued());
            if over || (standing == Standing::Asked && contact.standing == Standing::Held) {
                return;
            }
            match revoked {
                Some((upto, left)) => contact.take_back(hash, upto, left),
                None => contact.standing = standing,
            }
            if contact.home.is_none() && first == other {
                contact.home = Some(request.body().home.clone());
            }
            contact.request = Some(relation.request.clone());
            contact.acceptance.clone_from(&relation.acceptance);
        })
    }

    /// The hash and issue time of the request by which a contact's relation holds.
    fn held_request(&self, contact: &Contact) -> Option<([u8; 32], u64)> {
        let request = self.kept_request(contact.id, contact.request.as_ref()?).ok()?;
        Some((request.hash(), request.issued()))
    }

    /// Whether a relation holds by a later request than this one: of two the later one wins, as at homes.
    fn is_later(&self, contact: &Contact, (issued, hash): (u64, [u8; 32])) -> bool {
        self.held_request(contact).is_some_and(|(held, since)| (since, held) > (issued, hash))
    }

    /// Applies a revocation as homes do: it ends the named request and all issued up to its time; later ones
    /// continue. `left` is its time if the other persona revoked.
    fn end(&self, contact: &mut Contact, named: Bytes32, issued: u64, left: Option<u64>) {
        let Some((held, since)) = self.held_request(contact) else { return };
        // A slow clock does not keep a revocation from ending the request it names.
        let upto = if held == named { issued.max(since) } else { issued };
        if since <= upto {
            contact.take_back(named, upto, left);
        } else {
            contact.revoked_upto = contact.revoked_upto.max(Some(upto));
        }
    }

    /// Verifies a revocation: who revoked and when. It must be of this request, or of another between the two and
    /// later than this.
    fn believe_revocation(
        &self,
        envelope: &Envelope,
        other: Id,
        request: &Verified<RelationRequest>,
    ) -> Result<(Id, u64), ClientError> {
        let (first, second) = self.parties(envelope, other);
        let revocation = self.verify::<RelationRevocation>("a revocation", envelope, second, first)?;
        if *revocation.body().request != request.hash() && revocation.issued() < request.issued() {
            return Err(ClientError::Lie("a revocation of another relation".to_owned()));
        }
        Ok((revocation.signer(), revocation.issued()))
    }

    /// Verifies an acceptance from the mail at a given time: its hash and its change. Requests may cross: an
    /// acceptance of another request than the one by which the relation holds, or held, changes nothing.
    pub(super) fn take_acceptance(
        &self,
        state: &State,
        envelope: &Envelope,
        at: u64,
    ) -> Result<(Bytes32, Option<Change>), ClientError> {
        let me = Some(self.id());
        let acceptance = self.verify_at::<RelationAcceptance>("an acceptance", envelope, me, None, at)?;
        let other = acceptance.signer();
        let none = || ClientError::Lie(format!("an acceptance of {other}, who was not asked"));
        let contact = state.contact(other).ok_or_else(none)?;
        let request = contact.request.clone().ok_or_else(none)?;
        let asked = self.kept_request(other, &request)?;
        let is_of_it = *acceptance.body().request == asked.hash();
        let answered = matches!(contact.standing, Standing::Held | Standing::Revoked);
        if answered && !(is_of_it && contact.may_hold(asked.hash(), asked.issued())) {
            return Ok((acceptance.hash(), None));
        }
        if !is_of_it || asked.signer() != self.id() || acceptance.order() != asked.order() {
            return Err(none());
        }
        let change = Change::Accepted { other, proof: Box::new((request, envelope.clone())) };
        Ok((acceptance.hash(), Some(change)))
    }

    /// Verifies a revocation from the mail at a given time: its hash and its change.
    pub(super) fn take_revocation(
        &self,
        state: &State,
        envelope: &Envelope,
        at: u64,
    ) -> Result<(Bytes32, Change), ClientError> {
        let me = Some(self.id());
        let revocation = self.verify_at::<RelationRevocation>("a revocation", envelope, me, None, at)?;
        let other = revocation.signer();
        if state.contact(other).is_none_or(|one| one.request.is_none()) {
            return Err(ClientError::Lie(format!("a revocation of {other}, who is no contact")));
        }
        let change =
            Change::Revoked { other, request: *revocation.body().request, issued: revocation.issued() };
        Ok((revocation.hash(), change))
    }
}
