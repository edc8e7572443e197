//! Blocks and transactions from bytes, as Core 0.15 reads them (`UnserializeTransaction`).
//!
//! The `bitcoin` crate refuses two encodings that the reference takes: the witness marker in front of a
//! transaction without any witness, and a transaction without inputs. A block that one node can read and another
//! cannot would split the chain. Writing is the crate's own.

use bitcoin::block::Header;
use bitcoin::consensus::encode::{Decodable, Error};
use bitcoin::{Block, Transaction, TxIn, TxOut, VarInt, Witness, absolute, transaction};

/// Reads a block and moves `bytes` behind it.
///
/// # Errors
/// Where the reference says "Block decode failed".
pub fn read_block(bytes: &mut &[u8]) -> Result<Block, Error> {
    let header = Header::consensus_decode(bytes)?;
    let count = VarInt::consensus_decode(bytes)?.0;
    // Nothing is allocated for the count: each transaction must be there first.
    let txdata = (0..count).map(|_| read_transaction(bytes)).collect::<Result<_, _>>()?;
    Ok(Block { header, txdata })
}

/// Reads a transaction and moves `bytes` behind it.
///
/// # Errors
/// Where the reference says "TX decode failed".
pub fn read_transaction(bytes: &mut &[u8]) -> Result<Transaction, Error> {
    let version = transaction::Version::consensus_decode(bytes)?;
    let mut input = Vec::<TxIn>::consensus_decode(bytes)?;
    let mut output = Vec::new();
    // No inputs may be the marker; the flags follow it, and without any the transaction is really empty.
    let flags = if input.is_empty() { u8::consensus_decode(bytes)? } else { 0 };
    if flags != 0 {
        input = Vec::<TxIn>::consensus_decode(bytes)?;
    }
    if flags != 0 || !input.is_empty() {
        output = Vec::<TxOut>::consensus_decode(bytes)?;
    }
    if flags & 1 != 0 {
        for input in &mut input {
            input.witness = Witness::consensus_decode(bytes)?;
        }
    }
    if flags > 1 {
        return Err(Error::ParseFailed("unknown transaction flags"));
    }
    Ok(Transaction { version, input, output, lock_time: absolute::LockTime::consensus_decode(bytes)? })
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
}
