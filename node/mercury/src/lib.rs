//! The Mercury relay: people's profiles, contacts, messages, pictures and calls, without a third party.
//!
//! Will live here: homes that host profiles, the signed envelopes, the libp2p protocols, and their storage.
//! Will not live here: coins, blocks, licenses; `iop-node` only hosts it.
//! Data will go: libp2p stream -> one verified envelope -> home -> storage -> events to related people.
//! Today it is empty: the place is kept so that the workspace has its final shape.
