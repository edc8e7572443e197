//! The handshake, and liveness of a connection.
//!
//! Lives here: version and verack, pings and pongs, time limits. Does not live here: everything that is exchanged
//! in between. Sources: `ProcessMessage` (version, verack, ping, pong), `PushNodeVersion`, `InactivityCheck`.

use std::net::SocketAddr;

use iop_consensus::params::Params;
use tracing::{debug, info};

use super::compact;
use super::handle::{PROTOCOL_VERSION, USER_AGENT};
use super::message::{Message, NODE_NETWORK, NODE_WITNESS, Reject, Version};
use super::net::Net;
use super::peer::{Micros, Origin, PeerId, SECOND};

/// The oldest supported protocol version (`MIN_PEER_PROTO_VERSION`).
const MIN_VERSION: i32 = 31_800;
/// First version with block announcements by headers (`SENDHEADERS_VERSION`).
const SENDHEADERS_VERSION: i32 = 70_012;
/// First version with compact blocks (`SHORT_IDS_BLOCKS_VERSION`).
const COMPACT_VERSION: i32 = 70_014;
/// First version whose pings have a nonce (after `BIP0031_VERSION`).
const PING_NONCE_VERSION: i32 = 60_001;
/// First version with fee filters (`FEEFILTER_VERSION`).
pub(super) const FEEFILTER_VERSION: i32 = 70_013;
/// Timeout of the handshake (`DEFAULT_PEER_CONNECT_TIMEOUT` and `InactivityCheck`: 60 s).
const HANDSHAKE_TIME: Micros = 60 * SECOND;
/// Interval between pings (`PING_INTERVAL`).
const PING_INTERVAL: Micros = 120 * SECOND;
/// Timeout for a pong, and for any traffic at all (`TIMEOUT_INTERVAL`).
const SILENCE: Micros = 20 * 60 * SECOND;
/// Reject codes (`REJECT_*`).
const OBSOLETE: u8 = 0x11;
const DUPLICATE: u8 = 0x12;
const NONSTANDARD: u8 = 0x40;

impl Net {
    pub(super) fn send_version(&mut self, id: PeerId, now: Micros) {
        let height = self.tree.get(self.tree.tip()).height;
        let Some(peer) = self.peers.get(&id) else { return };
        let version = Version {
            version: PROTOCOL_VERSION,
            services: self.services,
            time: self.wall(now).cast_signed(),
            receiver: peer.address,
            nonce: peer.nonce,
            user_agent: USER_AGENT.to_owned(),
            height: height.cast_signed(),
            relay: true,
        };
        self.send(id, Message::Version(Box::new(version)));
    }

    fn refuse_version(&mut self, id: PeerId, code: u8, reason: String) {
        let why = reason.clone();
        self.send(id, Message::Reject(Reject { message: "version".to_owned(), code, reason, hash: None }));
        self.close(id, &why);
    }

    pub(super) fn on_version(&mut self, id: PeerId, version: Version, now: Micros) {
        let Some(peer) = self.peers.get(&id) else { return };
        let (address, origin) = (peer.address, peer.origin);
        if peer.version.number != 0 {
            let reason = "Duplicate version message".to_owned();
            let reject = Reject { message: "version".to_owned(), code: DUPLICATE, reason, hash: None };
            self.send(id, Message::Reject(reject));
            return self.misbehaving(id, 1, "a second version message", now);
        }
        if origin != Origin::Inbound {
            self.addresses.set_services(&address.into(), version.services);
        }
        // Only a peer that we chose must have the chain; a manual one may be anything.
        if matches!(origin, Origin::Outbound | Origin::Feeler) && version.services & NODE_NETWORK == 0 {
            return self.refuse_version(id, NONSTANDARD, "Expected to offer services 00000001".to_owned());
        }
        if version.version < MIN_VERSION {
            return self.refuse_version(id, OBSOLETE, format!("Version must be {MIN_VERSION} or greater"));
        }
        let ours = |other: &super::peer::Peer| !other.inbound() && other.nonce == version.nonce;
        if origin == Origin::Inbound && self.peers.values().any(ours) {
            return self.close(id, "it is this node itself");
        }
        if origin == Origin::Inbound {
            self.own.seen(&version.receiver.ip().into());
            self.send_version(id, now);
        }
        self.send(id, Message::Verack);
        let offset = version.time.saturating_sub(self.wall(now).cast_signed());
        self.with(id, |peer| {
            peer.version.number = version.version;
            peer.version.services = version.services;
            peer.version.user_agent = sanitized(&version.user_agent);
            peer.version.start_height = version.height;
            peer.version.wants_txs = version.relay;
            peer.version.our_address = Some(version.receiver);
            peer.version.time_offset = offset;
        });
        self.clocks.add(address.ip(), offset);
        if origin != Origin::Inbound {
            self.greet_outbound(id, address, version.receiver, now);
        }
        info!(
            peer = id.0, %address, version = version.version, agent = sanitized(&version.user_agent),
            height = version.height, inbound = origin == Origin::Inbound, "peer connected"
        );
        if origin == Origin::Feeler {
            self.close(id, "the feeler found a node");
        }
    }

    fn greet_outbound(&mut self, id: PeerId, address: SocketAddr, seen_as: SocketAddr, now: Micros) {
        if !self.initial_download {
            self.advertise(id, Some(seen_as), now);
        }
        self.send(id, Message::GetAddr);
        self.with(id, |peer| peer.gossip.asked_getaddr = true);
        self.addresses.good(&address.into(), self.wall(now));
    }

    pub(super) fn on_verack(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.established {
            return;
        }
        peer.established = true;
        let version = peer.version.number;
        if version >= SENDHEADERS_VERSION {
            self.send(id, Message::SendHeaders);
        }
        if version >= COMPACT_VERSION {
            if self.can_have_witnesses() {
                self.send(id, Message::SendCmpct { announce: false, version: 2 });
            }
            self.send(id, Message::SendCmpct { announce: false, version: 1 });
        }
        self.send_ping(id, now);
        self.start_sync(id, now);
        self.tell_own(id, now);
        self.prepare_fee_filter(id, now);
    }

    pub(super) fn on_sendcmpct(&mut self, id: PeerId, announce: bool, version: u64) {
        let Some(kind) = compact::Version::from_number(version) else { return };
        let ours = self.compact_version();
        self.with(id, |peer| {
            // The first version that a peer offers is the one it is sent.
            let chosen = *peer.blocks.compact_version.get_or_insert(kind);
            if chosen == kind {
                peer.blocks.prefers_compact = announce;
            }
            peer.sync.gives_compact |= kind == ours;
        });
    }

    pub(super) fn send_ping(&mut self, id: PeerId, now: Micros) {
        let nonce = self.random.next().max(1);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let due = peer.ping.awaited.is_none() && peer.ping.sent + PING_INTERVAL < now;
        if !due && !peer.ping.wanted {
            return;
        }
        (peer.ping.wanted, peer.ping.sent) = (false, now);
        if peer.version.number >= PING_NONCE_VERSION {
            peer.ping.awaited = Some((nonce, now));
            self.send(id, Message::Ping(nonce));
        } else {
            self.send(id, Message::OldPing);
        }
    }

    pub(super) fn on_pong(&mut self, id: PeerId, nonce: Option<u64>, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some((awaited, since)) = peer.ping.awaited else { return };
        match nonce {
            Some(nonce) if nonce == awaited => {
                let time = now.saturating_sub(since).max(1);
                peer.ping.last = Some(time);
                peer.ping.fastest = Some(peer.ping.fastest.map_or(time, |fastest| fastest.min(time)));
                peer.ping.awaited = None;
            }
            // Zero or too short: a bug of the other program, and no proper pong will come.
            Some(0) | None => peer.ping.awaited = None,
            Some(_) => debug!(peer = id.0, "a pong with another nonce"),
        }
    }

    /// Ends dead connections (`InactivityCheck`).
    pub(super) fn check_alive(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get(&id) else { return };
        let age = now.saturating_sub(peer.connected);
        if !peer.established && age > HANDSHAKE_TIME {
            return self.close(id, "the handshake took more than 60 s");
        }
        if age > SILENCE && now.saturating_sub(peer.last_received) > SILENCE {
            return self.close(id, "it said nothing for 20 minutes");
        }
        if peer.ping.awaited.is_some_and(|(_, since)| now.saturating_sub(since) > SILENCE) {
            self.close(id, "it did not answer a ping for 20 minutes");
        }
    }

    /// Whether a peer can serve this chain's blocks: if segwit can activate, it must serve witnesses.
    pub(super) fn has_our_blocks(&self, id: PeerId) -> bool {
        let witnesses = self.can_have_witnesses();
        self.peers.get(&id).is_some_and(|peer| {
            !peer.is_client() && (!witnesses || peer.version.services & NODE_WITNESS != 0)
        })
    }

    /// Whether segwit can be active. On the public networks it never is.
    pub(super) fn can_have_witnesses(&self) -> bool {
        can_have_witnesses(&self.params)
    }

    /// The kind of compact blocks that we ask for. Where segwit cannot be active IoP Core speaks version 1 only.
    pub(super) fn compact_version(&self) -> compact::Version {
        if self.can_have_witnesses() { compact::Version::Two } else { compact::Version::One }
    }
}

pub(super) fn can_have_witnesses(params: &Params) -> bool {
    params.deployments.segwit.timeout > 0
}

/// Keeps only characters that are harmless in a terminal or log (`SanitizeString`).
fn sanitized(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*c)).collect()
}
