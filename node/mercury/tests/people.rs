//! People and their program, where operations cross, are slow, or are interrupted.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use iop_mercury::client::folder::{Folder, Standing};
use iop_mercury::client::seal::Letter;
use iop_mercury::client::{Delivery, Home};
use iop_mercury::limits::MAX_BLOBS;
use iop_mercury::net::Setup;
use iop_mercury::wire::{Answer, Code, Request};
use support::liar::Liar;
use support::person::{Person, at, introduce, relate};
use support::{Running, within};
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread")]
async fn where_requests_crossed_either_of_the_two_can_take_the_relation_back() {
    within(async {
        let (adas, bens) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        for (ada_revokes, fetched) in [(true, false), (false, false), (true, true), (false, true)] {
            let (ada, ben) = (Person::at(&at(&adas)).await, Person::at(&at(&bens)).await);
            introduce(&ada, &ben);
            ada.device.relate(ben.id(), "friend", "").await.unwrap();
            ben.device.relate(ada.id(), "friend", "").await.unwrap();
            assert!(matches!(ben.device.accept(ada.id()).await.unwrap(), Delivery::Done));
            assert!(matches!(ada.device.accept(ben.id()).await.unwrap(), Delivery::Done));
            if fetched {
                ada.mail().await;
                ben.mail().await;
            }
            let (one, other) = if ada_revokes { (&ada, &ben) } else { (&ben, &ada) };
            assert!(matches!(one.device.revoke(other.id()).await.unwrap(), Delivery::Done));
            let mail = other.mail().await;
            assert_eq!(mail.last().map(String::as_str), Some("takes it back"), "{mail:?}");
            assert_eq!(other.standing(one), Some(Standing::Revoked));
            assert!(other.send(one, "still there?").await.unwrap_err().to_string().contains("no relation"));
            // Also for another device of the same persona, which relies on what the home has.
            other.device.folder().update(|state| state.contacts.clear()).unwrap();
            other.device.relations().await.unwrap();
            assert_eq!(other.standing(one), Some(Standing::Revoked));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_waits_is_not_lost_where_its_sender_takes_the_relation_back_and_is_asked_anew() {
    within(async {
        let (home, other) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let there = other.address.to_string();
        for leaves in [None, Some(&["move", "--to", &there][..]), Some(&["unregister"][..])] {
            let (ada, ben) = (Person::at(&at(&home)).await, Person::at(&at(&home)).await);
            relate(&ada, &ben).await;
            ben.send(&ada, "one more thing").await.unwrap();
            assert!(matches!(ben.device.revoke(ada.id()).await.unwrap(), Delivery::Done));
            ada.device.relations().await.unwrap();
            assert_eq!(ada.standing(&ben), Some(Standing::Revoked));
            // A request of the same second is taken for an old one.
            tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
            ada.device.relate(ben.id(), "friend", "").await.unwrap();
            match leaves {
                None => assert_eq!(ada.mail().await.first().map(String::as_str), Some("one more thing")),
                Some(words) => {
                    ada.run(words);
                    let saved = ada.saved_mail();
                    assert!(saved.contains("one more thing") && !saved.contains("refused"), "{saved}");
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_shown_and_taken_before_any_attachment_is_asked_for() {
    within(async {
        let (home, slow) = (Running::start(Setup::default()).await, Liar::start().await);
        let slow_home = Home::parse(&slow.address.to_string()).unwrap();
        let (ada, ben) = (Person::at(&at(&home)).await, Person::at(&at(&home)).await);
        let mallory = Person::at(&slow_home).await;
        relate(&ada, &ben).await;
        relate(&mallory, &ben).await;
        let mut attachments = Vec::new();
        for name in ["one", "two"] {
            attachments.push(mallory.device.attach(name, b"bytes").await.unwrap());
        }
        let letter = Letter { text: "hold on".to_owned(), attachments };
        mallory.device.send(ben.id(), &letter).await.unwrap();
        ada.send(&ben, "call me back").await.unwrap();
        // What Ben has taken when the first byte of an attachment is requested.
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (folder, seen) = (ben.device.folder().clone(), Arc::clone(&asked));
        slow.lie(move |request, truth| match request {
            Request::GetChunk(..) => {
                seen.lock().unwrap().push(folder.state().unwrap().taken.len());
                Answer::refused(Code::Fault, "not now").into()
            }
            _ => truth.into(),
        });
        let saved = ben.place.path().join("saved");
        let shown = ben.run(&["fetch", "--save", saved.to_str().unwrap()]);
        assert!(shown.contains("hold on") && shown.contains("call me back"), "{shown}");
        assert_eq!(*asked.lock().unwrap(), [2], "and who keeps one back is not asked for the next");
        assert_eq!(ben.run(&["attachments"]).lines().count(), 2, "they can be got later");
        slow.honest();
        assert_eq!(ben.run(&["attachments", "--save", saved.to_str().unwrap()]).lines().count(), 2);
        assert_eq!(std::fs::read(saved.join("two")).unwrap(), b"bytes");
        assert_eq!(ben.run(&["attachments"]), "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_gets_wrong_is_named_and_no_home_is_blamed() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let (ada, ben) = (Person::at(&at(&home)).await, Person::at(&at(&home)).await);
        introduce(&ada, &ben);
        relate(&ben, &ada).await;
        ben.send(&ada, "still here").await.unwrap();
        let cem = Person::at(&at(&home)).await;
        introduce(&ada, &cem);
        let (id, there, long) = (cem.id().to_string(), home.address.to_string(), "x".repeat(17_000));
        let (note, value) = (&long[..513], format!("a={long}"));
        let pipe = ada.place.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (words, said) in [
            (&["relate", &id, "--label", "a b"][..], "the request: the relation's label has 1 to 64"),
            (&["relate", &id, "--note", note], "the request: the note has at most 512 bytes"),
            (&["profile", "set", &value], "the new profile: "),
            (&["picture", "set", pipe.to_str().unwrap()], "a regular file is expected"),
            (&["move", "--to", &there], "hosted there already"),
        ] {
            let out = ada.outcome(words);
            let error = String::from_utf8(out.stderr).unwrap();
            assert_eq!(out.status.code(), Some(1), "{error}");
            assert!(error.contains(said) && !error.contains("believed"), "{error}");
        }
        assert!(ada.run(&["fetch"]).contains("still here"), "a move that is none takes no mail");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_home_at_a_port_ends_and_says_which_address_is_taken() {
    let home = Running::start(Setup::default()).await;
    let mut listen = home.address.clone();
    listen.pop();
    let place = tempfile::tempdir().unwrap();
    // It would run on, if nothing kept it from that.
    let mut command = Command::new("timeout");
    command.args(["30", env!("CARGO_BIN_EXE_iop-mercury-cli"), "--datadir"]).arg(place.path());
    command.args(["home", "run", "--bind", &listen.to_string()]);
    let out = tokio::task::block_in_place(|| command.output()).unwrap();
    let error = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("iop-mercury-cli: cannot listen at {listen}: ")), "{error}");
}

#[test]
fn a_folder_without_a_persona_is_a_failure_and_no_folder_at_all_is_wrong_usage() {
    let place = tempfile::tempdir().unwrap();
    let id = |change: &dyn Fn(&mut Command)| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iop-mercury-cli"));
        change(command.arg("id"));
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let (status, said) = id(&|command| {
        command.arg("--datadir").arg(place.path().join("none"));
    });
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("no such file"), "{said}");
    let (status, said) = id(&|command| {
        command.env_remove("HOME");
    });
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("--datadir is expected"), "{said}");
}

#[test]
fn a_persona_that_a_full_disk_has_cut_off_is_made_when_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("me");
    let make = |before: &str| {
        let command = format!(
            "{before} exec {} --datadir {} new --network test",
            env!("CARGO_BIN_EXE_iop-mercury-cli"),
            folder.display()
        );
        Command::new("sh").arg("-c").arg(command).output().unwrap()
    };
    // Files can be created, but not written.
    let cut_off = make("trap '' XFSZ; ulimit -f 0;");
    assert_eq!(cut_off.status.code(), Some(1), "{cut_off:?}");
    let made = make("");
    assert!(made.status.success(), "{made:?}");
    let id = Folder::open(&folder).unwrap().key().unwrap().id().to_string();
    assert_eq!(String::from_utf8(made.stdout).unwrap().trim(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_uploads_no_attachments() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let (ada, ben) = (Person::at(&at(&home)).await, Person::at(&at(&home)).await);
        let file = ada.place.path().join("file");
        std::fs::write(&file, b"file").unwrap();
        let (to, file) = (ben.id().to_string(), file.to_str().unwrap());
        let refused = ada.outcome(&["send", &to, "look", "--attach", file]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(String::from_utf8(refused.stderr).unwrap().contains("no relation to"));
        introduce(&ada, &ben);
        relate(&ada, &ben).await;
        let attached = ["--attach", file].repeat(17);
        let too_many = ada.outcome(&[&["send", &to, "look"][..], &attached].concat());
        assert_eq!(too_many.status.code(), Some(2), "{too_many:?}");
        assert!(String::from_utf8(too_many.stderr).unwrap().contains("17 attachments, at most 16 expected"));
        let (large, empty) = (ada.place.path().join("large"), ada.place.path().join("empty"));
        std::fs::write(&large, vec![7; MAX_BLOBS as usize / 4 * 3]).unwrap();
        std::fs::write(&empty, b"").unwrap();
        let (large, empty) = (large.to_str().unwrap(), empty.to_str().unwrap());
        let long = "x".repeat(70_000);
        let cannot = |text: &str, second: &str, said: &str| {
            let out = ada.outcome(&["send", &to, text, "--attach", file, "--attach", second]);
            let error = String::from_utf8(out.stderr).unwrap();
            assert_eq!(out.status.code(), Some(1), "{error}");
            assert!(error.contains(said), "{error}");
        };
        cannot(&long, file, "a letter of");
        cannot("look", empty, "an attachment is empty");
        cannot("look", "/no/file", "/no/file: ");
        let out = ada.outcome(&["send", &to, "look", "--attach", large, "--attach", large]);
        assert!(String::from_utf8(out.stderr).unwrap().contains("at most 8388608 expected"));
        ben.device.withdraw_profile().await.unwrap();
        cannot("look", file, "has taken its profile back");
        assert_eq!(ada.run(&["blob", "list"]), "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_sent_before_a_revocation_is_read_also_by_who_has_asked_anew_since() {
    within(async {
        let (adas, bens) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let (ada, ben) = (Person::at(&at(&adas)).await, Person::at(&at(&bens)).await);
        relate(&ada, &ben).await;
        ada.send(&ben, "the last one").await.unwrap();
        assert!(matches!(ada.device.revoke(ben.id()).await.unwrap(), Delivery::Done));
        // Ben sees that it was taken back and asks again before he looks at his mail.
        ben.device.relations().await.unwrap();
        assert_eq!(ben.standing(&ada), Some(Standing::Revoked));
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        ben.device.relate(ada.id(), "friend", "why?").await.unwrap();
        assert_eq!(ben.standing(&ada), Some(Standing::Asked));
        assert_eq!(ben.mail().await.first().map(String::as_str), Some("the last one"));
        assert_eq!(ben.standing(&ada), Some(Standing::Asked), "the old revocation changes nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_refused_leaves_no_attachments_and_one_that_may_be_kept_does() {
    within(async {
        let (home, theirs) = (Running::start(Setup::default()).await, Liar::start().await);
        let their_home = Home::parse(&theirs.address.to_string()).unwrap();
        let (ada, ben) = (Person::at(&at(&home)).await, Person::at(&their_home).await);
        relate(&ada, &ben).await;
        let (file, large) = (ada.place.path().join("file"), ada.place.path().join("large"));
        std::fs::write(&file, b"file").unwrap();
        std::fs::write(&large, vec![7; MAX_BLOBS as usize / 2]).unwrap();
        let (file, large) = (file.to_str().unwrap(), large.to_str().unwrap());
        let to = ben.id().to_string();
        let left_by = |second: &str| {
            let out = ada.outcome(&["send", &to, "look", "--attach", file, "--attach", second]);
            assert_eq!(out.status.code(), Some(1), "{out:?}");
            ada.run(&["blob", "list"]).lines().count()
        };
        // The own home has no room for the second file.
        ada.device.attach("earlier", &vec![7; MAX_BLOBS as usize / 4 * 3]).await.unwrap();
        assert_eq!(left_by(large), 1, "the earlier one");
        ada.device.discard(*ada.device.blobs().await.unwrap()[0].0.hash).await.unwrap();
        for (code, left) in [(Code::Full, 0), (Code::Later, 0), (Code::Fault, 2)] {
            theirs.lie(move |request, truth| match request {
                Request::Put(_) => Answer::refused(code, "not now").into(),
                _ => truth.into(),
            });
            assert_eq!(left_by(file), left, "{code:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_are_saved_in_a_folder_whose_name_is_no_text() {
    within(async {
        let home = Running::start(Setup::default()).await;
        let (ada, ben) = (Person::at(&at(&home)).await, Person::at(&at(&home)).await);
        relate(&ada, &ben).await;
        let name = std::ffi::OsStr::from_bytes(b"sav\xffed");
        let saved = ada.place.path().join(name);
        for (number, words) in [&["fetch"][..], &["--json", "fetch"]].into_iter().enumerate() {
            let name = format!("{number}.png");
            let attachments = vec![ben.device.attach(&name, b"picture").await.unwrap()];
            let letter = Letter { text: "look".to_owned(), attachments };
            ben.device.send(ada.id(), &letter).await.unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_iop-mercury-cli"));
            command.arg("--datadir").arg(ada.place.path().join("me"));
            command.args(words).arg("--save").arg(&saved);
            let out = tokio::task::block_in_place(|| command.output()).unwrap();
            assert!(out.status.success(), "{out:?}");
            let shown = String::from_utf8(out.stdout).unwrap();
            assert!(shown.contains(&format!("sav\u{fffd}ed/{name}")), "{shown}");
            assert_eq!(std::fs::read(saved.join(&name)).unwrap(), b"picture");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_or_waits_for_a_call_ends_in_order_also_while_the_home_says_nothing() {
    within(async {
        let home = Liar::start().await;
        let there = Home::parse(&home.address.to_string()).unwrap();
        let (ada, ben) = (Person::at(&there).await, Person::at(&there).await);
        relate(&ada, &ben).await;
        let id = ben.id().to_string();
        // While it finishes what was begun earlier, and while it logs in.
        for (begun, words) in [
            (true, &["call", &id, "--application", "chat"][..]),
            (true, &["answer", "--application", "chat"]),
            (false, &["answer", "--application", "chat"]),
        ] {
            ada.device.folder().update(|state| state.unbrought = begun).unwrap();
            let (asked, mut came) = mpsc::unbounded_channel();
            let (release, held) = std::sync::mpsc::channel::<()>();
            home.lie(move |request, truth| {
                if matches!(request, Request::Challenge) {
                    asked.send(()).unwrap();
                    // Nothing comes: it ends when the test has dropped the other end.
                    let _ = tokio::task::block_in_place(|| held.recv());
                }
                truth.into()
            });
            let mut program = Command::new(env!("CARGO_BIN_EXE_iop-mercury-cli"))
                .arg("--datadir")
                .arg(ada.place.path().join("me"))
                .args(words)
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            came.recv().await.unwrap();
            assert!(
                Command::new("kill").args(["-TERM", &program.id().to_string()]).status().unwrap().success()
            );
            let status = tokio::task::block_in_place(|| program.wait()).unwrap();
            drop(release);
            home.honest();
            assert_eq!(status.code(), Some(0), "{words:?}: {status}");
        }
    })
    .await;
}
