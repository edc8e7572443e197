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
    /// Whether the pool no longer knew the job, which is no fault of the miner.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.code == Some(21)
    }

    /// Reads `[code, "text", …]` as in Stratum, `{"code", "message"}` as in JSON-RPC 2, or plain text.
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

/// Whether a request was granted: `result` is `true` and there is no error.
pub(super) fn granted(result: Option<&RawValue>, error: Option<&RawValue>) -> Result<(), Refusal> {
    match (result.map(RawValue::get), error) {
        (Some("true"), None) => Ok(()),
        _ => Err(Refusal::read(error)),
    }
}

/// The result of an answer that must have one.
pub(super) fn answered<'a>(
    result: Option<&'a RawValue>,
    error: Option<&RawValue>,
) -> Result<&'a RawValue, Refusal> {
    match (result, error) {
        (Some(result), None) => Ok(result),
        _ => Err(Refusal::read(error)),
    }
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

    #[test]
    fn only_true_without_an_error_is_granted() {
        assert!(granted(Some(&raw("true")), None).is_ok());
        for (result, error) in [("false", None), ("true", Some(raw("[20,\"x\",null]"))), ("1", None)] {
            assert!(granted(Some(&raw(result)), error.as_deref()).is_err());
        }
        assert!(granted(None, None).is_err());
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
