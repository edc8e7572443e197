//! `mining.notify`: a job as a pool announces it.

use serde::Serialize;

use crate::fields::{FieldError, JobId, NBits, NTime, PrevHash, Span, Version, parse_32, parse_bytes};
use crate::message::{Params, notification, text};

/// Most merkle branches accepted. A block of 4 M weight holds under 2¹⁷ transactions; 32 branches would allow 2³².
pub const MAX_BRANCHES: usize = 32;
/// Longest part of a coinbase accepted, in bytes: the size of a block without witness.
pub const MAX_COINBASE_PART: usize = 1_000_000;

/// A job. The miner adds extranonce2, ntime, nonce and version bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// The pool's id for the job.
    pub job_id: JobId,
    /// The parent block.
    pub prev_hash: PrevHash,
    /// The coinbase, without witness, up to extranonce1.
    pub coinbase1: Vec<u8>,
    /// The coinbase, without witness, after extranonce2.
    pub coinbase2: Vec<u8>,
    /// The merkle path from the coinbase to the root; txids in the byte order that SHA-256 gives.
    pub branches: Vec<[u8; 32]>,
    /// The header's version.
    pub version: Version,
    /// The header's target, which a block must meet.
    pub nbits: NBits,
    /// The header's initial time.
    pub ntime: NTime,
    /// Whether every job before this one is stale.
    pub clean: bool,
}

impl Notify {
    /// The job as a line, including the line end; encoded once per job and shared by all sessions.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Wire<'a>(&'a str, String, String, String, Vec<String>, String, String, String, bool);
        notification(
            "mining.notify",
            Wire(
                self.job_id.as_str(),
                self.prev_hash.to_string(),
                hex::encode(&self.coinbase1),
                hex::encode(&self.coinbase2),
                self.branches.iter().map(hex::encode).collect(),
                self.version.to_string(),
                self.nbits.to_string(),
                self.ntime.to_string(),
                self.clean,
            ),
        )
    }

    /// Reads the parameters of a `mining.notify`.
    ///
    /// # Errors
    /// A field is missing, malformed or too long.
    pub fn from_params(params: &Params<'_>) -> Result<Self, FieldError> {
        let branches = params.array(4, "merkle branches")?;
        if branches.len() > MAX_BRANCHES {
            let expected = Span { min: 0, max: MAX_BRANCHES };
            return Err(FieldError::Length {
                field: "merkle branches",
                found: branches.len(),
                unit: "hashes",
                expected,
            });
        }
        let branch = |raw| {
            let text = text(raw).ok_or(FieldError::Kind { field: "merkle branch", expected: "a string" })?;
            parse_32("merkle branch", &text)
        };
        Ok(Self {
            job_id: job_id(params)?,
            prev_hash: PrevHash::parse(&params.text(1, "prevhash")?)?,
            coinbase1: parse_bytes("coinb1", &params.text(2, "coinb1")?, 1, MAX_COINBASE_PART)?,
            coinbase2: parse_bytes("coinb2", &params.text(3, "coinb2")?, 1, MAX_COINBASE_PART)?,
            branches: branches.iter().map(branch).collect::<Result<_, _>>()?,
            version: Version::parse(&params.text(5, "version")?)?,
            nbits: NBits::parse(&params.text(6, "nbits")?)?,
            ntime: NTime::parse(&params.text(7, "ntime")?)?,
            clean: clean_jobs(params)?,
        })
    }
}

/// A job id that is a number counts as the text of that.
fn job_id(params: &Params<'_>) -> Result<JobId, FieldError> {
    JobId::new(&params.written(0, "job id", usize::MAX)?)
}

/// Some pools leave it out where older jobs go on to count, or write it as text.
fn clean_jobs(params: &Params<'_>) -> Result<bool, FieldError> {
    let Some(raw) = params.get(8) else { return Ok(false) };
    match text(raw) {
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.is_empty() || text.eq_ignore_ascii_case("false") => Ok(false),
        _ => params.flag(8, "clean_jobs"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::message::Message;

    fn read(line: &[u8]) -> Result<Notify, FieldError> {
        match Message::parse(line).expect("an envelope") {
            Message::Call { params, .. } => Notify::from_params(&params),
            Message::Answer { .. } => panic!("not a call"),
        }
    }

    fn notify() -> impl Strategy<Value = Notify> {
        let part = || proptest::collection::vec(any::<u8>(), 1..200);
        let branches = proptest::collection::vec(any::<[u8; 32]>(), 0..=MAX_BRANCHES);
        let head = ("[0-9a-zA-Z _\"\\\\-]{1,64}", any::<[u8; 32]>(), part(), part(), branches);
        (head, any::<(u32, u32, u32, bool)>()).prop_map(|(head, (version, nbits, ntime, clean))| Notify {
            job_id: JobId::new(&head.0).expect("1 to 64 bytes"),
            prev_hash: PrevHash(head.1),
            coinbase1: head.2,
            coinbase2: head.3,
            branches: head.4,
            version: Version(version),
            nbits: NBits(nbits),
            ntime: NTime(ntime),
            clean,
        })
    }

    #[test]
    fn a_job_id_that_does_not_print_goes_over_the_wire_as_it_is() {
        let notify = Notify {
            job_id: JobId::new("a\r\nb").expect("1 to 128 bytes"),
            prev_hash: PrevHash([0; 32]),
            coinbase1: vec![1],
            coinbase2: vec![2],
            branches: vec![],
            version: Version(1),
            nbits: NBits(1),
            ntime: NTime(1),
            clean: true,
        };
        assert_eq!(read(&notify.to_line()), Ok(notify));
    }

    proptest! {
        #[test]
        fn what_the_pool_says_is_what_the_miner_reads(notify in notify()) {
            prop_assert_eq!(read(&notify.to_line()), Ok(notify));
        }

        #[test]
        fn a_missing_field_is_named(notify in notify(), missing in 0usize..8) {
            let line = notify.to_line();
            let mut value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            value["params"].as_array_mut().unwrap().truncate(missing);
            let error = read(value.to_string().as_bytes()).unwrap_err();
            prop_assert!(matches!(error, FieldError::Missing { .. }), "{}", error);
        }
    }

    /// With this in place of a field.
    fn changed(field: usize, value: serde_json::Value) -> Result<Notify, FieldError> {
        let hash = "00".repeat(32);
        let mut params =
            serde_json::json!(["1", hash, "00", "00", [hash], "20000000", "207fffff", "5f5e1000", true]);
        params[field] = value;
        read(&notification("mining.notify", params))
    }

    #[test]
    fn whether_a_job_is_clean_may_be_text_or_missing() {
        use serde_json::json;
        for (said, clean) in [
            (json!(true), true),
            (json!("true"), true),
            (json!("True"), true),
            (json!(1), true),
            (json!(false), false),
            (json!("false"), false),
            (json!(""), false),
            (json!(null), false),
        ] {
            assert_eq!(changed(8, said).map(|notify| notify.clean), Ok(clean));
        }
        assert!(changed(8, json!("yes")).is_err() && changed(8, json!([])).is_err());
        let hash = "00".repeat(32);
        let without = ("1", &hash, "00", "00", [&hash], "20000000", "207fffff", "5f5e1000");
        assert!(!read(&notification("mining.notify", without)).unwrap().clean);
    }

    #[test]
    fn a_job_id_may_be_a_number() {
        let id = |value| changed(0, value).map(|notify| notify.job_id.as_str().to_owned());
        assert_eq!(id(serde_json::json!(1234)), Ok("1234".to_owned()));
        assert_eq!(id(serde_json::json!("1234")), Ok("1234".to_owned()));
        assert!(id(serde_json::json!(true)).is_err() && id(serde_json::json!([1])).is_err());
        let long = id(serde_json::json!("a".repeat(200))).unwrap_err();
        assert_eq!(long.to_string(), "job id has 200 bytes, expected 1 to 128");
    }

    #[test]
    fn more_branches_than_a_block_can_have_are_refused() {
        let branches = vec!["00".repeat(32); MAX_BRANCHES + 1];
        let hash = "00".repeat(32);
        let line = notification(
            "mining.notify",
            ("1", hash, "00", "00", branches, "00000000", "00000000", "00000000", true),
        );
        assert!(matches!(read(&line), Err(FieldError::Length { field: "merkle branches", .. })));
    }
}
