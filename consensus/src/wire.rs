//! Decodes blocks and transactions as Core 0.15 does (`UnserializeTransaction`, `ReadCompactSize`).
//!
//! The `bitcoin` crate rejects encodings that the reference accepts: the witness marker before a transaction without
//! any witness, a transaction without inputs, and lists of more than 4,000,000 bytes. A block that one node can decode
//! and another cannot would split the chain. Encoding is the crate's own.

use bitcoin::block::Header;
use bitcoin::consensus::encode::{Decodable, Error};
use bitcoin::{
    Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, VarInt, Witness, absolute, transaction,
};

/// Most elements or bytes of a list (`MAX_SIZE`).
const MAX_SIZE: u64 = 0x0200_0000;
/// Bytes of a version, two empty lists and a lock time.
const SHORTEST_TRANSACTION: usize = 10;
/// Bytes of an outpoint, an empty script and a sequence.
const SHORTEST_INPUT: usize = 41;
/// Bytes of an amount and an empty script.
const SHORTEST_OUTPUT: usize = 9;

/// Decodes a block and advances `bytes` past it.
///
/// # Errors
/// Wherever the reference says "Block decode failed".
pub fn read_block(bytes: &mut &[u8]) -> Result<Block, Error> {
    let header = Header::consensus_decode(bytes)?;
    Ok(Block { header, txdata: read_list(bytes, SHORTEST_TRANSACTION, read_transaction)? })
}

/// Decodes a block that must take up all of `bytes`.
///
/// # Errors
/// As for [`read_block`], or if data follows the block.
pub fn whole_block(mut bytes: &[u8]) -> Result<Block, Error> {
    let block = read_block(&mut bytes)?;
    if bytes.is_empty() { Ok(block) } else { Err(Error::ParseFailed("data behind the block")) }
}

/// Decodes a transaction and advances `bytes` past it.
///
/// # Errors
/// Wherever the reference says "TX decode failed".
pub fn read_transaction(bytes: &mut &[u8]) -> Result<Transaction, Error> {
    let version = transaction::Version::consensus_decode(bytes)?;
    let mut input = read_list(bytes, SHORTEST_INPUT, read_input)?;
    let mut output = Vec::new();
    // An empty input list may be the marker, which flags follow; if they are zero, the transaction really has no
    // inputs.
    let flags = if input.is_empty() { u8::consensus_decode(bytes)? } else { 0 };
    if flags != 0 {
        input = read_list(bytes, SHORTEST_INPUT, read_input)?;
    }
    if flags != 0 || !input.is_empty() {
        output = read_list(bytes, SHORTEST_OUTPUT, read_output)?;
    }
    if flags & 1 != 0 {
        for input in &mut input {
            input.witness = read_witness(bytes)?;
        }
    }
    if flags > 1 {
        return Err(Error::ParseFailed("unknown transaction flags"));
    }
    Ok(Transaction { version, input, output, lock_time: absolute::LockTime::consensus_decode(bytes)? })
}

/// Reads a transaction in the form that knows no witnesses, in which it may have no inputs, and advances `bytes` past it.
///
/// # Errors
/// If the reference fails to decode it with `SERIALIZE_TRANSACTION_NO_WITNESS`.
pub fn read_stripped_transaction(bytes: &mut &[u8]) -> Result<Transaction, Error> {
    Ok(Transaction {
        version: transaction::Version::consensus_decode(bytes)?,
        input: read_list(bytes, SHORTEST_INPUT, read_input)?,
        output: read_list(bytes, SHORTEST_OUTPUT, read_output)?,
        lock_time: absolute::LockTime::consensus_decode(bytes)?,
    })
}

/// Decodes a count and that many elements of at least `shortest` bytes. The list is allocated at once, because one that
/// grows takes up to twice its size, but never for more elements than the remaining bytes can hold.
fn read_list<'b, T>(
    bytes: &mut &'b [u8],
    shortest: usize,
    read: impl Fn(&mut &'b [u8]) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let count = read_count(bytes)?;
    let mut list = Vec::with_capacity(count.min(bytes.len() / shortest));
    for _ in 0..count {
        list.push(read(bytes)?);
    }
    Ok(list)
}

fn read_count(bytes: &mut &[u8]) -> Result<usize, Error> {
    match VarInt::consensus_decode(bytes)?.0 {
        count @ 0..=MAX_SIZE => Ok(count as usize),
        _ => Err(Error::ParseFailed("a list of more than 2^25 elements")),
    }
}

fn read_bytes<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], Error> {
    let count = read_count(bytes)?;
    let (read, rest) =
        bytes.split_at_checked(count).ok_or(Error::ParseFailed("data reaches beyond the end"))?;
    *bytes = rest;
    Ok(read)
}

/// Decodes a witness. The crate's decoder takes little memory but stops at 4,000,000 bytes; it is used only if all
/// elements are there. Its buffer doubles as it grows, so a copy of exact size is kept.
fn read_witness(bytes: &mut &[u8]) -> Result<Witness, Error> {
    let mut rest = *bytes;
    for _ in 0..read_count(&mut rest)? {
        read_bytes(&mut rest)?;
    }
    let mut witness = std::mem::replace(bytes, rest);
    let elements = witness;
    Ok(match Witness::consensus_decode(&mut witness) {
        Ok(read) => Witness::clone(&read),
        Err(_) => Witness::from_slice(&read_list(&mut &*elements, 1, read_bytes)?),
    })
}

fn read_input(bytes: &mut &[u8]) -> Result<TxIn, Error> {
    Ok(TxIn {
        previous_output: OutPoint::consensus_decode(bytes)?,
        script_sig: ScriptBuf::from_bytes(read_bytes(bytes)?.to_vec()),
        sequence: Sequence::consensus_decode(bytes)?,
        witness: Witness::new(),
    })
}

fn read_output(bytes: &mut &[u8]) -> Result<TxOut, Error> {
    Ok(TxOut {
        value: bitcoin::Amount::consensus_decode(bytes)?,
        script_pubkey: ScriptBuf::from_bytes(read_bytes(bytes)?.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::params::Params;
    use bitcoin::consensus::encode::serialize;

    #[test]
    fn a_block_reads_as_the_bitcoin_crate_wrote_it_and_bytes_behind_it_stay() {
        let block = Params::main().genesis.block();
        let bytes = [serialize(&block), vec![7; 3]].concat();
        let mut rest = bytes.as_slice();
        assert_eq!(read_block(&mut rest).unwrap(), block);
        assert_eq!(rest, [7; 3]);
        assert!(whole_block(&bytes).is_err(), "three bytes too many");
        assert_eq!(whole_block(&bytes[..bytes.len() - 3]).unwrap(), block);
        for cut in 0..bytes.len() - 3 {
            assert!(read_block(&mut &bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_witness_marker_without_witness_is_taken_and_one_with_witness_too() {
        let mut tx = Params::main().genesis.block().txdata[0].clone();
        let plain = serialize(&tx);
        let marked =
            [&plain[..4], &[0, 1], &plain[4..plain.len() - 4], &[0], &plain[plain.len() - 4..]].concat();
        assert!(bitcoin::consensus::deserialize::<Transaction>(&marked).is_err(), "the crate refuses it");
        assert_eq!(read_transaction(&mut marked.as_slice()).unwrap(), tx);
        let unknown_flag = [&plain[..4], &[0, 2], &plain[4..]].concat();
        assert!(read_transaction(&mut unknown_flag.as_slice()).is_err());
        tx.input[0].witness = Witness::from_slice(&[[9u8; 32]]);
        assert_eq!(read_transaction(&mut serialize(&tx).as_slice()).unwrap(), tx);
    }

    #[test]
    fn a_transaction_without_inputs_is_read_and_left_to_the_rules() {
        let bytes = [&1i32.to_le_bytes()[..], &[0, 0], &5u32.to_le_bytes()].concat();
        let tx = read_transaction(&mut bytes.as_slice()).unwrap();
        assert!(tx.input.is_empty() && tx.output.is_empty());
        assert_eq!(crate::tx::check(&tx).unwrap_err().reject_reason(), "bad-txns-vin-empty");
    }

    #[test]
    fn lists_above_four_million_bytes_are_read_and_counts_above_two_to_the_25_are_not() {
        let mut tx = Params::main().genesis.block().txdata[0].clone();
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; 4_100_000]);
        tx.input[0].witness = Witness::from_slice(&[vec![1u8; 4_100_000]]);
        assert_eq!(read_transaction(&mut serialize(&tx).as_slice()).unwrap(), tx);
        // One element more than allowed, with enough bytes for it.
        let count = |n: u32| [&[0xfe][..], &n.to_le_bytes()].concat();
        let script = |n: u32| [&[0u8; 36][..], &count(n), &vec![0; n as usize + 4]].concat();
        assert!(read_input(&mut script(0x0200_0000).as_slice()).is_ok());
        assert!(read_input(&mut script(0x0200_0001).as_slice()).is_err());
        assert!(read_count(&mut &[0xfd, 0xfc, 0x00][..]).is_err(), "not the shortest form");
    }
}
