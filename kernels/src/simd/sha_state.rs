//! A state in the order of the SHA instructions.

use crate::sha256::State;

/// Four words, the lowest lane first.
pub(super) type Four = [u32; 4];

/// A state as the instructions want it: the registers they call ABEF and CDGH, highest lane first.
pub(super) fn abef_cdgh([a, b, c, d, e, f, g, h]: State) -> [Four; 2] {
    [[f, e, b, a], [h, g, d, c]]
}
