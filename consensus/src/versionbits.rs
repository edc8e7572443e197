//! BIP9: rule changes by votes in version bits (`versionbits.cpp`).
//!
//! A deployment has one state per window. It is computed at the window's last block and remembered by that block's hash
//! in a [`Cache`], so that a block costs one look-up.

use std::collections::HashMap;

use bitcoin::BlockHash;

use crate::ancestors::{Ancestors, median_time_past};
use crate::params::{Deployment, Deployments};

const TOP_MASK: u32 = 0xe000_0000;
const TOP_BITS: u32 = 0x2000_0000;

/// The state of a deployment for the next block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The start time has not been reached.
    Defined,
    /// Blocks may vote.
    Started,
    /// The vote has passed; the rule becomes active one window later.
    LockedIn,
    /// The rule is active.
    Active,
    /// The vote has timed out.
    Failed,
}

impl State {
    /// The name that Core's RPC uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Defined => "defined",
            Self::Started => "started",
            Self::LockedIn => "locked_in",
            Self::Active => "active",
            Self::Failed => "failed",
        }
    }
}

/// States at the ends of windows, by deployment bit and block hash. A cache serves one network.
#[derive(Debug, Default)]
pub struct Cache(HashMap<(u8, BlockHash), State>);

impl Cache {
    /// The state for the block on top of `chain`'s block at `height` (`GetStateFor`).
    pub fn state_after(
        &mut self,
        chain: &dyn Ancestors,
        height: u32,
        deployment: &Deployment,
        deployments: &Deployments,
    ) -> State {
        let window = deployments.window;
        // Last blocks of whole windows up to `height`, newest first; before the first one the state is Defined.
        let mut pending = Vec::new();
        let mut end = (height + 1) / window * window;
        let mut state = State::Defined;
        while end > 0 {
            let last = end - 1;
            if let Some(&known) = self.0.get(&(deployment.bit, chain.hash(last))) {
                state = known;
                break;
            }
            // Before the start time nothing else is checked, not even the timeout.
            if i64::from(median_time_past(chain, last)) < deployment.start_time {
                self.0.insert((deployment.bit, chain.hash(last)), State::Defined);
                break;
            }
            pending.push(last);
            end -= window;
        }
        for last in pending.into_iter().rev() {
            state = next_state(state, chain, last, deployment, deployments);
            self.0.insert((deployment.bit, chain.hash(last)), state);
        }
        state
    }

    /// Whether the deployment is active for the block on top of `chain`.
    pub fn is_active(
        &mut self,
        chain: &dyn Ancestors,
        deployment: &Deployment,
        deployments: &Deployments,
    ) -> bool {
        self.state_after(chain, chain.tip_height(), deployment, deployments) == State::Active
    }
}

fn next_state(
    state: State,
    chain: &dyn Ancestors,
    last: u32,
    deployment: &Deployment,
    deployments: &Deployments,
) -> State {
    let median = i64::from(median_time_past(chain, last));
    match state {
        State::Defined if median >= deployment.timeout => State::Failed,
        State::Defined if median >= deployment.start_time => State::Started,
        State::Started if median >= deployment.timeout => State::Failed,
        State::Started => {
            let votes = (last + 1 - deployments.window..=last)
                .filter(|&height| signals(chain.header(height).version, deployment.bit))
                .count();
            if votes as u32 >= deployments.threshold { State::LockedIn } else { State::Started }
        }
        State::LockedIn => State::Active,
        State::Defined | State::Active | State::Failed => state,
    }
}

fn signals(version: i32, bit: u8) -> bool {
    version as u32 & TOP_MASK == TOP_BITS && version as u32 >> bit & 1 == 1
}

/// The version for the block on top of `chain`: BIP9's top bits, and a vote for every deployment that is started or
/// locked in (`ComputeBlockVersion`).
pub fn block_version(chain: &dyn Ancestors, deployments: &Deployments, cache: &mut Cache) -> i32 {
    let votes = deployments.named().into_iter().filter_map(|(_, deployment)| {
        let state = cache.state_after(chain, chain.tip_height(), deployment, deployments);
        matches!(state, State::Started | State::LockedIn).then_some(1u32 << deployment.bit)
    });
    votes.fold(TOP_BITS, |version, vote| version | vote) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ancestors::{HeaderInfo, TestChain};
    use crate::params::Params;
    use bitcoin::pow::CompactTarget;

    fn chain(windows: &[(u32, u32)], window: u32) -> TestChain {
        // (time, votes of the window)
        let bits = CompactTarget::from_consensus(0);
        let headers = windows.iter().flat_map(|&(time, votes)| {
            (0..window).map(move |i| HeaderInfo {
                version: if i < votes { 0x2000_0001 } else { 0x2000_0000 },
                time,
                bits,
            })
        });
        TestChain(headers.collect())
    }

    #[test]
    fn a_vote_locks_in_and_activates_a_window_later() {
        let deployments = Params::regtest().deployments;
        let window = deployments.window;
        let states = |votes: u32| {
            let chain = chain(&[(1, 0), (1, votes), (1, 0), (1, 0)], window);
            let mut cache = Cache::default();
            [1, 2, 3, 4].map(|n| cache.state_after(&chain, n * window - 1, &deployments.csv, &deployments))
        };
        assert_eq!(states(108), [State::Started, State::LockedIn, State::Active, State::Active]);
        assert_eq!(states(107), [State::Started; 4]);
    }

    #[test]
    fn a_timeout_of_zero_fails_after_the_first_window() {
        let main = Params::main();
        let chain = chain(&[(1_500_000_000, 2016), (1_500_000_000, 2016)], 2016);
        let mut cache = Cache::default();
        let segwit = &main.deployments.segwit;
        assert_eq!(cache.state_after(&chain, 2014, segwit, &main.deployments), State::Defined);
        assert_eq!(cache.state_after(&chain, 2015, segwit, &main.deployments), State::Failed);
        assert_eq!(cache.state_after(&chain, 4031, segwit, &main.deployments), State::Failed);
    }
}
