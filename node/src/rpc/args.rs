//! A call's arguments, by position or by name.

use serde_json::Value;

use super::error::{INVALID_PARAMETER, MISC, RpcError, TYPE};
use super::method::Method;

/// Maximum number of characters of an invalid argument that an error message repeats.
const SHOWN: usize = 100;

/// Arguments in the order of the method's parameters; those left out are missing at the end, or null.
#[derive(Debug)]
pub(crate) struct Args {
    method: &'static Method,
    values: Vec<Value>,
}

impl Args {
    /// Puts arguments in order. Errors as in Core: an unknown name is -8; too many arguments return the method's
    /// help, -1.
    pub(crate) fn new(method: &'static Method, params: Option<Value>) -> Result<Self, RpcError> {
        let values = match params {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(Value::Object(named)) => {
                let mut values = vec![Value::Null; method.params.len()];
                for (name, value) in named {
                    let position = method.position(&name).ok_or_else(|| {
                        RpcError::new(INVALID_PARAMETER, format!("Unknown named parameter {name}"))
                    })?;
                    values[position] = value;
                }
                // Trailing parameters that were not named do not count as given.
                values.truncate(values.iter().rposition(|value| !value.is_null()).map_or(0, |last| last + 1));
                values
            }
            Some(_) => {
                return Err(RpcError::new(
                    super::error::INVALID_REQUEST,
                    "Params must be an array or object",
                ));
            }
        };
        let args = Self { method, values };
        let required = method.params.iter().filter(|p| !p.ends_with('?') && **p != "...").count();
        let open_ended = method.params.last() == Some(&"...");
        let given = args.values.len();
        if given < required || (given > method.params.len() && !open_ended) {
            return Err(args.usage());
        }
        Ok(args)
    }

    fn get(&self, position: usize) -> Option<&Value> {
        self.values.get(position).filter(|value| !value.is_null())
    }

    /// Number of given arguments, including nulls.
    pub(crate) fn count(&self) -> usize {
        self.values.len()
    }

    /// An argument as given; `None` if left out.
    pub(crate) fn value(&self, position: usize) -> Option<&Value> {
        self.get(position)
    }

    fn name(&self, position: usize) -> &'static str {
        let param = self.method.params.get(position).copied().unwrap_or("argument");
        param.trim_end_matches('?').split('|').next().unwrap_or(param)
    }

    fn wrong_type(&self, position: usize, expected: &str) -> RpcError {
        RpcError::new(MISC, format!("JSON value is not {expected} as expected ({})", self.name(position)))
    }

    /// A string; `None` if left out.
    pub(crate) fn optional_text(&self, position: usize) -> Result<Option<&str>, RpcError> {
        match self.get(position) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong_type(position, "a string")),
        }
    }

    /// A required string.
    pub(crate) fn text(&self, position: usize) -> Result<&str, RpcError> {
        self.optional_text(position)?.ok_or_else(|| self.wrong_type(position, "a string"))
    }

    /// A required string, with the error text of methods that check types first (`RPCTypeCheck`).
    pub(crate) fn checked_text(&self, position: usize) -> Result<&str, RpcError> {
        match self.values.get(position) {
            Some(Value::String(text)) => Ok(text),
            other => Err(unexpected_type("string", other)),
        }
    }

    /// A boolean, with the error text of methods that check types first; `default` if left out.
    pub(crate) fn checked_boolean_or(&self, position: usize, default: bool) -> Result<bool, RpcError> {
        match self.values.get(position) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            other => Err(unexpected_type("bool", other)),
        }
    }

    /// The type error of methods that check types first.
    pub(crate) fn unexpected_type(&self, expected: &str, found: Option<&Value>) -> RpcError {
        unexpected_type(expected, found)
    }

    /// The method's help as an error, for arguments that do not fit it.
    pub(crate) fn usage(&self) -> RpcError {
        RpcError::new(MISC, self.method.usage())
    }

    /// All arguments as strings.
    pub(crate) fn texts(&self) -> Result<Vec<&str>, RpcError> {
        (0..self.values.len()).filter_map(|position| self.optional_text(position).transpose()).collect()
    }

    /// An integer; `None` if left out.
    pub(crate) fn optional_integer(&self, position: usize) -> Result<Option<i64>, RpcError> {
        match self.get(position) {
            None => Ok(None),
            Some(Value::Number(number)) => {
                number.as_i64().map(Some).ok_or_else(|| self.out_of_range(position))
            }
            Some(_) => Err(self.wrong_type(position, "an integer")),
        }
    }

    fn out_of_range(&self, position: usize) -> RpcError {
        RpcError::new(MISC, format!("JSON integer out of range ({})", self.name(position)))
    }

    /// A 32-bit integer; `None` if left out.
    pub(crate) fn optional_int(&self, position: usize) -> Result<Option<i32>, RpcError> {
        let number = self.optional_integer(position)?;
        number.map(|number| i32::try_from(number).map_err(|_| self.out_of_range(position))).transpose()
    }

    /// A required 32-bit integer.
    pub(crate) fn int(&self, position: usize) -> Result<i32, RpcError> {
        self.optional_int(position)?.ok_or_else(|| self.wrong_type(position, "an integer"))
    }

    /// A required integer.
    pub(crate) fn integer(&self, position: usize) -> Result<i64, RpcError> {
        self.optional_integer(position)?.ok_or_else(|| self.wrong_type(position, "an integer"))
    }

    /// A boolean; `default` if left out.
    pub(crate) fn boolean_or(&self, position: usize, default: bool) -> Result<bool, RpcError> {
        match self.get(position) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.wrong_type(position, "a boolean")),
        }
    }

    /// A verbosity level, which older clients give as a boolean.
    pub(crate) fn verbosity_or(&self, position: usize, default: i64) -> Result<i64, RpcError> {
        match self.get(position) {
            Some(Value::Bool(value)) => Ok(i64::from(*value)),
            Some(value) if !value.is_number() => Err(self.wrong_type(position, "a boolean")),
            _ => Ok(self.optional_integer(position)?.unwrap_or(default)),
        }
    }

    /// A boolean, or a number that counts as true unless it is zero (`getrawtransaction`).
    pub(crate) fn flag_or_number(&self, position: usize) -> Result<bool, RpcError> {
        match self.get(position) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(Value::Number(_)) => Ok(self.int(position)? != 0),
            Some(_) => {
                Err(RpcError::new(TYPE, "Invalid type provided. Verbose parameter must be a boolean."))
            }
        }
    }

    /// A hash, parsed strictly (`ParseHashV`): 64 hex digits. The error calls the parameter `name`.
    pub(crate) fn hash(&self, position: usize, name: &str) -> Result<[u8; 32], RpcError> {
        let text = self.get(position).and_then(Value::as_str).unwrap_or_default();
        let wrong = |message: String| RpcError::new(INVALID_PARAMETER, message);
        let is_hex =
            !text.is_empty() && text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex {
            let shown: String = text.chars().take(SHOWN).collect();
            return Err(wrong(format!("{name} must be hexadecimal string (not '{shown}')")));
        }
        if text.len() != 64 {
            return Err(wrong(format!("{name} must be of length 64 (not {})", text.len())));
        }
        Ok(loose_hash(text))
    }

    /// A hash, parsed loosely as the reference parses most of them (`uint256S`): any string is accepted.
    pub(crate) fn loose_hash(&self, position: usize) -> Result<[u8; 32], RpcError> {
        Ok(loose_hash(self.text(position)?))
    }

    /// An object; `None` if left out.
    pub(crate) fn optional_object(
        &self,
        position: usize,
    ) -> Result<Option<&serde_json::Map<String, Value>>, RpcError> {
        match self.get(position) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(self.wrong_type(position, "an object")),
        }
    }
}

fn unexpected_type(expected: &str, found: Option<&Value>) -> RpcError {
    let found = match found {
        None | Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "bool",
        Some(Value::Number(_)) => "number",
        Some(Value::String(_)) => "string",
        Some(Value::Array(_)) => "array",
        Some(Value::Object(_)) => "object",
    };
    RpcError::new(TYPE, format!("Expected type {expected}, got {found}"))
}

/// Parses the leading hex digits of a string, of which the last 64 count, into the in-memory byte order of hashes
/// (`SetHex`).
fn loose_hash(text: &str) -> [u8; 32] {
    let text = text.trim_start();
    let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let digits: Vec<u8> = text.chars().map_while(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.rchunks(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    }
    hash
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::method::Category;
    use super::*;
    use serde_json::json;

    static METHOD: Method = Method {
        name: "test",
        category: Category::Hidden,
        params: &["first", "second|other?", "third?"],
        about: "",
    };

    fn code(params: Value) -> i32 {
        Args::new(&METHOD, Some(params)).unwrap_err().code
    }

    #[test]
    fn names_and_their_aliases_become_positions() {
        let args = Args::new(&METHOD, Some(json!({"other": 3, "first": "a"}))).unwrap();
        assert_eq!((args.text(0).unwrap(), args.int(1).unwrap(), args.count()), ("a", 3, 2));
        let args = Args::new(&METHOD, Some(json!({"first": 1, "third": true}))).unwrap();
        assert_eq!((args.optional_int(1).unwrap(), args.boolean_or(2, false).unwrap()), (None, true));
        assert_eq!(code(json!({"first": 1, "fourth": 2})), INVALID_PARAMETER);
        assert_eq!(code(json!({"second": 1, "other": 2, "first": 1, "x": 1})), INVALID_PARAMETER);
    }

    #[test]
    fn too_few_and_too_many_arguments_answer_with_the_help() {
        for params in [json!([]), json!({}), json!([1, 2, 3, 4]), json!([1, 2, 3, null])] {
            assert_eq!(Args::new(&METHOD, Some(params)).unwrap_err().message, METHOD.usage());
        }
        assert_eq!(METHOD.signature(), "test first ( second ) ( third )");
    }

    #[test]
    fn numbers_are_whole_and_fit() {
        let message = |value: Value| {
            let args = Args::new(&METHOD, Some(json!([value]))).unwrap();
            args.int(0).unwrap_err().message
        };
        assert_eq!(message(json!("5")), "JSON value is not an integer as expected (first)");
        assert_eq!(message(json!(null)), "JSON value is not an integer as expected (first)");
        for number in [json!(1.5), json!(1u64 << 31), json!(u64::MAX), json!(1e300)] {
            assert_eq!(message(number), "JSON integer out of range (first)");
        }
    }

    #[test]
    fn hashes_are_read_strictly_or_as_any_text() {
        let mut one = [0; 32];
        one[0] = 1;
        for text in ["1", "0x01", "  0X0001zz", &format!("{}1", "0".repeat(63))] {
            assert_eq!(loose_hash(text), one, "{text}");
        }
        assert_eq!(loose_hash("xyz"), [0; 32]);
        assert_eq!(loose_hash(&format!("ff{}1", "0".repeat(63))), one);
        let strict = |text: &str| {
            let args = Args::new(&METHOD, Some(json!([text]))).unwrap();
            args.hash(0, "parameter 1").map_err(|error| error.message)
        };
        assert_eq!(strict(&format!("{}1", "0".repeat(63))), Ok(one));
        assert_eq!(strict("00").unwrap_err(), "parameter 1 must be of length 64 (not 2)");
        assert_eq!(strict("xy").unwrap_err(), "parameter 1 must be hexadecimal string (not 'xy')");
    }
}
