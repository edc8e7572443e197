//! A device whose home lies, and its friend, who exists only as a key.

use iop_mercury::body::{HomeAddress, Profile, RelationAcceptance, RelationRequest, RelationRevocation};
use iop_mercury::client::folder::{Folder, Standing};
use iop_mercury::client::seal::{Binding, Letter, seal};
use iop_mercury::client::{ClientError, Device, Home, Settings, Told};
use iop_mercury::envelope::{Body, Envelope, Order};
use iop_mercury::id::{Id, Key};
use iop_mercury::wire::{Answer, Request};
use tokio::sync::mpsc;

use super::liar::{Liar, Raw};
use super::{NETWORK, verified, wall};

/// A device whose home lies, and its friend, who exists only as a key.
pub struct Victim {
    pub liar: Liar,
    pub device: Device,
    pub told: mpsc::Receiver<Told>,
    pub friend: Key,
    _folder: tempfile::TempDir,
}

pub fn sign<B: Body>(key: &Key, about: Id, order: Order, body: &B) -> Envelope {
    let now = wall();
    Envelope::sign(key, NETWORK, about, order, (now, now + B::LIFE), body)
}

pub fn profile() -> Profile {
    Profile {
        attributes: Vec::new(),
        encryption_key: [9; 32].into(),
        picture: None,
        thumbnail: None,
        tombstone: false,
    }
}

impl Victim {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kept = Folder::create(&folder.path().join("me"), NETWORK).unwrap();
        let (device, told) = Device::start(kept, Settings { listen: None, direct: false }).unwrap();
        let victim = Self {
            liar: Liar::start().await,
            device,
            told,
            friend: Key::generate().unwrap(),
            _folder: folder,
        };
        victim.device.register(&victim.home(), None).await.unwrap();
        victim.befriend();
        victim
    }

    pub fn home(&self) -> Home {
        Home::parse(&self.liar.address.to_string()).unwrap()
    }

    pub fn address(&self) -> HomeAddress {
        self.home().address()
    }

    pub fn friend(&self) -> Id {
        self.friend.id()
    }

    /// The friend asked, and the device accepted.
    pub fn befriend(&self) {
        let me = self.device.id();
        let body = RelationRequest { label: "friend".into(), note: String::new(), home: self.address() };
        let request = sign(&self.friend, me, Order::Nonce([1; 32]), &body);
        let address = self.address();
        self.device
            .folder()
            .update(|state| {
                let contact = state.contact_mut(self.friend.id());
                contact.standing = Standing::Held;
                contact.home = Some(address);
                contact.request = Some(request);
            })
            .unwrap();
    }

    /// Gives this answer to requests of a kind, and true answers to others.
    pub fn answers(&self, kind: fn(&Request) -> bool, answer: Answer) {
        self.liar.lie(move |request, truth| Raw::from(if kind(request) { answer.clone() } else { truth }));
    }

    pub fn message(&self, key: &Key, about: Id, nonce: u8, text: &str) -> Envelope {
        let encryption_key = self.device.folder().sealing_key().unwrap().public();
        let binding = Binding { sender: key.id(), recipient: about, nonce: [nonce; 32] };
        let letter = Letter { text: text.to_owned(), attachments: Vec::new() };
        sign(key, about, Order::Nonce([nonce; 32]), &seal(&encryption_key, &binding, &letter).unwrap())
    }
}

pub fn lie(result: Result<impl Sized, ClientError>) {
    match result {
        Err(ClientError::Lie(_)) => {}
        Err(other) => panic!("a lie that is taken for something else: {other}"),
        Ok(_) => panic!("a lie that is believed"),
    }
}

/// Signs something with an issue time that is this many seconds from now.
pub fn sign_in<B: Body>(key: &Key, about: Id, nonce: u8, body: &B, seconds: i64) -> Envelope {
    let issued = wall().checked_add_signed(seconds).unwrap();
    Envelope::sign(key, NETWORK, about, Order::Nonce([nonce; 32]), (issued, issued + B::LIFE), body)
}

pub fn hash_of<B: Body>(envelope: &Envelope) -> [u8; 32] {
    verified::<B>(envelope).hash()
}

impl Victim {
    /// A request of the friend and the device's acceptance of it.
    pub fn proof(&self, nonce: u8, seconds: i64) -> (Envelope, Envelope) {
        let body = RelationRequest { label: "friend".into(), note: String::new(), home: self.address() };
        let request = sign_in(&self.friend, self.device.id(), nonce, &body, seconds);
        let body = RelationAcceptance { request: hash_of::<RelationRequest>(&request).into() };
        let key = self.device.folder().key().unwrap();
        let acceptance = sign_in(&key, self.friend(), nonce, &body, seconds);
        (request, acceptance)
    }

    /// A message of the friend, issued this many seconds from now.
    pub fn message_in(&self, nonce: u8, seconds: i64) -> Envelope {
        let me = self.device.id();
        let encryption_key = self.device.folder().sealing_key().unwrap().public();
        let binding = Binding { sender: self.friend(), recipient: me, nonce: [nonce; 32] };
        let letter = Letter { text: nonce.to_string(), attachments: Vec::new() };
        sign_in(&self.friend, me, nonce, &seal(&encryption_key, &binding, &letter).unwrap(), seconds)
    }

    pub fn standing(&self) -> Standing {
        self.device.folder().state().unwrap().contact(self.friend()).unwrap().standing
    }

    /// The friend revokes the relation made by [`Victim::befriend`].
    pub fn revocation(&self, nonce: u8) -> Envelope {
        let state = self.device.folder().state().unwrap();
        let request = state.contact(self.friend()).unwrap().request.clone().unwrap();
        let body = RelationRevocation { request: hash_of::<RelationRequest>(&request).into() };
        sign(&self.friend, self.device.id(), Order::Nonce([nonce; 32]), &body)
    }
}
