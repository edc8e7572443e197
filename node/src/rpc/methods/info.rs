//! Statistics of the chain: `getblockchaininfo`, hash rate, and recent transaction counts.

use iop_consensus::ancestors::{Ancestors, median_time_past};
use iop_consensus::versionbits::State;
use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{INVALID_PARAMETER, RpcError};
use super::chain::{block_hash, block_not_found};
use super::{Context, json as format};
use crate::chain::clock::now;
use crate::chain::index::{BlockId, BlockIndex};
use crate::chain::state::ChainState;

/// Default number of blocks for `getnetworkhashps`.
const HASH_RATE_BLOCKS: i32 = 120;
/// Default window of `getchaintxstats`, seconds.
const MONTH: u32 = 30 * 24 * 60 * 60;

pub(super) async fn getblockchaininfo(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let info = context.chain.run(|state| {
        let (index, tip) = (state.index(), state.index().tip());
        let entry = index.get(tip);
        let height = entry.record.height;
        let mut out = Map::new();
        out.insert("chain".into(), json!(state.params().name));
        out.insert("blocks".into(), json!(height));
        out.insert("headers".into(), json!(index.get(index.best_header()).record.height));
        out.insert("bestblockhash".into(), json!(entry.hash));
        out.insert("difficulty".into(), json!(format::difficulty(entry.record.header.bits)));
        out.insert("mediantime".into(), json!(median_time_past(&index.chain(tip), height)));
        out.insert("verificationprogress".into(), json!(progress(state)));
        out.insert("chainwork".into(), json!(hex::encode(entry.work.to_be_bytes())));
        out.insert("pruned".into(), json!(state.prune_target().is_some()));
        // BIP34 is inactive on this chain; the others are active from genesis on.
        let fork = |id: &str, version: u32, status: bool| json!({"id": id, "version": version, "reject": {"status": status}});
        out.insert(
            "softforks".into(),
            json!([fork("bip34", 2, false), fork("bip66", 3, true), fork("bip65", 4, true)]),
        );
        let unsigned = state.unsigned_actions();
        let initial = state.is_initial_block_download(now());
        out.insert("bip9_softforks".into(), bip9_softforks(state));
        if state.prune_target().is_some() {
            out.insert("pruneheight".into(), json!(state.pruned_below()));
        }
        // These two are not in the reference.
        out.insert("initialblockdownload".into(), json!(initial));
        out.insert("unsigned_admin_actions".into(), json!(unsigned));
        Ok(Value::Object(out))
    });
    Ok(info.await?)
}

/// Sync progress from 0 to 1: the transactions the node has, relative to the expected total
/// (`GuessVerificationProgress`). Main and test use the reference's estimates; private chains have none.
fn progress(state: &ChainState) -> f64 {
    let (known_time, known_count, rate) = match state.params().name.as_str() {
        "main" => (1_502_262_660, 51_903.0, 0.01),
        "test" => (1_496_247_512, 8_820.0, 0.001),
        _ => return 1.0,
    };
    let index = state.index();
    let have = transactions(index, 0, index.get(index.tip()).record.height) as f64;
    let since = |time: u64| now() as f64 - time as f64;
    let total = if have <= known_count {
        known_count + since(known_time) * rate
    } else {
        have + since(u64::from(index.header(index.tip()).time)) * rate
    };
    have / total
}

/// Number of transactions in the active blocks from one height to another.
fn transactions(index: &BlockIndex, from: u32, to: u32) -> u64 {
    let blocks = (from..=to).filter_map(|height| index.active_at(height));
    blocks.map(|id| u64::from(index.get(id).record.tx_count)).sum()
}

/// The deployments that have a timeout (`BIP9SoftForkDescPushBack`).
fn bip9_softforks(state: &mut ChainState) -> Value {
    let params = state.params().clone();
    let deployments = &params.deployments;
    let (chain, cache) = state.versionbits();
    let tip = chain.tip_height();
    let mut out = Map::new();
    for (name, deployment) in deployments.named() {
        if name == "testdummy" || deployment.timeout == 0 {
            continue;
        }
        let mut state_after = |height| cache.state_after(&chain, height, deployment, deployments);
        let standing = state_after(tip);
        let mut fork = Map::new();
        fork.insert("status".into(), json!(standing.as_str()));
        if standing == State::Started {
            fork.insert("bit".into(), json!(deployment.bit));
        }
        fork.insert("startTime".into(), json!(deployment.start_time));
        fork.insert("timeout".into(), json!(deployment.timeout));
        fork.insert("since".into(), json!(since(standing, tip, deployments.window, &mut state_after)));
        if standing == State::Started {
            fork.insert("statistics".into(), statistics(&chain, deployment.bit, deployments));
        }
        out.insert(name.to_owned(), Value::Object(fork));
    }
    Value::Object(out)
}

/// The height of the first block that a state applies to (`GetStateSinceHeightFor`).
fn since(standing: State, tip: u32, window: u32, state_after: &mut impl FnMut(u32) -> State) -> u32 {
    if standing == State::Defined {
        return 0;
    }
    // A window's state is the state after the last block of the window before.
    let mut first = (tip + 1) / window * window;
    while first > window && state_after(first - window - 1) == standing {
        first -= window;
    }
    first
}

/// Signalling statistics of the window that the tip is in (`BIP9Stats`).
fn statistics(chain: &dyn Ancestors, bit: u8, deployments: &iop_consensus::params::Deployments) -> Value {
    let (tip, window, threshold) = (chain.tip_height(), deployments.window, deployments.threshold);
    let elapsed = (tip + 1) % window;
    let votes =
        (tip + 1 - elapsed..=tip).filter(|&height| signals(chain.header(height).version, bit)).count();
    let votes = votes as u32;
    json!({
        "period": window,
        "threshold": threshold,
        "elapsed": elapsed,
        "count": votes,
        "possible": window - threshold >= elapsed - votes,
    })
}

/// Whether a block's version signals for a bit (`VersionBitsConditionChecker::Condition`).
fn signals(version: i32, bit: u8) -> bool {
    let version = version.cast_unsigned();
    version & 0xe000_0000 == 0x2000_0000 && version >> bit & 1 == 1
}

pub(super) async fn getmininginfo(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let info = context.chain.run(|state| {
        let index = state.index();
        let tip = index.get(index.tip());
        Ok(json!({
            "blocks": tip.record.height,
            // In the reference these describe its own last template; it knows nothing of others' templates either.
            "currentblockweight": 0,
            "currentblocktx": 0,
            "difficulty": format::difficulty(tip.record.header.bits),
            "errors": "",
            "networkhashps": hash_rate(state, HASH_RATE_BLOCKS, -1),
            "pooledtx": state.mempool().len(),
            "chain": state.params().name,
        }))
    });
    Ok(info.await?)
}

pub(super) async fn getnetworkhashps(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let (blocks, height) =
        (args.optional_int(0)?.unwrap_or(HASH_RATE_BLOCKS), args.optional_int(1)?.unwrap_or(-1));
    Ok(context.chain.run(move |state| Ok(hash_rate(state, blocks, height))).await?)
}

/// Hashes per second over the last `blocks` blocks up to `height`. If `blocks` is not positive, counts from the
/// last retarget; if `height` is not in the chain, counts up to the tip (`GetNetworkHashPS`).
fn hash_rate(state: &ChainState, blocks: i32, height: i32) -> Value {
    let index = state.index();
    let tip = index.get(index.tip()).record.height;
    let last = u32::try_from(height).ok().filter(|&height| height < tip).unwrap_or(tip);
    if last == 0 {
        return json!(0);
    }
    let since_retarget = last % state.params().pow.retarget_interval() + 1;
    let blocks = u32::try_from(blocks).ok().filter(|&blocks| blocks > 0).unwrap_or(since_retarget).min(last);
    let ids: Vec<BlockId> = (last - blocks..=last).filter_map(|height| index.active_at(height)).collect();
    let times = || ids.iter().map(|&id| index.header(id).time);
    let seconds = match (times().min(), times().max()) {
        (Some(first), Some(last)) if first < last => f64::from(last - first),
        _ => return json!(0),
    };
    let work = |id: Option<&BlockId>| id.map(|&id| index.get(id).work);
    let (Some(from), Some(to)) = (work(ids.first()), work(ids.last())) else { return json!(0) };
    let hashes = (to - from).to_be_bytes().iter().fold(0.0, |sum, &byte| sum * 256.0 + f64::from(byte));
    json!(hashes / seconds)
}

pub(super) async fn getchaintxstats(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let hash = if args.value(1).is_some() { Some(block_hash(args, 1)?) } else { None };
    let blocks = args.optional_int(0)?;
    let stats = context.chain.run(move |state| {
        let index = state.index();
        let Some(end) = hash.map_or(Some(index.tip()), |hash| index.find(&hash)) else {
            return Ok(Err(block_not_found()));
        };
        if !index.is_active(end) {
            return Ok(Err(RpcError::new(INVALID_PARAMETER, "Block is not in main chain")));
        }
        let height = index.get(end).record.height;
        let blocks = blocks.map_or(i64::from(MONTH / state.params().pow.target_spacing), i64::from);
        let blocks = u32::try_from(blocks).ok().filter(|&blocks| blocks >= 1 && blocks < height);
        let Some(blocks) = blocks else {
            let message = "Invalid block count: should be between 1 and the block's height";
            return Ok(Err(RpcError::new(INVALID_PARAMETER, message)));
        };
        let chain = index.chain(end);
        let median = |height| f64::from(median_time_past(&chain, height));
        let seconds = median(height) - median(height - blocks);
        let carried = transactions(index, height - blocks + 1, height) as f64;
        Ok(Ok(json!({
            "time": index.header(end).time,
            "txcount": transactions(index, 0, height),
            "txrate": carried / seconds,
        })))
    });
    stats.await?
}
