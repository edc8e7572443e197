//! The command line: arguments as they are typed become validated settings, in this one place.
//!
//! Here: flags, their meaning, and every complaint about them, each one line that names what is wrong and
//! what was expected. Not here: what the commands do.
//! Path: arguments → clap → [`parse`] → [`Command`].

mod args;
mod settings;

pub use settings::{Command, Exit, UsageError, parse};
