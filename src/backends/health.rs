//! How one backend fares, for all threads: the status behind a lock, what picks read of it without one, and the log of
//! its changes.
//!
//! Knows neither addresses nor connections. What counts as a failure is decided by the caller and the status.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config;

use super::detection::{DetectorState, Transition};
use super::events::PoolEvents;
use super::status::{AdminState, BackendState, FULL_SHARE, StateChange, Status};

/// One backend's status, shared.
#[derive(Debug)]
pub(super) struct Health {
    /// The backend's name in the log.
    label: Arc<str>,
    events: Arc<PoolEvents>,
    status: Mutex<Status>,
    /// A [`BackendState`], so that the hot path needs no lock.
    state: AtomicU8,
    /// Of [`FULL_SHARE`].
    share: AtomicU32,
    /// Milliseconds on the pool's clock until which it is suspect.
    suspect_until: AtomicU64,
}

/// What is shown of it.
pub(super) struct HealthSnapshot {
    pub(super) state: BackendState,
    pub(super) ejections: u64,
    /// Time until a probe is allowed, where it is ejected.
    pub(super) ejected_for: Option<Duration>,
    pub(super) last_error: Option<(String, SystemTime)>,
}

impl Health {
    pub(super) fn new(label: Arc<str>, events: Arc<PoolEvents>, settings: &config::PoolConfig, now: Instant) -> Self {
        Self {
            label,
            events,
            status: Mutex::new(Status::new(settings, now)),
            state: AtomicU8::new(BackendState::Up as u8),
            share: AtomicU32::new(FULL_SHARE),
            suspect_until: AtomicU64::new(0),
        }
    }

    /// Continues under the pool's new settings.
    pub(super) fn reconfigure(&self, settings: &config::PoolConfig, now: Instant) {
        let mut status = self.status();
        status.reconfigure(settings, now);
        self.publish(&mut status, now);
    }

    pub(super) fn state(&self) -> BackendState {
        BackendState::from_byte(self.state.load(Ordering::Acquire))
    }

    /// Its share of its weight, in parts of [`FULL_SHARE`].
    pub(super) fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    /// Whether it failed within the detection's window.
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.events.millis(now) < self.suspect_until.load(Ordering::Relaxed)
    }

    pub(super) fn snapshot(&self, now: Instant) -> HealthSnapshot {
        let status = self.status();
        let ejected_for = match status.detector_state() {
            DetectorState::Ejected { until } => Some(until.saturating_duration_since(now)),
            DetectorState::Up | DetectorState::Probing { .. } => None,
        };
        HealthSnapshot {
            state: status.state(),
            ejections: status.ejections,
            ejected_for,
            last_error: status.last_error.clone(),
        }
    }

    /// Lets one connection probe, where that is due.
    pub(super) fn begin_probe(&self, now: Instant, settle: Duration) -> bool {
        let mut status = self.status();
        let may = status.state() == BackendState::Ejected
            && status.detector.as_mut().is_some_and(|detector| detector.begin_probe(now, settle));
        if may {
            self.publish(&mut status, now);
        }
        may
    }

    /// Does what the clock asks for: ends a probe that has held for long enough, takes the next step of a slow start.
    pub(super) fn tick(&self, now: Instant) {
        let is_settled = {
            let mut status = self.status();
            if status.share(now) != self.share() {
                self.publish(&mut status, now);
            }
            matches!(status.detector_state(), DetectorState::Probing { settled_at } if settled_at <= now)
        };
        if is_settled {
            self.recovered(now, "a probe connection holds");
        }
    }

    pub(super) fn next_event(&self, now: Instant) -> Option<Instant> {
        self.status().next_event(now)
    }

    /// Takes the result of a health check; `reason` says what went wrong.
    pub(super) fn record_check(&self, is_well: bool, reason: &str, now: Instant) {
        {
            let mut status = self.status();
            let was_down = status.state() == BackendState::Down;
            if !is_well {
                status.note_error(format!("health check: {reason}"));
            }
            if !status.record_check(is_well) {
                return;
            }
            if was_down {
                status.came_back(now);
            }
            self.publish(&mut status, now);
        }
        self.log_transition(StateChange::Check(is_well), reason);
        if is_well {
            self.events.notify_all_waiters();
        }
    }

    /// Does what an operator wants; true where that is news.
    pub(super) fn set_admin_state(&self, admin_state: AdminState, now: Instant) -> bool {
        {
            let mut status = self.status();
            if status.admin_state == admin_state {
                return false;
            }
            status.admin_state = admin_state;
            if admin_state == AdminState::Enable {
                status.came_back(now);
            }
            self.publish(&mut status, now);
        }
        self.events.notify_all_waiters();
        true
    }

    /// Keeps what went wrong for those who look, whether or not it counts as a failure.
    pub(super) fn note_error(&self, error: &str) {
        self.status().note_error(error.to_owned());
    }

    /// Whether closing early is a failure, by the pool's settings.
    pub(super) fn counts_early_close(&self) -> bool {
        self.status().detection().is_some_and(|detection| detection.count_early_close)
    }

    /// Whether an answer of 502, 503 or 504 is a failure, by the pool's settings.
    pub(super) fn counts_5xx(&self) -> bool {
        self.status().detection().is_some_and(|detection| detection.count_5xx)
    }

    pub(super) fn failed(&self, now: Instant, is_probe: bool, reason: &str) {
        let transition = {
            let mut status = self.status();
            // A failure makes retries avoid it for a while, where failures are counted.
            if let Some(detection) = status.detection() {
                self.suspect_until.store(self.events.millis(now + detection.window), Ordering::Relaxed);
            }
            let transition = status.failed(now, is_probe, fastrand::f64());
            if transition.is_some() {
                self.publish(&mut status, now);
            }
            transition
        };
        if let Some(transition) = transition {
            self.log_transition(StateChange::Passive(transition), reason);
        }
    }

    pub(super) fn recovered(&self, now: Instant, reason: &str) {
        let transition = {
            let mut status = self.status();
            let transition = status.detector.as_mut().and_then(|detector| detector.succeeded(now));
            if transition.is_some() {
                status.came_back(now);
                self.publish(&mut status, now);
            }
            transition
        };
        if let Some(transition) = transition {
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

    /// Makes the status known to picks, which hold no lock. With the lock held: two changes are published in their
    /// order.
    fn publish(&self, status: &mut Status, now: Instant) {
        self.state.store(status.state() as u8, Ordering::Release);
        self.share.store(status.share(now), Ordering::Relaxed);
        self.events.changed(status.next_event(now));
    }

    /// Logs a transition, once. Without the lock: a log that is slow to write must not stop those who pick.
    fn log_transition(&self, change: StateChange, reason: &str) {
        let (pool, backend) = (self.events.pool(), &*self.label);
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
