//! Envelopes, right and wrong, and their parts.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn answers_written_by_hand_are_what_the_encoder_writes(id: u64, text in "\\PC{0,40}|[\\x00-\\x7f]{0,20}") {
        let id = Id::number(id);
        prop_assert_eq!(granted(&id), success(&id, true));
        let reject = Reject::other(text);
        let encoded = line(&AnswerOut { id: id_value(&id), result: (), error: &reject });
        prop_assert_eq!(failure(&id, &reject), encoded);
    }
}

fn id_of(line: &str) -> Result<Id, MessageError> {
    match Message::parse(line.as_bytes())? {
        Message::Call { id, .. } | Message::Answer { id, .. } => Ok(id),
    }
}

#[test]
fn any_scalar_id_goes_back_as_it_came() {
    for id in ["1", "-7", "1.50", "1e3", "99999999999999999999999", r#""a\"\u0041""#, "null", "true", r#""""#]
    {
        let found = id_of(&format!(r#"{{"id":{id},"method":"m","params":[]}}"#)).unwrap();
        let answer = String::from_utf8(success(&found, true)).unwrap();
        assert_eq!(answer, format!("{{\"id\":{id},\"result\":true,\"error\":null}}\n"));
    }
    assert!(id_of(r#"{"method":"m"}"#).unwrap().is_null());
    assert_eq!(id_of(r#"{"id":[1],"method":"m"}"#), Err(MessageError::Id));
    assert_eq!(id_of(r#"{"id":{},"method":"m"}"#), Err(MessageError::Id));
    assert_eq!(id_of(&format!(r#"{{"id":"{}"}}"#, "x".repeat(MAX_ID))), Err(MessageError::Id));
}

#[test]
fn malformed_lines_are_typed_errors() {
    for wrong in ["", "[]", "1", "{", r#"{"id":1,"id":2}"#, "GET / HTTP/1.1", "\u{0}", r#"{"id":1}x"#] {
        assert!(matches!(Message::parse(wrong.as_bytes()), Err(MessageError::Json(_))), "{wrong}");
    }
    assert!(matches!(Message::parse(b"{\"method\":\"\xff\"}"), Err(MessageError::Json(_))));
    assert!(matches!(Message::parse(br#"{"method":1}"#), Err(MessageError::Method)));
    assert!(matches!(Message::parse(br#"{"method":"m","params":{}}"#), Err(MessageError::Params)));
    let deep = format!(r#"{{"method":"m","params":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert!(matches!(Message::parse(deep.as_bytes()), Err(MessageError::TooDeep)));
    let brackets_in_text = format!(r#"{{"method":"\"{}","params":[]}}"#, "[".repeat(50));
    assert!(Message::parse(brackets_in_text.as_bytes()).is_ok());
}

#[test]
fn parameters_that_are_no_array_are_the_one_parameter_where_that_is_borne() {
    for (params, count) in [(r#""hi""#, 1), (r#"{"a":1}"#, 1), ("7", 1), ("null", 0), ("[]", 0), ("[1,2]", 2)]
    {
        let line = format!(r#"{{"method":"m","params":{params}}}"#);
        let Ok(Message::Call { params, .. }) = Message::parse_leniently(line.as_bytes()) else {
            panic!("{line}")
        };
        assert_eq!(params.len(), count, "{line}");
    }
    assert!(matches!(Message::parse_leniently(br#"{"method":1}"#), Err(MessageError::Method)));
}

#[test]
fn parameters_are_read_by_kind() {
    let line = br#"{"method":"m","params":["a\nb","1.5",2,null,true,[1],0,4294967295]}"#;
    let Ok(Message::Call { params, .. }) = Message::parse(line) else { panic!("a call") };
    assert_eq!(params.text(0, "f").unwrap(), "a\nb");
    assert_eq!(params.number(1, "f"), Ok(1.5));
    assert_eq!(params.whole(2, "f", 5), Ok(2));
    assert!(params.whole(1, "f", 5).is_err() && params.whole(2, "f", 1).is_err());
    assert_eq!(params.whole(7, "f", u32::MAX), Ok(u32::MAX));
    assert_eq!(params.text(3, "f"), Err(FieldError::Missing { field: "f" }));
    assert_eq!((params.flag(4, "f"), params.flag(6, "f")), (Ok(true), Ok(false)));
    assert_eq!(params.array(5, "f").unwrap().len(), 1);
    assert_eq!(params.number(5, "f"), Err(FieldError::Kind { field: "f", expected: "a number" }));
    assert!(params.bounded_text(0, "f", 2).is_err());
    assert_eq!(params.text(8, "f"), Err(FieldError::Missing { field: "f" }));
}

#[test]
fn text_from_the_network_is_made_harmless() {
    assert_eq!(&*printable("a\u{1b}[31m\r\nb\u{202e}c", 64), "a[31mbc");
    assert_eq!(&*printable("ab\u{e9}d", 3), "ab", "no character is cut in two");
}

#[test]
fn calls_have_the_shape_that_every_client_knows() {
    assert_eq!(request(4, "m", (1, "x")), b"{\"id\":4,\"method\":\"m\",\"params\":[1,\"x\"]}\n");
    assert_eq!(notification("m", [0.5]), b"{\"id\":null,\"method\":\"m\",\"params\":[0.5]}\n");
    let refused = failure(&Id::number(3), &Reject::Duplicate);
    assert_eq!(refused, b"{\"id\":3,\"result\":null,\"error\":[22,\"Duplicate share\",null]}\n");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::parse(&line);
    }

    #[test]
    fn hostile_json_never_panics(line in r#"[{}\[\]",:0-9a-z\\ ]{0,80}"#) {
        let _ = Message::parse(line.as_bytes());
    }
}
