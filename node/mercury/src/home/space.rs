//! Disk space. When little is left, the home stores nothing more, but still serves and deletes.
//!
//! Here: the free space, checked on each tick, and which requests need some. Not here: the limits per persona
//! ([`crate::limits`]).

use super::{Failure, Home, refuse};
use crate::limits::{MIN_FREE_SPACE, SPACE_AGAIN};
use crate::wire::{Code, Request};

/// Measures the free bytes on the disk; `None` if the system does not tell.
type Measure = Box<dyn Fn() -> Option<u64> + Send>;

/// The free disk space.
pub(super) struct Space {
    measure: Measure,
    free: Option<u64>,
    low: bool,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Space(free: {:?}, low: {})", self.free, self.low)
    }
}

impl Space {
    /// Creates it with a first measurement.
    pub(super) fn new(measure: impl Fn() -> Option<u64> + Send + 'static) -> Self {
        let mut space = Self { measure: Box::new(measure), free: None, low: false };
        space.look();
        space
    }

    /// Measures again.
    pub(super) fn look(&mut self) {
        self.free = (self.measure)();
        let enough = if self.low { SPACE_AGAIN } else { MIN_FREE_SPACE };
        // If the system does not tell, space is assumed to be enough.
        let low = self.free.is_some_and(|free| free < enough);
        let free = self.free.unwrap_or(0) >> 20;
        match (self.low, low) {
            (false, true) => tracing::warn!("{free} MiB are free: Mercury takes nothing more to keep"),
            (true, false) => tracing::info!("{free} MiB are free: Mercury takes things to keep again"),
            _ => {}
        }
        self.low = low;
    }

    /// Free bytes; `None` if the system does not tell.
    pub(super) fn free(&self) -> Option<u64> {
        self.free
    }
}

impl Home {
    /// Refuses requests that store something while the disk is nearly full. This comes before any lookup, so that
    /// everyone gets the same answer.
    pub(super) fn check_space(&self, request: &Request) -> Result<(), Failure> {
        let is_kept = matches!(
            request,
            Request::Register(_)
                | Request::SetProfile(_)
                | Request::Relate(_)
                | Request::Related(..)
                | Request::Put(_)
                | Request::Offer(_)
                | Request::Chunk(..)
        );
        if self.space.low && is_kept {
            return refuse(
                Code::Full,
                "the home's disk is nearly full: it takes nothing more to keep for now",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::body::{Departure, Profile};
    use crate::envelope::Order;
    use crate::home::testing::{Bench, Person, blob_of, code};
    use crate::limits::CHUNK;
    use crate::wire::Answer;

    /// A home on a disk whose free space the test sets.
    fn on_a_disk(free: u64) -> (Bench, Arc<AtomicU64>) {
        let disk = Arc::new(AtomicU64::new(free));
        let mut bench = Bench::new(|_| {});
        let of = Arc::clone(&disk);
        bench.home.space = Space::new(move || Some(of.load(Ordering::Relaxed)));
        (bench, disk)
    }

    fn fill(bench: &mut Bench, disk: &AtomicU64, free: u64) {
        disk.store(free, Ordering::Relaxed);
        bench.home.tick(bench.now);
    }

    #[test]
    fn on_a_disk_that_is_nearly_full_nothing_is_taken_and_all_is_given_out_and_thrown_away() {
        let (mut bench, disk) = on_a_disk(u64::MAX);
        let (ada, bob, eve) = (bench.resident(1), bench.resident(2), bench.resident(3));
        let related = bench.relation(&ada, &bob, 1);
        let waiting = bench.message(&bob, ada.id(), 2, 100);
        assert_eq!(bench.ask(bob.device, Request::Put(waiting)), Answer::Done);
        let (kept, whole) = (bench.upload(&ada, b"whole"), vec![7; CHUNK + 1]);
        let begun = blob_of(&whole);
        assert_eq!(bench.ask(ada.device, Request::Offer(begun)), Answer::Next(0));
        let (attributes, encryption_key) = (Vec::new(), [1; 32].into());
        let profile =
            Profile { attributes, encryption_key, picture: None, thumbnail: None, tombstone: false };
        let wanted = bench.request(&eve, ada.id(), 3);
        let kept_requests = [
            (ada.device, Request::SetProfile(bench.sign(&ada, ada.id(), Order::Sequence(1), &profile))),
            (eve.device, Request::Relate(wanted.clone())),
            (ada.device, Request::Related(wanted.clone(), bench.acceptance(&ada, &wanted))),
            (bob.device, Request::Put(bench.message(&bob, ada.id(), 4, 100))),
            (bob.device, Request::Put(bench.message(&bob, Person::new(77).id(), 4, 100))),
            (ada.device, Request::Offer(blob_of(b"another"))),
            (ada.device, Request::Chunk(begun.hash, 0, whole[..CHUNK].to_vec().into())),
        ];
        fill(&mut bench, &disk, MIN_FREE_SPACE - 1);
        for (device, request) in &kept_requests {
            assert_eq!(code(&bench.ask(*device, request.clone())), Some(Code::Full), "{request:?}");
        }
        assert_eq!(code(&bench.register(&Person::new(4))), Some(Code::Full));
        // Hosted personas continue, and can make room.
        assert_eq!(bench.log_in(&ada, &[]), Answer::Session(true));
        let Answer::Mail(mail, false) = bench.ask(ada.device, Request::Fetch(0)) else { panic!("no mail") };
        assert_eq!(mail.len(), 1);
        assert_eq!(bench.ask(ada.device, Request::Acknowledge(1)), Answer::Done);
        assert_eq!(bench.ask(ada.device, Request::Discard(kept.hash)), Answer::Done);
        bench.wait(1);
        let revocation = bench.revocation(&ada, &bob, &related.0);
        assert_eq!(bench.ask(ada.device, Request::Revoke(revocation)), Answer::Done);
        assert!(!bench.home.related(bob.id(), ada.id()).unwrap());
        let order = bench.challenge(bob.device);
        let departure = bench.sign(&bob, bench.home.id(), order, &Departure { to: None });
        assert_eq!(bench.ask(bob.device, Request::Unregister(departure, None)), Answer::Done);
        // There is enough space again.
        fill(&mut bench, &disk, SPACE_AGAIN);
        for (device, request) in kept_requests.into_iter().take(3) {
            assert_eq!(code(&bench.ask(device, request)), None);
        }
        assert!(bench.home.related(ada.id(), eve.id()).unwrap());
        bench.check_counts();
    }

    #[test]
    fn it_is_full_below_one_mark_and_has_room_again_from_another() {
        let (mut bench, disk) = on_a_disk(MIN_FREE_SPACE);
        let mut number = 0;
        let mut takes = |bench: &mut Bench| {
            number += 1;
            code(&bench.register(&Person::new(number))).is_none()
        };
        let steps = [
            (MIN_FREE_SPACE, true),
            (MIN_FREE_SPACE - 1, false),
            (MIN_FREE_SPACE, false),
            (SPACE_AGAIN - 1, false),
            (SPACE_AGAIN, true),
            (MIN_FREE_SPACE, true),
            (0, false),
            (u64::MAX, true),
        ];
        for (free, expected) in steps {
            fill(&mut bench, &disk, free);
            assert_eq!(takes(&mut bench), expected, "{free}");
            let figure = bench.home.figures().into_iter().find(|(name, _)| *name == "disk_free_bytes");
            assert_eq!(figure, Some(("disk_free_bytes", free)));
        }
        // Space is not measured for each request, but before the first one.
        disk.store(0, Ordering::Relaxed);
        assert!(takes(&mut bench));
        assert!(Space::new(|| Some(MIN_FREE_SPACE - 1)).low);
        assert!(!Space::new(|| None).low, "where the system does not say");
    }

    #[test]
    fn a_home_looks_at_its_own_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::Store::open(folder.path()).unwrap();
        assert!(store.free_space().is_some_and(|free| free > 0));
    }
}
