//! Requests of a home's owner.

use super::device::Device;
use super::error::{ClientError, one_line};
use super::place::Home;
use crate::id::Id;
use crate::limits::MAX_BANS;
use crate::wire::{Answer, Request};

impl Device {
    /// Makes an invitation that is valid for this many seconds.
    ///
    /// # Errors
    /// The home is unreachable, or refuses: only its owner may ask.
    pub async fn invite(&self, home: &Home, seconds: u64) -> Result<[u8; 16], ClientError> {
        match self.ask_as_me(home, Request::Invite(seconds)).await? {
            Answer::Invitation(code) => Ok(*code),
            _ => Err(ClientError::unasked()),
        }
    }

    /// Bans a persona from a home with a reason, or without one unbans it.
    ///
    /// # Errors
    /// As [`Self::invite`].
    pub async fn ban(&self, home: &Home, persona: Id, reason: Option<&str>) -> Result<(), ClientError> {
        let request = reason.map_or(Request::Unban(persona), |why| Request::Ban(persona, why.to_owned()));
        self.ask_done(home, request).await
    }

    /// Deletes everything that a home keeps of a banned persona.
    ///
    /// # Errors
    /// As [`Self::invite`]; the home also refuses if the persona is not banned.
    pub async fn expel(&self, home: &Home, persona: Id) -> Result<(), ClientError> {
        self.ask_done(home, Request::Expel(persona)).await
    }

    /// The personas banned from a home, with reasons.
    ///
    /// # Errors
    /// As [`Self::invite`].
    pub async fn bans(&self, home: &Home) -> Result<Vec<(Id, String)>, ClientError> {
        let mut all: Vec<(Id, String)> = Vec::new();
        loop {
            let after = all.last().map(|(id, _)| *id);
            let Answer::Bans(page, more) = self.ask_as_me(home, Request::Bans(after)).await? else {
                return Err(ClientError::unasked());
            };
            let upward = page.iter().try_fold(after, |last, (id, _)| (Some(*id) > last).then_some(Some(*id)));
            if upward.is_none() || all.len() + page.len() > MAX_BANS {
                return Err(ClientError::Lie("its bans are in no order, or have no end".to_owned()));
            }
            let last = !more || page.is_empty();
            all.extend(page.into_iter().map(|(id, why)| (id, one_line(&why))));
            if last {
                return Ok(all);
            }
        }
    }

    /// Figures of a home.
    ///
    /// # Errors
    /// As [`Self::invite`].
    pub async fn figures(&self, home: &Home) -> Result<Vec<(String, u64)>, ClientError> {
        match self.ask_as_me(home, Request::Figures).await? {
            Answer::Figures(figures) => {
                Ok(figures.into_iter().map(|(name, value)| (one_line(&name), value)).collect())
            }
            _ => Err(ClientError::unasked()),
        }
    }

    /// Makes a home copy all its data; returns the name of the copy's directory in the home's backups.
    ///
    /// # Errors
    /// As [`Self::invite`].
    pub async fn back_up(&self, home: &Home) -> Result<String, ClientError> {
        match self.ask_as_me(home, Request::BackUp).await? {
            Answer::BackedUp(name) => Ok(one_line(&name)),
            _ => Err(ClientError::unasked()),
        }
    }
}
