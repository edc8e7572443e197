//! Whole blocks that break, or just meet, a rule about headers, sizes, merkle trees or amounts; and broken bytes.

use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, ScriptBuf, TxMerkleNode, TxOut, Witness, absolute, transaction,
};

use super::{Offer, Player};
use crate::forge::lock::Lock;
use crate::forge::{Draft, seal, work};

type Make = fn(&mut Player, Draft) -> Option<Offer>;

/// A valid block that is broken after it was finished, with new work.
fn broken(
    player: &mut Player,
    draft: Draft,
    name: &str,
    change: impl FnOnce(&mut Player, &mut Block),
) -> Option<Offer> {
    let parent = draft.parent;
    let mut block = player.forge.finish(draft);
    change(player, &mut block);
    work(&mut block);
    Some(player.offer(name, parent, block))
}

/// A block with this size without witness.
fn padded(player: &mut Player, mut draft: Draft, size: impl Fn(&Block) -> usize) -> Option<Offer> {
    let coin = player.coin(&draft, |coin| coin.value > 1_000)?;
    let pad = |count: usize| ScriptBuf::from_bytes([vec![0x6a], vec![0x51; count - 1]].concat());
    let tx = player.forge.spend(&draft, &[coin], vec![(1, pad(900_000))]);
    draft.txs.push(tx);
    let without = player.forge.finish(draft.clone());
    let base: usize = 81 + without.txdata.iter().map(|tx| tx.base_size()).sum::<usize>();
    let wanted = size(&without);
    let tx = player.forge.spend(&draft, &[coin], vec![(1, pad(900_000 + wanted - base))]);
    *draft.txs.last_mut()? = tx;
    let parent = draft.parent;
    let block = player.forge.finish(draft);
    Some(player.offer("blk size", parent, block))
}

fn raw(kind: &str, bytes: &[u8]) -> Option<Offer> {
    Some(Offer { kind: kind.to_owned(), hex: hex::encode(bytes), made: None })
}

/// The bytes of a valid block, changed.
fn bytes(
    player: &mut Player,
    draft: Draft,
    name: &str,
    change: impl FnOnce(&mut Player, &mut Vec<u8>),
) -> Option<Offer> {
    let block = player.forge.finish(draft);
    let mut bytes = serialize(&block);
    change(player, &mut bytes);
    raw(name, &bytes)
}

/// The names of the kinds.
pub const KINDS: &[(&str, Make)] = &[
    ("hdr version", |p, mut d| {
        let versions = [
            0,
            1,
            4,
            0x1fff_ffff,
            0x2000_0000,
            0x3fff_ffff,
            0x4000_0000,
            0x7fff_ffff,
            i32::MIN,
            -1,
            -536_870_912,
        ];
        d.version = p.random.pick(&versions);
        p.finished("hdr version", d)
    }),
    ("hdr bits", |p, mut d| {
        let bits = [
            0,
            0x207f_fffe,
            0x207f_ffff,
            0x2080_0000,
            0x20ff_ffff,
            0x217f_ffff,
            0x2100_ffff,
            0x2200_00ff,
            0x2300_00ff,
            0x1d00_ffff,
            0x0300_0000,
            0x0100_3456,
            0x0492_3456,
            0xff12_3456,
            0x1f7f_ffff,
            0x2000_ffff,
        ];
        d.bits = CompactTarget::from_consensus(p.random.pick(&bits));
        p.finished("hdr bits", d)
    }),
    ("hdr time", |p, mut d| {
        let median = p.forge.median_time(d.parent);
        let now = if p.timeless { 0 } else { p.now() };
        d.time = p.random.pick(&[median, median - 1, median + 1, now + 7_000, now + 7_500, u32::MAX]);
        // A block from tomorrow would delay all that follow.
        if d.time.abs_diff(now) < 7_200 {
            d.version = 1;
        }
        p.finished("hdr time", d)
    }),
    ("hdr two faults", |p, mut d| {
        let median = p.forge.median_time(d.parent);
        d.version = p.random.pick(&[1, d.version]);
        d.time = p.random.pick(&[median, d.time, u32::MAX]);
        d.bits = CompactTarget::from_consensus(p.random.pick(&[0x207f_fffe, 0x207f_ffff]));
        p.finished("hdr two faults", d)
    }),
    ("hdr orphan", |p, d| {
        let hash = BlockHash::from_byte_array([p.random.bits() as u8; 32]);
        broken(p, d, "hdr orphan", |_, block| block.header.prev_blockhash = hash)
    }),
    ("hdr high hash", |p, d| {
        let parent = d.parent;
        let mut block = p.forge.finish(d);
        block.header.nonce = p.random.bits() as u32;
        Some(p.offer("hdr high hash", parent, block))
    }),
    ("hdr merkle root", |p, d| {
        broken(p, d, "hdr merkle root", |_, block| block.header.merkle_root = TxMerkleNode::all_zeros())
    }),
    ("blk repeated end", |p, mut d| {
        for _ in 0..p.random.below(4) {
            super::spends::add(p, &mut d);
        }
        broken(p, d, "blk repeated end", |p, block| {
            let count = block.txdata.len();
            let end = p.random.pick(&[1, 1, 2, 3]).min(count);
            block.txdata.extend_from_within(count - end..);
            if p.random.one_in(4) {
                seal(block);
            }
        })
    }),
    ("blk second coinbase", |p, d| {
        broken(p, d, "blk second coinbase", |_, block| {
            let mut second = block.txdata[0].clone();
            second.lock_time = absolute::LockTime::from_consensus(1);
            block.txdata.push(second);
            seal(block);
        })
    }),
    ("blk no coinbase", |p, mut d| {
        let coin = p.coin(&d, |_| true)?;
        let tx = p.forge.spend(&d, &[coin], vec![(1, ScriptBuf::new())]);
        d.txs.push(tx);
        broken(p, d, "blk no coinbase", |_, block| {
            block.txdata.remove(0);
            seal(block);
        })
    }),
    ("blk without transactions", |p, d| {
        broken(p, d, "blk without transactions", |_, block| block.txdata.clear())
    }),
    ("blk amount", |p, mut d| {
        let mut fees = 0;
        for _ in 0..p.random.below(3) {
            let Some(coin) = p.coin(&d, |coin| coin.value > 10_000) else { continue };
            let value = p.forge.coin(&d, &coin)?.value;
            let fee = p.random.below(1_000) as u64;
            fees += fee;
            let tx = p.forge.spend(&d, &[coin], vec![(value - fee, Lock::Anyone.script(&p.forge.keys))]);
            d.txs.push(tx);
        }
        let value = d.coinbase.output[0].value.to_sat() + fees;
        d.coinbase.output[0].value = Amount::from_sat(p.random.pick(&[value, value + 1, value - 1, fees, 0]));
        p.finished("blk amount", d)
    }),
    ("blk amount and script", |p, mut d| {
        super::spends::add(p, &mut d)?;
        d.coinbase.output[0].value += Amount::from_sat(1_000_000_000_000);
        super::spends::add(p, &mut d);
        p.finished("blk amount and script", d)
    }),
    ("blk coinbase outputs", |p, mut d| {
        let most = 2_100_000_000_000_000;
        let value = p.random.pick(&[most, most + 1, u64::MAX, 0]);
        let more = TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::new() };
        match p.random.below(3) {
            0 => d.coinbase.output.clear(),
            1 => d.coinbase.output.push(more),
            _ => d.coinbase.output.extend([more.clone(), more]),
        }
        d.commit = false;
        p.finished("blk coinbase outputs", d)
    }),
    ("blk coinbase fields", |p, mut d| {
        let median = p.forge.median_time(d.parent);
        let times = [0, d.height - 1, d.height, median - 1, median, d.time - 1, d.time, u32::MAX];
        d.coinbase.lock_time = absolute::LockTime::from_consensus(p.random.pick(&times));
        d.coinbase.input[0].sequence.0 = p.random.pick(&[0, u32::MAX, 1 << 22]);
        d.coinbase.version = transaction::Version(p.random.pick(&[1, 2, 0, -1]));
        p.finished("blk coinbase fields", d)
    }),
    ("blk coinbase script", |p, mut d| {
        let length = p.random.pick(&[1, 2, 3, 100, 101, 300, 301, 10_001]);
        d.coinbase.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51; length]);
        // It begins with a nonpush op, which is safe: its last op is no key.
        p.finished("blk coinbase script", d)
    }),
    ("blk coinbase of before", |p, mut d| {
        let older = p.forge.below(d.parent, p.random.below(5) as u32);
        let txdata = &p.forge.blocks[older].block.txdata;
        if txdata[0].input[0].script_sig.len() < 60 || txdata.len() > 1 {
            return None;
        }
        d.coinbase = txdata[0].clone();
        d.commit = false;
        p.finished("blk coinbase of before", d)
    }),
    ("blk size", |p, d| {
        let size = 1_000_000 - 1 + p.random.below(3);
        padded(p, d, |_| size)
    }),
    ("blk huge", |p, d| {
        // Megabytes are slow, so they are rare.
        let size =
            p.random.one_in(4).then(|| p.random.pick(&[1_500_000, 3_990_000, 4_010_000, 5_000_000]))?;
        padded(p, d, |_| size)
    }),
    ("blk huge witness", |p, mut d| {
        let size = p.random.one_in(4).then(|| p.random.pick(&[900_000, 3_990_000, 4_010_000]))?;
        d.commit = false;
        broken(p, d, "blk huge witness", |p, block| {
            let filler = vec![3; size];
            block.txdata[0].input[0].witness = Witness::from_slice(&[filler, p.random.bytes(2)]);
        })
    }),
    ("blk weight", |p, d| {
        let more = p.random.below(3);
        padded(p, d, |block| {
            let witness: usize = block.txdata.iter().map(|tx| tx.total_size() - tx.base_size()).sum();
            (4_000_000 - witness) / 4 - 1 + more
        })
    }),
    ("blk commitment", |p, mut d| {
        for _ in 0..p.random.below(3) {
            super::spends::add(p, &mut d);
        }
        d.commit = true;
        commitment(p, d)
    }),
    ("raw cut", |p, d| bytes(p, d, "raw cut", |p, bytes| bytes.truncate(p.random.below(bytes.len())))),
    ("raw longer", |p, d| {
        let parent = d.parent;
        let block = p.forge.finish(d);
        let more = p.random.below(9);
        let hex = serialize_hex(&block) + &hex::encode(p.random.bytes(more));
        Some(Offer { hex, ..p.offer("raw longer", parent, block) })
    }),
    ("raw hex", |p, d| {
        let mut hex = serialize_hex(&p.forge.finish(d));
        match p.random.below(5) {
            0 => hex.push('0'),
            1 => hex.insert(3, ' '),
            2 => hex.insert_str(0, "0x"),
            3 => hex.clear(),
            _ => hex.push_str("zz"),
        }
        Some(Offer { kind: "raw hex".to_owned(), hex, made: None })
    }),
    ("raw upper case", |p, d| {
        let parent = d.parent;
        let block = p.forge.finish(d);
        Some(Offer { hex: serialize_hex(&block).to_uppercase(), ..p.offer("raw upper case", parent, block) })
    }),
    ("raw long count", |p, d| {
        // The transaction count, one byte, in a longer form.
        let forms: [&[u8]; 6] = [
            &[0xfd, 1, 0],
            &[0xfe, 1, 0, 0, 0],
            &[0xff, 1, 0, 0, 0, 0, 0, 0, 0],
            &[0xfd, 0xff, 0xff],
            &[0xfe, 1, 0, 0, 2],
            &[0xff; 9],
        ];
        let form = p.random.pick(&forms);
        bytes(p, d, "raw long count", |_, bytes| drop(bytes.splice(80..81, form.to_vec())))
    }),
    ("raw marker", |p, mut d| {
        // The witness marker and a flag before a coinbase without witness.
        d.commit = false;
        let flag = p.random.pick(&[1, 1, 0, 2, 3, 0x80]);
        let parent = d.parent;
        let block = p.forge.finish(d);
        let mut bytes = serialize(&block);
        bytes.splice(85..85, [0, flag]);
        if flag & 1 == 1 {
            let end = bytes.len() - 4;
            bytes.insert(end, 0);
        }
        let made = p.offer("raw marker", parent, block);
        Some(Offer { hex: hex::encode(bytes), ..made })
    }),
    ("raw random", |p, _| {
        let count = p.random.below(300);
        raw("raw random", &p.random.bytes(count))
    }),
];

/// A block with an odd commitment or witness nonce.
fn commitment(player: &mut Player, mut draft: Draft) -> Option<Offer> {
    let (parent, random) = (draft.parent, player.random.below(10));
    let mut coinbase = draft.coinbase.clone();
    player.forge.commit(&mut coinbase, &draft.txs);
    let last = coinbase.output.len() - 1;
    let script = coinbase.output[last].script_pubkey.to_bytes();
    let mut also = |script: Vec<u8>| {
        coinbase.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
    };
    match random {
        0 => also([&script[..6], &[0; 32]].concat()),
        1 => also(script[..37].to_vec()),
        2 => coinbase.output[last].script_pubkey.push_slice([9u8; 70]),
        3 => coinbase.input[0].witness = Witness::new(),
        4 => coinbase.input[0].witness = Witness::from_slice(&[[0u8; 31].to_vec()]),
        5 => coinbase.input[0].witness = Witness::from_slice(&[[1u8; 32]]),
        6 => coinbase.input[0].witness = Witness::from_slice(&[[0u8; 32], [0u8; 32]]),
        7 => coinbase.output[last].script_pubkey = ScriptBuf::from_bytes([&script[..6], &[0; 32]].concat()),
        8 => {
            coinbase.output.remove(last);
        }
        _ => coinbase.output.swap(0, last),
    }
    draft.commit = false;
    draft.coinbase = coinbase;
    let block = player.forge.finish(draft);
    Some(player.offer("blk commitment", parent, block))
}

/// A block of one of the kinds on the draft's parent.
pub fn make(player: &mut Player, draft: Draft) -> Option<Offer> {
    let (_, make) = player.random.pick(KINDS);
    make(player, draft)
}
