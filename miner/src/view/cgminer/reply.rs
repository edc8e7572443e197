//! Replies of the cgminer API, in both forms: JSON objects, and text with `,`, `=` and `|` between its parts.
//!
//! Here: statuses, sections, encoding. Not here: the contents ([`super::commands`]).

use serde_json::{Map, Value as Json, json};

/// The program's description in the status of every reply.
const DESCRIPTION: &str = concat!("iop-miner ", env!("CARGO_PKG_VERSION"));

/// A value in a section.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    /// A number with this many decimals.
    Decimal(f64, usize),
    Text(String),
    Flag(bool),
}

/// Names and values, in the order they are sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record(Vec<(&'static str, Value)>);

impl Record {
    /// Saturates counts that clients cannot represent.
    pub(super) fn integer(self, name: &'static str, value: impl TryInto<i64>) -> Self {
        self.with(name, Value::Integer(value.try_into().unwrap_or(i64::MAX)))
    }

    pub(super) fn decimal(self, name: &'static str, value: f64, places: usize) -> Self {
        self.with(name, Value::Decimal(if value.is_finite() { value } else { 0.0 }, places))
    }

    pub(super) fn text(self, name: &'static str, value: impl Into<String>) -> Self {
        self.with(name, Value::Text(value.into()))
    }

    pub(super) fn flag(self, name: &'static str, value: bool) -> Self {
        self.with(name, Value::Flag(value))
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.0.push((name, value));
        self
    }

    fn to_json(&self) -> Json {
        let value = |value: &Value| match value {
            Value::Integer(number) => json!(number),
            Value::Decimal(number, places) => json!(rounded(*number, *places)),
            Value::Text(text) => json!(text),
            Value::Flag(flag) => json!(flag),
        };
        Json::Object(self.0.iter().map(|(name, it)| ((*name).to_owned(), value(it))).collect())
    }

    fn to_text(&self) -> String {
        let value = |value: &Value| match value {
            Value::Integer(number) => number.to_string(),
            Value::Decimal(number, places) => format!("{number:.places$}"),
            Value::Text(text) => escaped(text),
            Value::Flag(flag) => flag.to_string(),
        };
        let pairs: Vec<String> = self.0.iter().map(|(name, it)| format!("{name}={}", value(it))).collect();
        pairs.join(",")
    }
}

fn rounded(number: f64, places: usize) -> f64 {
    let scale = 10f64.powi(i32::try_from(places).unwrap_or(0));
    let scaled = (number * scale).round() / scale;
    if scaled.is_finite() { scaled } else { number }
}

/// In the text form these four are escaped with a backslash. Control characters could end a reply early.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '|' | ',' | '=' | '\\' => escaped.extend(['\\', character]),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The part after the status.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Section {
    Nothing,
    One(&'static str, Record),
    /// Each record begins with its kind and number.
    Many(&'static str, Vec<Record>),
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    /// `S` success, `E` error.
    severity: char,
    /// The message's code in cgminer.
    code: u16,
    message: String,
    section: Section,
}

impl Reply {
    pub(super) fn success(code: u16, message: impl Into<String>, section: Section) -> Self {
        Self { severity: 'S', code, message: message.into(), section }
    }

    pub(super) fn error(code: u16, message: impl Into<String>) -> Self {
        Self { severity: 'E', code, message: message.into(), section: Section::Nothing }
    }

    fn status(&self, when: u64) -> Record {
        Record::default()
            .text("STATUS", self.severity)
            .integer("When", when)
            .integer("Code", self.code)
            .text("Msg", &*self.message)
            .text("Description", DESCRIPTION)
    }

    fn to_json(&self, when: u64) -> Json {
        let mut object = Map::new();
        object.insert("STATUS".to_owned(), json!([self.status(when).to_json()]));
        match &self.section {
            Section::Nothing => {}
            Section::One(name, record) => {
                object.insert((*name).to_owned(), json!([record.to_json()]));
            }
            Section::Many(name, records) => {
                let records: Vec<Json> = records.iter().map(Record::to_json).collect();
                object.insert((*name).to_owned(), Json::Array(records));
            }
        }
        object.insert("id".to_owned(), json!(1));
        Json::Object(object)
    }

    fn to_text(&self, when: u64) -> String {
        let mut text = format!("{}|", self.status(when).to_text());
        match &self.section {
            Section::Nothing => {}
            Section::One(name, record) => text += &format!("{name},{}|", record.to_text()),
            Section::Many(_, records) => {
                text.extend(records.iter().map(|record| format!("{}|", record.to_text())));
            }
        }
        text
    }
}

/// The answer to a request: to one command, or to each of several by name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Single(Reply),
    Joined(Vec<(String, Reply)>),
}

impl Answer {
    /// The bytes to send at `when`, in seconds since 1970. They end with a NUL, as clients expect.
    pub(super) fn encode(&self, as_json: bool, when: u64) -> Vec<u8> {
        let mut bytes = match (self, as_json) {
            (Self::Single(reply), true) => reply.to_json(when).to_string().into_bytes(),
            (Self::Single(reply), false) => reply.to_text(when).into_bytes(),
            (Self::Joined(replies), true) => {
                let named = |(name, reply): &(String, Reply)| (name.clone(), json!([reply.to_json(when)]));
                let mut object: Map<String, Json> = replies.iter().map(named).collect();
                object.insert("id".to_owned(), json!(1));
                Json::Object(object).to_string().into_bytes()
            }
            (Self::Joined(replies), false) => {
                let named = |(name, reply): &(String, Reply)| {
                    format!("CMD={}|{}", escaped(name), reply.to_text(when))
                };
                replies.iter().map(named).collect::<String>().into_bytes()
            }
        };
        bytes.push(0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reply() -> Reply {
        let record = Record::default()
            .integer("Accepted", 7)
            .decimal("MHS av", 39.318, 2)
            .decimal("Unknown", f64::NAN, 2)
            .text("URL", "a|b,c=d\\e\0\"f\"")
            .flag("LP", false);
        Reply::success(11, "Summary", Section::One("SUMMARY", record))
    }

    fn parsed(bytes: &[u8]) -> Json {
        serde_json::from_slice(bytes.strip_suffix(&[0]).unwrap()).unwrap()
    }

    #[test]
    fn text_has_its_separators_escaped() {
        let text = String::from_utf8(Answer::Single(reply()).encode(false, 5)).unwrap();
        let status = format!("STATUS=S,When=5,Code=11,Msg=Summary,Description={DESCRIPTION}|");
        let section = "SUMMARY,Accepted=7,MHS av=39.32,Unknown=0.00,URL=a\\|b\\,c\\=d\\\\e \"f\",LP=false|";
        assert_eq!(text, format!("{status}{section}\0"));
    }

    #[test]
    fn json_has_sections_in_arrays_and_an_id() {
        let json = parsed(&Answer::Single(reply()).encode(true, 5));
        let status =
            json!({"STATUS": "S", "When": 5, "Code": 11, "Msg": "Summary", "Description": DESCRIPTION});
        assert_eq!(json["STATUS"], json!([status]));
        let record =
            json!({"Accepted": 7, "MHS av": 39.32, "Unknown": 0.0, "URL": "a|b,c=d\\e\0\"f\"", "LP": false});
        assert_eq!((&json["SUMMARY"], &json["id"]), (&json!([record]), &json!(1)));
        assert_eq!(json["SUMMARY"][0].as_object().unwrap().keys().next().unwrap(), "Accepted");
    }

    #[test]
    fn joined_answers_are_kept_apart_by_their_commands() {
        let pool = Record::default().integer("POOL", 0);
        let pools = Reply::success(7, "1 Pool(s)", Section::Many("POOLS", vec![pool.clone(), pool]));
        let joined = Answer::Joined(vec![
            ("pools".to_owned(), pools),
            ("dig|".to_owned(), Reply::error(14, "Invalid command")),
        ]);
        let text = String::from_utf8(joined.encode(false, 5)).unwrap();
        assert!(text.starts_with("CMD=pools|STATUS=S,When=5,Code=7,"), "{text}");
        assert!(text.contains("|POOL=0|POOL=0|CMD=dig\\||STATUS=E,When=5,Code=14,"), "{text}");
        let json = parsed(&joined.encode(true, 5));
        assert_eq!(json["pools"][0]["POOLS"], json!([{"POOL": 0}, {"POOL": 0}]));
        assert_eq!((&json["dig|"][0]["STATUS"][0]["Code"], &json["id"]), (&json!(14), &json!(1)));
    }
}
