//! What becomes of the cap by an action, and who may mine then. Here: the arithmetic, and the words for it.
//! Not here: the rule itself, which is [`cap`]'s.

use std::collections::BTreeMap;

use iop_consensus::WINDOW;
use iop_consensus::address::Address;
use iop_consensus::license::admin::Verb;
use iop_consensus::license::cap;
use iop_consensus::params::Params;
use serde_json::{Value, json};

/// Licenses that a warning names; `--json` has them all.
const NAMED: usize = 20;
/// A factor above this is in no verb ([`Verb::parse`]).
const MAX_FACTOR: u32 = 54;

/// Licensing as of the node's tip, as `dumpminerstats` tells it.
#[derive(Debug)]
pub(super) struct Standing {
    height: u32,
    /// `None` while the cap is off.
    factor: Option<u32>,
    cap: u32,
    /// Whitelisted addresses, admins included.
    whitelisted: u32,
    /// Blocks in the window, also of licenses that are whitelisted no longer.
    blocks: Vec<(Address, u32)>,
}

impl Standing {
    /// Reads an answer; `None` where something is missing.
    pub(super) fn read(stats: &Value, params: &Params) -> Option<Self> {
        let number = |key: &str| stats[key].as_u64().and_then(|number| u32::try_from(number).ok());
        let (height, factor) = (number("currentheight")?, number("currentfactor")?.min(MAX_FACTOR));
        let uncounted = u32::from(height < params.license.history.one_license_fewer_below);
        let mut blocks: Vec<(Address, u32)> = stats["stats"]
            .as_object()?
            .iter()
            .filter_map(|(text, blocks)| {
                let address = Address::parse(text, &params.prefixes).ok()?;
                Some((address, u32::try_from(blocks.as_u64()?).ok()?))
            })
            .collect();
        blocks.sort_by_key(|&(address, blocks)| (u32::MAX - blocks, address));
        Some(Self {
            height,
            factor: stats["minercapenabled"].as_bool()?.then_some(factor),
            cap: number("currentcap")?,
            whitelisted: number("currentwhitelisted")?.saturating_add(uncounted),
            blocks,
        })
    }
}

/// What an action changes, together with those that wait for a block.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Addresses whose place on the whitelist changes: whether they are on it then.
    pub(super) whitelist: BTreeMap<Address, bool>,
    /// The factor then, if the cap changes; `None` in it where the cap is turned off.
    factor: Option<Option<u32>>,
}

impl Change {
    /// Takes in one action. Those that change nothing have to be taken out of [`Change::whitelist`].
    pub(super) fn take(&mut self, verb: Verb, targets: &[Address]) {
        match verb {
            Verb::Add => self.whitelist.extend(targets.iter().map(|&target| (target, true))),
            Verb::Remove => self.whitelist.extend(targets.iter().map(|&target| (target, false))),
            Verb::EnableCap { factor } => self.factor = Some(Some(factor)),
            Verb::DisableCap => self.factor = Some(None),
        }
    }

    fn count(&self, added: bool) -> u32 {
        self.whitelist.values().filter(|&&state| state == added).count() as u32
    }
}

/// What holds once a block has the action.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forecast {
    /// `None` while the cap is off.
    before: Option<u32>,
    after: Option<u32>,
    /// Whitelisted addresses then, as the cap is divided among them.
    sharers: u32,
    /// Licenses at or above the cap then, with their blocks, most first. A license above it may not mine.
    at_or_above: Vec<(Address, u32)>,
    /// Licenses other than admins' that may mine then, of those that are licenses already.
    old: u32,
    /// The same of those that are added.
    added: u32,
}

impl Forecast {
    /// The cap then; `None` if it is off.
    fn cap_after(standing: &Standing, change: &Change, params: &Params) -> (Option<u32>, u32) {
        let height = standing.height.saturating_add(1);
        let whitelisted =
            standing.whitelisted.saturating_add(change.count(true)).saturating_sub(change.count(false));
        let uncounted = u32::from(height < params.license.history.one_license_fewer_below);
        let sharers = whitelisted.saturating_sub(uncounted);
        let factor = change.factor.unwrap_or(standing.factor);
        (factor.map(|factor| cap::cap(factor, sharers, height, &params.license)), sharers)
    }

    /// The licenses that would be at or above the cap if they are whitelisted then, which the node has to be
    /// asked.
    pub(super) fn doubtful(standing: &Standing, change: &Change, params: &Params) -> Vec<Address> {
        let (Some(cap), _) = Self::cap_after(standing, change, params) else { return Vec::new() };
        let bound = standing
            .blocks
            .iter()
            .filter(|(address, blocks)| *blocks >= cap && !params.license.admin_addresses.contains(address));
        bound.map(|(address, _)| *address).collect()
    }

    /// `whitelisted` are those of [`Forecast::doubtful`] that are whitelisted now.
    pub(super) fn new(
        standing: &Standing,
        change: &Change,
        whitelisted: &[Address],
        params: &Params,
    ) -> Self {
        let (after, sharers) = Self::cap_after(standing, change, params);
        let stays = |address: &Address| {
            change.whitelist.get(address).copied().unwrap_or_else(|| whitelisted.contains(address))
        };
        let doubtful = Self::doubtful(standing, change, params);
        let at_or_above: Vec<(Address, u32)> = standing
            .blocks
            .iter()
            .filter(|(address, _)| doubtful.contains(address) && stays(address))
            .copied()
            .collect();
        let stopped = |added: bool| {
            let above = at_or_above.iter().filter(|(address, blocks)| {
                after.is_some_and(|cap| *blocks > cap)
                    && (change.whitelist.get(address) == Some(&true)) == added
            });
            above.count() as u32
        };
        let admins = params.license.admin_addresses.len() as u32;
        let old = standing.whitelisted.saturating_sub(admins).saturating_sub(change.count(false));
        Self {
            before: standing.factor.map(|_| standing.cap),
            after,
            sharers,
            old: old.saturating_sub(stopped(false)),
            added: change.count(true).saturating_sub(stopped(true)),
            at_or_above,
        }
    }

    /// Whether the chain may come to wait for an admin's block: nobody else may mine, or not as many blocks
    /// as a window has.
    fn chain_may_stop(&self, params: &Params) -> bool {
        self.old == 0 || self.room_too_small(params).is_some()
    }

    /// The number of blocks that all licenses but the admins' may have in a window, where that is too few to
    /// go on.
    fn room_too_small(&self, params: &Params) -> Option<u32> {
        let admins = params.license.admin_addresses.len() as u32;
        let room = self.sharers.saturating_sub(admins).saturating_mul(self.after?.saturating_add(1));
        (room < WINDOW).then_some(room)
    }

    /// One line: the cap before and after.
    pub(super) fn line(&self) -> String {
        let shown = |cap: Option<u32>| cap.map_or_else(|| "off".to_owned(), |cap| cap.to_string());
        let (before, after) = (shown(self.before), shown(self.after));
        format!(
            "cap {before} -> {after} (blocks of a license in a window of {WINDOW}; {} licenses then, admins included)",
            self.sharers
        )
    }

    /// What the admin may not want, a line each.
    pub(super) fn warnings(&self, params: &Params) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(cap) = self.after.filter(|_| !self.at_or_above.is_empty()) {
            let mut named: Vec<String> = self
                .at_or_above
                .iter()
                .take(NAMED)
                .map(|(address, blocks)| {
                    let may = if *blocks > cap { "may not mine" } else { "may mine one more" };
                    format!("{} (has {blocks}, {may})", address.to_base58(&params.prefixes))
                })
                .collect();
            if let Some(more) = self.at_or_above.len().checked_sub(NAMED).filter(|&more| more > 0) {
                named.push(format!("{more} more"));
            }
            lines.push(format!(
                "at or above the cap of {cap} then: {}; licenses that may mine then: {}",
                named.join(", "),
                self.old + self.added
            ));
        }
        if self.old == 0 && self.added == 0 {
            lines.push(
                "no license but the admins' may mine then: the chain stops until an admin mines".to_owned(),
            );
        } else if self.old == 0 {
            lines.push(
                "none of the licenses there are may mine then: the chain stops until one that is added or an admin \
                 mines"
                    .to_owned(),
            );
        } else if let Some(room) = self.room_too_small(params) {
            lines.push(format!(
                "all licenses together may then mine {room} blocks of a window of {WINDOW}: after these the chain \
                 stops until an admin mines"
            ));
        }
        lines
    }

    /// The same for a program.
    pub(super) fn json(&self, params: &Params) -> Value {
        let at_or_above = self.at_or_above.iter().map(|(address, blocks)| {
            json!({
                "address": address.to_base58(&params.prefixes),
                "blocks": blocks,
                "may_mine": self.after.is_none_or(|cap| *blocks <= cap),
            })
        });
        json!({
            "before": self.before,
            "after": self.after,
            "at_or_above": at_or_above.collect::<Value>(),
            "may_mine": self.old + self.added,
            "chain_may_stop": self.chain_may_stop(params),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// devnet's three licenses and the admin, with the cap on; the blocks are of the first licenses.
    fn standing(blocks: &[u32], params: &Params) -> Standing {
        let stats: serde_json::Map<String, Value> = params
            .license
            .initial_licenses
            .iter()
            .zip(blocks)
            .map(|(address, blocks)| (address.to_base58(&params.prefixes), json!(blocks)))
            .collect();
        let answer = json!({
            "currentheight": 20_000, "minercapenabled": true, "currentwhitelisted": 4, "currentfactor": 2,
            "currentcap": 1_008, "stats": stats,
        });
        Standing::read(&answer, params).unwrap()
    }

    fn forecast(standing: &Standing, verb: Verb, targets: &[Address], params: &Params) -> Forecast {
        let mut change = Change::default();
        change.take(verb, targets);
        Forecast::new(standing, &change, &Forecast::doubtful(standing, &change, params), params)
    }

    #[test]
    fn a_fifth_license_lowers_the_cap_and_stops_those_above_it() {
        let params = Params::devnet();
        let new = [Address::of_pubkey(b"fifth")];
        let [first, second, ..] = params.license.initial_licenses[..] else { panic!("three licenses") };
        let calm = forecast(&standing(&[600, 600, 600], &params), Verb::Add, &new, &params);
        assert_eq!((calm.before, calm.after, calm.old, calm.added), (Some(1_008), Some(806), 3, 1));
        assert_eq!((calm.warnings(&params), calm.chain_may_stop(&params)), (Vec::new(), false));
        let two = forecast(&standing(&[984, 806, 10], &params), Verb::Add, &new, &params);
        assert_eq!(two.at_or_above, [(first, 984), (second, 806)]);
        assert_eq!((two.old, two.added, two.chain_may_stop(&params)), (2, 1, false));
        let said = two.warnings(&params).join("\n");
        assert!(said.contains("(has 984, may not mine)") && said.contains("(has 806, may mine one more)"));
        assert!(said.ends_with("licenses that may mine then: 3"), "{said}");
        let all = forecast(&standing(&[984, 984, 984], &params), Verb::Add, &new, &params);
        assert_eq!((all.old, all.added, all.chain_may_stop(&params)), (0, 1, true));
        assert!(all.warnings(&params)[1].contains("until one that is added or an admin mines"));
    }

    #[test]
    fn a_cap_that_leaves_too_few_blocks_stops_the_chain() {
        let params = Params::devnet();
        let enable = |factor, blocks: &[u32]| {
            forecast(&standing(blocks, &params), Verb::EnableCap { factor }, &[], &params)
        };
        let none = enable(0, &[1, 1, 1]);
        assert_eq!((none.after, none.old, none.chain_may_stop(&params)), (Some(0), 0, true));
        assert!(none.warnings(&params)[1].contains("until an admin mines"), "{:?}", none.warnings(&params));
        let one = enable(1, &[5]);
        assert_eq!((one.after, one.old), (Some(504), 3));
        assert!(one.warnings(&params)[0].contains("mine 1515 blocks of a window of 2016"));
        assert!(enable(3, &[1_008, 1_008]).warnings(&params).is_empty());
        let off = forecast(&standing(&[1_008, 1_008], &params), Verb::DisableCap, &[], &params);
        assert_eq!((off.after, off.chain_may_stop(&params)), (None, false));
        assert!(off.line().starts_with("cap 1008 -> off"), "{}", off.line());
    }

    #[test]
    fn a_license_that_is_removed_is_neither_counted_nor_named() {
        let params = Params::devnet();
        let gone = [params.license.initial_licenses[0]];
        let said = forecast(&standing(&[2_000], &params), Verb::Remove, &gone, &params);
        assert_eq!((said.after, said.old, said.at_or_above.len()), (Some(1_344), 2, 0));
        let all = &params.license.initial_licenses[..];
        assert!(forecast(&standing(&[], &params), Verb::Remove, all, &params).chain_may_stop(&params));
    }
}
