//! Where a persona is hosted: registering, proving it, leaving, moving.

use super::device::Device;
use super::error::ClientError;
use super::folder::Standing;
use super::place::Home;
use crate::body::{Departure, HomeAddress, Hosting, Registration};
use crate::envelope::{Envelope, Order};
use crate::id::Id;
use crate::wire::{Answer, Request};

impl Device {
    /// Registers at a home and shows it the profile: from then on others find the persona there.
    ///
    /// # Errors
    /// The home is not reached, is not to be believed, or refuses; or the persona is hosted elsewhere.
    pub async fn register(&self, home: &Home, invitation: Option<[u8; 16]>) -> Result<(), ClientError> {
        if let Some(here) = self.folder().state()?.home
            && here.home != home.id
        {
            return Err(ClientError::Wrong(format!("hosted at {} already: move instead", here.home)));
        }
        let (address, proof) = self.enroll(home, invitation).await?;
        self.folder().update(|state| {
            state.home = Some(address);
            state.hosting = Some(proof);
        })?;
        self.show_profile(home).await
    }

    /// Registers, and gives back where the home is reached and the proof.
    async fn enroll(
        &self,
        home: &Home,
        invitation: Option<[u8; 16]>,
    ) -> Result<(HomeAddress, (Envelope, Envelope)), ClientError> {
        let (_, address) = self.about(home).await?;
        let order = self.challenge(home).await?;
        let body = Registration { invitation: invitation.map(Into::into) };
        let registration = self.sign(home.id, order, &body);
        let Answer::Hosting(registration, proof) = self.ask(home, Request::Register(registration)).await?
        else {
            return Err(ClientError::unasked());
        };
        self.verify_hosting(home.id, &registration, &proof)?;
        // If it knows us, then as a visitor.
        self.unknown(home);
        Ok((address, (registration, proof)))
    }

    /// Verifies that a home hosts the persona: both halves belong together.
    fn verify_hosting(&self, home: Id, registration: &Envelope, proof: &Envelope) -> Result<(), ClientError> {
        let proof = self.verify::<Hosting>("the proof that it hosts", proof, self.id(), home)?;
        // The persona's half was short-lived; the home counter-signed it while it held.
        let half = self.verify_at::<Registration>(
            "the persona's half of the proof",
            registration,
            Some(home),
            Some(self.id()),
            proof.issued(),
        )?;
        if *proof.body().registration != half.hash() {
            return Err(ClientError::Lie("the halves of its proof do not belong together".to_owned()));
        }
        Ok(())
    }

    /// Asks the home for the proof again.
    ///
    /// # Errors
    /// The home is not reached, is not to be believed, or does not host the persona.
    pub async fn claim(&self) -> Result<(), ClientError> {
        let home = self.own_home()?;
        let Answer::Hosting(registration, proof) = self.ask_as_me(&home, Request::Claim).await? else {
            return Err(ClientError::unasked());
        };
        self.verify_hosting(home.id, &registration, &proof)?;
        self.folder().update(|state| state.hosting = Some((registration, proof)))?;
        Ok(())
    }

    /// Leaves the home. Whoever asks there is told where to, for fourteen days. A home that is not reached or refuses
    /// is left all the same, with a warning: it goes on hosting what nobody asks for any more.
    ///
    /// # Errors
    /// The home is not to be believed, or the folder is not written.
    pub async fn unregister(&self, to: Option<HomeAddress>) -> Result<(), ClientError> {
        let home = self.own_home()?;
        match self.depart(&home, to).await {
            Err(error) if error.is_of_home() => {
                tracing::warn!("the home does not know that it is left: {error}")
            }
            result => result?,
        }
        self.forget_session();
        self.folder().update(|state| {
            state.home = None;
            state.hosting = None;
        })?;
        Ok(())
    }

    async fn depart(&self, home: &Home, to: Option<HomeAddress>) -> Result<(), ClientError> {
        let order = self.challenge(home).await?;
        let departure = self.sign(home.id, order, &Departure { to });
        self.unknown(home);
        match self.ask(home, Request::Unregister(departure, None)).await? {
            Answer::Done => Ok(()),
            _ => Err(ClientError::unasked()),
        }
    }

    /// Moves to another home: registers there, shows the profile and the proofs of relations there, and leaves the old
    /// home with a redirect. Mail that waits at the old home has to be taken before: what comes between goes with it.
    /// Gives back how many proofs were not taken by the new home, and whether the old one knows of the move.
    ///
    /// # Errors
    /// The new home is not reached, is not to be believed or refuses: then nothing has changed.
    pub async fn move_to(&self, home: &Home, invitation: Option<[u8; 16]>) -> Result<Moved, ClientError> {
        let old = self.own_home()?;
        if old.id == home.id {
            return Err(ClientError::Wrong("hosted there already".to_owned()));
        }
        let pictures = self.own_pictures(&old).await;
        let (address, proof) = self.enroll(home, invitation).await?;
        self.log_out().await.unwrap_or_else(|error| tracing::debug!("not logged out: {error}"));
        let unproven = self.carry_relations(home).await?;
        self.folder().update(|state| {
            state.home = Some(address.clone());
            state.hosting = Some(proof);
        })?;
        match pictures {
            Some(pictures) => {
                for picture in &pictures {
                    self.upload(picture).await?;
                }
                self.show_profile(home).await?;
            }
            None => {
                tracing::warn!("the old home does not give the pictures: the profile goes on without them");
                self.set_profile(|profile| (profile.picture, profile.thumbnail) = (None, None)).await?;
            }
        }
        let left = self.depart(&old, Some(address)).await;
        Ok(Moved { unproven, left })
    }

    /// Tells the new home about all relations, also of those that were taken back; how many it did not take.
    async fn carry_relations(&self, home: &Home) -> Result<usize, ClientError> {
        let mut unproven = 0;
        self.know(home).await?;
        for contact in self.folder().state()?.contacts {
            if !matches!(contact.standing, Standing::Held | Standing::Revoked) {
                continue;
            }
            let (Some(request), Some(acceptance)) = (contact.request, contact.acceptance) else { continue };
            // Otherwise the other one could bring the old proof and be believed.
            let revocation = match contact.standing {
                Standing::Revoked => Some(self.revocation(contact.id, &request)?.1),
                _ => None,
            };
            let mut done = self.ask_done(home, Request::Related(request, acceptance)).await;
            if let (Ok(()), Some(revocation)) = (&done, revocation) {
                done = self.ask_done(home, Request::Revoke(revocation)).await;
            }
            match done {
                Ok(()) => {}
                Err(ClientError::Refused(refusal)) => {
                    tracing::warn!("the relation to {} is not taken: {refusal}", contact.id);
                    unproven += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(unproven)
    }

    /// A fresh order for something of which the newest counts.
    pub(super) fn next_version(before: Option<Order>) -> Order {
        let least = match before {
            Some(Order::Sequence(number)) => number.saturating_add(1),
            _ => 1,
        };
        // By the clock, so that a folder that was put back from a copy does not begin again at what is there already.
        Order::Sequence(least.max(super::device::now()))
    }
}

/// What a move left undone.
#[derive(Debug)]
pub struct Moved {
    /// Relations that the new home did not take.
    pub unproven: usize,
    /// Whether the old home tells where to; if not, others find the new home by the directory of homes.
    pub left: Result<(), ClientError>,
}
