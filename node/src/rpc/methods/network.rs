//! Methods about peers: which are connected, and which to connect to.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{
    INTERNAL, INVALID_PARAMETER, INVALID_PARAMS, NODE_ALREADY_ADDED, NODE_NOT_ADDED, NODE_NOT_CONNECTED,
    P2P_DISABLED, RpcError,
};
use super::{Context, json as format};
use crate::mempool::policy::{INCREMENTAL_RELAY_FEE, MIN_RELAY_FEE};
use crate::p2p::handle::{
    CLIENT_VERSION, NetHandle, NetStopped, PROTOCOL_VERSION, PeerInfo, USER_AGENT, Which,
};

/// Longest accepted peer name: a DNS name with a port.
const MAX_NAME: usize = 260;

impl From<NetStopped> for RpcError {
    fn from(_: NetStopped) -> Self {
        Self::new(INTERNAL, "the node is stopping")
    }
}

fn net(context: &Context) -> Result<&NetHandle, RpcError> {
    context
        .net
        .as_ref()
        .ok_or_else(|| RpcError::new(P2P_DISABLED, "Error: Peer-to-peer functionality missing or disabled"))
}

pub(super) async fn getconnectioncount(context: &Context, _: &Args) -> Result<Value, RpcError> {
    Ok(json!(net(context)?.connection_count()))
}

pub(super) async fn ping(context: &Context, _: &Args) -> Result<Value, RpcError> {
    net(context)?.ping_all().await?;
    Ok(Value::Null)
}

pub(super) async fn getpeerinfo(context: &Context, _: &Args) -> Result<Value, RpcError> {
    Ok(net(context)?.peers().await?.iter().map(peer).collect())
}

/// One peer, in the reference's order of fields.
fn peer(peer: &PeerInfo) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("id", json!(peer.id));
    put("addr", json!(peer.addr));
    if let Some(address) = peer.addrlocal {
        put("addrlocal", json!(address.to_string()));
    }
    if let Some(address) = peer.addrbind {
        put("addrbind", json!(address.to_string()));
    }
    put("services", json!(format!("{:016x}", peer.services)));
    put("relaytxes", json!(peer.relaytxes));
    put("lastsend", json!(peer.lastsend));
    put("lastrecv", json!(peer.lastrecv));
    put("bytessent", json!(peer.bytessent));
    put("bytesrecv", json!(peer.bytesrecv));
    put("conntime", json!(peer.conntime));
    put("timeoffset", json!(peer.timeoffset));
    for (name, seconds) in
        [("pingtime", peer.pingtime), ("minping", peer.minping), ("pingwait", peer.pingwait)]
    {
        if let Some(seconds) = seconds {
            put(name, json!(seconds));
        }
    }
    put("version", json!(peer.version));
    put("subver", json!(peer.subver));
    put("inbound", json!(peer.inbound));
    put("addnode", json!(peer.addnode));
    put("startingheight", json!(peer.startingheight));
    put("banscore", json!(peer.banscore));
    put("synced_headers", json!(peer.synced_headers));
    put("synced_blocks", json!(peer.synced_blocks));
    put("inflight", json!(peer.inflight));
    put("whitelisted", json!(peer.whitelisted));
    put("bytessent_per_msg", json!(peer.bytessent_per_msg));
    put("bytesrecv_per_msg", json!(peer.bytesrecv_per_msg));
    Value::Object(out)
}

pub(super) async fn addnode(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let command = args.text(1)?;
    if !["onetry", "add", "remove"].contains(&command) {
        return Err(args.usage());
    }
    let (net, name) = (net(context)?, args.text(0)?);
    if name.is_empty() || name.len() > MAX_NAME {
        let message = format!("node has {} characters, 1 to {MAX_NAME} expected", name.len());
        return Err(RpcError::new(INVALID_PARAMETER, message));
    }
    match command {
        "add" if !net.add(name).await? => Err(RpcError::new(NODE_ALREADY_ADDED, "Error: Node already added")),
        "remove" if !net.remove(name).await? => {
            Err(RpcError::new(NODE_NOT_ADDED, "Error: Node has not been added."))
        }
        "onetry" => {
            net.try_once(name).await?;
            Ok(Value::Null)
        }
        _ => Ok(Value::Null),
    }
}

pub(super) async fn disconnectnode(context: &Context, args: &Args) -> Result<Value, RpcError> {
    if args.count() == 0 {
        return Err(args.usage());
    }
    let net = net(context)?;
    let which = match (args.value(0), args.value(1)) {
        (Some(_), None) => Which::Address(args.text(0)?.to_owned()),
        (None, Some(_)) => by_number(args)?,
        (Some(Value::String(address)), Some(_)) if address.is_empty() => by_number(args)?,
        _ => {
            let message = "Only one of address and nodeid should be provided.";
            return Err(RpcError::new(INVALID_PARAMS, message));
        }
    };
    if net.disconnect(which).await? { Ok(Value::Null) } else { Err(not_connected()) }
}

fn by_number(args: &Args) -> Result<Which, RpcError> {
    u64::try_from(args.integer(1)?).map(Which::Id).map_err(|_| not_connected())
}

fn not_connected() -> RpcError {
    RpcError::new(NODE_NOT_CONNECTED, "Node not found in connected nodes")
}

pub(super) async fn getaddednodeinfo(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let mut added = net(context)?.added().await?;
    if let Some(name) = args.optional_text(0)? {
        added.retain(|peer| peer.name == name);
        if added.is_empty() {
            return Err(RpcError::new(NODE_NOT_ADDED, "Error: Node has not been added."));
        }
    }
    let infos = added.into_iter().map(|peer| {
        let addresses: Vec<Value> = peer
            .connected
            .iter()
            .map(|(address, inbound)| {
                let direction = if *inbound { "inbound" } else { "outbound" };
                json!({ "address": address.to_string(), "connected": direction })
            })
            .collect();
        json!({
            "addednode": peer.name,
            "connected": peer.connected.is_some(),
            "addresses": addresses,
        })
    });
    Ok(infos.collect())
}

pub(super) async fn getnettotals(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let totals = net(context)?.totals();
    Ok(json!({
        "totalbytesrecv": totals.received,
        "totalbytessent": totals.sent,
        "timemillis": milliseconds(),
        // There is no upload limit.
        "uploadtarget": {
            "timeframe": 86_400,
            "target": 0,
            "target_reached": false,
            "serve_historical_blocks": true,
            "bytes_left_in_cycle": 0,
            "time_left_in_cycle": 0,
        },
    }))
}

/// Milliseconds since 1970.
fn milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub(super) async fn getnetworkinfo(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let info = context.net.as_ref().map(NetHandle::info);
    let network = |name: &str, reachable: bool| {
        json!({
            "name": name,
            "limited": !reachable,
            "reachable": reachable,
            "proxy": "",
            "proxy_randomize_credentials": false,
        })
    };
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("version", json!(CLIENT_VERSION));
    put("subversion", json!(USER_AGENT));
    put("protocolversion", json!(PROTOCOL_VERSION));
    if let Some(info) = &info {
        put("localservices", json!(format!("{:016x}", info.services)));
    }
    put("localrelay", json!(info.as_ref().is_some_and(|info| info.relay)));
    put("timeoffset", json!(info.as_ref().map_or(0, |info| info.time_offset)));
    put("networkactive", json!(info.is_some()));
    put("connections", json!(context.net.as_ref().map_or(0, NetHandle::connection_count)));
    let ip = info.is_some();
    put("networks", json!([network("ipv4", ip), network("ipv6", ip), network("onion", false)]));
    put("relayfee", json!(format::coins(MIN_RELAY_FEE.0)));
    put("incrementalfee", json!(format::coins(INCREMENTAL_RELAY_FEE.0)));
    put("localaddresses", json!([]));
    put("warnings", json!(""));
    Ok(Value::Object(out))
}
