//! Why a transaction is refused, in the reference's words.
//!
//! Lives here: one variant per reason, with its code, its string, a detail for the log, and the misbehaviour score
//! for the sender (`CValidationState`). Does not live here: which peer the score is charged to; that is the
//! network's part.

use std::borrow::Cow;

use bitcoin::Txid;
use iop_consensus::error::TxError;
use iop_consensus::script::interpreter::ScriptError;

/// Breaks a rule (`REJECT_INVALID`).
const INVALID: u8 = 0x10;
/// Known already, or conflicts with a known one (`REJECT_DUPLICATE`).
const DUPLICATE: u8 = 0x12;
/// Against policy (`REJECT_NONSTANDARD`).
const NONSTANDARD: u8 = 0x40;
/// Pays too little (`REJECT_INSUFFICIENTFEE`).
const INSUFFICIENT_FEE: u8 = 0x42;
/// Pays too much. Never sent to peers (`REJECT_HIGHFEE`).
const HIGH_FEE: u16 = 0x100;

/// Why a transaction is not accepted. Amounts are base units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// It breaks a rule of the chain.
    Rule(TxError),
    /// It spends an output that is neither in the chain nor in the pool; its parent may not have arrived yet.
    MissingInputs,
    /// It is a coinbase.
    Coinbase,
    /// It has a witness, and segwit is not active.
    PrematureWitness,
    /// It is not standard; the reference's name for why.
    NonStandard(&'static str),
    /// Its lock time has not passed.
    NotFinal,
    /// Its relative lock time has not passed.
    NotBip68Final,
    /// One of its outputs is in the chain already.
    AlreadyInChain,
    /// It is in the pool already.
    AlreadyHere,
    /// It spends the same output as a transaction in the pool that does not signal replaceability.
    Conflict(Txid),
    /// An output that it spends has no standard form, or its redeem script has too many signature operations.
    NonStandardInputs,
    /// A witness that no standard script needs.
    NonStandardWitness,
    /// Its signature operations cost too much.
    TooManySigops(u64),
    /// It pays less than the pool's current minimum.
    MempoolFee {
        /// The fee it pays.
        found: i64,
        /// The least fee it must pay.
        at_least: u64,
    },
    /// It pays less than the minimum relay fee.
    RelayFee,
    /// Its fee is so high that it must be a mistake.
    FeeTooHigh {
        /// The fee it pays.
        found: i64,
        /// The highest fee it may pay.
        at_most: u64,
    },
    /// It has too many unconfirmed relatives; the limit that is exceeded.
    TooLongChain(String),
    /// It spends an output of a transaction that it would replace.
    SpendsConflicting(Txid),
    /// It does not pay enough for the replacement; the rule that is violated.
    ReplacementFee(String),
    /// It would replace too many transactions.
    TooManyReplaced(u64),
    /// It is a replacement with an unconfirmed parent that the replaced transactions did not have.
    ReplacementAddsUnconfirmed(usize),
    /// A script fails.
    Script {
        /// The failure.
        error: ScriptError,
        /// Whether it also fails under the consensus rules.
        mandatory: bool,
        /// Whether it would pass if its witness had not been stripped.
        witness_stripped: bool,
    },
    /// The pool has no room.
    Full,
}

impl Reject {
    /// The reference's reject code; codes above 255 are never sent to peers. Missing inputs have none.
    pub fn code(&self) -> u16 {
        u16::from(match self {
            Self::FeeTooHigh { .. } => return HIGH_FEE,
            Self::MissingInputs => 0,
            Self::Rule(_) | Self::Coinbase | Self::SpendsConflicting(_) => INVALID,
            Self::Script { mandatory: true, .. } => INVALID,
            Self::AlreadyInChain | Self::AlreadyHere | Self::Conflict(_) => DUPLICATE,
            Self::MempoolFee { .. } | Self::RelayFee | Self::ReplacementFee(_) | Self::Full => {
                INSUFFICIENT_FEE
            }
            _ => NONSTANDARD,
        })
    }

    /// The reference's reject string.
    pub fn reason(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Rule(error) => error.reject_reason(),
            Self::MissingInputs => "bad-txns-inputs-missingorspent",
            Self::Coinbase => "coinbase",
            Self::PrematureWitness => "no-witness-yet",
            Self::NonStandard(reason) => reason,
            Self::NotFinal => "non-final",
            Self::NotBip68Final => "non-BIP68-final",
            Self::AlreadyInChain => "txn-already-known",
            Self::AlreadyHere => "txn-already-in-mempool",
            Self::Conflict(_) => "txn-mempool-conflict",
            Self::NonStandardInputs => "bad-txns-nonstandard-inputs",
            Self::NonStandardWitness => "bad-witness-nonstandard",
            Self::TooManySigops(_) => "bad-txns-too-many-sigops",
            Self::MempoolFee { .. } => "mempool min fee not met",
            Self::RelayFee => "min relay fee not met",
            Self::FeeTooHigh { .. } => "absurdly-high-fee",
            Self::TooLongChain(_) => "too-long-mempool-chain",
            Self::SpendsConflicting(_) => "bad-txns-spends-conflicting-tx",
            Self::ReplacementFee(_) => "insufficient fee",
            Self::TooManyReplaced(_) => "too many potential replacements",
            Self::ReplacementAddsUnconfirmed(_) => "replacement-adds-unconfirmed",
            Self::Script { error, mandatory: true, .. } => {
                return Cow::Owned(format!("mandatory-script-verify-flag-failed ({error})"));
            }
            Self::Script { error, mandatory: false, .. } => {
                return Cow::Owned(format!("non-mandatory-script-verify-flag ({error})"));
            }
            Self::Full => "mempool full",
        })
    }

    /// Code and string together.
    pub fn code_and_reason(&self) -> (u16, Cow<'static, str>) {
        (self.code(), self.reason())
    }

    /// Details beyond the reject string, for the log; often empty.
    pub fn detail(&self) -> String {
        match self {
            Self::Rule(error) => error.to_string(),
            Self::TooManySigops(cost) => cost.to_string(),
            Self::MempoolFee { found, at_least } => format!("{found} < {at_least}"),
            Self::FeeTooHigh { found, at_most } => format!("{found} > {at_most}"),
            Self::TooLongChain(limit) => limit.clone(),
            Self::Conflict(txid) | Self::SpendsConflicting(txid) => txid.to_string(),
            Self::ReplacementFee(rule) => rule.clone(),
            Self::TooManyReplaced(count) => format!("{count} > {}", super::rbf::MAX_REPLACED),
            Self::ReplacementAddsUnconfirmed(input) => format!("input {input}"),
            _ => String::new(),
        }
    }

    /// The misbehaviour score for the peer that sent it (`nDoS`). Zero if the witness may have been changed in
    /// transit, and for anything that another node's policy might allow.
    pub fn misbehaviour(&self) -> u32 {
        match self {
            Self::Rule(TxError::NoInputs | TxError::NoOutputs | TxError::NullInput { .. }) => 10,
            Self::Rule(TxError::ImmatureCoinbase { .. } | TxError::MissingInput(_)) => 0,
            Self::Rule(_) | Self::Coinbase => 100,
            Self::SpendsConflicting(_) => 10,
            Self::Script { mandatory: true, .. } => 100,
            _ => 0,
        }
    }

    /// Whether the same transaction could be valid with another witness; then its id must not be remembered as
    /// refused (`CorruptionPossible`).
    pub fn witness_may_differ(&self) -> bool {
        matches!(
            self,
            Self::PrematureWitness | Self::NonStandardWitness | Self::Script { witness_stripped: true, .. }
        )
    }
}
