//! The hold that one connection has on a backend: counted while it lives, and obliged to say how the backend did.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::ConnectFailure;

use super::backend::Backend;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseKind {
    /// The backend was up.
    Ordinary,
    /// This connection decides whether the backend is up again.
    Probe,
    /// None was usable, and this one was tried all the same.
    FailOpen,
}

/// One connection's hold on a backend.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
    kind: LeaseKind,
    /// Whether it has told how the backend did.
    settled: Cell<bool>,
}

impl Lease {
    pub(super) fn new(backend: Arc<Backend>, kind: LeaseKind) -> Self {
        Self { backend, kind, settled: Cell::new(false) }
    }

    /// The backend held.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The connection was made, in `took`.
    pub fn connected(&self, took: Duration) {
        self.backend.count_connected(took);
    }

    /// The connection could not be made.
    pub fn connect_failed(self, failure: ConnectFailure, now: Instant) {
        self.backend.count_connect_failure(failure);
        if failure.is_backends_fault() {
            self.failed(now, failure.as_str());
        }
    }

    /// The backend ended the connection before a byte went either way: as good as a connect that was reset.
    pub fn record_immediate_close(&self, now: Instant) {
        self.backend.count_connect_failure(ConnectFailure::Reset);
        self.failed(now, ConnectFailure::Reset.as_str());
    }

    /// The backend closed or reset after the client had sent bytes and before it sent one.
    pub fn record_early_close(&self, now: Instant) {
        if self.backend.count_early_close() {
            self.failed(now, "early_close");
        }
    }

    /// The backend answered with 502, 503 or 504, which the configuration may count as a failure.
    pub fn record_5xx(&self, now: Instant) {
        if self.backend.counts_5xx() { self.failed(now, "status_5xx") } else { self.record_success(now) }
    }

    /// The backend answered, or took the client's bytes to their end. The first time it counts.
    pub fn record_success(&self, now: Instant) {
        if self.kind != LeaseKind::Ordinary && !self.settled.replace(true) {
            self.backend.recovered(now, "a connection went well");
        }
    }

    fn failed(&self, now: Instant, reason: &str) {
        if !self.settled.replace(true) {
            self.backend.failed(now, self.kind == LeaseKind::Probe, reason);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.kind == LeaseKind::Probe && !self.settled.get() {
            self.backend.probe_abandoned(Instant::now());
        }
        self.backend.release();
    }
}
