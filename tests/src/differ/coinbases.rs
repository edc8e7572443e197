//! Licensed coinbases of every form: valid ones that look odd, and invalid ones that look right.
//!
//! IoP Core aborts if the first op of a coinbase is empty, not a push or truncated and its last op is a well-formed
//! key, so no kind here writes such a script.

use iop_consensus::license::coinbase::message;

use super::Player;
use crate::forge::key::{Form, TestKey, der};
use crate::forge::lock::push;
use crate::forge::{Draft, LICENSES, STRANGER};

/// Makes a coinbase script from the signature (DER without hash type), the digest it signs and the key.
type Script = fn(&mut Player, &TestKey, [u8; 32]) -> Vec<u8>;

fn usual(key: &TestKey, digest: [u8; 32]) -> Vec<u8> {
    [key.sign(digest), vec![1]].concat()
}

fn with_signature(signature: &[u8], key: &TestKey) -> Vec<u8> {
    [push(signature), push(&key.pubkey)].concat()
}

fn with_key(key: &TestKey, digest: [u8; 32], shown: &[u8]) -> Vec<u8> {
    [push(&usual(key, digest)), push(shown)].concat()
}

fn pushdata(data: &[u8], bytes: usize) -> Vec<u8> {
    let length = (data.len() as u32).to_le_bytes();
    let opcode = [0x4c, 0x4d, 0x4d, 0x4e][bytes - 1];
    [&[opcode][..], &length[..bytes], data].concat()
}

/// Replaces a number of a DER signature: `r` if `first`, otherwise `s`.
fn with_number(key: &TestKey, digest: [u8; 32], first: bool, number: &[u8]) -> Vec<u8> {
    let signature = key.sign(digest);
    let r_end = 4 + usize::from(signature[3]);
    let (r, s) = (&signature[4..r_end], &signature[r_end + 2..]);
    let (r, s) = if first { (number, s) } else { (r, number) };
    let body = [&[2, r.len() as u8][..], r, &[2, s.len() as u8], s].concat();
    [&[0x30, body.len() as u8][..], &body, &[1]].concat()
}

/// The names of the kinds and their scripts.
pub const KINDS: &[(&str, Script)] = &[
    ("cb ok", |p, k, d| {
        let between = p.random.below(70);
        [push(&usual(k, d)), push(&p.random.bytes(between)), push(&k.pubkey)].concat()
    }),
    ("cb pushdata", |p, k, d| {
        let forms = [1, 2, 4];
        let (a, b) = (p.random.pick(&forms), p.random.pick(&forms));
        [pushdata(&usual(k, d), a), pushdata(&k.pubkey, b)].concat()
    }),
    ("cb any hash type", |p, k, d| with_signature(&[k.sign(d), p.random.bytes(1)].concat(), k)),
    ("cb high s", |_, k, d| with_signature(&[k.sign_high(d), vec![1]].concat(), k)),
    ("cb ops between", |p, k, d| {
        let ops = [0x00, 0x4f, 0x51, 0x61, 0x6a, 0xac, 0xba, 0xff];
        let between: Vec<u8> = (0..p.random.below(9)).map(|_| p.random.pick(&ops)).collect();
        [push(&usual(k, d)), between, push(&k.pubkey)].concat()
    }),
    ("cb truncated before key", |p, k, d| {
        let cuts: [&[u8]; 5] =
            [&[0x4b], &[0x4c, 0xff], &[0x4d, 0xff, 0xff], &[0x4e, 0xff, 0xff, 0, 0], &[0x4b, 0x4b]];
        let cut = p.random.pick(&cuts);
        [push(&usual(k, d)), cut.to_vec(), push(&k.pubkey)].concat()
    }),
    ("cb pushdata4 of everything", |_, k, d| {
        [push(&usual(k, d)), vec![0x4e, 0xff, 0xff, 0xff, 0xff], push(&k.pubkey)].concat()
    }),
    ("cb 300 bytes", |_, k, d| {
        let rest = 300 - push(&usual(k, d)).len() - push(&k.pubkey).len();
        [push(&usual(k, d)), pushdata(&vec![5; rest - 3], 2), push(&k.pubkey)].concat()
    }),
    ("cb 301 bytes", |_, k, d| {
        let rest = 301 - push(&usual(k, d)).len() - push(&k.pubkey).len();
        [push(&usual(k, d)), pushdata(&vec![5; rest - 3], 2), push(&k.pubkey)].concat()
    }),
    ("cb another form of the key", |p, k, d| {
        let form = p.random.pick(&[Form::Compressed, Form::Uncompressed, Form::Hybrid]);
        with_key(k, d, &k.in_form(form).pubkey)
    }),
    ("cb hybrid of wrong parity", |_, k, d| {
        let mut shown = k.in_form(Form::Hybrid).pubkey;
        shown[0] ^= 1;
        with_key(k, d, &shown)
    }),
    ("cb key with a wrong header", |p, k, d| {
        let mut shown = k.pubkey.clone();
        shown[0] = p.random.pick(&[0, 1, 5, 8, 0x82, 2, 4]);
        with_key(k, d, &shown)
    }),
    ("cb key off the curve", |p, k, d| {
        let shown = [vec![2], vec![0xff; 32]].concat();
        let other = [vec![4], p.random.bytes(64)].concat();
        with_key(k, d, &if p.random.one_in(2) { shown } else { other })
    }),
    ("cb key of wrong length", |p, k, d| {
        let length = p.random.pick(&[0, 1, 32, 34, 64, 66]);
        let mut shown = k.in_form(Form::Uncompressed).pubkey;
        shown.resize(length, 7);
        with_key(k, d, &shown)
    }),
    ("cb something after the key", |p, k, d| {
        let tails: [&[u8]; 7] = [&[0x00], &[0x51], &[0x61], &[1, 7], &[0x4b], &[0x4c], &[0x4d, 1]];
        [with_signature(&usual(k, d), k), p.random.pick(&tails).to_vec()].concat()
    }),
    ("cb signature only", |_, k, d| push(&usual(k, d))),
    ("cb key only", |_, k, _| push(&k.pubkey)),
    ("cb key first", |_, k, d| [push(&k.pubkey), push(&usual(k, d))].concat()),
    ("cb key twice", |_, k, d| [push(&usual(k, d)), push(&k.pubkey), push(&k.pubkey)].concat()),
    ("cb two signatures", |_, k, d| [push(&usual(k, d)), push(&usual(k, [1; 32])), push(&k.pubkey)].concat()),
    ("cb wrong signature first", |_, k, d| {
        [push(&usual(k, [1; 32])), push(&usual(k, d)), push(&k.pubkey)].concat()
    }),
    ("cb height first", |_, k, d| [push(&[1, 2]), push(&usual(k, d)), push(&k.pubkey)].concat()),
    ("cb no hash type", |_, k, d| with_signature(&k.sign(d), k)),
    ("cb two hash types", |_, k, d| with_signature(&[usual(k, d), vec![1]].concat(), k)),
    ("cb flipped bit", |p, k, d| {
        let mut signature = usual(k, d);
        let at = p.random.below(signature.len() - 1);
        signature[at] ^= 1 << p.random.below(8);
        with_signature(&signature, k)
    }),
    ("cb odd numbers", |p, k, d| {
        let odd: [&[u8]; 8] = [&[], &[0], &[1], &[0x80], &[0, 1], &[0, 0x80], &[0xff; 32], &[0; 33]];
        let (number, first) = (p.random.pick(&odd), p.random.one_in(2));
        with_signature(&with_number(k, d, first, number), k)
    }),
    ("cb number of the order's size", |p, k, d| {
        let mut order = vec![0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        order.extend([0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf]);
        order.extend([0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41 + p.random.below(2) as u8]);
        let first = p.random.one_in(2);
        with_signature(&with_number(k, d, first, &order), k)
    }),
    ("cb tiny signature", |_, k, _| with_signature(&[der(&[1], &[1]), vec![1]].concat(), k)),
    ("cb by a stranger", |p, _, d| {
        with_signature(&usual(&p.forge.keys[STRANGER], d), &p.forge.keys[STRANGER])
    }),
    ("cb signed by another", |p, k, d| with_signature(&usual(&p.forge.keys[STRANGER], d), k)),
    ("cb signs nothing", |_, k, _| with_signature(&usual(k, [0; 32]), k)),
    ("cb empty first, bad key", |p, k, _| {
        let first = p.random.pick(&[0x00, 0x51, 0x61, 0xac]);
        [vec![first], push(&k.pubkey[1..])].concat()
    }),
    ("cb truncated only", |_, _, _| vec![0x4b, 1]),
    ("cb one byte", |_, _, _| vec![0x51]),
    ("cb random", |p, _, _| {
        let count = 2 + p.random.below(60);
        let mut script = p.random.bytes(count);
        // An op that is no signature, and not empty: never one that makes IoP Core abort.
        script.splice(0..0, [2, 9, 9]);
        script
    }),
];

/// Gives the draft a coinbase script of one of the kinds; returns the kind's name.
pub fn dress(player: &mut Player, draft: &mut Draft) -> &'static str {
    let (name, script) = player.random.pick(KINDS);
    if draft.miner.is_some() && name != "cb by a stranger" && player.random.one_in(2) {
        draft.miner = Some(player.random.pick(&LICENSES.collect::<Vec<_>>()));
    }
    let key = player.forge.keys[draft.miner.unwrap_or(STRANGER)].clone();
    let mut signed = draft.coinbase.clone();
    if draft.commit {
        player.forge.commit(&mut signed, &draft.txs);
    }
    draft.coinbase.input[0].script_sig = script(player, &key, message(&signed)).into();
    name
}
