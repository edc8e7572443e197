//! Random numbers for choices and delays: fast, seeded from the system, not for secrets.

use bitcoin::secp256k1::rand::rngs::StdRng;
use bitcoin::secp256k1::rand::{RngCore, SeedableRng};

use super::peer::{Micros, SECOND};

/// A random number generator.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) StdRng);

impl Random {
    pub(crate) fn new() -> Self {
        Self(StdRng::from_entropy())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// The next time of an event that happens every `mean` seconds on average (`PoissonNextSend`).
    pub(crate) fn poisson(&mut self, now: Micros, mean: f64) -> Micros {
        let uniform = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        now + (-(1.0 - uniform).ln() * mean * SECOND as f64) as Micros
    }
}
