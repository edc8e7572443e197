//! Errors as Core's clients know them (`rpc/protocol.h`).

use std::fmt;

use crate::chain::actor::Stopped;

/// The request object is malformed.
pub(crate) const INVALID_REQUEST: i32 = -32_600;
/// There is no such method.
pub(crate) const METHOD_NOT_FOUND: i32 = -32_601;
/// Arguments that do not go together.
pub(crate) const INVALID_PARAMS: i32 = -32_602;
/// The node itself failed.
pub(crate) const INTERNAL: i32 = -32_603;
/// The body is no JSON.
pub(crate) const PARSE: i32 = -32_700;
/// Anything without a code of its own: wrong types among it.
pub(crate) const MISC: i32 = -1;
/// A value of a type that a method's own check refuses.
pub(crate) const TYPE: i32 = -3;
/// An address or key that cannot be read, or a block that is not known.
pub(crate) const INVALID_ADDRESS_OR_KEY: i32 = -5;
/// The answer would be larger than is given.
pub(crate) const OUT_OF_MEMORY: i32 = -7;
/// A value out of range.
pub(crate) const INVALID_PARAMETER: i32 = -8;
/// The chain could not be changed as asked.
pub(crate) const DATABASE: i32 = -20;
/// A block or transaction that cannot be read.
pub(crate) const DESERIALIZATION: i32 = -22;
/// A peer that was named before.
pub(crate) const NODE_ALREADY_ADDED: i32 = -23;
/// A peer that was not named.
pub(crate) const NODE_NOT_ADDED: i32 = -24;
/// A transaction whose inputs are not known.
pub(crate) const TRANSACTION_ERROR: i32 = -25;
/// A transaction that is refused.
pub(crate) const TRANSACTION_REJECTED: i32 = -26;
/// A transaction that is in a block already.
pub(crate) const TRANSACTION_IN_CHAIN: i32 = -27;

/// The chain is being loaded.
pub(crate) const CLIENT_IN_INITIAL_DOWNLOAD: i32 = -10;
/// A peer that is not connected.
pub(crate) const NODE_NOT_CONNECTED: i32 = -29;
/// The node runs without peers.
pub(crate) const P2P_DISABLED: i32 = -31;

/// What a call answers instead of a result.
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
