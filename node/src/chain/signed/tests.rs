//! Blocks whose signatures were verified ahead, compared with the same blocks without that.

#![allow(clippy::unwrap_used)]

use bitcoin::hashes::{Hash, hash160};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::SighashCache;
use bitcoin::{
    Amount, OutPoint, PubkeyHash, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute,
    transaction,
};
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::params::Params;

use super::*;
use crate::chain::checked::CheckedBlock;
use crate::chain::state::ChainState;
use crate::chain::verdict::Submitted;
use crate::generate::{Payee, mine};
use crate::storage::Storage;
use crate::template::template;

const NOW: u64 = 1_700_000_000;
/// Number of blocks, such that the coinbases of the first nine are mature.
const BLOCKS: usize = 109;

fn open(dir: &std::path::Path) -> ChainState {
    let params = Arc::new(Params::regtest());
    let storage = Arc::new(Storage::open(dir, &params).unwrap());
    ChainState::load(params, storage).unwrap()
}

fn secret(number: u8) -> SecretKey {
    SecretKey::from_slice(&[number; 32]).unwrap()
}

fn public(number: u8) -> [u8; 33] {
    secret(number).public_key(&Secp256k1::new()).serialize()
}

fn pays_to(number: u8) -> ScriptBuf {
    ScriptBuf::new_p2pkh(&PubkeyHash::from_raw_hash(hash160::Hash::hash(&public(number))))
}

/// A block on top of the tip that pays to key 1, with this transaction.
fn next_block(state: &mut ChainState, tx: Option<Transaction>) -> Block {
    let hash = hash160::Hash::hash(&public(1)).to_byte_array();
    let payee = Payee { address: Address { kind: AddressKind::PubkeyHash, hash }, key: None };
    let mut block = mine(&template(state, NOW), &payee, || false).unwrap();
    block.txdata.extend(tx);
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while !block.header.target().is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    block
}

/// Spends a coin as if it paid to the key with this number.
fn spend(coin: OutPoint, number: u8, hash_type: u8) -> Transaction {
    let mut tx = Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output: coin, sequence: Sequence::MAX, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(7), script_pubkey: pays_to(3) }],
    };
    let cache = SighashCache::new(&tx);
    let digest = cache.legacy_signature_hash(0, &pays_to(number), u32::from(hash_type)).unwrap();
    let message = Message::from_digest(digest.to_byte_array());
    let mut signature = Secp256k1::new().sign_ecdsa(&message, &secret(number)).serialize_der().to_vec();
    signature.push(hash_type);
    let push = |data: &[u8]| [&[data.len() as u8][..], data].concat();
    tx.input[0].script_sig = [push(&signature), push(&public(number))].concat().into();
    tx
}

fn change_script(tx: &mut Transaction, change: impl FnOnce(&mut Vec<u8>)) {
    let mut script = tx.input[0].script_sig.to_bytes();
    change(&mut script);
    tx.input[0].script_sig = script.into();
}

/// Spends of coins of key 1: what is wrong, the transaction, whether its signature is found valid for that key
/// ahead, and whether the transaction is valid.
fn cases(coins: &[OutPoint]) -> Vec<(&'static str, Transaction, bool, bool)> {
    let mut coins = coins.iter().copied();
    let mut coin = || coins.next().unwrap();
    let mut spoilt = |change: &dyn Fn(&mut Transaction)| {
        let mut tx = spend(coin(), 1, 1);
        change(&mut tx);
        tx
    };
    vec![
        ("nothing", spoilt(&|_| {}), true, true),
        ("a byte of the signature", spoilt(&|tx| change_script(tx, |script| script[20] ^= 1)), false, false),
        (
            "a byte of the key",
            spoilt(&|tx| change_script(tx, |script| *script.last_mut().unwrap() ^= 1)),
            false,
            false,
        ),
        (
            "the hash type's byte alone",
            spoilt(&|tx| {
                change_script(tx, |script| {
                    let last = usize::from(script[0]);
                    script[last] = 3;
                })
            }),
            false,
            false,
        ),
        (
            "another amount than was signed",
            spoilt(&|tx| tx.output[0].value = Amount::from_sat(8)),
            false,
            false,
        ),
        ("a witness", spoilt(&|tx| tx.input[0].witness = Witness::from_slice(&[[1u8]])), false, false),
        ("a signature of no output, which is left to the interpreter", spend(coin(), 1, 2), false, true),
        ("another key than the coin's", spend(coin(), 2, 1), false, false),
    ]
}

#[test]
fn a_block_is_judged_the_same_whether_or_not_its_signatures_were_verified_before() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut with, mut without) = (open(one.path()), open(other.path()));
    let mut coins = Vec::new();
    for _ in 0..BLOCKS {
        let block = next_block(&mut with, None);
        for state in [&mut with, &mut without] {
            assert_eq!(state.submit(block.clone(), NOW).unwrap(), Submitted::Accepted);
        }
        coins.push(OutPoint::new(block.txdata[0].compute_txid(), 0));
    }
    for (what, tx, is_found, is_valid) in cases(&coins) {
        let block = next_block(&mut with, Some(tx));
        let checked = || CheckedBlock::new(block.clone(), &Params::regtest()).unwrap();
        let looked_at = checked();
        look_at_all(looked_at.signed(), &block);
        assert_eq!(looked_at.signed().is_signed(1, 0, &pays_to(1)), Some(is_found), "{what}");
        let verdict = with.accept_checked(Ok(looked_at), true, NOW).unwrap().verdict.unwrap();
        assert_eq!(verdict.is_ok(), is_valid, "{what}: {verdict:?}");
        let plain = without.accept_checked(Ok(checked()), true, NOW).unwrap().verdict.unwrap();
        assert_eq!(verdict, plain, "{what}");
    }
}

fn look_at_all(signed: &Signed, block: &Block) {
    let _ = (1..).take_while(|place| signed.look_at(block, *place)).count();
}

/// Blocks that arrive out of order are stored at once, and many may be queued for signature verification.
#[test]
fn a_block_that_waits_to_be_looked_at_takes_no_memory_when_nobody_else_has_it() {
    let txdata = vec![spend(OutPoint::null(), 1, 1), spend(OutPoint::null(), 1, 1)];
    let block = Arc::new(Block { header: Params::regtest().genesis.block().header, txdata });
    let signed = Arc::new(Signed::of(2));
    let (kept_signed, kept_block) = (Arc::downgrade(&signed), Arc::downgrade(&block));
    // Occupies all threads.
    let busy = Arc::new(std::sync::Barrier::new(rayon::current_num_threads() + 1));
    for _ in 0..rayon::current_num_threads() {
        let busy = busy.clone();
        rayon::spawn(move || {
            busy.wait();
        });
    }
    signed.begin(&block);
    drop((signed, block));
    let kept = (kept_signed.upgrade().is_some(), kept_block.upgrade().is_some());
    busy.wait(); // before a failure: other tests need these threads
    assert_eq!(kept, (false, false), "the signatures, the block");
}

#[test]
fn what_is_found_for_one_key_says_nothing_of_another_and_what_is_not_looked_at_says_nothing_at_all() {
    let block = Arc::new(Block {
        header: Params::regtest().genesis.block().header,
        txdata: vec![spend(OutPoint::null(), 1, 1), spend(OutPoint::null(), 1, 1)],
    });
    let signed = Arc::new(Signed::of(2));
    assert_eq!(signed.is_signed(1, 0, &pays_to(1)), None);
    signed.end();
    look_at_all(&signed, &block);
    assert_eq!(signed.is_signed(1, 0, &pays_to(1)), None, "the search was ended");
    let signed = Arc::new(Signed::of(2));
    look_at_all(&signed, &block);
    assert_eq!(signed.is_signed(1, 0, &pays_to(1)), Some(true));
    for script in [pays_to(2), ScriptBuf::new(), ScriptBuf::from_bytes(pays_to(1).to_bytes()[1..].to_vec())] {
        assert_eq!(signed.is_signed(1, 0, &script), Some(false));
    }
    for (place, input) in [(0, 0), (1, 1), (2, 0)] {
        assert_eq!(signed.is_signed(place, input, &pays_to(1)), None);
    }
}
