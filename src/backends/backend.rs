//! One backend: its address, its status and its counts. Shared by all workers.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::config;
use crate::net::{ConnectFailure, Target};
use crate::telemetry::{BackendCounters, PerWorker};

use super::detection::{DetectorState, Transition};
use super::events::PoolEvents;
use super::lease::{Lease, LeaseKind};
use super::snapshot::BackendSnapshot;
use super::status::{AdminState, BackendState, FULL_SHARE, StateChange, Status};

/// A backend as the configuration or a name server wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens; this tells one backend of a pool from another.
    pub target: Target,
    /// Its share of new connections, 0 to 256.
    pub weight: u16,
    /// Used only when no primary is usable.
    pub backup: bool,
    /// Connections at once.
    pub max_connections: Option<NonZeroUsize>,
}

/// One server of a pool.
#[derive(Debug)]
pub struct Backend {
    target: Target,
    label: String,
    settings: Arc<ArcSwap<config::PoolConfig>>,
    weight: AtomicU16,
    is_backup: AtomicBool,
    /// 0: any number.
    max_connections: AtomicUsize,
    /// A [`BackendState`], so that the hot path needs no lock.
    state: AtomicU8,
    /// Of [`FULL_SHARE`].
    share: AtomicU32,
    is_gone: AtomicBool,
    status: Mutex<Status>,
    /// Milliseconds on the pool's clock until which it is suspect.
    suspect_until: AtomicU64,
    events: Arc<PoolEvents>,
    active: AtomicUsize,
    counts: Counts,
    counters: PerWorker<BackendCounters>,
}

#[derive(Debug, Default)]
struct Counts {
    total: AtomicU64,
    ejections: AtomicU64,
    connect_failures: [AtomicU64; ConnectFailure::ALL.len()],
    early_closes: AtomicU64,
    last_connect_micros: AtomicU64,
}

impl Backend {
    pub(super) fn new(
        endpoint: &Endpoint,
        settings: Arc<ArcSwap<config::PoolConfig>>,
        workers: usize,
        events: Arc<PoolEvents>,
        now: Instant,
    ) -> Arc<Self> {
        let status = Mutex::new(Status::new(&settings.load(), now));
        let backend = Self {
            target: endpoint.target.clone(),
            label: endpoint.target.to_string(),
            settings,
            weight: AtomicU16::default(),
            is_backup: AtomicBool::default(),
            max_connections: AtomicUsize::default(),
            state: AtomicU8::new(BackendState::Up as u8),
            share: AtomicU32::new(FULL_SHARE),
            is_gone: AtomicBool::new(false),
            status,
            suspect_until: AtomicU64::new(0),
            events,
            active: AtomicUsize::new(0),
            counts: Counts::default(),
            counters: PerWorker::new(workers),
        };
        backend.update_from(endpoint);
        Arc::new(backend)
    }

    /// Takes on the weight, rank and limit of `endpoint`; true where something changed.
    pub(super) fn update_from(&self, endpoint: &Endpoint) -> bool {
        let max = endpoint.max_connections.map_or(0, NonZeroUsize::get);
        let weight = self.weight.swap(endpoint.weight, Ordering::Relaxed);
        let was_backup = self.is_backup.swap(endpoint.backup, Ordering::Relaxed);
        let limit = self.max_connections.swap(max, Ordering::Relaxed);
        (weight, was_backup, limit) != (endpoint.weight, endpoint.backup, max)
    }

    /// Goes on under the pool's new settings.
    pub(super) fn reconfigure(&self, now: Instant) {
        let mut status = self.status();
        status.reconfigure(&self.settings.load(), now);
        self.publish(&mut status, now);
    }

    /// Where it listens.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its share of new connections, 0 to 256.
    pub fn weight(&self) -> u16 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Used only when no primary is usable.
    pub fn is_backup(&self) -> bool {
        self.is_backup.load(Ordering::Relaxed)
    }

    /// Connections at once; `None`: any number.
    pub fn max_connections(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.max_connections.load(Ordering::Relaxed))
    }

    /// Its address as text: its name in logs, metrics and the API.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its weight in parts of its share: what it counts for while it starts slowly.
    pub fn effective_weight(&self) -> u32 {
        u32::from(self.weight()) * self.share.load(Ordering::Relaxed)
    }

    /// Whether it gets new connections in the ordinary course, as long as it has room.
    pub fn is_up(&self) -> bool {
        self.state() == BackendState::Up
    }

    /// Whether it failed within the detection's window: a retry has better chances elsewhere.
    pub fn is_suspect(&self, now: Instant) -> bool {
        self.events.millis(now) < self.suspect_until.load(Ordering::Relaxed)
    }

    /// The state now.
    pub fn state(&self) -> BackendState {
        BackendState::from_byte(self.state.load(Ordering::Acquire))
    }

    /// It is in no pool any more.
    pub(super) fn mark_removed(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    /// Whether a connection is worth keeping for later: the pool still has it, and nobody is emptying it.
    pub fn accepts_idle(&self) -> bool {
        !self.is_gone.load(Ordering::Relaxed) && !self.state().is_by_operator()
    }

    /// Connections that live now.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// What one worker counts of it.
    pub fn counters(&self, worker: usize) -> &BackendCounters {
        self.counters.worker(worker)
    }

    /// Takes a connection to it, whatever its state; `None`: it has as many as it may.
    pub fn lease(self: &Arc<Self>) -> Option<Lease> {
        self.lease_as(if self.is_up() { LeaseKind::Ordinary } else { LeaseKind::FailOpen })
    }

    /// Takes the one connection that may find out whether it is well again, if that is due.
    pub(super) fn lease_probe(self: &Arc<Self>, now: Instant, settle: Duration) -> Option<Lease> {
        let mut status = self.status();
        if status.state() != BackendState::Ejected || !status.detector.as_mut()?.begin_probe(now, settle) {
            return None;
        }
        self.publish(&mut status, now);
        drop(status);
        let lease = self.lease_as(LeaseKind::Probe);
        if lease.is_none() {
            self.probe_abandoned(now);
        }
        lease
    }

    /// Does what the clock asks for: ends a probe that has lived long enough, takes the next step of a slow start.
    pub(super) fn tick(&self, now: Instant) {
        let mut status = self.status();
        let settled = matches!(status.detector_state(), DetectorState::Probing { settled_at } if settled_at <= now);
        if settled {
            drop(status);
            return self.recovered(now, "a probe connection holds");
        }
        if status.share(now) != self.share.load(Ordering::Relaxed) {
            self.publish(&mut status, now);
        }
    }

    pub(super) fn next_event(&self, now: Instant) -> Option<Instant> {
        self.status().next_event(now)
    }

    /// Takes the result of a health check; `reason` tells what went wrong.
    pub fn record_check(&self, is_well: bool, reason: &str, now: Instant) {
        let mut status = self.status();
        let was_down = status.state() == BackendState::Down;
        if !is_well {
            status.last_error = Some((format!("health check: {reason}"), SystemTime::now()));
        }
        if status.record_check(is_well) {
            if was_down {
                status.came_back(now);
            }
            self.publish(&mut status, now);
            self.log_transition(StateChange::Check(is_well), reason);
            if is_well {
                self.events.notify_all_waiters();
            }
        }
    }

    /// Does what an operator wants; true where that is news.
    pub fn set_admin_state(&self, admin_state: AdminState, now: Instant) -> bool {
        let mut status = self.status();
        if status.admin_state == admin_state {
            return false;
        }
        status.admin_state = admin_state;
        if admin_state == AdminState::Enable {
            status.came_back(now);
        }
        self.publish(&mut status, now);
        drop(status);
        self.events.notify_all_waiters();
        true
    }

    /// What it is like now.
    pub fn snapshot(&self, now: Instant) -> BackendSnapshot {
        let (ejected_for, last_error) = {
            let status = self.status();
            let ejected_for = match status.detector_state() {
                DetectorState::Ejected { until } => Some(until.saturating_duration_since(now)),
                _ => None,
            };
            (ejected_for, status.last_error.clone())
        };
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let micros = load(&self.counts.last_connect_micros);
        BackendSnapshot {
            state: self.state(),
            active: self.active(),
            idle: self.counters.iter().map(|worker| worker.idle.load(Ordering::Relaxed)).sum(),
            total: load(&self.counts.total),
            connect_failures: std::array::from_fn(|reason| load(&self.counts.connect_failures[reason])),
            early_closes: load(&self.counts.early_closes),
            ejections: load(&self.counts.ejections),
            ejected_for,
            last_connect: (micros > 0).then(|| Duration::from_micros(micros)),
            last_error,
            bytes: self.counters.iter().map(|worker| worker.bytes.total()).sum(),
        }
    }

    fn lease_as(self: &Arc<Self>, kind: LeaseKind) -> Option<Lease> {
        match self.max_connections() {
            None => drop(self.active.fetch_add(1, Ordering::Relaxed)),
            // Never above the limit, not even for a moment: another worker would take the backend for full. SeqCst: the
            // other half of `QueueSlot::take`.
            Some(max) => {
                let one_more = |active| (active < max.get()).then_some(active + 1);
                self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
            }
        }
        Some(Lease::new(self.clone(), kind))
    }

    pub(super) fn release(&self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
        self.events.notify_one_waiter();
    }

    pub(super) fn count_connected(&self, took: Duration) {
        self.counts.total.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.counts.last_connect_micros.store(micros, Ordering::Relaxed);
    }

    pub(super) fn count_connect_failure(&self, failure: ConnectFailure) {
        self.counts.connect_failures[failure as usize].fetch_add(1, Ordering::Relaxed);
        self.status().last_error = Some((failure.as_str().to_owned(), SystemTime::now()));
    }

    /// Counts an early close; whether that is a failure is the configuration's to say.
    pub(super) fn count_early_close(&self) -> bool {
        self.counts.early_closes.fetch_add(1, Ordering::Relaxed);
        self.status().last_error = Some(("closed early".to_owned(), SystemTime::now()));
        self.settings.load().failure_detection.as_ref().is_some_and(|detection| detection.count_early_close)
    }

    /// Whether an answer of 502, 503 or 504 is a failure.
    pub(super) fn counts_5xx(&self) -> bool {
        self.settings.load().failure_detection.as_ref().is_some_and(|detection| detection.count_5xx)
    }

    pub(super) fn failed(&self, now: Instant, is_probe: bool, reason: &str) {
        // A failure makes retries avoid it for a while, where failures are counted.
        if let Some(detection) = &self.settings.load().failure_detection {
            self.suspect_until.store(self.events.millis(now + detection.window), Ordering::Relaxed);
        }
        let mut status = self.status();
        let transition = status.detector.as_mut().and_then(|detector| detector.failed(now, is_probe, fastrand::f64()));
        if let Some(transition) = transition {
            self.publish(&mut status, now);
            self.counts.ejections.fetch_add(1, Ordering::Relaxed);
            self.log_transition(StateChange::Passive(transition), reason);
        }
    }

    pub(super) fn recovered(&self, now: Instant, reason: &str) {
        let mut status = self.status();
        if let Some(transition) = status.detector.as_mut().and_then(|detector| detector.succeeded(now)) {
            status.came_back(now);
            self.publish(&mut status, now);
            self.log_transition(StateChange::Passive(transition), reason);
            self.events.notify_all_waiters();
        }
    }

    pub(super) fn probe_abandoned(&self, now: Instant) {
        let mut status = self.status();
        if let Some(detector) = &mut status.detector {
            detector.probe_abandoned(now);
            self.publish(&mut status, now);
        }
    }

    /// A thread that panicked while it held the lock left a whole value: every change of it is one assignment.
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the status known to those who pick.
    fn publish(&self, status: &mut Status, now: Instant) {
        self.state.store(status.state() as u8, Ordering::Release);
        self.share.store(status.share(now), Ordering::Relaxed);
        self.events.changed(status.next_event(now));
    }

    /// Logs a transition, once.
    fn log_transition(&self, change: StateChange, reason: &str) {
        let settings = self.settings.load();
        let (pool, backend) = (&settings.name, &self.label);
        match change {
            StateChange::Passive(Transition::Ejected(duration)) => {
                let seconds = (duration.as_secs_f64() * 10.0).round() / 10.0;
                tracing::warn!(pool, backend, reason, seconds, "backend ejected");
            }
            StateChange::Passive(Transition::Recovered) => {
                tracing::info!(pool, backend, reason, "backend is in use again");
            }
            StateChange::Check(true) => tracing::info!(pool, backend, "health checks say up"),
            StateChange::Check(false) => tracing::warn!(pool, backend, reason, "health checks say down"),
        }
    }
}
