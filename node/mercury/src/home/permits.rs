//! Who may use the relay: hosted devices may be reached through it, and a call that was taken may open one circuit.
//!
//! Here: that list, shared by the home, which writes it, and the relay, which asks. Not here: the relay.
//! Path: a log-in or an answered call → [`Permits`] → the relay's question → spent.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::limits::JOIN_TIME;

/// The list. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Permits(Arc<Mutex<Lists>>);

#[derive(Debug, Default)]
struct Lists {
    reachable: HashSet<PeerId>,
    /// From the caller's device to the callee's: until when it may be opened.
    circuits: HashMap<(PeerId, PeerId), Instant>,
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
    pub(super) fn allow_circuit(&self, caller: PeerId, callee: PeerId, now: Instant) {
        self.lists().circuits.insert((caller, callee), now + Duration::from_secs(JOIN_TIME));
    }

    /// Throws away what was not used in time.
    pub(super) fn tick(&self, now: Instant) {
        self.lists().circuits.retain(|_, until| *until > now);
    }

    /// Whether a device may be reached through the relay.
    #[must_use]
    pub fn may_reserve(&self, device: PeerId) -> bool {
        self.lists().reachable.contains(&device)
    }

    /// Whether a device may open some circuit now.
    #[must_use]
    pub fn may_open(&self, caller: PeerId, now: Instant) -> bool {
        self.lists().circuits.iter().any(|((from, _), until)| *from == caller && *until > now)
    }

    /// Whether a circuit that a device has opened was permitted; spends the permit.
    #[must_use]
    pub fn spend(&self, caller: PeerId, callee: PeerId, now: Instant) -> bool {
        self.lists().circuits.remove(&(caller, callee)).is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_is_opened_once_in_time_and_by_its_caller_only() {
        let (permits, now) = (Permits::default(), Instant::now());
        let [caller, callee, other] = [0; 3].map(|_| PeerId::random());
        permits.allow_circuit(caller, callee, now);
        assert!(
            permits.may_open(caller, now) && !permits.may_open(callee, now) && !permits.may_open(other, now)
        );
        assert!(!permits.spend(caller, other, now) && !permits.spend(callee, caller, now));
        assert!(permits.spend(caller, callee, now));
        assert!(!permits.spend(caller, callee, now), "once");
        permits.allow_circuit(caller, callee, now);
        assert!(!permits.may_open(caller, now + Duration::from_secs(JOIN_TIME)));
        assert!(!permits.spend(caller, callee, now + Duration::from_secs(JOIN_TIME)));
    }
}
