//! Presence: which of the related people are online.
//!
//! Here: asking their homes, several at once and each for a short time only. Not here: relations
//! ([`super::people`]), and what homes tell unasked ([`super::listen`]). Path: people, by the home where they
//! were last → that home, if it answers at all, and where they went from there → their homes now → believed.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::futures::future::{self, join_all};
use libp2p::futures::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::device::Device;
use super::error::ClientError;
use super::folder::State;
use super::place::Home;
use crate::id::Id;
use crate::limits::MAX_ASKED;
use crate::wire::{Answer, Presence, Request};

/// How long one answer may take: enough to connect and log in over a slow line. A home that says nothing
/// costs this once, not for each person there.
const HOME_TIME: Duration = Duration::from_secs(10);
/// Number of homes asked at once.
const AT_ONCE: usize = 8;
/// Number of people of one home who are looked for at once: those who went to homes that say nothing do not hide
/// the others.
const PEOPLE_AT_ONCE: usize = 8;
/// How long to look for the people of one home altogether: most are found in one answer of it.
const SEARCH_TIME: Duration = Duration::from_secs(20);

impl Device {
    /// Which of these related people are online, with their applications. Those whose home is unreachable,
    /// says nothing for ten seconds, or lies count as offline.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn presence(&self, personas: &[Id]) -> Result<Vec<Presence>, ClientError> {
        let state = self.folder().state()?;
        let mut last = BTreeMap::<Option<Id>, (Option<Home>, Vec<Id>)>::new();
        for persona in personas {
            let told = state.contact(*persona).and_then(|contact| contact.home.as_ref());
            let home = told.and_then(|told| Home::from_told(told).ok());
            let id = home.as_ref().map(|home| home.id);
            last.entry(id).or_insert_with(|| (home, Vec::new())).1.push(*persona);
        }
        let places = Semaphore::new(AT_ONCE);
        let located = last.values().map(|(home, all)| self.locate_all(home.as_ref(), all, &places));
        let mut homes = BTreeMap::<Id, (Home, Vec<Id>)>::new();
        for (home, persona) in join_all(located).await.into_iter().flatten() {
            homes.entry(home.id).or_insert_with(|| (home, Vec::new())).1.push(persona);
        }
        let asked = homes.values().map(|(home, all)| self.presence_of(home, all, &places));
        let found = join_all(asked).await.into_iter().flatten();
        let state = self.folder().state()?;
        Ok(found.filter_map(|one| believe_presence(&state, one)).collect())
    }

    /// Where these people are now, who were last at the same home. Nobody, if that home says nothing in time.
    async fn locate_all(&self, last: Option<&Home>, all: &[Id], places: &Semaphore) -> Vec<(Home, Id)> {
        let _place = places.acquire().await.expect("nobody closes it");
        if let Some(home) = last {
            let asked = timeout(HOME_TIME, self.ask(home, Request::About)).await;
            if matches!(asked, Err(_) | Ok(Err(ClientError::TimedOut(_)))) {
                tracing::debug!("no presence at {}: it says nothing", home.id);
                return Vec::new();
            }
        }
        let search = stream::iter(all).map(async |persona| {
            let located = timeout(HOME_TIME, self.locate(*persona)).await;
            match located.unwrap_or(Err(ClientError::TimedOut("the home says nothing"))) {
                Ok((home, _)) => Some((home, *persona)),
                Err(error) => {
                    tracing::debug!("no presence of {persona}: {error}");
                    None
                }
            }
        });
        let over = sleep(SEARCH_TIME);
        search.buffer_unordered(PEOPLE_AT_ONCE).take_until(over).filter_map(future::ready).collect().await
    }

    /// Which of these people are online at a home; nobody more once it does not answer as it should.
    async fn presence_of(&self, home: &Home, all: &[Id], places: &Semaphore) -> Vec<Presence> {
        let _place = places.acquire().await.expect("nobody closes it");
        let mut there = Vec::new();
        for some in all.chunks(MAX_ASKED) {
            let asked = timeout(HOME_TIME, self.presence_at(home, some.to_vec())).await;
            match asked.unwrap_or(Err(ClientError::TimedOut("the home says nothing"))) {
                Ok(found) => there.extend(found),
                // Only this home lies; the presence of others is unaffected.
                Err(error @ ClientError::Lie(_)) => {
                    tracing::warn!("no presence at {}: {error}", home.id);
                    break;
                }
                Err(error) => {
                    tracing::debug!("no presence at {}: {error}", home.id);
                    break;
                }
            }
        }
        there
    }

    /// Which of these people are online at a home. Those that do not fit its answer are asked for again.
    async fn presence_at(&self, home: &Home, mut asked: Vec<Id>) -> Result<Vec<Presence>, ClientError> {
        let mut there = Vec::new();
        while !asked.is_empty() {
            let Answer::Presence(found, more) =
                self.ask_as_me(home, Request::Presence(asked.clone())).await?
            else {
                return Err(ClientError::unasked());
            };
            let last = found.last().map(|one| one.persona);
            there.extend(found.into_iter().filter(|one| asked.contains(&one.persona)).take(asked.len()));
            match last.filter(|last| more && asked.contains(last)) {
                // Fewer each time, so this ends whatever the home says.
                Some(last) => asked.retain(|persona| *persona > last),
                None => break,
            }
        }
        Ok(there)
    }
}

/// Accepts a presence only of related people, with no more applications than there can be.
pub(super) fn believe_presence(state: &State, mut presence: Presence) -> Option<Presence> {
    if !state.holds(presence.persona) {
        return None;
    }
    if let Some(applications) = &mut presence.applications {
        applications.truncate(crate::limits::MAX_APPLICATIONS * crate::limits::MAX_DEVICES);
        applications.retain(|name| super::calls::is_application(name));
    }
    Some(presence)
}
