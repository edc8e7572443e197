//! A device: one persona at one peer id.
//!
//! Here: creating it, its homes, its session at its own home. Not here: reconnecting after a loss
//! ([`super::listen`]), and requests; each subject has a file with `impl Device`. The peer id is new each time, and
//! never the persona's key, so that homes cannot link the personas of one person. Path: method → [`super::driver`]
//! → home → verified → folder → result; what a home sends → verified → [`Told`].

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::{PeerId, identity};
use tokio::sync::{mpsc, oneshot};

use super::calls::{Calls, IncomingCall};
use super::driver::{self, Command, Reply, Settings};
use super::error::ClientError;
use super::folder::Folder;
use super::listen::{Returning, listen};
use super::place::Home;
use super::seal::{SealingKey, random};
use crate::body::{Contact, HomeAddress, Login};
use crate::envelope::{Body, Envelope, EnvelopeError, Expected, Order, Verified};
use crate::id::{Id, Key};
use crate::limits::{CLOCK_SKEW, MAX_ADDRESSES};
use crate::wire::{About, Answer, Code, Presence, Request};

/// Longest wait for any network operation: more than the network itself takes.
const PATIENCE: Duration = Duration::from_secs(40);
/// Timeout for closing a connection.
const CLOSING: Duration = Duration::from_secs(5);
/// Maximum number of queued [`Told`] values that were not taken.
const MAX_TOLD: usize = 256;

/// Something that a device reports.
#[derive(Debug)]
pub enum Told {
    /// There is mail.
    Mail,
    /// Somebody sent a relation request: fetch the requests.
    Request(Id),
    /// A related person came online, went offline, or has other applications.
    Presence(Presence),
    /// A call from a related person, for an application that was announced.
    Call(Box<IncomingCall>),
    /// The connection to the home was lost; the device tries to reconnect.
    Lost,
    /// The connection to the home and the session are restored.
    Back,
    /// The home has ended the session: another device replaced it, or the persona is no longer hosted there.
    Ended,
}

/// A session at one's own home, as it should be; it is restored after a loss.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) home: Home,
    pub(super) applications: Vec<String>,
    pub(super) reachable: bool,
}

pub(super) struct Shared {
    pub(super) folder: Folder,
    pub(super) key: Key,
    pub(super) sealing: SealingKey,
    pub(super) network: String,
    pub(super) id: Id,
    pub(super) peer: PeerId,
    pub(super) settings: Settings,
    commands: mpsc::Sender<Command>,
    pub(super) session: Mutex<Option<Session>>,
    pub(super) returning: Mutex<Returning>,
    /// Homes that know who asks, while they are connected.
    pub(super) known: Mutex<HashSet<PeerId>>,
    pub(super) calls: Mutex<Calls>,
    pub(super) row: Mutex<super::mail::Row>,
}

/// The device. Clones are the same device; it stops when the last one is dropped.
#[derive(Clone)]
pub struct Device(pub(super) Arc<Shared>);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({} at {})", self.0.id, self.0.peer)
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Device {
    /// Starts a device for the persona in a folder. It reports through the receiver, which may be dropped.
    ///
    /// # Errors
    /// The folder has no persona, or the network cannot be used.
    pub fn start(folder: Folder, settings: Settings) -> Result<(Self, mpsc::Receiver<Told>), ClientError> {
        let (key, sealing) = (folder.key()?, folder.sealing_key()?);
        let state = folder.state()?;
        let home = state.home.as_ref().and_then(|told| Home::own(told).ok());
        let device_key = identity::Keypair::generate_ed25519();
        let peer = device_key.public().to_peer_id();
        let (commands, notices) =
            driver::start(device_key, &settings, home.as_ref().map_or(&[], |home| &home.addresses))?;
        let shared = Shared {
            id: key.id(),
            folder,
            key,
            sealing,
            network: state.network,
            peer,
            settings,
            commands,
            session: Mutex::new(None),
            returning: Mutex::default(),
            known: Mutex::new(HashSet::new()),
            calls: Mutex::new(Calls::default()),
            row: Mutex::default(),
        };
        let device = Self(Arc::new(shared));
        let (told, receiver) = mpsc::channel(MAX_TOLD);
        tokio::spawn(listen(Arc::downgrade(&device.0), notices, told));
        Ok((device, receiver))
    }

    /// The persona.
    #[must_use]
    pub fn id(&self) -> Id {
        self.0.id
    }

    /// The device's peer id.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// The persona's folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.0.folder
    }

    /// Sends the driver a command without an answer.
    pub(super) async fn command(&self, command: Command) -> Result<(), ClientError> {
        self.0.commands.send(command).await.map_err(|_| ClientError::Stopped)
    }

    /// Sends the driver a command and waits for the answer, with a timeout.
    pub(super) async fn driver<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.command(command(reply)).await?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ClientError::Stopped),
            Err(_) => Err(ClientError::TimedOut("the network")),
        }
    }

    /// Connects to a home, unless it is connected already.
    ///
    /// # Errors
    /// It is unreachable, or another peer is there.
    pub async fn connect(&self, home: &Home) -> Result<(), ClientError> {
        let (peer, addresses, named) = (home.peer, home.addresses.clone(), home.named);
        self.driver(|reply| Command::Dial { peer, addresses, named, reply }).await
    }

    /// Sends a request to a home and returns its answer, unless that is a refusal.
    pub(super) async fn ask(&self, home: &Home, request: Request) -> Result<Answer, ClientError> {
        self.connect(home).await?;
        let (peer, request) = (home.peer, Box::new(request));
        match self.driver(|reply| Command::Ask { peer, request, reply }).await? {
            Answer::Refused(refusal) => Err(ClientError::refused(refusal)),
            answer => Ok(answer),
        }
    }

    /// Like [`Self::ask`], but as the persona: logs in if the home requires it.
    pub(super) async fn ask_as_me(&self, home: &Home, request: Request) -> Result<Answer, ClientError> {
        match self.ask(home, request.clone()).await {
            Err(ClientError::Refused(refusal)) if refusal.code == Code::LogInFirst => {
                self.unknown(home);
                self.know(home).await?;
                self.ask(home, request).await
            }
            result => result,
        }
    }

    /// Logs in at a home, unless it knows who asks already.
    pub(super) async fn know(&self, home: &Home) -> Result<(), ClientError> {
        self.connect(home).await?;
        if locked(&self.0.known).contains(&home.peer) {
            return Ok(());
        }
        match self.session().filter(|session| session.home == *home) {
            Some(session) => self.enter(&session).await,
            None => self.sign_in(home).await.map(drop),
        }
    }

    /// Sends a request whose only good answer is `Done`.
    pub(super) async fn ask_done(&self, home: &Home, request: Request) -> Result<(), ClientError> {
        match self.ask_as_me(home, request).await? {
            Answer::Done => Ok(()),
            _ => Err(ClientError::unasked()),
        }
    }

    /// Signs something with the longest validity of its kind.
    pub(super) fn sign<B: Body>(&self, about: Id, order: Order, body: &B) -> Envelope {
        self.sign_at(now(), about, order, body)
    }

    /// Signs as of a time, in seconds since 1970.
    pub(super) fn sign_at<B: Body>(&self, issued: u64, about: Id, order: Order, body: &B) -> Envelope {
        let times = (issued, issued.saturating_add(B::LIFE));
        Envelope::sign(&self.0.key, &self.0.network, about, order, times, body)
    }

    pub(super) fn nonce() -> Result<Order, ClientError> {
        Ok(Order::Nonce(random()?))
    }

    /// Verifies something that a home sent.
    pub(super) fn verify<B: Body>(
        &self,
        what: &str,
        envelope: &Envelope,
        about: Id,
        signer: Id,
    ) -> Result<Verified<B>, ClientError> {
        self.verify_at(what, envelope, Some(about), Some(signer), now())
    }

    /// Verifies something before it is sent: what a home would refuse is refused here, as the caller's mistake.
    pub(super) fn verify_own<B: Body>(
        &self,
        what: &str,
        envelope: &Envelope,
        about: Id,
    ) -> Result<(), ClientError> {
        let expected =
            Expected { network: &self.0.network, about: Some(about), signer: Some(self.id()), now: now() };
        envelope.verify::<B>(&expected).map(drop).map_err(|error| {
            let reason = match error {
                EnvelopeError::Body(reason) => reason.to_owned(),
                other => other.to_string(),
            };
            ClientError::Wrong(format!("{what}: {reason}"))
        })
    }

    pub(super) fn verify_at<B: Body>(
        &self,
        what: &str,
        envelope: &Envelope,
        about: Option<Id>,
        signer: Option<Id>,
        now: u64,
    ) -> Result<Verified<B>, ClientError> {
        let expected = Expected { network: &self.0.network, about, signer, now };
        envelope.verify(&expected).map_err(|error| ClientError::lie(what, error))
    }

    /// Asks who a home is, and verifies that it is on our network, has a clock that agrees with ours, and is
    /// reachable where it says.
    ///
    /// # Errors
    /// It is unreachable, or lies.
    pub async fn about(&self, home: &Home) -> Result<(About, HomeAddress), ClientError> {
        let Answer::About(about) = self.ask(home, Request::About).await? else {
            return Err(ClientError::unasked());
        };
        if about.network != self.0.network {
            let other = super::error::one_line(&about.network);
            return Err(ClientError::Wrong(format!(
                "the home is of the network {other}, the persona of {}",
                self.0.network
            )));
        }
        if about.time.abs_diff(now()) > CLOCK_SKEW {
            let differ = about.time.abs_diff(now());
            return Err(ClientError::Wrong(format!(
                "the clocks of this device and of the home differ by {differ} s, at most {CLOCK_SKEW} s expected"
            )));
        }
        let contact = self.verify::<Contact>("where it is reached", &about.contact, home.id, home.id)?;
        let mut address = HomeAddress { home: home.id, addresses: contact.body().addresses.clone() };
        // The address that was just used is valid.
        for own in home.address().addresses {
            if !address.addresses.contains(&own) && address.addresses.len() < MAX_ADDRESSES {
                address.addresses.push(own);
            }
        }
        Ok((about, address))
    }

    /// A nonce from the home for something to sign.
    pub(super) async fn challenge(&self, home: &Home) -> Result<Order, ClientError> {
        match self.ask(home, Request::Challenge).await? {
            Answer::Challenge(challenge) => Ok(Order::Nonce(*challenge)),
            _ => Err(ClientError::unasked()),
        }
    }

    /// Logs in; returns whether the persona is hosted there.
    pub(super) async fn sign_in(&self, home: &Home) -> Result<bool, ClientError> {
        let order = self.challenge(home).await?;
        let login = self.sign(home.id, order, &Login { device: self.0.peer.to_bytes().into() });
        match self.ask(home, Request::LogIn(login, Vec::new())).await? {
            Answer::Session(hosted) => {
                locked(&self.0.known).insert(home.peer);
                Ok(hosted)
            }
            _ => Err(ClientError::unasked()),
        }
    }

    /// One's own home, from the folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn own_home(&self) -> Result<Home, ClientError> {
        Home::own(&self.own_address()?)
    }

    /// The address of one's own home, as it is also given to others.
    pub(super) fn own_address(&self) -> Result<HomeAddress, ClientError> {
        let none = || ClientError::Wrong("no home yet: register at one first".to_owned());
        self.folder().state()?.home.ok_or_else(none)
    }

    /// Logs in at one's own home and stays logged in: when the connection is lost, the device keeps trying to
    /// reconnect. With applications, the device can be reached through the home, to take calls for them.
    ///
    /// # Errors
    /// It is unreachable, refuses, or no longer hosts the persona.
    pub async fn log_in(&self, applications: &[String]) -> Result<(), ClientError> {
        let reachable = !applications.is_empty();
        let session = Session { home: self.own_home()?, applications: applications.to_vec(), reachable };
        self.enter(&session).await?;
        let (peer, keep) = (session.home.peer, true);
        *locked(&self.0.session) = Some(session);
        // The handler of lost connections looks for a session, and there was none before this.
        if !locked(&self.0.known).contains(&peer) {
            self.forget_session();
            return Err(ClientError::Unreachable("the home was lost while logging in".to_owned()));
        }
        self.command(Command::Keep { peer, keep }).await
    }

    pub(super) async fn enter(&self, session: &Session) -> Result<(), ClientError> {
        // Reserve first, then announce, so that no call comes before it can be taken.
        if !self.sign_in(&session.home).await? {
            return Err(ClientError::Wrong("the home hosts this persona no more".to_owned()));
        }
        if session.reachable {
            let address = session.home.circuit(None, |_| true)?;
            self.driver(|reply| Command::Reserve { address, reply }).await?;
            let announced = Request::Announce(session.applications.clone());
            if self.ask(&session.home, announced).await? != Answer::Done {
                return Err(ClientError::unasked());
            }
        }
        Ok(())
    }

    /// Announces other applications at this device.
    ///
    /// # Errors
    /// The home refuses, or the device is not logged in.
    pub async fn announce(&self, applications: &[String]) -> Result<(), ClientError> {
        let Some(mut session) = locked(&self.0.session).clone() else {
            return Err(ClientError::Wrong("not logged in".to_owned()));
        };
        session.applications = applications.to_vec();
        if !session.reachable && !applications.is_empty() {
            session.reachable = true;
            self.enter(&session).await?;
        } else {
            self.ask_done(&session.home, Request::Announce(applications.to_vec())).await?;
        }
        *locked(&self.0.session) = Some(session);
        Ok(())
    }

    /// Ends the session.
    ///
    /// # Errors
    /// The home is unreachable.
    pub async fn log_out(&self) -> Result<(), ClientError> {
        let Some(session) = locked(&self.0.session).take() else { return Ok(()) };
        self.unknown(&session.home);
        let done = self.ask_done(&session.home, Request::LogOut).await;
        let (peer, keep) = (session.home.peer, false);
        self.command(Command::Keep { peer, keep }).await?;
        self.leave(peer).await?;
        done
    }

    /// Closes the connections to a peer, after everything written on them is sent.
    pub(super) async fn leave(&self, peer: PeerId) -> Result<(), ClientError> {
        let (gone, closed) = oneshot::channel();
        self.command(Command::Leave { peer, gone }).await?;
        // The sender is dropped when all are closed; the wait is limited in case the peer takes nothing.
        let _ = tokio::time::timeout(CLOSING, closed).await;
        Ok(())
    }

    pub(super) fn session(&self) -> Option<Session> {
        locked(&self.0.session).clone()
    }

    pub(super) fn forget_session(&self) {
        if let Some(session) = locked(&self.0.session).take() {
            self.unknown(&session.home);
        }
    }

    /// Notes that a home no longer knows who asks, or has it wrong.
    pub(super) fn unknown(&self, home: &Home) {
        locked(&self.0.known).remove(&home.peer);
    }
}
