//! Redirects of personas that left. Registering and leaving cost nothing, so their number is limited.
//!
//! Here: the redirects in the order in which they are dropped: those hosted for the shortest time first, so that
//! registering and leaving in a loop displaces only others of that kind. Not here: their records
//! ([`super::hosting`]), and their expiry ([`super::sweep`]).

use std::collections::BTreeSet;

use crate::id::Id;
use crate::limits::REDIRECT_TIME;
use crate::store::Hosted;

/// The redirects, about 60 bytes each.
#[derive(Debug, Default)]
pub(super) struct Redirects(BTreeSet<Place>);

/// Seconds that the persona was hosted, expiry of the redirect, and the digest of the persona's id.
type Place = (u64, u64, [u8; 32]);

impl Redirects {
    /// Adds a redirect if the record is of a persona that left.
    pub(super) fn note(&mut self, persona: Id, record: &Hosted) {
        self.0.extend(place(persona, record));
    }

    /// Removes a redirect: it has expired or the persona is back.
    pub(super) fn forget(&mut self, persona: Id, record: &Hosted) {
        if let Some(place) = place(persona, record) {
            self.0.remove(&place);
        }
    }

    /// The redirects to drop when this record's is added and there may be `most`. Changes nothing: that is for
    /// [`Self::note`] and [`Self::drop_beyond`] once the batch is written.
    pub(super) fn beyond(&self, most: usize, persona: Id, record: &Hosted) -> Vec<Id> {
        let count = (self.0.len() + 1).saturating_sub(most);
        let mut first: Vec<_> = self.0.iter().copied().take(count).chain(place(persona, record)).collect();
        first.sort_unstable();
        first.into_iter().take(count).map(|(.., digest)| Id::from_digest(digest)).collect()
    }

    /// Drops those beyond `most`.
    pub(super) fn drop_beyond(&mut self, most: usize) {
        while self.0.len() > most {
            self.0.pop_first();
        }
    }
}

fn place(persona: Id, record: &Hosted) -> Option<Place> {
    record.departure.as_ref()?;
    let left = record.redirect_until.saturating_sub(REDIRECT_TIME);
    Some((left.saturating_sub(record.since), record.redirect_until, *persona.digest()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::Departure;
    use crate::home::testing::{Bench, Person};
    use crate::limits::REDIRECTS_FOR_EACH;
    use crate::store::Column;
    use crate::wire::{Answer, Request};

    /// Number of personas that may be hosted; twice as many redirects are kept.
    const HOSTED: usize = 3;

    fn leave(bench: &mut Bench, person: &Person) {
        let order = bench.challenge(person.device);
        let departure = bench.sign(person, bench.home.id(), order, &Departure { to: None });
        assert_eq!(bench.ask(person.device, Request::Unregister(departure, None)), Answer::Done);
    }

    /// Registers, and leaves this many seconds later.
    fn stay(bench: &mut Bench, number: u8, seconds: u64) -> Person {
        let person = Person::new(number);
        assert!(matches!(bench.register(&person), Answer::Hosting(..)));
        bench.wait(seconds);
        leave(bench, &person);
        person
    }

    fn is_told(bench: &mut Bench, person: &Person) -> bool {
        matches!(bench.ask(person.device, Request::GetProfile(person.id())), Answer::Moved(_))
    }

    fn rows(bench: &Bench) -> usize {
        let rows = bench.home.store.rows(Column::Hosted, b"", b"").count();
        assert_eq!(bench.home.redirects.0.len() + bench.home.hosted, rows);
        rows
    }

    #[test]
    fn so_many_redirects_are_kept_and_who_was_hosted_the_shortest_gives_way() {
        let most = HOSTED * REDIRECTS_FOR_EACH;
        let mut bench = Bench::new(|settings| settings.max_hosted = HOSTED);
        let honest = [stay(&mut bench, 1, 1000), stay(&mut bench, 2, 500)];
        let mut quick = Vec::new();
        for number in 3..=most as u8 {
            bench.wait(1);
            quick.push(stay(&mut bench, number, 0));
        }
        assert_eq!(rows(&bench), most);
        assert!(honest.iter().chain(&quick).all(|person| is_told(&mut bench, person)), "up to so many");
        // One more, then a hundred more: the oldest of the briefly hosted ones are dropped.
        for number in most as u8 + 1..most as u8 + 100 {
            bench.wait(1);
            quick.push(stay(&mut bench, number, 0));
            assert_eq!(rows(&bench), most);
        }
        let told: Vec<_> = quick.iter().map(|person| is_told(&mut bench, person)).collect();
        assert_eq!(told, [vec![false; 99], vec![true; most - 2]].concat());
        assert!(honest.iter().all(|person| is_told(&mut bench, person)));
        // The order follows the records, also after a restart: one that was hosted longer displaces one that was
        // not.
        let mut bench = bench.restart(|settings| settings.max_hosted = HOSTED);
        for number in 200..200 + most as u8 - 2 {
            stay(&mut bench, number, 2000);
        }
        assert!(honest.iter().all(|person| is_told(&mut bench, person)));
        assert!(!quick.iter().any(|person| is_told(&mut bench, person)));
        let late = stay(&mut bench, 250, 10);
        assert!(!is_told(&mut bench, &late), "it leaves without a redirect");
        stay(&mut bench, 251, 2000);
        assert_eq!(honest.map(|person| is_told(&mut bench, &person)), [true, false]);
        assert_eq!(rows(&bench), most);
    }

    #[test]
    fn who_comes_back_is_expelled_or_is_told_no_more_takes_no_place() {
        let owner = Person::new(100);
        let mut bench = Bench::new(|settings| {
            (settings.max_hosted, settings.owner) = (HOSTED, Some(owner.id()));
        });
        bench.log_in(&owner, &[]);
        let left = [1, 2, 3].map(|number| stay(&mut bench, number, 10));
        assert_eq!((bench.home.redirects.0.len(), rows(&bench)), (3, 3));
        bench.register(&left[0]);
        assert_eq!((bench.home.redirects.0.len(), rows(&bench)), (2, 3));
        for request in [Request::Ban(left[1].id(), String::new()), Request::Expel(left[1].id())] {
            assert_eq!(bench.ask(owner.device, request), Answer::Done);
        }
        assert_eq!((bench.home.redirects.0.len(), rows(&bench)), (1, 2));
        bench.sweep_after(REDIRECT_TIME + 1);
        assert_eq!((bench.home.redirects.0.len(), rows(&bench)), (0, 1));
    }

    #[test]
    fn whoever_would_give_way_is_one_of_those_who_have_left_until_it_is_written() {
        let record = |stayed: u64| Hosted {
            proof: Vec::new().into(),
            registration: Vec::new().into(),
            since: 1000 - stayed,
            departure: Some(Vec::new().into()),
            redirect_until: 1000 + REDIRECT_TIME,
            blob_bytes: 0,
            blobs: 0,
            relations: 0,
            revoked: 0,
            forgotten: 0,
        };
        let ids = [1, 2, 3, 4].map(|number| Id::from_digest([number; 32]));
        let mut redirects = Redirects::default();
        for (id, stayed) in ids.into_iter().zip([30, 10, 20]) {
            assert_eq!(redirects.beyond(3, id, &record(stayed)), []);
            redirects.note(id, &record(stayed));
        }
        let before = redirects.0.clone();
        // Before the batch is written, no redirect is dropped, and none is added for a persona still hosted.
        for (most, stayed, gone) in [
            (4, 15, vec![]),
            (3, 15, vec![ids[1]]),
            (3, 5, vec![ids[3]]),
            (1, 25, vec![ids[1], ids[2], ids[3]]),
        ] {
            assert_eq!(redirects.beyond(most, ids[3], &record(stayed)), gone);
            assert_eq!(redirects.0, before);
            // After it is written, the same ones are dropped.
            let mut written = Redirects(before.clone());
            written.note(ids[3], &record(stayed));
            written.drop_beyond(most);
            let left =
                ids.into_iter().filter(|id| written.0.iter().any(|(.., digest)| digest == id.digest()));
            assert!(left.eq(ids.into_iter().filter(|id| !gone.contains(id))));
        }
    }
}
