//! One backend's status: passive detection, active checks and the slow start, put together. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{self, FailureDetection, OnDown, OnReturn};
use crate::net::ConnectFailure;

use super::admin_state::AdminState;
use super::carried::{CarriedBackend, CarriedChecks};
use super::detection::{Detector, DetectorState};
use super::evidence::ClientsSeen;
use super::rise_fall::{CheckFinding, CheckVerdict, RiseFall};

/// Steps in which a slow start raises a backend's share: finer ones would only rebuild tables more often.
pub const FULL_SHARE: u32 = 8;

labels! {
    /// Whether a backend gets new connections.
    BackendState {
        /// It does.
        Up = "up",
        /// Set aside by passive failure detection.
        Ejected = "ejected",
        /// One connection is finding out.
        Probing = "probing",
        /// Its health checks fail.
        Down = "down",
        /// Its health checks find it well, in another role than the pool needs.
        Standby = "standby",
        /// It is well again after a health check had taken it out, and an operator is to enable it.
        Waiting = "waiting",
        /// An operator has it take no new connections; open ones stay open, and it is watched.
        Draining = "draining",
        /// An operator has taken it out: no new connections, whatever its checks say.
        Disabled = "disabled",
    }
}

impl BackendState {
    /// Whether health checks keep new connections from it.
    pub fn is_by_checks(self) -> bool {
        matches!(self, Self::Down | Self::Standby)
    }

    /// Whether only an operator can bring it back: then it gets no connections, not even when all others fail.
    pub fn is_by_operator(self) -> bool {
        matches!(self, Self::Waiting | Self::Draining | Self::Disabled)
    }

    pub(super) fn from_byte(byte: u8) -> Self {
        Self::ALL[usize::from(byte)]
    }
}

/// All that decides about one backend.
#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) detector: Option<Detector>,
    admin_state: AdminState,
    /// What went wrong last, and when.
    pub(super) last_error: Option<(String, SystemTime)>,
    /// So far, by reason.
    pub(super) ejections: BTreeMap<&'static str, u64>,
    /// Whose connections ended badly.
    pub(super) bad_clients: ClientsSeen,
    /// Why it was ejected last.
    ejection_reason: String,
    /// What the last failed health check found.
    failed_check: String,
    /// That was another role, and no failure.
    is_standby: bool,
    rise_fall: Option<RiseFall>,
    on_down: OnDown,
    on_return: OnReturn,
    /// Health checks have taken it out, and an operator is to bring it back.
    is_waiting: bool,
    slow_start: Duration,
    /// When it came back; `None`: it was never away, or the slow start is over.
    back_since: Option<Instant>,
    /// When its state changed last.
    pub(super) since: Option<SystemTime>,
}

/// What is shown of it.
pub(super) struct StatusSnapshot {
    pub(super) state: BackendState,
    /// Since when.
    pub(super) since: Option<SystemTime>,
    /// Why it isn't up; `None`: it is, or an operator wants it so.
    pub(super) reason: Option<String>,
    /// What changes the state next; `None`: nothing is under way.
    pub(super) next: Option<String>,
    /// So far, by reason.
    pub(super) ejections: BTreeMap<&'static str, u64>,
    /// Time until a probe is allowed, where it is ejected.
    pub(super) ejected_for: Option<Duration>,
    pub(super) last_error: Option<(String, SystemTime)>,
}

impl Status {
    pub(super) fn new(pool: &config::PoolConfig, now: Instant) -> Self {
        Self {
            detector: pool.failure_detection.clone().map(|settings| Detector::new(settings, now)),
            admin_state: AdminState::default(),
            last_error: None,
            ejections: BTreeMap::from([(ConnectFailure::Refused.as_str(), 0)]),
            bad_clients: ClientsSeen::default(),
            ejection_reason: String::new(),
            failed_check: String::new(),
            is_standby: false,
            rise_fall: pool.health_check.as_ref().map(RiseFall::new),
            on_down: pool.on_down,
            on_return: pool.on_return,
            is_waiting: false,
            slow_start: pool.slow_start,
            back_since: None,
            since: Some(SystemTime::now()),
        }
    }

    /// Continues under other settings: what was learnt stays.
    pub(super) fn reconfigure(&mut self, pool: &config::PoolConfig, now: Instant) {
        self.detector = match (self.detector.take(), pool.failure_detection.clone()) {
            (Some(detector), Some(settings)) => Some(detector.with_settings(settings)),
            (None, Some(settings)) => Some(Detector::new(settings, now)),
            (_, None) => None,
        };
        self.rise_fall = match (self.rise_fall.take(), &pool.health_check) {
            (Some(rise_fall), Some(settings)) => Some(rise_fall.with_settings(settings)),
            (None, Some(settings)) => Some(RiseFall::new(settings)),
            (_, None) => None,
        };
        (self.on_down, self.on_return) = (pool.on_down, pool.on_return);
        self.is_waiting &= pool.on_return == OnReturn::Wait;
        self.slow_start = pool.slow_start;
    }

    /// For the process that an upgrade starts; the record of outcomes is its owner's to add.
    pub(super) fn carried(&self, now: Instant) -> CarriedBackend {
        CarriedBackend {
            admin_state: self.admin_state,
            is_waiting: self.is_waiting,
            checks: self.rise_fall.as_ref().map(|rise_fall| CarriedChecks {
                verdict: rise_fall.verdict(),
                against: rise_fall.against(),
                failed_check: self.failed_check.clone(),
                is_standby: self.is_standby,
            }),
            detector: self.detector.as_ref().map(|detector| detector.carried(now)),
            ejection_reason: self.ejection_reason.clone(),
            back_for: self.back_since.map(|since| now.saturating_duration_since(since)),
            ..CarriedBackend::default()
        }
    }

    /// Takes on what the old process has told, as far as the pool's settings have a use for it.
    pub(super) fn carry_on(&mut self, carried: CarriedBackend, now: Instant) {
        self.admin_state = carried.admin_state;
        self.is_waiting = carried.is_waiting && self.on_return == OnReturn::Wait;
        self.ejection_reason = carried.ejection_reason;
        self.back_since = carried.back_for.and_then(|duration| now.checked_sub(duration));
        if let (Some(rise_fall), Some(checks)) = (&mut self.rise_fall, carried.checks) {
            rise_fall.carry_on(checks.verdict, checks.against);
            (self.failed_check, self.is_standby) = (checks.failed_check, checks.is_standby);
        }
        if let (Some(detector), Some(carried)) = (&mut self.detector, carried.detector) {
            detector.carry_on(&carried, now);
        }
    }

    /// The operator's word comes first; then passive detection and active checks must both say up.
    pub(super) fn state(&self) -> BackendState {
        match self.admin_state {
            AdminState::Enable => {}
            AdminState::Drain => return BackendState::Draining,
            AdminState::Disable => return BackendState::Disabled,
        }
        if self.rise_fall.as_ref().is_some_and(|rise_fall| rise_fall.verdict() == CheckVerdict::Down) {
            return if self.is_standby { BackendState::Standby } else { BackendState::Down };
        }
        if self.is_waiting {
            return BackendState::Waiting;
        }
        match self.detector_state() {
            DetectorState::Up => BackendState::Up,
            DetectorState::Ejected { .. } => BackendState::Ejected,
            DetectorState::Probing { .. } => BackendState::Probing,
        }
    }

    pub(super) fn detector_state(&self) -> DetectorState {
        self.detector.as_ref().map_or(DetectorState::Up, Detector::state)
    }

    /// Whether a probe is due or under way.
    pub(super) fn awaits_probe(&self, now: Instant) -> bool {
        match self.detector_state() {
            DetectorState::Up => false,
            DetectorState::Ejected { until } => until <= now,
            DetectorState::Probing { .. } => true,
        }
    }

    /// The settings of failure detection, where there is any.
    pub(super) fn detection(&self) -> Option<&FailureDetection> {
        self.detector.as_ref().map(Detector::settings)
    }

    pub(super) fn note_error(&mut self, error: String) {
        self.last_error = Some((error, SystemTime::now()));
    }

    pub(super) fn note_ejection(&mut self, label: &'static str, why: String) {
        *self.ejections.entry(label).or_default() += 1;
        self.ejection_reason = why;
    }

    /// Why it isn't up; `None`: it is, or an operator wants it so.
    fn reason(&self) -> Option<String> {
        match self.state() {
            BackendState::Up | BackendState::Draining | BackendState::Disabled => None,
            BackendState::Down | BackendState::Standby => Some(self.failed_check.clone()),
            BackendState::Waiting => Some("it is well, and waits for `lb backend enable`".to_owned()),
            BackendState::Ejected | BackendState::Probing => Some(self.ejection_reason.clone()),
        }
    }

    pub(super) fn snapshot(&self, now: Instant) -> StatusSnapshot {
        let ejected_for = match self.detector_state() {
            DetectorState::Ejected { until } => Some(until.saturating_duration_since(now)),
            DetectorState::Up | DetectorState::Probing { .. } => None,
        };
        StatusSnapshot {
            state: self.state(),
            since: self.since,
            reason: self.reason(),
            next: self.next(now),
            ejections: self.ejections.clone(),
            ejected_for,
            last_error: self.last_error.clone(),
        }
    }

    /// What changes its state next; `None`: nothing is under way.
    fn next(&self, now: Instant) -> Option<String> {
        match self.state() {
            BackendState::Up => {
                let share = self.share_at(now);
                (share < FULL_SHARE).then(|| format!("slow start: {share}/{FULL_SHARE} of its weight"))
            }
            BackendState::Ejected => {
                let DetectorState::Ejected { until } = self.detector_state() else { return None };
                let seconds = until.saturating_duration_since(now).as_secs_f64().ceil();
                Some(if seconds > 0.0 {
                    format!("probe in {seconds} s")
                } else {
                    "probe by the next client".to_owned()
                })
            }
            BackendState::Probing => Some("one connection is trying it".to_owned()),
            BackendState::Down | BackendState::Standby => {
                let missing = self.rise_fall.as_ref().map_or(0, RiseFall::missing);
                Some(format!("up after {missing} good check{}", if missing == 1 { "" } else { "s" }))
            }
            BackendState::Waiting | BackendState::Draining | BackendState::Disabled => {
                Some("until `lb backend enable`".to_owned())
            }
        }
    }

    pub(super) fn is_known_well(&self) -> bool {
        self.rise_fall.as_ref().is_some_and(|rise_fall| rise_fall.verdict() == CheckVerdict::Up)
    }

    /// Takes a health check's result; true where it changed the verdict.
    pub(super) fn record_check(&mut self, result: CheckFinding<'_>) -> bool {
        match result {
            CheckFinding::Well => {}
            CheckFinding::Standby(role) => self.failed_check = format!("standby: {role}"),
            CheckFinding::Failed(reason) => {
                self.failed_check = format!("health check: {reason}");
                self.note_error(self.failed_check.clone());
            }
        }
        if result != CheckFinding::Well {
            self.is_standby = matches!(result, CheckFinding::Standby(_));
        }
        let Some(rise_fall) = &mut self.rise_fall else { return false };
        let was_up = rise_fall.verdict() == CheckVerdict::Up;
        let has_changed = rise_fall.record(result == CheckFinding::Well);
        // One that was never in has not returned: it needs nobody's leave to come in.
        self.is_waiting |= has_changed && was_up && self.on_return == OnReturn::Wait;
        has_changed
    }

    /// Whether the connections of a backend that health checks take out are to be cut.
    pub(super) fn closes_when_down(&self) -> bool {
        self.on_down == OnDown::Close
    }

    /// An operator wants it so; true where that is news.
    pub(super) fn set_admin_state(&mut self, admin_state: AdminState) -> bool {
        let ends_waiting = admin_state == AdminState::Enable && std::mem::take(&mut self.is_waiting);
        let is_news = std::mem::replace(&mut self.admin_state, admin_state) != admin_state;
        is_news || ends_waiting
    }

    /// Begins the slow start: the backend is up again after it was not.
    pub(super) fn came_back(&mut self, now: Instant) {
        self.back_since = (!self.slow_start.is_zero()).then_some(now);
    }

    /// Its share of its weight, in parts of [`FULL_SHARE`]: rising while it starts slowly.
    pub(super) fn share(&mut self, now: Instant) -> u32 {
        let share = self.share_at(now);
        if share == FULL_SHARE {
            self.back_since = None;
        }
        share
    }

    fn share_at(&self, now: Instant) -> u32 {
        let elapsed = self.back_since.map(|since| now.saturating_duration_since(since));
        let Some(elapsed) = elapsed.filter(|elapsed| *elapsed < self.slow_start) else { return FULL_SHARE };
        let steps = elapsed.as_nanos() * u128::from(FULL_SHARE) / self.slow_start.as_nanos();
        // Not the whole before its time.
        u32::try_from(steps).unwrap_or(FULL_SHARE).clamp(1, FULL_SHARE - 1)
    }

    /// When something changes that no connection reports: a probe, or the next step of the slow start.
    pub(super) fn next_event(&self, now: Instant) -> Option<Instant> {
        let step = self.slow_start / FULL_SHARE;
        let ramp = self.back_since.map(|since| {
            let passed = now.saturating_duration_since(since).as_nanos() / step.as_nanos().max(1);
            since + step * (u32::try_from(passed).unwrap_or(FULL_SHARE).min(FULL_SHARE) + 1)
        });
        // While it is down or kept out nobody may probe: an ejection that is over would
        // else have to be looked at at each pick.
        let detector =
            self.detector.as_ref().filter(|_| matches!(self.state(), BackendState::Ejected | BackendState::Probing));
        let probe = detector.and_then(Detector::next_event);
        ramp.into_iter().chain(probe).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_rises_in_steps_and_ends_full() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut status = Status { slow_start: 8 * second, ..Status::default() };
        assert_eq!(status.share(now), FULL_SHARE, "never away");
        status.came_back(now);
        let shares: Vec<u32> = (0..10).map(|s| status.share(now + s * second)).collect();
        assert_eq!(shares, [1, 1, 2, 3, 4, 5, 6, 7, 8, 8]);
        assert_eq!(status.next_event(now + 9 * second), None);
    }
}
