//! Profiles: one's own, and those of others wherever they are hosted.

use minicbor::bytes::ByteArray;

use super::device::Device;
use super::driver::Command;
use super::error::ClientError;
use super::folder::State;
use super::place::Home;
use crate::body::{Attribute, BlobRef, Departure, HomeAddress, Profile};
use crate::envelope::{Envelope, Order, Verified};
use crate::id::Id;
use crate::limits::{MAX_PICTURE, MAX_THUMBNAIL};
use crate::net::directory;
use crate::wire::{Answer, Code, Request};

/// Maximum number of redirects that are followed from one home to the next.
const MAX_MOVES: usize = 4;
/// Maximum number of homes from the directory that are asked.
const MAX_TRIED: usize = 3;

impl Device {
    /// The persona's own profile as it was last set.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn own_profile(&self) -> Result<Option<Verified<Profile>>, ClientError> {
        let Some(envelope) = self.folder().state()?.profile else { return Ok(None) };
        self.verify("the profile in the folder", &envelope, self.id(), self.id()).map(Some)
    }

    /// Changes the persona's profile and sends it to the home. If that is unreachable, [`Self::settle`] sends it
    /// later. Pictures that are no longer shown are deleted, so that they do not use up the quota.
    ///
    /// # Errors
    /// The profile exceeds its limits, or the home is unreachable or refuses.
    pub async fn set_profile(&self, change: impl FnOnce(&mut Profile)) -> Result<(), ClientError> {
        for blob in self.set_profile_at(&self.own_home()?, change).await? {
            // Nothing else refers to it: blobs of messages are encrypted, and never equal.
            if let Err(trouble) = self.discard(*blob.hash).await {
                tracing::warn!("a picture that the profile shows no more stays at the home: {trouble}");
            }
        }
        Ok(())
    }

    /// Returns the pictures that the profile no longer shows.
    pub(super) async fn set_profile_at(
        &self,
        home: &Home,
        change: impl FnOnce(&mut Profile),
    ) -> Result<Vec<BlobRef>, ClientError> {
        let before = self.own_profile()?;
        let mut profile = before.as_ref().map_or_else(|| self.empty_profile(), |one| one.body().clone());
        change(&mut profile);
        profile.attributes.sort_by(|one, other| one.name.cmp(&other.name));
        let least = before.as_ref().map_or(0, version);
        let mut gone: Vec<_> = before.iter().flat_map(|before| pictures_of(before.body())).collect();
        gone.retain(|&blob| pictures_of(&profile).all(|shown| shown != blob));
        let number = self.folder().update(|state| state.next_version(least, super::device::now()))?;
        let envelope = self.sign(self.id(), Order::Sequence(number), &profile);
        self.verify_own::<Profile>("the new profile", &envelope, self.id())?;
        // Store it first: until the home answers, it is not known whether the home has it.
        let replaced = self.folder().update(|state| {
            let replaced = (state.profile.replace(envelope.clone()), state.unshown);
            state.unshown = true;
            replaced
        })?;
        let shown = self.ask_done(home, Request::SetProfile(envelope.clone())).await;
        self.folder().update(|state| match &shown {
            _ if state.profile.as_ref() != Some(&envelope) => {}
            Ok(()) => state.unshown = false,
            Err(ClientError::Refused(refusal)) if !matches!(refusal.code, Code::Later | Code::Fault) => {
                (state.profile, state.unshown) = replaced;
            }
            // The home may have it.
            Err(_) => {}
        })?;
        shown.map(|()| gone)
    }

    /// Sets attributes; those without a value are removed.
    ///
    /// # Errors
    /// As [`Self::set_profile`].
    pub async fn set_attributes(&self, changes: Vec<(String, Option<String>)>) -> Result<(), ClientError> {
        let change = |profile: &mut Profile| {
            for (name, value) in changes {
                profile.attributes.retain(|one| one.name != name);
                profile.attributes.extend(value.map(|value| Attribute { name, value }));
            }
        };
        self.set_profile(change).await
    }

    /// Uploads a picture and a thumbnail, and adds them to the profile.
    ///
    /// # Errors
    /// They are too large, or the home is unreachable or refuses.
    pub async fn set_picture(&self, picture: &[u8], thumbnail: Option<&[u8]>) -> Result<(), ClientError> {
        let check = |what: &str, bytes: &[u8], most: u64| match bytes.len() as u64 {
            size if (1..=most).contains(&size) => Ok(()),
            size => Err(ClientError::Wrong(format!("the {what} has {size} bytes, 1 to {most} expected"))),
        };
        check("picture", picture, MAX_PICTURE)?;
        if let Some(thumbnail) = thumbnail {
            check("thumbnail", thumbnail, MAX_THUMBNAIL)?;
        }
        let picture = self.upload(picture).await?;
        let thumbnail = match thumbnail {
            Some(thumbnail) => Some(self.upload(thumbnail).await?),
            None => None,
        };
        self.set_profile(|profile| (profile.picture, profile.thumbnail) = (Some(picture), thumbnail)).await
    }

    /// Withdraws the profile for good.
    ///
    /// # Errors
    /// As [`Self::set_profile`].
    pub async fn withdraw_profile(&self) -> Result<(), ClientError> {
        self.set_profile(|profile| {
            let encryption_key = profile.encryption_key;
            *profile = Profile { tombstone: true, encryption_key, ..self.empty_profile() };
        })
        .await
    }

    fn empty_profile(&self) -> Profile {
        Profile {
            attributes: Vec::new(),
            encryption_key: ByteArray::from(self.0.sealing.public()),
            picture: None,
            thumbnail: None,
            tombstone: false,
        }
    }

    /// Sends a home the existing profile, or an empty one with the key that messages are encrypted to.
    pub(super) async fn show_profile(&self, home: &Home) -> Result<(), ClientError> {
        let Some(envelope) = self.folder().state()?.profile else {
            return self.set_profile_at(home, |_| ()).await.map(drop);
        };
        match self.ask_done(home, Request::SetProfile(envelope.clone())).await {
            // It has this one already.
            Err(ClientError::Refused(refusal)) if refusal.code == Code::Superseded => {}
            result => result?,
        }
        let shown = |state: &mut State| state.unshown &= state.profile.as_ref() != Some(&envelope);
        Ok(self.folder().update(shown)?)
    }

    /// Downloads the pictures of one's own profile from the home; `None` if it does not provide all of them.
    pub(super) async fn own_pictures(&self, home: &Home) -> Option<Vec<Vec<u8>>> {
        let Some(profile) = self.own_profile().ok()? else { return Some(Vec::new()) };
        let mut pictures = Vec::new();
        for blob in pictures_of(profile.body()) {
            pictures.push(self.download(self.id(), &blob, home).await.ok()?);
        }
        Some(pictures)
    }

    /// A persona's profile, wherever it is hosted.
    ///
    /// # Errors
    /// It is not found, or is invalid.
    pub async fn profile(&self, persona: Id) -> Result<Verified<Profile>, ClientError> {
        self.locate(persona).await.map(|(_, profile)| profile)
    }

    /// A persona's picture, whose size must be as stated.
    ///
    /// # Errors
    /// There is none, it is not found, or it does not match the profile.
    pub async fn picture(&self, persona: Id) -> Result<Vec<u8>, ClientError> {
        let (home, profile) = self.locate(persona).await?;
        let none = || ClientError::Wrong(format!("the profile of {persona} has no picture"));
        let picture: BlobRef = profile.body().picture.ok_or_else(none)?;
        self.download(persona, &picture, &home).await
    }

    /// Finds where a persona is hosted, with its profile: at its last known home, where that redirects to, at our
    /// own home, or where the directory says.
    ///
    /// # Errors
    /// It is not found, or what is found is invalid.
    pub async fn locate(&self, persona: Id) -> Result<(Home, Verified<Profile>), ClientError> {
        let state = self.folder().state()?;
        let known = state.contact(persona).and_then(|contact| contact.home.clone());
        let own = state.home.as_ref();
        let mut lie = None;
        for told in known.iter().chain(own.filter(|own| known.as_ref() != Some(own))) {
            let Ok(home) = Home::from_told(told) else { continue };
            match self.follow(persona, home).await {
                Ok(Some(found)) => return self.keep_found(persona, found),
                Ok(None) => {}
                Err(error @ ClientError::Lie(_)) => lie = Some(error),
                Err(error) => tracing::debug!("{persona} is not found at {}: {error}", told.home),
            }
        }
        for home in self.search(persona).await?.into_iter().take(MAX_TRIED) {
            match self.follow(persona, home).await {
                Ok(Some(found)) => return self.keep_found(persona, found),
                Ok(None) => {}
                Err(error @ ClientError::Lie(_)) => lie = Some(error),
                Err(error) => tracing::debug!("{persona} is not found where the directory says: {error}"),
            }
        }
        Err(lie.unwrap_or(ClientError::NotFound(persona)))
    }

    fn keep_found(
        &self,
        persona: Id,
        (home, profile): (Home, Verified<Profile>),
    ) -> Result<(Home, Verified<Profile>), ClientError> {
        self.folder().update(|state| {
            if state.contact(persona).is_some() {
                state.contact_mut(persona).home = Some(home.address());
            }
            state.see(persona, version(&profile));
        })?;
        Ok((home, profile))
    }

    /// Asks a home, and follows its redirects. `None` if the last home does not know the persona.
    async fn follow(
        &self,
        persona: Id,
        mut home: Home,
    ) -> Result<Option<(Home, Verified<Profile>)>, ClientError> {
        for _ in 0..=MAX_MOVES {
            match self.ask(&home, Request::GetProfile(persona)).await {
                Ok(Answer::Profile(envelope)) => {
                    let profile = self.believe_profile(persona, &envelope)?;
                    return Ok(Some((home, profile)));
                }
                Ok(Answer::Moved(envelope)) => {
                    let left = self.verify::<Departure>("where it went", &envelope, home.id, persona)?;
                    let Some(to) = &left.body().to else { return Ok(None) };
                    home = Home::from_told(to)?;
                }
                Ok(_) => return Err(ClientError::unasked()),
                Err(ClientError::Refused(refusal)) if refusal.code == Code::NotForYou => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::Lie("homes send us from one to the next".to_owned()))
    }

    fn believe_profile(&self, persona: Id, envelope: &Envelope) -> Result<Verified<Profile>, ClientError> {
        let profile = self.verify::<Profile>("the profile", envelope, persona, persona)?;
        let least = self.folder().state()?.newest_seen(persona);
        if version(&profile) < least {
            let found = version(&profile);
            return Err(ClientError::Lie(format!(
                "it shows version {found} of a profile that was {least} before"
            )));
        }
        Ok(profile)
    }

    /// Homes with a proof that they host a persona, most recent first by the persona's own word.
    async fn search(&self, persona: Id) -> Result<Vec<Home>, ClientError> {
        // One's own home is the entry into the directory; without it, the homes that are connected already.
        if let Ok(home) = self.own_home()
            && let Err(error) = self.connect(&home).await
        {
            tracing::debug!("the directory is not entered by our own home: {error}");
        }
        let key = directory::key(persona);
        let found = self.driver(|reply| Command::Search { key, reply }).await?;
        let mut homes: Vec<_> =
            found.iter().filter_map(|bytes| self.believe_record(persona, bytes)).collect();
        homes.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        homes.dedup_by(|one, other| one.1.id == other.1.id);
        Ok(homes.into_iter().map(|(_, home)| home).collect())
    }

    /// A verified record with its age; of several, the greatest age wins.
    fn believe_record(&self, persona: Id, bytes: &[u8]) -> Option<((u64, u64, u64), Home)> {
        let place = directory::read(&self.0.network, persona, bytes, super::device::now()).ok()?;
        let home = Home::from_told(&HomeAddress { home: place.home, addresses: place.addresses }).ok()?;
        Some((place.age, home))
    }

    /// The home of a persona.
    ///
    /// # Errors
    /// As [`Self::locate`].
    pub async fn find(&self, persona: Id) -> Result<Home, ClientError> {
        self.locate(persona).await.map(|(home, _)| home)
    }
}

/// The pictures that a profile shows.
fn pictures_of(profile: &Profile) -> impl Iterator<Item = BlobRef> {
    [profile.picture, profile.thumbnail].into_iter().flatten()
}

/// The version of a profile.
#[must_use]
pub fn version(profile: &Verified<Profile>) -> u64 {
    match profile.order() {
        Order::Sequence(number) => number,
        Order::Nonce(_) => 0,
    }
}
