//! The consensus errors: one variant per rule, with what was found and what was expected.
//!
//! [`BlockError::reject_reason`] is the reference's reject string, which miners and scripts compare; `Display` is for
//! people. [`TxError`] has the rules of a single transaction, which blocks and the mempool share.

use std::borrow::Cow;

use bitcoin::{BlockHash, OutPoint, TxMerkleNode, Txid};

use crate::address::Address;
use crate::script::ScriptFailure;

/// The rule that a transaction breaks. Amounts are in base units.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// No inputs.
    #[error("the transaction has no inputs")]
    NoInputs,
    /// No outputs.
    #[error("the transaction has no outputs")]
    NoOutputs,
    /// Larger than a block may be, without witness.
    #[error("the transaction has {found} bytes without witness, at most {at_most} fit in a block")]
    Oversize {
        /// Bytes without witness.
        found: u64,
        /// The limit in bytes.
        at_most: u64,
    },
    /// An amount with the sign bit set.
    #[error("output {output} has the negative amount {found}")]
    NegativeOutput {
        /// Index of the output.
        output: usize,
        /// The amount.
        found: i64,
    },
    /// An amount above the money range.
    #[error("output {output} has {found} base units, more than can exist")]
    OutputTooLarge {
        /// Index of the output.
        output: usize,
        /// The amount.
        found: u64,
    },
    /// The outputs' sum is above the money range.
    #[error("the outputs sum to {found} base units, more than can exist")]
    OutputTotalTooLarge {
        /// The sum so far.
        found: u64,
    },
    /// The same output spent twice (CVE-2018-17144).
    #[error("the transaction spends {0} twice")]
    DuplicateInput(OutPoint),
    /// A coinbase script outside 2 to 300 bytes.
    #[error("the coinbase script has {found} bytes, 2 to 300 expected")]
    CoinbaseScriptLength {
        /// Its bytes.
        found: usize,
    },
    /// The null outpoint in a transaction that is not a coinbase.
    #[error("input {input} spends the null outpoint")]
    NullInput {
        /// Index of the input.
        input: usize,
    },
    /// Its lock time has not passed.
    #[error("transaction {0} is not final at this height and time")]
    NotFinal(Txid),
    /// A relative lock time has not passed (BIP68).
    #[error("transaction {0} spends an output before its relative lock time has passed")]
    NotBip68Final(Txid),
    /// An output that does not exist or is spent.
    #[error("{0} does not exist or is spent")]
    MissingInput(OutPoint),
    /// A coinbase output spent before it matured.
    #[error("{outpoint} is a coinbase output of depth {depth}, spendable from depth 100 on")]
    ImmatureCoinbase {
        /// The output.
        outpoint: OutPoint,
        /// Blocks on top of it.
        depth: u32,
    },
    /// The inputs' sum is outside the money range.
    #[error("the inputs' amounts leave the money range")]
    InputsOutOfRange,
    /// The outputs sum to more than the inputs.
    #[error("the inputs sum to {value_in} base units, the outputs to {value_out}")]
    InBelowOut {
        /// Sum of inputs.
        value_in: u64,
        /// Sum of outputs.
        value_out: u64,
    },
    /// A script failed.
    #[error(transparent)]
    Script(#[from] ScriptFailure),
}

impl TxError {
    /// The reject string of the reference (`tx_verify.cpp`, `validation.cpp`).
    pub fn reject_reason(&self) -> &'static str {
        match self {
            Self::NoInputs => "bad-txns-vin-empty",
            Self::NoOutputs => "bad-txns-vout-empty",
            Self::Oversize { .. } => "bad-txns-oversize",
            Self::NegativeOutput { .. } => "bad-txns-vout-negative",
            Self::OutputTooLarge { .. } => "bad-txns-vout-toolarge",
            Self::OutputTotalTooLarge { .. } => "bad-txns-txouttotal-toolarge",
            Self::DuplicateInput(_) => "bad-txns-inputs-duplicate",
            Self::CoinbaseScriptLength { .. } => "bad-cb-length",
            Self::NullInput { .. } => "bad-txns-prevout-null",
            Self::NotFinal(_) | Self::NotBip68Final(_) => "bad-txns-nonfinal",
            Self::MissingInput(_) => "bad-txns-inputs-missingorspent",
            Self::ImmatureCoinbase { .. } => "bad-txns-premature-spend-of-coinbase",
            Self::InputsOutOfRange => "bad-txns-inputvalues-outofrange",
            Self::InBelowOut { .. } => "bad-txns-in-belowout",
            // As in the reference with more than one script thread; with one it names the flag.
            Self::Script(_) => "block-validation-failed",
        }
    }
}

/// Why a coinbase does not license its block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LicenseError {
    /// The first op is not a strict DER signature with a hash-type byte.
    #[error("the coinbase script's first op is no strictly DER-encoded signature ({found} bytes)")]
    SignatureEncoding {
        /// Bytes of the first op's data.
        found: usize,
    },
    /// The last op is not a public key.
    #[error("the coinbase script's last op is no public key ({found} bytes)")]
    PublicKeyEncoding {
        /// Bytes of the last op's data.
        found: usize,
    },
    /// The signature does not verify with the key over this coinbase.
    #[error("the coinbase signature does not verify with the coinbase's public key")]
    SignatureInvalid,
    /// The key's license is not whitelisted as of the parent block.
    #[error("the license is not whitelisted")]
    NotWhitelisted(Address),
    /// The license has reached its cap in the window.
    #[error("the license has {blocks} blocks in the window, its cap is {cap}")]
    CapExceeded {
        /// The license.
        license: Address,
        /// Its blocks in the window.
        blocks: u32,
        /// The cap.
        cap: u32,
    },
    /// The license mined one of the two previous blocks.
    #[error("the license mined block {last_block} and may not mine again before two others")]
    TooFast {
        /// The license.
        license: Address,
        /// Height of its last block.
        last_block: u32,
    },
}

impl LicenseError {
    /// The reject string of the reference (`ConnectBlock`).
    pub fn reject_reason(&self) -> &'static str {
        match self {
            Self::SignatureEncoding { .. } | Self::SignatureInvalid => "bad-CB-signature",
            Self::PublicKeyEncoding { .. } => "bad-CB-publickey",
            Self::NotWhitelisted(_) => "bad-CB-miner",
            Self::CapExceeded { .. } | Self::TooFast { .. } => "bad-CAP-miner",
        }
    }
}

/// The rule that a block breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The hash is above the target, or the target above the limit.
    #[error("hash {hash} does not meet the target of bits {bits:08x}")]
    HighHash {
        /// The block's hash.
        hash: BlockHash,
        /// Its bits.
        bits: u32,
    },
    /// The bits are not the required ones.
    #[error("bits are {found:08x}, {expected:08x} expected")]
    BadDifficultyBits {
        /// The bits in the header.
        found: u32,
        /// The required bits.
        expected: u32,
    },
    /// A fork below the last checkpoint.
    #[error("height {height} forks off below the checkpoint at {checkpoint}")]
    ForkBeforeCheckpoint {
        /// The block's height.
        height: u32,
        /// The checkpoint's height.
        checkpoint: u32,
    },
    /// The time is not after the median of the eleven blocks before.
    #[error("time {found} is not after the median time past {after}")]
    TimeTooOld {
        /// Header time, seconds.
        found: u32,
        /// Median time past, seconds.
        after: u32,
    },
    /// The time is more than two hours ahead.
    #[error("time {found} is later than {at_most}")]
    TimeTooNew {
        /// Header time, seconds.
        found: u32,
        /// The latest allowed, seconds.
        at_most: u64,
    },
    /// The version is below BIP9's.
    #[error("version {:08x} is below 20000000", *found as u32)]
    BadVersion {
        /// The version.
        found: i32,
    },
    /// The header commits to other transactions.
    #[error("merkle root is {found}, the transactions' is {expected}")]
    MerkleRoot {
        /// The root in the header.
        found: TxMerkleNode,
        /// The root of the transactions.
        expected: TxMerkleNode,
    },
    /// Repeated transactions that leave the merkle root unchanged (CVE-2012-2459).
    #[error("the transaction list repeats a part of itself without changing the merkle root")]
    DuplicateTransactions,
    /// No transactions, or too large without witness.
    #[error(
        "the block has {transactions} transactions and {bytes} bytes without witness, 1 to 1000000 bytes expected"
    )]
    Length {
        /// Count of transactions.
        transactions: usize,
        /// Bytes without witness.
        bytes: u64,
    },
    /// The first transaction is not a coinbase.
    #[error("the first transaction is not a coinbase")]
    CoinbaseMissing,
    /// Another transaction is a coinbase.
    #[error("transaction {index} is a second coinbase")]
    CoinbaseMultiple {
        /// Its index.
        index: usize,
    },
    /// Too many signature operations.
    #[error("signature operations cost {found}, at most {at_most} allowed")]
    SigOps {
        /// The cost so far.
        found: u64,
        /// The limit.
        at_most: u64,
    },
    /// The coinbase's witness is not one element of 32 bytes.
    #[error("the coinbase witness must be one element of 32 bytes")]
    WitnessNonceSize,
    /// The commitment is to another witness tree.
    #[error("the coinbase commits to another witness tree")]
    WitnessCommitment,
    /// Witness without commitment.
    #[error("transaction {index} has a witness, and the block commits to none")]
    UnexpectedWitness {
        /// Index of the transaction.
        index: usize,
    },
    /// The weight is above the limit.
    #[error("the block weighs {found}, at most 4000000 allowed")]
    Weight {
        /// Its weight.
        found: u64,
    },
    /// An unspent output would be overwritten (BIP30).
    #[error("output {0} exists and is unspent")]
    Bip30(OutPoint),
    /// The coinbase does not license the block.
    #[error(transparent)]
    License(#[from] LicenseError),
    /// A transaction breaks a rule.
    #[error("transaction {txid}: {error}")]
    Tx {
        /// The transaction.
        txid: Txid,
        /// The rule.
        error: TxError,
    },
    /// The coinbase pays more than subsidy and fees.
    #[error("the coinbase pays {found} base units, at most {at_most} allowed")]
    CoinbaseAmount {
        /// The amount it pays.
        found: u64,
        /// Subsidy and fees.
        at_most: u64,
    },
}

impl BlockError {
    /// The reject string of the reference.
    pub fn reject_reason(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::HighHash { .. } => "high-hash",
            Self::BadDifficultyBits { .. } => "bad-diffbits",
            Self::ForkBeforeCheckpoint { .. } => "bad-fork-prior-to-checkpoint",
            Self::TimeTooOld { .. } => "time-too-old",
            Self::TimeTooNew { .. } => "time-too-new",
            Self::BadVersion { found } => return Cow::Owned(format!("bad-version(0x{:08x})", *found as u32)),
            Self::MerkleRoot { .. } => "bad-txnmrklroot",
            Self::DuplicateTransactions => "bad-txns-duplicate",
            Self::Length { .. } => "bad-blk-length",
            Self::CoinbaseMissing => "bad-cb-missing",
            Self::CoinbaseMultiple { .. } => "bad-cb-multiple",
            Self::SigOps { .. } => "bad-blk-sigops",
            Self::WitnessNonceSize => "bad-witness-nonce-size",
            Self::WitnessCommitment => "bad-witness-merkle-match",
            Self::UnexpectedWitness { .. } => "unexpected-witness",
            Self::Weight { .. } => "bad-blk-weight",
            Self::Bip30(_) => "bad-txns-BIP30",
            Self::License(error) => error.reject_reason(),
            Self::Tx { error, .. } => error.reject_reason(),
            Self::CoinbaseAmount { .. } => "bad-cb-amount",
        })
    }

    /// Whether a valid block with the same header may still exist: the fault may be in data that the header's hash
    /// does not cover, so the header must not be marked invalid (`CorruptionPossible`).
    pub fn corruption_possible(&self) -> bool {
        matches!(
            self,
            Self::MerkleRoot { .. }
                | Self::DuplicateTransactions
                | Self::WitnessNonceSize
                | Self::WitnessCommitment
                | Self::UnexpectedWitness { .. }
        )
    }
}
