//! The hold that one connection has on a backend: counted while it lasts, and obliged to say how the backend did.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::ConnectFailure;

use super::backend::Backend;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseKind {
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
    /// Whether it has said how the backend did.
    settled: Cell<bool>,
}

impl Lease {
    /// Takes a connection to `backend`, whatever its state; `None`: it has as many as it may.
    pub fn take(backend: &Arc<Backend>) -> Option<Self> {
        Self::take_as(backend, if backend.is_up() { LeaseKind::Ordinary } else { LeaseKind::FailOpen })
    }

    /// Takes the one connection that may find out whether `backend` is well again, if that is due. It counts as well
    /// once it has held for `settle`.
    pub(super) fn take_probe(backend: &Arc<Backend>, now: Instant, settle: Duration) -> Option<Self> {
        if !backend.health().begin_probe(now, settle) {
            return None;
        }
        let lease = Self::take_as(backend, LeaseKind::Probe);
        if lease.is_none() {
            backend.health().probe_abandoned(now);
        }
        lease
    }

    fn take_as(backend: &Arc<Backend>, kind: LeaseKind) -> Option<Self> {
        backend.try_acquire().then(|| Self { backend: backend.clone(), kind, settled: Cell::new(false) })
    }

    /// The backend held.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The connection was made, in `took`.
    pub fn connected(&self, took: Duration) {
        self.backend.counts().connected(took);
    }

    /// The connection could not be made.
    pub fn connect_failed(self, failure: ConnectFailure, now: Instant) {
        self.count_connect_failure(failure);
        if failure.is_backends_fault() {
            self.failed(now, failure.as_str());
        }
    }

    /// The backend ended the connection before a byte went either way: as good as a connect that was reset.
    pub fn record_immediate_close(&self, now: Instant) {
        self.count_connect_failure(ConnectFailure::Reset);
        self.failed(now, ConnectFailure::Reset.as_str());
    }

    /// The backend closed or reset after the client had sent bytes and before it sent one.
    pub fn record_early_close(&self, now: Instant) {
        self.backend.counts().closed_early();
        self.backend.health().note_error("closed early");
        if self.backend.health().counts_early_close() {
            self.failed(now, "early_close");
        }
    }

    /// The backend answered with 502, 503 or 504, which the configuration may count as a failure.
    pub fn record_5xx(&self, now: Instant) {
        if self.backend.health().counts_5xx() {
            self.failed(now, "status_5xx");
        } else {
            self.record_success(now);
        }
    }

    /// The backend answered, or took the client's bytes to their end. The first time it counts.
    pub fn record_success(&self, now: Instant) {
        if self.kind != LeaseKind::Ordinary && !self.settled.replace(true) {
            self.backend.health().recovered(now, "a connection went well");
        }
    }

    fn count_connect_failure(&self, failure: ConnectFailure) {
        self.backend.counts().connect_failed(failure);
        self.backend.health().note_error(failure.as_str());
    }

    fn failed(&self, now: Instant, reason: &str) {
        if !self.settled.replace(true) {
            self.backend.health().failed(now, self.kind == LeaseKind::Probe, reason);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.kind == LeaseKind::Probe && !self.settled.get() {
            self.backend.health().probe_abandoned(Instant::now());
        }
        self.backend.release();
    }
}
