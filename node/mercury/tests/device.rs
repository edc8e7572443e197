//! The device library against real homes on loopback.
#![allow(clippy::unwrap_used)]

mod support;

use iop_mercury::client::folder::{Folder, Standing};
use iop_mercury::client::seal::Letter;
use iop_mercury::client::{
    CallStream, ClientError, Delivery, Device, Home, Received, SENT_TIME, Settings, Told,
};
use iop_mercury::id::Id;
use iop_mercury::limits::{MAIL_TIME, MAX_BLOBS};
use iop_mercury::net::Setup;
use libp2p::futures::{AsyncReadExt, AsyncWriteExt};
use support::{Running, wall, within};
use tokio::sync::mpsc;

/// A person with a device and a folder.
struct Person {
    device: Device,
    told: mpsc::Receiver<Told>,
    _folder: tempfile::TempDir,
}

fn relayed() -> Settings {
    Settings { listen: None, direct: false }
}

fn at(home: &Running) -> Home {
    Home::parse(&home.address.to_string()).unwrap()
}

impl Person {
    fn new(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (device, told) =
            Device::start(Folder::create(&folder.path().join("me"), support::NETWORK).unwrap(), settings)
                .unwrap();
        Self { device, told, _folder: folder }
    }

    async fn at(home: &Running, settings: Settings) -> Self {
        let person = Self::new(settings);
        person.device.register(&at(home), None).await.unwrap();
        person
    }

    fn id(&self) -> Id {
        self.device.id()
    }

    /// Makes a call as soon as the other device waits for it.
    async fn call(&self, id: Id) -> CallStream {
        loop {
            match self.device.call(id, "chat").await {
                Ok(call) => return call,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }

    /// Runs the program with these arguments and returns its output; this person's device must not run meanwhile.
    fn run(&self, words: &[&str]) -> String {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_iop-mercury-cli"));
        command.arg("--datadir").arg(self._folder.path().join("me")).args(words);
        let out = tokio::task::block_in_place(|| command.output()).unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    async fn mail(&self) -> Vec<Received> {
        let page = self.device.fetch().await.unwrap();
        assert!(!page.more);
        self.device.acknowledge(&page).await.unwrap();
        page.items
    }
}

fn letter(text: &str) -> Letter {
    Letter { text: text.to_owned(), attachments: Vec::new() }
}

async fn relate(one: &Person, other: &Person) {
    // As after a restart: the home still expects the answer.
    one.device.log_in(&[]).await.unwrap();
    one.device.log_out().await.unwrap();
    one.device.relate(other.id(), "friend", "hello").await.unwrap();
    let wishes = other.device.requests().await.unwrap();
    assert_eq!(wishes.iter().map(|wish| wish.from).collect::<Vec<_>>(), [one.id()]);
    assert_eq!(wishes[0].body().note, "hello");
    assert!(matches!(other.device.accept(one.id()).await.unwrap(), Delivery::Done));
    let mail = one.mail().await;
    assert!(matches!(mail[..], [Received::Accepted(id)] if id == other.id()), "{mail:?}");
}

/// Makes two people know each other's home, since there is no directory here.
fn introduce(one: &Person, other: &Person) {
    for (me, them) in [(one, other), (other, one)] {
        let home = them.device.folder().state().unwrap().home;
        me.device.folder().update(|state| state.contact_mut(them.id()).home = home).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_at_one_home_relate_write_and_take_it_back() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let (ada, ben) = (Person::at(&home, relayed()).await, Person::at(&home, relayed()).await);
        ada.device.claim().await.unwrap();
        ada.device.set_attributes(vec![("name".to_owned(), Some("Ada".to_owned()))]).await.unwrap();
        let profile = ben.device.profile(ada.id()).await.unwrap();
        assert_eq!(profile.body().attributes[0].value, "Ada");
        relate(&ada, &ben).await;
        ada.device.send(ben.id(), &letter("one")).await.unwrap();
        ada.device.send(ben.id(), &letter("two")).await.unwrap();
        let mail = ben.mail().await;
        let texts: Vec<_> = mail
            .iter()
            .map(|one| match one {
                Received::Letter { letter, from, .. } if *from == ada.id() => letter.text.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(texts, ["one", "two"]);
        assert!(ben.mail().await.is_empty(), "delivered once");
        assert!(matches!(ben.device.revoke(ada.id()).await.unwrap(), Delivery::Done));
        let refused = ada.device.send(ben.id(), &letter("three")).await.unwrap_err();
        assert!(matches!(refused, ClientError::Refused(_)), "{refused}");
        assert!(matches!(ada.mail().await[..], [Received::Revoked(id)] if id == ben.id()));
        let refused = ada.device.send(ben.id(), &letter("three")).await.unwrap_err();
        assert!(refused.to_string().contains("no relation"), "{refused}");
        let relations = ada.device.relations().await.unwrap();
        assert_eq!(relations[0].standing, Standing::Revoked);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_and_a_picture_go_from_home_to_home() {
    within(async {
        let (first, second) =
            (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let (ada, ben) = (Person::at(&first, relayed()).await, Person::at(&second, relayed()).await);
        introduce(&ada, &ben);
        relate(&ada, &ben).await;
        let picture = vec![7; 20 * 1024];
        ada.device.set_picture(&picture, Some(&picture[..5 * 1024])).await.unwrap();
        assert_eq!(ben.device.picture(ada.id()).await.unwrap(), picture);
        // More than two chunks, and not a whole number of them.
        let file: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        let attachment = ada.device.attach("a.png", &file).await.unwrap();
        let letter = Letter { text: "look".to_owned(), attachments: vec![attachment] };
        ada.device.send(ben.id(), &letter).await.unwrap();
        let mail = ben.mail().await;
        let Received::Letter { letter: found, .. } = &mail[0] else { panic!("{mail:?}") };
        assert_eq!(ben.device.attachment(&found.attachments[0]).await.unwrap(), file);
        let stranger = Person::at(&second, relayed()).await;
        let refused = stranger.device.attachment(&found.attachments[0]).await.unwrap_err();
        assert!(matches!(refused, ClientError::Refused(_)), "{refused}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_are_replaced_no_longer_count() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let ada = Person::at(&home, relayed()).await;
        let kept = async || {
            let blobs = ada.device.blobs().await.unwrap();
            let mut sizes: Vec<_> = blobs.iter().map(|(blob, _)| blob.size).collect();
            sizes.sort_unstable();
            sizes
        };
        ada.device.attach("a.png", &[1; 1000]).await.unwrap();
        let [attached] = kept().await[..] else { panic!("one attachment") };
        ada.device.set_picture(&[2; 20], Some(&[3; 10])).await.unwrap();
        assert_eq!(kept().await, [10, 20, attached]);
        ada.device.set_picture(&[4; 30], Some(&[3; 10])).await.unwrap();
        assert_eq!(kept().await, [10, 30, attached]);
        ada.device.set_attributes(vec![("name".to_owned(), Some("Ada".to_owned()))]).await.unwrap();
        assert_eq!(kept().await, [10, 30, attached], "still shown");
        assert_eq!(ada.device.picture(ada.id()).await.unwrap(), [4; 30]);
        ada.device.withdraw_profile().await.unwrap();
        assert_eq!(kept().await, [attached]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_stays_reachable_and_related() {
    within(async {
        let homes = [Running::start(Setup::default()).await, Running::start(Setup::default()).await];
        let (ada, ben) = (Person::at(&homes[0], relayed()).await, Person::at(&homes[1], relayed()).await);
        introduce(&ada, &ben);
        relate(&ada, &ben).await;
        let cem = Person::at(&homes[0], relayed()).await;
        introduce(&ada, &cem);
        relate(&ada, &cem).await;
        ada.device.revoke(cem.id()).await.unwrap();
        ada.device.set_picture(b"picture", Some(b"thumbnail")).await.unwrap();
        let third = Running::start(Setup::default()).await;
        let moved = ada.device.move_to(&at(&third), None).await.unwrap();
        assert_eq!(moved.unproven, 0);
        moved.left.unwrap();
        let there = ada.device.relations().await.unwrap();
        let standing = |other| there.iter().find(|one| one.id == other).map(|one| one.standing);
        assert_eq!(standing(ben.id()), Some(Standing::Held));
        assert_eq!(standing(cem.id()), Some(Standing::Revoked), "the old proof is of no use at the new home");
        // Ben knows only the old home, which redirects him.
        ben.device.send(ada.id(), &letter("where are you?")).await.unwrap();
        assert_eq!(ben.device.find(ada.id()).await.unwrap().id, third.id);
        assert_eq!(ben.device.picture(ada.id()).await.unwrap(), b"picture");
        let mail = ada.mail().await;
        assert!(matches!(&mail[..], [Received::Letter { letter, .. }] if letter.text == "where are you?"));
        ada.device.send(ben.id(), &letter("here")).await.unwrap();
        assert_eq!(ben.mail().await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_gone_is_left_all_the_same() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let ada = Person::at(&home, relayed()).await;
        drop(home);
        let error = ada.device.fetch().await.unwrap_err();
        assert!(error.is_of_home(), "{error}");
        let nowhere = ada.device.find(Person::new(relayed()).id()).await.unwrap_err();
        assert!(matches!(nowhere, ClientError::NotFound(_)), "{nowhere}");
        ada.device.unregister(None).await.unwrap();
        assert!(ada.device.folder().state().unwrap().home.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_home_is_found_again_with_the_session() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let mut ada = Person::at(&home, relayed()).await;
        ada.device.log_in(&["chat".to_owned()]).await.unwrap();
        home.until("sessions", |count| count == 1).await;
        let home = home.restart().await;
        assert!(matches!(ada.told.recv().await, Some(Told::Lost)));
        assert!(matches!(ada.told.recv().await, Some(Told::Back)));
        home.until("sessions", |count| count == 1).await;
        ada.device.log_out().await.unwrap();
        home.until("sessions", |count| count == 0).await;
    })
    .await;
}

async fn talk(caller: &Person, callee: &mut Person, direct: bool) {
    callee.device.log_in(&["chat".to_owned()]).await.unwrap();
    let there = caller.device.presence(&[callee.id()]).await.unwrap();
    assert_eq!(there[0].applications.as_deref(), Some(&["chat".to_owned()][..]));
    let id = callee.id();
    let answered = async {
        loop {
            match callee.told.recv().await.unwrap() {
                Told::Call(call) => return call.accept().await.unwrap(),
                other => drop(other),
            }
        }
    };
    let (called, mut answered) = tokio::join!(caller.device.call(id, "chat"), answered);
    let mut called = called.unwrap();
    assert_eq!((called.direct, answered.direct), (direct, direct));
    assert_eq!(answered.other, caller.id());
    called.write_all(b"hello").await.unwrap();
    called.flush().await.unwrap();
    let mut heard = [0; 5];
    answered.read_exact(&mut heard).await.unwrap();
    answered.write_all(&heard).await.unwrap();
    answered.close().await.unwrap();
    let mut echo = Vec::new();
    called.read_to_end(&mut echo).await.unwrap();
    assert_eq!(echo, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_through_the_relay_where_no_port_is_open() {
    within(async {
        let (first, second) =
            (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let settings = Settings::default();
        let (ada, mut ben) =
            (Person::at(&first, settings.clone()).await, Person::at(&second, settings).await);
        introduce(&ada, &ben);
        relate(&ada, &ben).await;
        talk(&ada, &mut ben, false).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_becomes_direct_where_both_can_be_reached() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let settings = Settings { listen: Some("/ip4/127.0.0.1/tcp/0".parse().unwrap()), direct: true };
        let (ada, mut ben) = (Person::at(&home, settings.clone()).await, Person::at(&home, settings).await);
        relate(&ada, &ben).await;
        talk(&ada, &mut ben, true).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_refused_or_not_answered() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let (ada, mut ben) = (Person::at(&home, relayed()).await, Person::at(&home, relayed()).await);
        let strange = ada.device.call(ben.id(), "chat").await.unwrap_err();
        assert!(matches!(strange, ClientError::Refused(_)), "{strange}");
        relate(&ada, &ben).await;
        let away = ada.device.call(ben.id(), "chat").await.unwrap_err();
        assert!(matches!(away, ClientError::Refused(_)), "{away}");
        ben.device.log_in(&["chat".to_owned()]).await.unwrap();
        let id = ben.id();
        let refuse = async {
            loop {
                if let Told::Call(call) = ben.told.recv().await.unwrap() {
                    return call.refuse().await.unwrap();
                }
            }
        };
        let (called, ()) = tokio::join!(ada.device.call(id, "chat"), refuse);
        assert!(called.unwrap_err().to_string().contains("does not take the call"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_are_kept_when_their_mail_is_acknowledged_until_they_are_got() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let (ada, ben) = (Person::at(&home, relayed()).await, Person::at(&home, relayed()).await);
        relate(&ada, &ben).await;
        let attachments = vec![ada.device.attach("a.png", b"picture").await.unwrap()];
        ada.device.send(ben.id(), &Letter { text: "look".to_owned(), attachments }).await.unwrap();
        let run = |words: &[&str]| ben.run(words);
        let shown = run(&["fetch"]);
        assert!(shown.contains("look") && shown.contains("see `attachments`"), "{shown}");
        assert_eq!(run(&["fetch"]), "");
        let shown = run(&["attachments"]);
        assert!(shown.contains(": a.png ("), "{shown}");
        let saved = ben._folder.path().join("saved");
        run(&["attachments", "--save", saved.to_str().unwrap()]);
        assert_eq!(std::fs::read(saved.join("a.png")).unwrap(), b"picture");
        assert_eq!(run(&["attachments"]), "", "got and forgotten");
    })
    .await;
}

/// A program that is killed when the test ends.
struct Program(
    std::process::Child,
    #[allow(dead_code, reason = "it is there while the program is")] tempfile::TempDir,
);

impl Program {
    /// Starts a person's program, which waits for a call.
    fn answers(person: Person, out: std::process::Stdio) -> Self {
        drop(person.device);
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_iop-mercury-cli"))
            .arg("--datadir")
            .arg(person._folder.path().join("me"))
            .args(["answer", "--application", "chat", "--relayed"])
            .stdin(std::process::Stdio::piped())
            .stdout(out)
            .spawn();
        Self(program.unwrap(), person._folder)
    }

    /// Terminates the program; returns its exit status.
    async fn terminated(&mut self) -> std::process::ExitStatus {
        let signal =
            std::process::Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(signal.success());
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return status,
                None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended, where the test went well
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_that_answers_ends_during_a_call_when_it_is_told_to() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let (ada, ben) = (Person::at(&home, relayed()).await, Person::at(&home, relayed()).await);
        relate(&ada, &ben).await;
        let id = ben.id();
        let mut program = Program::answers(ben, std::process::Stdio::null());
        let _call = ada.call(id).await;
        let status = program.terminated().await;
        assert!(status.success(), "{status}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_ends_when_it_is_told_to_though_nobody_reads_what_it_says() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let (ada, ben) = (Person::at(&home, relayed()).await, Person::at(&home, relayed()).await);
        relate(&ada, &ben).await;
        let id = ben.id();
        let mut program = Program::answers(ben, std::process::Stdio::piped());
        let mut call = ada.call(id).await;
        let writing = tokio::spawn(async move {
            // More than all buffers on the way hold.
            let _ = call.write_all(&vec![7; 64 << 20]).await;
        });
        let out = program.0.stdout.take().unwrap();
        let mut waiting = 0;
        // Wait until nothing more goes into the pipe.
        loop {
            let now = rustix::io::ioctl_fionread(&out).unwrap();
            if now > 0 && now == waiting {
                break;
            }
            waiting = now;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        let status = program.terminated().await;
        assert!(status.success(), "{status}");
        writing.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_attachments_give_their_room_back_in_time_or_by_hand() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let ada = Person::at(&home, relayed()).await;
        let aged = |seconds| {
            let state = ada.device.folder();
            state.update(|state| state.sent.iter_mut().for_each(|one| one.at = wall() - seconds)).unwrap();
        };
        let large = vec![7; MAX_BLOBS as usize / 4 * 3];
        ada.device.attach("one", &large).await.unwrap();
        let full = ada.device.attach("two", &large).await.unwrap_err();
        assert!(matches!(full, ClientError::Refused(_)), "{full}");
        aged(MAIL_TIME + 1);
        ada.device.settle().await.unwrap();
        assert_eq!(ada.device.blobs().await.unwrap().len(), 1, "who took the mail may still get it");
        let two = ada.device.attach("two", &large).await.unwrap();
        let blobs = ada.device.blobs().await.unwrap();
        assert_eq!(
            blobs.iter().map(|(blob, _)| *blob).collect::<Vec<_>>(),
            [two.blob],
            "the older one gives way"
        );
        aged(SENT_TIME + 1);
        ada.device.settle().await.unwrap();
        assert!(ada.device.blobs().await.unwrap().is_empty());
        // Deleted manually.
        ada.device.attach("three", b"3").await.unwrap();
        ada.device.set_picture(b"picture", None).await.unwrap();
        let listed = ada.run(&["blob", "list"]);
        let mut kinds: Vec<_> = listed.lines().filter_map(|line| line.splitn(3, ' ').nth(2)).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["attachment three", "picture"], "{listed}");
        let three = listed.lines().find(|line| line.contains("three")).unwrap();
        ada.run(&["blob", "discard", three.split(' ').next().unwrap()]);
        assert_eq!(ada.run(&["blob", "list"]).lines().count(), 1);
        assert!(ada.device.folder().state().unwrap().sent.is_empty());
    })
    .await;
}
