//! Events that a device receives, and restoring the session at its own home after a loss.
//!
//! Here: the task that handles the driver's notices, and the one that reconnects. Not here: the session itself
//! ([`super::device`]), connections ([`super::driver`]). Path: notice → a home's event, verified → [`Told`]; home
//! lost → [`Returning`] → retried until it is back → [`Told::Back`].

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::mpsc;

use super::device::{Device, Session, Shared, Told, locked};
use super::driver::Notice;
use super::error::ClientError;
use super::presence::believe_presence;
use super::seal::random;
use crate::wire::{Code, Event};

/// First and longest delay before reconnecting to a lost home.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Slots of the report channel reserved for the device's own reports: lost, back.
const RESERVED: usize = 16;

/// Whether a reconnection is in progress, and whether the home was lost again during it.
#[derive(Debug, Default)]
pub(super) struct Returning {
    under_way: bool,
    lost_again: bool,
}

impl Returning {
    /// The home was lost; returns whether no reconnection was in progress yet.
    fn lost(&mut self) -> bool {
        self.lost_again = self.under_way;
        !std::mem::replace(&mut self.under_way, true)
    }

    /// The next attempt begins; it covers all losses so far.
    fn tries(&mut self) {
        self.lost_again = false;
    }

    /// An attempt succeeded; returns whether the reconnection is complete, which it is not if the home was lost
    /// again meanwhile.
    fn is_back(&mut self) -> bool {
        self.under_way = self.lost_again;
        !self.under_way
    }
}

impl Device {
    /// Restores the session at one's own home, retrying as long as the device exists.
    async fn come_back(device: Weak<Shared>, told: mpsc::Sender<Told>) {
        let (mut pause, longest) = BACK_OFF;
        loop {
            // A random delay of up to a half more, so that not all devices come at once when a home is back.
            let chance = random().map_or(0, |bytes| u32::from(bytes[0]));
            tokio::time::sleep(pause + pause * chance / 512).await;
            let Some(device) = device.upgrade().map(Device) else { return };
            locked(&device.0.returning).tries();
            // The current session, with the applications announced since.
            let Some(session) = device.session() else {
                return *locked(&device.0.returning) = Returning::default();
            };
            match device.enter(&session).await {
                Ok(()) if locked(&device.0.returning).is_back() => return drop(told.try_send(Told::Back)),
                Ok(()) => tracing::debug!("the home was back and is lost again"),
                Err(ClientError::Refused(refusal)) if refusal.code == Code::Closed => {
                    device.forget_session();
                    *locked(&device.0.returning) = Returning::default();
                    return drop(told.try_send(Told::Ended));
                }
                Err(error) => tracing::debug!("the home is not back: {error}"),
            }
            pause = longest.min(pause * 2);
        }
    }
}

/// Handles the driver's notices until the device is dropped.
pub(super) async fn listen(
    shared: Weak<Shared>,
    mut notices: mpsc::Receiver<Notice>,
    told: mpsc::Sender<Told>,
) {
    while let Some(notice) = notices.recv().await {
        let Some(device) = shared.upgrade().map(Device) else { return };
        let session = device.session();
        let lost = match notice {
            // Events of homes other than one's own are ignored.
            Notice::Told(peer, event) if session.as_ref().is_some_and(|one| one.home.peer == peer) => {
                device.hear(*event, session.as_ref(), &told);
                continue;
            }
            Notice::Told(peer, _) => {
                tracing::debug!("{peer} tells something and is not our home");
                continue;
            }
            Notice::Come(peer, stream, direct) => {
                device.come(peer, stream, direct);
                continue;
            }
            Notice::Lost(peer) => {
                locked(&device.0.known).remove(&peer);
                session.filter(|one| one.home.peer == peer)
            }
            Notice::Unreachable => session.filter(|one| one.reachable),
        };
        if lost.is_some() && locked(&device.0.returning).lost() {
            let _ = told.try_send(Told::Lost);
            tokio::spawn(Device::come_back(shared.clone(), told.clone()));
        }
    }
}

impl Device {
    fn hear(&self, event: Event, session: Option<&Session>, told: &mpsc::Sender<Told>) {
        let heard = match event {
            Event::Mail(_) => Told::Mail,
            Event::Request(id) => Told::Request(id),
            Event::Presence(presence) => {
                let Ok(state) = self.folder().state() else { return };
                match believe_presence(&state, presence) {
                    Some(presence) => Told::Presence(presence),
                    None => return,
                }
            }
            Event::Call(offer) => {
                let applications = session.map_or(&[][..], |session| &session.applications);
                match self.believe_call(&offer, applications) {
                    Ok(call) => Told::Call(Box::new(call)),
                    Err(error) => return tracing::warn!("a call is not taken: {error}"),
                }
            }
            Event::Ended => {
                self.forget_session();
                Told::Ended
            }
        };
        // Events of a home leave room for the device's own reports.
        if told.capacity() <= RESERVED || told.try_send(heard).is_err() {
            tracing::debug!("nobody takes what the home tells: dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_that_is_lost_again_at_the_end_of_the_way_back_is_tried_again() {
        let mut returning = Returning::default();
        assert!(returning.lost(), "somebody has to go");
        returning.tries();
        assert!(!returning.lost(), "somebody is on the way");
        assert!(!returning.is_back(), "and has to try again");
        returning.tries();
        assert!(returning.is_back());
        assert!(returning.lost(), "the next time somebody has to go again");
        assert!(!returning.lost());
        returning.tries();
        assert!(returning.is_back(), "what was lost before a try was found again by it");
    }
}
