//! Entry points for fuzzers. Each checks a property: framing does not depend on how the stream is cut, the fast reader
//! of a submit agrees with the general one, and both ends of a connection send at most one answer per line.
//!
//! Not here: the fuzzers and their seed inputs (`fuzz/`). All functions panic if a property does not hold.

use crate::client;
use crate::difficulty::Difficulty;
use crate::fields::{Extranonce1, VersionMask};
use crate::line::LineDecoder;
use crate::message::Message;
use crate::server::{Event, Session};

/// Longest line of the decoders here, in bytes: short, so that fuzzers reach the limit.
const MAX_LINE: usize = 64;

/// Decodes a stream in one piece and in pieces whose size the first byte gives: the lines must be the same.
pub fn line(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else { return };
    let step = usize::from(first) + 1;
    let whole = lines(&mut LineDecoder::new(MAX_LINE), stream);
    let mut decoder = LineDecoder::new(MAX_LINE);
    let mut found = Some(Vec::new());
    for piece in stream.chunks(step) {
        let more = lines(&mut decoder, piece);
        found = found.zip(more).map(|(found, more)| [found, more].concat());
        if found.is_none() {
            break;
        }
    }
    assert_eq!(found, whole, "pieces of {step} bytes");
    for line in whole.into_iter().flatten() {
        assert!(line.len() <= MAX_LINE && !line.contains(&b'\n'));
        let _ = Message::parse(&line);
    }
}

/// All whole lines, or `None` if one is too long.
fn lines(decoder: &mut LineDecoder, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    decoder.extend(bytes);
    let mut found = Vec::new();
    while let Some(line) = decoder.next_line().ok()? {
        found.push(line.to_vec());
    }
    Some(found)
}

/// Feeds one line to the fast and to the general reader: event and answer must be the same in every session state.
pub fn submit(line: &[u8]) {
    for set_up in [&[][..], &[SUBSCRIBE], &[SUBSCRIBE, AUTHORIZE], &[CONFIGURE, SUBSCRIBE, AUTHORIZE]] {
        let (mut one, mut other) = (session(set_up), session(set_up));
        assert_eq!(one.handle_line(line), other.handle_any_line(line), "{}", line.escape_ascii());
        assert_eq!(sent(&mut one), sent(&mut other), "{}", line.escape_ascii());
    }
}

const SUBSCRIBE: &[u8] = br#"{"id":1,"method":"mining.subscribe","params":[]}"#;
const AUTHORIZE: &[u8] = br#"{"id":2,"method":"mining.authorize","params":["alice"]}"#;
const CONFIGURE: &[u8] = br#"{"id":3,"method":"mining.configure","params":[["version-rolling"]]}"#;

fn session(set_up: &[&[u8]]) -> Session {
    let mut session = Session::new(Extranonce1::from_u32(1), VersionMask::SERVER, "fuzz");
    for line in set_up {
        if let Ok(Some(Event::Authorize(request))) = session.handle_line(line) {
            let _ = session.accept(&request);
        }
    }
    sent(&mut session);
    session
}

fn sent(session: &mut Session) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| session.next_outgoing()).map(|line| line.as_ref().to_vec()).collect()
}

/// Feeds lines to a pool whose owner accepts everything, then to a miner: they must send whole lines, and few.
pub fn both_ends(data: &[u8]) {
    let mut pool = session(&[]);
    for line in data.split(|&byte| byte == b'\n') {
        let Ok(event) = pool.handle_line(line) else { break };
        match event {
            Some(Event::Authorize(request)) => drop(pool.accept(&request)),
            Some(Event::Submit(submit)) => {
                assert!(submit.version_bits.is_none_or(|bits| pool.version_mask().allows(bits)));
                pool.answer_submit(&submit.id, Ok(()));
            }
            _ => {}
        }
        let lines = sent(&mut pool);
        assert!(lines.len() <= 2, "an answer, and a mask after it");
        lines.iter().for_each(|line| check_line(line));
        assert_eq!(pool.queued_bytes(), 0);
    }
    let mut miner = client::Session::new(client::Options {
        user: "alice".into(),
        password: "x".into(),
        user_agent: "fuzz".into(),
        version_mask: VersionMask::ALL,
        suggest_difficulty: Difficulty::new(1.0),
    });
    for line in data.split(|&byte| byte == b'\n') {
        if miner.handle_line(line).is_err() {
            break;
        }
        std::iter::from_fn(|| miner.next_outgoing()).for_each(|line| check_line(&line));
    }
}

fn check_line(line: &[u8]) {
    let object = line.strip_suffix(b"\n").expect("a line ends with its end");
    assert!(!object.contains(&b'\n'), "one line only");
    assert!(Message::parse(object).is_ok(), "what we send can be read: {}", line.escape_ascii());
}
