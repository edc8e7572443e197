//! A state in the order of the SHA instructions.

use super::page::IN_FOURS;
use crate::sha256::State;

/// Four words, the lowest lane first.
pub(super) type Four = [u32; 4];

/// A state as the instructions take it: the registers that they call ABEF and CDGH, highest lane first.
pub(super) fn abef_cdgh(state: State) -> [Four; 2] {
    let mut fours = [[0; 4]; 2];
    for (word, place) in state.into_iter().zip(IN_FOURS) {
        fours[place / 4][place % 4] = word;
    }
    fours
}
