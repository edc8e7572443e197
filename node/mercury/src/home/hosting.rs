//! Hosting: registration with the home's counter-signature, claiming the proof again, and leaving with a redirect.

use minicbor::bytes::ByteVec;

use super::{Asked, Failure, Home, Reply, nonce, refuse};
use crate::body::{self, Contact, Departure, Registration};
use crate::envelope::{Body, Envelope, Order};
use crate::id::Id;
use crate::limits::{MAX_HOSTED, REDIRECT_TIME, REDIRECTS_FOR_EACH};
use crate::net::directory::Entry;
use crate::store::{Batch, Column, Hosted, StoreError, behind};
use crate::wire::{About, Answer, Code, Hosting};

/// Columns whose keys begin with their owner; all these rows are deleted when the owner leaves.
const OWNED: [Column; 9] = [
    Column::Profiles,
    Column::Relations,
    Column::Requests,
    Column::Boxes,
    Column::Mail,
    Column::Senders,
    Column::Seen,
    Column::Blobs,
    Column::Chunks,
];

impl Home {
    pub(super) fn about(&self, asked: &Asked) -> Answer {
        Answer::About(About {
            network: self.settings.network.clone(),
            contact: self.contact(asked.now.wall),
            hosting: self.settings.hosting,
            time: asked.now.wall,
        })
    }

    /// The home's signed contact.
    #[must_use]
    pub fn contact(&self, wall: u64) -> Envelope {
        let body = Contact { addresses: self.settings.addresses.clone() };
        self.sign(self.id, Order::Sequence(wall), wall, &body)
    }

    /// Signs something that the home itself made; a client determines nothing in it except by a hash.
    fn sign<B: Body>(&self, about: Id, order: Order, wall: u64, body: &B) -> Envelope {
        let times = (wall, wall.saturating_add(B::LIFE));
        Envelope::sign(&self.key, &self.settings.network, about, order, times, body)
    }

    pub(super) fn register(&mut self, asked: &Asked, registration: &Envelope) -> Result<Reply, Failure> {
        let verified = self.verify::<Registration>(asked, registration, Some(self.id), None)?;
        self.spend_challenge(asked, nonce(&verified)?)?;
        let persona = verified.signer();
        self.check_not_banned(persona)?;
        let before: Option<Hosted> = self.store.get(Column::Hosted, persona.digest())?;
        if let Some(record) = before.as_ref().filter(|record| record.departure.is_none()) {
            return Ok(hosting(record)?.into());
        }
        let mut batch = Batch::default();
        self.admit(asked, verified.body(), &mut batch)?;
        let wall = asked.now.wall;
        let body = body::Hosting { registration: verified.hash().into() };
        let proof = self.sign(persona, Order::Sequence(wall), wall, &body);
        let record = Hosted {
            proof: proof.to_bytes().into(),
            registration: verified.bytes().to_vec().into(),
            since: wall,
            departure: None,
            redirect_until: 0,
            blob_bytes: 0,
            blobs: 0,
            relations: 0,
            revoked: 0,
            forgotten: 0,
        };
        batch.put(Column::Hosted, persona.digest(), &record);
        let ticket = self.commit(batch)?;
        if let Some(before) = before {
            self.redirects.forget(persona, &before);
        }
        self.hosted += 1;
        self.moved.push(persona);
        Ok(Reply::Now(Answer::Hosting(registration.clone(), proof), Some(ticket)))
    }

    /// Checks whether a new persona is accepted, and uses up its invitation.
    fn admit(&self, asked: &Asked, body: &Registration, batch: &mut Batch) -> Result<(), Failure> {
        match (self.settings.hosting, &body.invitation) {
            (Hosting::Closed, _) => return refuse(Code::Closed, "this home takes nobody new"),
            (Hosting::Invited, None) => return refuse(Code::Closed, "this home takes invited personas only"),
            (Hosting::Invited, Some(code)) => match self.store.number(Column::Invitations, &code[..])? {
                Some(until) if until >= asked.now.wall => batch.delete(Column::Invitations, &code[..]),
                _ => return refuse(Code::Closed, "no such invitation, or it was used or has expired"),
            },
            (Hosting::Open, _) => {}
        }
        if self.hosted >= self.max_hosted() {
            return refuse(Code::Full, "this home is full");
        }
        Ok(())
    }

    fn max_hosted(&self) -> usize {
        self.settings.max_hosted.min(MAX_HOSTED)
    }

    pub(super) fn claim(&self, asked: &Asked) -> Result<Reply, Failure> {
        let record = self.hosted_record(self.hosted_caller(asked)?)?;
        record.map_or_else(
            || refuse(Code::LogInFirst, "not hosted here"),
            |record| Ok(hosting(&record)?.into()),
        )
    }

    pub(super) fn unregister(
        &mut self,
        asked: &Asked,
        departure: &Envelope,
        upto: Option<u64>,
    ) -> Result<Reply, Failure> {
        let verified = self.verify::<Departure>(asked, departure, Some(self.id), None)?;
        self.spend_challenge(asked, nonce(&verified)?)?;
        let persona = verified.signer();
        // Signed before the persona came back, or by mistake: it would have no home.
        if verified.body().to.as_ref().is_some_and(|to| to.home == self.id) {
            return refuse(Code::Malformed, "the new home is this one");
        }
        let Some(mut record) = self.hosted_record(persona)? else {
            return refuse(Code::NotForYou, "not hosted here");
        };
        // Mail that arrived after the last fetch would be lost, although its sender was told that it is stored.
        if let Some(upto) = upto
            && !self.mail_after(persona, upto, asked.now.wall)?.0.is_empty()
        {
            return refuse(Code::Superseded, "newer mail waits: fetch it first");
        }
        record.departure = Some(ByteVec::from(verified.bytes().to_vec()));
        record.redirect_until = asked.now.wall.saturating_add(REDIRECT_TIME);
        (record.blob_bytes, record.blobs, record.relations) = (0, 0, 0);
        (record.revoked, record.forgotten) = (0, 0);
        // These are no longer needed.
        (record.proof, record.registration) = (Vec::new().into(), Vec::new().into());
        let mut batch = Batch::default();
        batch.put(Column::Hosted, persona.digest(), &record);
        // Possibly this one: a persona that was hosted only briefly leaves without a redirect.
        let most = self.max_hosted() * REDIRECTS_FOR_EACH;
        for gone in self.redirects.beyond(most, persona, &record) {
            batch.delete(Column::Hosted, gone.digest());
        }
        self.forget_all(persona, &mut batch)?;
        // While the relations still exist, so that related people are told.
        self.end_all_sessions(persona, Some(asked.from));
        let ticket = self.commit(batch)?;
        // Only after it is written: if leaving fails, the persona is still hosted and must not displace another
        // redirect.
        self.redirects.note(persona, &record);
        self.redirects.drop_beyond(most);
        self.hosted = self.hosted.saturating_sub(1);
        self.moved.push(persona);
        Ok(Reply::done(ticket))
    }

    /// Deletes everything of a persona except the record that it is or was hosted.
    pub(super) fn forget_all(&self, persona: Id, batch: &mut Batch) -> Result<(), StoreError> {
        for column in OWNED {
            for row in self.store.rows(column, persona.digest(), b"") {
                batch.delete(column, &row?.0);
            }
        }
        Ok(())
    }

    /// The departure of a persona that was hosted here.
    pub(super) fn redirect(&self, asked: &Asked, persona: Id) -> Result<Option<Envelope>, Failure> {
        let record: Option<Hosted> = self.store.get(Column::Hosted, persona.digest())?;
        match record {
            Some(Hosted { departure: Some(departure), redirect_until, .. })
                if redirect_until >= asked.now.wall =>
            {
                Ok(Some(Envelope::from_bytes(&departure)?))
            }
            _ => Ok(None),
        }
    }

    /// Personas that came or left since the last call, for the directory.
    pub(crate) fn moved(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.moved)
    }

    /// The directory record of a persona that is hosted here and not banned.
    pub(crate) fn entry(&self, persona: Id, wall: u64) -> Result<Option<Entry>, StoreError> {
        if self.is_banned(persona)? {
            return Ok(None);
        }
        let Some(record) = self.hosted_record(persona)? else { return Ok(None) };
        let halves = (Envelope::from_bytes(&record.registration), Envelope::from_bytes(&record.proof));
        let (Ok(registration), Ok(hosting)) = halves else { return Ok(None) };
        Ok(Some(Entry { registration, hosting, contact: self.contact(wall) }))
    }

    /// At most that many of the personas hosted here, in order, after the given one.
    pub(crate) fn hosted_after(&self, after: Option<Id>, most: usize) -> Vec<Id> {
        let from = after.map_or_else(Vec::new, |after| behind(after.digest()));
        let rows = self.store.rows(Column::Hosted, b"", &from).flatten();
        let here = rows.filter_map(|(key, value)| {
            let record: Hosted = self.store.record(Column::Hosted, &value).ok()?;
            record.departure.is_none().then(|| Some(Id::from_digest((*key).try_into().ok()?)))?
        });
        here.take(most).collect()
    }

    pub(super) fn check_not_banned(&self, persona: Id) -> Result<(), Failure> {
        if self.is_banned(persona)? { refuse(Code::Closed, "this persona is banned here") } else { Ok(()) }
    }
}

fn hosting(record: &Hosted) -> Result<Answer, Failure> {
    Ok(Answer::Hosting(Envelope::from_bytes(&record.registration)?, Envelope::from_bytes(&record.proof)?))
}

#[cfg(test)]
mod tests;
