//! A call's arguments, by position or by name.

use serde_json::Value;

use super::error::{INVALID_PARAMETER, MISC, RpcError};
use super::method::Method;

/// Arguments in the order of the method's parameters; missing ones at the end, or null.
#[derive(Debug)]
pub(crate) struct Args {
    method: &'static Method,
    values: Vec<Value>,
}

impl Args {
    /// Puts arguments in order. Core's errors: an unknown name is -8; too many arguments answer with the
    /// method's help, -1.
    pub(crate) fn new(method: &'static Method, params: Option<Value>) -> Result<Self, RpcError> {
        let values = match params {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(Value::Object(named)) => {
                let mut values = vec![Value::Null; method.params.len()];
                for (name, value) in named {
                    let known = method.params.iter().position(|p| p.trim_end_matches('?') == name);
                    let position = known.ok_or_else(|| {
                        RpcError::new(INVALID_PARAMETER, format!("Unknown named parameter {name}"))
                    })?;
                    values[position] = value;
                }
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
        let given = args.values.iter().rposition(|value| !value.is_null()).map_or(0, |last| last + 1);
        if given < required || (given > method.params.len() && !open_ended) {
            return Err(RpcError::new(MISC, method.usage()));
        }
        Ok(args)
    }

    fn get(&self, position: usize) -> Option<&Value> {
        self.values.get(position).filter(|value| !value.is_null())
    }

    fn wrong_type(&self, position: usize, expected: &str) -> RpcError {
        let name = self.method.params.get(position).copied().unwrap_or("argument").trim_end_matches('?');
        RpcError::new(MISC, format!("JSON value is not {expected} as expected ({name})"))
    }

    /// A text; `None` when it is left out.
    pub(crate) fn optional_text(&self, position: usize) -> Result<Option<&str>, RpcError> {
        match self.get(position) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong_type(position, "a string")),
        }
    }

    /// A text that must be there.
    pub(crate) fn text(&self, position: usize) -> Result<&str, RpcError> {
        self.optional_text(position)?.ok_or_else(|| self.wrong_type(position, "a string"))
    }

    /// Every argument as a text.
    pub(crate) fn texts(&self) -> Result<Vec<&str>, RpcError> {
        (0..self.values.len()).filter_map(|position| self.optional_text(position).transpose()).collect()
    }

    /// A whole number; `None` when it is left out.
    pub(crate) fn optional_integer(&self, position: usize) -> Result<Option<i64>, RpcError> {
        match self.get(position) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| self.wrong_type(position, "an integer")),
        }
    }

    /// A whole number that must be there.
    pub(crate) fn integer(&self, position: usize) -> Result<i64, RpcError> {
        self.optional_integer(position)?.ok_or_else(|| self.wrong_type(position, "an integer"))
    }

    /// Yes or no; `default` when it is left out.
    pub(crate) fn boolean_or(&self, position: usize, default: bool) -> Result<bool, RpcError> {
        match self.get(position) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.wrong_type(position, "a boolean")),
        }
    }

    /// A level, which older clients give as yes or no.
    pub(crate) fn verbosity_or(&self, position: usize, default: i64) -> Result<i64, RpcError> {
        match self.get(position) {
            Some(Value::Bool(value)) => Ok(i64::from(*value)),
            _ => Ok(self.optional_integer(position)?.unwrap_or(default)),
        }
    }

    /// An object; `None` when it is left out.
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
