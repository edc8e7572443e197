//! A pool's answers, in the many shapes that pools use.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;

use crate::fields::VersionMask;
use crate::message::{Params, number, printable, text};

/// Longest reason kept, in bytes.
const MAX_REASON: usize = 200;

/// A pool's verdict on a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The share counts.
    Accepted,
    /// The share does not count.
    Refused(Refusal),
}

/// Why a pool refused a request, as far as it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stratum's code, usually 20 to 25.
    pub code: Option<i32>,
    /// The pool's message, printable.
    pub text: Box<str>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} ({code})", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl Refusal {
    /// Whether the job was no longer known: no fault of the one who computed. By its code, or by the usual words where
    /// there is none.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        let words = self.text.trim().to_ascii_lowercase();
        match self.code {
            Some(code) => code == 21,
            None => words.starts_with("stale") || words.starts_with("job not found"),
        }
    }

    /// `[code, "text", …]` as Stratum has it; `{"code", "message"}` as JSON-RPC 2 has it; or plain text, which is all that
    /// ckpool has.
    fn read(error: Option<&RawValue>) -> Self {
        let unnamed = || Self { code: None, text: "no reason given".into() };
        let whole = |raw| number(raw).filter(|number| number.fract() == 0.0).map(|number| number as i32);
        let words = |raw| text(raw).map(|text| printable(&text, MAX_REASON));
        let Some(error) = error else { return unnamed() };
        if let Some(text) = words(error) {
            return Self { code: None, text };
        }
        let (code, text) = if let Some(parts) = Params::from_array(error) {
            (parts.get(0), parts.get(1))
        } else if let Ok(parts) = serde_json::from_str::<BTreeMap<String, &RawValue>>(error.get()) {
            (parts.get("code").copied(), parts.get("message").copied())
        } else {
            (None, None)
        };
        Self { code: code.and_then(whole), text: text.and_then(words).unwrap_or_else(|| unnamed().text) }
    }
}

/// What a pool says to a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    reason: Option<&'a RawValue>,
}

impl<'a> Answer<'a> {
    /// From the fields `result`, `error` and `reject-reason`. An error that says nothing is none.
    pub(super) fn new(
        result: Option<&'a RawValue>,
        error: Option<&'a RawValue>,
        reason: Option<&'a RawValue>,
    ) -> Self {
        Self { result, error: error.filter(|error| !is_empty(error)), reason }
    }

    pub(super) fn result(&self) -> Option<&'a RawValue> {
        self.result
    }

    /// Whether a share counts: whoever says `true` has taken it, whatever the error is.
    pub(super) fn accepts(&self) -> Result<(), Refusal> {
        if self.is("true") { Ok(()) } else { Err(self.refusal()) }
    }

    /// Whether a user may work: unless there is an error, or a plain no. Some pools give no result.
    pub(super) fn admits(&self) -> Result<(), Refusal> {
        if self.error.is_some() || self.is("false") { Err(self.refusal()) } else { Ok(()) }
    }

    /// The result of what must have one.
    pub(super) fn gives(&self) -> Result<&'a RawValue, Refusal> {
        self.result.filter(|_| self.error.is_none()).ok_or_else(|| self.refusal())
    }

    fn is(&self, json: &str) -> bool {
        self.result.is_some_and(|result| result.get() == json)
    }

    fn refusal(&self) -> Refusal {
        Refusal::read(self.error.or(self.reason))
    }
}

/// `[]`, `false` and `""` are no errors.
fn is_empty(error: &RawValue) -> bool {
    matches!(error.get(), "false" | "\"\"") || Params::from_array(error).is_some_and(|parts| parts.is_empty())
}

/// The mask in a `mining.configure` answer. A pool that does not know the extension, or refuses it, allows no bit.
pub(super) fn configured_mask(result: Option<&RawValue>) -> VersionMask {
    let options = result.and_then(|raw| serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get()).ok());
    let mask = |options: BTreeMap<String, &RawValue>| {
        if options.get("version-rolling")?.get() != "true" {
            return None;
        }
        VersionMask::parse(&text(options.get("version-rolling.mask")?)?).ok()
    };
    options.and_then(mask).unwrap_or(VersionMask::NONE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn refusals_are_read_in_every_shape() {
        for (json, code, text) in [
            (r#"[23,"Low difficulty share",null]"#, Some(23), "Low difficulty share"),
            (r#"["21","stale"]"#, Some(21), "stale"),
            (r#"{"code":-32000,"message":"busy"}"#, Some(-32000), "busy"),
            (r#""duplicate \u001b[2J""#, None, "duplicate [2J"),
            ("[]", None, "no reason given"),
            ("7", None, "no reason given"),
        ] {
            let refusal = Refusal::read(Some(&raw(json)));
            assert_eq!((refusal.code, &*refusal.text), (code, text), "{json}");
        }
        assert!(Refusal::read(Some(&raw(r#"[21,"x",null]"#))).is_stale());
        assert_eq!(&*Refusal::read(None).text, "no reason given");
    }

    /// What becomes of `result` and `error`, as JSON: whether a share counts, a user may work, and a result is taken.
    fn said(result: &str, error: &str) -> [bool; 3] {
        let [result, error] = [result, error].map(|json| Some(raw(json)).filter(|raw| raw.get() != "null"));
        let answer = Answer::new(result.as_deref(), error.as_deref(), None);
        [answer.accepts().is_ok(), answer.admits().is_ok(), answer.gives().is_ok()]
    }

    #[test]
    fn a_share_that_is_said_to_count_counts_whatever_the_error() {
        for error in ["null", "[]", "[ ]", "false", "\"\""] {
            assert_eq!(said("true", error), [true; 3], "{error}");
            assert_eq!(said("false", error), [false, false, true], "{error}");
            assert_eq!(said("null", error), [false, true, false], "a user is refused in words only: {error}");
        }
        for error in ["[20,\"x\",null]", "\"x\"", "{\"code\":1}", "7", "true"] {
            assert_eq!(said("true", error), [true, false, false], "{error}");
            assert_eq!(said("null", error), [false; 3], "{error}");
        }
        assert_eq!(said("1", "null"), [false, true, true]);
    }

    #[test]
    fn a_reason_beside_the_error_is_the_reason_where_there_is_no_error() {
        let reason = raw("\"Stale\"");
        let (no, error) = (raw("false"), raw("[20,\"x\",null]"));
        let refusal = |error| Answer::new(Some(&no), error, Some(&reason)).accepts().unwrap_err();
        assert_eq!((&*refusal(None).text, refusal(None).is_stale()), ("Stale", true));
        assert_eq!(&*refusal(Some(&error)).text, "x");
    }

    #[test]
    fn a_stale_job_is_known_by_its_code_or_by_words_without_one() {
        for (json, is_stale) in [
            (r#""Stale""#, true),
            (r#""STALE share""#, true),
            (r#"" job not found""#, true),
            (r#""Job not found (=stale)""#, true),
            (r#"[null,"Stale",null]"#, true),
            (r#"[21,"anything",null]"#, true),
            (r#"[20,"stale",null]"#, false),
            (r#""not stale""#, false),
            (r#""Duplicate""#, false),
        ] {
            assert_eq!(Refusal::read(Some(&raw(json))).is_stale(), is_stale, "{json}");
        }
    }

    #[test]
    fn a_mask_counts_only_when_version_rolling_was_granted() {
        let mask = |json| configured_mask(Some(&raw(json)));
        let granted = r#"{"version-rolling":true,"version-rolling.mask":"1fffe000"}"#;
        assert_eq!(mask(granted), VersionMask::SERVER);
        for refused in [
            r#"{"version-rolling":false,"version-rolling.mask":"1fffe000"}"#,
            r#"{"version-rolling":"no","version-rolling.mask":"1fffe000"}"#,
            r#"{"version-rolling":true}"#,
            r#"{"version-rolling":true,"version-rolling.mask":"xyz"}"#,
            "true",
            "[]",
        ] {
            assert_eq!(mask(refused), VersionMask::NONE, "{refused}");
        }
        assert_eq!(configured_mask(None), VersionMask::NONE);
    }
}
