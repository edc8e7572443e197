//! `mining.configure` (BIP310): every extension that the client lists gets an answer.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::difficulty::Difficulty;
use crate::fields::{FieldError, VersionMask};
use crate::message::{Params, number, text};

/// Most extensions in a request; BIP310 defines four.
const MAX_EXTENSIONS: usize = 16;

/// What a client requested, and the reply to it.
#[derive(Debug, Default)]
pub(super) struct Configured {
    /// The result object.
    pub(super) reply: BTreeMap<String, Value>,
    /// The mask that it asked for, if version rolling was asked for.
    pub(super) asked_mask: Option<VersionMask>,
    /// Whether the client accepts new extranonces while it is connected.
    pub(super) extranonce_changes: bool,
    /// The lowest difficulty that the client can work at.
    pub(super) minimum_difficulty: Option<Difficulty>,
}

/// Parameters by name, kept as JSON text: only those of known extensions are parsed.
type Options<'a> = BTreeMap<String, &'a RawValue>;

/// Reads the parameters `[[extension…], {"extension.parameter": value…}]` and builds the reply.
///
/// # Errors
/// There is no list of extensions, or it is longer than any real one.
pub(super) fn configure(
    params: &Params<'_>,
    server_mask: VersionMask,
    max_difficulty: Option<Difficulty>,
) -> Result<Configured, FieldError> {
    let field = "extensions";
    let listed = params.array(0, field)?;
    if listed.len() > MAX_EXTENSIONS {
        return Err(FieldError::Kind { field, expected: "a list of at most 16 names" });
    }
    let options = match params.get(1) {
        None => Options::new(),
        Some(raw) => serde_json::from_str(raw.get())
            .map_err(|_| FieldError::Kind { field: "extension parameters", expected: "an object" })?,
    };
    let mut configured = Configured::default();
    for raw in listed.iter() {
        let name = text(raw).ok_or(FieldError::Kind { field, expected: "a list of names" })?;
        configured.answer(&name, &options, server_mask, max_difficulty);
    }
    Ok(configured)
}

impl Configured {
    fn answer(
        &mut self,
        name: &str,
        options: &Options<'_>,
        server_mask: VersionMask,
        max_difficulty: Option<Difficulty>,
    ) {
        let answer = match name {
            "version-rolling" => self.version_rolling(options, server_mask),
            "minimum-difficulty" => self.minimum_difficulty(options, max_difficulty),
            "subscribe-extranonce" => {
                self.extranonce_changes = true;
                Value::Bool(true)
            }
            "info" => Value::Bool(true),
            _ => Value::Bool(false),
        };
        self.reply.insert(name.to_owned(), answer);
    }

    fn version_rolling(&mut self, options: &Options<'_>, server_mask: VersionMask) -> Value {
        let asked = options.get("version-rolling.mask").filter(|raw| raw.get() != "null");
        let asked = match asked.map(|raw| text(raw)) {
            None => Ok(VersionMask::ALL),
            Some(Some(text)) => VersionMask::parse(&text),
            Some(None) => Err(FieldError::Kind { field: "version-rolling.mask", expected: "a string" }),
        };
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => return Value::String(error.to_string()),
        };
        let mask = asked.intersect(server_mask);
        self.asked_mask = Some(asked);
        // min-bit-count, a number or text, is a hint for servers that can choose a mask; ours always offers all it can.
        if mask == VersionMask::NONE {
            return Value::Bool(false);
        }
        self.reply.insert("version-rolling.mask".to_owned(), Value::String(mask.to_string()));
        Value::Bool(true)
    }

    fn minimum_difficulty(&mut self, options: &Options<'_>, max: Option<Difficulty>) -> Value {
        let asked =
            options.get("minimum-difficulty.value").and_then(|raw| number(raw)).and_then(Difficulty::new);
        match asked {
            Some(asked) if max.is_some_and(|max| asked > max) => Value::Bool(false),
            Some(asked) => {
                self.minimum_difficulty = Some(asked);
                Value::Bool(true)
            }
            None => Value::String("minimum-difficulty.value must be a number above zero".to_owned()),
        }
    }
}
