//! Sessions: which persona is logged in at which device, and who may know.
//!
//! Here: challenges, log-in, log-out, applications, presence. Not here: connections; a device is its peer id. Path:
//! challenge → log-in signed with it → session, and presence for related people → end.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::relations::other_of;
use super::{Asked, Failure, Home, Reply, nonce, refuse};
use crate::body::{Login, is_label};
use crate::envelope::{Bytes32, Envelope};
use crate::id::Id;
use crate::limits::{
    CHALLENGE_TIME, MAX_APPLICATIONS, MAX_ASKED, MAX_DEVICES, MAX_FETCH_BYTES, MAX_LABEL, MAX_SESSIONS,
    MAX_VISITORS,
};
use crate::store::{Column, Relation, RelationState, StoreError, Ticket, pair};
use crate::wire::{Answer, Code, Event, Presence, Refusal};

/// The logged-in devices, and open challenges.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_device: HashMap<PeerId, Session>,
    /// How many of the sessions are visitors'.
    visitors: usize,
    /// The devices of each persona, the oldest session first.
    devices: HashMap<Id, Vec<PeerId>>,
    /// At most one per connected device; removed with its connection or when spent.
    challenges: HashMap<PeerId, (Bytes32, Instant)>,
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) persona: Id,
    /// Whether the persona is hosted here; otherwise it is a visitor.
    pub(super) hosted: bool,
    pub(super) applications: Vec<String>,
}

impl Sessions {
    pub(super) fn of(&self, device: PeerId) -> Option<&Session> {
        self.by_device.get(&device)
    }

    pub(super) fn devices(&self, persona: Id) -> &[PeerId] {
        self.devices.get(&persona).map_or(&[], Vec::as_slice)
    }

    /// Devices at which a persona is logged in as hosted here.
    pub(super) fn hosted_devices(&self, persona: Id) -> Vec<PeerId> {
        let hosted = |device: &&PeerId| self.by_device.get(*device).is_some_and(|session| session.hosted);
        self.devices(persona).iter().filter(hosted).copied().collect()
    }

    /// Those of them that take calls of an application.
    pub(super) fn hosted_devices_with(&self, persona: Id, application: &str) -> Vec<PeerId> {
        let announces = |device: &PeerId| {
            let session = self.by_device.get(device);
            session.is_some_and(|session| session.applications.iter().any(|name| name == application))
        };
        self.hosted_devices(persona).into_iter().filter(announces).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.by_device.len()
    }

    /// Number of devices of hosted personas, and of visitors.
    pub(super) fn figures(&self) -> (u64, u64) {
        let visitors = self.visitors as u64;
        (self.by_device.len() as u64 - visitors, visitors)
    }

    fn insert(&mut self, device: PeerId, session: Session) {
        self.devices.entry(session.persona).or_default().push(device);
        self.visitors += usize::from(!session.hosted);
        self.by_device.insert(device, session);
    }

    fn remove(&mut self, device: PeerId) -> Option<Session> {
        let session = self.by_device.remove(&device)?;
        self.visitors -= usize::from(!session.hosted);
        if let Some(devices) = self.devices.get_mut(&session.persona) {
            devices.retain(|other| *other != device);
            if devices.is_empty() {
                self.devices.remove(&session.persona);
            }
        }
        Some(session)
    }

    /// Removes everything about a device without a connection.
    pub(super) fn forget(&mut self, device: PeerId) {
        self.challenges.remove(&device);
    }

    /// The applications of a persona, at most [`MAX_APPLICATIONS`], the newest devices' first. `None` if it is
    /// offline.
    fn presence(&self, persona: Id) -> Option<Vec<String>> {
        let devices = self.devices.get(&persona)?.iter().rev();
        let mut sessions = devices.filter_map(|device| self.by_device.get(device)).filter(|one| one.hosted);
        let mut applications = sessions.next()?.applications.clone();
        applications.extend(sessions.flat_map(|session| session.applications.iter().cloned()));
        let mut told = BTreeSet::new();
        for name in applications {
            if told.len() == MAX_APPLICATIONS {
                break;
            }
            told.insert(name);
        }
        Some(told.into_iter().collect())
    }
}

impl Home {
    pub(super) fn challenge(&mut self, asked: &Asked) -> Result<Reply, Failure> {
        let mut challenge = [0; 32];
        if getrandom::fill(&mut challenge).is_err() {
            return refuse(Code::Fault, "the home has no random numbers");
        }
        self.sessions.challenges.insert(asked.from, (challenge, asked.now.instant));
        Ok(Answer::Challenge(challenge.into()).into())
    }

    /// Spends a challenge: it is valid once, for the device that asked for it, within its time.
    pub(super) fn spend_challenge(&mut self, asked: &Asked, nonce: Bytes32) -> Result<(), Failure> {
        let time = Duration::from_secs(CHALLENGE_TIME);
        match self.sessions.challenges.remove(&asked.from) {
            Some((challenge, since)) if challenge == nonce && asked.now.instant < since + time => Ok(()),
            _ => refuse(
                Code::Envelope,
                "the nonce is not this device's challenge, or that was used or is too old",
            ),
        }
    }

    pub(super) fn log_in(
        &mut self,
        asked: &Asked,
        login: &Envelope,
        applications: Vec<String>,
    ) -> Result<Reply, Failure> {
        check_applications(&applications)?;
        let verified = self.verify::<Login>(asked, login, Some(self.id), None)?;
        self.spend_challenge(asked, nonce(&verified)?)?;
        if verified.body().device[..] != asked.from.to_bytes() {
            return refuse(Code::Envelope, "a log-in at another device");
        }
        let persona = verified.signer();
        self.check_not_banned(persona)?;
        let hosted = self.hosted_record(persona)?.is_some();
        self.end_session(asked.from);
        if self.sessions.count() >= MAX_SESSIONS || (!hosted && self.sessions.visitors >= MAX_VISITORS) {
            return refuse(Code::Full, "too many devices are logged in");
        }
        if self.sessions.devices(persona).len() >= MAX_DEVICES {
            let oldest = self.sessions.devices(persona)[0];
            self.end_session(oldest);
            self.tell(oldest, Event::Ended, None);
        }
        self.counters.log_ins += 1;
        self.sessions.insert(asked.from, Session { persona, hosted, applications });
        if hosted {
            self.permits.allow_reservation(asked.from);
            self.tell_presence(persona)?;
        }
        Ok(Answer::Session(hosted).into())
    }

    pub(super) fn log_out(&mut self, asked: &Asked) -> Reply {
        self.end_session(asked.from);
        Answer::Done.into()
    }

    pub(super) fn announce(&mut self, asked: &Asked, applications: Vec<String>) -> Result<Reply, Failure> {
        check_applications(&applications)?;
        let persona = self.hosted_caller(asked)?;
        if let Some(session) = self.sessions.by_device.get_mut(&asked.from) {
            session.applications = applications;
        }
        self.tell_presence(persona)?;
        Ok(Answer::Done.into())
    }

    pub(super) fn presence(&self, asked: &Asked, personas: &[Id]) -> Result<Reply, Failure> {
        if personas.len() > MAX_ASKED {
            return refuse(
                Code::Malformed,
                format!("{} personas, at most {MAX_ASKED} expected", personas.len()),
            );
        }
        let caller = self.caller(asked)?;
        let (mut there, mut bytes) = (Vec::new(), 0);
        for &persona in &personas.iter().copied().collect::<BTreeSet<_>>() {
            // Strangers get the same answer as for a persona that is offline or unknown.
            if self.related(persona, caller)?
                && let Some(applications) = self.sessions.presence(persona)
            {
                bytes += 64 + applications.iter().map(|name| name.len() + 2).sum::<usize>();
                // The client asks again for the rest.
                if bytes > MAX_FETCH_BYTES && !there.is_empty() {
                    return Ok(Answer::Presence(there, true).into());
                }
                there.push(Presence { persona, applications: Some(applications) });
            }
        }
        Ok(Answer::Presence(there, false).into())
    }

    /// Ends a device's session, if any.
    pub(super) fn end_session(&mut self, device: PeerId) {
        let Some(session) = self.sessions.remove(device) else { return };
        self.end_calls(device);
        if session.hosted {
            self.permits.forbid_reservation(device);
            if let Err(error) = self.tell_presence(session.persona) {
                tracing::error!("{error}");
            }
        }
    }

    /// Ends all sessions of a persona, and tells all of its devices except `but`.
    pub(super) fn end_all_sessions(&mut self, persona: Id, but: Option<PeerId>) {
        for device in self.sessions.devices(persona).to_vec() {
            self.end_session(device);
            if Some(device) != but {
                self.tell(device, Event::Ended, None);
            }
        }
    }

    /// The persona that sent a request: hosted or a visitor.
    pub(super) fn caller(&self, asked: &Asked) -> Result<Id, Failure> {
        match self.sessions.of(asked.from) {
            Some(session) => Ok(session.persona),
            None => refuse(Code::LogInFirst, "log in first"),
        }
    }

    /// The persona that sent a request, which must be hosted here.
    pub(super) fn hosted_caller(&self, asked: &Asked) -> Result<Id, Failure> {
        match self.sessions.of(asked.from) {
            Some(session) if session.hosted => Ok(session.persona),
            _ => Err(Refusal::new(Code::LogInFirst, "log in first, as a persona that is hosted here").into()),
        }
    }

    /// Whether a persona hosted here has a relation to another that holds.
    pub(super) fn related(&self, owner: Id, other: Id) -> Result<bool, StoreError> {
        let relation: Option<Relation> =
            self.store.get(Column::Relations, &pair(owner.digest(), other.digest()))?;
        Ok(relation.is_some_and(|relation| relation.state == RelationState::Held))
    }

    /// Tells another persona that a hosted one is online when their relation begins to hold, or offline when it
    /// ends. If the hosted one is offline nothing is sent: the other takes it for offline already.
    pub(super) fn tell_presence_to(&mut self, other: Id, persona: Id, holds: bool, after: Option<Ticket>) {
        let Some(applications) = self.sessions.presence(persona) else { return };
        let presence = Presence { persona, applications: holds.then_some(applications) };
        for device in self.sessions.devices(other).to_vec() {
            self.tell(device, Event::Presence(presence.clone()), after);
        }
    }

    /// Tells related people who are logged in here that a persona came online, went offline, or has other
    /// applications.
    fn tell_presence(&mut self, persona: Id) -> Result<(), StoreError> {
        let event = Event::Presence(Presence { persona, applications: self.sessions.presence(persona) });
        let mut told = Vec::new();
        // Iterates over the persona's relations rather than all sessions: after a restart everyone logs in.
        for row in self.store.rows(Column::Relations, *persona.digest(), b"") {
            let (key, record) = row?;
            let devices = self.sessions.devices(other_of(&key));
            if devices.is_empty() {
                continue;
            }
            let relation: Relation = self.store.record(Column::Relations, &record)?;
            if relation.state == RelationState::Held {
                told.extend_from_slice(devices);
            }
        }
        for device in told {
            self.tell(device, event.clone(), None);
        }
        Ok(())
    }
}

fn check_applications(applications: &[String]) -> Result<(), Failure> {
    if applications.len() > MAX_APPLICATIONS {
        let found = applications.len();
        return refuse(Code::Malformed, format!("{found} applications, at most {MAX_APPLICATIONS} expected"));
    }
    if !applications.iter().all(|name| is_label(name)) {
        let expected = format!("an application's name is not 1 to {MAX_LABEL} visible characters");
        return refuse(Code::Malformed, expected);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
