//! The miner from outside: the program's command line, and mining at pools of every kind over real sockets.

#![allow(clippy::unwrap_used)]

mod api;
mod cgminer;
mod cli;
mod clock;
mod devices;
mod failover;
mod gateway;
mod lying;
mod mine;
#[cfg(target_os = "linux")]
mod signals;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
mod tls;
mod watched;
