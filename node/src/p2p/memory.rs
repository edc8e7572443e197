//! Memory use of messages. Limits are in these bytes, because wire bytes and weight say little about it (an empty
//! witness item weighs 1 and takes 5 bytes, an output of 10 bytes takes 64).
//!
//! Lives here: the arithmetic, for transactions and decoded messages. Does not live here: the limits. Data goes:
//! message -> [`of_message`] -> the peer's receive budget; transaction -> [`of`] -> limits on what is kept.

use bitcoin::{Transaction, TxIn, TxOut};

use super::message::Message;

/// Bytes that a witness item takes in the index.
const WITNESS_INDEX: usize = 4;

/// Bytes of an allocation in glibc: 8 bytes of overhead, in steps of 16, at least 32. Zero bytes need no
/// allocation.
fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// Bytes that a transaction takes, including the struct itself.
pub(crate) fn of(tx: &Transaction) -> usize {
    let input = |input: &TxIn| {
        let witness = if input.witness.is_empty() {
            0
        } else {
            allocated(input.witness.size() + WITNESS_INDEX * input.witness.len())
        };
        allocated(input.script_sig.len()) + witness
    };
    size_of::<Transaction>()
        + allocated(tx.input.len() * size_of::<TxIn>())
        + allocated(tx.output.len() * size_of::<TxOut>())
        + tx.input.iter().map(input).sum::<usize>()
        + tx.output.iter().map(|output| allocated(output.script_pubkey.len())).sum::<usize>()
}

/// Bytes that a message takes in memory; `payload` is the length of its payload.
pub(crate) fn of_message(message: &Message, payload: usize) -> usize {
    let all = |txs: &mut dyn Iterator<Item = &Transaction>| txs.map(of).sum::<usize>();
    match message {
        Message::Block(_, block) => all(&mut block.txdata.iter()),
        Message::Tx(_, tx) => of(tx),
        Message::CmpctBlock(compact, _) => {
            size_of_val(&compact.short_ids[..])
                + all(&mut compact.prefilled.iter().map(|prefilled| &prefilled.tx))
        }
        Message::BlockTxn(answer, _) => all(&mut answer.transactions.iter()),
        // Lists of hashes, headers and addresses: an entry takes up to half more than its wire bytes.
        _ => payload + payload / 2,
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::consensus::encode::serialize;
    use bitcoin::{Amount, ScriptBuf, Sequence, Witness, absolute, transaction};
    use iop_consensus::wire::read_transaction;

    use super::*;

    #[test]
    fn a_transaction_takes_at_most_eight_times_its_bytes_whatever_it_is_made_of() {
        let input = |witness: &Witness| TxIn {
            sequence: Sequence::MAX,
            witness: witness.clone(),
            script_sig: ScriptBuf::from_bytes(vec![0]),
            ..TxIn::default()
        };
        let output = |script: usize| TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(vec![0; script]),
        };
        for (inputs, items, outputs, script) in [
            (1, 0, 5_000, 1),
            (1, 0, 5_000, 0),
            (2_000, 0, 1, 1),
            (1, 50_000, 1, 1),
            (2_000, 1, 1, 30),
            (1, 0, 1, 1),
        ] {
            let witness = Witness::from_slice(&vec![[0u8; 0]; items]);
            let tx = Transaction {
                version: transaction::Version::TWO,
                lock_time: absolute::LockTime::ZERO,
                input: vec![input(&witness); inputs],
                output: vec![output(script); outputs],
            };
            let bytes = serialize(&tx);
            let read = read_transaction(&mut bytes.as_slice()).expect("it was just written");
            let memory = of(&read);
            assert!(
                memory <= 8 * bytes.len(),
                "{inputs} {items} {outputs} {script}: {memory} of {}",
                bytes.len()
            );
            // The count is exact: lists are allocated with exactly the capacity they need.
            assert_eq!((read.input.capacity(), read.output.capacity()), (inputs, outputs));
        }
    }
}
