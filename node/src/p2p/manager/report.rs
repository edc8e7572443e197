//! Answers to the handle's queries, and peer information. Part of the manager.

use std::sync::atomic::Ordering;

use super::*;

impl Manager {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Peers(reply) => drop(reply.send(self.peer_infos())),
            Command::Added(reply) => drop(reply.send(self.added())),
            Command::Add(name, reply) => {
                let new = !self.named.iter().any(|named| named.name == name);
                if new {
                    self.named.push(Named::new(name, true));
                }
                let _ = reply.send(new);
            }
            Command::Remove(name, reply) => {
                let before = self.named.len();
                self.named.retain(|named| !named.added || named.name != name);
                let _ = reply.send(self.named.len() < before);
            }
            Command::TryOnce(name) if self.net.peers().any(|(_, peer)| peer.is_named(&name)) => {}
            Command::TryOnce(name) => {
                let host = with_port(&name, self.params.p2p_port);
                self.dial(Origin::Manual, Some(host), Some(name), None);
            }
            Command::Disconnect(which, reply) => {
                let found = self.net.peers().find(|(id, peer)| match &which {
                    Which::Id(number) => id.0 == *number,
                    Which::Address(text) => peer.is_named(text) || peer.address.to_string() == *text,
                });
                let found = found.map(|(id, _)| id);
                if let Some(id) = found {
                    self.net.close(id, "the operator wants it");
                }
                let _ = reply.send(found.is_some());
            }
            Command::PingAll => self.net.ping_all(now()),
            Command::Announce(txid) => self.net.sent_here(txid),
        }
        self.act(&None);
    }

    pub(super) fn added(&self) -> Vec<AddedPeer> {
        let connected = |name: &str| {
            let found = self.net.peers().find(|(_, peer)| peer.is_named(name));
            found.map(|(_, peer)| (peer.address, peer.inbound()))
        };
        let added = self.named.iter().filter(|named| named.added);
        added.map(|named| AddedPeer { name: named.name.clone(), connected: connected(&named.name) }).collect()
    }

    pub(super) fn peer_infos(&self) -> Vec<PeerInfo> {
        self.net
            .peers()
            .filter_map(|(id, peer)| Some(self.peer_info(id, peer, self.links.get(&id)?)))
            .collect()
    }

    pub(super) fn peer_info(&self, id: PeerId, peer: &Peer, link: &Link) -> PeerInfo {
        let (meter, time) = (&link.meter, now());
        let seconds = |micros: Micros| micros as f64 / SECOND as f64;
        PeerInfo {
            id: id.0,
            addr: peer.name.clone().unwrap_or_else(|| peer.address.to_string()),
            addrbind: link.local,
            lastsend: meter.last_sent.load(Ordering::Relaxed),
            lastrecv: meter.last_received.load(Ordering::Relaxed),
            bytessent: meter.sent.load(Ordering::Relaxed),
            bytesrecv: meter.received.load(Ordering::Relaxed),
            pingtime: peer.ping.last.map(seconds),
            minping: peer.ping.fastest.map(seconds),
            pingwait: peer.ping.awaited.map(|(_, since)| seconds(time.saturating_sub(since))),
            bytessent_per_msg: Meter::by_message(&meter.sent_by_message),
            bytesrecv_per_msg: Meter::by_message(&meter.received_by_message),
            ..self.net.describe(id, peer)
        }
    }
}

impl Net {
    pub(crate) fn peers(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.peers.iter().map(|(id, peer)| (*id, peer))
    }

    pub(crate) fn configure(&mut self, options: &Options) {
        self.minimum_work = options.minimum_chain_work;
        self.max_tip_age = options.max_tip_age;
        if options.prune.is_some() {
            self.services &= !crate::p2p::message::NODE_NETWORK;
        }
    }

    pub(crate) fn services(&self) -> u64 {
        self.services
    }

    pub(crate) fn time_offset(&self) -> i64 {
        self.clocks.offset()
    }

    /// Disconnects all peers at a banned address, except manual ones.
    pub(super) fn close_all_from(&mut self, ip: std::net::IpAddr) {
        let theirs = |peer: &Peer| peer.address.ip() == ip && peer.origin != Origin::Manual;
        let ids: Vec<PeerId> = self.peers().filter(|(_, peer)| theirs(peer)).map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.close(id, "its address is banned"));
    }

    /// Sets the address that peers can connect to.
    pub(crate) fn listen(&mut self, address: SocketAddr) {
        self.listening = Some(address.port());
        self.own.add(address.into(), Reason::Bound);
    }

    pub(crate) fn knows_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    pub(crate) fn add_seeded(
        &mut self,
        heard: &[crate::p2p::addresses::ip::TimedAddress],
        source: crate::p2p::addresses::ip::Ip,
        now: Micros,
    ) {
        for heard in heard {
            self.addresses.add_seeded(heard, source, 0, self.wall(now));
        }
    }

    pub(crate) fn encode_addresses(&self) -> Vec<u8> {
        file::encode(&self.addresses, self.params.magic)
    }

    pub(crate) fn ping_all(&mut self, now: Micros) {
        let ids: Vec<PeerId> = self.peers().filter(|(_, peer)| peer.is_ready()).map(|(id, _)| id).collect();
        for id in ids {
            self.with(id, |peer| peer.ping.wanted = true);
            self.send_ping(id, now);
        }
    }

    /// The information on a peer.
    fn describe(&self, id: PeerId, peer: &Peer) -> PeerInfo {
        let height = |node: Option<crate::p2p::tree::NodeId>| {
            node.map_or(-1, |node| i64::from(self.tree.get(node).height))
        };
        let heights = peer.sync.in_flight.iter().filter_map(|hash| self.in_flight.get(hash)?.node);
        PeerInfo {
            id: id.0,
            addrlocal: peer.version.our_address.filter(|address| !address.ip().is_unspecified()),
            services: peer.version.services,
            relaytxes: peer.version.wants_txs,
            conntime: self.wall(peer.connected),
            timeoffset: peer.version.time_offset,
            version: peer.version.number,
            subver: peer.version.user_agent.clone(),
            inbound: peer.inbound(),
            addnode: peer.origin == Origin::Manual,
            startingheight: peer.version.start_height,
            banscore: peer.score,
            synced_headers: height(peer.sync.best_known),
            synced_blocks: height(peer.sync.last_common),
            inflight: heights.map(|node| self.tree.get(node).height).collect(),
            ..PeerInfo::default()
        }
    }
}
