//! A server's verdict on a share.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeTuple, Serializer};

/// Why a share or a request was refused: Stratum's codes 20 to 25.
///
/// On the wire: `[code, "text", null]`. The third element is for a traceback, which no server sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// 20: everything without a code of its own; the text says what.
    #[error("{0}")]
    Other(Cow<'static, str>),
    /// 21: the job is unknown, or its tip is no longer the tip.
    #[error("Job not found (=stale)")]
    JobNotFound,
    /// 22: the same share was submitted before.
    #[error("Duplicate share")]
    Duplicate,
    /// 23: the header's hash is above the target of the job.
    #[error("Low difficulty share")]
    LowDifficulty,
    /// 24: the user is not authorised on this connection; the text may say why.
    #[error("{0}")]
    Unauthorized(Cow<'static, str>),
    /// 25: submit before subscribe.
    #[error("Not subscribed")]
    NotSubscribed,
}

impl Reject {
    /// Code 20 with a text.
    #[must_use]
    pub fn other(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Other(text.into())
    }

    /// Code 24 with the usual text.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::Unauthorized(Cow::Borrowed("Unauthorized worker"))
    }

    /// The text on the wire.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Other(text) | Self::Unauthorized(text) => Cow::Borrowed(text),
            Self::JobNotFound | Self::Duplicate | Self::LowDifficulty | Self::NotSubscribed => {
                Cow::Owned(self.to_string())
            }
        }
    }

    /// The number on the wire.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Other(_) => 20,
            Self::JobNotFound => 21,
            Self::Duplicate => 22,
            Self::LowDifficulty => 23,
            Self::Unauthorized(_) => 24,
            Self::NotSubscribed => 25,
        }
    }
}

impl Serialize for Reject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_tuple(3)?;
        parts.serialize_element(&self.code())?;
        parts.serialize_element(&self.to_string())?;
        parts.serialize_element(&())?;
        parts.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_reject_has_its_code_and_a_null_at_the_end() {
        let encoded: Vec<String> = [
            Reject::other("Invalid ntime"),
            Reject::JobNotFound,
            Reject::Duplicate,
            Reject::LowDifficulty,
            Reject::unauthorized(),
            Reject::NotSubscribed,
        ]
        .iter()
        .map(|reject| serde_json::to_string(reject).expect("no map keys, no I/O"))
        .collect();
        assert_eq!(
            encoded,
            [
                r#"[20,"Invalid ntime",null]"#,
                r#"[21,"Job not found (=stale)",null]"#,
                r#"[22,"Duplicate share",null]"#,
                r#"[23,"Low difficulty share",null]"#,
                r#"[24,"Unauthorized worker",null]"#,
                r#"[25,"Not subscribed",null]"#,
            ]
        );
    }
}
