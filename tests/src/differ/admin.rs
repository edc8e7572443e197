//! Admin transactions: valid and odd ones.
//!
//! IoP Core undoes its registry inexactly after repeated or contradictory actions (docs/adr/0002), so a player that
//! makes branches performs plain ones only: one per block, and each address is added once and removed once.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, ScriptBuf, Transaction};
use iop_consensus::address::{Address, AddressKind};

use super::Player;
use crate::forge::key::Form;
use crate::forge::lock::{Lock, push};
use crate::forge::{ADMIN, Draft, STRANGER, transaction};

/// A key that counts as an admin on every network below height 38304.
const OLD_ADMIN: [u8; 33] = [
    0x03, 0x8f, 0x21, 0xc8, 0x8b, 0x0d, 0x7f, 0x60, 0xe7, 0x36, 0xcc, 0x44, 0x7a, 0x3a, 0x67, 0x16, 0xc8,
    0x1a, 0x7b, 0x40, 0x3b, 0x27, 0xbe, 0xde, 0x2b, 0x67, 0x52, 0x2d, 0x7c, 0x29, 0xb6, 0xe6, 0x08,
];
/// Base units for each output of an admin transaction.
const SMALL: u64 = 1_000;

/// Addresses that can be added and removed: all keys, and some that never mine.
pub fn targets(player: &Player) -> Vec<Address> {
    let keys = player.forge.keys.iter().map(|key| key.address());
    let others = (1..=6).map(|n| Address { kind: AddressKind::PubkeyHash, hash: [n; 20] });
    let scripts = (7..=8).map(|n| Address { kind: AddressKind::ScriptHash, hash: [n; 20] });
    keys.chain(others).chain(scripts).collect()
}

/// Addresses of one group, which are added and removed together: with all groups listed, a cap is a few blocks.
const GROUP: usize = 250;
/// Groups of addresses; their indices follow those of all targets.
const GROUPS: std::ops::Range<usize> = 1_000..1_004;

fn group(place: usize) -> Vec<Address> {
    let hash = |n: usize| {
        let mut hash = [0xaa; 20];
        hash[..8].copy_from_slice(&((place * GROUP + n) as u64).to_le_bytes());
        hash
    };
    (0..GROUP).map(|n| Address { kind: AddressKind::PubkeyHash, hash: hash(n) }).collect()
}

/// The state after plain actions on a branch: the indices of the listed targets and groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed(pub BTreeSet<usize>);

/// Adds an admin transaction to the draft, if the branch has a coin for it. Returns what is listed after it.
pub fn act(player: &mut Player, draft: &mut Draft, listed: &Listed) -> Option<Listed> {
    if player.plain { plain(player, draft, listed) } else { odd(player, draft).map(|()| listed.clone()) }
}

fn plain(player: &mut Player, draft: &mut Draft, listed: &Listed) -> Option<Listed> {
    let all = targets(player);
    let mut after = listed.clone();
    let mut chosen: Vec<usize> = (1..all.len()).collect();
    player.random.shuffle(&mut chosen);
    let verb = match player.random.below(10) {
        0..2 => {
            let place = GROUPS.start + player.random.below(GROUPS.len());
            chosen = vec![place];
            if after.0.insert(place) {
                b"add".to_vec()
            } else {
                after.0.remove(&place);
                b"rem".to_vec()
            }
        }
        2..4 => {
            chosen.retain(|target| after.0.insert(*target));
            b"add".to_vec()
        }
        4 => {
            chosen.truncate(4);
            chosen.retain(|target| after.0.remove(target));
            b"rem".to_vec()
        }
        5 if player.random.one_in(3) => b"disable_cap".to_vec(),
        // Never a factor of 0, with which the cap is on and off at the same time for IoP Core's undo.
        _ => [&b"enable_cap:"[..], &player.random.pick(&[b"1", b"1", b"2", b"3", b"9", b"z"])[..]].concat(),
    };
    let addresses =
        chosen.iter().flat_map(|&place| all.get(place).map_or_else(|| group(place), |one| vec![*one]));
    let outputs = addresses.map(|address| (SMALL, address.script_pubkey()));
    let verb = ScriptBuf::from_bytes([vec![0x6a], push(&verb)].concat());
    let outputs = std::iter::once((0, verb)).chain(outputs).collect();
    let coin = player.coin(draft, |coin| coin.lock == Lock::Pkh(ADMIN) && coin.value > 300 * SMALL)?;
    let tx = player.forge.spend(draft, &[coin], outputs);
    draft.txs.push(tx);
    Some(after)
}

/// A push of these data, in any form.
fn any_push(player: &mut Player, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u32).to_le_bytes();
    match player.random.below(6) {
        0 => [&[0x4c][..], &length[..1], data].concat(),
        1 => [&[0x4d][..], &length[..2], data].concat(),
        2 => [&[0x4e][..], &length[..4], data].concat(),
        _ => push(data),
    }
}

fn verb(player: &mut Player) -> Vec<u8> {
    let byte = player.random.bits() as u8;
    let cap = [&b"enable_cap:"[..], &[byte]].concat();
    let low = [&b"enable_cap:"[..], &[b'0' + byte % 4]].concat();
    let odd: [&[u8]; 11] = [
        b"Add",
        b"ADD",
        b"add ",
        b"remove",
        b"",
        b"a",
        b"enable_cap",
        b"enable_cap:",
        b"enable_cap:12",
        b"disable_cap:",
        b"ENABLE_CAP:3",
    ];
    match player.random.below(12) {
        0..3 => b"add".to_vec(),
        3..5 => b"rem".to_vec(),
        5 => b"disable_cap".to_vec(),
        6..9 => low,
        9 => cap,
        _ => player.random.pick(&odd).to_vec(),
    }
}

fn verb_script(player: &mut Player) -> Vec<u8> {
    let verb = verb(player);
    let pushed = any_push(player, &verb);
    match player.random.below(16) {
        0 => vec![],
        1 => vec![0x6a],
        2 => [vec![0x6a, 0x51, 0x61, 2, 1, 1], pushed].concat(),
        3 => [vec![0x6a, 0x4b], pushed].concat(),
        4 => [vec![0x6a, 0x4d, 0xff, 0xff], pushed].concat(),
        5 => [vec![0x6a], pushed, vec![player.random.pick(&[0x00, 0x51, 0x61, 0x4b, 0x4c])]].concat(),
        6 => [vec![0x61, 0x6a], pushed].concat(),
        7 => pushed,
        _ => [vec![0x6a], pushed].concat(),
    }
}

/// Output scripts with an address, and ones that seem to have one.
fn output(player: &mut Player) -> Vec<u8> {
    let target = player.random.below(18);
    let address = targets(player)[target];
    let hash = any_push(player, &address.hash);
    let shown = player.random.below(10);
    let key = player.forge.keys[shown].clone();
    let form = player.random.pick(&[Form::Compressed, Form::Uncompressed, Form::Hybrid]);
    let key_push = any_push(player, &key.in_form(form).pubkey);
    match player.random.below(14) {
        0 => [vec![0x76, 0xa9], hash, vec![0x88, 0xac]].concat(),
        1 | 2 => [key_push, vec![0xac]].concat(),
        3 => [key_push, vec![0xac, 0x61]].concat(),
        4 => [vec![0x76, 0xa9], hash, vec![0x88, 0xac, 0x00]].concat(),
        5 => [vec![0x51], key_push, vec![0x51, 0xae]].concat(),
        6 => [&[0x00, 20][..], &address.hash].concat(),
        7 => [&[0xa9, 0x4c, 20][..], &address.hash, &[0x87]].concat(),
        8 => [push(&[vec![5], player.random.bytes(32)].concat()), vec![0xac]].concat(),
        9 => vec![],
        _ => address.script_pubkey().into_bytes(),
    }
}

/// The key that the input shows at the end of its script.
fn shown_key(player: &mut Player) -> Vec<u8> {
    match player.random.below(8) {
        0 => OLD_ADMIN.to_vec(),
        1 => player.forge.keys[STRANGER].pubkey.clone(),
        2 => player.forge.keys[ADMIN].in_form(Form::Uncompressed).pubkey,
        _ => player.forge.keys[ADMIN].pubkey.clone(),
    }
}

fn odd(player: &mut Player, draft: &mut Draft) -> Option<()> {
    let outputs: Vec<(u64, ScriptBuf)> = std::iter::once((0, verb_script(player)))
        .chain((0..player.random.below(5)).map(|_| (SMALL, output(player))))
        .map(|(value, script)| (value, ScriptBuf::from_bytes(script)))
        .collect();
    let mut inputs: Vec<OutPoint> = Vec::new();
    for _ in 0..1 + player.random.below(2) {
        let coin = player.coin(draft, |coin| {
            matches!(coin.lock, Lock::Pkh(ADMIN) | Lock::Anyone | Lock::Open) && coin.value > 20 * SMALL
        })?;
        if !inputs.contains(&coin) {
            inputs.push(coin);
        }
    }
    let mut tx = transaction(inputs, outputs);
    player.forge.sign(draft, &mut tx);
    for input in 0..tx.input.len() {
        forge_input(player, draft, &mut tx, input);
    }
    draft.txs.push(tx);
    Some(())
}

/// An input that anyone may spend can show any key without being an admin's.
fn forge_input(player: &mut Player, draft: &Draft, tx: &mut Transaction, input: usize) {
    let coin = player.forge.coin(draft, &tx.input[input].previous_output);
    if !coin.is_some_and(|coin| matches!(coin.lock, Lock::Anyone | Lock::Open)) {
        return;
    }
    let key = shown_key(player);
    let pushed = any_push(player, &key);
    tx.input[input].script_sig = ScriptBuf::from_bytes(match player.random.below(8) {
        0 => [pushed, vec![0x61]].concat(),
        1 => [pushed, vec![0x51]].concat(),
        2 => [push(&player.random.bytes(5)), vec![0x61], pushed].concat(),
        3 => [push(&key[..32]), pushed].concat(),
        _ => pushed,
    });
}
