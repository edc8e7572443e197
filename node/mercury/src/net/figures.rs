//! The outside view of a running home: its addresses, and figures for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libp2p::Multiaddr;
use tokio::sync::watch;

/// The figures of a home. Counters run since the start.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) connections: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    pub(super) connections_ended: AtomicU64,
    pub(super) sessions: AtomicU64,
    pub(super) hosted: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) requests_later: AtomicU64,
    pub(super) requests_under_way: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) disconnected: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) reservations: AtomicU64,
    pub(super) circuits: AtomicU64,
    pub(super) circuits_refused: AtomicU64,
}

pub(super) fn add(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn set(figure: &AtomicU64, value: u64) {
    figure.store(value, Ordering::Relaxed);
}

/// A figure, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Its name, such as `connections`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Whether it is a counter, which only increases.
    pub counter: bool,
    /// Its value.
    pub value: u64,
}

/// A handle to a running home. Clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) figures: Arc<Figures>,
    pub(super) addresses: watch::Receiver<Vec<Multiaddr>>,
}

impl Handle {
    /// The home's listen addresses with its peer id; waits until there is one. Empty if the home stopped before
    /// that.
    pub async fn addresses(&mut self) -> Vec<Multiaddr> {
        let known = self.addresses.wait_for(|addresses| !addresses.is_empty()).await;
        known.map(|addresses| addresses.clone()).unwrap_or_default()
    }

    /// The figures, always the same ones in the same order.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let figures = &*self.figures;
        let figure = |name, help, counter, value: &AtomicU64| Figure {
            name,
            help,
            counter,
            value: value.load(Ordering::Relaxed),
        };
        vec![
            figure("connections", "Connections", false, &figures.connections),
            figure(
                "connections_refused",
                "Connections refused by a limit",
                true,
                &figures.connections_refused,
            ),
            figure(
                "connections_ended",
                "Connections closed since their peers did too much in short time",
                true,
                &figures.connections_ended,
            ),
            figure("sessions", "Devices that are logged in", false, &figures.sessions),
            figure("hosted", "Personas hosted", false, &figures.hosted),
            figure("requests", "Requests that came", true, &figures.requests),
            figure("requests_later", "Requests refused by a rate or a limit", true, &figures.requests_later),
            figure("requests_under_way", "Requests under way", false, &figures.requests_under_way),
            figure("events", "Events sent to devices", true, &figures.events),
            figure("disconnected", "Devices disconnected by the home", true, &figures.disconnected),
            figure("records", "Records of others in the directory", false, &figures.records),
            figure("reservations", "Relay reservations granted", true, &figures.reservations),
            figure("circuits", "Relay circuits open", false, &figures.circuits),
            figure("circuits_refused", "Relay circuits refused", true, &figures.circuits_refused),
        ]
    }
}
