//! Envelopes: one JSON object per line, which is a request, response or notification.
//!
//! An envelope borrows from its line. Ids and parameters stay JSON text until they are needed, so that an id is echoed
//! exactly as it came and an unused field costs nothing.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fields::{FieldError, Span};
use crate::verdict::Reject;

/// Deepest nesting of arrays and objects in a line. Stratum needs four levels (an extension's parameters).
const MAX_DEPTH: usize = 16;
/// Longest id, in bytes of JSON text. It is echoed, so it must not let a client make us send a lot.
const MAX_ID: usize = 256;

/// Why a line is not an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not JSON, not an object, or a duplicate field.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// Nested deeper than any Stratum message.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An id that is an array, an object or too long.
    #[error("id must be a number, a string or null of at most {MAX_ID} bytes")]
    Id,
    /// A method that is not a string.
    #[error("method must be a string")]
    Method,
    /// Parameters that are not an array.
    #[error("params must be an array")]
    Params,
}

/// A request's id: the JSON text of a scalar, echoed unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Id(Box<str>);

impl Id {
    /// The null id, used by notifications and by answers to lines that could not be read.
    #[must_use]
    pub fn null() -> Self {
        Self("null".into())
    }

    /// A numeric id, as our client uses them.
    #[must_use]
    pub fn number(id: u64) -> Self {
        Self(id.to_string().into())
    }

    /// Whether the id is `null` or was missing.
    #[must_use]
    pub fn is_null(&self) -> bool {
        &*self.0 == "null"
    }

    /// The id as a number, even if a peer turned it into a string.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.0.trim_matches('"').parse().ok()
    }

    /// From the digits of a JSON number.
    pub(crate) fn of_digits(digits: &str) -> Self {
        Self(digits.into())
    }

    fn from_raw(raw: Option<&RawValue>) -> Result<Self, MessageError> {
        match raw.map(RawValue::get) {
            None => Ok(Self::null()),
            Some(text) if text.starts_with(['{', '[']) || text.len() > MAX_ID => Err(MessageError::Id),
            Some(text) => Ok(Self(text.into())),
        }
    }
}

/// A parsed line.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// A request, or a notification when the id is null.
    Call {
        /// The id to answer with.
        id: Id,
        /// The method's name.
        method: Cow<'a, str>,
        /// Its parameters.
        params: Params<'a>,
    },
    /// An answer to a request.
    Answer {
        /// The id of the request.
        id: Id,
        /// The result; `None` when null or missing.
        result: Option<&'a RawValue>,
        /// The error; `None` when null or missing.
        error: Option<&'a RawValue>,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Parses a line.
    ///
    /// # Errors
    /// The line is not an envelope within the limits of this module.
    pub fn parse(line: &'a [u8]) -> Result<Self, MessageError> {
        if nested_too_deep(line) {
            return Err(MessageError::TooDeep);
        }
        if !begins_an_object(line) {
            return Err(MessageError::Json("no object begins here".to_owned()));
        }
        let envelope: Envelope<'a> =
            serde_json::from_slice(line).map_err(|error| MessageError::Json(error.to_string()))?;
        let id = Id::from_raw(envelope.id)?;
        let Some(method) = envelope.method else {
            return Ok(Self::Answer { id, result: envelope.result, error: envelope.error });
        };
        let method = text(method).ok_or(MessageError::Method)?;
        Ok(Self::Call { id, method, params: Params::from_raw(envelope.params)? })
    }
}

/// Whether the line is an object. `serde_json` would also read an envelope from an array of its fields.
fn begins_an_object(line: &[u8]) -> bool {
    line.trim_ascii_start().first() == Some(&b'{')
}

/// The id of a line that is an object; null if it has none that can be echoed.
pub(crate) fn id_in(line: &[u8]) -> Id {
    if nested_too_deep(line) || !begins_an_object(line) {
        return Id::null();
    }
    let envelope = serde_json::from_slice::<Envelope<'_>>(line).ok();
    envelope.and_then(|envelope| Id::from_raw(envelope.id).ok()).unwrap_or_else(Id::null)
}

/// Counts unclosed brackets outside strings. Malformed JSON may fool it, but the parser then rejects the line.
fn nested_too_deep(line: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// The text of a JSON string, borrowed if it contains no escapes.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    match json.strip_prefix('"')?.strip_suffix('"') {
        Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
        _ => serde_json::from_str(json).ok().map(Cow::Owned),
    }
}

/// A JSON number, or a string that holds one. Exact to the last bit, unlike serde_json's own parsing: both ends must
/// derive the same target from a difficulty.
pub(crate) fn number(raw: &RawValue) -> Option<f64> {
    match text(raw) {
        Some(text) => text.trim().parse().ok(),
        None => raw.get().parse().ok(),
    }
}

/// Whether a character may appear in a log, in a terminal or on a page. Control characters, characters that change the
/// text direction and invisible characters may not.
#[must_use]
pub fn is_printing(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Text from the network in a form that may be shown: at most `max` bytes of [printing](is_printing) characters.
pub(crate) fn printable(text: &str, max: usize) -> Box<str> {
    let mut kept = String::new();
    for char in text.chars() {
        if !is_printing(char) {
            continue;
        }
        if kept.len() + char.len_utf8() > max {
            break;
        }
        kept.push(char);
    }
    kept.into()
}

/// The parameters of a call, by position.
#[derive(Debug, Clone, Default)]
pub struct Params<'a>(Vec<&'a RawValue>);

impl<'a> Params<'a> {
    fn from_raw(raw: Option<&'a RawValue>) -> Result<Self, MessageError> {
        raw.map_or(Ok(Self::default()), |raw| Self::from_array(raw).ok_or(MessageError::Params))
    }

    /// The elements of a JSON array; `None` for anything else.
    pub(crate) fn from_array(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok().map(Self)
    }

    /// The number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The JSON text at an index; `None` if missing or null.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a RawValue> {
        self.0.get(index).copied().filter(|raw| raw.get() != "null")
    }

    /// All parameters in order, including nulls.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a RawValue> {
        self.0.iter().copied()
    }

    fn at(&self, index: usize, field: &'static str) -> Result<&'a RawValue, FieldError> {
        self.get(index).ok_or(FieldError::Missing { field })
    }

    /// A string.
    ///
    /// # Errors
    /// Missing, or not a string.
    pub fn text(&self, index: usize, field: &'static str) -> Result<Cow<'a, str>, FieldError> {
        text(self.at(index, field)?).ok_or(FieldError::Kind { field, expected: "a string" })
    }

    /// A string of at most `max` bytes.
    ///
    /// # Errors
    /// Missing, not a string, or too long.
    pub fn bounded_text(
        &self,
        index: usize,
        field: &'static str,
        max: usize,
    ) -> Result<Cow<'a, str>, FieldError> {
        self.text_of(index, field, Span { min: 0, max })
    }

    /// A string whose length in bytes is within `expected`.
    ///
    /// # Errors
    /// Missing, not a string, too short or too long.
    pub(crate) fn text_of(
        &self,
        index: usize,
        field: &'static str,
        expected: Span,
    ) -> Result<Cow<'a, str>, FieldError> {
        let text = self.text(index, field)?;
        if !(expected.min..=expected.max).contains(&text.len()) {
            return Err(FieldError::Length { field, found: text.len(), unit: "bytes", expected });
        }
        Ok(text)
    }

    /// A number, or a string that holds one.
    ///
    /// # Errors
    /// Missing, or not a number.
    pub fn number(&self, index: usize, field: &'static str) -> Result<f64, FieldError> {
        number(self.at(index, field)?).ok_or(FieldError::Kind { field, expected: "a number" })
    }

    /// A whole number up to `max`, or a string that holds one.
    ///
    /// # Errors
    /// Missing, not a whole number, or out of range.
    pub fn whole(&self, index: usize, field: &'static str, max: u32) -> Result<u32, FieldError> {
        let number = self.number(index, field)?;
        if number.fract() != 0.0 || number < 0.0 || number > f64::from(max) {
            return Err(FieldError::Kind { field, expected: "a whole number in range" });
        }
        Ok(number as u32)
    }

    /// A boolean, or the number 0 or 1.
    ///
    /// # Errors
    /// Missing, or neither.
    pub fn flag(&self, index: usize, field: &'static str) -> Result<bool, FieldError> {
        match self.at(index, field)?.get() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(FieldError::Kind { field, expected: "true or false" }),
        }
    }

    /// An array.
    ///
    /// # Errors
    /// Missing, or not an array.
    pub fn array(&self, index: usize, field: &'static str) -> Result<Params<'a>, FieldError> {
        Self::from_array(self.at(index, field)?).ok_or(FieldError::Kind { field, expected: "an array" })
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("string keys and no I/O: encoding cannot fail");
    bytes.push(b'\n');
    bytes
}

fn id_value(id: &Id) -> &RawValue {
    serde_json::from_str(&id.0).expect("an id is JSON text")
}

#[derive(Serialize)]
struct CallOut<'a, P> {
    id: Option<u64>,
    method: &'a str,
    params: P,
}

#[derive(Serialize)]
struct AnswerOut<'a, R, E> {
    id: &'a RawValue,
    result: R,
    error: E,
}

/// Encodes a request as a line, including the line end.
#[must_use]
pub fn request(id: u64, method: &str, params: impl Serialize) -> Vec<u8> {
    line(&CallOut { id: Some(id), method, params })
}

/// Encodes a notification (`"id":null`) as a line, including the line end.
#[must_use]
pub fn notification(method: &str, params: impl Serialize) -> Vec<u8> {
    line(&CallOut { id: None, method, params })
}

/// Encodes a successful answer as a line, including the line end.
#[must_use]
pub fn success(id: &Id, result: impl Serialize) -> Vec<u8> {
    line(&AnswerOut { id: id_value(id), result, error: () })
}

/// Encodes `"result":true` as [`success`] does, but faster: this is the one answer that is sent thousands of times a
/// second.
#[must_use]
pub fn granted(id: &Id) -> Vec<u8> {
    [b"{\"id\":", id.0.as_bytes(), b",\"result\":true,\"error\":null}\n"].concat()
}

/// Encodes a refusal as a line, including the line end.
#[must_use]
pub fn failure(id: &Id, reject: &Reject) -> Vec<u8> {
    let text = reject.text();
    if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\') {
        return line(&AnswerOut { id: id_value(id), result: (), error: reject });
    }
    let id = &id.0;
    format!("{{\"id\":{id},\"result\":null,\"error\":[{},\"{text}\",null]}}\n", reject.code()).into_bytes()
}

#[cfg(test)]
mod tests {
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
        for id in
            ["1", "-7", "1.50", "1e3", "99999999999999999999999", r#""a\"\u0041""#, "null", "true", r#""""#]
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
}
