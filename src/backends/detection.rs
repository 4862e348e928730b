//! Passive failure detection: from what happens to a backend's connections to whether it gets new ones.
//!
//! Pure: the clock and the random numbers are arguments. The state machine is a circuit breaker (Nygard, "Release
//! It!"): up -> ejected for a while -> one probe decides -> up again, or ejected for twice as long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::FailureDetection;

/// Ejections vary by this share either way, so that balancers don't all probe at one instant.
const JITTER: f64 = 0.1;
/// Doublings after which every duration has reached its maximum (2^20 s are 12 days).
const MAX_DOUBLINGS: u32 = 20;

/// Whether a backend gets new connections, as far as its past connections tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorState {
    /// It does.
    Up,
    /// It doesn't, until then.
    Ejected {
        /// When one connection may probe it.
        until: Instant,
    },
    /// One connection is finding out.
    Probing {
        /// When a probe that still lives has shown that the backend is well.
        settled_at: Instant,
    },
}

/// A change of state, to be logged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Set aside for so long.
    Ejected(Duration),
    /// In use again.
    Recovered,
}

/// One backend's record of failures.
#[derive(Debug)]
pub struct Detector {
    settings: FailureDetection,
    /// Failures within the window, oldest first; never more than `settings.failures`.
    failures: VecDeque<Instant>,
    detector_state: DetectorState,
    /// Ejections in a row without a time of health between them.
    repeats: u32,
    last_ejection: Duration,
    up_since: Instant,
}

impl Detector {
    /// Starts up.
    pub fn new(settings: FailureDetection, now: Instant) -> Self {
        Self {
            failures: VecDeque::new(),
            detector_state: DetectorState::Up,
            repeats: 0,
            last_ejection: Duration::ZERO,
            up_since: now,
            settings,
        }
    }

    /// Continues under other settings; what was seen stays.
    pub fn with_settings(self, settings: FailureDetection) -> Self {
        Self { settings, ..self }
    }

    pub(super) fn settings(&self) -> &FailureDetection {
        &self.settings
    }

    /// The state now.
    pub fn detector_state(&self) -> DetectorState {
        self.detector_state
    }

    /// Failures within the window that ends now.
    #[cfg(test)]
    pub fn recent_failures(&mut self, now: Instant) -> usize {
        self.forget_before_window(now);
        self.failures.len()
    }

    /// A connection failed; `is_probe` tells that it was the one that probes. `random` is uniform in 0..1.
    /// Failures of connections that began before an ejection change nothing.
    pub fn failed(&mut self, now: Instant, is_probe: bool, random: f64) -> Option<Transition> {
        match self.detector_state {
            DetectorState::Probing { .. } if is_probe => Some(self.eject(now, random)),
            DetectorState::Probing { .. } | DetectorState::Ejected { .. } => None,
            DetectorState::Up => {
                self.forget_before_window(now);
                self.failures.push_back(now);
                (self.failures.len() >= self.settings.failures.get()).then(|| self.eject(now, random))
            }
        }
    }

    /// A connection that began after the ejection (a probe, or one sent while all were ejected) went well.
    pub fn succeeded(&mut self, now: Instant) -> Option<Transition> {
        if self.detector_state == DetectorState::Up {
            return None;
        }
        self.detector_state = DetectorState::Up;
        self.up_since = now;
        Some(Transition::Recovered)
    }

    /// Lets one connection probe, if the ejection is over. It must end in [`Detector::failed`],
    /// [`Detector::succeeded`] or [`Detector::probe_abandoned`]; if it lives for `lease`, it counts as well.
    pub fn begin_probe(&mut self, now: Instant, lease: Duration) -> bool {
        let due = matches!(self.detector_state, DetectorState::Ejected { until } if until <= now);
        if due {
            self.detector_state = DetectorState::Probing { settled_at: now + lease };
        }
        due
    }

    /// The probe ended without telling anything (its client left): the next connection may probe.
    pub fn probe_abandoned(&mut self, now: Instant) {
        if matches!(self.detector_state, DetectorState::Probing { .. }) {
            self.detector_state = DetectorState::Ejected { until: now };
        }
    }

    /// When something is to be done that no connection reports: a probe is due, or has lived long enough.
    pub fn next_event(&self) -> Option<Instant> {
        match self.detector_state {
            DetectorState::Up => None,
            DetectorState::Ejected { until } => Some(until),
            DetectorState::Probing { settled_at } => Some(settled_at),
        }
    }

    fn eject(&mut self, now: Instant, random: f64) -> Transition {
        let healthy_for = now.duration_since(self.up_since);
        let was_up = self.detector_state == DetectorState::Up;
        // Health for longer than the last ejection (and one window) ends the row of repeats.
        if was_up && healthy_for > self.last_ejection.max(self.settings.window) {
            self.repeats = 0;
        }
        let doubled = self.settings.ejection.saturating_mul(1 << self.repeats.min(MAX_DOUBLINGS));
        let jitter = 1.0 + JITTER * (2.0 * random - 1.0);
        let duration = doubled.min(self.settings.max_ejection).mul_f64(jitter);
        self.repeats = self.repeats.saturating_add(1);
        self.last_ejection = duration;
        self.failures.clear();
        self.detector_state = DetectorState::Ejected { until: now + duration };
        Transition::Ejected(duration)
    }

    fn forget_before_window(&mut self, now: Instant) {
        while self.failures.front().is_some_and(|at| now.duration_since(*at) > self.settings.window) {
            self.failures.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    const MIDDLE: f64 = 0.5;
    const LEASE: Duration = Duration::from_secs(2);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn detector(now: Instant) -> Detector {
        let settings = FailureDetection {
            failures: NonZeroUsize::new(3).expect("not zero"),
            window: seconds(10),
            ejection: seconds(10),
            max_ejection: seconds(60),
            count_early_close: true,
            count_5xx: false,
        };
        Detector::new(settings, now)
    }

    fn fail_three_times(detector: &mut Detector, now: Instant) -> Option<Transition> {
        detector.failed(now, false, MIDDLE);
        detector.failed(now, false, MIDDLE);
        detector.failed(now, false, MIDDLE)
    }

    #[test]
    fn ejects_at_the_third_failure_within_the_window() {
        let start = Instant::now();
        let mut detector = detector(start);
        assert_eq!(detector.failed(start, false, MIDDLE), None);
        assert_eq!(detector.failed(start + seconds(1), false, MIDDLE), None);
        assert_eq!(detector.failed(start + seconds(2), false, MIDDLE), Some(Transition::Ejected(seconds(10))));
        assert_eq!(detector.detector_state(), DetectorState::Ejected { until: start + seconds(12) });
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let start = Instant::now();
        let mut detector = detector(start);
        for second in [0, 6, 12, 18, 24] {
            assert_eq!(detector.failed(start + seconds(second), false, MIDDLE), None, "at {second} s");
        }
        assert_eq!(detector.recent_failures(start + seconds(60)), 0);
    }

    #[test]
    fn only_one_probe_at_a_time_and_only_when_due() {
        let start = Instant::now();
        let mut detector = detector(start);
        fail_three_times(&mut detector, start);
        assert!(!detector.begin_probe(start + seconds(9), LEASE));
        assert!(detector.begin_probe(start + seconds(10), LEASE));
        assert!(!detector.begin_probe(start + seconds(10), LEASE));
        assert_eq!(detector.succeeded(start + seconds(11)), Some(Transition::Recovered));
        assert_eq!(detector.detector_state(), DetectorState::Up);
    }

    #[test]
    fn a_failed_probe_doubles_the_ejection_up_to_the_maximum() {
        let mut now = Instant::now();
        let mut detector = detector(now);
        fail_three_times(&mut detector, now);
        for expected in [20, 40, 60, 60] {
            now += seconds(100);
            assert!(detector.begin_probe(now, LEASE));
            assert_eq!(detector.failed(now, true, MIDDLE), Some(Transition::Ejected(seconds(expected))));
        }
    }

    #[test]
    fn a_time_of_health_ends_the_doubling() {
        let mut now = Instant::now();
        let mut detector = detector(now);
        fail_three_times(&mut detector, now);
        now += seconds(10);
        assert!(detector.begin_probe(now, LEASE));
        detector.succeeded(now);
        now += seconds(5);
        assert_eq!(fail_three_times(&mut detector, now), Some(Transition::Ejected(seconds(20))), "soon again: doubled");
        now += seconds(20);
        assert!(detector.begin_probe(now, LEASE));
        detector.succeeded(now);
        now += seconds(21);
        assert_eq!(
            fail_three_times(&mut detector, now),
            Some(Transition::Ejected(seconds(10))),
            "long well: as the first"
        );
    }

    #[test]
    fn old_connections_failing_after_the_ejection_change_nothing() {
        let start = Instant::now();
        let mut detector = detector(start);
        fail_three_times(&mut detector, start);
        assert_eq!(detector.failed(start + seconds(1), false, MIDDLE), None);
        assert!(detector.begin_probe(start + seconds(10), LEASE));
        assert_eq!(detector.failed(start + seconds(10), false, MIDDLE), None, "not the probe");
        assert!(matches!(detector.detector_state(), DetectorState::Probing { .. }));
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_one_try_at_once() {
        let start = Instant::now();
        let mut detector = detector(start);
        fail_three_times(&mut detector, start);
        let later = start + seconds(10);
        assert!(detector.begin_probe(later, LEASE));
        detector.probe_abandoned(later);
        assert!(detector.begin_probe(later, LEASE));
    }

    #[test]
    fn jitter_is_a_tenth_either_way() {
        for (random, millis) in [(0.0, 9_000), (1.0, 11_000)] {
            let start = Instant::now();
            let mut detector = detector(start);
            detector.failed(start, false, random);
            detector.failed(start, false, random);
            let ejected = Some(Transition::Ejected(Duration::from_millis(millis)));
            assert_eq!(detector.failed(start, false, random), ejected);
        }
    }
}
