//! Any order of requests, proofs and revocations at both homes, sent by anyone, checked against invariants.

use super::*;
use crate::store::{Column, Request as Boxed};

/// A small deterministic random generator.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % end as u64).unwrap()
    }
}

/// A request of one or the other, its acceptance, and its revocation, with the time by the clock of its signer.
struct Affair {
    requester: usize,
    issued: u64,
    hash: [u8; 32],
    request: Envelope,
    proof: Request,
    revoked: u64,
    revoker: usize,
    revocation: Envelope,
}

/// A home, which of the two is hosted there, and what it must know: the newest revocation, and those by name.
struct Side {
    bench: Bench,
    owner: usize,
    upto: u64,
    named: Vec<[u8; 32]>,
    /// The newest revocation.
    newest: u64,
}

/// Each affair has its own time, and its revocation comes before the next one. The last one's may be signed by a
/// slow clock.
fn affairs(bench: &mut Bench, people: &[Person; 3], dice: &mut Dice) -> Vec<Affair> {
    let mut all = Vec::new();
    for number in 0..3 {
        bench.wait(100);
        let (requester, revoker) = (dice.below(2), dice.below(2));
        let request = bench.request(&people[requester], people[1 - requester].id(), number);
        let proof = Request::Related(request.clone(), bench.acceptance(&people[1 - requester], &request));
        let opened = bench.opened::<RelationRequest>(&request);
        let slow = number == 2 && dice.below(2) == 0;
        let issued = opened.issued();
        let revoked = if slow { issued - 50 } else { issued + dice.below(50) as u64 };
        let body = RelationRevocation { request: opened.hash().into() };
        let (about, times) = (people[1 - revoker].id(), (revoked, revoked + DAY));
        let revocation = Envelope::sign(&people[revoker].key, NETWORK, about, opened.order(), times, &body);
        let hash = opened.hash();
        all.push(Affair { requester, issued, hash, request, proof, revoked, revoker, revocation });
    }
    bench.wait(100);
    all
}

impl Side {
    fn holds(&self, people: &[Person; 3]) -> bool {
        let (owner, other) = (people[self.owner].id(), people[1 - self.owner].id());
        self.bench.home.related(owner, other).unwrap()
    }

    /// The other's request in the owner's box: its hash and time.
    fn waiting(&self, people: &[Person; 3]) -> Option<([u8; 32], u64)> {
        let owner = people[self.owner].id();
        let mut rows = self.bench.home.store.rows(Column::Requests, owner.digest(), b"");
        rows.next().map(|row| {
            let request: Boxed = self.bench.home.store.record(Column::Requests, &row.unwrap().1).unwrap();
            (*request.hash, request.issued)
        })
    }

    fn knows(&self, people: &[Person; 3]) -> bool {
        let key = crate::store::pair(people[self.owner].id().digest(), people[1 - self.owner].id().digest());
        self.bench.home.store.bytes(Column::Relations, &key).unwrap().is_some()
    }

    fn is_over(&self, affair: &Affair) -> bool {
        affair.issued <= self.upto || self.named.contains(&affair.hash)
    }

    fn bring(&mut self, people: &[Person; 3], affair: &Affair, what: usize, by: usize) {
        let device = people[by].device;
        match what {
            0 => {
                self.bench.ask(device, Request::Relate(affair.request.clone()));
            }
            1 => {
                let held = self.holds(people);
                self.bench.ask(device, affair.proof.clone());
                let expected = held || !self.is_over(affair);
                assert_eq!(self.holds(people), expected, "a proof holds unless it was taken back");
            }
            _ => {
                let waiting = self
                    .waiting(people)
                    .filter(|(hash, issued)| *issued <= affair.revoked || *hash == affair.hash);
                let counts = affair.revoker == self.owner
                    || by == self.owner
                    || self.knows(people)
                    || waiting.is_some();
                self.bench.ask(device, Request::Revoke(affair.revocation.clone()));
                if counts && affair.revoked > self.newest {
                    self.newest = affair.revoked;
                    self.upto = self.upto.max(affair.revoked);
                    self.named.push(affair.hash);
                }
            }
        }
        let waiting = self.waiting(people);
        assert!(waiting.is_none_or(|(hash, issued)| issued > self.upto && !self.named.contains(&hash)));
        self.bench.check_counts();
    }

    /// Nothing that was revoked holds.
    fn check(&mut self, people: &[Person; 3], affairs: &[Affair]) {
        if self.holds(people) {
            let told = relations(&mut self.bench, &people[self.owner]);
            let held = affairs.iter().find(|one| one.request == told[0].request).unwrap();
            assert!(!self.is_over(held), "{} of {}", held.requester, held.issued);
        }
    }
}

#[test]
fn in_any_order_at_both_homes_what_was_taken_back_stays_so() {
    let rounds = 50;
    let mut ends = [0, 0];
    for seed in 0..rounds {
        let mut dice = Dice(seed);
        let people = [Person::new(1), Person::new(2), Person::new(9)];
        let mut sides = [0, 1].map(|owner| {
            let bench = Bench::new(|_| {});
            Side { bench, owner, upto: 0, named: Vec::new(), newest: 0 }
        });
        let affairs = affairs(&mut sides[0].bench, &people, &mut dice);
        for side in &mut sides {
            side.bench.wait(1000);
            let owner = &people[side.owner];
            side.bench.register(owner);
            side.bench.log_in(owner, &[]);
            for _ in 0..8 {
                let affair = &affairs[dice.below(3)];
                let (what, by) = (dice.below(3), dice.below(3));
                side.bring(&people, affair, what, by);
                side.check(&people, &affairs);
            }
        }
        // Each sends its home everything that the two have; the newest is revoked, or this one does not have it.
        let kept = 2 + dice.below(2);
        for side in &mut sides {
            let mut left: Vec<_> = (0..6).filter(|what| what % 2 == 0 || what / 2 != kept).collect();
            while !left.is_empty() {
                let next = left.swap_remove(dice.below(left.len()));
                let what = if next % 2 == 0 { 1 } else { 2 };
                side.bring(&people, &affairs[next / 2], what, side.owner);
                side.check(&people, &affairs);
            }
            let expected = affairs.iter().any(|affair| !side.is_over(affair));
            assert_eq!(side.holds(&people), expected, "seed {seed}");
            ends[usize::from(expected)] += 1;
        }
        if [0, 1].map(|side| sides[side].newest) == [affairs[2].revoked; 2] {
            assert!(sides.iter().all(|side| !side.holds(&people)), "taken back at both");
        }
    }
    assert!(ends.iter().all(|count| *count > 5), "both ends are seen: {ends:?}");
}
