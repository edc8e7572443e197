//! Whose records are published next: new personas, and all of them again in rounds.
//!
//! Here: that order. Not here: publishing ([`super::directory`]). Path: a new persona is queued once; the rounds
//! and the queue alternate, so that neither can hold up the other.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use crate::id::Id;
use crate::limits::{MAX_HOSTED, PUBLISH_EACH_SECOND, PUBLISH_INTERVAL};

pub(super) struct Queue {
    /// New personas, the oldest first. At most as many as can be hosted: without room, a persona waits for the next
    /// round.
    news: VecDeque<Id>,
    queued: HashSet<Id>,
    /// The next personas of the current round.
    batch: VecDeque<Id>,
    /// The persona after which the round continues, and when the next round begins.
    round: Option<Id>,
    next_round: Instant,
    news_next: bool,
}

impl Queue {
    /// The first round begins at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            news: VecDeque::new(),
            queued: HashSet::new(),
            batch: VecDeque::new(),
            round: None,
            next_round: now,
            news_next: false,
        }
    }

    /// Queues a new persona.
    pub(super) fn push(&mut self, persona: Id) {
        if self.news.len() < MAX_HOSTED && self.queued.insert(persona) {
            self.news.push_back(persona);
        }
    }

    /// The next persona. `hosted` returns at most that many hosted personas after the given one.
    pub(super) fn next(&mut self, now: Instant, hosted: impl Fn(Option<Id>, usize) -> Vec<Id>) -> Option<Id> {
        self.news_next = !self.news_next;
        if self.news_next {
            self.next_news().or_else(|| self.next_of_round(now, hosted))
        } else {
            self.next_of_round(now, hosted).or_else(|| self.next_news())
        }
    }

    fn next_news(&mut self) -> Option<Id> {
        let persona = self.news.pop_front()?;
        self.queued.remove(&persona);
        Some(persona)
    }

    fn next_of_round(&mut self, now: Instant, hosted: impl Fn(Option<Id>, usize) -> Vec<Id>) -> Option<Id> {
        if self.batch.is_empty() && now >= self.next_round {
            self.batch = hosted(self.round, PUBLISH_EACH_SECOND).into();
            self.round = self.batch.back().copied();
            if self.round.is_none() {
                self.next_round = now + PUBLISH_INTERVAL;
            }
        }
        self.batch.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Id {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        Id::from_digest(digest)
    }

    /// A home that hosts the first `count` personas.
    fn hosts(count: usize) -> impl Fn(Option<Id>, usize) -> Vec<Id> {
        let all: Vec<_> = (0..count).map(id).collect();
        move |after, most| {
            let from =
                after.map_or(0, |after| all.iter().position(|one| *one == after).map_or(0, |one| one + 1));
            all.iter().skip(from).take(most).copied().collect()
        }
    }

    fn drain(queue: &mut Queue, now: Instant, count: usize) -> Vec<Id> {
        std::iter::from_fn(|| queue.next(now, hosts(count))).collect()
    }

    #[test]
    fn who_comes_and_leaves_without_end_takes_half_of_the_room_and_nobody_is_passed_by() {
        let (now, hosted) = (Instant::now(), 100);
        let mut queue = Queue::new(now);
        let newcomer = id(1_000_000);
        queue.push(newcomer);
        let mut published = Vec::new();
        for number in 0..2 * hosted {
            // Two new ones arrive for each that is published.
            queue.push(id(2_000_000 + 2 * number));
            queue.push(id(2_000_001 + 2 * number));
            published.extend(queue.next(now, hosts(hosted)));
        }
        assert_eq!(published[0], newcomer, "the first that came");
        let of_round: Vec<_> =
            published.iter().filter(|one| (0..hosted).any(|number| id(number) == **one)).collect();
        assert_eq!(of_round.len(), hosted, "all of the round in half of the room");
    }

    #[test]
    fn one_persona_queues_once_and_the_queue_is_bounded() {
        let now = Instant::now();
        let mut queue = Queue::new(now);
        for _ in 0..3 {
            queue.push(id(1));
        }
        assert_eq!(drain(&mut queue, now, 0), [id(1)]);
        queue.push(id(1));
        assert_eq!(drain(&mut queue, now, 0), [id(1)], "it may queue again");
        for number in 0..=MAX_HOSTED {
            queue.push(id(number));
        }
        assert_eq!(drain(&mut queue, now, 0).len(), MAX_HOSTED);
        assert!(queue.queued.is_empty());
    }

    #[test]
    fn a_round_has_everybody_once_and_the_next_one_is_later() {
        let now = Instant::now();
        let mut queue = Queue::new(now);
        let all: Vec<_> = (0..3 * PUBLISH_EACH_SECOND).map(id).collect();
        assert_eq!(drain(&mut queue, now, all.len()), all);
        assert_eq!(drain(&mut queue, now, all.len()), []);
        assert_eq!(drain(&mut queue, now + PUBLISH_INTERVAL, all.len()), all);
    }
}
