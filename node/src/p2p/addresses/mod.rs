//! Addresses of nodes: which are known, how good they are, and which to try next (`addrman.cpp`, `netaddress.cpp`).
//!
//! Lives here: an address and its kind ([`ip`]), the table ([`table`], `buckets.rs`) and its file ([`mod@file`]),
//! our own addresses ([`local`]), DNS seeds ([`seeds`]). Does not live here: connections, `addr` messages and their
//! relay. Data goes: an `addr` message or a seed -> [`table::AddressTable::add`] -> [`table::AddressTable::select`]
//! -> a connection -> `attempt`, `good`, `connected`; and [`table::AddressTable::sample`] -> the answer to
//! `getaddr`.

mod buckets;
pub mod file;
pub mod ip;
pub mod local;
pub mod seeds;
pub mod table;
