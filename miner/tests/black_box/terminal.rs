//! The live view, in a pseudoterminal whose output another crate interprets.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use iop_miner::device::{Device, Feed};
use iop_miner::rig::Rig;
use iop_miner::view::{self, ViewSettings};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use crate::support::{Client, EASY, JOB, PATIENCE, TIMING, listen, pool};

/// Rows and columns.
const USUAL: (u16, u16) = (24, 80);

/// A program in a terminal of its own.
struct Terminal {
    child: Child,
    /// The user's end.
    person: File,
    /// The program's end, kept so that its modes can be read after the program has ended.
    program: OwnedFd,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    fn start(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let end = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let stdio = || end.try_clone().unwrap();
        // In a session of its own, the terminal belongs to the program.
        let mut command = Command::new("setsid");
        // The tests may be run with some signals ignored.
        command.args(["--ctty", "env", "--default-signal"]).arg(program).args(arguments);
        command
            .env_remove("RUST_LOG")
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .envs(variables.iter().copied());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        resize(&person, USUAL);
        let child = command.spawn().unwrap();
        let person = File::from(person);
        let parser = vt100::Parser::new(USUAL.0.try_into().unwrap(), USUAL.1.try_into().unwrap(), 0);
        let seen = Arc::new(Mutex::new(Seen { parser, bytes: Vec::new() }));
        Self { child, person, program: end, seen }
    }

    /// Starts to read the terminal as the user.
    fn look(self) -> Self {
        let (mut reader, seeing) = (self.person.try_clone().unwrap(), Arc::clone(&self.seen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let mut seen = seeing.lock().unwrap();
                seen.parser.process(&buffer[..read]);
                seen.bytes.extend_from_slice(&buffer[..read]);
            }
        });
        self
    }

    /// `mine` at a pool, with a user reading the terminal.
    fn mine(listener: &TcpListener, more: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::mine_unseen(listener, more, variables).look()
    }

    fn mine_unseen(listener: &TcpListener, more: &[&str], variables: &[(&str, &str)]) -> Self {
        let url = format!("stratum+tcp://{}", listener.local_addr().unwrap());
        let arguments = ["mine", "--url", &*url, "--user", "pAddress.rig", "--threads", "1"];
        Self::start(env!("CARGO_BIN_EXE_iop-miner"), &[&arguments, more].concat(), variables)
    }

    fn press(&mut self, keys: &str) {
        self.person.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&mut self, size: (u16, u16)) {
        self.seen.lock().unwrap().parser.set_size(size.0.try_into().unwrap(), size.1.try_into().unwrap());
        resize(&self.person, size);
    }

    /// The visible text.
    fn text(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    /// All that the program has written.
    fn written(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().bytes).into_owned()
    }

    fn is_taken(&self) -> bool {
        self.seen.lock().unwrap().parser.screen().alternate_screen()
    }

    /// Waits until the visible text satisfies a condition.
    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let text = self.text();
            if wanted(&text) {
                return text;
            }
            assert!(start.elapsed() < PATIENCE, "{text}\n{:?}", self.written());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How often the thread of the view has waited for anything.
    fn waits_of_the_view(&self) -> Option<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).ok();
        let mut all = threads.filter_map(|thread| status(thread.ok()?));
        let view = all.find(|status| status.starts_with("Name:\tview\n"))?;
        view.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).map(str::to_owned)
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the program to exit, and checks that the terminal is as before.
    fn end(&mut self) -> ExitStatus {
        let status = self.end_unseen();
        // The last output may still be unread.
        self.wait_for(|_| {
            let seen = self.seen.lock().unwrap();
            !seen.parser.screen().alternate_screen() && !seen.parser.screen().hide_cursor()
        });
        status
    }

    /// The same for the terminal's modes only.
    fn end_unseen(&mut self) -> ExitStatus {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it goes on: {}", self.text());
            thread::sleep(Duration::from_millis(20));
        };
        let modes = tcgetattr(&self.program).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: impl std::os::fd::AsFd, (rows, columns): (u16, u16)) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

/// A pool that accepts every share of one miner, after `begin`; returns how many.
fn serve(listener: TcpListener, begin: impl FnOnce(&mut Client) + Send + 'static) -> Arc<AtomicU64> {
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    thread::spawn(move || {
        let mut client = Client::accept(&listener);
        client.handshake(&JOB);
        client.set_difficulty(EASY);
        begin(&mut client);
        client.send(&JOB.notify(true));
        while let Some(submit) = client.read_submit_if_any() {
            JOB.check(&submit);
            client.answer(&submit, json!(true));
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    taken
}

/// The number that follows a word.
fn number(text: &str, word: &str) -> Option<u64> {
    let (_, rest) = text.split_once(word)?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[test]
fn a_person_sees_the_rate_resizes_and_ends_with_q() {
    let (listener, _) = listen();
    let mut terminal = Terminal::mine(&listener, &[], &[]);
    let taken = serve(listener, |_| {});
    let text = terminal.wait_for(|text| text.contains("MH/s") && number(text, "accepted") > Some(10));
    assert!(terminal.is_taken());
    for part in ["iop-miner", "q end", "Hash rate", "Device", "cpu ", "Key  Source", "1   127.0.0.1:", "Log"]
    {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(number(&text, "accepted").unwrap() <= taken.load(Ordering::SeqCst));
    for size in [(10, 40), (3, 5), (1, 1), (50, 200), (24, 80)] {
        terminal.resize(size);
        terminal.wait_for(|text| {
            let lines: Vec<&str> = text.lines().collect();
            lines.first().is_some_and(|line| "iop-miner".starts_with(line.split(' ').next().unwrap_or("?")))
                && (size.0 < 10 || lines.iter().any(|line| line.starts_with("Log")))
        });
    }
    terminal.press("2");
    terminal.wait_for(|text| text.contains("there is no source 2"));
    terminal.press("1");
    terminal.wait_for(|text| text.contains("asked for source 1"));
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
    // The log continues on the screen that was there before.
    let text = terminal.wait_for(|text| text.contains("mined for"));
    assert!(text.contains("asked to end by a key"), "{text}");
    // In colour, and without the status lines that the view replaced.
    assert!(terminal.written().contains("\x1b[38;5;"), "{:?}", terminal.written());
    assert!(
        !text.lines().any(|line| line.contains("H/s, accepted") && !line.contains("mined for")),
        "{text}"
    );
}

#[test]
fn ctrl_c_and_signals_give_the_terminal_back() {
    for how in ["\x03", "TERM", "INT", "HUP"] {
        let (listener, _) = listen();
        let mut terminal = Terminal::mine(&listener, &[], &[]);
        let _taken = serve(listener, |_| {});
        terminal.wait_for(|text| number(text, "accepted") > Some(0));
        assert!(terminal.is_taken());
        if how == "\x03" {
            terminal.press(how);
        } else {
            terminal.signal(how);
        }
        assert_eq!(terminal.end().code(), Some(0), "{how}");
    }
}

#[test]
fn a_terminal_that_takes_nothing_stops_neither_the_mining_nor_its_end() {
    let (listener, _) = listen();
    let mut terminal = Terminal::mine_unseen(&listener, &[], &[]);
    resize(&terminal.person, (60, 200));
    let taken = serve(listener, |_| {});
    // Until the view's thread, which checks for keys several times a second, is blocked by the terminal.
    let (start, mut before) = (Instant::now(), None);
    loop {
        terminal.press("\x0c");
        thread::sleep(Duration::from_millis(1500));
        let waits = terminal.waits_of_the_view();
        if waits.is_some() && waits == before {
            break;
        }
        before = waits;
        assert!(start.elapsed() < 4 * PATIENCE, "the terminal takes everything");
    }
    let enough = taken.load(Ordering::SeqCst) + 10;
    let start = Instant::now();
    while taken.load(Ordering::SeqCst) < enough {
        assert!(start.elapsed() < PATIENCE, "no shares any more");
        thread::sleep(Duration::from_millis(20));
    }
    terminal.signal("TERM");
    assert_eq!(terminal.end_unseen().code(), Some(0));
    // The terminal was full, as this test requires.
    terminal = terminal.look();
    thread::sleep(Duration::from_millis(200));
    assert!(terminal.is_taken(), "nothing more went in");
}

#[test]
fn a_hostile_pool_cannot_write_on_the_screen() {
    let (listener, _) = listen();
    let mut terminal = Terminal::mine(&listener, &[], &[("NO_COLOR", "1")]);
    let hostile =
        "\x1b[2J\x1b[H\x1b]0;owned\x07\u{9b}31mshalom שלום 矿池 z\u{300}\u{301}algo\u{202e}\r\nowned";
    thread::spawn(move || {
        let mut client = Client::accept(&listener);
        client.handshake(&JOB);
        client.send(&json!({"id": null, "method": "client.show_message", "params": [hostile]}));
        client.set_difficulty(EASY);
        client.send(&JOB.notify(true));
        while let Some(submit) = client.read_submit_if_any() {
            client.refuse(&submit, &json!([20, hostile, null]));
        }
    });
    let text = terminal.wait_for(|text| text.contains("Rejected") && number(text, "rejected") > Some(10));
    for part in ["iop-miner", "Hash rate", "Device", "Key  Source", "Log"] {
        let lines = text.lines().filter(|line| line.starts_with(part)).count();
        assert_eq!(lines, 1, "{part:?} in\n{text}");
    }
    assert!(text.contains("owned") && text.contains("zalgo"), "the words are there: {text}");
    assert!(!text.lines().any(|line| line.starts_with("owned")), "{text}");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
    let written = terminal.written();
    assert!(!written.contains("\x1b]0;") && !written.contains('\u{9b}') && !written.contains('\u{202e}'));
    // There are no colours either, as requested.
    assert!(!written.contains("\x1b[38;5;"), "{written:?}");
}

#[test]
fn whoever_wants_plain_lines_gets_them() {
    for (more, variables) in [(&["--plain"][..], &[][..]), (&[], &[("TERM", "dumb")]), (&["--json"], &[])] {
        let (listener, _) = listen();
        let mut terminal = Terminal::mine(&listener, more, variables);
        let taken = serve(listener, |_| {});
        terminal.wait_for(|text| text.contains("the pool takes our shares"));
        while taken.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(!terminal.is_taken(), "{more:?}");
        // The terminal turns this into a signal, as its modes are untouched.
        terminal.press("\x03");
        assert_eq!(terminal.end().code(), Some(0), "{more:?}");
        assert!(!terminal.written().contains("\x1b[?1049h"), "{more:?}");
    }
}

/// Set for the test that is run again in a terminal, to panic there once this file exists.
const PANIC: &str = "IOP_MINER_TEST_PANIC";

/// A device that panics once a file exists.
struct Panics {
    cue: PathBuf,
}

impl Device for Panics {
    fn name(&self) -> &str {
        "panics"
    }

    fn run(&self, _: &Feed) -> std::io::Result<()> {
        while !self.cue.exists() {
            thread::sleep(Duration::from_millis(20));
        }
        panic!("a device that panics");
    }
}

#[test]
fn a_panic_gives_the_terminal_back_with_its_words() {
    if let Some(cue) = std::env::var_os(PANIC) {
        let (_listener, address) = listen();
        let pool = pool(&[address], None, TIMING);
        let mut rig = Rig::new(vec![Box::new(Panics { cue: cue.into() })], pool.board());
        view::attach(&ViewSettings::default(), &mut rig).unwrap();
        let _ = rig.run(pool, std::future::pending());
        unreachable!("a panic of a device is one of the rig");
    }
    let folder = tempfile::tempdir().unwrap();
    let cue = folder.path().join("panic");
    let program = std::env::current_exe().unwrap();
    let test = "terminal::a_panic_gives_the_terminal_back_with_its_words";
    let arguments = ["--exact", test, "--nocapture"];
    let variables = [(PANIC, cue.to_str().unwrap())];
    let mut terminal = Terminal::start(program.to_str().unwrap(), &arguments, &variables).look();
    terminal.wait_for(|text| text.contains("Key  Source"));
    assert!(terminal.is_taken());
    File::create(&cue).unwrap();
    assert_eq!(terminal.end().code(), Some(101));
    terminal.wait_for(|_| terminal.written().contains("a device that panics"));
    let written = terminal.written();
    let (on_the_screen, after) = written.split_once("\x1b[?1049l\x1b[?25h").unwrap();
    assert!(!on_the_screen.contains("a device that panics") && after.contains("a device that panics"));
    assert!(!after.contains("\x1b["), "nothing is drawn any more: {after:?}");
}
