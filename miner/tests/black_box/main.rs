//! The miner from outside: the program's command line, and mining at pools of every kind over real sockets.

#![allow(clippy::unwrap_used)]

mod cli;
mod devices;
mod mine;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
