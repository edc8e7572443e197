//! The state machine of one connection to a client.

use std::sync::Arc;

use super::configure::configure;
use super::fast;
use super::outgoing::{Outgoing, Queue};
use super::submit::Fields;
use super::{
    Authorize, Event, Fatal, MAX_MALFORMED, MAX_MESSAGE, MAX_PASSWORD, MAX_USER, MAX_USER_AGENT, MAX_WORKERS,
};
use super::{Submit, WorkerSlot};
use crate::difficulty::{Difficulty, Target};
use crate::fields::{
    Extranonce1, FieldError, MAX_EXTRANONCE2_SIZE, SERVER_EXTRANONCE2_SIZE, Span, VersionMask, parse_32,
};
use crate::message::{
    Id, Message, Params, failure, granted, id_in, notification, printable, request, success,
};
use crate::verdict::Reject;

/// The id of our pings: a number, as there are clients that can read no other id, so high that no answer to it is taken
/// for one of the client's own, and one of 32 bits with a sign.
const PING: u64 = 0x7fff_fff0;

/// One client's connection, as the pool sees it.
#[derive(Debug)]
pub struct Session {
    extranonce1: Extranonce1,
    extranonce2_size: usize,
    /// Accept any width of a share's extranonce2; the owner checks it.
    any_extranonce2: bool,
    /// The same for a share's version bits.
    any_version_bits: bool,
    /// The client understands `mining.set_extranonce`.
    extranonce_changes: bool,
    server_mask: VersionMask,
    /// The mask that the client requested, if it did.
    asked_mask: Option<VersionMask>,
    /// The client is still to be told its mask by a notification.
    owes_mask: bool,
    max_difficulty: Option<Difficulty>,
    software: &'static str,
    subscribed: bool,
    workers: Vec<Arc<str>>,
    malformed: u32,
    outgoing: Queue,
}

impl Session {
    /// Creates the session of a new connection.
    ///
    /// `extranonce1` must not be in use by another live connection, `server_mask` is the most that may be rolled, and
    /// `software` is the answer to `get_version`. The extranonce2 has [`SERVER_EXTRANONCE2_SIZE`] bytes unless changed
    /// by [`Self::with_extranonce2_size`].
    #[must_use]
    pub fn new(extranonce1: Extranonce1, server_mask: VersionMask, software: &'static str) -> Self {
        Self {
            extranonce1,
            extranonce2_size: SERVER_EXTRANONCE2_SIZE,
            any_extranonce2: false,
            any_version_bits: false,
            extranonce_changes: false,
            server_mask,
            asked_mask: None,
            owes_mask: false,
            max_difficulty: None,
            software,
            subscribed: false,
            workers: Vec::new(),
            malformed: 0,
            outgoing: Queue::default(),
        }
    }

    /// Sets the greatest difficulty that the owner assigns. A client with a greater minimum difficulty is refused it.
    #[must_use]
    pub fn with_max_difficulty(self, max: Difficulty) -> Self {
        Self { max_difficulty: Some(max), ..self }
    }

    /// Sets another width of the extranonce2, in bytes.
    ///
    /// # Panics
    /// `extranonce2_size` is above [`MAX_EXTRANONCE2_SIZE`].
    #[must_use]
    pub fn with_extranonce2_size(self, extranonce2_size: usize) -> Self {
        assert!(extranonce2_size <= MAX_EXTRANONCE2_SIZE, "an extranonce2 of {extranonce2_size} bytes");
        Self { extranonce2_size, ..self }
    }

    /// Passes on shares with an extranonce2 of any width up to [`MAX_EXTRANONCE2_SIZE`]; other sessions refuse all but
    /// the current width. For owners that [change the width](Self::set_extranonce): a share in flight may belong to an
    /// earlier job. The owner must then check each share against the width of its own job.
    #[must_use]
    pub fn with_any_extranonce2(self) -> Self {
        Self { any_extranonce2: true, ..self }
    }

    /// Passes on shares with any version bits; other sessions refuse bits outside the current mask. For owners that
    /// [change the mask](Self::set_server_mask): a share in flight may have been rolled with the earlier one. The
    /// owner must then check each share against the masks of its own job.
    #[must_use]
    pub fn with_any_version_bits(self) -> Self {
        Self { any_version_bits: true, ..self }
    }

    /// The widths that the extranonce2 of a share may have.
    fn widths(&self) -> Span {
        match self.any_extranonce2 {
            true => Span { min: 0, max: MAX_EXTRANONCE2_SIZE },
            false => Span { min: self.extranonce2_size, max: self.extranonce2_size },
        }
    }

    /// Width of the client's part of the coinbase, in bytes.
    #[must_use]
    pub fn extranonce2_size(&self) -> usize {
        self.extranonce2_size
    }

    /// Whether the client has said that it accepts new extranonces while it is connected.
    #[must_use]
    pub fn takes_extranonces(&self) -> bool {
        self.extranonce_changes
    }

    /// Sets new extranonces for future jobs. A subscribed client is notified (`mining.set_extranonce`), which it
    /// understands only if it [accepts](Self::takes_extranonces) new ones.
    ///
    /// # Panics
    /// `extranonce2_size` is above [`MAX_EXTRANONCE2_SIZE`].
    pub fn set_extranonce(&mut self, extranonce1: Extranonce1, extranonce2_size: usize) {
        assert!(extranonce2_size <= MAX_EXTRANONCE2_SIZE, "an extranonce2 of {extranonce2_size} bytes");
        (self.extranonce1, self.extranonce2_size) = (extranonce1, extranonce2_size);
        if self.subscribed {
            self.send(notification("mining.set_extranonce", (extranonce1.to_string(), extranonce2_size)));
        }
    }

    /// Other version bits that may be rolled at most. A client that has asked to roll is told, if that changes its mask
    /// (`mining.set_version_mask`).
    pub fn set_server_mask(&mut self, server_mask: VersionMask) {
        let before = self.version_mask();
        self.server_mask = server_mask;
        if self.asked_mask.is_some() && self.version_mask() != before {
            self.owe_mask();
        }
    }

    /// This connection's part of the coinbase.
    #[must_use]
    pub fn extranonce1(&self) -> &Extranonce1 {
        &self.extranonce1
    }

    /// The version bits that this client may roll. One that has never asked may roll what it would be offered: there are
    /// machines that send rolled bits without a `mining.configure`. What was agreed on, none included, is binding.
    #[must_use]
    pub fn version_mask(&self) -> VersionMask {
        self.asked_mask.map_or(self.server_mask, |asked| asked.intersect(self.server_mask))
    }

    /// Whether jobs may be sent.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// The authorised users, by slot.
    #[must_use]
    pub fn workers(&self) -> &[Arc<str>] {
        &self.workers
    }

    /// The next line to send.
    pub fn next_outgoing(&mut self) -> Option<Outgoing> {
        self.outgoing.pop()
    }

    /// The next line, joined with those after it that fit into the same write.
    pub fn next_lines(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_joined()
    }

    /// Bytes of the queued lines. The owner should drop a connection whose queue grows too large.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.outgoing.bytes()
    }

    /// Queues a job that was encoded once for all connections.
    pub fn notify(&mut self, line: Arc<[u8]>) {
        self.outgoing.push(Outgoing::Shared(line));
    }

    /// Queues a `mining.set_difficulty`, which applies to the jobs sent after it.
    pub fn set_difficulty(&mut self, difficulty: Difficulty) {
        self.send(notification("mining.set_difficulty", [difficulty.get()]));
    }

    /// Queues a `client.show_message`: text for the operator of the machine, cut to [`MAX_MESSAGE`] bytes of printing
    /// characters.
    pub fn show_message(&mut self, text: &str) {
        self.send(notification("client.show_message", [printable(text, MAX_MESSAGE)]));
    }

    /// Queues a `client.reconnect` without parameters: to the same host and port, the only kind that clients follow.
    pub fn reconnect(&mut self) {
        self.send(notification("client.reconnect", [(); 0]));
    }

    /// Queues a `mining.ping`.
    pub fn ping(&mut self) {
        self.send(request(PING, "mining.ping", [(); 0]));
    }

    /// Reads one line, and queues the answer if it needs nothing from the owner.
    ///
    /// # Errors
    /// The client does not speak Stratum: send what is queued, then close.
    pub fn handle_line(&mut self, line: &[u8]) -> Result<Option<Event>, Fatal> {
        match fast::read(line) {
            Some(share) => Ok(self.usual_submit(&share)),
            None => self.handle_any_line(line),
        }
    }

    /// The general reader, which handles the usual submit lines too, with the same result.
    pub(crate) fn handle_any_line(&mut self, line: &[u8]) -> Result<Option<Event>, Fatal> {
        match Message::parse(line) {
            Ok(Message::Call { id, method, params }) => Ok(self.call(id, &method, &params)),
            // Answers to our own requests (client.get_version) need no action.
            Ok(Message::Answer { .. }) => Ok(None),
            Err(_) if is_http(line) => Err(Fatal::Http),
            Err(error) => {
                self.send(failure(&id_in(line), &Reject::other(error.to_string())));
                self.malformed += 1;
                if self.malformed >= MAX_MALFORMED { Err(Fatal::Malformed) } else { Ok(None) }
            }
        }
    }

    fn call(&mut self, id: Id, method: &str, params: &Params<'_>) -> Option<Event> {
        let result = match method {
            "mining.submit" => self.submit(&id, params).map(Some),
            "mining.authorize" => authorize(&id, params).map(Some),
            "mining.subscribe" => Ok(Some(self.subscribe(&id, params))),
            "mining.configure" => self.configure(&id, params),
            "mining.suggest_difficulty" => self.suggest(&id, suggested_difficulty(params)).map(Some),
            "mining.suggest_target" => self.suggest(&id, suggested_target(params)).map(Some),
            "mining.extranonce.subscribe" => {
                self.extranonce_changes = true;
                self.reply(&id, true)
            }
            "mining.get_version" | "client.get_version" => self.reply(&id, self.software),
            "mining.ping" | "client.ping" => self.reply(&id, "pong"),
            // The transactions of a job are megabytes that no miner needs; an empty list is a valid answer.
            "mining.get_transactions" => self.reply(&id, [(); 0]),
            _ => Err(Reject::other("Unknown method")),
        };
        result.unwrap_or_else(|reject| {
            self.send(failure(&id, &reject));
            None
        })
    }

    fn subscribe(&mut self, id: &Id, params: &Params<'_>) -> Event {
        self.subscribed = true;
        let extranonce1 = self.extranonce1.to_string();
        let subscriptions = [("mining.set_difficulty", &extranonce1), ("mining.notify", &extranonce1)];
        self.send(success(id, (subscriptions, &extranonce1, self.extranonce2_size)));
        // The second parameter, a session to resume, is ignored: every connection gets its own extranonce1.
        Event::Subscribed {
            user_agent: printable(&params.text(0, "user agent").unwrap_or_default(), MAX_USER_AGENT),
        }
    }

    fn configure(&mut self, id: &Id, params: &Params<'_>) -> Result<Option<Event>, Reject> {
        let configured = configure(params, self.server_mask, self.max_difficulty).map_err(refused)?;
        self.extranonce_changes |= configured.extranonce_changes;
        self.send(success(id, &configured.reply));
        if let Some(asked) = configured.asked_mask {
            self.asked_mask = Some(asked);
            self.owes_mask = false; // the reply says it
            if self.version_mask() != VersionMask::NONE {
                // Firmware that reads the mask from the notification alone gets it too; the reply is always first.
                self.owe_mask();
            }
        }
        Ok(configured.minimum_difficulty.map(Event::MinimumDifficulty))
    }

    /// The client is to be told its mask: once it is authorised, as there is firmware that drops the connection when it is
    /// told earlier.
    fn owe_mask(&mut self) {
        self.owes_mask = true;
        if !self.workers.is_empty() {
            self.tell_mask();
        }
    }

    fn tell_mask(&mut self) {
        if std::mem::take(&mut self.owes_mask) {
            self.send(notification("mining.set_version_mask", [self.version_mask().to_string()]));
        }
    }

    fn suggest(&mut self, id: &Id, wanted: Result<Difficulty, Reject>) -> Result<Event, Reject> {
        let wanted = wanted?;
        self.send(success(id, true));
        Ok(Event::SuggestDifficulty(wanted))
    }

    fn usual_submit(&mut self, line: &fast::Line<'_>) -> Option<Event> {
        let id = Id::of_digits(line.id);
        let event = self.worker_of_share(line.param(0)).map(|worker| {
            let fields = Fields::of_line(line, self.widths());
            self.share(&id, worker, fields)
        });
        event.map_err(|reject| self.send(failure(&id, &reject))).ok()
    }

    fn submit(&mut self, id: &Id, params: &Params<'_>) -> Result<Event, Reject> {
        if !self.subscribed {
            return Err(Reject::NotSubscribed);
        }
        let worker = self.worker_of_share(&params.text(0, "user").map_err(refused)?)?;
        Ok(self.share(id, worker, Fields::read(params, self.widths())))
    }

    fn worker_of_share(&self, user: &str) -> Result<WorkerSlot, Reject> {
        if !self.subscribed {
            return Err(Reject::NotSubscribed);
        }
        let slot = self.workers.iter().position(|worker| **worker == *user);
        slot.map(WorkerSlot).ok_or_else(Reject::unauthorized)
    }

    fn share(&mut self, id: &Id, worker: WorkerSlot, fields: Result<Fields, FieldError>) -> Event {
        match fields.map_err(refused).and_then(|fields| self.within_mask(fields)) {
            Ok(Fields { job_id, extranonce2, ntime, nonce, version_bits }) => Event::Submit(Submit {
                id: id.clone(),
                worker,
                job_id,
                extranonce2,
                ntime,
                nonce,
                version_bits,
            }),
            Err(reject) => {
                self.send(failure(id, &reject));
                Event::Refused { worker, reject }
            }
        }
    }

    fn within_mask(&self, fields: Fields) -> Result<Fields, Reject> {
        let mask = self.version_mask();
        match fields.version_bits {
            Some(bits) if !self.any_version_bits && !mask.allows(bits) => {
                Err(Reject::other(format!("version bits {bits} are outside the mask {mask}")))
            }
            _ => Ok(fields),
        }
    }

    /// Authorises a user: answers the request and returns the user's slot, which stays the same.
    ///
    /// # Errors
    /// There are [`MAX_WORKERS`] users on this connection; the request is answered with that reason.
    pub fn accept(&mut self, request: &Authorize) -> Result<WorkerSlot, Reject> {
        let known = self.workers.iter().position(|worker| *worker == request.user);
        if known.is_none() && self.workers.len() >= MAX_WORKERS {
            let reject = Reject::Unauthorized("too many users on this connection".into());
            self.refuse(request, &reject);
            return Err(reject);
        }
        self.send(success(&request.id, true));
        self.tell_mask();
        Ok(WorkerSlot(known.unwrap_or_else(|| {
            self.workers.push(Arc::clone(&request.user));
            self.workers.len() - 1
        })))
    }

    /// Refuses a user, with the reason.
    pub fn refuse(&mut self, request: &Authorize, reject: &Reject) {
        self.send(failure(&request.id, reject));
    }

    /// Answers a share.
    pub fn answer_submit(&mut self, id: &Id, verdict: Result<(), &Reject>) {
        self.send(match verdict {
            Ok(()) => granted(id),
            Err(reject) => failure(id, reject),
        });
    }

    fn reply(&mut self, id: &Id, result: impl serde::Serialize) -> Result<Option<Event>, Reject> {
        self.send(success(id, result));
        Ok(None)
    }

    fn send(&mut self, line: Vec<u8>) {
        self.outgoing.push(Outgoing::Own(line));
    }
}

fn refused(error: FieldError) -> Reject {
    Reject::other(error.to_string())
}

fn authorize(id: &Id, params: &Params<'_>) -> Result<Event, Reject> {
    let user = params.text_of(0, "user", Span { min: 1, max: MAX_USER }).map_err(refused)?;
    let password = match params.get(1) {
        None => String::new(),
        Some(_) => params.written(1, "password", MAX_PASSWORD).map_err(refused)?.into_owned(),
    };
    Ok(Event::Authorize(Authorize { id: id.clone(), user: user.into(), password: password.into() }))
}

fn suggested_difficulty(params: &Params<'_>) -> Result<Difficulty, Reject> {
    let number = params.number(0, "difficulty").map_err(refused)?;
    Difficulty::new(number).ok_or_else(|| Reject::other("difficulty must be above zero"))
}

fn suggested_target(params: &Params<'_>) -> Result<Difficulty, Reject> {
    let text = params.text(0, "target").map_err(refused)?;
    Ok(Target::from_be_bytes(parse_32("target", &text).map_err(refused)?).difficulty())
}

fn is_http(line: &[u8]) -> bool {
    [&b"GET "[..], b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"CONNECT "]
        .iter()
        .any(|verb| line.starts_with(verb))
}
