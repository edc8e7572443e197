//! Who may use the relay: hosted devices may be reached through it, and a call that was taken may open one circuit.
//!
//! Here: that list, shared by the home, which writes it, and the relay, which asks. Not here: the relay.
//! Path: a log-in or an answered call → [`Permits`] → the relay's question → spent.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::id::Id;
use crate::limits::JOIN_TIME;

/// The list. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Permits(Arc<Mutex<Lists>>);

#[derive(Debug, Default)]
struct Lists {
    reachable: HashSet<PeerId>,
    /// From the caller's device to the callee's: until when it may be opened, and who the caller is.
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

    /// It has gone.
    pub(super) fn forbid_reservation(&self, device: PeerId) {
        self.lists().reachable.remove(&device);
    }

    /// A call was taken.
    pub(super) fn allow_circuit(&self, (caller, persona): (PeerId, Id), callee: PeerId, now: Instant) {
        let until = now + Duration::from_secs(JOIN_TIME);
        self.lists().circuits.insert((caller, callee), (until, persona));
    }

    /// Throws away what was not used in time.
    pub(super) fn tick(&self, now: Instant) {
        self.lists().circuits.retain(|_, (until, _)| *until > now);
    }

    /// Whether a device may be reached through the relay.
    #[must_use]
    pub fn may_reserve(&self, device: PeerId) -> bool {
        self.lists().reachable.contains(&device)
    }

    /// Whether a device may open some circuit now.
    #[must_use]
    pub fn may_open(&self, caller: PeerId, now: Instant) -> bool {
        self.caller(caller, now).is_some()
    }

    /// Who it is that may open some circuit with a device now.
    #[must_use]
    pub fn caller(&self, caller: PeerId, now: Instant) -> Option<Id> {
        let lists = self.lists();
        let mut open =
            lists.circuits.iter().filter(|((from, _), (until, _))| *from == caller && *until > now);
        open.next().map(|(_, (_, persona))| *persona)
    }

    /// Whether a circuit that a device has opened was permitted; spends the permit.
    #[must_use]
    pub fn spend(&self, caller: PeerId, callee: PeerId, now: Instant) -> bool {
        self.lists().circuits.remove(&(caller, callee)).is_some_and(|(until, _)| until > now)
    }
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
        assert!(!permits.spend(caller, other, now) && !permits.spend(callee, caller, now));
        assert!(permits.spend(caller, callee, now));
        assert!(!permits.spend(caller, callee, now), "once");
        permits.allow_circuit((caller, persona), callee, now);
        assert_eq!(permits.caller(caller, now), Some(persona));
        assert!(!permits.may_open(caller, now + Duration::from_secs(JOIN_TIME)));
        assert!(!permits.spend(caller, callee, now + Duration::from_secs(JOIN_TIME)));
    }
}
