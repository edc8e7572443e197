//! Errors with Core's codes (`rpc/protocol.h`).

use std::fmt;

use crate::chain::actor::Stopped;

/// The request object is malformed.
pub(crate) const INVALID_REQUEST: i32 = -32_600;
/// The method does not exist.
pub(crate) const METHOD_NOT_FOUND: i32 = -32_601;
/// Invalid combination of arguments.
pub(crate) const INVALID_PARAMS: i32 = -32_602;
/// The node failed internally.
pub(crate) const INTERNAL: i32 = -32_603;
/// The body is not valid JSON.
pub(crate) const PARSE: i32 = -32_700;
/// Errors without a code of their own, such as wrong types.
pub(crate) const MISC: i32 = -1;
/// A value whose type a method's own check refuses.
pub(crate) const TYPE: i32 = -3;
/// An invalid address or key, or an unknown block.
pub(crate) const INVALID_ADDRESS_OR_KEY: i32 = -5;
/// The answer would be too large.
pub(crate) const OUT_OF_MEMORY: i32 = -7;
/// A value is out of range.
pub(crate) const INVALID_PARAMETER: i32 = -8;
/// The chain could not be changed as requested.
pub(crate) const DATABASE: i32 = -20;
/// A block or transaction that cannot be decoded.
pub(crate) const DESERIALIZATION: i32 = -22;
/// The peer was added before.
pub(crate) const NODE_ALREADY_ADDED: i32 = -23;
/// The peer was not added.
pub(crate) const NODE_NOT_ADDED: i32 = -24;
/// A transaction with unknown inputs.
pub(crate) const TRANSACTION_ERROR: i32 = -25;
/// A transaction that was refused.
pub(crate) const TRANSACTION_REJECTED: i32 = -26;
/// A transaction that is in the chain already.
pub(crate) const TRANSACTION_IN_CHAIN: i32 = -27;

/// The node has no peers.
pub(crate) const CLIENT_NOT_CONNECTED: i32 = -9;
/// The node is in initial block download.
pub(crate) const CLIENT_IN_INITIAL_DOWNLOAD: i32 = -10;
/// The peer is not connected.
pub(crate) const NODE_NOT_CONNECTED: i32 = -29;
/// The node runs without peers.
pub(crate) const P2P_DISABLED: i32 = -31;

/// The error of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RpcError {
    /// One of the codes above.
    pub(crate) code: i32,
    /// One line.
    pub(crate) message: String,
}

impl RpcError {
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl From<Stopped> for RpcError {
    fn from(_: Stopped) -> Self {
        Self::new(INTERNAL, "the node is stopping")
    }
}
