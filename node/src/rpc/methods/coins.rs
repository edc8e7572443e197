//! Unspent outputs: a single one, all of an address, and the totals of the whole set.

use std::sync::Arc;

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{BlockHash, OutPoint, Txid};
use iop_consensus::address::Address;
use iop_consensus::coins::{Coin, CoinView};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::super::args::Args;
use super::super::error::{INTERNAL, INVALID_ADDRESS_OR_KEY, OUT_OF_MEMORY, RpcError};
use super::{Context, heavy, json as format, script::script_pubkey};
use crate::chain::state::ChainState;
use crate::storage::{Scan, Storage, StorageError};

/// Only one scan of the coin set at a time: each keeps a core and the disk busy.
static SCANS: Semaphore = Semaphore::const_new(1);
/// Number of coins between two checks whether anybody still wants the result.
const STOP_STEP: u64 = 10_000;
/// Maximum number of coins of one address that are listed; more are an error.
const MAX_LISTED: usize = 100_000;

pub(super) async fn gettxout(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let txid = Txid::from_byte_array(args.loose_hash(0)?);
    // As in the reference, -1 means output 4,294,967,295.
    let vout = args.int(1)?.cast_unsigned();
    let include_mempool = args.boolean_or(2, true)?;
    let outpoint = OutPoint { txid, vout };
    let params = context.params.clone();
    let found = context.chain.run(move |state| {
        let tip = state.index().get(state.index().tip());
        let (best, tip_height) = (tip.hash, tip.record.height);
        if include_mempool && state.mempool().spends(&outpoint) {
            return Ok(Value::Null);
        }
        let waiting = state.mempool().get(&txid).filter(|_| include_mempool);
        let (output, confirmations, coinbase) = match waiting {
            Some(entry) => match entry.tx.output.get(vout as usize) {
                Some(output) => (output.clone(), 0, false),
                None => return Ok(Value::Null),
            },
            None => match state.coins().coin(&outpoint)? {
                Some(coin) => (coin.output, tip_height - coin.height + 1, coin.coinbase),
                None => return Ok(Value::Null),
            },
        };
        Ok(json!({
            "bestblock": best,
            "confirmations": confirmations,
            "value": format::coins(output.value.to_sat()),
            "scriptPubKey": script_pubkey(&output.script_pubkey, &params.prefixes, true),
            "coinbase": coinbase,
        }))
    });
    Ok(found.await?)
}

pub(super) async fn gettxoutsetinfo(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let (best, (sums, disk_size)) = scan(context, |storage, goes_on| {
        // The hash starts with the block's hash, which is known before the first coin.
        let sums = std::cell::RefCell::new(Sums::default());
        let begin = |best: BlockHash| sums.borrow_mut().begin(best);
        let best = storage.scan_coins(begin, |outpoint, coin| {
            sums.borrow_mut().add(outpoint, &coin);
            goes_on()
        })?;
        Ok(best.map(|best| (best, (sums.into_inner(), storage.coins_disk_size()))))
    })
    .await?;
    let disk_size = disk_size.map_err(|error| RpcError::new(INTERNAL, error.to_string()))?;
    let height = height_of(context, best).await?;
    let (transactions, outputs, bogosize, amount) =
        (sums.transactions, sums.outputs, sums.bogosize, sums.amount);
    Ok(json!({
        "height": height,
        "bestblock": best,
        "transactions": transactions,
        "txouts": outputs,
        "bogosize": bogosize,
        "hash_serialized_2": sums.finish(),
        "disk_size": disk_size,
        "total_amount": format::coins(amount),
    }))
}

pub(super) async fn getaddresscoins(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let text = args.text(0)?;
    let address = Address::parse(text, &context.params.prefixes)
        .map_err(|error| RpcError::new(INVALID_ADDRESS_OR_KEY, error.to_string()))?;
    let (best, coins) = scan(context, move |storage, goes_on| {
        let mut coins = Vec::new();
        let best = storage.scan_coins(
            |_| {},
            |outpoint, coin| {
                if Address::from_script(&coin.output.script_pubkey) == Some(address)
                    && coins.len() <= MAX_LISTED
                {
                    coins.push((outpoint, coin));
                }
                goes_on()
            },
        )?;
        Ok(best.map(|best| (best, coins)))
    })
    .await?;
    if coins.len() > MAX_LISTED {
        let message = format!("the address has more than {MAX_LISTED} coins");
        return Err(RpcError::new(OUT_OF_MEMORY, message));
    }
    let height = height_of(context, best).await?;
    let outpoints: Vec<OutPoint> = coins.iter().map(|(outpoint, _)| *outpoint).collect();
    let spent = context
        .chain
        .run(move |state| Ok(outpoints.iter().map(|o| state.mempool().spends(o)).collect::<Vec<_>>()))
        .await?;
    let total: u64 = coins.iter().map(|(_, coin)| coin.output.value.to_sat()).sum();
    let listed = coins.iter().zip(spent).map(|((outpoint, coin), spent)| {
        json!({
            "txid": outpoint.txid,
            "vout": outpoint.vout,
            "scriptPubKey": hex::encode(&coin.output.script_pubkey),
            "amount": format::coins(coin.output.value.to_sat()),
            "height": coin.height,
            "confirmations": i64::from(height) - i64::from(coin.height) + 1,
            "coinbase": coin.coinbase,
            "spent_in_mempool": spent,
        })
    });
    Ok(json!({
        "address": address.to_base58(&context.params.prefixes),
        "height": height,
        "bestblock": best,
        "coins": listed.collect::<Value>(),
        "total_amount": format::coins(total),
    }))
}

/// The result of a scan: the block as of which coins were read, and what was computed.
type Scanned<T> = Result<Option<(BlockHash, T)>, StorageError>;

/// Flushes the chain and reads the coin set on a separate thread. The reader gets a function that says after each
/// coin whether to continue: until the node stops, or the client that asked is gone.
async fn scan<T: Send + 'static>(
    context: &Context,
    read: impl FnOnce(&Storage, &mut dyn FnMut() -> Scan) -> Scanned<T> + Send + 'static,
) -> Result<(BlockHash, T), RpcError> {
    let place = SCANS.acquire().await.expect("the semaphore is never closed");
    context.chain.run(ChainState::flush).await?;
    let (storage, shutdown) = (Arc::clone(context.chain.storage()), context.shutdown.subscribe());
    // This future is dropped with the client's connection, and the thread goes on.
    let client = Arc::new(());
    let there = Arc::downgrade(&client);
    let scanned = heavy(move || {
        // Held until the thread has ended: the next scan waits for that.
        let _place = place;
        let mut seen = 0u64;
        read(&storage, &mut || {
            seen += 1;
            let is_over = || *shutdown.borrow() || there.strong_count() == 0;
            if seen.is_multiple_of(STOP_STEP) && is_over() { Scan::Stop } else { Scan::GoOn }
        })
    })
    .await?;
    drop(client);
    scanned
        .map_err(|error| RpcError::new(INTERNAL, error.to_string()))?
        .ok_or_else(|| RpcError::new(INTERNAL, "the node is stopping"))
}

async fn height_of(context: &Context, hash: BlockHash) -> Result<u32, RpcError> {
    let height = context.chain.run(move |state| {
        let index = state.index();
        Ok(index.find(&hash).map(|id| index.get(id).record.height))
    });
    height.await?.ok_or_else(|| RpcError::new(INTERNAL, "the block of the coin set is not known"))
}

/// The totals of `gettxoutsetinfo`, summed coin by coin (`GetUTXOStats`).
#[derive(Default)]
struct Sums {
    hasher: <sha256d::Hash as Hash>::Engine,
    transaction: Option<Txid>,
    transactions: u64,
    outputs: u64,
    bogosize: u64,
    amount: u64,
}

impl Sums {
    /// Size counted for a coin besides its script: id, index, height, amount, and script length (`ApplyStats`).
    const BOGOSIZE: u64 = 32 + 4 + 4 + 8 + 2;

    fn begin(&mut self, best: BlockHash) {
        self.hasher.input(best.as_ref());
    }

    /// Coins arrive ordered by transaction and output. All coins of a transaction have the same height.
    fn add(&mut self, outpoint: OutPoint, coin: &Coin) {
        if self.transaction != Some(outpoint.txid) {
            self.end_transaction();
            self.transaction = Some(outpoint.txid);
            self.transactions += 1;
            self.hasher.input(outpoint.txid.as_ref());
            self.varint(u64::from(coin.height) * 2 + u64::from(coin.coinbase));
        }
        self.varint(u64::from(outpoint.vout) + 1);
        let script = &coin.output.script_pubkey;
        script.consensus_encode(&mut self.hasher).expect("a hasher takes every byte");
        self.varint(coin.output.value.to_sat());
        self.outputs += 1;
        self.bogosize += Self::BOGOSIZE + script.len() as u64;
        self.amount += coin.output.value.to_sat();
    }

    fn end_transaction(&mut self) {
        if self.transaction.is_some() {
            self.varint(0);
        }
    }

    fn finish(mut self) -> sha256d::Hash {
        self.end_transaction();
        sha256d::Hash::from_engine(self.hasher)
    }

    /// The reference's variable-length number (`WriteVarInt`): seven bits per byte, highest first; each byte except
    /// the last has its top bit set and is one less than its value.
    fn varint(&mut self, mut number: u64) {
        let (mut bytes, mut at) = ([0u8; 10], 9);
        bytes[at] = (number & 0x7f) as u8;
        while number > 0x7f {
            number = (number >> 7) - 1;
            at -= 1;
            bytes[at] = (number & 0x7f) as u8 | 0x80;
        }
        self.hasher.input(&bytes[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples in the reference's `serialize.h`.
    #[test]
    fn numbers_are_written_as_the_reference_writes_them() {
        for (number, bytes) in [
            (0u64, vec![0x00]),
            (1, vec![0x01]),
            (127, vec![0x7f]),
            (128, vec![0x80, 0x00]),
            (255, vec![0x80, 0x7f]),
            (256, vec![0x81, 0x00]),
            (16_383, vec![0xfe, 0x7f]),
            (16_384, vec![0xff, 0x00]),
            (65_535, vec![0x82, 0xfe, 0x7f]),
            (1 << 32, vec![0x8e, 0xfe, 0xfe, 0xff, 0x00]),
        ] {
            let mut sums = Sums::default();
            sums.varint(number);
            assert_eq!(sums.finish(), sha256d::Hash::hash(&bytes), "{number}");
        }
    }
}
