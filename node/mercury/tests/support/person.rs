//! A person with a folder: the device, and the program.

use iop_mercury::client::folder::{Folder, Standing};
use iop_mercury::client::seal::Letter;
use iop_mercury::client::{ClientError, Delivery, Device, Home, Received, Settings, Told};
use iop_mercury::id::Id;
use tokio::sync::mpsc;

use super::{NETWORK, Running};

/// A person with a folder, and a device that can be restarted.
pub struct Person {
    pub device: Device,
    _told: mpsc::Receiver<Told>,
    pub place: tempfile::TempDir,
}

fn settings() -> Settings {
    Settings { listen: None, direct: false }
}

pub fn at(home: &Running) -> Home {
    Home::parse(&home.address.to_string()).unwrap()
}

impl Person {
    pub async fn at(home: &Home) -> Self {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("me"), NETWORK).unwrap();
        let (device, told) = Device::start(folder, settings()).unwrap();
        device.register(home, None).await.unwrap();
        Self { device, _told: told, place }
    }

    /// Restarts as after a crash: only the folder is kept. Everything is due for a retry.
    pub fn start_again(self) -> Self {
        let Self { device, place, .. } = self;
        drop(device);
        let folder = Folder::open(&place.path().join("me")).unwrap();
        folder
            .update(|state| {
                state.moving.iter_mut().for_each(|one| one.next = 0);
                state.leaving.iter_mut().for_each(|one| one.next = 0);
            })
            .unwrap();
        let (device, told) = Device::start(folder, settings()).unwrap();
        Self { device, _told: told, place }
    }

    /// Another program using the same folder.
    pub fn other_program(&self) -> Device {
        Device::start(self.device.folder().clone(), settings()).unwrap().0
    }

    pub fn id(&self) -> Id {
        self.device.id()
    }

    pub fn home(&self) -> Id {
        self.device.own_home().unwrap().id
    }

    pub fn standing(&self, other: &Self) -> Option<Standing> {
        self.device.folder().state().unwrap().contact(other.id()).map(|one| one.standing)
    }

    pub async fn send(&self, to: &Self, text: &str) -> Result<(), ClientError> {
        self.device.send(to.id(), &Letter { text: text.to_owned(), attachments: Vec::new() }).await
    }

    /// Fetches and acknowledges the mail at a home.
    pub async fn mail_at(&self, home: &Home) -> (Vec<String>, u64) {
        let page = self.device.fetch_from(home).await.unwrap();
        self.device.acknowledge(&page).await.unwrap();
        let text = |item: &Received| match item {
            Received::Letter { letter, .. } => letter.text.clone(),
            Received::Accepted(_) => "accepts".to_owned(),
            Received::Revoked(_) => "takes it back".to_owned(),
            Received::Refused(why) => panic!("{why}"),
        };
        (page.items.iter().map(text).collect(), page.upto())
    }

    /// The mail of left homes that the program saved.
    pub fn saved_mail(&self) -> String {
        let Ok(saved) = std::fs::read_dir(self.place.path().join("me/mail")) else { return String::new() };
        saved.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    pub async fn mail(&self) -> Vec<String> {
        self.mail_at(&self.device.own_home().unwrap()).await.0
    }

    /// Runs the program with these arguments; returns its output.
    pub fn run(&self, words: &[&str]) -> String {
        let out = self.outcome(words);
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// Like [`Self::run`], whether or not it succeeds.
    pub fn outcome(&self, words: &[&str]) -> std::process::Output {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_iop-mercury-cli"));
        command.arg("--datadir").arg(self.place.path().join("me")).args(words);
        tokio::task::block_in_place(|| command.output()).unwrap()
    }
}

/// Makes both know each other's home, since there is no directory here.
pub fn introduce(one: &Person, other: &Person) {
    for (me, them) in [(one, other), (other, one)] {
        let home = them.device.folder().state().unwrap().home;
        me.device.folder().update(|state| state.contact_mut(them.id()).home = home).unwrap();
    }
}

pub async fn relate(one: &Person, other: &Person) {
    introduce(one, other);
    one.device.relate(other.id(), "friend", "").await.unwrap();
    assert!(matches!(other.device.accept(one.id()).await.unwrap(), Delivery::Done));
    assert_eq!(one.mail().await, ["accepts"]);
}
