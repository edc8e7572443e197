//! A JSON-RPC client.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Timeout in seconds, enough for a whole `generatetoaddress`.
const TIMEOUT: u64 = 120;

/// A node's RPC, authenticated by its cookie or a password.
#[derive(Debug, Clone)]
pub struct Rpc {
    url: String,
    credentials: Credentials,
}

#[derive(Debug, Clone)]
enum Credentials {
    /// The file is read for each call.
    Cookie(PathBuf),
    /// `user:password`.
    Password(String),
}

/// The reason why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcFailure {
    /// The server's error object.
    Answer {
        /// Its code.
        code: i64,
        /// Its message.
        message: String,
    },
    /// There was no answer.
    Transport(String),
}

impl Rpc {
    /// The RPC on this port of loopback, with the cookie in this file.
    pub fn new(port: u16, cookie: PathBuf) -> Self {
        Self { url: format!("http://127.0.0.1:{port}/"), credentials: Credentials::Cookie(cookie) }
    }

    /// The RPC at `http://user:password@host:port`; `None` for a text without user.
    pub fn at(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (credentials, host) = rest.rsplit_once('@')?;
        let url = format!("{scheme}://{}/", host.trim_end_matches('/'));
        Some(Self { url, credentials: Credentials::Password(credentials.to_owned()) })
    }

    /// Calls a method with positional parameters. The cookie is read again each time: a restarted node has a new one.
    ///
    /// # Errors
    /// The server's error, or why there is no answer.
    pub fn try_call(&self, method: &str, params: Value) -> Result<Value, RpcFailure> {
        let transport = |error: &dyn std::fmt::Display| RpcFailure::Transport(error.to_string());
        let credentials = match &self.credentials {
            Credentials::Cookie(file) => std::fs::read_to_string(file).map_err(|error| transport(&error))?,
            Credentials::Password(password) => password.clone(),
        };
        let body = json!({ "jsonrpc": "1.0", "id": "test", "method": method, "params": params });
        let response = minreq::post(&self.url)
            .with_header("Authorization", format!("Basic {}", STANDARD.encode(credentials)))
            .with_body(body.to_string())
            .with_timeout(TIMEOUT)
            .send()
            .map_err(|error| transport(&error))?;
        let mut reply: Value =
            serde_json::from_slice(response.as_bytes()).map_err(|error| transport(&error))?;
        match &reply["error"] {
            Value::Null => Ok(reply["result"].take()),
            error => Err(RpcFailure::Answer {
                code: error["code"].as_i64().unwrap_or_default(),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// Calls a method that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|failure| panic!("{method}: {failure:?}"))
    }

    /// The height of the tip.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn height(&self) -> u64 {
        self.call("getblockcount", json!([])).as_u64().expect("a height is a number")
    }

    /// The node's information on a license.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn license(&self, address: &str) -> Value {
        self.call("getlicenseinfo", json!([address]))[0].take()
    }
}
