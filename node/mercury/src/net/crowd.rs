//! Connections by origin, so that the oldest one of the most crowded origin can be closed.
//!
//! Here: the order. Not here: what counts as one origin ([`super::quotas`]), and admission ([`super::gate`]). Path:
//! a connection arrives → is added at its origin → is removed when it ends or is closed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use libp2p::swarm::ConnectionId;

use super::quotas::Address;

/// Connections by origin; those without an address share one.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Older connections have lower ids.
    places: HashMap<Option<Address>, BTreeSet<ConnectionId>>,
    /// Number of connections of each origin, and its oldest one.
    sizes: BTreeSet<(usize, Reverse<ConnectionId>, Option<Address>)>,
    len: usize,
}

impl Crowd {
    /// Number of connections.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Number of connections of an origin.
    pub(super) fn at(&self, place: Option<Address>) -> usize {
        self.places.get(&place).map_or(0, BTreeSet::len)
    }

    /// The oldest connection of an origin.
    pub(super) fn oldest(&self, place: Option<Address>) -> Option<ConnectionId> {
        self.places.get(&place)?.first().copied()
    }

    pub(super) fn insert(&mut self, place: Option<Address>, connection: ConnectionId) {
        self.change(place, |ids| ids.insert(connection));
    }

    /// Removes a connection, if present.
    pub(super) fn remove(&mut self, place: Option<Address>, connection: ConnectionId) {
        self.change(place, |ids| ids.remove(&connection));
    }

    fn change(&mut self, place: Option<Address>, change: impl FnOnce(&mut BTreeSet<ConnectionId>) -> bool) {
        let ids = self.places.entry(place).or_default();
        let size = |ids: &BTreeSet<ConnectionId>| Some((ids.len(), Reverse(*ids.first()?), place));
        let before = size(ids);
        change(ids);
        let after = size(ids);
        self.len = self.len + ids.len() - before.map_or(0, |(count, ..)| count);
        if let Some(before) = before {
            self.sizes.remove(&before);
        }
        match after {
            Some(after) => drop(self.sizes.insert(after)),
            None => drop(self.places.remove(&place)),
        }
    }

    /// The connection to close first: the oldest of the most crowded origin; among equally crowded ones, the oldest
    /// of all.
    pub(super) fn first_to_go(&self) -> Option<ConnectionId> {
        self.sizes.last().map(|(_, Reverse(oldest), _)| *oldest)
    }

    /// The connections of each origin that has an address and more than `most`, the oldest first.
    pub(super) fn beyond(&self, most: usize) -> impl Iterator<Item = &BTreeSet<ConnectionId>> {
        let places = self.sizes.iter().rev().take_while(move |(count, ..)| *count > most);
        places.filter(|(_, _, place)| place.is_some()).filter_map(|(_, _, place)| self.places.get(place))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::net::quotas::Quotas;

    fn place(number: u8) -> Option<Address> {
        let address = format!("/ip4/192.0.2.{number}/tcp/1").parse().unwrap();
        (number > 0).then(|| Quotas::default().address(&address).unwrap())
    }

    proptest! {
        #[test]
        fn the_first_to_go_is_the_oldest_of_the_most_crowded_place(
            steps in prop::collection::vec((any::<bool>(), 0..4u8, 0..30usize), 0..100),
        ) {
            let (mut crowd, mut model) = (Crowd::default(), Vec::<(u8, usize)>::new());
            for (comes, number, id) in steps {
                let connection = ConnectionId::new_unchecked(id);
                if comes {
                    crowd.insert(place(number), connection);
                    model.push((number, id));
                } else {
                    crowd.remove(place(number), connection);
                    model.retain(|one| *one != (number, id));
                }
                model.sort_unstable();
                model.dedup();
                let at = |number| model.iter().filter(|one| one.0 == number).count();
                let first = model.iter().max_by_key(|one| (at(one.0), Reverse(one.1))).map(|one| one.1);
                // Production ids are unique; if one id is at two origins, either may be returned.
                prop_assert_eq!(crowd.first_to_go(), first.map(ConnectionId::new_unchecked));
                prop_assert_eq!(crowd.len(), model.len());
                (0..4).for_each(|number| assert_eq!(crowd.at(place(number)), at(number)));
                let crowded: usize = crowd.beyond(2).map(BTreeSet::len).sum();
                let expected: usize = (1..4).map(at).filter(|count| *count > 2).sum();
                prop_assert_eq!(crowded, expected);
            }
            prop_assert_eq!(crowd.places.len(), crowd.sizes.len());
        }
    }
}
