//! Branches off the active chain: losing, equal and winning ones, with or without a bad block, whose blocks come in
//! order or not.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, Witness};

use super::{Offer, Player, admin, spends};
use crate::forge::{ADMIN, Draft, LICENSES, STRANGER};

/// The greatest length of a branch.
const LONGEST: u32 = 9;

/// The blocks of one branch; some may be refused, and then also those on top of them.
pub fn branch(player: &mut Player) -> Vec<Offer> {
    let tip = player.tip;
    let above = player.forge.blocks[tip].height.saturating_sub(player.lowest_fork());
    let depth = (1 + player.random.below(6) as u32).min(above);
    let mut parent = player.forge.below(tip, depth);
    let length = (depth + player.random.below(4) as u32).saturating_sub(1).clamp(1, LONGEST);
    let bad = player.random.one_in(2).then(|| player.random.below(length as usize) as u32);
    let mut offers = Vec::new();
    for index in 0..length {
        let mut draft = player.block(parent);
        let mut kind = "branch".to_owned();
        if player.random.one_in(3) {
            kind += spends::add_valid(player, &mut draft).unwrap_or("");
        }
        let mut listed = player.listed(parent);
        if player.random.one_in(3) {
            listed = admin::act(player, &mut draft, &listed).unwrap_or(listed);
        }
        if bad == Some(index) {
            kind = format!("branch bad {}", spoil(player, &mut draft));
        }
        let block = player.forge.finish(draft);
        let mut offer = player.offer(&kind, parent, block.clone());
        if let Some(made) = &mut offer.made {
            made.listed = listed.clone();
        }
        parent = player.keep(parent, block, listed);
        offers.push(offer);
    }
    if player.random.one_in(4) {
        let again = offers.clone();
        player.random.shuffle(&mut offers);
        // Blocks that came before their parent were refused: send all of them again.
        offers.extend(again);
    }
    offers
}

/// A header that arrives first, with data damaged in transit, then blocks on top of it, two of them siblings, then the
/// block itself, which is sometimes bad.
pub fn hollow(player: &mut Player) -> Vec<Offer> {
    let tip = player.tip;
    let listed = player.listed(tip);
    let mut draft = player.block(tip);
    draft.commit = false;
    let mut kind = "hollow".to_owned();
    if player.random.one_in(3) {
        kind = format!("hollow bad {}", spoil(player, &mut draft));
    }
    let block = player.forge.finish(draft);
    let mut damaged = block.clone();
    damaged.txdata[0].input[0].witness = Witness::from_slice(&[[1u8; 32], [2; 32]]);
    let offer = |kind: &str, hex: String| Offer { kind: kind.to_owned(), hex, made: None };
    let mut offers = vec![offer("hollow damaged", serialize_hex(&damaged))];
    let place = player.keep(tip, block.clone(), listed.clone());
    let mut upper = vec![place];
    for _ in 0..1 + player.random.below(4) {
        let parent = player.random.pick(&upper);
        let mut draft = player.block(parent);
        if player.random.one_in(6) {
            spoil(player, &mut draft);
        }
        let block = player.forge.finish(draft);
        offers.push(offer("hollow upper", serialize_hex(&block)));
        upper.push(player.keep(parent, block, listed.clone()));
    }
    offers.push(offer(&kind, serialize_hex(&block)));
    let last = player.random.pick(&upper);
    let draft = player.block(last);
    let block = player.forge.finish(draft);
    offers.push(player.offer("hollow last", last, block));
    offers
}

/// Makes a block bad in a way that only shows when it is connected.
fn spoil(player: &mut Player, draft: &mut Draft) -> &'static str {
    match player.random.below(5) {
        0 => {
            draft.coinbase.output[0].value += Amount::from_sat(1);
            "amount"
        }
        1 if draft.miner.is_some() => {
            draft.miner = Some(STRANGER);
            "stranger"
        }
        2 if draft.miner.is_some() => {
            // Any license: unknown ones and those above the cap are refused.
            draft.miner = Some(player.random.pick(&LICENSES.collect::<Vec<_>>()));
            "license"
        }
        3 => spends::add(player, draft).unwrap_or("nothing"),
        // Without a license there is no signature to be damaged.
        _ if draft.miner.is_none() => "nothing",
        _ => {
            draft.miner = draft.miner.map(|_| ADMIN);
            let coinbase = draft.coinbase.clone();
            let mut script = player.forge.license(&coinbase, draft.miner).into_bytes();
            script[10] ^= 1;
            draft.coinbase.input[0].script_sig = script.into();
            "signature"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::Forge;

    #[test]
    fn blocks_that_need_no_license_are_spoiled_too() {
        let mut player = Player::new(Forge::new(1_000, 2_000, 0), 1, true);
        let mut kinds = Vec::new();
        while kinds.len() < 400 {
            for offer in player.make_up() {
                let sound = ["opening", "licensed"].contains(&offer.kind.as_str());
                let made = offer.made.as_ref().filter(|_| sound);
                if let Some(hash) = made.map(|made| made.block.block_hash()) {
                    player.told(&offer, true, &hash);
                }
                kinds.push(offer.kind);
            }
        }
        assert!(player.forge.blocks[player.tip].height < 1_000, "all below the activation height");
        assert!(kinds.iter().any(|kind| kind == "branch bad nothing"), "{kinds:?}");
    }
}
