//! Everything that parses untrusted bytes, as functions for fuzzers.
//!
//! Lives here: the targets by name ([`TARGETS`]), the first inputs of each ([`seeds`]), and the mutations of the simple
//! fuzzer ([`mutate`]). Does not live here: the corpora (`fuzz/corpus/TARGET/`, replayed by a normal test) and
//! cargo-fuzz's glue (`fuzz/fuzz_targets/`, a workspace of its own). A target returns if all is well and panics
//! otherwise: each also checks its result, for example by encoding it again or with a second parser.

mod chain;
mod kernels;
mod keys;
mod mercury;
pub mod mutate;
mod registry;
pub mod seeds;

/// A target: accepts any bytes.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("address", keys::address),
    ("admin", chain::admin),
    ("block", chain::block),
    ("coinbase", chain::coinbase),
    ("compact_block", iop_node::fuzzing::compact_block),
    ("frame", iop_node::fuzzing::frame),
    ("index_record", iop_node::fuzzing::index_record),
    ("kernels", kernels::scan),
    ("mercury_envelope", mercury::envelope),
    ("mercury_request", mercury::request),
    ("message", iop_node::fuzzing::message),
    ("network_file", keys::network_file),
    ("peers_file", iop_node::fuzzing::peers_file),
    ("registry", registry::registry),
    ("rpc_envelope", iop_node::fuzzing::rpc_envelope),
    ("script", chain::script),
    ("spend", chain::spend),
    ("stratum_line", iop_stratum::fuzzing::line),
    ("stratum_session", iop_stratum::fuzzing::both_ends),
    ("stratum_submit", iop_stratum::fuzzing::submit),
    ("transaction", chain::transaction),
    ("undo_record", iop_node::fuzzing::undo_record),
];

/// Finds a target by name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
