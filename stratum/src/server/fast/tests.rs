//! The fast reader against the general one: every line that the first reads, the second reads the same way.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::fields::{Extranonce1, VersionMask};
use crate::server::{Event, Session};

const LINES: [&str; 6] = [
    r#"{"id":4,"method":"mining.submit","params":["alice","1","0000000000000000","5f5e1000","a1b2c3d4"]}"#,
    r#"{"params": ["alice", "1", "00000000000000FF", "5f5e1000", "c0ffee", "00402000"], "id": 0, "method": "mining.submit"}"#,
    r#" { "method" : "mining.submit" , "id" : 999999 , "params" : [ "bob.1" , "2f" , "0123456789abcdef" , "5f5e1000" , "0" ] } "#,
    r#"{"id":12,"method":"mining.submit","params":["nobody","1","0000000000000000","5f5e1000","a1b2c3d4","20402000"]}"#,
    r#"{"id":7,"method":"mining.submit","params":["alice","","00","5f5e100","","zz"]}"#,
    r#"{"id":8,"method":"mining.submit","params":["alice","1","0000000000000000","5f5e1000","a1b2c3d4",""]}"#,
];

/// A session with two users, subscribed and with version rolling if requested.
fn session(subscribed: bool, rolling: bool) -> Session {
    let mut session = Session::new(Extranonce1::from_u32(1), VersionMask::SERVER, "iop-pool/test");
    let lines = [
        (rolling, r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{}]}"#),
        (subscribed, r#"{"id":2,"method":"mining.subscribe"}"#),
        (true, r#"{"id":3,"method":"mining.authorize","params":["alice"]}"#),
        (true, r#"{"id":3,"method":"mining.authorize","params":["bob.1"]}"#),
    ];
    for (_, line) in lines.iter().filter(|(said, _)| *said) {
        if let Some(Event::Authorize(request)) = session.handle_any_line(line.as_bytes()).unwrap() {
            session.accept(&request).unwrap();
        }
    }
    while session.next_outgoing().is_some() {}
    session
}

fn both_ways_agree(line: &[u8], subscribed: bool, rolling: bool) {
    let (mut fast, mut general) = (session(subscribed, rolling), session(subscribed, rolling));
    let events = (fast.handle_line(line), general.handle_any_line(line));
    let shown = String::from_utf8_lossy(line);
    assert_eq!(events.0, events.1, "{shown}");
    let sent = |session: &mut Session| std::iter::from_fn(|| session.next_outgoing()).collect::<Vec<_>>();
    assert_eq!(sent(&mut fast), sent(&mut general), "{shown}");
}

#[test]
fn the_usual_shapes_are_read_here() {
    for line in LINES {
        assert!(read(line.as_bytes()).is_some(), "{line}");
    }
    let line = read(LINES[1].as_bytes()).unwrap();
    assert_eq!((line.id, line.param(0), line.has_version_bits()), ("0", "alice", true));
    assert_eq!(line.param(5), "00402000");
}

#[test]
fn what_is_not_plain_goes_the_general_way() {
    for line in [
        r#"{"id":"4","method":"mining.submit","params":["a","1","00","00","00"]}"#,
        r#"{"id":04,"method":"mining.submit","params":["a","1","00","00","00"]}"#,
        r#"{"id":4.5,"method":"mining.submit","params":["a","1","00","00","00"]}"#,
        r#"{"id":4,"id":4,"method":"mining.submit","params":["a","1","00","00","00"]}"#,
        r#"{"id":4,"method":"mining.submit","params":["a\u0041","1","00","00","00"]}"#,
        r#"{"id":4,"method":"mining.submit","params":["a","1","00","00"]}"#,
        r#"{"id":4,"method":"mining.submit","params":["a","1","00","00","00","00","00"]}"#,
        r#"{"id":4,"method":"mining.submit","params":["a","1","00","00","00",null]}"#,
        r#"{"id":4,"method":"mining.submit","params":["a","1","00","00","00",]}"#,
        r#"{"id":4,"method":"mining.subscribe","params":["a","1","00","00","00"]}"#,
        r#"{"id":4,"method":"mining.submit","params":["a","1","00","00","00"]}x"#,
        r#"{"method":"mining.submit","params":["a","1","00","00","00"]}"#,
        r#"{"id":4,"method":"mining.submit","params":["a","1","00","00","00"],"x":1}"#,
        r#"{"id":4"#,
        "",
    ] {
        assert_eq!(read(line.as_bytes()), None, "{line}");
        both_ways_agree(line.as_bytes(), true, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn both_ways_agree_on_mutated_lines(
        line in 0..LINES.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..4u8, prop_oneof![
            any::<u8>(), Just(b'"'), Just(b','), Just(b'0'), Just(b' '), Just(b'\\'), Just(b'}'), Just(b']'), Just(b'-'),
        ]), 0..4),
        subscribed in proptest::bool::weighted(0.9),
        rolling: bool,
    ) {
        let mut bytes = LINES[line].as_bytes().to_vec();
        for (at, kind, byte) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        both_ways_agree(&bytes, subscribed, rolling);
    }
}
