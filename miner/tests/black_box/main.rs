//! The miner from outside: the program's command line, and mining at pools of every kind over real sockets.

#![allow(clippy::unwrap_used)]

mod cli;
mod failover;
mod lying;
mod mine;
mod support;
mod tls;
