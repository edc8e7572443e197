//! Script verification flags: bits with the reference's numbers (`script/interpreter.h`).
//!
//! Lives here: the bits, and the sets used by relay. Does not live here: which of them apply to a block (see
//! [`super::flags`]). Every flag only forbids more: a script that passes under a set passes under each subset of it, as
//! long as CLEANSTACK comes with P2SH and WITNESS, and WITNESS with P2SH.

/// The redeem script of a P2SH output is run (BIP16).
pub const P2SH: u32 = 1;
/// Signatures and keys are strictly encoded.
pub const STRICTENC: u32 = 1 << 1;
/// Signatures are strict DER (BIP66).
pub const DERSIG: u32 = 1 << 2;
/// S is in the lower half.
pub const LOW_S: u32 = 1 << 3;
/// The extra element that CHECKMULTISIG takes is empty (BIP147).
pub const NULLDUMMY: u32 = 1 << 4;
/// Input scripts contain only pushes.
pub const SIGPUSHONLY: u32 = 1 << 5;
/// Pushes and numbers are minimal.
pub const MINIMALDATA: u32 = 1 << 6;
/// No-ops reserved for soft forks are not used.
pub const DISCOURAGE_UPGRADABLE_NOPS: u32 = 1 << 7;
/// Exactly one element is left at the end. Only with P2SH and WITNESS.
pub const CLEANSTACK: u32 = 1 << 8;
/// CHECKLOCKTIMEVERIFY (BIP65).
pub const CHECKLOCKTIMEVERIFY: u32 = 1 << 9;
/// CHECKSEQUENCEVERIFY (BIP112).
pub const CHECKSEQUENCEVERIFY: u32 = 1 << 10;
/// Witness programs (BIP141). Only with P2SH.
pub const WITNESS: u32 = 1 << 11;
/// Witness versions above 0 are not used.
pub const DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM: u32 = 1 << 12;
/// The operand of IF in a witness script is empty or a 1.
pub const MINIMALIF: u32 = 1 << 13;
/// A failing signature is empty.
pub const NULLFAIL: u32 = 1 << 14;
/// Keys of witness scripts are compressed.
pub const WITNESS_PUBKEYTYPE: u32 = 1 << 15;

/// The flags that may apply to a block, today or once a deployment is active: the six that `libbitcoinconsensus` knows.
pub const CONSENSUS: u32 = P2SH | DERSIG | NULLDUMMY | CHECKLOCKTIMEVERIFY | CHECKSEQUENCEVERIFY | WITNESS;
/// The flags that every transaction must pass, or its sender is punished (`MANDATORY_SCRIPT_VERIFY_FLAGS`).
pub const MANDATORY: u32 = P2SH;
/// The flags that a transaction must pass to be relayed (`STANDARD_SCRIPT_VERIFY_FLAGS`).
pub const STANDARD: u32 = CONSENSUS
    | STRICTENC
    | LOW_S
    | MINIMALDATA
    | DISCOURAGE_UPGRADABLE_NOPS
    | CLEANSTACK
    | DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM
    | MINIMALIF
    | NULLFAIL
    | WITNESS_PUBKEYTYPE;
