//! What the owner of a home asks of it.

use super::device::Device;
use super::error::{ClientError, one_line};
use super::place::Home;
use crate::id::Id;
use crate::limits::MAX_BANS;
use crate::wire::{Answer, Request};

impl Device {
    /// An invitation that holds for some seconds.
    ///
    /// # Errors
    /// The home is not reached, or refuses: only its owner may ask.
    pub async fn invite(&self, home: &Home, seconds: u64) -> Result<[u8; 16], ClientError> {
        match self.ask_as_me(home, Request::Invite(seconds)).await? {
            Answer::Invitation(code) => Ok(*code),
            _ => Err(ClientError::unasked()),
        }
    }

    /// Bans a persona from a home, or lets it come again.
    ///
    /// # Errors
    /// As [`Self::invite`].
    pub async fn ban(&self, home: &Home, persona: Id, reason: Option<&str>) -> Result<(), ClientError> {
        let request = reason.map_or(Request::Unban(persona), |why| Request::Ban(persona, why.to_owned()));
        self.ask_done(home, request).await
    }

    /// Lets a home throw away all that it keeps of somebody who is banned.
    ///
    /// # Errors
    /// As [`Self::invite`]; nobody is expelled who is not banned.
    pub async fn expel(&self, home: &Home, persona: Id) -> Result<(), ClientError> {
        self.ask_done(home, Request::Expel(persona)).await
    }

    /// Who is banned from a home, and why.
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

    /// Lets a home copy everything that it keeps; the name of the copy's folder, below the home's backups.
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
