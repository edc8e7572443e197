#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use libp2p::PeerId;

use crate::body::{Attribute, Profile};
use crate::envelope::Order;
use crate::home::testing::{Bench, Person, code};
use crate::id::{Id, Key};
use crate::limits::{INVITATION_TIME, MAX_BANS, MAX_BANS_TOLD, MAX_INVITATIONS, MAX_NOTE};
use crate::store::{Batch, Column, Row, restore};
use crate::wire::{Answer, Code, Event, Request};

/// The number of the home's owner.
const OWNER: u8 = 100;

fn owned() -> (Bench, Person) {
    let owner = Key::from_secret(&[OWNER; 32]).id();
    let mut bench = Bench::new(|settings| settings.owner = Some(owner));
    let owner = bench.resident(OWNER);
    (bench, owner)
}

fn numbered(number: usize) -> Id {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    Id::from_digest(digest)
}

fn ban(bench: &mut Bench, owner: &Person, persona: Id, why: &str) -> Answer {
    bench.ask(owner.device, Request::Ban(persona, why.to_owned()))
}

fn bans(bench: &mut Bench, owner: &Person, after: Option<Id>) -> (Vec<(Id, String)>, bool) {
    match bench.ask(owner.device, Request::Bans(after)) {
        Answer::Bans(bans, more) => (bans, more),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_owner_invites_bans_looks_and_backs_up() {
    let (mut bench, owner) = owned();
    let (resident, visitor) = (bench.resident(1), bench.visitor(2));
    let someone = numbered(1);
    for request in [
        Request::Invite(60),
        Request::Ban(someone, String::new()),
        Request::Expel(someone),
        Request::Unban(someone),
        Request::Bans(None),
        Request::Figures,
        Request::BackUp,
    ] {
        assert_eq!(code(&bench.ask(PeerId::random(), request.clone())), Some(Code::LogInFirst));
        for person in [&resident, &visitor] {
            assert_eq!(code(&bench.ask(person.device, request.clone())), Some(Code::NotForYou));
        }
        assert_eq!(code(&bench.ask(owner.device, request)), None);
    }
    let mut bench = bench.restart(|settings| settings.owner = None);
    bench.log_in(&owner, &[]);
    assert_eq!(
        code(&bench.ask(owner.device, Request::Figures)),
        Some(Code::NotForYou),
        "a home without owner"
    );
    // The owner may be hosted elsewhere.
    let mut bench = bench.restart(|settings| settings.owner = Some(visitor.id()));
    bench.log_in(&visitor, &[]);
    assert!(matches!(bench.ask(visitor.device, Request::Figures), Answer::Figures(_)));
}

#[test]
fn invitations_are_within_their_time_and_number() {
    let (mut bench, owner) = owned();
    for seconds in [0, INVITATION_TIME + 1, u64::MAX] {
        assert_eq!(code(&bench.ask(owner.device, Request::Invite(seconds))), Some(Code::Malformed));
    }
    let mut batch = Batch::default();
    for number in 0..MAX_INVITATIONS - 1 {
        batch.put_number(Column::Invitations, &numbered(number).digest()[..16], bench.now.wall + 10);
    }
    bench.home.commit(batch).unwrap();
    let invite = |bench: &mut Bench| bench.ask(owner.device, Request::Invite(INVITATION_TIME));
    assert!(matches!(invite(&mut bench), Answer::Invitation(_)), "the last");
    bench.wait(10);
    assert_eq!(code(&invite(&mut bench)), Some(Code::Full));
    bench.wait(1);
    assert!(matches!(invite(&mut bench), Answer::Invitation(_)), "the others have expired");
    assert_eq!(bench.home.store.rows(Column::Invitations, b"", b"").count(), 2);
}

#[test]
fn a_ban_ends_sessions_and_refuses_log_in_and_registration() {
    let (mut bench, owner) = owned();
    let (ada, bob) = (bench.resident(1), bench.resident(3));
    let stranger = Person::new(2);
    let profile = Profile {
        attributes: Vec::new(),
        encryption_key: [1; 32].into(),
        picture: Some(bench.upload(&ada, b"a picture")),
        thumbnail: None,
        tombstone: false,
    };
    let picture = profile.picture.unwrap().hash;
    let profile = bench.sign(&ada, ada.id(), Order::Sequence(1), &profile);
    bench.ask(ada.device, Request::SetProfile(profile.clone()));
    bench.relation(&ada, &bob, 1);
    let to_ada = [2, 3].map(|number| bench.message(&bob, ada.id(), number, 20));
    let [first, to_ada] = to_ada;
    bench.ask(bob.device, Request::Put(first));
    let to_bob = bench.message(&ada, bob.id(), 5, 20);
    bench.events_of(ada.device);
    for persona in [ada.id(), stranger.id()] {
        assert_eq!(ban(&mut bench, &owner, persona, "why not"), Answer::Done);
    }
    assert_eq!(bench.events_of(ada.device), [Event::Ended]);
    assert_eq!(code(&bench.ask(ada.device, Request::Claim)), Some(Code::LogInFirst));
    let mut bench = bench.restart(|settings| settings.owner = Some(owner.id()));
    assert_eq!(code(&bench.log_in(&ada, &[])), Some(Code::Closed));
    for person in [&ada, &stranger] {
        assert_eq!(code(&bench.register(person)), Some(Code::Closed));
    }
    let anyone = PeerId::random();
    let unknown = bench.ask(anyone, Request::GetProfile(Person::new(77).id()));
    assert_eq!(bench.ask(anyone, Request::GetProfile(ada.id())), unknown, "it is not shown");
    let hidden = bench.ask(anyone, Request::GetChunk(ada.id(), picture, 0));
    assert_eq!(code(&hidden), Some(Code::LogInFirst));
    assert_eq!(code(&bench.ask(anyone, Request::Put(to_bob.clone()))), Some(Code::Closed));
    let not_taken = bench.ask(anyone, Request::Put(to_ada.clone()));
    let readdressed = bench.message(&bob, Person::new(77).id(), 4, 20);
    assert_eq!(bench.ask(anyone, Request::Put(readdressed)), not_taken, "as to somebody unknown");
    bench.log_in(&owner, &[]);
    assert_eq!(bench.ask(owner.device, Request::Unban(ada.id())), Answer::Done);
    assert_eq!(bench.log_in(&ada, &[]), Answer::Session(true));
    assert_eq!(bench.ask(anyone, Request::GetProfile(ada.id())), Answer::Profile(profile), "all stayed");
    let mail = bench.ask(ada.device, Request::Fetch(0));
    assert!(matches!(&mail, Answer::Mail(mail, false) if mail.len() == 1), "what waited: {mail:?}");
    assert_eq!(bench.ask(anyone, Request::Put(to_bob)), Answer::Done);
    assert_eq!(code(&bench.register(&stranger)), Some(Code::Closed));
    assert_eq!(bans(&mut bench, &owner, None).0, [(stranger.id(), "why not".to_owned())]);
}

#[test]
fn a_ban_has_a_reason_of_one_line_and_never_meets_the_owner() {
    let (mut bench, owner) = owned();
    let (most, over) = ("x".repeat(MAX_NOTE), "x".repeat(MAX_NOTE + 1));
    assert_eq!(ban(&mut bench, &owner, numbered(1), &most), Answer::Done);
    for why in [&over, "two\nlines", "\u{1b}[31m", "\0"] {
        assert_eq!(code(&ban(&mut bench, &owner, numbered(2), why)), Some(Code::Malformed), "{why:?}");
    }
    assert_eq!(code(&ban(&mut bench, &owner, owner.id(), "")), Some(Code::Malformed));
    assert_eq!(bans(&mut bench, &owner, None), (vec![(numbered(1), most)], false));
}

#[test]
fn so_many_bans_and_no_more_and_they_are_told_in_parts() {
    let (bench, owner) = owned();
    let mut batch = Batch::default();
    for number in 0..MAX_BANS - 1 {
        batch.put_bytes(Column::Bans, numbered(number).digest(), b"");
    }
    bench.home.commit(batch).unwrap();
    let mut bench = bench.restart(|settings| settings.owner = Some(owner.id()));
    bench.log_in(&owner, &[]);
    assert_eq!(ban(&mut bench, &owner, numbered(MAX_BANS - 1), ""), Answer::Done);
    assert_eq!(code(&ban(&mut bench, &owner, numbered(MAX_BANS), "")), Some(Code::Full));
    assert_eq!(ban(&mut bench, &owner, numbered(7), "another reason"), Answer::Done, "banned already");
    for _ in 0..2 {
        assert_eq!(bench.ask(owner.device, Request::Unban(numbered(3))), Answer::Done);
    }
    assert_eq!(ban(&mut bench, &owner, numbered(MAX_BANS), ""), Answer::Done);
    assert_eq!(code(&ban(&mut bench, &owner, numbered(MAX_BANS + 1), "")), Some(Code::Full), "counted once");
    let (mut after, mut all) = (None, 0);
    loop {
        let (part, more) = bans(&mut bench, &owner, after);
        assert!(part.len() == MAX_BANS_TOLD || !more && part.len() <= MAX_BANS_TOLD);
        assert!(after < Some(part[0].0));
        after = part.last().map(|(id, _)| *id);
        all += part.len();
        if !more {
            break;
        }
    }
    assert_eq!(all, MAX_BANS);
}

#[test]
fn all_that_is_kept_of_a_banned_persona_goes_when_the_owner_says_so() {
    let (mut bench, owner) = owned();
    let (ada, bob) = (bench.resident(1), bench.resident(2));
    bench.relation(&ada, &bob, 1);
    let message = bench.message(&bob, ada.id(), 2, 20);
    bench.ask(bob.device, Request::Put(message));
    bench.upload(&ada, b"a blob");
    let expel = |bench: &mut Bench, person: &Person| bench.ask(owner.device, Request::Expel(person.id()));
    assert_eq!(code(&expel(&mut bench, &ada)), Some(Code::Malformed), "not without a ban");
    assert!(matches!(bench.ask(ada.device, Request::Claim), Answer::Hosting(..)));
    ban(&mut bench, &owner, ada.id(), "");
    for _ in 0..2 {
        assert_eq!(expel(&mut bench, &ada), Answer::Done);
        assert_eq!(bench.home.figures()[0], ("hosted", 2));
    }
    let of = |person: &Person| {
        let rows = |column| bench.home.store.rows(column, person.id().digest(), b"").count();
        Column::ALL.into_iter().map(rows).sum::<usize>()
    };
    assert_eq!((of(&ada), of(&bob)), (1, 2), "her ban; Bob's hosting and his relation");
    bench.check_counts();
    let mut bench = bench.restart(|settings| settings.owner = Some(owner.id()));
    assert_eq!(bench.home.figures()[0], ("hosted", 2));
    bench.log_in(&owner, &[]);
    bench.ask(owner.device, Request::Unban(ada.id()));
    assert_eq!(bench.log_in(&ada, &[]), Answer::Session(false), "she is not hosted any more");
    assert!(matches!(bench.register(&ada), Answer::Hosting(..)));
}

#[test]
fn figures_say_what_happens() {
    let (mut bench, owner) = owned();
    let ada = bench.resident(1);
    bench.visitor(2);
    bench.upload(&ada, b"a blob");
    ban(&mut bench, &owner, numbered(1), "");
    bench.ask(ada.device, Request::Figures);
    let Answer::Figures(figures) = bench.ask(owner.device, Request::Figures) else { panic!("no figures") };
    let figure = |name: &str| figures.iter().find(|(other, _)| other == name).map(|(_, number)| *number);
    for (name, expected) in [
        ("hosted", 2),
        ("sessions", 2),
        ("visitors", 1),
        ("banned", 1),
        ("log_ins", 3),
        ("refused", 1),
        ("faults", 0),
        ("blobs_completed", 1),
    ] {
        assert_eq!(figure(name), Some(expected), "{name}");
    }
    let own: Vec<_> =
        bench.home.figures().iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
    assert_eq!(own, figures);
}

/// All rows of a home's store.
fn everything(bench: &Bench) -> Vec<(String, Row)> {
    let rows = |column: Column| {
        let rows = bench.home.store.rows(column, b"", b"");
        rows.map(move |row| (format!("{column:?}"), row.unwrap())).collect::<Vec<_>>()
    };
    Column::ALL.into_iter().flat_map(rows).collect()
}

#[test]
fn all_that_is_hosted_comes_back_from_a_backup() {
    let (mut bench, owner) = owned();
    let (ada, bob) = (bench.resident(1), bench.resident(2));
    bench.relation(&ada, &bob, 1);
    let message = bench.message(&ada, bob.id(), 2, 100);
    bench.ask(ada.device, Request::Put(message.clone()));
    let wanted = bench.request(&Person::new(3), bob.id(), 3);
    bench.ask(PeerId::random(), Request::Relate(wanted.clone()));
    let picture = bench.upload(&ada, &[7; 20_000]);
    let attribute = Attribute { name: "name".to_owned(), value: "../../etc/passwd".to_owned() };
    let profile = Profile {
        attributes: vec![attribute],
        encryption_key: [1; 32].into(),
        picture: Some(picture),
        thumbnail: None,
        tombstone: false,
    };
    let profile = bench.sign(&ada, ada.id(), Order::Sequence(1), &profile);
    bench.ask(ada.device, Request::SetProfile(profile.clone()));
    ban(&mut bench, &owner, numbered(1), "../../tmp");
    bench.ask(owner.device, Request::Invite(60));
    for column in Column::ALL {
        assert!(bench.home.store.rows(column, b"", b"").next().is_some(), "{column:?}");
    }
    let before = everything(&bench);
    let names = [0, 1].map(|_| match bench.ask(owner.device, Request::BackUp) {
        Answer::BackedUp(name) => name,
        other => panic!("{other:?}"),
    });
    assert_eq!(names, [0, 1].map(|number| format!("mercury-{}-{number}", bench.now.wall)));
    // Data stored after the backup is not in it.
    bench.upload(&ada, b"later");
    bench.resident(3);

    let backup = bench.folder.path().join("backups").join(&names[0]);
    let other = Arc::new(tempfile::tempdir().unwrap());
    restore(&backup, &other.path().join("store")).unwrap();
    restore(&backup, &other.path().join("again")).unwrap();
    let mut restored = Bench::open(other, |_| ());
    assert_eq!(everything(&restored), before);
    assert_eq!(restored.ask(PeerId::random(), Request::GetProfile(ada.id())), Answer::Profile(profile));
    let chunk = restored.ask(PeerId::random(), Request::GetChunk(ada.id(), picture.hash, 0));
    assert_eq!(chunk, Answer::Chunk(vec![7; 20_000].into()));
    assert_eq!(restored.log_in(&bob, &[]), Answer::Session(true));
    let mail = restored.ask(bob.device, Request::Fetch(0));
    assert!(matches!(&mail, Answer::Mail(mail, false) if mail[0].envelope == message), "{mail:?}");
    assert_eq!(restored.ask(bob.device, Request::Requests), Answer::Requests(vec![wanted]));
    assert_eq!(restored.home.figures()[0], ("hosted", 3));
}

#[test]
fn a_backup_is_restored_into_a_new_folder_only_and_whole_or_not_at_all() {
    let (mut bench, owner) = owned();
    let Answer::BackedUp(name) = bench.ask(owner.device, Request::BackUp) else { panic!("no backup") };
    let backup = bench.folder.path().join("backups").join(name);
    let other = tempfile::tempdir().unwrap();
    let into = other.path().join("store");
    let refused = |backup: &std::path::Path, expected: &str| {
        let error = restore(backup, &into).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&other.path().join("missing"), "is no backup");
    refused(other.path(), "is no backup");
    std::fs::create_dir(&into).unwrap();
    refused(&backup, "it exists");
    std::fs::remove_dir(&into).unwrap();
    // A damaged backup leaves nothing behind.
    let damaged = other.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("CURRENT"), "MANIFEST-000000\n").unwrap();
    assert!(restore(&damaged, &into).is_err());
    std::fs::create_dir(damaged.join("folder")).unwrap();
    refused(&damaged, "no plain file");
    let left: Vec<_> =
        std::fs::read_dir(other.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["damaged"]);
    restore(&backup, &into).unwrap();
    restore(&backup, &other.path().join("another")).unwrap();
}

#[test]
fn the_directory_hears_of_bans_and_expulsions() {
    let (mut bench, owner) = owned();
    let ada = bench.resident(1);
    bench.home.moved();
    ban(&mut bench, &owner, ada.id(), "spam");
    assert_eq!(bench.home.moved(), vec![ada.id()]);
    assert!(bench.home.entry(ada.id(), 1).unwrap().is_none(), "a banned one is not published");
    bench.ask(owner.device, Request::Unban(ada.id()));
    assert_eq!(bench.home.moved(), vec![ada.id()]);
    assert!(bench.home.entry(ada.id(), 1).unwrap().is_some());
    ban(&mut bench, &owner, ada.id(), "spam");
    bench.home.moved();
    bench.ask(owner.device, Request::Expel(ada.id()));
    assert_eq!(bench.home.moved(), vec![ada.id()]);
}
