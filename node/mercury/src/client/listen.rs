//! What a device hears unasked, and its session at its own home made again when that was lost.
//!
//! Here: the task that takes the driver's notices, and the one that comes back. Not here: the session itself
//! ([`super::device`]), the connections ([`super::driver`]).
//! Path: notice → a home's word, verified → [`Told`]; home lost → [`Returning`] → tried until it is back → [`Told::Back`].

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::mpsc;

use super::device::{Device, Session, Shared, Told, locked};
use super::driver::Notice;
use super::error::ClientError;
use super::people::believe_presence;
use super::seal::random;
use crate::wire::{Code, Event};

/// First and longest pause before a lost home is tried again.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Of the places for what the device tells, so many are for its own words: lost, back.
const RESERVED: usize = 16;

/// Whether somebody is on the way back to one's own home, and whether that was lost again meanwhile.
#[derive(Debug, Default)]
pub(super) struct Returning {
    under_way: bool,
    lost_again: bool,
}

impl Returning {
    /// The home is lost; whether nobody is on the way yet.
    fn lost(&mut self) -> bool {
        self.lost_again = self.under_way;
        !std::mem::replace(&mut self.under_way, true)
    }

    /// The next try begins: what was lost before it is tried now.
    fn tries(&mut self) {
        self.lost_again = false;
    }

    /// A try has succeeded; whether the way is over. It is not if the home was lost again before anybody said so.
    fn is_back(&mut self) -> bool {
        self.under_way = self.lost_again;
        !self.under_way
    }
}

impl Device {
    /// The session at one's own home, made again; for ever, but not longer than the device is there.
    async fn come_back(device: Weak<Shared>, told: mpsc::Sender<Told>) {
        let (mut pause, longest) = BACK_OFF;
        loop {
            // Not all at once when a home comes back: up to a half more, by chance.
            let chance = random().map_or(0, |bytes| u32::from(bytes[0]));
            tokio::time::sleep(pause + pause * chance / 512).await;
            let Some(device) = device.upgrade().map(Device) else { return };
            locked(&device.0.returning).tries();
            // As it is now: with the applications that were announced since.
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

/// Hears what the driver tells until the device is gone.
pub(super) async fn listen(
    shared: Weak<Shared>,
    mut notices: mpsc::Receiver<Notice>,
    told: mpsc::Sender<Told>,
) {
    while let Some(notice) = notices.recv().await {
        let Some(device) = shared.upgrade().map(Device) else { return };
        let session = device.session();
        let lost = match notice {
            // Others than one's own home have nothing to tell.
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
        // What a home tells leaves room for what the device itself tells.
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
