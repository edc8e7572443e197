//! Block templates and license states, as read from a node and checked.

use std::fmt;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use iop_consensus::MAX_MONEY;
use iop_consensus::address::Address;
use iop_consensus::params::Params;
use iop_stratum::difficulty::Target;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::rpc::{CALL_TIME, Node, RpcError, read_answer};
use crate::tips::Syncing;

/// A block to be mined, without its coinbase.
#[derive(Debug, Clone)]
pub struct Template {
    /// Height of the block.
    pub height: u32,
    /// The tip that the block builds on.
    pub parent: BlockHash,
    /// The header's version.
    pub version: u32,
    /// The header's target, in compact form.
    pub bits: u32,
    /// The header's target.
    pub target: Target,
    /// The header's initial time, in seconds since 1970.
    pub time: u32,
    /// The lowest time that the header may have.
    pub min_time: u32,
    /// The highest time that the header may have with these bits; `u32::MAX` if the node names none. Test networks have
    /// one: their difficulty falls when no block has come for long.
    pub max_time: u32,
    /// The most that the coinbase may pay, in base units: subsidy and fees.
    pub coinbase_value: u64,
    /// The output script that commits to the witnesses, if segwit is active.
    pub witness_commitment: Option<Vec<u8>>,
    /// Txids of the transactions in block order, in the byte order that SHA-256 gives.
    pub txids: Vec<[u8; 32]>,
    /// The serialised transactions in block order, concatenated.
    pub transactions: Vec<u8>,
    /// Whether the block needs a license.
    pub license_required: bool,
    /// How many outputs to addresses fit into the coinbase, by weight and by signature operations.
    pub outputs_room: usize,
    /// The id for a long poll that the node answers once this template is out of date.
    pub long_poll_id: Option<String>,
}

/// Long or numerous fields borrow from the answer, so that the hex of a full block is not copied.
#[derive(Deserialize)]
struct WireTemplate<'a> {
    height: u32,
    previousblockhash: BlockHash,
    version: i64,
    bits: String,
    curtime: u32,
    mintime: u32,
    maxtime: Option<u32>,
    coinbasevalue: u64,
    #[serde(borrow)]
    transactions: Vec<WireTransaction<'a>>,
    default_witness_commitment: Option<String>,
    longpollid: Option<String>,
    license: Option<WireLicense>,
    weightlimit: Option<u64>,
    sizelimit: Option<u64>,
    sigoplimit: Option<u64>,
}

#[derive(Deserialize)]
struct WireTransaction<'a> {
    data: &'a str,
    txid: &'a str,
    weight: Option<u64>,
    sigops: Option<u64>,
}

#[derive(Deserialize)]
struct WireLicense {
    required: bool,
}

/// Weight of our coinbase without its outputs to addresses (223 bytes with the longest script and the widest counts, 38
/// of witness, 47 of commitment), plus the weight of the header and the transaction count.
const COINBASE_WEIGHT: u64 = 4 * 223 + 38 + 4 * 47 + 4 * (80 + 5);
/// Weight of an output to an address (P2PKH: 34 bytes; P2SH: two less).
const OUTPUT_WEIGHT: u64 = 4 * 34;
/// Weight of one byte of a block without witnesses, and cost of one signature operation (BIP141).
const SCALE: u64 = 4;
/// Room if the node does not state its limits: Core reserves 4,000 weight units, which hold this many outputs.
const USUAL_ROOM: u64 = 18;

impl WireTemplate<'_> {
    /// Nodes leave some room for the coinbase. One output more than fits would make the block invalid.
    fn outputs_room(&self) -> Result<usize, RpcError> {
        // Before segwit is active, Core gives sizes and plain counts of signature operations.
        let limit = self.weightlimit.or(self.sizelimit.map(|size| size.saturating_mul(SCALE)));
        let output_sigops = if self.weightlimit.is_some() { SCALE } else { 1 };
        let weight = sum("weights", self.transactions.iter().map(|tx| tx.weight))?;
        let sigops = sum("sigops", self.transactions.iter().map(|tx| tx.sigops))?;
        let by_weight = limit.zip(weight).map_or(USUAL_ROOM, |(limit, used)| {
            limit.saturating_sub(used).saturating_sub(COINBASE_WEIGHT) / OUTPUT_WEIGHT
        });
        let by_sigops = self
            .sigoplimit
            .zip(sigops)
            .map_or(USUAL_ROOM, |(limit, used)| limit.saturating_sub(used) / output_sigops);
        Ok(usize::try_from(by_weight.min(by_sigops)).unwrap_or(usize::MAX))
    }

    fn check(self) -> Result<Template, RpcError> {
        let wrong = |field: &str| RpcError::Malformed(format!("getblocktemplate: {field}"));
        let bits = u32::from_str_radix(&self.bits, 16).map_err(|_| wrong("bits"))?;
        // All into one buffer: decoding each into its own takes twice as long.
        let mut transactions = vec![0; self.transactions.iter().map(|tx| tx.data.len() / 2).sum()];
        let mut txids = Vec::with_capacity(self.transactions.len());
        let mut room = &mut transactions[..];
        for tx in &self.transactions {
            let (place, rest) = room.split_at_mut(tx.data.len() / 2);
            hex::decode_to_slice(tx.data, place).map_err(|_| wrong("transaction data"))?;
            room = rest;
            let txid: bitcoin::Txid = tx.txid.parse().map_err(|_| wrong("txid"))?;
            txids.push(txid.to_byte_array());
        }
        let outputs_room = self.outputs_room()?;
        if self.coinbasevalue > MAX_MONEY {
            return Err(wrong("coinbasevalue"));
        }
        if self.maxtime.is_some_and(|max| max < self.curtime.max(self.mintime)) {
            return Err(wrong("maxtime"));
        }
        let commitment = self.default_witness_commitment.map(hex::decode).transpose();
        Ok(Template {
            height: self.height,
            parent: self.previousblockhash,
            version: u32::try_from(self.version).map_err(|_| wrong("version"))?,
            bits,
            target: Target::from_compact(bits).ok_or_else(|| wrong("bits"))?,
            time: self.curtime,
            min_time: self.mintime,
            max_time: self.maxtime.unwrap_or(u32::MAX),
            coinbase_value: self.coinbasevalue,
            witness_commitment: commitment.map_err(|_| wrong("default_witness_commitment"))?,
            txids,
            transactions,
            // A node that does not know licenses cannot say that none is needed.
            license_required: self.license.is_none_or(|license| license.required),
            long_poll_id: self.longpollid,
            outputs_room,
        })
    }
}

/// The sum of a field over all transactions; `None` if the node does not give it for all of them.
fn sum(what: &str, parts: impl Iterator<Item = Option<u64>>) -> Result<Option<u64>, RpcError> {
    let too_much =
        || RpcError::Malformed(format!("getblocktemplate: the {what} sum to more than {}", u64::MAX));
    let mut sum = 0_u64;
    for part in parts {
        let Some(part) = part else { return Ok(None) };
        sum = sum.checked_add(part).ok_or_else(too_much)?;
    }
    Ok(Some(sum))
}

/// The state of a license in the registry at the tip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseInfo {
    /// The license's address, as this network writes it.
    pub address: String,
    /// Whether it may mine at all.
    pub whitelisted: bool,
    /// Whether it is an admin license; these are not capped.
    #[serde(default)]
    pub admin: bool,
    /// Its blocks in the current window.
    pub blocks_in_window: u64,
    /// Most blocks that a license may have in the window; `None` while the cap is off.
    pub cap: Option<u64>,
    /// Blocks left in the window; `None` if nothing limits them.
    pub remaining: Option<u64>,
    /// Height of its last block.
    pub last_block: Option<u64>,
    /// Whether it may mine the next block.
    pub eligible_next: bool,
    /// The height from which it may mine again, if known.
    pub eligible_from_height: Option<u64>,
}

#[derive(Deserialize)]
struct WireLicenseInfo {
    tip_hash: Option<BlockHash>,
    #[serde(flatten)]
    info: LicenseInfo,
}

/// Licenses with the tip at which they were looked up.
#[derive(Debug)]
pub struct Licenses {
    /// The tip; `None` if the node does not state it or gives different ones.
    pub tip: Option<BlockHash>,
    /// In the order requested.
    pub infos: Vec<LicenseInfo>,
}

/// Identifies a chain to the pool and its nodes: by name and by genesis, since private chains share names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainIdentity {
    /// `main`, `test`, or a private chain's name.
    pub name: String,
    /// Hash of the genesis block.
    pub genesis: BlockHash,
}

impl ChainIdentity {
    /// The identity of a network.
    #[must_use]
    pub fn of(params: &Params) -> Self {
        Self { name: params.name.clone(), genesis: params.genesis.block().block_hash() }
    }
}

impl fmt::Display for ChainIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' (genesis {})", self.name, self.genesis)
    }
}

/// The node's chain.
///
/// # Errors
/// The node did not answer, or not in the expected form.
pub async fn chain(node: &Node) -> Result<ChainIdentity, RpcError> {
    #[derive(Deserialize)]
    struct Info {
        chain: String,
    }
    let info: Info = node.call("getblockchaininfo", json!([]), CALL_TIME).await?;
    let genesis = node.call("getblockhash", json!([0]), CALL_TIME).await?;
    Ok(ChainIdentity { name: info.chain, genesis })
}

/// Why a node cannot be used for a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The node did not say which chain it is on.
    #[error(transparent)]
    Trouble(#[from] RpcError),
    /// The node is on another chain.
    #[error("on chain {found}, {expected} expected")]
    Wrong {
        /// The node's chain.
        found: ChainIdentity,
        /// The chain of the configured network.
        expected: ChainIdentity,
    },
    /// The node is on the right chain, but still syncing.
    #[error(transparent)]
    Syncing(#[from] Syncing),
}

/// Checks that a node is on a chain.
///
/// # Errors
/// The node is on another chain, or did not say.
pub async fn check_chain(node: &Node, expected: &ChainIdentity) -> Result<(), ChainError> {
    let found = chain(node).await?;
    if found == *expected {
        return Ok(());
    }
    Err(ChainError::Wrong { found, expected: expected.clone() })
}

/// The template of the next block.
///
/// # Errors
/// The node returned none, or an invalid one.
pub async fn template(node: &Node) -> Result<Template, RpcError> {
    read(&node.answer("getblocktemplate", json!([{"rules": ["segwit"]}]), CALL_TIME).await?)
}

/// The template that replaces the one with this long-poll id, once that is out of date. On a quiet chain nothing may
/// happen for hours, so a poll that is not answered within `patience` is not an error: it is repeated on a new
/// connection. Whether the node is still alive must be checked separately.
///
/// # Errors
/// The node returned none, or an invalid one.
pub async fn next(node: &Node, long_poll_id: &str, patience: Duration) -> Result<Template, RpcError> {
    let request = json!([{"rules": ["segwit"], "longpollid": long_poll_id}]);
    loop {
        match node.answer("getblocktemplate", request.clone(), patience).await {
            Err(RpcError::Late { .. }) => {}
            answer => return read(&answer?),
        }
    }
}

/// The template in a node's answer to `getblocktemplate`.
///
/// # Errors
/// The node's error, or a description of what is invalid in the template.
pub fn read(answer: &[u8]) -> Result<Template, RpcError> {
    read_answer::<WireTemplate<'_>>("getblocktemplate", answer)?.check()
}

/// The state of licenses.
///
/// # Errors
/// The node did not return one entry for each address in the order requested.
pub async fn licenses(node: &Node, addresses: &[Address], params: &Params) -> Result<Licenses, RpcError> {
    let names: Vec<String> = addresses.iter().map(|address| address.to_base58(&params.prefixes)).collect();
    let found: Vec<WireLicenseInfo> = node.call("getlicenseinfo", json!(names), CALL_TIME).await?;
    if !found.iter().map(|wire| &wire.info.address).eq(&names) {
        return Err(RpcError::Malformed("getlicenseinfo: one entry for each address expected".into()));
    }
    let tip = found
        .first()
        .and_then(|first| first.tip_hash)
        .filter(|_| found.windows(2).all(|pair| pair[0].tip_hash == pair[1].tip_hash));
    Ok(Licenses { tip, infos: found.into_iter().map(|wire| wire.info).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::rpc::NodeAddress;

    fn wire() -> serde_json::Value {
        json!({
            "height": 7, "previousblockhash": "00".repeat(31) + "01", "version": 0x2000_0000, "bits": "1d7fffff",
            "curtime": 5, "mintime": 4, "coinbasevalue": 50, "longpollid": "x", "target": "ignored",
            "transactions": [{"data": "aabb", "txid": "00".repeat(31) + "02"}, {"data": "cc", "txid": "03".repeat(32)}],
            "license": {"required": false, "activation_height": 0},
        })
    }

    fn read(value: serde_json::Value) -> Result<Template, RpcError> {
        super::read(json!({"result": value, "error": null}).to_string().as_bytes())
    }

    #[test]
    fn a_template_is_read() {
        let template = read(wire()).unwrap();
        assert_eq!(
            (template.height, template.time, template.min_time, template.max_time, template.coinbase_value),
            (7, 5, 4, u32::MAX, 50)
        );
        let mut until = wire();
        until["maxtime"] = json!(6);
        assert_eq!(read(until).unwrap().max_time, 6);
        assert_eq!(template.transactions, [0xaa, 0xbb, 0xcc]);
        assert_eq!(template.txids[0][0], 2, "in SHA-256's order");
        assert_eq!(template.target, Target::from_compact(0x1d7f_ffff).unwrap());
        assert!(!template.license_required && template.witness_commitment.is_none());
    }

    /// A node that leaves the first call open and answers all others.
    async fn slow_node() -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://u:p@{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let _open = listener.accept().await.unwrap();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"}]}") && socket.read_buf(&mut asked).await.unwrap() > 0 {}
                let body = json!({"result": wire()}).to_string();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                // The client may have given up.
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Node::new(NodeAddress::parse(&url, None, 1).unwrap())
    }

    #[tokio::test]
    async fn a_long_poll_that_a_quiet_chain_leaves_open_is_made_again() {
        let node = slow_node().await;
        let template = next(&node, "x", Duration::from_millis(100)).await.unwrap();
        assert_eq!(template.height, 7);
    }

    #[test]
    fn a_node_that_says_nothing_of_licenses_is_taken_to_need_one() {
        let mut value = wire();
        value.as_object_mut().unwrap().remove("license");
        assert!(read(value).unwrap().license_required);
    }

    #[test]
    fn the_coinbase_has_the_room_that_the_transactions_leave() {
        let room = |limits: serde_json::Value, txs: &[(u64, u64)]| {
            let mut value = wire();
            value.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
            for (tx, (weight, sigops)) in value["transactions"].as_array_mut().unwrap().iter_mut().zip(txs) {
                (tx["weight"], tx["sigops"]) = (json!(weight), json!(sigops));
            }
            read(value).unwrap().outputs_room
        };
        let segwit = json!({"weightlimit": 4_000_000, "sizelimit": 4_000_000, "sigoplimit": 80_000});
        // What Core and iop-node leave in a full block.
        assert_eq!(room(segwit.clone(), &[(3_990_000, 0), (6_000, 0)]), 18);
        assert_eq!(room(segwit.clone(), &[(3_990_000, 79_000), (6_000, 600)]), 18);
        assert_eq!(room(segwit.clone(), &[(3_990_000, 79_960), (6_000, 0)]), 10, "by signature operations");
        assert_eq!(room(segwit.clone(), &[(4_000_000, 0), (6_000, 0)]), 0);
        assert!(room(segwit, &[(1000, 4), (1000, 4)]) > 10_000);
        let old = json!({"sizelimit": 1_000_000, "sigoplimit": 20_000});
        assert_eq!(room(old.clone(), &[(3_990_000, 0), (6_000, 0)]), 18);
        assert_eq!(room(old, &[(1000, 19_990), (1000, 0)]), 10);
        assert_eq!(room(json!({}), &[]), 18, "a node that does not say");
    }

    #[test]
    fn sums_that_no_block_has_are_refused() {
        for (field, expected) in [("weight", "the weights sum to more"), ("sigops", "the sigops sum to more")]
        {
            let mut value = wire();
            for tx in value["transactions"].as_array_mut().unwrap() {
                (tx["weight"], tx["sigops"]) = (json!(1), json!(1));
                tx[field] = json!(1_u64 << 63);
            }
            let refused = read(value).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn senseless_templates_are_refused() {
        for (field, value) in [
            ("bits", json!("zz")),
            ("bits", json!("00000000")),
            ("version", json!(-1)),
            ("coinbasevalue", json!(u64::MAX)),
            ("coinbasevalue", json!(MAX_MONEY + 1)),
            ("default_witness_commitment", json!("x")),
            ("maxtime", json!(4)),
        ] {
            let mut wire = wire();
            wire[field] = value;
            assert!(read(wire).unwrap_err().to_string().contains(field));
        }
    }
}
