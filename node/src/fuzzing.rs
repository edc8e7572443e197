//! What fuzzers call: everything of the node that reads bytes of strangers, as functions of bytes.
//!
//! Lives here: the list of them, for `iop-fuzz-targets`. Does not live here: what they check, which lies beside the
//! code that they try. A target returns if all is well and panics if not. This is no interface for programs.

use crate::{p2p, rpc, storage};

/// What takes a block back, as the database keeps it.
pub fn undo_record(data: &[u8]) {
    storage::fuzzing::undo_record(data);
}

/// A header with its place and status, as the database keeps it.
pub fn index_record(data: &[u8]) {
    storage::fuzzing::index_record(data);
}

/// The envelope of a JSON-RPC call, and the answer's.
pub fn rpc_envelope(data: &[u8]) {
    rpc::fuzzing::rpc_envelope(data);
}

/// A stream of P2P messages.
pub fn frame(data: &[u8]) {
    p2p::fuzzing::frame(data);
}

/// A P2P message: a byte that chooses its kind, and its payload.
pub fn message(data: &[u8]) {
    p2p::fuzzing::message(data);
}

/// A compact block, and what can be put together from it alone.
pub fn compact_block(data: &[u8]) {
    p2p::fuzzing::compact_block(data);
}

/// The file of known addresses, without its checksum.
pub fn peers_file(data: &[u8]) {
    p2p::fuzzing::peers_file(data);
}

/// First inputs of a target with their names.
pub fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "rpc_envelope" => rpc::fuzzing::seeds(),
        "frame" | "message" | "compact_block" | "peers_file" => p2p::fuzzing::seeds(target),
        _ => storage::fuzzing::seeds(target),
    }
}
