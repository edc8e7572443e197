//! The registry: which licenses are whitelisted, who mined which block, and the cap. A pure function of the active
//! chain.
//!
//! [`Registry::apply`] counts a block and then applies its admin actions. It returns a [`RegistryUndo`], the old values
//! of everything it changed, which [`Registry::undo`] restores exactly. The node stores the changed entries with the
//! block. Sizes: one entry for each license ever named by an admin or a block (some hundreds on main), and 24 bytes for
//! each block of the chain.

use std::collections::BTreeMap;

use bitcoin::Block;

use super::admin::{self, AdminAction, Verb};
use super::{cap, coinbase};
use crate::WINDOW;
use crate::address::Address;
use crate::error::LicenseError;
use crate::params::Params;

/// The registry's record of one license.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LicenseRecord {
    /// Whether it may mine at all.
    pub whitelisted: bool,
    /// Blocks in the current window.
    pub window_blocks: u32,
    /// Blocks since licensing began.
    pub total_blocks: u32,
    /// Height of its latest block; 0 if it has none.
    pub last_block: u32,
}

/// The registry's values that do not belong to a license.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Globals {
    /// Height of the latest block applied.
    pub height: u32,
    /// Height up to which blocks are counted for their licenses. The reference counts a block only on top of the one
    /// counted before it; this starts at the activation height.
    pub counted_height: u32,
    /// Whether the cap is on.
    pub cap_enabled: bool,
    /// The cap's factor.
    pub factor: u32,
    /// Whitelisted addresses, admins and P2SH addresses included.
    pub whitelisted: u32,
}

/// The state of licensing as of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    globals: Globals,
    licenses: BTreeMap<Address, LicenseRecord>,
    miners: BTreeMap<u32, Address>,
}

/// The old values of everything a block changed; `None` means that there was no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryUndo {
    /// The global values before the block.
    pub globals: Globals,
    /// The changed licenses before the block.
    pub licenses: BTreeMap<Address, Option<LicenseRecord>>,
}

/// When and how much a license may mine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eligibility {
    /// Whether it may mine the next block.
    pub next: bool,
    /// Lowest height from which it may mine, provided it mines nothing until then and no admin acts; `None` if it is
    /// not whitelisted.
    pub from_height: Option<u32>,
    /// Blocks it may still mine in this window; `None` if no cap applies to it.
    pub remaining: Option<u32>,
}

impl Registry {
    /// The state at genesis: the admins, and the network's initial licenses and cap.
    pub fn genesis(params: &Params) -> Self {
        let license = &params.license;
        let whitelisted = LicenseRecord { whitelisted: true, ..LicenseRecord::default() };
        let licenses: BTreeMap<_, _> = license
            .admin_addresses
            .iter()
            .chain(&license.initial_licenses)
            .map(|&address| (address, whitelisted))
            .collect();
        let globals = Globals {
            height: 0,
            counted_height: license.activation_height,
            cap_enabled: license.initial_cap_factor.is_some(),
            factor: license.initial_cap_factor.unwrap_or(0),
            whitelisted: licenses.len() as u32,
        };
        Self { globals, licenses, miners: BTreeMap::new() }
    }

    /// Reassembles a stored state.
    pub fn from_parts(
        globals: Globals,
        licenses: BTreeMap<Address, LicenseRecord>,
        miners: BTreeMap<u32, Address>,
    ) -> Self {
        Self { globals, licenses, miners }
    }

    /// The values that do not belong to a license.
    pub fn globals(&self) -> &Globals {
        &self.globals
    }

    /// The record of a license, if there is one.
    pub fn license(&self, address: &Address) -> Option<&LicenseRecord> {
        self.licenses.get(address)
    }

    /// All known licenses, by address.
    pub fn licenses(&self) -> impl Iterator<Item = (&Address, &LicenseRecord)> {
        self.licenses.iter()
    }

    /// The license for which the block at `height` was counted.
    pub fn miner_of(&self, height: u32) -> Option<&Address> {
        self.miners.get(&height)
    }

    /// The number of licenses that share the cap (`GetNumberOfWhitelistedMiners`).
    pub fn sharers(&self, params: &Params) -> u32 {
        let correction = u32::from(self.globals.height < params.license.history.one_license_fewer_below);
        self.globals.whitelisted.saturating_sub(correction)
    }

    /// The cap for the next block, whether or not it is on (`GetCap`).
    pub fn cap(&self, params: &Params) -> u32 {
        cap::cap(self.globals.factor, self.sharers(params), self.globals.height, &params.license)
    }

    /// Whether the license may mine the block on top of this state.
    ///
    /// # Errors
    /// [`LicenseError::NotWhitelisted`], [`LicenseError::CapExceeded`] or [`LicenseError::TooFast`].
    pub fn check_may_mine(&self, license: &Address, params: &Params) -> Result<(), LicenseError> {
        let record = self.licenses.get(license).filter(|record| record.whitelisted);
        let record = record.ok_or(LicenseError::NotWhitelisted(*license))?;
        if !self.is_bound_by_cap(license, params) {
            return Ok(());
        }
        let (parent, cap, blocks) = (self.globals.height, self.cap(params), record.window_blocks);
        // The first implementation did not count the block at the tip; blocks mined under it are in the chain.
        let legacy =
            blocks == cap + 1 && parent < params.license.cap_change_height && record.last_block == parent;
        if legacy {
            return Ok(());
        }
        if blocks > cap {
            return Err(LicenseError::CapExceeded { license: *license, blocks, cap });
        }
        if self.not_too_fast_from(record, parent + 1, params) != parent + 1 {
            return Err(LicenseError::TooFast { license: *license, last_block: record.last_block });
        }
        Ok(())
    }

    /// The first height, from `height` on, at which the license's last block is far enough below.
    fn not_too_fast_from(&self, record: &LicenseRecord, height: u32, params: &Params) -> u32 {
        match params.license.history.too_fast_above {
            Some(above) if height - 1 > above => height.max(record.last_block + 3),
            _ => height,
        }
    }

    /// Whether the cap is on and applies to this license.
    fn is_bound_by_cap(&self, license: &Address, params: &Params) -> bool {
        let exempt_for_a_time = params
            .license
            .history
            .exempt_below
            .is_some_and(|(address, height)| address == *license && self.globals.height < height);
        self.globals.cap_enabled && !params.license.admin_addresses.contains(license) && !exempt_for_a_time
    }

    /// When and how much the license may mine, as of this state.
    pub fn eligibility(&self, license: &Address, params: &Params) -> Eligibility {
        let next = self.check_may_mine(license, params);
        let record = self.licenses.get(license).copied().unwrap_or_default();
        let height = self.globals.height;
        let bound = self.is_bound_by_cap(license, params);
        let cap = self.cap(params);
        Eligibility {
            next: next.is_ok(),
            from_height: match next {
                Ok(()) => Some(height + 1),
                Err(LicenseError::TooFast { .. }) => {
                    Some(self.not_too_fast_from(&record, height + 1, params))
                }
                Err(LicenseError::CapExceeded { blocks, cap, .. }) => self
                    .window_frees(license, blocks - cap, params)
                    .map(|frees| self.not_too_fast_from(&record, frees, params)),
                Err(_) => None,
            },
            remaining: if record.whitelisted {
                bound.then(|| (cap + 1).saturating_sub(record.window_blocks))
            } else {
                Some(0)
            },
        }
    }

    /// The first height at which `count` of the license's blocks have left the window.
    fn window_frees(&self, license: &Address, count: u32, params: &Params) -> Option<u32> {
        let next_multiple = (self.globals.height / WINDOW + 1) * WINDOW;
        if cap::resets_at(next_multiple, &params.license) {
            return Some(next_multiple + 1);
        }
        let counted = self.licenses.get(license)?.window_blocks as usize;
        let mut own: Vec<u32> = self
            .miners
            .iter()
            .rev()
            .filter(|(_, miner)| *miner == license)
            .map(|(h, _)| *h)
            .take(counted)
            .collect();
        own.reverse();
        own.get(count.checked_sub(1)? as usize).map(|height| height + WINDOW + 1)
    }

    /// Counts the block for the license it names, then applies its admin actions. The block must be the one on top of
    /// this state and have passed all its checks. Returns the undo data, and the actions with the index of their
    /// transaction.
    pub fn apply(&mut self, block: &Block, params: &Params) -> (RegistryUndo, Vec<(usize, AdminAction)>) {
        let height = self.globals.height + 1;
        let mut undo = RegistryUndo { globals: self.globals, licenses: BTreeMap::new() };
        self.globals.height = height;
        if let Some(license) = block.txdata.first().and_then(coinbase::named_license)
            && height - 1 == self.globals.counted_height
        {
            self.count(height, license, params, &mut undo);
        }
        let mut done = Vec::new();
        for (index, tx) in block.txdata.iter().enumerate().skip(1) {
            let actions = admin::actions(tx, height, params);
            // All inputs of a transaction do the same, and repeating it changes nothing. Acting only once makes a
            // transaction cost its inputs plus its outputs, not their product.
            if let Some(action) = actions.first() {
                self.act(action, params, &mut undo);
            }
            done.extend(actions.into_iter().map(|action| (index, action)));
        }
        (undo, done)
    }

    /// Counts the block at `height` (`MineBlock`).
    fn count(&mut self, height: u32, license: Address, params: &Params, undo: &mut RegistryUndo) {
        for &(at, address) in &params.license.history.whitelisted_at {
            if at == height {
                self.set_whitelisted(address, true, undo);
            }
        }
        if cap::resets_at(height, &params.license) {
            let counted: Vec<Address> =
                self.licenses.iter().filter(|(_, r)| r.window_blocks > 0).map(|(a, _)| *a).collect();
            for address in counted {
                self.change(address, undo).window_blocks = 0;
            }
            if self.licenses.contains_key(&license) {
                let record = self.change(license, undo);
                record.total_blocks += 1;
                record.last_block = height;
            }
        } else if self.licenses.contains_key(&license) {
            let record = self.change(license, undo);
            record.total_blocks += 1;
            record.window_blocks += 1;
            record.last_block = height;
            let dropped =
                cap::drops_out_at(height, &params.license).and_then(|h| self.miners.get(&h).copied());
            if let Some(other) = dropped {
                let blocks = &mut self.change(other, undo).window_blocks;
                *blocks = blocks.saturating_sub(1);
            }
        } else {
            // The reference counts neither this block nor any after it: its database falls behind.
            return;
        }
        self.globals.counted_height = height;
        self.miners.insert(height, license);
    }

    fn act(&mut self, action: &AdminAction, params: &Params, undo: &mut RegistryUndo) {
        for &target in action.targets.iter() {
            match action.verb {
                Verb::Add | Verb::Remove if params.license.admin_addresses.contains(&target) => {}
                Verb::Add => self.set_whitelisted(target, true, undo),
                Verb::Remove => self.set_whitelisted(target, false, undo),
                Verb::EnableCap { factor } => {
                    self.globals.cap_enabled = true;
                    self.globals.factor = factor;
                }
                Verb::DisableCap => {
                    self.globals.cap_enabled = false;
                    self.globals.factor = 0;
                }
            }
        }
    }

    /// Removing an unknown address leaves an entry for it, as in the reference.
    fn set_whitelisted(&mut self, address: Address, whitelisted: bool, undo: &mut RegistryUndo) {
        let record = self.change(address, undo);
        let before = std::mem::replace(&mut record.whitelisted, whitelisted);
        match (before, whitelisted) {
            (false, true) => self.globals.whitelisted += 1,
            (true, false) => self.globals.whitelisted -= 1,
            _ => {}
        }
    }

    /// The record to be changed. Its value before the block is saved at the first change.
    fn change(&mut self, address: Address, undo: &mut RegistryUndo) -> &mut LicenseRecord {
        undo.licenses.entry(address).or_insert_with(|| self.licenses.get(&address).copied());
        self.licenses.entry(address).or_default()
    }

    /// Reverts what [`Registry::apply`] changed for the latest block.
    pub fn undo(&mut self, undo: &RegistryUndo) {
        self.miners.remove(&self.globals.height);
        self.globals = undo.globals;
        for (address, record) in &undo.licenses {
            match record {
                Some(record) => self.licenses.insert(*address, *record),
                None => self.licenses.remove(address),
            };
        }
    }
}
