//! One backend: its address, its standing, its counts, and the lease that a connection holds on it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{self, BackendAddress};
use crate::net::ConnectFailure;
use crate::telemetry::{ByteCounters, PerWorker, Traffic};

use super::detection::{Detector, Standing, Transition};
use super::pool::Changes;

/// Whether a backend gets new connections, in the admin API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It does.
    Up,
    /// Set aside by passive failure detection.
    Ejected,
    /// One connection is finding out.
    Probing,
}

impl State {
    /// Its word in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ejected => "ejected",
            Self::Probing => "probing",
        }
    }

    fn from_byte(byte: u8) -> Self {
        [Self::Up, Self::Ejected, Self::Probing][usize::from(byte)]
    }
}

/// One server of a pool. Shared by all workers.
#[derive(Debug)]
pub struct Backend {
    address: BackendAddress,
    label: String,
    pool: String,
    weight: u16,
    is_backup: bool,
    /// A [`State`], so that the hot path needs no lock.
    state: AtomicU8,
    detector: Option<Mutex<Detector>>,
    count_early_close: bool,
    changes: Arc<Changes>,
    active: AtomicUsize,
    total: AtomicU64,
    ejections: AtomicU64,
    failures: [AtomicU64; ConnectFailure::ALL.len()],
    early_closes: AtomicU64,
    last_connect_micros: AtomicU64,
    bytes: PerWorker<ByteCounters>,
}

/// A backend at one instant, for the admin API and metrics.
#[derive(Clone, Debug)]
pub struct BackendSnapshot {
    #[allow(missing_docs)]
    pub address: String,
    #[allow(missing_docs)]
    pub weight: u16,
    #[allow(missing_docs)]
    pub backup: bool,
    #[allow(missing_docs)]
    pub state: State,
    /// Connections that live now.
    pub active: usize,
    /// Connections made so far.
    pub total: u64,
    /// Failed connects so far, by [`ConnectFailure`].
    pub connect_failures: [u64; ConnectFailure::ALL.len()],
    /// Connections that it closed after the client's first bytes and before its own.
    pub early_closes: u64,
    /// Failures within the detection's window.
    pub recent_failures: usize,
    /// Times that it was set aside.
    pub ejections: u64,
    /// Time until a probe is allowed, where it is ejected.
    pub ejected_for: Option<Duration>,
    /// How long the last connect took.
    pub last_connect: Option<Duration>,
    #[allow(missing_docs)]
    pub bytes: Traffic,
}

impl BackendSnapshot {
    /// Failures that were its fault so far: failed connects and early closes.
    pub fn failures(&self) -> u64 {
        let blamed = ConnectFailure::ALL.iter().filter(|failure| failure.is_backends_fault());
        blamed.map(|failure| self.connect_failures[*failure as usize]).sum::<u64>() + self.early_closes
    }
}

impl Backend {
    pub(super) fn new(
        settings: &config::Backend,
        pool: &config::Pool,
        workers: usize,
        changes: Arc<Changes>,
        now: Instant,
    ) -> Arc<Self> {
        let detector = pool.failure_detection.clone().map(|detection| Mutex::new(Detector::new(detection, now)));
        Arc::new(Self {
            address: settings.address.clone(),
            label: settings.address.to_string(),
            pool: pool.name.clone(),
            weight: settings.weight,
            is_backup: settings.backup,
            state: AtomicU8::new(State::Up as u8),
            detector,
            count_early_close: pool.failure_detection.as_ref().is_some_and(|detection| detection.count_early_close),
            changes,
            active: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            failures: Default::default(),
            early_closes: AtomicU64::new(0),
            last_connect_micros: AtomicU64::new(0),
            bytes: PerWorker::new(workers),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &BackendAddress {
        &self.address
    }

    /// Its address as text: its name in logs, metrics and the API.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its share of new connections.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// Used only when no primary is usable.
    pub fn is_backup(&self) -> bool {
        self.is_backup
    }

    /// Whether it gets new connections in the ordinary course.
    pub fn is_usable(&self) -> bool {
        self.state() == State::Up
    }

    /// The state now.
    pub fn state(&self) -> State {
        State::from_byte(self.state.load(Ordering::Acquire))
    }

    /// Bytes relayed by one worker.
    pub fn bytes(&self, worker: usize) -> &ByteCounters {
        self.bytes.of(worker)
    }

    /// Takes a connection to it, whatever its state.
    pub fn lease(self: &Arc<Self>) -> Lease {
        let kind = if self.is_usable() { LeaseKind::Ordinary } else { LeaseKind::WhileEjected };
        self.lease_as(kind)
    }

    /// Takes the one connection that may find out whether it is well again, if that is due.
    pub fn lease_probe(self: &Arc<Self>, now: Instant, settle: Duration) -> Option<Lease> {
        let mut detector = self.detector()?;
        if !detector.begin_probe(now, settle) {
            return None;
        }
        self.apply(&detector, None, "");
        drop(detector);
        Some(self.lease_as(LeaseKind::Probe))
    }

    /// Ends a probe that has lived long enough to show that the backend is well.
    pub(super) fn settle_probe(&self, now: Instant) {
        let Some(mut detector) = self.detector() else { return };
        if matches!(detector.standing(), Standing::Probing { settled_at } if settled_at <= now) {
            let transition = detector.succeeded(now);
            self.apply(&detector, transition, "probe connection holds");
        }
    }

    pub(super) fn next_event(&self) -> Option<Instant> {
        self.detector().and_then(|detector| detector.next_event())
    }

    /// What it is like now.
    pub fn snapshot(&self, now: Instant) -> BackendSnapshot {
        let (recent_failures, standing) = match self.detector() {
            Some(mut detector) => (detector.recent_failures(now), detector.standing()),
            None => (0, Standing::Up),
        };
        let ejected_for = match standing {
            Standing::Ejected { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        };
        let micros = self.last_connect_micros.load(Ordering::Relaxed);
        BackendSnapshot {
            address: self.label.clone(),
            weight: self.weight,
            backup: self.is_backup,
            state: self.state(),
            active: self.active.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            connect_failures: std::array::from_fn(|reason| self.failures[reason].load(Ordering::Relaxed)),
            early_closes: self.early_closes.load(Ordering::Relaxed),
            recent_failures,
            ejections: self.ejections.load(Ordering::Relaxed),
            ejected_for,
            last_connect: (micros > 0).then(|| Duration::from_micros(micros)),
            bytes: self.bytes.iter().map(ByteCounters::total).sum(),
        }
    }

    fn lease_as(self: &Arc<Self>, kind: LeaseKind) -> Lease {
        self.active.fetch_add(1, Ordering::Relaxed);
        Lease { backend: self.clone(), kind, settled: Cell::new(false) }
    }

    /// A thread that panicked while it held the lock left a whole value: every change of it is one assignment.
    fn detector(&self) -> Option<MutexGuard<'_, Detector>> {
        Some(self.detector.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes the detector's standing, and tells of a transition once.
    fn apply(&self, detector: &Detector, transition: Option<Transition>, reason: &str) {
        let state = match detector.standing() {
            Standing::Up => State::Up,
            Standing::Ejected { .. } => State::Ejected,
            Standing::Probing { .. } => State::Probing,
        };
        self.state.store(state as u8, Ordering::Release);
        self.changes.changed(detector.next_event());
        match transition {
            Some(Transition::Ejected(duration)) => {
                self.ejections.fetch_add(1, Ordering::Relaxed);
                let seconds = (duration.as_secs_f64() * 10.0).round() / 10.0;
                tracing::warn!(pool = self.pool, backend = self.label, reason, seconds, "backend ejected");
            }
            Some(Transition::Recovered) => {
                tracing::info!(pool = self.pool, backend = self.label, reason, "backend is in use again");
            }
            None => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseKind {
    /// The backend was up.
    Ordinary,
    /// This connection decides.
    Probe,
    /// All were ejected, and it was tried all the same.
    WhileEjected,
}

/// One connection's hold on a backend: counted while it lives, and obliged to say how the backend did.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
    kind: LeaseKind,
    /// Whether it has told how the backend did.
    settled: Cell<bool>,
}

impl Lease {
    /// The backend held.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The connection was made, in `took`.
    pub fn connected(&self, took: Duration) {
        self.backend.total.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.backend.last_connect_micros.store(micros, Ordering::Relaxed);
    }

    /// The connection could not be made.
    pub fn connect_failed(self, failure: ConnectFailure, now: Instant) {
        self.backend.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
        if failure.is_backends_fault() {
            self.failed(now, failure.word());
        }
    }

    /// The backend reset the connection before a byte went either way: as good as refused.
    pub fn reset_at_once(&self, now: Instant) {
        self.backend.failures[ConnectFailure::Reset as usize].fetch_add(1, Ordering::Relaxed);
        self.failed(now, ConnectFailure::Reset.word());
    }

    /// The backend closed or reset after the client had sent bytes and before it sent one.
    pub fn closed_early(&self, now: Instant) {
        self.backend.early_closes.fetch_add(1, Ordering::Relaxed);
        if self.backend.count_early_close {
            self.failed(now, "early_close");
        }
    }

    /// The backend answered, or the connection ended without a sign that it is unwell. The first time it counts.
    pub fn went_well(&self, now: Instant) {
        if self.settled.get() || self.kind == LeaseKind::Ordinary {
            return;
        }
        self.settled.set(true);
        if let Some(mut detector) = self.backend.detector() {
            let transition = detector.succeeded(now);
            self.backend.apply(&detector, transition, "a connection went well");
        }
    }

    fn failed(&self, now: Instant, reason: &str) {
        if self.settled.get() {
            return;
        }
        self.settled.set(true);
        if let Some(mut detector) = self.backend.detector() {
            let transition = detector.failed(now, self.kind == LeaseKind::Probe, fastrand::f64());
            self.backend.apply(&detector, transition, reason);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.active.fetch_sub(1, Ordering::Relaxed);
        if self.kind == LeaseKind::Probe
            && !self.settled.get()
            && let Some(mut detector) = self.backend.detector()
        {
            detector.probe_abandoned(Instant::now());
            self.backend.apply(&detector, None, "");
        }
    }
}
