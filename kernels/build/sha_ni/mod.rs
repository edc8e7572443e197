//! The code for the SHA instructions alone.

pub(crate) mod one;
pub(crate) mod several;
