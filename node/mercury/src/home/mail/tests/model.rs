//! Any sequence of puts, fetches, acknowledgements, restarts and waits, compared with a model: nothing is lost or
//! duplicated, and the counts match the data.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::limits::MAX_FETCH_BYTES;

/// Number of senders.
const SENDERS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    /// Sender, bytes, and validity in seconds.
    Put(usize, usize, u64),
    /// Sends an earlier message again.
    PutAgain(prop::sample::Index),
    Acknowledge(u64),
    Restart,
    /// Seconds, and whether there are ticks.
    Wait(u64, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let life = prop_oneof![Just(MAIL_TIME), 1..2 * DAY];
    let step = prop_oneof![
        8 => (0..SENDERS as usize, prop_oneof![16..500usize, 40_000..65_000usize], life)
            .prop_map(|(sender, bytes, life)| Step::Put(sender, bytes, life)),
        3 => any::<prop::sample::Index>().prop_map(Step::PutAgain),
        2 => prop_oneof![0..40u64, Just(u64::MAX)].prop_map(Step::Acknowledge),
        1 => Just(Step::Restart),
        2 => (prop_oneof![1..DAY, 1..MAIL_TIME], any::<bool>()).prop_map(|(time, ticks)| Step::Wait(time, ticks)),
    ];
    prop::collection::vec(step, 1..60)
}

/// The expected state.
struct Model {
    bench: Bench,
    owner: Person,
    senders: Vec<Person>,
    /// Everything that was ever stored, by number: envelope and expiry.
    stored: BTreeMap<u64, (Envelope, u64)>,
    sent: Vec<(usize, Envelope)>,
    acknowledged: u64,
}

impl Model {
    fn put(&mut self, sender: usize, message: &Envelope) {
        let (before, of_sender) = (
            self.bench.home.mailbox(self.owner.id()).unwrap(),
            self.bench.home.sender(self.owner.id(), self.senders[sender].id()).unwrap(),
        );
        let known = self.stored.values().any(|(stored, _)| stored == message);
        let answer = self.bench.ask(self.senders[sender].device, Request::Put(message.clone()));
        let size = super::super::size(&message.to_bytes());
        match answer {
            Answer::Done if known => {}
            Answer::Done => {
                let verified = self.bench.opened::<Message>(message);
                let number = self.stored.keys().last().map_or(1, |last| last + 1);
                let expires = verified.expires().min(self.bench.now.wall + MAIL_TIME);
                self.stored.insert(number, (message.clone(), expires));
                assert!(of_sender.bytes + size <= MAX_MAIL_OF_SENDER && before.bytes + size <= MAX_MAILBOX);
            }
            Answer::Refused(Refusal { code: Code::Full, .. }) => {
                assert!(!known);
                assert!(of_sender.bytes + size > MAX_MAIL_OF_SENDER || before.bytes + size > MAX_MAILBOX);
            }
            Answer::Refused(Refusal { code: Code::Envelope, .. }) => {
                let expired = |of: &(Envelope, u64)| of.0 == *message && of.1 < self.bench.now.wall;
                let age = self.sent.iter().any(|(_, sent)| sent == message);
                assert!(age && (!known || self.stored.values().any(expired)), "only for its age");
            }
            other => panic!("{other:?}"),
        }
    }

    fn step(mut self, step: Step) -> Self {
        match step {
            Step::Put(sender, bytes, life) => {
                let now = self.bench.now.wall;
                let message = Envelope::sign(
                    &self.senders[sender].key,
                    NETWORK,
                    self.owner.id(),
                    nonce(self.sent.len() as u64),
                    (now, now + life),
                    &Message { encapsulated: [0; 32].into(), ciphertext: vec![0; bytes].into() },
                );
                self.put(sender, &message);
                self.sent.push((sender, message));
            }
            Step::PutAgain(index) if !self.sent.is_empty() => {
                let (sender, message) = index.get(&self.sent).clone();
                self.put(sender, &message);
            }
            Step::PutAgain(_) => {}
            Step::Acknowledge(upto) => {
                assert_eq!(self.bench.ask(self.owner.device, Request::Acknowledge(upto)), Answer::Done);
                let last = self.stored.keys().last().copied().unwrap_or(0);
                self.acknowledged = self.acknowledged.max(upto.min(last));
            }
            Step::Restart => {
                self.bench = self.bench.restart(|_| {});
                assert_eq!(self.bench.log_in(&self.owner, &[]), Answer::Session(true));
            }
            Step::Wait(seconds, true) => self.bench.sweep_after(seconds),
            Step::Wait(seconds, false) => self.bench.wait(seconds),
        }
        self.bench.check_counts();
        self
    }

    /// Checks that all pages contain what was stored and neither acknowledged nor expired, each once and in order.
    fn check(&mut self) {
        let mut fetched = Vec::new();
        loop {
            let after = fetched.last().map_or(0, |mail: &Mail| mail.number);
            let (page, more) = fetch(&mut self.bench, &self.owner, after);
            let bytes: usize = page.iter().map(|item| item.envelope.to_bytes().len()).sum();
            assert!(page.len() <= MAX_FETCH && (bytes <= MAX_FETCH_BYTES || page.len() == 1));
            assert!(!more || !page.is_empty());
            fetched.extend(page);
            if !more {
                break;
            }
        }
        let now = self.bench.now.wall;
        let waiting = self.stored.range(self.acknowledged + 1..).filter(|(_, (_, expires))| *expires >= now);
        let waiting: Vec<_> = waiting.map(|(number, (envelope, _))| (*number, envelope)).collect();
        assert_eq!(fetched.iter().map(|item| (item.number, &item.envelope)).collect::<Vec<_>>(), waiting);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_doubled_and_the_counts_are_right(steps in steps()) {
        let (bench, owner, senders) = with_senders(SENDERS);
        let (stored, sent) = (BTreeMap::new(), Vec::new());
        let mut model = Model { bench, owner, senders, stored, sent, acknowledged: 0 };
        for step in steps {
            model = model.step(step);
            model.check();
        }
    }
}
