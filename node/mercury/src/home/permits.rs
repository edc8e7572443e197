//! Permits for the relay: hosted devices may be reached through it, and an accepted call may open one circuit.
//!
//! Here: the lists, which the home writes and the relay queries. Not here: the relay. Path: a log-in or an accepted
//! call → [`Permits`] → queried by the relay → spent.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::id::Id;
use crate::limits::{JOIN_TIME, TAKE_TIME};

/// The permits. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Permits(Arc<Mutex<Lists>>);

#[derive(Debug, Default)]
struct Lists {
    reachable: HashSet<PeerId>,
    /// From the caller's device to the callee's: until when a circuit may be requested, and the caller's persona.
    /// The callee's device may take as much longer as the relay waits for it.
    circuits: HashMap<(PeerId, PeerId), (Instant, Id)>,
}

impl Permits {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A device of a hosted persona has logged in.
    pub(super) fn allow_reservation(&self, device: PeerId) {
        self.lists().reachable.insert(device);
    }

    /// Its session has ended.
    pub(super) fn forbid_reservation(&self, device: PeerId) {
        self.lists().reachable.remove(&device);
    }

    /// A call was accepted.
    pub(super) fn allow_circuit(&self, (caller, persona): (PeerId, Id), callee: PeerId, now: Instant) {
        let until = now + Duration::from_secs(JOIN_TIME);
        self.lists().circuits.insert((caller, callee), (until, persona));
    }

    /// Removes permits that were not used in time.
    pub(super) fn tick(&self, now: Instant) {
        self.lists().circuits.retain(|_, (until, _)| answered_by(*until) > now);
    }

    /// Whether a device may be reached through the relay.
    #[must_use]
    pub fn may_reserve(&self, device: PeerId) -> bool {
        self.lists().reachable.contains(&device)
    }

    /// Whether a device may open any circuit now.
    #[must_use]
    pub fn may_open(&self, caller: PeerId, now: Instant) -> bool {
        self.caller(caller, now).is_some()
    }

    /// The persona at a device that may open a circuit now; `None` if it may not.
    #[must_use]
    pub fn caller(&self, caller: PeerId, now: Instant) -> Option<Id> {
        let lists = self.lists();
        let mut open =
            lists.circuits.iter().filter(|((from, _), (until, _))| *from == caller && *until > now);
        open.next().map(|(_, (_, persona))| *persona)
    }

    /// Whether a device has business at the relay now.
    #[must_use]
    pub fn knows(&self, device: PeerId, now: Instant) -> bool {
        self.may_reserve(device) || self.may_open(device, now)
    }

    /// Whether a device may open a circuit to another one. If not, it tried without an accepted call and loses all
    /// its permits, since the relay checks only whether it has any. Called when the callee's device has answered,
    /// or has failed to.
    pub fn check(&self, caller: PeerId, callee: PeerId, now: Instant) -> bool {
        let circuits = &mut self.lists().circuits;
        let permitted = circuits.get(&(caller, callee)).is_some_and(|(until, _)| answered_by(*until) > now);
        if !permitted {
            circuits.retain(|(from, _), _| *from != caller);
        }
        permitted
    }

    /// Whether a circuit that a device opened was permitted. Spends the permit, or removes all permits of the
    /// device.
    #[must_use]
    pub fn spend(&self, caller: PeerId, callee: PeerId, now: Instant) -> bool {
        let permitted = self.check(caller, callee, now);
        self.lists().circuits.remove(&(caller, callee));
        permitted
    }
}

/// The time by which a circuit requested in time must have been answered.
fn answered_by(until: Instant) -> Instant {
    until + Duration::from_secs(TAKE_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_is_opened_once_in_time_and_by_its_caller_only() {
        let (permits, now) = (Permits::default(), Instant::now());
        let [caller, callee, other] = [0; 3].map(|_| PeerId::random());
        let persona = crate::id::Key::from_secret(&[1; 32]).id();
        permits.allow_circuit((caller, persona), callee, now);
        assert!(
            permits.may_open(caller, now) && !permits.may_open(callee, now) && !permits.may_open(other, now)
        );
        assert!(!permits.spend(other, callee, now) && !permits.spend(callee, caller, now));
        assert!(permits.spend(caller, callee, now));
        assert!(!permits.spend(caller, callee, now), "once");
        permits.allow_circuit((caller, persona), callee, now);
        assert_eq!(permits.caller(caller, now), Some(persona));
        assert!(!permits.may_open(caller, now + Duration::from_secs(JOIN_TIME)));
        assert!(!permits.spend(caller, callee, now + Duration::from_secs(JOIN_TIME + TAKE_TIME)));
    }

    #[test]
    fn a_callee_that_takes_its_time_costs_the_caller_nothing() {
        let (permits, now) = (Permits::default(), Instant::now());
        let [caller, slow, other] = [0; 3].map(|_| PeerId::random());
        let persona = crate::id::Key::from_secret(&[1; 32]).id();
        permits.allow_circuit((caller, persona), slow, now);
        let late = now + Duration::from_secs(JOIN_TIME + TAKE_TIME - 1);
        permits.allow_circuit((caller, persona), other, late);
        permits.tick(late);
        assert!(permits.check(caller, slow, late), "the first has refused at last");
        assert!(permits.spend(caller, slow, late), "or taken");
        assert!(permits.spend(caller, other, late));
    }

    #[test]
    fn who_tries_to_reach_somebody_else_has_no_permit_any_more() {
        let (permits, now) = (Permits::default(), Instant::now());
        let [caller, other_caller, callee, other] = [0; 4].map(|_| PeerId::random());
        let persona = crate::id::Key::from_secret(&[1; 32]).id();
        for caller in [caller, other_caller] {
            permits.allow_circuit((caller, persona), callee, now);
        }
        assert!(permits.check(caller, callee, now), "it is not spent by that");
        assert!(!permits.spend(caller, other, now));
        assert!(!permits.may_open(caller, now) && !permits.spend(caller, callee, now));
        assert!(permits.spend(other_caller, callee, now), "others are not concerned");
    }
}
