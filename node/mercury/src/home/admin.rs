//! Requests of the home's owner: invite, ban, expel, read figures, back up.
//!
//! Here: those requests, and the figures. Not here: the effects of a ban on hosting, sessions and mail, and how a
//! backup is made and restored ([`crate::store`]). Path: the owner's session → checked → one batch, or a new
//! directory in the home's own backups.

use super::{Asked, Failure, Home, Reply, refuse};
use crate::id::Id;
use crate::limits::{INVITATION_TIME, MAX_BANS, MAX_BANS_TOLD, MAX_INVITATIONS, MAX_NOTE};
use crate::store::{Batch, Column, Hosted, StoreError, behind};
use crate::wire::{Answer, Code, Refusal};

/// Maximum number of backups within one second.
const BACKUPS_A_SECOND: u32 = 100;

/// Counters since the home was started.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Requests.
    pub(super) requests: u64,
    /// Requests that were refused.
    pub(super) refused: u64,
    /// Requests that failed by an internal fault.
    pub(super) faults: u64,
    /// Log-ins, of hosted personas and of visitors.
    pub(super) log_ins: u64,
    /// Items put into mailboxes.
    pub(super) mail_stored: u64,
    /// Items acknowledged by their recipients.
    pub(super) mail_delivered: u64,
    /// Blobs completed by their last chunk.
    pub(super) blobs_completed: u64,
}

impl Home {
    fn check_owner(&self, asked: &Asked) -> Result<(), Failure> {
        let caller = self.caller(asked)?;
        if self.settings.owner == Some(caller) { Ok(()) } else { Err(Refusal::not_for_you().into()) }
    }

    /// Whether the owner has banned a persona.
    pub(super) fn is_banned(&self, persona: Id) -> Result<bool, StoreError> {
        Ok(self.store.bytes(Column::Bans, persona.digest())?.is_some())
    }

    pub(super) fn invite(&self, asked: &Asked, seconds: u64) -> Result<Reply, Failure> {
        self.check_owner(asked)?;
        if !(1..=INVITATION_TIME).contains(&seconds) {
            return refuse(
                Code::Malformed,
                format!("an invitation for {seconds} s, 1 to {INVITATION_TIME} expected"),
            );
        }
        let now = asked.now.wall;
        let (mut open, mut batch) = (0, Batch::default());
        for row in self.store.rows(Column::Invitations, b"", b"") {
            let (code, until) = row?;
            if <[u8; 8]>::try_from(&*until).is_ok_and(|until| u64::from_be_bytes(until) >= now) {
                open += 1;
            } else {
                batch.delete(Column::Invitations, &code);
            }
        }
        if open >= MAX_INVITATIONS {
            return refuse(Code::Full, format!("{MAX_INVITATIONS} invitations are open"));
        }
        let mut code = [0; 16];
        if getrandom::fill(&mut code).is_err() {
            return refuse(Code::Fault, "the home has no random numbers");
        }
        batch.put_number(Column::Invitations, &code, now.saturating_add(seconds));
        Ok(Reply::Now(Answer::Invitation(code.into()), Some(self.commit(batch)?)))
    }

    pub(super) fn ban(&mut self, asked: &Asked, persona: Id, why: &str) -> Result<Reply, Failure> {
        self.check_owner(asked)?;
        if self.settings.owner == Some(persona) {
            return refuse(Code::Malformed, "the home's owner cannot be banned");
        }
        if why.len() > MAX_NOTE || why.contains(char::is_control) {
            return refuse(
                Code::Malformed,
                format!("a ban's reason is one line of at most {MAX_NOTE} bytes"),
            );
        }
        let new = !self.is_banned(persona)?;
        if new && self.banned >= MAX_BANS {
            return refuse(Code::Full, format!("{MAX_BANS} personas are banned"));
        }
        let mut batch = Batch::default();
        batch.put_bytes(Column::Bans, persona.digest(), why.as_bytes());
        let ticket = self.commit(batch)?;
        self.banned += usize::from(new);
        self.end_all_sessions(persona, None);
        // The directory must drop a banned persona.
        self.moved.push(persona);
        Ok(Reply::done(ticket))
    }

    pub(super) fn unban(&mut self, asked: &Asked, persona: Id) -> Result<Reply, Failure> {
        self.check_owner(asked)?;
        let was = self.is_banned(persona)?;
        let mut batch = Batch::default();
        batch.delete(Column::Bans, persona.digest());
        let ticket = self.commit(batch)?;
        self.banned = self.banned.saturating_sub(usize::from(was));
        self.moved.push(persona);
        Ok(Reply::done(ticket))
    }

    pub(super) fn expel(&mut self, asked: &Asked, persona: Id) -> Result<Reply, Failure> {
        self.check_owner(asked)?;
        // The ban ended its sessions and prevents new ones.
        if !self.is_banned(persona)? {
            return refuse(Code::Malformed, "only a banned persona can be expelled: ban it first");
        }
        let record: Option<Hosted> = self.store.get(Column::Hosted, persona.digest())?;
        let hosted = record.as_ref().is_some_and(|record| record.departure.is_none());
        let mut batch = Batch::default();
        self.forget_all(persona, &mut batch)?;
        batch.delete(Column::Hosted, persona.digest());
        let ticket = self.commit(batch)?;
        if let Some(record) = record {
            self.redirects.forget(persona, &record);
        }
        self.hosted = self.hosted.saturating_sub(usize::from(hosted));
        self.moved.push(persona);
        Ok(Reply::done(ticket))
    }

    pub(super) fn bans(&self, asked: &Asked, after: Option<Id>) -> Result<Reply, Failure> {
        self.check_owner(asked)?;
        let from = after.map_or_else(Vec::new, |after| behind(after.digest()));
        let mut bans = Vec::new();
        for row in self.store.rows(Column::Bans, b"", &from) {
            let (key, why) = row?;
            let Ok(persona) = <[u8; 32]>::try_from(&*key).map(Id::from_digest) else { continue };
            if bans.len() == MAX_BANS_TOLD {
                return Ok(Answer::Bans(bans, true).into());
            }
            bans.push((persona, String::from_utf8_lossy(&why).into_owned()));
        }
        Ok(Answer::Bans(bans, false).into())
    }

    pub(super) fn tell_figures(&self, asked: &Asked) -> Result<Reply, Failure> {
        self.check_owner(asked)?;
        let figures = self.figures().into_iter();
        Ok(Answer::Figures(figures.map(|(name, number)| (name.to_owned(), number)).collect()).into())
    }

    /// The current figures and the counters since the start, by name.
    pub(super) fn figures(&self) -> Vec<(&'static str, u64)> {
        let counted = &self.counters;
        let (sessions, visitors) = self.sessions.figures();
        vec![
            ("hosted", self.hosted as u64),
            ("sessions", sessions),
            ("visitors", visitors),
            ("banned", self.banned as u64),
            ("requests", counted.requests),
            ("refused", counted.refused),
            ("faults", counted.faults),
            ("log_ins", counted.log_ins),
            ("mail_stored", counted.mail_stored),
            ("mail_delivered", counted.mail_delivered),
            ("blobs_completed", counted.blobs_completed),
            ("disk_free_bytes", self.space.free().unwrap_or(0)),
        ]
    }

    pub(super) fn back_up(&self, asked: &Asked) -> Result<Reply, Failure> {
        self.check_owner(asked)?;
        let folder = &self.settings.backups;
        if let Err(error) = std::fs::create_dir_all(folder) {
            tracing::error!("no folder for backups in {}: {error}", folder.display());
            return refuse(Code::Fault, format!("no folder for backups: {error}"));
        }
        // The home chooses the name: no path contains anything from a client.
        let wall = asked.now.wall;
        let mut names = (0..BACKUPS_A_SECOND).map(|number| format!("mercury-{wall}-{number}"));
        let Some(name) = names.find(|name| folder.join(name).symlink_metadata().is_err()) else {
            return refuse(Code::Later, "too many backups in this second");
        };
        self.store.backup(&folder.join(&name))?;
        Ok(Answer::BackedUp(name).into())
    }
}

#[cfg(test)]
mod tests;
