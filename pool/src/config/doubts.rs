//! Settings that are allowed and probably not meant.

use super::{FEE_UNIT, Scheme, Settings};

/// Members from which on a coinbase is longer than what most machines take, 16,000 bytes: it has 185, and 34 for each
/// output, the chapter's included.
const MANY_OUTPUTS: usize = 450;

impl Settings {
    /// What an operator should look at again, a line each.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let (rules, mut doubts) = (&self.rules, Vec::new());
        if rules.fee == FEE_UNIT && rules.scheme != Scheme::Chapter {
            doubts.push("fee is 1: the chapter keeps 100 % of each block; 0.01 is one percent".to_owned());
        }
        if rules.max_outputs > MANY_OUTPUTS && rules.scheme == Scheme::Pplns {
            doubts.push(format!(
                "max_outputs is {}: most machines take coinbases of {MANY_OUTPUTS} members at most",
                rules.max_outputs
            ));
        }
        doubts
    }
}
