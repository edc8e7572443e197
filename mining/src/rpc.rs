//! A JSON-RPC client for a node, over HTTP.
//!
//! Every call has a time limit and every answer a size limit. A restarted node writes a new cookie, so the cookie file
//! is read again after a 401.

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::files;

/// Largest answer accepted, in bytes. The template of a full block (4 M weight) is 8 MB of hex and some JSON.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Time limit to connect. A node is on this machine or nearby.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long an unused connection is kept. Shorter than a node's own limit (Core: 30 s), so that a call never uses a
/// connection that the node is just closing.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Time limit of an ordinary call. A node needs a few seconds at worst to check a full block.
pub const CALL_TIME: Duration = Duration::from_secs(30);
/// Time after which a long poll is repeated. Bitcoin Core answers one after some minutes at the latest, `iop-node` only
/// when there is something new. The limit keeps us from waiting forever on a connection that has died silently.
pub const LONG_POLL_TIME: Duration = Duration::from_secs(10 * 60);

/// Where to reach a node, and the credentials for it.
#[derive(Clone)]
pub struct NodeAddress {
    uri: Uri,
    /// `host:port`, for messages.
    name: String,
    credentials: Credentials,
}

#[derive(Clone)]
enum Credentials {
    Password(Zeroizing<String>),
    Cookie(PathBuf),
}

impl NodeAddress {
    /// Whether a URL carries `user:password@`.
    #[must_use]
    pub fn has_password(url: &str) -> bool {
        url.contains('@')
    }

    /// Parses `http://[user:password@]host[:port]`; a cookie file is required if the URL has no password.
    ///
    /// # Errors
    /// One line that says what is wrong. It never contains the password.
    pub fn parse(url: &str, cookie: Option<PathBuf>, default_port: u16) -> Result<Self, String> {
        let rest =
            url.strip_prefix("http://").ok_or_else(|| "a node's URL must begin with http://".to_owned())?;
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let host = host.trim_end_matches('/');
        // What follows a colon may be a password if the host was forgotten, so it is not shown.
        let shown = host.split(':').next().unwrap_or_default();
        let wrong =
            || format!("node 'http://{shown}…' is no address, http://[USER:PASSWORD@]HOST[:PORT] expected");
        let uri: Uri = format!("http://{host}/").parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.path() != "/" || uri.query().is_some() || authority.host().is_empty() {
            return Err(wrong());
        }
        let name = match authority.port_u16() {
            Some(_) => authority.to_string(),
            None if authority.as_str() == authority.host() => format!("{}:{default_port}", authority.host()),
            None => return Err(wrong()), // a colon without a port
        };
        let credentials = match (user, cookie) {
            (Some(user), None) if user.contains(':') => {
                Credentials::Password(Zeroizing::new(percent_decode(user)))
            }
            (Some(_), None) => return Err(format!("node 'http://{host}' has a user without password")),
            (None, Some(path)) => Credentials::Cookie(path),
            (Some(_), Some(_)) => {
                return Err(format!("node 'http://{host}' has a password and a cookie file"));
            }
            (None, None) => {
                return Err(format!(
                    "node 'http://{host}' has no USER:PASSWORD@ in its URL and no cookie file"
                ));
            }
        };
        let uri = format!("http://{name}/").parse().map_err(|_| wrong())?;
        Ok(Self { uri, name, credentials })
    }

    /// `host:port`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeAddress({})", self.name)
    }
}

/// Decodes `%40` to `@`, so that a password may contain characters with a meaning in URLs.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| after.get(..2)).flatten();
        match escaped.and_then(|digits| hex::decode(digits).ok()) {
            Some(decoded) => {
                bytes.extend(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The Bitcoin Core error codes that matter here, as IoP Core and `iop-node` return them.
pub mod code {
    /// A block whose data was deleted, or that the disk cannot give. (`RPC_MISC_ERROR`.)
    pub const DELETED: i64 = -1;
    /// A block that the node does not know. (`RPC_INVALID_ADDRESS_OR_KEY`.)
    pub const UNKNOWN_BLOCK: i64 = -5;
    /// A height above the tip. (`RPC_INVALID_PARAMETER`.)
    pub const NO_SUCH_HEIGHT: i64 = -8;
    /// A block that the node cannot decode, so that a retry is useless. (`RPC_DESERIALIZATION_ERROR`.) All other
    /// errors of `submitblock` are about the node, not about the block.
    pub const UNREADABLE: i64 = -22;
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The connection failed or broke.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer to {method} within {} s", limit.as_secs())]
    Late {
        /// The method called.
        method: String,
        /// The time limit.
        limit: Duration,
    },
    /// The node rejected our credentials.
    #[error("the node refuses the credentials (HTTP 401)")]
    Unauthorized,
    /// The node answered with an error.
    #[error("{message} (code {code})")]
    Node {
        /// A Bitcoin Core error code.
        code: i64,
        /// The node's message.
        message: String,
    },
    /// The answer does not have the form expected of the method.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// Answers that belong together come from different branches.
    #[error("the chain has changed meanwhile")]
    Changed,
}

impl RpcError {
    /// Whether the node has deleted the block that was asked for, as it was told to (`--prune`). A block that its disk
    /// cannot give has the same code and another message.
    #[must_use]
    pub fn is_pruned(&self) -> bool {
        matches!(self, Self::Node { code: code::DELETED, message } if message.contains("pruned"))
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    address: NodeAddress,
    client: Client<HttpConnector, Full<Bytes>>,
    /// The `Authorization` header, once built.
    authorization: Mutex<Option<HeaderValue>>,
    /// Whether the node answers and is known to be on the right chain.
    right: AtomicBool,
    /// Notified each time the node is found to be on the right chain.
    back: Notify,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct Answer<T> {
    #[serde(default = "Option::default")]
    result: Option<T>,
    #[serde(default)]
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// The result in an answer, which may borrow from it. A null result is deserialised as `T`'s null.
///
/// # Errors
/// The node's error, or a description of what is malformed.
pub fn read_answer<'a, T: Deserialize<'a>>(method: &str, answer: &'a [u8]) -> Result<T, RpcError> {
    let malformed = |error: serde_json::Error| RpcError::Malformed(format!("{method}: {error}"));
    let Answer { result, error } = serde_json::from_slice(answer).map_err(malformed)?;
    match (error, result) {
        (Some(AnswerError { code, message }), _) => Err(RpcError::Node { code, message }),
        (None, Some(result)) => Ok(result),
        (None, None) => serde_json::from_str("null").map_err(malformed),
    }
}

impl Node {
    /// Creates a client; nothing is sent yet.
    #[must_use]
    pub fn new(address: NodeAddress) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .build(connector);
        Self {
            address,
            client,
            authorization: Mutex::new(None),
            right: AtomicBool::new(false),
            back: Notify::new(),
        }
    }

    /// `host:port`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.address.name()
    }

    /// Whether the node is known to be on the right chain. This is checked whenever the node begins to give templates.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.right.load(Ordering::Relaxed)
    }

    /// Sets whether the node is known to be on the right chain.
    pub fn set_right(&self, right: bool) {
        self.right.store(right, Ordering::Relaxed);
        if right {
            self.back.notify_waiters();
        }
    }

    /// Waits until the node is next found to be on the right chain.
    pub async fn comes_back(&self) {
        self.back.notified().await;
    }

    /// Calls a method. A null result is deserialised as `T`'s null (`()` or `Option`).
    ///
    /// # Errors
    /// [`RpcError`]; all but [`RpcError::Node`] may go away on a retry.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
        limit: Duration,
    ) -> Result<T, RpcError> {
        read_answer(method, &self.answer(method, params, limit).await?)
    }

    /// Calls a method and returns the whole answer, to be read with [`read_answer`].
    ///
    /// # Errors
    /// No answer was received in time.
    pub async fn answer(&self, method: &str, params: Value, limit: Duration) -> Result<Bytes, RpcError> {
        let body =
            Bytes::from(json!({"jsonrpc": "1.0", "id": 1, "method": method, "params": params}).to_string());
        let asked = async {
            match self.ask(body.clone()).await {
                Err(RpcError::Unauthorized) if self.forget_cookie() => self.ask(body).await,
                answer => answer,
            }
        };
        let late = |_| RpcError::Late { method: method.to_owned(), limit };
        tokio::time::timeout(limit, asked).await.map_err(late)?
    }

    async fn ask(&self, body: Bytes) -> Result<Bytes, RpcError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.address.uri)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, self.authorization()?)
            .body(Full::new(body))
            .expect("every part of the request was checked before");
        let response =
            self.client.request(request).await.map_err(|error| RpcError::Unreachable(reason(&error)))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(RpcError::Unauthorized);
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| RpcError::Unreachable(error.to_string()))?.to_bytes();
        // Core sends errors with status 404 or 500 and a JSON body that says more than the status.
        if status.is_success() || body.first() == Some(&b'{') {
            Ok(body)
        } else {
            Err(RpcError::Malformed(format!("HTTP status {status}")))
        }
    }

    fn authorization(&self) -> Result<HeaderValue, RpcError> {
        let mut cached = self.authorization.lock().expect("no panic while the lock is held");
        if let Some(header) = &*cached {
            return Ok(header.clone());
        }
        let userpass = match &self.address.credentials {
            Credentials::Password(text) => text.clone(),
            Credentials::Cookie(path) => files::read_text(path, "cookie file")
                .map_err(|error| RpcError::Unreachable(error.to_string()))?,
        };
        let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(userpass.trim()));
        let mut header =
            HeaderValue::from_str(&format!("Basic {}", *encoded)).expect("base64 is visible ASCII");
        header.set_sensitive(true);
        *cached = Some(header.clone());
        Ok(header)
    }

    /// Drops the cached credentials. Returns whether a retry makes sense, with the cookie file read again.
    fn forget_cookie(&self) -> bool {
        *self.authorization.lock().expect("no panic while the lock is held") = None;
        matches!(self.address.credentials, Credentials::Cookie(_))
    }
}

/// The innermost cause, which is the most specific ("Connection refused").
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_gives_host_port_and_password() {
        let node = NodeAddress::parse("http://us%40er:p%3aw@node.example:123/", None, 1).unwrap();
        assert_eq!(node.name(), "node.example:123");
        let Credentials::Password(text) = &node.credentials else { panic!("a password") };
        assert_eq!(text.as_str(), "us@er:p:w");
        let node = NodeAddress::parse("http://[::1]", Some("/c".into()), 8337).unwrap();
        assert_eq!(node.name(), "[::1]:8337");
    }

    #[test]
    fn a_wrong_url_is_named_without_its_password() {
        for (url, expected) in [
            ("https://u:secret@h", "must begin with http://"),
            ("u:secret@h", "must begin with http://"),
            ("http://u:secret@", "is no address"),
            ("http://u:secret@h:99999", "is no address"),
            ("http://u:secret@h:", "is no address"),
            ("http://u:secret@h/wallet", "is no address"),
            ("http://u:secret@h x", "is no address"),
            ("http://u:secret", "is no address"),
            ("http:/u:secret", "must begin with http://"),
            ("http://secret@h", "a user without password"),
            ("http://h", "no cookie file"),
        ] {
            let error = NodeAddress::parse(url, None, 1).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{url}: {error}");
        }
        assert!(NodeAddress::parse("http://u:p@h", Some("/c".into()), 1).is_err());
        assert!(!format!("{:?}", NodeAddress::parse("http://u:secret@h", None, 1)).contains("secret"));
    }
}
