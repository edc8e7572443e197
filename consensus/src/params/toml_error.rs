//! Explains an error in a TOML file to its author: the line, the key and what was expected there. The value is never
//! shown, since it may be a key or a password.

/// Beginnings of the parser's messages that show a value.
const SHOWING: [&str; 3] = ["invalid type", "invalid value", "invalid length"];

/// The parser's error about `text` as one line, such as `line 3: fee: a number expected`.
#[must_use]
pub fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = &text[..start];
    let line = before.matches('\n').count() + 1;
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    if !SHOWING.iter().any(|begin| message.starts_with(begin)) {
        return format!("line {line}: {message}");
    }
    let of_line = before.rsplit('\n').next().unwrap_or_default();
    let key = of_line.split_once('=').map(|(key, _)| key.trim());
    let key = key.filter(|key| key.chars().all(|char| char.is_ascii_alphanumeric() || "_-.".contains(char)));
    let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("line {line}: {key}{} expected", kind(expected)),
        None => format!("line {line}: {key}a value that cannot stand here"),
    }
}

/// A Rust type as users call it.
fn kind(rust: &str) -> &str {
    match rust {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more,",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "socket address" => "ADDRESS:PORT, as 127.0.0.1:4877,",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[expect(dead_code, reason = "only its kind counts")]
        fee: Option<f64>,
        #[expect(dead_code, reason = "only its kind counts")]
        peers: Option<Vec<u16>>,
        #[expect(dead_code, reason = "only its kind counts")]
        quiet: Option<bool>,
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_is_shown() {
        for (text, words) in [
            ("\nfee = \"secret\"", "line 2: fee: a number expected"),
            ("fee = 1\nquiet = 7", "line 2: quiet: true or false expected"),
            ("peers = 5", "line 1: peers: a list expected"),
            ("peers = [1,\n -7]", "line 2: a whole number, 0 or more, expected"),
        ] {
            let error = toml::from_str::<File>(text).expect_err(text);
            assert_eq!(toml_error(text, &error), words);
        }
        for text in ["free = 1", "fee = ", "fee", "\u{7f}", ""] {
            let words = toml::from_str::<File>(text).map_err(|error| toml_error(text, &error));
            assert!(text.is_empty() || words.is_err_and(|words| words.starts_with("line 1: ")));
        }
    }
}
