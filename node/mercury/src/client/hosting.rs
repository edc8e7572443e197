//! Hosting of a persona: registering, claiming the proof, leaving. Not here: moves ([`super::moving`]).

use super::device::Device;
use super::error::ClientError;
use super::place::Home;
use crate::body::{HomeAddress, Hosting, Registration};
use crate::envelope::Envelope;
use crate::id::Id;
use crate::wire::{Answer, Request};

impl Device {
    /// Registers at a home, and brings it the folder's relations and the profile: from then on others find the
    /// persona there. Returns the number of relations that the home did not take. If this is interrupted after the
    /// home hosts the persona, [`Self::settle`] completes it.
    ///
    /// # Errors
    /// The home is unreachable, lies, or refuses; or the persona is hosted elsewhere.
    pub async fn register(&self, home: &Home, invitation: Option<[u8; 16]>) -> Result<usize, ClientError> {
        if let Some(here) = self.folder().state()?.home
            && here.home != home.id
        {
            return Err(ClientError::Wrong(format!("hosted at {} already: move instead", here.home)));
        }
        let (address, proof) = self.enroll(home, invitation).await?;
        self.folder().update(|state| {
            state.arrive(address, proof);
            // A home forgets a persona that leaves, including what it was brought before.
            state.brought = None;
            (state.unbrought, state.unshown) = (true, true);
        })?;
        // Relations first: a person who finds the persona by its profile, with an old proof, is then known.
        let untaken = self.bring_all(home).await?;
        self.show_profile(home).await?;
        Ok(untaken)
    }

    /// Registers, and returns the home's address and the proof.
    pub(super) async fn enroll(
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
        // If the home knows us, then as a visitor.
        self.unknown(home);
        Ok((address, (registration, proof)))
    }

    /// Verifies that a home hosts the persona, and that both halves of the proof match.
    fn verify_hosting(&self, home: Id, registration: &Envelope, proof: &Envelope) -> Result<(), ClientError> {
        let proof = self.verify::<Hosting>("the proof that it hosts", proof, self.id(), home)?;
        // The persona's half was short-lived; it was valid when the home counter-signed it.
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

    /// Requests the proof from the home again.
    ///
    /// # Errors
    /// The home is unreachable, lies, or does not host the persona.
    pub async fn claim(&self) -> Result<(), ClientError> {
        let home = self.own_home()?;
        let Answer::Hosting(registration, proof) = self.ask_as_me(&home, Request::Claim).await? else {
            return Err(ClientError::unasked());
        };
        self.verify_hosting(home.id, &registration, &proof)?;
        self.folder().update(|state| state.hosting = Some((registration, proof)))?;
        Ok(())
    }

    /// Leaves the home, which redirects others for fourteen days. A home that is unreachable, or where mail waits,
    /// is left all the same, with a warning: it stays in [`Device::left`] until it knows.
    ///
    /// # Errors
    /// There is no home, or the folder cannot be written.
    pub async fn unregister(&self, to: Option<HomeAddress>) -> Result<(), ClientError> {
        let home = self.own_home()?;
        if to.as_ref().is_some_and(|to| to.home == home.id) {
            return Err(ClientError::Wrong("that is the home that would be left".to_owned()));
        }
        self.folder().update(|state| {
            let now = super::device::now();
            state.give_up_move(now);
            state.hosting = None;
            if let Some(home) = state.home.take() {
                state.leave(home, to, now);
            }
        })?;
        self.forget_session();
        if let Err(error) = self.depart(&home, Some(0)).await {
            tracing::warn!("the home does not know yet that it is left: {error}");
        }
        Ok(())
    }
}
