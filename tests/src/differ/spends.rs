//! Transactions that break, or just meet, one rule each.

use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid, Witness, absolute, transaction,
};
use iop_consensus::script::legacy_sigops;

use super::Player;
use crate::forge::lock::{Lock, SIGOPS, push};
use crate::forge::{Coin, Draft, STRANGER, transaction as unsigned};

/// Adds to the draft; `None` if the branch has no coin for it.
type Spend = fn(&mut Player, &mut Draft) -> Option<()>;

/// A signed transaction that spends one random coin.
fn plain(player: &mut Player, draft: &Draft) -> Option<Transaction> {
    spending(player, draft, |_| true)
}

fn spending(player: &mut Player, draft: &Draft, wanted: impl Fn(&Coin) -> bool) -> Option<Transaction> {
    let coin = player.coin(draft, wanted)?;
    let value = player.forge.coin(draft, &coin)?.value;
    let outputs = player.outputs(value);
    Some(player.forge.spend(draft, &[coin], outputs))
}

/// Adds a plain transaction that `change` modifies before it is signed.
fn changed(
    player: &mut Player,
    draft: &mut Draft,
    change: impl FnOnce(&mut Player, &mut Transaction),
) -> Option<()> {
    let mut tx = plain(player, draft)?;
    change(player, &mut tx);
    player.forge.sign(draft, &mut tx);
    draft.txs.push(tx);
    Some(())
}

/// Adds a transaction that spends a coin with this lock, and that `damage` modifies.
fn damaged(
    player: &mut Player,
    draft: &mut Draft,
    wanted: impl Fn(&Coin) -> bool,
    damage: impl FnOnce(&mut Player, &mut Transaction),
) -> Option<()> {
    let mut tx = spending(player, draft, wanted)?;
    damage(player, &mut tx);
    draft.txs.push(tx);
    Some(())
}

fn signed_by_script(coin: &Coin) -> bool {
    matches!(coin.lock, Lock::Pkh(_) | Lock::Pk(_) | Lock::Multisig(..))
}

/// Replaces byte `at` places from the start of the scriptSig.
fn flip(tx: &mut Transaction, at: usize, mask: u8) {
    let mut script = tx.input[0].script_sig.to_bytes();
    if let Some(byte) = script.get_mut(at) {
        *byte ^= mask;
    }
    tx.input[0].script_sig = ScriptBuf::from_bytes(script);
}

fn amounts(player: &mut Player, draft: &mut Draft, values: &[u64]) -> Option<()> {
    let script = Lock::Anyone.script(&player.forge.keys);
    let outputs =
        values.iter().map(|&value| TxOut { value: Amount::from_sat(value), script_pubkey: script.clone() });
    let outputs = outputs.collect();
    changed(player, draft, |_, tx| tx.output = outputs)
}

fn lock_time(player: &mut Player, draft: &mut Draft, time: u32) -> Option<()> {
    let sequence = player.random.pick(&[0, 1, u32::MAX - 1, u32::MAX]);
    changed(player, draft, |_, tx| {
        tx.lock_time = absolute::LockTime::from_consensus(time);
        tx.input[0].sequence = Sequence(sequence);
    })
}

fn relative(player: &mut Player, draft: &mut Draft, bits: u32) -> Option<()> {
    let coin = player.coin(draft, |_| true)?;
    let made = player.forge.coin(draft, &coin)?;
    let age = draft.height - made.height;
    let near = (age + player.random.below(4) as u32).saturating_sub(2);
    let span = player.random.pick(&[0, 1, near, near, near, 0xffff]);
    let version = player.random.pick(&[2, 2, 2, 1, 3, -1]);
    let mut tx = unsigned(vec![coin], player.outputs(made.value));
    tx.version = transaction::Version(version);
    tx.input[0].sequence = Sequence(bits | span);
    player.forge.sign(draft, &mut tx);
    draft.txs.push(tx);
    Some(())
}

/// Pays to a time-locked script in one transaction and spends it in the next.
fn through(player: &mut Player, draft: &mut Draft, lock: Lock, locked: u32, sequence: u32) -> Option<()> {
    player.forge.know(lock);
    let coin = player.coin(draft, |coin| coin.value > 10_000)?;
    let script = lock.script(&player.forge.keys);
    let paying = player.forge.spend(draft, &[coin], vec![(9_000, script)]);
    let outpoint = OutPoint { txid: paying.compute_txid(), vout: 0 };
    draft.txs.push(paying);
    let mut tx = unsigned(vec![outpoint], vec![(8_000, Lock::Anyone.script(&player.forge.keys))]);
    tx.version = transaction::Version::TWO;
    tx.lock_time = absolute::LockTime::from_consensus(locked);
    tx.input[0].sequence = Sequence(sequence);
    player.forge.sign(draft, &mut tx);
    draft.txs.push(tx);
    Some(())
}

/// A transaction whose outputs contain this many signature operations.
fn sigops(player: &mut Player, draft: &mut Draft, wanted: u64) -> Option<()> {
    let coin = player.coin(draft, |_| true)?;
    let script = |count: u64| ScriptBuf::from_bytes(vec![0xac; count as usize]);
    let tx = player.forge.spend(draft, &[coin], vec![(0, script(0))]);
    let counted = legacy_sigops(&draft.coinbase) + legacy_sigops(&tx);
    let mut left = wanted.checked_sub(counted)?;
    let mut outputs = Vec::new();
    while left > 0 {
        let count = left.min(9_000);
        outputs.push((0, script(count)));
        left -= count;
    }
    let tx = player.forge.spend(draft, &[coin], outputs);
    draft.txs.push(tx);
    Some(())
}

/// Spends `count` outputs with many operations that are counted only when they are spent.
fn counted_when_spent(
    player: &mut Player,
    draft: &mut Draft,
    lock: Lock,
    count: usize,
    more: u64,
) -> Option<()> {
    let coin = player.coin(draft, |coin| coin.value > 100_000)?;
    let paying = player.forge.spend(draft, &[coin], vec![(100, lock.script(&player.forge.keys)); count]);
    let txid = paying.compute_txid();
    draft.txs.push(paying);
    let inputs = (0..count as u32).map(|vout| OutPoint { txid, vout }).collect();
    let script = ScriptBuf::from_bytes(vec![0xac; more as usize]);
    let mut tx = unsigned(inputs, vec![(0, script)]);
    player.forge.sign(draft, &mut tx);
    draft.txs.push(tx);
    Some(())
}

/// The names of the kinds.
pub const KINDS: &[(&str, Spend)] = &[
    ("tx several", |p, d| {
        for _ in 0..1 + p.random.below(4) {
            let tx = plain(p, d)?;
            d.txs.push(tx);
        }
        Some(())
    }),
    ("tx chain", |p, d| {
        let coin = p.coin(d, |coin| coin.value > 10_000)?;
        let script = p.random.pick(&[Lock::Anyone, Lock::Pkh(3), Lock::Open]).script(&p.forge.keys);
        let first = p.forge.spend(d, &[coin], vec![(9_000, script)]);
        let outpoint = OutPoint { txid: first.compute_txid(), vout: 0 };
        d.txs.push(first);
        let second = p.forge.spend(d, &[outpoint], vec![(8_000, Lock::Pkh(4).script(&p.forge.keys))]);
        d.txs.push(second);
        if p.random.one_in(2) {
            d.txs.swap(0, 1);
        }
        Some(())
    }),
    ("tx missing", |p, d| {
        let vout = p.random.below(4) as u32;
        let txid = Txid::from_byte_array([p.random.bits() as u8; 32]);
        changed(p, d, |_, tx| tx.input[0].previous_output = OutPoint { txid, vout })
    }),
    ("tx spent before", |p, d| {
        let (outpoint, coin) = p.spent_coin(d)?;
        let mut tx = unsigned(vec![outpoint], p.outputs(coin.value));
        coin.lock.unlock(&mut tx, 0, coin.value, &p.forge.keys, 1);
        d.txs.push(tx);
        Some(())
    }),
    ("tx spent twice", |p, d| {
        let tx = plain(p, d)?;
        let mut again = tx.clone();
        again.lock_time = absolute::LockTime::from_consensus(1);
        p.forge.sign(d, &mut again);
        d.txs.extend([tx, again]);
        Some(())
    }),
    ("tx young coinbase", |p, d| {
        let (near, height) = (p.random.below(3) as u32, d.height);
        let young = |coin: &Coin| coin.coinbase && (height - coin.height).abs_diff(100) <= near;
        let coin = p.young_coin(d, young)?;
        let value = p.forge.coin(d, &coin)?.value;
        let outputs = p.outputs(value);
        let tx = p.forge.spend(d, &[coin], outputs);
        d.txs.push(tx);
        Some(())
    }),
    ("tx pays more than it has", |p, d| {
        let coin = p.coin(d, |_| true)?;
        let value = p.forge.coin(d, &coin)?.value + p.random.below(2) as u64;
        let tx = p.forge.spend(d, &[coin], vec![(value, Lock::Anyone.script(&p.forge.keys))]);
        d.txs.push(tx);
        Some(())
    }),
    ("tx negative", |p, d| {
        let value = p.random.pick(&[u64::MAX, 1 << 63, (1 << 63) + 5]);
        amounts(p, d, &[5, value])
    }),
    ("tx too large", |p, d| {
        let value = p.random.pick(&[2_100_000_000_000_000, 2_100_000_000_000_001, i64::MAX as u64]);
        amounts(p, d, &[value])
    }),
    ("tx total too large", |p, d| amounts(p, d, &[2_100_000_000_000_000, 1])),
    ("tx without inputs", |p, d| changed(p, d, |_, tx| tx.input.clear())),
    ("tx without outputs", |p, d| changed(p, d, |_, tx| tx.output.clear())),
    ("tx with an input twice", |p, d| {
        changed(p, d, |_, tx| {
            let input = tx.input[0].clone();
            tx.input.push(input);
        })
    }),
    ("tx null input", |p, d| {
        changed(p, d, |_, tx| {
            let mut input = tx.input[0].clone();
            input.previous_output = OutPoint::null();
            tx.input.push(input);
        })
    }),
    ("tx lock height", |p, d| {
        let height = (d.height + p.random.below(3) as u32).saturating_sub(2);
        lock_time(p, d, height)
    }),
    ("tx lock time", |p, d| {
        let median = p.forge.median_time(d.parent);
        let clock = p.random.pick(&[median, d.time]);
        let time = clock + p.random.below(3) as u32 - 1;
        lock_time(p, d, time)
    }),
    ("tx relative height", |p, d| relative(p, d, 0)),
    ("tx relative time", |p, d| relative(p, d, 1 << 22)),
    ("tx relative off", |p, d| relative(p, d, 1 << 31)),
    ("tx cltv", |p, d| {
        let at = d.height - 5 + p.random.below(8) as u32;
        let locked = p.random.pick(&[at, d.height - 1, 0]);
        let sequence = p.random.pick(&[0, 0, u32::MAX]);
        through(p, d, Lock::Cltv(at, 2), locked, sequence)
    }),
    ("tx cltv time", |p, d| {
        let median = p.forge.median_time(d.parent);
        let at = median - 3 + p.random.below(6) as u32;
        let locked = p.random.pick(&[median - 1, d.height - 1]);
        through(p, d, Lock::Cltv(at, 2), locked, 0)
    }),
    ("tx csv", |p, d| {
        let at = p.random.pick(&[0, 1, 2, 1 << 22, 1 << 31]);
        let sequence = p.random.pick(&[0, 1, 1 << 22, 1 << 31, u32::MAX]);
        through(p, d, Lock::Csv(at, 2), 0, sequence)
    }),
    ("tx flipped", |p, d| {
        let (at, mask) = (p.random.below(80), 1 << p.random.below(8));
        damaged(p, d, signed_by_script, |_, tx| flip(tx, at, mask))
    }),
    ("tx other output", |p, d| {
        damaged(p, d, signed_by_script, |_, tx| {
            tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() });
        })
    }),
    ("tx hash type", |p, d| {
        let hash_type = p.random.pick(&[0, 2, 3, 4, 0x41, 0x81, 0x82, 0x83, 0xff]);
        let coin = p.coin(d, signed_by_script)?;
        let made = p.forge.coin(d, &coin)?;
        let mut tx = unsigned(vec![coin], p.outputs(made.value));
        made.lock.unlock(&mut tx, 0, made.value, &p.forge.keys, hash_type);
        d.txs.push(tx);
        Some(())
    }),
    ("tx high s", |p, d| {
        let coin = p.coin(d, |coin| matches!(coin.lock, Lock::Pk(_)))?;
        let made = p.forge.coin(d, &coin)?;
        let Lock::Pk(key) = made.lock else { return None };
        let mut tx = unsigned(vec![coin], p.outputs(made.value));
        let digest = made.lock.digest(&tx, 0, made.value, &p.forge.keys, 1);
        let signature = [p.forge.keys[key].sign_high(digest), vec![1]].concat();
        tx.input[0].script_sig = ScriptBuf::from_bytes(push(&signature));
        d.txs.push(tx);
        Some(())
    }),
    ("tx loose der", |p, d| {
        let coin = p.coin(d, |coin| matches!(coin.lock, Lock::Pk(_)))?;
        let made = p.forge.coin(d, &coin)?;
        let Lock::Pk(key) = made.lock else { return None };
        let mut tx = unsigned(vec![coin], p.outputs(made.value));
        let digest = made.lock.digest(&tx, 0, made.value, &p.forge.keys, 1);
        let mut signature = p.forge.keys[key].sign(digest);
        // One zero too many before R.
        signature.insert(4, 0);
        signature[3] += 1;
        signature[1] += 1;
        tx.input[0].script_sig = ScriptBuf::from_bytes(push(&[signature, vec![1]].concat()));
        d.txs.push(tx);
        Some(())
    }),
    ("tx by another", |p, d| {
        let coin = p.coin(d, |coin| matches!(coin.lock, Lock::Pkh(_)))?;
        let made = p.forge.coin(d, &coin)?;
        let mut tx = unsigned(vec![coin], p.outputs(made.value));
        Lock::Pkh(STRANGER).unlock(&mut tx, 0, made.value, &p.forge.keys, 1);
        d.txs.push(tx);
        Some(())
    }),
    ("tx dummy", |p, d| {
        let wanted = |coin: &Coin| matches!(coin.lock, Lock::Multisig(..) | Lock::ShMultisig(..));
        damaged(p, d, wanted, |_, tx| flip(tx, 0, 0x51))
    }),
    ("tx wrong redeem script", |p, d| {
        let at = p.random.below(4);
        damaged(
            p,
            d,
            |coin| matches!(coin.lock, Lock::ShAnyone | Lock::ShMultisig(..)),
            |_, tx| flip(tx, at, 3),
        )
    }),
    ("tx odd script", |p, d| {
        let scripts: [&[u8]; 9] =
            [&[0x00], &[0x61], &[0x6a], &[0x51, 0x51], &[0x7e], &[0x4f], &[0x50], &[0x01], &[0x51, 0x63]];
        let script = p.random.pick(&scripts).to_vec();
        let wanted = |coin: &Coin| matches!(coin.lock, Lock::Anyone | Lock::Open | Lock::ShAnyone);
        damaged(p, d, wanted, |_, tx| tx.input[0].script_sig = ScriptBuf::from_bytes(script))
    }),
    ("tx unspendable", |p, d| {
        let coin = p.coin(d, |coin| coin.value > 10_000)?;
        let long = vec![0x61; 10_000 + p.random.below(2)];
        let script = ScriptBuf::from_bytes(p.random.pick(&[vec![0x6a], long, vec![0x51; 10_001]]));
        let paying = p.forge.spend(d, &[coin], vec![(9_000, script)]);
        let outpoint = OutPoint { txid: paying.compute_txid(), vout: 0 };
        d.txs.push(paying);
        d.txs.push(unsigned(vec![outpoint], vec![(1, Lock::Anyone.script(&p.forge.keys))]));
        Some(())
    }),
    ("tx large element", |p, d| {
        let data = vec![1; 520 + p.random.below(2)];
        damaged(
            p,
            d,
            |coin| coin.lock == Lock::Anyone,
            |_, tx| {
                tx.input[0].script_sig = ScriptBuf::from_bytes(push(&data));
            },
        )
    }),
    ("tx many operations", |p, d| {
        let script = [vec![0x61; 201 + p.random.below(2)], vec![0x51]].concat();
        damaged(
            p,
            d,
            |coin| coin.lock == Lock::Open,
            |_, tx| {
                tx.input[0].script_sig = ScriptBuf::from_bytes(script);
            },
        )
    }),
    ("tx sigops", |p, d| {
        let wanted = 20_000 + p.random.below(3) as u64 - 1;
        sigops(p, d, wanted)
    }),
    ("tx sigops in redeem scripts", |p, d| {
        // Five times 3980 in P2SH cost 79,600 units; a hundred more reach the limit.
        let more = (80_000 - 5 * 4 * SIGOPS) / 4 - legacy_sigops(&d.coinbase);
        let more = more + p.random.below(3) as u64 - 1;
        counted_when_spent(p, d, Lock::ShSigops, 5, more)
    }),
    ("tx sigops in witness scripts", |p, d| {
        // Twenty times 3980 in the witness cost 79,600 units.
        let more = (80_000 - 20 * SIGOPS) / 4 - legacy_sigops(&d.coinbase);
        let more = more + p.random.below(3) as u64 - 1;
        counted_when_spent(p, d, Lock::WshSigops, 20, more)
    }),
    ("tx witness", |p, d| {
        let tx = spending(p, d, |coin| coin.lock.has_witness())?;
        d.txs.push(tx);
        d.commit |= p.random.one_in(4);
        Some(())
    }),
    ("tx witness damaged", |p, d| {
        let (at, what) = (p.random.below(100), p.random.below(5));
        damaged(
            p,
            d,
            |coin| coin.lock.has_witness(),
            |_, tx| {
                let mut witness = tx.input[0].witness.to_vec();
                match what {
                    0 => witness.clear(),
                    1 => witness.insert(0, vec![]),
                    2 => drop(witness.pop()),
                    3 => witness.push(vec![1]),
                    _ => {
                        let last = witness.len() - 1;
                        let length = witness[last].len();
                        witness[last][at % length] ^= 1;
                    }
                }
                tx.input[0].witness = Witness::from_slice(&witness);
            },
        )
    }),
    ("tx unexpected witness", |p, d| {
        d.commit |= p.random.one_in(2);
        damaged(
            p,
            d,
            |coin| !coin.lock.has_witness(),
            |_, tx| {
                tx.input[0].witness = Witness::from_slice(&[vec![1u8]]);
            },
        )
    }),
    ("tx nested program malleated", |p, d| {
        damaged(
            p,
            d,
            |coin| matches!(coin.lock, Lock::ShWpkh(_)),
            |_, tx| {
                let script = [vec![0x51], tx.input[0].script_sig.to_bytes()].concat();
                tx.input[0].script_sig = ScriptBuf::from_bytes(script);
            },
        )
    }),
];

/// Adds transactions of one of the kinds to the draft; returns the kind's name.
pub fn add(player: &mut Player, draft: &mut Draft) -> Option<&'static str> {
    let (name, spend) = player.random.pick(KINDS);
    spend(player, draft).map(|()| name)
}

/// Adds transactions that break no rule.
pub fn add_valid(player: &mut Player, draft: &mut Draft) -> Option<&'static str> {
    let tx = spending(player, draft, |coin| !coin.lock.has_witness())?;
    draft.txs.push(tx);
    Some(" tx")
}
