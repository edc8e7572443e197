//! Entry points for fuzzers: all parsers of untrusted bytes in the node, as functions of bytes.
//!
//! Lives here: the list, for `iop-fuzz-targets`. Does not live here: the checks, which are next to the code they
//! test. A target returns if all is well and panics if not. This is not a public interface.

use crate::{p2p, rpc, storage};

/// A block's undo data as stored in the database.
pub fn undo_record(data: &[u8]) {
    storage::fuzzing::undo_record(data);
}

/// An index record as stored in the database.
pub fn index_record(data: &[u8]) {
    storage::fuzzing::index_record(data);
}

/// The envelopes of a JSON-RPC call and its answer.
pub fn rpc_envelope(data: &[u8]) {
    rpc::fuzzing::rpc_envelope(data);
}

/// A stream of P2P messages.
pub fn frame(data: &[u8]) {
    p2p::fuzzing::frame(data);
}

/// A P2P message: a byte that selects its type, and its payload.
pub fn message(data: &[u8]) {
    p2p::fuzzing::message(data);
}

/// A compact block, and its reconstruction without other transactions.
pub fn compact_block(data: &[u8]) {
    p2p::fuzzing::compact_block(data);
}

/// The file of known addresses, without its checksum.
pub fn peers_file(data: &[u8]) {
    p2p::fuzzing::peers_file(data);
}

/// The named seed inputs of a target.
pub fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "rpc_envelope" => rpc::fuzzing::seeds(),
        "frame" | "message" | "compact_block" | "peers_file" => p2p::fuzzing::seeds(target),
        _ => storage::fuzzing::seeds(target),
    }
}
