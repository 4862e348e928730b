//! How one backend fares, for all threads: the status behind a lock, what picks read of it without one, and the log of
//! its changes.
//!
//! Knows neither addresses nor connections. What counts as a failure is decided by the caller and the status.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config;
use crate::net::ConnectFailure;

use super::admin_state::AdminState;
use super::carried::CarriedBackend;
use super::detection::{Began, Detector, Transition};
use super::evidence::{ClientsSeen, Evidence, OutcomeCounts, Outcomes, TrackRecord, hash_of, tick_of, window_millis};
use super::pool_events::PoolEvents;
use super::rise_fall::CheckFinding;
use super::status::{BackendState, FULL_SHARE, Status, StatusSnapshot};

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
    /// The number of the time for which it has been up, or was up last: a copy of the detector's.
    up_period: AtomicU64,
    /// How its connections ended.
    outcomes: OutcomeCounts,
    /// The window's length; 0: failure detection is off.
    window_millis: AtomicU64,
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
            up_period: AtomicU64::new(0),
            outcomes: OutcomeCounts::default(),
            window_millis: AtomicU64::new(window_millis(settings)),
        }
    }

    /// Continues under the pool's new settings.
    pub(super) fn reconfigure(&self, settings: &config::PoolConfig, now: Instant) {
        if self.window_millis.swap(window_millis(settings), Ordering::Relaxed) != window_millis(settings) {
            // Ticks of another length.
            self.outcomes.clear();
        }
        let mut status = self.status();
        status.reconfigure(settings, now);
        self.publish(&mut status, now);
    }

    /// For the process that an upgrade starts.
    pub(super) fn carried(&self, now: Instant) -> CarriedBackend {
        CarriedBackend { outcomes: self.outcomes.longer(), ..self.status().carried(now) }
    }

    /// Continues where the old process was.
    pub(super) fn carry_on(&self, carried: CarriedBackend, now: Instant) {
        self.outcomes.set_longer(carried.outcomes);
        let mut status = self.status();
        status.carry_on(carried, now);
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

    /// What is shown of it.
    pub(super) fn snapshot(&self, now: Instant) -> StatusSnapshot {
        self.status().snapshot(now)
    }

    /// Whether a probe is due or under way.
    pub(super) fn awaits_probe(&self, now: Instant) -> bool {
        self.status().awaits_probe(now)
    }

    /// What a connection that begins now, and is not a probe, is to be judged by later. Without a lock while it is up.
    pub(super) fn begin(&self) -> Began {
        if self.state() == BackendState::Up {
            return Began::Up(self.up_period());
        }
        self.status().detector.as_ref().map_or(Began::Up(0), Detector::begin)
    }

    /// The number of the time for which it has been up, or was up last.
    pub(super) fn up_period(&self) -> u64 {
        self.up_period.load(Ordering::Relaxed)
    }

    /// Lets one connection probe, where that is due.
    pub(super) fn begin_probe(&self, now: Instant) -> Option<Began> {
        let mut status = self.status();
        if status.state() != BackendState::Ejected {
            return None;
        }
        let began = status.detector.as_mut()?.begin_probe(now)?;
        self.publish(&mut status, now);
        Some(began)
    }

    /// Does what the clock asks for: ends a probe that has held for long enough, takes the next step of a slow start.
    pub(super) fn tick(&self, now: Instant) {
        if self.change(now, |detector| detector.settle(now)).is_some() {
            self.log_recovery("a probe connection holds");
        }
        let mut status = self.status();
        if status.share(now) != self.share() {
            self.publish(&mut status, now);
        }
    }

    pub(super) fn next_event(&self, now: Instant) -> Option<Instant> {
        self.status().next_event(now)
    }

    /// Takes the result of a health check; true where the backend's connections are to be cut for it.
    pub(super) fn record_check(&self, result: CheckFinding<'_>, now: Instant) -> bool {
        let (has_changed, state, closes) = {
            let mut status = self.status();
            let before = status.state();
            let has_changed = status.record_check(result);
            if has_changed && before.is_by_checks() {
                status.came_back(now);
            }
            let state = status.state();
            if has_changed || state != before {
                self.publish(&mut status, now);
            }
            (has_changed, state, status.closes_when_down())
        };
        if !has_changed {
            return false;
        }
        let (pool, backend) = (self.events.pool(), &*self.label);
        match result {
            CheckFinding::Well if state == BackendState::Waiting => {
                tracing::warn!(
                    event = "waiting",
                    pool,
                    backend,
                    "health checks say up; it waits for `lb backend enable`"
                );
            }
            CheckFinding::Well => tracing::info!(event = "check_up", pool, backend, "health checks say up"),
            CheckFinding::Standby(reason) => {
                tracing::info!(event = "standby", pool, backend, reason, "health checks say standby");
            }
            CheckFinding::Failed(reason) => {
                tracing::warn!(event = "check_down", pool, backend, reason, "health checks say down");
            }
        }
        closes && result != CheckFinding::Well
    }

    /// Does what an operator wants; true where that is news.
    pub(super) fn set_admin_state(&self, admin_state: AdminState, now: Instant) -> bool {
        {
            let mut status = self.status();
            if !status.set_admin_state(admin_state) {
                return false;
            }
            if admin_state == AdminState::Enable {
                status.came_back(now);
            }
            self.publish(&mut status, now);
        }
        true
    }

    /// Keeps what went wrong for those who look, whether or not it counts as a failure.
    pub(super) fn note_error(&self, error: &str) {
        self.status().note_error(error.to_owned());
    }

    /// How its connections ended lately.
    pub(super) fn track_record(&self, now: Instant) -> TrackRecord {
        self.tick_of(now).map_or(TrackRecord::default(), |tick| self.outcomes.track_record(tick))
    }

    /// Whether active health checks say that it is well.
    pub(super) fn is_known_well(&self) -> bool {
        self.status().is_known_well()
    }

    /// Clients whose connections to it ended badly within the window.
    pub(super) fn bad_clients(&self, now: Instant) -> u32 {
        self.tick_of(now).map_or(0, |tick| self.status().bad_clients.count(tick))
    }

    /// Whether it is out for evidence.
    pub(super) fn is_out_by_evidence(&self) -> bool {
        self.status().detector.as_ref().is_some_and(Detector::is_out_by_evidence)
    }

    /// A connection that began as `began` went well.
    pub(super) fn record_success(&self, now: Instant, began: Began) {
        // The ordinary case takes no lock.
        if !matches!(began, Began::Up(_)) && self.change(now, |detector| detector.succeeded(now, began)).is_some() {
            self.log_recovery("a connection went well");
        }
        if let Some(tick) = self.tick_of(now) {
            self.outcomes.record(tick, true);
        }
    }

    /// A connection ended badly, which is evidence, and what went wrong. Gives the outcomes of the window, with this
    /// one.
    pub(super) fn record_bad_end(&self, now: Instant, client: Option<IpAddr>, evidence: Evidence) -> Outcomes {
        let Some(tick) = self.tick_of(now) else { return Outcomes::default() };
        self.outcomes.record(tick, false);
        {
            let mut status = self.status();
            status.bad_clients.note(tick, hash_of(client));
            status.note_error(evidence.describe().to_owned());
        }
        self.suspect(now);
        self.outcomes.window(tick)
    }

    /// A connect failed, which is a fact.
    pub(super) fn connect_failed(&self, now: Instant, began: Began, failure: ConnectFailure) {
        self.suspect(now);
        let transition = self.change(now, |detector| detector.connect_failed(now, began, fastrand::f64()));
        if let Some(Transition::Ejected(duration)) = transition {
            let why = match began {
                Began::Probe(_) => format!("the probe failed: {}", failure.as_str()),
                Began::Up(_) | Began::Ejected(_) => {
                    let window = self.window();
                    format!("{} failed connects in {window:?}, the last: {}", self.least_failures(), failure.as_str())
                }
            };
            self.ejected(duration, failure.as_str(), why);
        }
    }

    /// Sets it aside because it stands out among its peers; gives the time, unless it is out already.
    pub(super) fn eject_for_evidence(&self, now: Instant) -> Option<Duration> {
        match self.change(now, |detector| detector.eject_for_evidence(now, fastrand::f64())) {
            Some(Transition::Ejected(duration)) => Some(duration),
            _ => None,
        }
    }

    /// Says why it was set aside.
    pub(super) fn report_ejection(&self, duration: Duration, own: Outcomes, peers: Outcomes, evidence: Evidence) {
        let why = format!(
            "{} of {} ended badly in {:?}, of its peers' {} of {}: {}",
            own.bad,
            own.total(),
            self.window(),
            peers.bad,
            peers.total(),
            evidence.describe()
        );
        self.ejected(duration, evidence.as_str(), why);
    }

    /// The probe's connection ended badly, beside these outcomes of its peers.
    pub(super) fn probe_ended_badly(&self, now: Instant, began: Began, peers: TrackRecord, evidence: Evidence) {
        let ended = |detector: &mut Detector| detector.probe_ended_badly(now, began, peers, fastrand::f64());
        if let Some(Transition::Ejected(duration)) = self.change(now, ended) {
            self.ejected(duration, evidence.as_str(), format!("the probe failed: {}", evidence.describe()));
        }
    }

    pub(super) fn probe_abandoned(&self, now: Instant, began: Began) {
        self.change(now, |detector| {
            detector.probe_abandoned(now, began);
            None
        });
    }

    pub(super) fn probe_awaits_answer(&self, began: Began, is_sure: bool) {
        if let Some(detector) = &mut self.status().detector {
            detector.probe_awaits_answer(began, is_sure);
        }
    }

    /// The probe shows that it is well if it lasts until `settled_at`.
    pub(super) fn probe_lasts(&self, now: Instant, began: Began, settled_at: Instant) {
        self.change(now, |detector| {
            detector.probe_lasts(began, settled_at);
            None
        });
    }

    /// Changes the detector's state, and publishes it.
    fn change(&self, now: Instant, change: impl FnOnce(&mut Detector) -> Option<Transition>) -> Option<Transition> {
        let mut status = self.status();
        let detector = status.detector.as_mut()?;
        let before = detector.state();
        let transition = change(detector);
        if detector.state() != before {
            if transition == Some(Transition::Recovered) {
                status.came_back(now);
                // What was seen until now, its bad probes too, says nothing about it once it is back.
                status.bad_clients = ClientsSeen::default();
                self.outcomes.clear();
            }
            self.publish(&mut status, now);
        }
        transition
    }

    /// Makes retries avoid it for a while: they have few attempts.
    fn suspect(&self, now: Instant) {
        self.suspect_until.store(self.events.millis(now + self.window()), Ordering::Relaxed);
    }

    fn window(&self) -> Duration {
        Duration::from_millis(self.window_millis.load(Ordering::Relaxed))
    }

    fn least_failures(&self) -> usize {
        self.status().detection().map_or(0, |detection| detection.failures.get())
    }

    /// `None`: failure detection is off.
    fn tick_of(&self, now: Instant) -> Option<u64> {
        match self.window_millis.load(Ordering::Relaxed) {
            0 => None,
            window => Some(tick_of(self.events.millis(now), window)),
        }
    }

    /// A thread that panicked while it held the lock left a whole value: every change of it is one assignment.
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the status known to picks, which hold no lock. With the lock held: two changes are published in their
    /// order.
    fn publish(&self, status: &mut Status, now: Instant) {
        self.up_period.store(status.detector.as_ref().map_or(0, Detector::up_period), Ordering::Relaxed);
        let state = status.state();
        let before = self.state.swap(state as u8, Ordering::AcqRel);
        if before != state as u8 {
            status.since = Some(SystemTime::now());
        }
        self.share.store(status.share(now), Ordering::Relaxed);
        self.events.changed(status.next_event(now));
        // One that is back has room, and when the last one has gone, those are tried that are out. A probe is neither.
        if before != state as u8 && state != BackendState::Probing {
            self.events.queue().call_all();
        }
    }

    /// Logs an ejection, once, and keeps its reason. Without the lock: a log that is slow to write must not stop picks.
    fn ejected(&self, duration: Duration, label: &'static str, why: String) {
        let (pool, backend, seconds) =
            (self.events.pool(), &*self.label, (duration.as_secs_f64() * 10.0).round() / 10.0);
        tracing::warn!(event = "ejected", pool, backend, reason = why, seconds, "backend ejected");
        self.status().note_ejection(label, why);
    }

    fn log_recovery(&self, reason: &str) {
        let (pool, backend) = (self.events.pool(), &*self.label);
        tracing::info!(event = "recovered", pool, backend, reason, "backend is in use again");
    }
}
