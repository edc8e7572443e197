//! The state machine of one connection to a pool.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::{Answer, configured_mask};
use super::{Error, Event, Job, Options, Reconnect, Share, SubmitId, Verdict};
use super::{MAX_PASSED_OVER, MAX_RECONNECT_WAIT, MAX_SHOWN_MESSAGE, MAX_UNANSWERED};
use crate::difficulty::Difficulty;
use crate::fields::{
    Extranonce1, FieldError, JobId, MAX_EXTRANONCE1_SIZE, MAX_EXTRANONCE2_SIZE, Span, VersionBits,
    VersionMask,
};
use crate::message::{Id, Message, Params, failure, is_number, printable, request, success};
use crate::notify::Notify;
use crate::verdict::Reject;

// Ids of the requests that every session makes; shares are numbered from FIRST_SUBMIT.
const CONFIGURE: u64 = 1;
const SUBSCRIBE: u64 = 2;
const AUTHORIZE: u64 = 3;
const SUGGEST_DIFFICULTY: u64 = 4;
const EXTRANONCE_SUBSCRIBE: u64 = 5;
const FIRST_SUBMIT: u64 = 6;

/// Most answers to the pool's own requests that may be queued; further requests are not answered.
const MAX_WAITING_ANSWERS: usize = 64;
/// Longest host name in a `client.reconnect` (RFC 1035).
const MAX_HOST: usize = 253;

/// The extranonce of a subscription.
#[derive(Debug, Clone, Copy)]
struct Subscription {
    extranonce1: Extranonce1,
    extranonce2_size: usize,
}

/// A connection to a pool, as the miner sees it. The handshake is queued at the start and continues by itself as the
/// pool answers. The owner moves lines and handles events.
#[derive(Debug)]
pub struct Session {
    options: Options,
    subscription: Option<Subscription>,
    /// Whether the subscription was answered; a pool may set an extranonce before that.
    subscribed: bool,
    authorized: bool,
    difficulty: Difficulty,
    version_mask: VersionMask,
    /// Whether the pool has allowed version rolling at any time.
    may_have_rolled: bool,
    /// The newest job that came before the extranonces that its coinbase needs, with the difficulty in force then.
    early: Option<(Arc<Notify>, Difficulty)>,
    /// Whether the pool's jobs have numbers for names, which go back as such.
    numbers_jobs: bool,
    /// Lines in a row that were passed over.
    passed_over: u32,
    next_submit: u64,
    unanswered: BTreeSet<u64>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Session {
    /// Creates a session and queues its first requests.
    ///
    /// `mining.configure` and `mining.subscribe` are sent together, since a pool that does not know the former may
    /// never answer it.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut session = Self {
            options,
            subscription: None,
            subscribed: false,
            authorized: false,
            difficulty: Difficulty::ONE,
            version_mask: VersionMask::NONE,
            may_have_rolled: false,
            early: None,
            numbers_jobs: false,
            passed_over: 0,
            next_submit: FIRST_SUBMIT,
            unanswered: BTreeSet::new(),
            outgoing: VecDeque::new(),
        };
        let mask = session.options.version_mask;
        if mask != VersionMask::NONE {
            // One bit already doubles the nonces of a header.
            let parameters =
                json!({"version-rolling.mask": mask.to_string(), "version-rolling.min-bit-count": 1});
            session.ask(CONFIGURE, "mining.configure", (["version-rolling"], parameters));
        }
        let agent = session.options.user_agent.clone();
        session.ask(SUBSCRIBE, "mining.subscribe", [agent]);
        session
    }

    /// Whether the pool has answered our subscription.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// Whether the pool has authorised our user.
    #[must_use]
    pub fn is_authorized(&self) -> bool {
        self.authorized
    }

    /// The version bits that may be rolled now.
    #[must_use]
    pub fn version_mask(&self) -> VersionMask {
        self.version_mask
    }

    /// The difficulty of the next job.
    #[must_use]
    pub fn difficulty(&self) -> Difficulty {
        self.difficulty
    }

    /// The next line to send, including its line end.
    pub fn next_outgoing(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// Queues a share. Its verdict comes as [`Event::SubmitResult`].
    pub fn submit(&mut self, share: &Share) -> SubmitId {
        let id = self.next_submit;
        self.next_submit += 1;
        let mut params = vec![
            json!(self.options.user),
            self.name_of(&share.job_id),
            json!(share.extranonce2.to_string()),
            json!(share.ntime.to_string()),
            json!(share.nonce.to_string()),
        ];
        // The share may date from a time when rolling was allowed; without its bits the header would be another one.
        let is_rolled = self.may_have_rolled && share.version_bits != VersionBits(0);
        if self.version_mask != VersionMask::NONE || is_rolled {
            params.push(json!(share.version_bits.to_string()));
        }
        self.ask(id, "mining.submit", params);
        self.unanswered.insert(id);
        if self.unanswered.len() > MAX_UNANSWERED {
            self.unanswered.pop_first();
        }
        SubmitId(id)
    }

    /// A job's name as the pool wrote it: text, or a whole number of a size that keeps its digits.
    fn name_of(&self, job: &JobId) -> Value {
        let number =
            Some(job.as_str()).filter(|_| self.numbers_jobs).and_then(|text| text.parse::<u64>().ok());
        number.map_or_else(|| json!(job.as_str()), |number| json!(number))
    }

    /// Reads one line from the pool. Some that it cannot understand are [passed over](Event::PassedOver), up to
    /// [`MAX_PASSED_OVER`] in a row.
    ///
    /// # Errors
    /// The connection cannot go on: the pool refused us, sends jobs that cannot be read, or what is no Stratum.
    pub fn handle_line(&mut self, line: &[u8]) -> Result<Option<Event>, Error> {
        match self.read(line) {
            Ok(event) => {
                self.passed_over = 0;
                Ok(event)
            }
            // Whoever has said nothing yet but this is no pool.
            Err(error)
                if self.subscribed && error.can_be_passed_over() && self.passed_over < MAX_PASSED_OVER =>
            {
                self.passed_over += 1;
                Ok(Some(Event::PassedOver(error)))
            }
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, line: &[u8]) -> Result<Option<Event>, Error> {
        // Messages for people are not always UTF-8.
        let text = String::from_utf8_lossy(line);
        match Message::parse_leniently(text.as_bytes())? {
            Message::Answer { id, result, error, reject_reason } => {
                self.answer(&id, &Answer::new(result, error, reject_reason))
            }
            Message::Call { method, .. } if method == "mining.notify" && matches!(text, Cow::Owned(_)) => {
                // What was lost may be in the name of the job, by which its shares are known.
                let error = FieldError::Kind { field: "the line", expected: "UTF-8" };
                Err(Error::Field { method: "mining.notify", error })
            }
            Message::Call { id, method, params } => self.call(&id, &method, &params),
        }
    }

    fn answer(&mut self, id: &Id, answer: &Answer<'_>) -> Result<Option<Event>, Error> {
        match id.as_u64() {
            Some(CONFIGURE) if self.options.version_mask != VersionMask::NONE => {
                Ok(self.change_mask(configured_mask(answer.result())))
            }
            Some(SUBSCRIBE) if !self.subscribed => self.subscribed(answer).map(Some),
            Some(AUTHORIZE) if !self.authorized => {
                answer.admits().map_err(|refusal| Error::AuthorizeRefused(refusal.to_string().into()))?;
                self.authorized = true;
                Ok(Some(Event::Authorized))
            }
            Some(id) if self.unanswered.remove(&id) => {
                let verdict = answer.accepts().map_or_else(Verdict::Refused, |()| Verdict::Accepted);
                Ok(Some(Event::SubmitResult { id: SubmitId(id), verdict }))
            }
            // Optional requests that the pool may refuse, and answers to requests that we did not make.
            _ => Ok(None),
        }
    }

    fn subscribed(&mut self, answer: &Answer<'_>) -> Result<Event, Error> {
        let method = "answer to mining.subscribe";
        let result = answer.gives().map_err(|refusal| Error::SubscribeRefused(refusal.to_string().into()))?;
        let parts = Params::from_array(result).ok_or(Error::Field {
            method,
            error: FieldError::Kind { field: "result", expected: "an array" },
        })?;
        let found = subscription(&parts, 1).map_err(|error| Error::Field { method, error })?;
        self.subscription = Some(found);
        self.subscribed = true;
        let (user, password) = (self.options.user.clone(), self.options.password.clone());
        self.ask(AUTHORIZE, "mining.authorize", [user, password]);
        if let Some(difficulty) = self.options.suggest_difficulty {
            self.ask(SUGGEST_DIFFICULTY, "mining.suggest_difficulty", [difficulty.get()]);
        }
        self.ask(EXTRANONCE_SUBSCRIBE, "mining.extranonce.subscribe", [(); 0]);
        let early = self.early.take();
        Ok(Event::Subscribed(early.map(|(notify, difficulty)| self.job_of(found, notify, difficulty))))
    }

    fn call(&mut self, id: &Id, method: &str, params: &Params<'_>) -> Result<Option<Event>, Error> {
        let in_method = |method| move |error| Error::Field { method, error };
        match method {
            "mining.notify" => {
                let notify = Notify::from_params(params).map_err(in_method("mining.notify"))?;
                self.numbers_jobs = params.get(0).is_some_and(|raw| is_number(raw.get()));
                Ok(self.job(notify))
            }
            "mining.set_difficulty" => {
                self.difficulty = difficulty(params).map_err(in_method("mining.set_difficulty"))?;
                Ok(Some(Event::Difficulty(self.difficulty)))
            }
            "mining.set_extranonce" => {
                let found = subscription(params, 0).map_err(in_method("mining.set_extranonce"))?;
                self.subscription = Some(found);
                let Subscription { extranonce1, extranonce2_size } = found;
                Ok(Some(Event::Extranonce { extranonce1, extranonce2_size }))
            }
            "mining.set_version_mask" => {
                let mask = params.text(0, "mask").and_then(|text| VersionMask::parse(&text));
                Ok(self.change_mask(mask.map_err(in_method("mining.set_version_mask"))?))
            }
            "client.reconnect" => {
                let found = reconnect(params).map_err(in_method("client.reconnect"))?;
                Ok(Some(Event::Reconnect(found)))
            }
            "client.show_message" => {
                let text = params.text(0, "message").map_err(in_method("client.show_message"))?;
                Ok(Some(Event::ShowMessage(printable(&text, MAX_SHOWN_MESSAGE))))
            }
            _ => {
                self.answer_pool(id, method);
                Ok(None)
            }
        }
    }

    /// Answers a request of the pool.
    fn answer_pool(&mut self, id: &Id, method: &str) {
        if id.is_null() || self.outgoing.len() >= MAX_WAITING_ANSWERS {
            return;
        }
        self.outgoing.push_back(match method {
            "client.get_version" | "mining.get_version" => success(id, &self.options.user_agent),
            "mining.ping" => success(id, "pong"),
            _ => failure(id, &Reject::other("Unknown method")),
        });
    }

    /// A new job; before there are extranonces it is kept until the subscription is answered.
    fn job(&mut self, notify: Notify) -> Option<Event> {
        let (notify, difficulty) = (Arc::new(notify), self.difficulty);
        let Some(subscription) = self.subscription else {
            self.early = Some((notify, difficulty));
            return None;
        };
        self.early = None; // it is older than this one
        Some(Event::Job(self.job_of(subscription, notify, difficulty)))
    }

    fn job_of(&self, subscription: Subscription, notify: Arc<Notify>, difficulty: Difficulty) -> Job {
        let Subscription { extranonce1, extranonce2_size } = subscription;
        Job { notify, extranonce1, extranonce2_size, difficulty, version_mask: self.version_mask }
    }

    /// A mask never allows more than we asked for.
    fn change_mask(&mut self, mask: VersionMask) -> Option<Event> {
        self.version_mask = mask.intersect(self.options.version_mask);
        self.may_have_rolled |= self.version_mask != VersionMask::NONE;
        Some(Event::VersionMask(self.version_mask))
    }

    fn ask(&mut self, id: u64, method: &str, params: impl serde::Serialize) {
        self.outgoing.push_back(request(id, method, params));
    }
}

fn subscription(params: &Params<'_>, from: usize) -> Result<Subscription, FieldError> {
    let extranonce1 = Extranonce1::parse(&params.text(from, "extranonce1")?, 0, MAX_EXTRANONCE1_SIZE)?;
    let size = params.whole(from + 1, "extranonce2 size", u32::MAX)? as usize;
    if !(1..=MAX_EXTRANONCE2_SIZE).contains(&size) {
        let expected = Span { min: 1, max: MAX_EXTRANONCE2_SIZE };
        return Err(FieldError::Length { field: "extranonce2", found: size, unit: "bytes", expected });
    }
    Ok(Subscription { extranonce1, extranonce2_size: size })
}

fn difficulty(params: &Params<'_>) -> Result<Difficulty, FieldError> {
    let number = params.number(0, "difficulty")?;
    Difficulty::new(number).ok_or(FieldError::Kind { field: "difficulty", expected: "a number above zero" })
}

fn reconnect(params: &Params<'_>) -> Result<Reconnect, FieldError> {
    let host = match params.get(0) {
        None => None,
        Some(_) => Some(params.bounded_text(0, "host", MAX_HOST)?).filter(|host| !host.is_empty()),
    };
    let odd =
        |char: char| !char.is_ascii_alphanumeric() && !matches!(char, '.' | '-' | '_' | ':' | '[' | ']');
    if host.as_deref().is_some_and(|host| host.contains(odd)) {
        return Err(FieldError::Kind { field: "host", expected: "a host name" });
    }
    let port = match params.get(1) {
        None => None,
        Some(_) => {
            u16::try_from(params.whole(1, "port", u32::from(u16::MAX))?).ok().filter(|&port| port != 0)
        }
    };
    let wait = if params.get(2).is_some() { params.whole(2, "wait", MAX_RECONNECT_WAIT)? } else { 0 };
    Ok(Reconnect { host: host.map(Into::into), port, wait })
}
