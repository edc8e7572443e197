//! Requests of the cgminer API: `{"command":"CMD","parameter":"PARAM"}`, or `CMD|PARAM`; several commands joined
//! by `+`.

use serde_json::Value;

/// Most bytes of a request: cgminer's limit.
pub(super) const MAX_REQUEST: usize = 4096;

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Whether to answer in JSON.
    pub(super) json: bool,
    pub(super) asked: Result<Asked, Malformed>,
}

/// Commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    One {
        command: String,
        parameter: Option<String>,
    },
    /// Each command once, without parameters.
    Joined(Vec<String>),
}

/// The reason why a request is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Not a JSON object.
    Json,
    /// An object without a command.
    NoCommand,
    /// A command that is not text, or a request that is too long.
    Command,
}

/// Whether these bytes are a complete request, as far as that can be seen: most clients neither mark the end of a
/// request nor close their side of the connection.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    if is_json(bytes) {
        // Unless the JSON is incomplete, more bytes do not help.
        !serde_json::from_slice::<Value>(json_part(bytes)).is_err_and(|error| error.is_eof())
    } else {
        bytes.iter().any(|byte| matches!(byte, b'\n' | 0))
    }
}

pub(super) fn is_json(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{')
}

/// Removes what some clients send after it: NUL, line ends.
fn json_part(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].trim_ascii()
}

impl Request {
    /// Parses all bytes received.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let json = is_json(bytes);
        let asked = if bytes.len() > MAX_REQUEST {
            Err(Malformed::Command)
        } else if json {
            json_asked(bytes)
        } else {
            Ok(text_asked(bytes))
        };
        Self { json, asked }
    }
}

fn json_asked(bytes: &[u8]) -> Result<Asked, Malformed> {
    let Ok(Value::Object(object)) = serde_json::from_slice(json_part(bytes)) else {
        return Err(Malformed::Json);
    };
    let command = object.get("command").ok_or(Malformed::NoCommand)?;
    let command = command.as_str().ok_or(Malformed::Command)?;
    let parameter = object.get("parameter").and_then(|parameter| match parameter {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    Ok(asked(command, parameter))
}

/// Only the first line counts.
fn text_asked(bytes: &[u8]) -> Asked {
    let line = bytes.split(|byte| matches!(byte, b'\n' | 0)).next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    match line.trim().split_once('|') {
        Some((command, parameter)) => asked(command, Some(parameter.trim_end_matches('|').to_owned())),
        None => asked(line.trim(), None),
    }
}

fn asked(command: &str, parameter: Option<String>) -> Asked {
    if !command.contains('+') {
        let parameter = parameter.filter(|parameter| !parameter.is_empty());
        return Asked::One { command: command.to_owned(), parameter };
    }
    let mut commands: Vec<String> = Vec::new();
    for command in command.split('+').filter(|command| !command.is_empty()) {
        if !commands.iter().any(|known| known == command) {
            commands.push(command.to_owned());
        }
    }
    Asked::Joined(commands)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn one(request: &str) -> (bool, String, Option<String>) {
        match Request::parse(request.as_bytes()) {
            Request { json, asked: Ok(Asked::One { command, parameter }) } => (json, command, parameter),
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn both_forms_are_understood() {
        let some = |text: &str| Some(text.to_owned());
        for (request, json, command, parameter) in [
            ("summary", false, "summary", None),
            ("summary\r\n", false, "summary", None),
            ("summary|", false, "summary", None),
            ("switchpool|1\0", false, "switchpool", some("1")),
            ("{\"command\":\"summary\"}", true, "summary", None),
            ("{\"command\":\"summary\",\"parameter\":\"\"}\n", true, "summary", None),
            ("{\"command\":\"switchpool\",\"parameter\":\"1\"}\0", true, "switchpool", some("1")),
            ("{\"parameter\":1,\"command\":\"switchpool\"}", true, "switchpool", some("1")),
            ("", false, "", None),
        ] {
            assert_eq!(one(request), (json, command.to_owned(), parameter), "{request:?}");
        }
    }

    #[test]
    fn joined_commands_come_once_and_without_blanks() {
        for request in ["+summary++devs+summary+|ignored", "{\"command\":\"+summary++devs+summary+\"}"] {
            let joined = ["summary", "devs"].map(str::to_owned).to_vec();
            assert_eq!(Request::parse(request.as_bytes()).asked, Ok(Asked::Joined(joined)));
        }
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        let wrong = |request: &[u8]| Request::parse(request).asked.unwrap_err();
        assert_eq!(wrong(b"{\"command\":\"summary\""), Malformed::Json);
        assert_eq!(wrong(b"{}}"), Malformed::Json);
        assert_eq!(wrong(b"{}"), Malformed::NoCommand);
        assert_eq!(wrong(b"{\"command\":7}"), Malformed::Command);
        assert_eq!(wrong(&[b'x'; MAX_REQUEST + 1]), Malformed::Command);
        assert_eq!(wrong(&b"{".repeat(MAX_REQUEST)), Malformed::Json);
    }

    #[test]
    fn a_request_is_whole_when_nothing_can_follow() {
        for (whole, request) in [
            (true, "{\"command\":\"summary\"}"),
            (true, " {\"command\":\"summary\"}\n"),
            (false, "{\"command\":\"summ"),
            (true, "{nonsense"),
            (true, "summary\n"),
            (true, "summary\0"),
            (false, "summary"),
            (false, ""),
        ] {
            assert_eq!(is_whole(request.as_bytes()), whole, "{request:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_request(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            is_whole(&bytes);
            Request::parse(&bytes);
        }
    }
}
