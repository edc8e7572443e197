//! Mercury's story with the real programs on loopback, as told in docs/mercury-story.md: two homes, and two people
//! without open ports.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use iop_tests::program::{Program, free_port, programs, run, wait_for};

/// Generous: nothing here takes this long, but a machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);
const NAME: &str = "iop-mercury-cli";

/// A home.
struct Home {
    program: Program,
    /// Its address, with its peer id.
    address: String,
}

impl Home {
    /// A standalone home.
    fn start(dir: &Path, name: &str, more: &[&str]) -> Self {
        Self::start_at(dir, name, &format!("/ip4/127.0.0.1/tcp/{}", free_port()), more)
    }

    fn start_at(dir: &Path, name: &str, bind: &str, more: &[&str]) -> Self {
        let folder = dir.join(name);
        let mut args = vec!["home", "run", "--network", "regtest", "--bind", bind, "--datadir"];
        args.push(folder.to_str().unwrap());
        args.extend(more);
        Self::start_program(NAME, &folder, &args, bind)
    }

    /// A home hosted by a node.
    fn start_in_node(dir: &Path, name: &str) -> Self {
        let folder = dir.join(name);
        let (bind, rpc) =
            (format!("/ip4/127.0.0.1/tcp/{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let mut args = vec!["run", "--network", "regtest", "--no-listen", "--no-dns-seed"];
        args.extend(["--rpc-bind", &rpc, "--mercury-bind", &bind, "--datadir", folder.to_str().unwrap()]);
        Self::start_program("iop-node", &folder, &args, &bind)
    }

    /// Both print their address: the standalone home on a line of its own, the node in its log.
    fn start_program(program: &'static str, folder: &Path, args: &[&str], bind: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let program = Program::start(program, folder, args).unwrap();
        let begin = format!("{bind}/p2p/");
        let shown = || {
            let log = program.log();
            let place = log.find(&begin)?;
            // The whole line is there.
            let (address, _) = log[place..].split_once('\n')?;
            Some(address.to_owned())
        };
        let address = wait_for(LIMIT, shown).unwrap_or_else(|| panic!("no home:\n{}", program.log()));
        Self { program, address }
    }
}

/// A person with a folder.
struct Person {
    folder: PathBuf,
    id: String,
}

impl Person {
    fn new(dir: &Path, name: &str) -> Self {
        let folder = dir.join(name);
        let mut person = Self { folder, id: String::new() };
        person.id = person.does(&["new", "--network", "regtest"]).trim().to_owned();
        person
    }

    /// Runs a command; returns exit status, stdout and stderr.
    fn tries(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut all = vec!["--datadir", self.folder.to_str().unwrap()];
        all.extend(args);
        run(NAME, all)
    }

    fn does(&self, args: &[&str]) -> String {
        let (status, stdout, stderr) = self.tries(args);
        assert_eq!(status, Some(0), "{args:?}: {stderr}");
        stdout
    }

    /// Runs a command that must fail with one line that contains this word.
    fn fails(&self, args: &[&str], word: &str) {
        let (status, stdout, stderr) = self.tries(args);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{args:?}: {stderr}");
        assert!(
            stderr.lines().count() == 1 && stderr.contains(word),
            "{args:?}: '{word}' expected: {stderr}"
        );
    }

    /// Starts a program for talking, with its stdin open.
    fn starts(&self, args: &[&str]) -> Child {
        Command::new(programs().join(NAME))
            .args(["--datadir", self.folder.to_str().unwrap()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// Writes something, and closes the input.
fn says(child: &mut Child, text: &str) {
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
}

/// The text received, and the way it took.
fn heard(child: Child) -> (String, String) {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    (String::from_utf8(output.stdout).unwrap(), stderr)
}

/// `caller` calls `callee`; both send something and receive the other's text.
fn they_talk(caller: &Person, callee: &Person, more: &[&str], way: &str) {
    let mut answering = callee.starts(&[&["answer", "--application", "chat"], more].concat());
    says(&mut answering, "hello from the callee\n");
    let there = || caller.does(&["presence"]).contains("chat").then_some(());
    wait_for(LIMIT, there).expect("the callee is there");
    let mut calling = caller.starts(&[&["call", &callee.id, "--application", "chat"], more].concat());
    says(&mut calling, "hello from the caller\n");
    let ((at_caller, of_caller), (at_callee, of_callee)) = (heard(calling), heard(answering));
    assert_eq!(
        (at_caller.as_str(), at_callee.as_str()),
        ("hello from the callee\n", "hello from the caller\n")
    );
    assert!(of_caller.contains(way) && of_callee.contains(way), "{way} expected: {of_caller}{of_callee}");
}

fn relate(one: &Person, other: &Person) {
    one.does(&["relate", &other.id, "--label", "friend", "--note", "we met"]);
    let requests = other.does(&["requests"]);
    assert!(requests.contains(&format!("{} friend we met", one.id)), "{requests}");
    assert_eq!(other.does(&["accept", &one.id]), "accepted\n");
    assert_eq!(one.does(&["fetch"]), format!("{} accepts\n", other.id));
}

#[test]
fn two_people_behind_two_homes() {
    let dir = tempfile::tempdir().unwrap();
    let first = Home::start_in_node(dir.path(), "first");
    let second = Home::start(dir.path(), "second", &["--peer", &first.address]);
    let (ada, ben) = (Person::new(dir.path(), "ada"), Person::new(dir.path(), "ben"));
    ada.does(&["register", "--home", &first.address]);
    ben.does(&["register", "--home", &second.address]);
    ada.does(&["profile", "set", "name=Ada"]);

    // They find each other in the table of homes.
    let found = || (ada.tries(&["find", &ben.id]).0 == Some(0)).then_some(());
    wait_for(LIMIT, found).expect("Ada finds Ben");
    let found = || ben.tries(&["profile", "show", &ada.id]).1.contains("name: Ada").then_some(());
    wait_for(LIMIT, found).expect("Ben finds Ada");
    relate(&ada, &ben);

    // Ben is offline; his home stores it.
    let picture = dir.path().join("picture.png");
    let bytes: Vec<u8> = (0..19_000u32).map(|number| number as u8).collect();
    std::fs::write(&picture, &bytes).unwrap();
    ada.does(&["send", &ben.id, "look at this", "--attach", picture.to_str().unwrap()]);
    let saved = dir.path().join("saved");
    let mail = ben.does(&["fetch", "--save", saved.to_str().unwrap()]);
    assert!(mail.contains("look at this"), "{mail}");
    assert_eq!(std::fs::read(saved.join("picture.png")).unwrap(), bytes);
    assert_eq!(ben.does(&["fetch"]), "", "delivered once");
    let blobs = ada.does(&["blob", "list"]);
    let (hash, rest) = blobs.trim_end().split_once(' ').unwrap();
    assert!(rest.ends_with("attachment picture.png"), "{blobs}");
    ada.does(&["blob", "discard", hash]);
    assert_eq!(ada.does(&["blob", "list"]), "", "the room is free again");
    ben.does(&["send", &ada.id, "nice"]);
    assert_eq!(ada.does(&["fetch"]), format!("{}: nice\n", ben.id));
    ada.does(&["picture", "set", picture.to_str().unwrap()]);
    let got = dir.path().join("got.png");
    ben.does(&["picture", "get", &ada.id, got.to_str().unwrap()]);
    assert_eq!(std::fs::read(&got).unwrap(), bytes);

    // Neither has an open port; then both have one.
    they_talk(&ada, &ben, &[], "relayed");
    they_talk(&ben, &ada, &["--listen", "/ip4/127.0.0.1/tcp/0"], "direct");

    // Ada moves, and stays reachable and related.
    ben.does(&["send", &ada.id, "before the move"]);
    ada.does(&["move", "--to", &second.address]);
    let kept: Vec<_> = std::fs::read_dir(ada.folder.join("mail")).unwrap().collect();
    assert_eq!(kept.len(), 1, "mail that waited is kept");
    ben.does(&["send", &ada.id, "after the move"]);
    assert_eq!(ada.does(&["fetch"]), format!("{}: after the move\n", ben.id));
    assert_eq!(ben.does(&["find", &ada.id]), ada.does(&["find", &ada.id]));
    first.program.stop();
    they_talk(&ben, &ada, &["--relayed"], "relayed");

    // Ben revokes the relation.
    assert_eq!(ben.does(&["revoke", &ada.id]), "revoked\n");
    ada.fails(&["send", &ben.id, "please"], "refuses");
    assert_eq!(ada.does(&["fetch"]), format!("{} takes the relation back\n", ben.id));
    ada.fails(&["send", &ben.id, "please"], "no relation");
    ada.fails(&["call", &ben.id, "--application", "chat"], "");
    second.program.stop();
}

#[test]
fn a_move_away_from_a_home_that_is_down_is_finished_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let bind = format!("/ip4/127.0.0.1/tcp/{}", free_port());
    let start = || Home::start_at(dir.path(), "old", &bind, &[]);
    let (old, new) = (start(), Home::start(dir.path(), "new", &[]));
    let (ada, ben) = (Person::new(dir.path(), "ada"), Person::new(dir.path(), "ben"));
    for person in [&ada, &ben] {
        person.does(&["register", "--home", &old.address]);
    }
    relate(&ada, &ben);
    old.program.stop();
    let (status, stdout, stderr) = ada.tries(&["move", "--to", &new.address]);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.contains(&new.address) && stderr.contains("does not know"), "{stdout}{stderr}");
    let old = start();
    // Its log contains its address from the first start.
    let back = || (ben.tries(&["find", &ada.id]).0 == Some(0)).then_some(());
    wait_for(LIMIT, back).expect("the old home is back");
    ben.does(&["send", &ada.id, "to the old home"]);
    // It is retried after some seconds.
    let saved = || {
        ada.does(&["fetch"]);
        let files = std::fs::read_dir(ada.folder.join("mail")).ok()?;
        files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok()).next()
    };
    let saved = wait_for(2 * LIMIT, saved).expect("the old home's mail is saved");
    assert!(saved.contains("to the old home"), "{saved}");
    ben.does(&["send", &ada.id, "to the new home"]);
    assert_eq!(ada.does(&["fetch"]), format!("{}: to the new home\n", ben.id));
    old.program.stop();
    new.program.stop();
}

#[test]
fn a_homes_owner_invites_bans_and_restores() {
    let dir = tempfile::tempdir().unwrap();
    let owner = Person::new(dir.path(), "owner");
    let home = Home::start(dir.path(), "home", &["--owner", &owner.id]);
    owner.does(&["register", "--home", &home.address]);
    home.program.stop();
    let home = Home::start(dir.path(), "home", &["--hosting", "invited", "--owner", &owner.id]);
    // It listens at another port now.
    owner.does(&["register", "--home", &home.address]);
    let guest = Person::new(dir.path(), "guest");
    guest.fails(&["register", "--home", &home.address], "invited");
    let invitation = owner.does(&["invite"]);
    let invited = ["register", "--home", &home.address, "--invitation", invitation.trim()];
    guest.does(&invited);
    guest.fails(&["invite"], "refuses");
    let other = Person::new(dir.path(), "other");
    other.fails(&invited, "invitation");
    owner.does(&["ban", &guest.id, "--reason", "noise"]);
    assert_eq!(owner.does(&["bans"]), format!("{} noise\n", guest.id));
    guest.fails(&["fetch"], "banned");
    owner.does(&["unban", &guest.id]);
    guest.does(&["fetch"]);
    owner.fails(&["expel", &guest.id], "refuses");
    assert!(owner.does(&["--json", "figures"]).starts_with('{'));
    let backup = owner.does(&["backup"]);
    let backup = dir.path().join("home/backups").join(backup.trim());
    home.program.stop();
    let new = dir.path().join("new");
    let restore = |into: &Path| {
        run(NAME, ["home", "restore", backup.to_str().unwrap(), "--datadir", into.to_str().unwrap()])
    };
    assert_eq!(restore(&new).0, Some(0));
    assert_eq!(restore(&new).0, Some(1), "never over another");
    std::fs::copy(dir.path().join("home/home.key"), new.join("home.key")).unwrap();
    let home = Home::start(dir.path(), "new", &["--hosting", "closed", "--owner", &owner.id]);
    guest.does(&["register", "--home", &home.address]);
    guest.does(&["profile", "show"]);
    home.program.stop();
}

#[test]
fn wrong_input_is_named_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let me = Person::new(dir.path(), "me");
    for (args, word) in [
        (&["register", "--home", "localhost:4840"][..], "/ip4/…/tcp/…/p2p/…"),
        (&["accept", "somebody"], "somebody"),
        (&["call", &me.id, "--application", "two words"], "visible characters"),
        (&["profile", "set", "name"], "NAME=VALUE"),
        (&["blob", "discard", "xyz"], "64 hexadecimal digits"),
        (
            &["answer", "--application", "chat", "--relayed", "--listen", "/ip4/127.0.0.1/tcp/0"],
            "cannot be used with",
        ),
        (&["register", "--home", "/ip4/1.1.1.1/tcp/1", "--invitation", "xyz"], "/p2p/"),
        (&["home", "run", "--bind", "nowhere"], "nowhere"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let (status, stdout, stderr) = me.tries(args);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{args:?}: {stderr}");
        assert!(
            stderr.lines().count() == 1 && stderr.contains(word),
            "{args:?}: '{word}' expected: {stderr}"
        );
    }
    me.fails(&["new"], "exists already");
    me.fails(&["fetch"], "register at one first");
    let (status, _, stderr) = run(NAME, ["--datadir", "/nonexistent/me", "id"]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("iop-mercury-cli new"), "{stderr}");
}
