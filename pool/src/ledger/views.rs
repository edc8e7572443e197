//! Views of the ledger for people: the window, payouts by block, a member's account. JSON and CSV.

use std::fmt::Write;
use std::ops::Range;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use iop_consensus::address::Address;
use serde::{Serialize, Serializer};

use super::book::{Book, Facts, MATURITY};
use super::share::difficulty_of;
use super::split::{Credit, Scheme};
use super::store::BlockId;
use super::{Ledger, LedgerError};

/// Blocks in one answer in JSON at most, the latest ones; CSV has all.
pub(crate) const MAX_BLOCKS: usize = 200;
/// Blocks that are read at once for CSV: some 200 KB of text with usual coinbases.
const PART_BLOCKS: usize = 50;
/// Members in one answer at most, those with most work.
const MAX_MEMBERS: usize = 1000;

/// State of a block, from the ledger's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not yet in the chain that templates build on.
    Pending,
    /// In the chain; its coins cannot be spent yet.
    Immature,
    /// In the chain; its coins can be spent.
    Mature,
    /// Not in the chain: it paid no one.
    Orphaned,
}

impl State {
    /// The name in JSON and CSV.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Immature => "immature",
            Self::Mature => "mature",
            Self::Orphaned => "orphaned",
        }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// The state of a block while height `next` is being mined (0 before the first template).
fn state(book: &Book, id: &BlockId, next: u32) -> State {
    if book.is_in_chain(id) {
        let on_top = next.saturating_sub(id.height);
        return if on_top >= MATURITY { State::Mature } else { State::Immature };
    }
    if id.height >= next { State::Pending } else { State::Orphaned }
}

/// Whom an amount goes to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A member.
    #[default]
    Member,
    /// The chapter.
    Chapter,
}

impl Role {
    /// The name in JSON and CSV.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Chapter => "chapter",
        }
    }
}

/// An output of a coinbase to an address.
#[derive(Debug, Serialize)]
pub struct Output {
    /// In this network's format.
    pub address: String,
    /// In base units.
    pub amount: u64,
    /// Who that is.
    pub role: Role,
}

/// A block and its payments.
#[derive(Debug, Serialize)]
pub struct BlockPayout {
    height: u32,
    hash: String,
    time: u64,
    license: String,
    finder: String,
    state: State,
    reward: u64,
    fee: u64,
    paid: u64,
    carried: u64,
    outputs: Vec<Output>,
}

/// `/api/v1/payouts`.
#[derive(Debug, Serialize)]
pub struct Payouts {
    scheme: Scheme,
    fee: f64,
    min_payout: u64,
    max_outputs: usize,
    window: f64,
    /// Amounts carried now, over all members.
    carried: u64,
    blocks: Vec<BlockPayout>,
}

/// A member's credits in a block.
#[derive(Debug, Serialize)]
pub struct MemberBlock {
    height: u32,
    hash: String,
    time: u64,
    state: State,
    earned: u64,
    paid: u64,
}

/// `/api/v1/payouts?address=…`.
#[derive(Debug, Serialize)]
pub struct Member {
    address: String,
    /// Owed and not yet paid.
    balance: u64,
    /// Over all blocks in the chain.
    earned: u64,
    paid: u64,
    /// The member's part of the window's work.
    window_part: f64,
    /// The member's earnings if a block were found now.
    estimate: u64,
    /// Blocks that the member has a part of; `blocks` may be the latest of them only.
    blocks_in_all: usize,
    blocks: Vec<MemberBlock>,
}

/// A member's work in the window.
#[derive(Debug, Serialize)]
pub struct MemberWork {
    address: String,
    work: f64,
    part: f64,
}

/// The window in `/api/v1/shares`.
#[derive(Debug, Serialize)]
pub struct WindowView {
    work: f64,
    wanted: f64,
    shares: u64,
    begins: u64,
}

/// `/api/v1/shares`.
#[derive(Debug, Serialize)]
pub struct Shares {
    logged: u64,
    trouble: Option<String>,
    window: WindowView,
    members: Vec<MemberWork>,
}

impl Ledger {
    /// The latest blocks and their payments.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn payouts(&self, next_height: u32) -> Result<Payouts, LedgerError> {
        let rules = self.rules();
        let newest = self.store().newest_blocks(None, MAX_BLOCKS)?;
        let (states, carried) = self.read(|_, book| {
            let states: Vec<State> = newest.iter().map(|(id, _)| state(book, id, next_height)).collect();
            (states, book.carried())
        });
        let blocks =
            newest.iter().zip(states).map(|((id, facts), state)| self.block_payout(id, facts, state));
        Ok(Payouts {
            scheme: rules.scheme,
            fee: f64::from(rules.fee) / f64::from(super::split::FEE_UNIT),
            min_payout: rules.min_payout,
            max_outputs: rules.max_outputs,
            window: rules.window,
            carried: carried.values().sum(),
            blocks: blocks.collect::<Result<_, _>>()?,
        })
    }

    fn block_payout(&self, id: &BlockId, facts: &Facts, state: State) -> Result<BlockPayout, LedgerError> {
        let outputs = self.outputs(id, facts)?;
        let members = outputs.iter().filter(|output| output.role == Role::Member);
        Ok(BlockPayout {
            height: id.height,
            hash: id.hash.to_string(),
            time: facts.time,
            license: facts.license.clone(),
            finder: facts.finder.clone(),
            state,
            reward: facts.reward,
            fee: facts.fee,
            paid: members.map(|output| output.amount).sum(),
            carried: self.sums.get(id, || Ok(self.store().carried(id)?.values().sum()))?,
            outputs,
        })
    }

    /// What a block's coinbase pays: members, largest first, then the chapter.
    fn outputs(&self, id: &BlockId, facts: &Facts) -> Result<Vec<Output>, LedgerError> {
        let mut outputs: Vec<Output> = (self.store().credits(id)?.into_iter())
            .filter(|(_, credit)| credit.paid > 0)
            .map(|(member, credit)| Output {
                address: member.to_base58(self.prefixes()),
                amount: credit.paid,
                role: Role::Member,
            })
            .collect();
        outputs.sort_by(|one, other| {
            other.amount.cmp(&one.amount).then_with(|| one.address.cmp(&other.address))
        });
        if facts.chapter > 0 {
            let (address, amount) = (facts.chapter_address.clone(), facts.chapter);
            outputs.push(Output { address, amount, role: Role::Chapter });
        }
        Ok(outputs)
    }

    /// The blocks of these heights as CSV, the latest first, with a line for each output; `take` gets it in parts, and
    /// no more once it returns false. So memory is bounded however many blocks there are. A block's state is that of the
    /// moment at which its part is made.
    ///
    /// No field contains a comma, a quote or a line end, except that user names, which are checked when they come in,
    /// may contain commas; so those are quoted.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn payouts_csv(
        &self,
        heights: Range<u32>,
        next_height: u32,
        mut take: impl FnMut(String) -> bool,
    ) -> Result<(), LedgerError> {
        let mut csv = String::from("height,hash,time,state,license,finder,address,amount,role,reward,fee\n");
        // No block has this hash.
        let mut below = BlockId { height: heights.end, hash: BlockHash::all_zeros() };
        loop {
            let mut blocks = self.store().newest_blocks(Some(&below), PART_BLOCKS)?;
            blocks.retain(|(id, _)| id.height >= heights.start);
            let states: Vec<State> =
                self.read(|_, book| blocks.iter().map(|(id, _)| state(book, id, next_height)).collect());
            for ((id, facts), state) in blocks.iter().zip(states) {
                let (state, finder) = (state.word(), quoted(&facts.finder));
                let Facts { time, license, reward, fee, .. } = facts;
                for Output { address, amount, role } in self.outputs(id, facts)? {
                    let (BlockId { height, hash }, role) = (id, role.word());
                    let _ = writeln!(
                        csv,
                        "{height},{hash},{time},{state},{license},{finder},{address},{amount},{role},{reward},{fee}"
                    ); // writing to a String cannot fail
                }
            }
            if !take(std::mem::take(&mut csv)) || blocks.len() < PART_BLOCKS {
                return Ok(());
            }
            below = blocks[PART_BLOCKS - 1].0;
        }
    }

    /// A member's account with so many of its blocks at most, the latest ones. `reward` is what a block brings now, in base
    /// units.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn member(
        &self,
        member: &Address,
        next_height: u32,
        reward: u64,
        limit: usize,
    ) -> Result<Member, LedgerError> {
        let credits = self.store().credits_of(member)?;
        let (states, balance, part) = self.read(|window, book| {
            let states: Vec<State> = credits.iter().map(|(id, _)| state(book, id, next_height)).collect();
            let part = match window.total() {
                0 => 0.0,
                total => window.work_of(member) as f64 / total as f64,
            };
            (states, book.carried().get(member).copied().unwrap_or(0), part)
        });
        let (mut earned, mut paid) = (0, 0);
        for ((_, credit), state) in credits.iter().zip(&states) {
            if matches!(state, State::Immature | State::Mature) {
                earned += credit.earned;
                paid += credit.paid;
            }
        }
        let blocks_in_all = credits.len();
        let newest = credits.into_iter().zip(states).rev().take(limit);
        let blocks = newest.map(|((id, credit), state)| self.member_block(id, credit, state));
        let after_fee = 1.0 - f64::from(self.rules().fee) / f64::from(super::split::FEE_UNIT);
        // In solo mode the finder earns the whole block.
        let of_block = if self.rules().scheme == Scheme::Solo { 1.0 } else { part };
        Ok(Member {
            address: member.to_base58(self.prefixes()),
            balance,
            earned,
            paid,
            window_part: part,
            estimate: (reward as f64 * after_fee * of_block) as u64,
            blocks_in_all,
            blocks: blocks.collect::<Result<_, _>>()?,
        })
    }

    fn member_block(&self, id: BlockId, credit: Credit, state: State) -> Result<MemberBlock, LedgerError> {
        Ok(MemberBlock {
            height: id.height,
            hash: id.hash.to_string(),
            time: self.store().facts(&id)?.map_or(0, |facts| facts.time),
            state,
            earned: credit.earned,
            paid: credit.paid,
        })
    }

    /// The log and its window.
    #[must_use]
    pub fn shares(&self) -> Shares {
        let log = self.log_state();
        let (view, total, work) = self.read(|window, _| {
            let range = window.range();
            let view = WindowView {
                work: difficulty_of(window.total()),
                wanted: difficulty_of(window.wanted()),
                shares: range.end - range.start,
                begins: range.start,
            };
            (view, window.total(), window.work())
        });
        let mut members: Vec<(Address, u128)> = work.into_iter().collect();
        members.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        members.truncate(MAX_MEMBERS);
        let shown = |(member, work): (Address, u128)| MemberWork {
            address: member.to_base58(self.prefixes()),
            work: difficulty_of(work),
            part: work as f64 / total as f64,
        };
        let members = members.into_iter().map(shown).collect();
        Shares { logged: log.logged, trouble: log.trouble, window: view, members }
    }
}

impl Member {
    /// A line for each block.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut csv = String::from("height,hash,time,state,address,earned,paid\n");
        for block in &self.blocks {
            let MemberBlock { height, hash, time, earned, paid, .. } = block;
            let state = block.state.word();
            let _ = writeln!(csv, "{height},{hash},{time},{state},{},{earned},{paid}", self.address);
        }
        csv
    }
}

/// Quotes a CSV field (RFC 4180). One that a spreadsheet would take for a formula gets an apostrophe in front.
pub(super) fn quoted(field: &str) -> String {
    let shield = if field.starts_with(['=', '+', '-', '@', '\t']) { "'" } else { "" };
    format!("\"{shield}{}\"", field.replace('"', "\"\""))
}
