//! A JSON-RPC client for the node, with the queries that the commands need.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{OutPoint, Transaction};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use iop_consensus::{COIN, COINBASE_MATURITY};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::action::AdminCoin;
use super::args::Common;
use super::waiting::Waiting;
use crate::failure::Failure;
use crate::settings::{default_datadir, read_secret};

/// Maximum length in bytes of an answer: the coins of one address, at most 100,000 of 300 bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Timeout for connecting.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Timeout for one call. The node reads its whole coin set to find an address's coins.
const CALL_TIME: Duration = Duration::from_secs(300);

/// A node to query.
pub(super) struct Node {
    uri: Uri,
    authorization: HeaderValue,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Node {
    /// Configures the client from the flags; nothing is sent yet.
    pub(super) fn new(common: &Common, params: &Params) -> Result<Self, Failure> {
        let uri = node_uri(common.rpc.as_deref(), params)?;
        let user_password = match (&common.rpc_user, &common.rpc_password_file) {
            (Some(user), Some(file)) => Zeroizing::new(format!("{user}:{}", *read_secret(file)?)),
            _ => cookie(&cookie_path(common, params)?)?,
        };
        let encoded = Zeroizing::new(format!("Basic {}", STANDARD.encode(user_password.as_bytes())));
        let mut authorization = HeaderValue::from_str(&encoded).expect("base64 is visible ASCII");
        authorization.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { uri, authorization, client })
    }

    /// Calls a method. The outer error is a transport failure, the inner one the node's error code and message.
    async fn try_call(&self, method: &str, params: Value) -> Result<Result<Value, (i64, String)>, Failure> {
        let unreachable = |error: &dyn std::fmt::Display| {
            Failure::Failed(format!("the node at {} cannot be asked: {error}", self.uri))
        };
        let body = json!({"jsonrpc": "1.0", "id": 1, "method": method, "params": params}).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.uri)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, &self.authorization)
            .body(Full::new(Bytes::from(body)))
            .expect("every part of the request was checked before");
        let asked = async {
            let response = self.client.request(request).await.map_err(|error| reason(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        let answer: Result<(StatusCode, Bytes), String> = tokio::time::timeout(CALL_TIME, asked)
            .await
            .map_err(|_| unreachable(&format!("no answer to {method} within {} s", CALL_TIME.as_secs())))?;
        let (status, body) = answer.map_err(|error| unreachable(&error))?;
        if status == StatusCode::UNAUTHORIZED {
            return Err(unreachable(&"it refuses the user and password (HTTP 401)"));
        }
        let mut answer: Value = serde_json::from_slice(&body)
            .map_err(|_| unreachable(&format!("HTTP status {status}, and no JSON-RPC answer")))?;
        let error = &answer["error"];
        if error.is_null() {
            return Ok(Ok(answer["result"].take()));
        }
        let message = error["message"].as_str().unwrap_or_default();
        Ok(Err((error["code"].as_i64().unwrap_or_default(), message.to_owned())))
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, Failure> {
        self.try_call(method, params)
            .await?
            .map_err(|(code, message)| Failure::Failed(format!("{method}: {message} (code {code})")))
    }

    /// Checks by the genesis block that the node is on this network; returns the height of its tip.
    pub(super) async fn check_network(&self, params: &Params) -> Result<u32, Failure> {
        let genesis = self.call("getblockhash", json!([0])).await?;
        let info = self.call("getblockchaininfo", json!([])).await?;
        let expected = params.genesis.block().block_hash().to_string();
        if genesis != expected.as_str() || info["chain"] != params.name.as_str() {
            return Err(Failure::Failed(format!(
                "the node at {} is on network {} (genesis {}), {} expected (genesis {expected})",
                self.uri,
                shown(&info["chain"]),
                shown(&genesis),
                params.name,
            )));
        }
        let height = info["blocks"].as_u64().and_then(|height| u32::try_from(height).ok());
        height.ok_or_else(|| Failure::Failed("getblockchaininfo: no height".to_owned()))
    }

    /// Calls `dumpminerstats`, for one address or all.
    pub(super) async fn license_stats(&self, address: Option<&str>) -> Result<Value, Failure> {
        self.call("dumpminerstats", address.map_or(json!([]), |address| json!([address]))).await
    }

    /// Whether the address is a license as of the node's tip.
    pub(super) async fn is_whitelisted(&self, address: &Address, params: &Params) -> Result<bool, Failure> {
        let stats = self.license_stats(Some(&address.to_base58(&params.prefixes))).await?;
        Ok(stats["stats"]["whitelisted"] == 1)
    }

    /// Admin actions in the mempool, decoded as in a block at `height`. Transactions are fetched one by one: IoP
    /// Core has no template where licenses are required.
    pub(super) async fn waiting(&self, height: u32, params: &Params) -> Result<Vec<Waiting>, Failure> {
        let unreadable = |method: &str| Failure::Failed(format!("{method}: an answer that cannot be read"));
        let txids = self.call("getrawmempool", json!([])).await?;
        let mut waiting = Vec::new();
        for txid in txids.as_array().ok_or_else(|| unreadable("getrawmempool"))? {
            // A transaction that is gone was mined or dropped.
            let Ok(tx) = self.try_call("getrawtransaction", json!([txid])).await? else { continue };
            let tx = tx.as_str().and_then(|tx| deserialize_hex::<Transaction>(tx).ok());
            waiting.extend(Waiting::of(&tx.ok_or_else(|| unreadable("getrawtransaction"))?, height, params));
        }
        Ok(waiting)
    }

    /// The admin's coins that can be spent in the next block and that no mempool transaction spends.
    pub(super) async fn admin_coins(
        &self,
        key: &LicenseKey,
        params: &Params,
    ) -> Result<Vec<AdminCoin>, Failure> {
        let address = key.address().to_base58(&params.prefixes);
        let found = self.try_call("getaddresscoins", json!([address])).await?;
        let found = found.map_err(|(code, message)| {
            let hint = if code == -32_601 { ": it is no iop-node; name a coin with --utxo" } else { "" };
            Failure::Failed(format!("getaddresscoins: {message} (code {code}){hint}"))
        })?;
        let script = hex::encode(key.address().script_pubkey());
        let coins = found["coins"].as_array().map(Vec::as_slice).unwrap_or_default();
        let usable = coins.iter().filter(|coin| {
            coin["scriptPubKey"] == script.as_str() && coin["spent_in_mempool"] == false && is_mature(coin)
        });
        usable
            .map(|coin| {
                let txid = coin["txid"].as_str().and_then(|txid| txid.parse().ok());
                let vout = coin["vout"].as_u64().and_then(|vout| u32::try_from(vout).ok());
                match (txid, vout, base_units(&coin["amount"])) {
                    (Some(txid), Some(vout), Some(value)) => {
                        Ok(AdminCoin { outpoint: OutPoint { txid, vout }, value })
                    }
                    _ => Err(Failure::Failed("getaddresscoins: an answer that cannot be read".to_owned())),
                }
            })
            .collect()
    }

    /// The coins that the caller named; they may be unconfirmed.
    pub(super) async fn named_coins(
        &self,
        named: &[OutPoint],
        key: &LicenseKey,
        params: &Params,
    ) -> Result<Vec<AdminCoin>, Failure> {
        let script = hex::encode(key.address().script_pubkey());
        let mut coins: Vec<AdminCoin> = Vec::with_capacity(named.len());
        for outpoint in named {
            if coins.iter().any(|coin| coin.outpoint == *outpoint) {
                return Err(Failure::Usage(format!("--utxo {outpoint} is given twice")));
            }
            let found = self.call("gettxout", json!([outpoint.txid, outpoint.vout, true])).await?;
            let wrong = |what: &str| Err(Failure::Failed(format!("--utxo {outpoint} {what}")));
            if found.is_null() {
                return wrong("is not known or spent");
            }
            if found["scriptPubKey"]["hex"] != script.as_str() {
                let address = key.address().to_base58(&params.prefixes);
                return wrong(&format!("is no P2PKH coin of the admin's address {address}"));
            }
            if !is_mature(&found) {
                return wrong(&format!(
                    "is a coinbase's and can be spent after {COINBASE_MATURITY} blocks only"
                ));
            }
            match base_units(&found["value"]) {
                Some(value) => coins.push(AdminCoin { outpoint: *outpoint, value }),
                None => return wrong("has an amount that cannot be read"),
            }
        }
        Ok(coins)
    }

    /// Whether the node says that no peer is connected.
    pub(super) async fn has_no_peers(&self) -> bool {
        matches!(self.try_call("getconnectioncount", json!([])).await, Ok(Ok(count)) if count == 0)
    }

    /// Sends a transaction and returns its id.
    pub(super) async fn send(&self, tx: &Transaction) -> Result<String, Failure> {
        let sent = self.try_call("sendrawtransaction", json!([serialize_hex(tx)])).await?;
        let txid = sent.map_err(|(code, message)| {
            Failure::Failed(format!("the node refuses the transaction: {message} (code {code})"))
        })?;
        Ok(shown(&txid))
    }
}

/// Whether a coin can be spent in the next block.
fn is_mature(coin: &Value) -> bool {
    coin["coinbase"] == false
        || coin["confirmations"]
            .as_u64()
            .is_some_and(|confirmations| confirmations >= COINBASE_MATURITY.into())
}

/// Converts coins to base units. Every amount is below 2^53 base units, so rounding is exact.
fn base_units(coins: &Value) -> Option<u64> {
    let units = coins.as_f64()? * COIN as f64;
    (0.0..9e15).contains(&units).then_some(units.round() as u64)
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn node_uri(url: Option<&str>, params: &Params) -> Result<Uri, Failure> {
    let Some(url) = url else {
        let uri = format!("http://127.0.0.1:{}/", params.rpc_port);
        return Ok(uri.parse().expect("a number makes a port"));
    };
    let wrong = |what: &str| Failure::Usage(format!("--rpc {what}, http://HOST[:PORT] expected"));
    if url.contains('@') {
        return Err(wrong("has a user in it: give --rpc-user and --rpc-password-file"));
    }
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("does not begin with http://"))?;
    let host = rest.trim_end_matches('/');
    let not_one = || wrong(&format!("'{url}' is no address"));
    let uri: Uri = format!("http://{host}/").parse().map_err(|_| not_one())?;
    let authority = uri.authority().ok_or_else(not_one)?;
    if uri.path() != "/" || uri.query().is_some() || authority.host().is_empty() {
        return Err(not_one());
    }
    match authority.port_u16() {
        Some(_) => Ok(uri),
        None if authority.as_str() == authority.host() => {
            format!("http://{host}:{}/", params.rpc_port).parse().map_err(|_| not_one())
        }
        None => Err(not_one()),
    }
}

/// A node's cookie. Without a node there is none, which is no wrong usage.
fn cookie(path: &Path) -> Result<Zeroizing<String>, Failure> {
    match path.try_exists() {
        Ok(false) => Err(Failure::Failed(format!(
            "there is no cookie file {}: it is there while the node runs; --rpc-cookie names another",
            path.display()
        ))),
        _ => read_secret(path),
    }
}

fn cookie_path(common: &Common, params: &Params) -> Result<PathBuf, Failure> {
    match &common.rpc_cookie {
        Some(path) => Ok(path.clone()),
        None => Ok(default_datadir(&params.name)?.join(".cookie")),
    }
}

/// The root cause of an error: the outermost error says only that the client failed.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_is_a_host_with_or_without_port() {
        let params = Params::devnet();
        let uri = |url: &str| {
            node_uri(Some(url), &params).map(|uri| uri.to_string()).map_err(|error| match error {
                Failure::Usage(text) | Failure::Failed(text) => text,
            })
        };
        assert_eq!(uri("http://localhost:1234").unwrap(), "http://localhost:1234/");
        assert_eq!(uri("http://[::1]/").unwrap(), format!("http://[::1]:{}/", params.rpc_port));
        let secret = uri("http://me:secret@host").unwrap_err();
        assert!(secret.contains("--rpc-user") && !secret.contains("secret"), "{secret}");
        for wrong in
            ["", "localhost", "https://host", "http://", "http://host:", "http://host/path", "http://a b"]
        {
            assert!(uri(wrong).unwrap_err().contains("http://HOST[:PORT] expected"), "{wrong}");
        }
    }

    #[test]
    fn amounts_are_read_to_the_last_base_unit() {
        for (text, units) in
            [("50.00000000", 5_000_000_000), ("0.00000001", 1), ("20999999.99999999", 2_099_999_999_999_999)]
        {
            assert_eq!(base_units(&serde_json::from_str(text).unwrap()), Some(units));
        }
        assert_eq!(base_units(&json!(-1.0)), None);
        assert_eq!(base_units(&json!("1")), None);
    }
}
