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
        /// What ckpool says in place of an error; `None` when null or missing.
        reject_reason: Option<&'a RawValue>,
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
    #[serde(borrow, default, rename = "reject-reason")]
    reject_reason: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Parses a line.
    ///
    /// # Errors
    /// The line is not an envelope within the limits of this module.
    pub fn parse(line: &'a [u8]) -> Result<Self, MessageError> {
        Self::parse_with(line, Params::from_raw)
    }

    /// Reads a line whose parameters may be anything: what is no array counts as the one parameter.
    ///
    /// # Errors
    /// Those of [`Self::parse`] but for [`MessageError::Params`].
    pub fn parse_leniently(line: &'a [u8]) -> Result<Self, MessageError> {
        Self::parse_with(line, |raw| Ok(Params::from_any(raw)))
    }

    fn parse_with(
        line: &'a [u8],
        params: impl FnOnce(Option<&'a RawValue>) -> Result<Params<'a>, MessageError>,
    ) -> Result<Self, MessageError> {
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
            let Envelope { result, error, reject_reason, .. } = envelope;
            return Ok(Self::Answer { id, result, error, reject_reason });
        };
        let method = text(method).ok_or(MessageError::Method)?;
        Ok(Self::Call { id, method, params: params(envelope.params)? })
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

/// Whether this JSON is a number.
pub(crate) fn is_number(json: &str) -> bool {
    json.starts_with(|char: char| char == '-' || char.is_ascii_digit())
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

    fn from_any(raw: Option<&'a RawValue>) -> Self {
        raw.map_or(Self::default(), |raw| Self::from_array(raw).unwrap_or_else(|| Self(vec![raw])))
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

    /// A string of at most `max` bytes, or a number as it is written.
    ///
    /// # Errors
    /// Missing, neither of them, or too long.
    pub(crate) fn written(
        &self,
        index: usize,
        field: &'static str,
        max: usize,
    ) -> Result<Cow<'a, str>, FieldError> {
        match self.at(index, field)?.get() {
            number if is_number(number) && number.len() <= max => Ok(Cow::Borrowed(number)),
            _ => self.bounded_text(index, field, max),
        }
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
mod tests;
