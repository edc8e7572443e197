//! Competing branches: bad blocks in the middle, equal work, licenses and caps that differ between branches, and the
//! heights at which rules change.

#![allow(clippy::unwrap_used)]

use bitcoin::Amount;
use bitcoin::consensus::encode::serialize_hex;
use iop_tests::forge::stage::Stage;
use iop_tests::forge::{ADMIN, STRANGER};
use serde_json::{Value, json};

fn licensed() -> Stage {
    Stage::start(110, 150, 0, 170)
}

/// All of a node's information on its licenses.
fn registry(stage: &Stage) -> Vec<Value> {
    let keys = 0..stage.forge.keys.len();
    std::iter::once(stage.rpc().call("dumpminerstats", json!([])))
        .chain(keys.map(|key| stage.license(key)))
        .collect()
}

/// Builds a side branch of `length` blocks on `parent`; `bad` is the index of one that pays too much.
fn side_branch(stage: &mut Stage, parent: usize, length: usize, bad: Option<usize>) -> Vec<usize> {
    let (mut places, mut parent) = (Vec::new(), parent);
    for index in 0..length {
        let mut draft = stage.forge.draft(parent, None);
        if bad == Some(index) {
            draft.coinbase.output[0].value += Amount::from_sat(1);
        }
        parent = stage.stores("inconclusive", draft);
        places.push(parent);
    }
    places
}

#[test]
fn a_deep_branch_with_a_bad_block_in_the_middle_leads_back_to_the_old_tip() {
    let mut stage = licensed();
    let fork = stage.tip;
    let mut draft = stage.draft();
    stage.act(&mut draft, b"add", &[1, 2, 3]);
    stage.accepts(draft);
    let mut draft = stage.draft();
    draft.miner = Some(1);
    stage.act(&mut draft, b"enable_cap:1", &[1]);
    stage.accepts(draft);
    for miner in [2, 3, 1, ADMIN, 2, 3, 1, 2, ADMIN, ADMIN, 3, 1, 2, 3, ADMIN, 1, 2, 3] {
        let mut draft = stage.draft();
        draft.miner = Some(miner);
        stage.accepts(draft);
    }
    let (before, tip) = (registry(&stage), stage.tip);
    // Twenty blocks of the side branch are as many as the active ones; the 21st gives it more work.
    let side = side_branch(&mut stage, fork, 20, Some(10));
    let draft = stage.forge.draft(side[19], None);
    let heaviest = stage.stores("inconclusive", draft);
    stage.assert_tip(tip);
    assert_eq!(registry(&stage), before);
    // The good half of the branch is known to be valid; the bad block and all above it are known to be bad.
    for (place, answer) in [
        (side[0], "duplicate"),
        (side[9], "duplicate"),
        (side[10], "duplicate-invalid"),
        (heaviest, "duplicate-invalid"),
    ] {
        let block = stage.forge.blocks[place].block.clone();
        stage.refuses_block(answer, &block);
    }
    for parent in [side[10], side[15], heaviest] {
        let draft = stage.forge.draft(parent, None);
        let block = stage.forge.finish(draft);
        stage.refuses_block("bad-prevblk", &block);
    }
    // The good half with other blocks on top wins.
    let better = side_branch(&mut stage, side[9], 10, None);
    let mut draft = stage.forge.draft(better[9], None);
    draft.miner = Some(ADMIN);
    stage.accepts(draft);
    assert_eq!(stage.license(1), Value::Null);
    // The old branch again, from its own blocks.
    stage.tip = tip;
    let mut draft = stage.draft();
    draft.miner = Some(2);
    stage.tip = stage.stores("inconclusive", draft);
    let mut draft = stage.draft();
    draft.miner = Some(3);
    stage.accepts(draft);
    assert_eq!(stage.license(1), before[2]);
}

#[test]
fn of_two_branches_with_the_same_work_the_first_stays_until_one_grows() {
    let mut stage = licensed();
    let fork = stage.tip;
    let draft = stage.draft();
    let first = stage.accepts(draft);
    let side = side_branch(&mut stage, fork, 1, None);
    stage.assert_tip(first);
    // A side block that was never connected is only stored.
    let block = stage.forge.blocks[side[0]].block.clone();
    stage.refuses_block("duplicate-inconclusive", &block);
    let draft = stage.forge.draft(side[0], None);
    let second = stage.accepts(draft);
    let block = stage.forge.blocks[first].block.clone();
    stage.refuses_block("duplicate", &block);
    // Children before parents: refused, and accepted afterwards.
    let draft = stage.forge.draft(first, None);
    let parent_block = stage.forge.finish(draft);
    let parent = stage.forge.keep(first, parent_block.clone());
    let draft = stage.forge.draft(parent, None);
    let child = stage.forge.finish(draft);
    stage.refuses_block("prev-blk-not-found", &child);
    assert_eq!(stage.submit(&parent_block), "inconclusive");
    stage.assert_tip(second);
    stage.accepts_block(parent, child);
}

#[test]
fn the_last_block_of_a_heavier_branch_is_told_its_fault_and_the_others_are_not() {
    let mut stage = licensed();
    let fork = stage.tip;
    let draft = stage.draft();
    let tip = stage.accepts(draft);
    let side = side_branch(&mut stage, fork, 1, None);
    let mut draft = stage.forge.draft(side[0], None);
    draft.miner = Some(STRANGER);
    stage.refuses("bad-CB-miner", draft);
    stage.assert_tip(tip);
    let draft = stage.forge.draft(side[0], None);
    stage.accepts(draft);
}

#[test]
fn a_license_is_judged_by_its_own_branch() {
    let mut stage = licensed();
    let fork = stage.tip;
    // Branch one adds 1 and 2; branch two adds 2 and removes it again.
    let mut draft = stage.draft();
    stage.act(&mut draft, b"add", &[1, 2]);
    stage.accepts(draft);
    let mut draft = stage.draft();
    draft.miner = Some(1);
    let one = stage.accepts(draft);
    let mut draft = stage.forge.draft(fork, None);
    stage.act(&mut draft, b"add", &[2]);
    let two = stage.stores("inconclusive", draft);
    let mut draft = stage.forge.draft(two, None);
    draft.miner = Some(2);
    stage.act(&mut draft, b"rem", &[2]);
    let two = stage.stores("inconclusive", draft);
    // Branch two cannot win with a block of the removed license, nor of one that only branch one knows.
    for miner in [2, 1] {
        let mut draft = stage.forge.draft(two, None);
        draft.miner = Some(miner);
        stage.refuses("bad-CB-miner", draft);
        stage.assert_tip(one);
    }
    let draft = stage.forge.draft(two, None);
    let two = stage.accepts(draft);
    assert_eq!(stage.license(1), Value::Null);
    let license = json!({ "whitelisted": 0, "windowBlocks": 1, "totalBlocks": 1, "lastBlock": 172 });
    assert_eq!(stage.license(2), license);
    // Back on branch one, license 1 has its block again.
    let mut draft = stage.forge.draft(one, None);
    draft.miner = Some(2);
    let one = stage.stores("inconclusive", draft);
    stage.assert_tip(two);
    let mut draft = stage.forge.draft(one, None);
    draft.miner = Some(1);
    stage.accepts(draft);
    let license = json!({ "whitelisted": 1, "windowBlocks": 2, "totalBlocks": 2, "lastBlock": 174 });
    assert_eq!(stage.license(1), license);
}

#[test]
fn an_action_holds_from_the_next_block_on() {
    let mut stage = licensed();
    let mut draft = stage.draft();
    draft.miner = Some(1);
    stage.act(&mut draft, b"add", &[1]);
    stage.refuses("bad-CB-miner", draft);
    let mut draft = stage.draft();
    stage.act(&mut draft, b"add", &[1]);
    stage.accepts(draft);
    // A license may mine the block that removes it.
    let mut draft = stage.draft();
    draft.miner = Some(1);
    stage.act(&mut draft, b"rem", &[1]);
    stage.accepts(draft);
    let mut draft = stage.draft();
    draft.miner = Some(1);
    stage.refuses("bad-CB-miner", draft);
    // Adding the admin, a verb without address, and a verb of another length have no effect.
    let stats = stage.rpc().call("dumpminerstats", json!([]));
    for (verb, keys) in
        [(&b"rem"[..], &[ADMIN][..]), (b"enable_cap:5", &[]), (b"enable_cap:", &[1]), (b"add ", &[1])]
    {
        let mut draft = stage.draft();
        stage.act(&mut draft, verb, keys);
        stage.accepts(draft);
    }
    let after = stage.rpc().call("dumpminerstats", json!([]));
    for field in ["minercapenabled", "currentwhitelisted", "currentfactor", "currentcap"] {
        assert_eq!(after[field], stats[field], "{field}");
    }
}

/// With a factor of 0 the cap is 0. Below the change height the old system spares a license whose block is the tip, if
/// it is one block above its cap; from the change height on it does not.
#[test]
fn the_cap_and_its_legacy_case_end_at_the_change_height() {
    let mut stage = Stage::start(110, 200, 0, 170);
    let mut draft = stage.draft();
    stage.act(&mut draft, b"add", &[1, 2, 3]);
    stage.accepts(draft);
    let mut draft = stage.draft();
    stage.act(&mut draft, b"enable_cap:0", &[1]);
    stage.accepts(draft);
    let mine = |stage: &mut Stage, miner: usize, reason: &str| {
        let mut draft = stage.draft();
        draft.miner = Some(miner);
        stage.judges(reason, draft);
    };
    mine(&mut stage, 1, "");
    mine(&mut stage, 1, "");
    mine(&mut stage, 1, "bad-CAP-miner");
    mine(&mut stage, 2, "");
    mine(&mut stage, ADMIN, "");
    mine(&mut stage, 2, "bad-CAP-miner");
    while stage.rpc().height() < 199 {
        mine(&mut stage, ADMIN, "");
    }
    // A block on top of 199 is under the old system, one on top of 200 under the new one.
    mine(&mut stage, 3, "");
    mine(&mut stage, 3, "bad-CAP-miner");
    // The branch may choose: with a higher factor, license 3 continues on it.
    let mut draft = stage.draft();
    stage.act(&mut draft, b"enable_cap:a", &[1]);
    stage.accepts(draft);
    assert_eq!(stage.rpc().call("dumpminerstats", json!([]))["currentcap"], 2016 / 4);
    mine(&mut stage, 3, "");
    let mut draft = stage.draft();
    stage.act(&mut draft, b"disable_cap", &[1]);
    stage.accepts(draft);
    mine(&mut stage, 3, "");
}

#[test]
fn licensing_begins_above_the_activation_height() {
    let mut stage = Stage::start(120, 150, 0, 119);
    // Block 120 needs no license; block 121 does, and the admin has one from the start.
    let mut draft = stage.draft();
    assert_eq!(draft.miner, None);
    draft.miner = Some(STRANGER);
    stage.accepts(draft);
    let mut draft = stage.draft();
    assert_eq!(draft.miner, Some(ADMIN));
    draft.miner = None;
    stage.refuses("bad-CB-signature", draft);
    let draft = stage.draft();
    stage.accepts(draft);
    // The reference aborts when all of it is undone, including blocks below the activation height.
    let fork = stage.forge.below(stage.tip, 4);
    let side = side_branch(&mut stage, fork, 4, None);
    let draft = stage.forge.draft(side[3], None);
    stage.accepts(draft);
    let counts = json!({ "whitelisted": 1, "windowBlocks": 2, "totalBlocks": 2, "lastBlock": 122 });
    assert_eq!(stage.license(ADMIN), counts);
}

#[test]
fn known_blocks() {
    let mut stage = licensed();
    let genesis = stage.forge.blocks[0].block.clone();
    stage.refuses_block("duplicate-inconclusive", &genesis);
    let tip = stage.forge.blocks[stage.tip].block.clone();
    stage.refuses_block("duplicate", &tip);
    assert_eq!(stage.submit_hex(&(serialize_hex(&tip) + "00")), "duplicate");
    // A known header counts, whatever body comes with it.
    let mut other = tip;
    other.txdata[0].output.clear();
    stage.refuses_block("duplicate", &other);
}
