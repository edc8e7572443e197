//! Calls: an offer rings at the callee's devices; the first answer is returned, and permits one circuit.
//!
//! Here: open calls, in memory only, since a restarted home has also lost the connections. Not here: the content of
//! a call, which is encrypted and goes through the circuit or directly. Path: offer → relation → event to devices →
//! signed answer → permit and answer to the caller, or timeout after ten seconds.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{Asked, Failure, Home, Now, Reply, RequestId, nonce, refuse};
use crate::body::{CallAnswer, CallOffer};
use crate::envelope::{Bytes32, Envelope};
use crate::id::Id;
use crate::limits::{CALL_TIME, MAX_CALLS, MAX_CALLS_OF_CALLER, MAX_OFFERS_OF_CALLER};
use crate::wire::{Answer, Code, Event, Refusal};

/// Ringing calls, and recent offers.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// By the hash of the offer.
    open: HashMap<Bytes32, Call>,
    /// Offers of each caller that could be replayed, with their expiry in seconds since 1970.
    offers: HashMap<Id, VecDeque<(Bytes32, u64)>>,
}

#[derive(Debug)]
struct Call {
    request: RequestId,
    caller: Id,
    device: PeerId,
    callee: Id,
    nonce: Bytes32,
    until: Instant,
    /// Devices of the callee that are still connected.
    ringing: Vec<PeerId>,
}

impl Calls {
    /// Checks that an offer is new and its caller has not made too many, and remembers it.
    fn offer(&mut self, caller: Id, hash: Bytes32, expires: u64, now: u64) -> Result<(), Refusal> {
        let offers = self.offers.entry(caller).or_default();
        offers.retain(|(_, until)| *until >= now);
        if offers.iter().any(|(other, _)| *other == hash) {
            return Err(Refusal::new(Code::Superseded, "this call was made already"));
        }
        if offers.len() >= MAX_OFFERS_OF_CALLER {
            return Err(Refusal::new(Code::Later, "too many calls in short time"));
        }
        offers.push_back((hash, expires));
        Ok(())
    }

    fn check_room(&self, caller: Id) -> Result<(), Refusal> {
        let own = self.open.values().filter(|call| call.caller == caller).count();
        if own >= MAX_CALLS_OF_CALLER {
            return Err(Refusal::new(Code::Full, format!("{own} calls of yours are ringing")));
        }
        if self.open.len() >= MAX_CALLS {
            return Err(Refusal::new(Code::Later, "too many calls at this home: later"));
        }
        Ok(())
    }
}

impl Home {
    pub(super) fn call(&mut self, asked: &Asked, offer: &Envelope) -> Result<Reply, Failure> {
        let caller = self.caller(asked)?;
        let verified = self.verify::<CallOffer>(asked, offer, None, Some(caller))?;
        let nonce = nonce(&verified)?;
        if verified.body().device[..] != asked.from.to_bytes() {
            return refuse(Code::Envelope, "a call from another device");
        }
        let callee = verified.about();
        if !self.related(callee, caller)? {
            return Err(Refusal::not_for_you().into());
        }
        self.calls.check_room(caller)?;
        self.calls.offer(caller, verified.hash(), verified.expires(), asked.now.wall)?;
        let ringing = self.sessions.hosted_devices_with(callee, &verified.body().application);
        if ringing.is_empty() {
            return refuse(Code::NoAnswer, "not there, or takes no calls of this application");
        }
        for device in &ringing {
            self.tell(*device, Event::Call(offer.clone()), None);
        }
        let until = asked.now.instant + Duration::from_secs(CALL_TIME);
        let (request, device) = (asked.id, asked.from);
        let call = Call { request, caller, device, callee, nonce, until, ringing };
        self.calls.open.insert(verified.hash(), call);
        Ok(Reply::Later)
    }

    pub(super) fn answer_call(&mut self, asked: &Asked, answer: &Envelope) -> Result<Reply, Failure> {
        let callee = self.hosted_caller(asked)?;
        let verified = self.verify::<CallAnswer>(asked, answer, None, Some(callee))?;
        let offer: Bytes32 = *verified.body().offer;
        let open = self.calls.open.get(&offer).filter(|call| {
            call.callee == callee && call.ringing.contains(&asked.from) && asked.now.instant < call.until
        });
        let Some(call) = open else {
            return refuse(Code::NotForYou, "no call for you: it was answered, or its time is over");
        };
        if verified.about() != call.caller || nonce(&verified)? != call.nonce {
            return refuse(Code::Envelope, "the answer to another call");
        }
        if let Some(taken) = &verified.body().taken {
            if taken.device[..] != asked.from.to_bytes() {
                return refuse(Code::Envelope, "a call is taken at the device that answers");
            }
            if !self.related(callee, call.caller)? {
                return Err(Refusal::not_for_you().into());
            }
            self.permits.allow_circuit((call.device, call.caller), asked.from, asked.now.instant);
        }
        let request = call.request;
        self.calls.open.remove(&offer);
        self.say(request, Answer::Answered(answer.clone()), None);
        Ok(Answer::Done.into())
    }

    /// A device's session has ended: its own calls end, and others stop ringing there.
    pub(super) fn end_calls(&mut self, device: PeerId) {
        for call in self.calls.open.values_mut() {
            call.ringing.retain(|other| *other != device);
        }
        self.end_calls_where(|call| call.device == device || call.ringing.is_empty());
    }

    /// Ends calls and forgets offers whose time is over.
    pub(super) fn tick_calls(&mut self, now: Now) {
        self.end_calls_where(|call| call.until <= now.instant);
        self.calls.offers.retain(|_, offers| offers.iter().any(|(_, until)| *until >= now.wall));
    }

    fn end_calls_where(&mut self, over: impl Fn(&Call) -> bool) {
        let ended: Vec<_> = self.calls.open.extract_if(|_, call| over(call)).map(|(_, call)| call).collect();
        for call in ended {
            self.say(call.request, Answer::refused(Code::NoAnswer, "nobody answers"), None);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::{HomeAddress, RelationAcceptance, RelationRequest, Taken};
    use crate::envelope::{Expected, Order};
    use crate::home::testing::{Bench, NETWORK, Person};
    use crate::limits::{CLOCK_SKEW, JOIN_TIME};
    use crate::wire::Request;

    /// A home with a related caller and callee.
    struct Line {
        bench: Bench,
        caller: Person,
        callee: Person,
        made: u8,
    }

    impl Line {
        fn new() -> Self {
            let mut bench = Bench::new(|_| {});
            let (caller, callee) = (bench.resident(1), Person::new(2));
            bench.register(&callee);
            assert_eq!(bench.log_in(&callee, &["chat"]), Answer::Session(true));
            let mut line = Self { bench, caller, callee, made: 0 };
            line.relate(&Person { key: copy(&line.caller), device: line.caller.device });
            line
        }

        fn relate(&mut self, other: &Person) {
            self.made += 1;
            let order = Order::Nonce([self.made; 32]);
            let home =
                HomeAddress { home: self.bench.home.id(), addresses: vec!["/ip4/1.2.3.4/tcp/1".into()] };
            let body = RelationRequest { label: "friend".into(), note: String::new(), home };
            let request = self.bench.sign(other, self.callee.id(), order, &body);
            let expected = Expected { network: NETWORK, about: None, signer: None, now: self.bench.now.wall };
            let hash = request.verify::<RelationRequest>(&expected).unwrap().hash();
            let body = RelationAcceptance { request: hash.into() };
            let acceptance = self.bench.sign(&self.callee, other.id(), order, &body);
            assert_eq!(self.bench.ask(other.device, Request::Related(request, acceptance)), Answer::Done);
            assert!(self.bench.home.related(self.callee.id(), other.id()).unwrap());
        }

        fn offer_of(&mut self, caller: &Person, application: &str) -> Envelope {
            self.made += 1;
            let body = CallOffer { application: application.into(), device: caller.device.to_bytes().into() };
            self.bench.sign(caller, self.callee.id(), Order::Nonce([self.made; 32]), &body)
        }

        fn offer(&mut self) -> Envelope {
            let caller = Person { key: copy(&self.caller), device: self.caller.device };
            self.offer_of(&caller, "chat")
        }

        /// Sends a call; returns the answer if it comes at once.
        fn call(&mut self, offer: &Envelope) -> Option<Answer> {
            self.bench.ask_later(self.caller.device, Request::Call(offer.clone()))
        }

        /// The answer of a person at a device.
        fn answer_by(&self, offer: &Envelope, person: &Person, device: Option<PeerId>) -> Envelope {
            let expected = Expected { network: NETWORK, about: None, signer: None, now: self.bench.now.wall };
            let verified = offer.verify::<CallOffer>(&expected).unwrap();
            let taken =
                device.map(|device| Taken { device: device.to_bytes().into(), token: [9; 32].into() });
            let body = CallAnswer { offer: verified.hash().into(), taken };
            self.bench.sign(person, verified.signer(), verified.order(), &body)
        }

        fn answer(&self, offer: &Envelope) -> Envelope {
            self.answer_by(offer, &self.callee, Some(self.callee.device))
        }

        /// The callee's device sends an answer; returns the home's reply to it, and what the caller receives.
        fn say(&mut self, device: PeerId, answer: &Envelope) -> (Answer, Option<Answer>) {
            self.bench.home.handle(
                RequestId(u64::MAX),
                device,
                Request::Answer(answer.clone()),
                self.bench.now,
            );
            let (own, other): (Vec<_>, Vec<_>) =
                self.bench.collect().into_iter().partition(|(id, _)| *id == RequestId(u64::MAX));
            (own[0].1.clone(), other.first().map(|(_, answer)| answer.clone()))
        }

        fn may_open(&self) -> bool {
            self.bench.home.permits().may_open(self.caller.device, self.bench.now.instant)
        }

        fn tick(&mut self) -> Vec<Answer> {
            self.bench.home.tick(self.bench.now);
            self.bench.collect().into_iter().map(|(_, answer)| answer).collect()
        }
    }

    fn copy(person: &Person) -> crate::id::Key {
        crate::id::Key::from_secret(&person.key.secret())
    }

    fn code(answer: Answer) -> Code {
        match answer {
            Answer::Refused(refusal) => refusal.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_rings_is_taken_and_opens_one_circuit() {
        let mut line = Line::new();
        let offer = line.offer();
        assert_eq!(line.call(&offer), None);
        assert_eq!(line.bench.events_of(line.callee.device).last(), Some(&Event::Call(offer.clone())));
        assert!(!line.may_open());
        let answer = line.answer(&offer);
        let (done, answered) = line.say(line.callee.device, &answer);
        assert_eq!((done, answered), (Answer::Done, Some(Answer::Answered(answer.clone()))));
        assert!(line.may_open());
        let permits = line.bench.home.permits();
        assert!(permits.spend(line.caller.device, line.callee.device, line.bench.now.instant));
        assert_eq!(code(line.say(line.callee.device, &answer).0), Code::NotForYou, "answered once");
        assert!(!line.may_open());
        line.bench.wait(CALL_TIME);
        assert_eq!(line.tick(), [], "it is over");
    }

    #[test]
    fn a_permit_that_is_not_used_in_time_is_gone() {
        let mut line = Line::new();
        let offer = line.offer();
        assert_eq!(line.call(&offer), None);
        let answer = line.answer(&offer);
        line.say(line.callee.device, &answer);
        line.bench.wait(JOIN_TIME - 1);
        assert!(line.may_open());
        line.bench.wait(1);
        assert!(!line.may_open());
    }

    #[test]
    fn a_call_that_is_refused_opens_nothing() {
        let mut line = Line::new();
        let offer = line.offer();
        assert_eq!(line.call(&offer), None);
        let answer = line.answer_by(&offer, &line.callee, None);
        let (done, answered) = line.say(line.callee.device, &answer);
        assert_eq!((done, answered), (Answer::Done, Some(Answer::Answered(answer))));
        assert!(!line.may_open());
    }

    #[test]
    fn nobody_answers_for_ten_seconds_and_later_is_too_late() {
        let mut line = Line::new();
        let offer = line.offer();
        assert_eq!(line.call(&offer), None);
        line.bench.wait(CALL_TIME - 1);
        assert_eq!(line.tick(), []);
        line.bench.wait(1);
        let answer = line.answer(&offer);
        let (late, answered) = line.say(line.callee.device, &answer);
        assert_eq!((code(late), answered), (Code::NotForYou, None));
        assert_eq!(line.tick().into_iter().map(code).collect::<Vec<_>>(), [Code::NoAnswer]);
        assert!(!line.may_open());
    }

    #[test]
    fn an_offer_is_made_once_and_by_its_own_device() {
        let mut line = Line::new();
        let offer = line.offer();
        assert_eq!(line.call(&offer), None);
        assert_eq!(line.call(&offer).map(code), Some(Code::Superseded), "while it rings");
        line.bench.wait(CALL_TIME);
        assert_eq!(line.tick().len(), 1);
        assert_eq!(line.call(&offer).map(code), Some(Code::Superseded), "and afterwards");
        line.bench.wait(CLOCK_SKEW + 1);
        line.tick();
        assert_eq!(line.call(&offer).map(code), Some(Code::Envelope), "until it has expired");
        assert!(line.bench.home.calls.offers.is_empty());
        let second = Person { key: copy(&line.caller), device: PeerId::random() };
        line.bench.log_in(&second, &[]);
        let offer = line.offer();
        assert_eq!(code(line.bench.ask(second.device, Request::Call(offer))), Code::Envelope);
    }

    #[test]
    fn strangers_unknown_and_absent_people_ring_nowhere() {
        let mut line = Line::new();
        let stranger = line.bench.resident(3);
        let offer = line.offer_of(&stranger, "chat");
        let hosted = line.bench.ask(stranger.device, Request::Call(offer));
        let body = CallOffer { application: "chat".into(), device: stranger.device.to_bytes().into() };
        let unknown = line.bench.sign(&stranger, Person::new(9).id(), Order::Nonce([77; 32]), &body);
        assert_eq!(hosted, line.bench.ask(stranger.device, Request::Call(unknown)), "hosted is not told");
        assert_eq!(code(hosted), Code::NotForYou);
        let caller = Person { key: copy(&line.caller), device: line.caller.device };
        let other = line.offer_of(&caller, "chess");
        assert_eq!(line.call(&other).map(code), Some(Code::NoAnswer), "no device takes this application");
        let device = PeerId::random();
        let body = CallOffer { application: "chat".into(), device: device.to_bytes().into() };
        let offer = line.bench.sign(&line.caller, line.callee.id(), Order::Nonce([78; 32]), &body);
        assert_eq!(code(line.bench.ask(device, Request::Call(offer))), Code::LogInFirst);
    }

    #[test]
    fn only_the_callee_answers_and_only_this_call() {
        let mut line = Line::new();
        let third = line.bench.resident(3);
        let offer = line.offer();
        assert_eq!(line.call(&offer), None);
        let own = line.answer_by(&offer, &third, Some(third.device));
        assert_eq!(code(line.say(third.device, &own).0), Code::NotForYou, "a third party, signed by itself");
        let answer = line.answer(&offer);
        assert_eq!(
            code(line.say(third.device, &answer).0),
            Code::Envelope,
            "a third party, signed by the callee"
        );
        let second = Person { key: copy(&line.callee), device: PeerId::random() };
        line.bench.log_in(&second, &["chat"]);
        assert_eq!(code(line.say(second.device, &answer).0), Code::NotForYou, "a device that does not ring");
        let elsewhere = line.answer_by(&offer, &line.callee, Some(second.device));
        assert_eq!(
            code(line.say(line.callee.device, &elsewhere).0),
            Code::Envelope,
            "taken for another device"
        );
        let other = line.offer();
        let expected = Expected { network: NETWORK, about: None, signer: None, now: line.bench.now.wall };
        let hash = offer.verify::<CallOffer>(&expected).unwrap().hash();
        let body = CallAnswer { offer: hash.into(), taken: None };
        let order = other.verify::<CallOffer>(&expected).unwrap().order();
        let swapped = line.bench.sign(&line.callee, line.caller.id(), order, &body);
        assert_eq!(code(line.say(line.callee.device, &swapped).0), Code::Envelope, "another call's nonce");
        assert!(!line.may_open());
        assert_eq!(line.say(line.callee.device, &answer).0, Answer::Done);
    }

    #[test]
    fn several_devices_ring_and_the_first_answer_counts() {
        let mut line = Line::new();
        let second = Person { key: copy(&line.callee), device: PeerId::random() };
        line.bench.log_in(&second, &["chat", "chess"]);
        let mute = Person { key: copy(&line.callee), device: PeerId::random() };
        line.bench.log_in(&mute, &[]);
        let offer = line.offer();
        assert_eq!(line.call(&offer), None);
        let rang =
            |line: &mut Line, device| line.bench.events_of(device).contains(&Event::Call(offer.clone()));
        let (first_device, second_device) = (line.callee.device, second.device);
        assert!(
            rang(&mut line, first_device) && rang(&mut line, second_device) && !rang(&mut line, mute.device)
        );
        let answer = line.answer_by(&offer, &second, Some(second.device));
        assert_eq!(line.say(second.device, &answer).0, Answer::Done);
        let late = line.answer(&offer);
        assert_eq!(code(line.say(line.callee.device, &late).0), Code::NotForYou);
        let permits = line.bench.home.permits();
        assert!(permits.spend(line.caller.device, second.device, line.bench.now.instant));
        assert!(!permits.spend(line.caller.device, line.callee.device, line.bench.now.instant));
    }

    #[test]
    fn a_call_is_over_when_its_caller_or_the_last_device_that_rings_goes() {
        let mut line = Line::new();
        let second = Person { key: copy(&line.callee), device: PeerId::random() };
        line.bench.log_in(&second, &["chat"]);
        let offer = line.offer();
        assert_eq!(line.call(&offer), None);
        line.bench.home.gone(second.device);
        assert_eq!(line.bench.collect(), [], "another one rings");
        assert_eq!(line.bench.ask(line.callee.device, Request::LogOut), Answer::Done);
        line.bench.log_in(&Person { key: copy(&line.callee), device: line.callee.device }, &["chat"]);
        let offer = line.offer();
        assert_eq!(line.call(&offer), None);
        line.bench.home.gone(line.caller.device);
        assert_eq!(line.bench.collect().len(), 1, "each request is answered");
        let answer = line.answer(&offer);
        assert_eq!(code(line.say(line.callee.device, &answer).0), Code::NotForYou);
        assert!(line.bench.home.calls.open.is_empty());
    }

    #[test]
    fn a_caller_has_so_many_calls_at_once_and_so_many_in_short_time() {
        let mut line = Line::new();
        for _ in 0..MAX_CALLS_OF_CALLER {
            let offer = line.offer();
            assert_eq!(line.call(&offer), None);
        }
        let offer = line.offer();
        assert_eq!(line.call(&offer).map(code), Some(Code::Full));
        let other = line.bench.resident(3);
        line.relate(&other);
        let offer = line.offer_of(&other, "chat");
        let answer = line.bench.ask_later(other.device, Request::Call(offer));
        assert_eq!(answer, None, "others are not concerned");
        line.bench.wait(CALL_TIME);
        line.tick();
        for number in MAX_CALLS_OF_CALLER..MAX_OFFERS_OF_CALLER {
            let offer = line.offer();
            assert_eq!(line.call(&offer), None, "{number}");
            let no = line.answer_by(&offer, &line.callee, None);
            assert_eq!(line.say(line.callee.device, &no).0, Answer::Done);
        }
        let offer = line.offer();
        assert_eq!(line.call(&offer).map(code), Some(Code::Later));
    }

    #[test]
    fn a_home_has_so_many_calls_at_once() {
        let mut calls = Calls::default();
        let call = |number: usize| {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&number.to_be_bytes());
            let caller = crate::id::Key::from_secret(&secret).id();
            let (device, until) = (PeerId::random(), Instant::now());
            let (callee, nonce, ringing) = (caller, secret, Vec::new());
            (secret, Call { request: RequestId(0), caller, device, callee, nonce, until, ringing })
        };
        for number in 0..MAX_CALLS {
            let (hash, call) = call(number);
            assert_eq!(calls.check_room(call.caller), Ok(()), "{number}");
            calls.open.insert(hash, call);
        }
        assert_eq!(calls.check_room(Person::new(1).id()).unwrap_err().code, Code::Later);
    }
}
