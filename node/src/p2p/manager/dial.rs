//! Outbound connections: manual peers, chosen ones, DNS seeds. Part of the manager.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tracing::{debug, info, warn};

use super::*;

impl Manager {
    pub(super) fn dial_named(&mut self, time: Micros) {
        let port = self.params.p2p_port;
        let mut due = Vec::new();
        for named in &mut self.named {
            let connected = self.net.peers().any(|(_, peer)| peer.is_named(&named.name));
            if connected {
                named.backoff = SECOND;
                named.warned = false;
            }
            if connected || named.dialling || time < named.next {
                continue;
            }
            named.dialling = true;
            named.next = time + named.backoff;
            named.backoff = (named.backoff * 2).min(MAX_BACKOFF);
            due.push(named.name.clone());
        }
        due.into_iter()
            .for_each(|name| self.dial(Origin::Manual, Some(with_port(&name, port)), Some(name), None));
    }

    pub(super) fn dial_chosen(&mut self, time: Micros) {
        if time < self.next_dial {
            return;
        }
        self.next_dial = time + DIAL_EVERY;
        let extra = usize::from(self.net.tip_may_be_stale(time));
        let outbound = self.net.count(Origin::Outbound) + self.dialling.len();
        let origin = if outbound < MAX_OUTBOUND + extra {
            Origin::Outbound
        } else if time >= self.next_feeler {
            self.next_feeler = self.random.poisson(time, FEELER_EVERY);
            Origin::Feeler
        } else {
            return;
        };
        let seconds = wall();
        let choice = self.net.choose_outbound(&self.dialling, origin == Origin::Feeler, seconds);
        let Some(address) = choice.filter(|address| !self.bans.is_banned(address.ip(), seconds)) else {
            return;
        };
        self.net.note_attempt(address, seconds);
        self.dialling.insert(address);
        self.dial(origin, None, None, Some(address));
    }

    /// Connects by name or address; the outcome arrives as an event.
    pub(super) fn dial(
        &self,
        origin: Origin,
        host: Option<String>,
        name: Option<String>,
        address: Option<SocketAddr>,
    ) {
        let inner = self.inner.clone();
        tokio::spawn(async move {
            let connect = async {
                match (&host, address) {
                    (Some(host), _) => TcpStream::connect(host.as_str()).await,
                    (None, Some(address)) => TcpStream::connect(address).await,
                    (None, None) => Err(std::io::Error::other("nobody to connect to")),
                }
            };
            let outcome = tokio::time::timeout(DIAL_TIME, connect)
                .await
                .unwrap_or_else(|_| Err(std::io::Error::other("no answer within 5 s")));
            let _ = inner.send(Inner::Dialled(Dialled { origin, name, address, outcome }));
        });
    }

    pub(super) fn take_inner(&mut self, inner: Inner) {
        match inner {
            Inner::Dialled(dialled) => self.dialled(dialled),
            Inner::Seeds(answer) => {
                info!(addresses = answer.addresses.len(), "a DNS seed answered");
                self.net.add_seeded(&answer.addresses, answer.source, now());
            }
            Inner::AskSeeds if self.net.count(Origin::Outbound) < 2 => self.ask_seeds(),
            Inner::AskSeeds => debug!("there are peers: no DNS seed is asked"),
        }
    }

    pub(super) fn dialled(&mut self, dialled: Dialled) {
        let Dialled { origin, name, address, outcome } = dialled;
        if let Some(address) = address {
            self.dialling.remove(&address);
        }
        let named = self.named.iter_mut().find(|named| Some(&named.name) == name.as_ref());
        let first_failure = named.is_some_and(|named| {
            named.dialling = false;
            outcome.is_err() && !std::mem::replace(&mut named.warned, true)
        });
        let opened = outcome.and_then(|stream| Ok((canonical(stream.peer_addr()?), stream)));
        match opened {
            Ok((address, stream)) => self.open(stream, address, origin, name),
            Err(error) => {
                let to = name.or_else(|| address.map(|address| address.to_string())).unwrap_or_default();
                if first_failure {
                    warn!("no connection to {to}: {error}; it is tried again and again");
                } else {
                    debug!("no connection to {to}: {error}");
                }
            }
        }
    }

    pub(super) fn prepare_seeds(&self) {
        if self.dns_seed {
            self.ask_seeds_after(if self.net.knows_addresses() { SEEDS_AFTER } else { Duration::ZERO });
        }
    }

    fn ask_seeds_after(&self, wait: Duration) {
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = inner.send(Inner::AskSeeds);
        });
    }

    /// Queries all seeds, and again later if there are still no peers: a node may start before its network does.
    pub(super) fn ask_seeds(&mut self) {
        self.ask_seeds_after(self.seeds_wait);
        self.seeds_wait = (self.seeds_wait * 2).min(SEEDS_SELDOM);
        for name in self.params.dns_seeds.clone() {
            let (inner, port) = (self.inner.clone(), self.params.p2p_port);
            let private = self.params.mine_on_demand;
            tokio::spawn(async move {
                let mut random = Random::new();
                let (limit, time) = (seeds::LIMIT, wall());
                match seeds::resolve(&name, port, private, limit, time, &mut random.0).await {
                    Ok(answer) => drop(inner.send(Inner::Seeds(answer))),
                    Err(error) => warn!("{error}"),
                }
            });
        }
    }
}
