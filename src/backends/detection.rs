//! Passive failure detection: from what happens to a backend's connections to whether it gets new ones.
//!
//! A failed connect is a fact, and counts by itself. How a connection ended is evidence: `evidence` compares it with
//! that of the backend's peers, and this module is given the result. The state machine is a circuit breaker (Nygard,
//! "Release It!"): up -> ejected for a while -> probes decide -> up again, or ejected for twice as long. Pure: the
//! clock and the random numbers are arguments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::FailureDetection;

use super::carried::CarriedDetector;
use super::evidence::{TrackRecord, probes_have_failed};

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
        /// When a probe that is still open has shown that the backend is well; `None`: it is not connected yet, or its
        /// client waits for an answer, and waiting shows nothing.
        settled_at: Option<Instant>,
    },
}

/// The state that a backend was in when a connection to it began. What comes of that connection can only change this
/// state, not a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Began {
    /// It was up: the number of that time.
    Up(u64),
    /// It was ejected: the number of the ejection. The connection was made because no backend was usable.
    Ejected(u64),
    /// This connection is the probe of this number.
    Probe(u64),
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
    /// Failed connects within the window, oldest first; never more than `settings.failures`.
    failures: VecDeque<Instant>,
    state: DetectorState,
    /// Whether it is out for evidence rather than for facts.
    is_by_evidence: bool,
    /// Ejections and probes so far: the last one's number.
    sequence: u64,
    /// The number of the probe that brought it up last; 0: none has.
    up_period: u64,
    /// The number of the current ejection, to which its probes belong.
    ejection: u64,
    /// Probes of the current ejection that ended badly in a row.
    failed_probes: u32,
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
            state: DetectorState::Up,
            is_by_evidence: false,
            sequence: 0,
            up_period: 0,
            ejection: 0,
            failed_probes: 0,
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

    /// For the process that an upgrade starts. Which connections began when is not among it: that one has none.
    pub(super) fn carried(&self, now: Instant) -> CarriedDetector {
        CarriedDetector {
            failures: self.failures.iter().map(|at| now.saturating_duration_since(*at)).collect(),
            ejected_for: match self.state {
                DetectorState::Up => None,
                DetectorState::Ejected { until } => Some(until.saturating_duration_since(now)),
                // The next connection probes.
                DetectorState::Probing { .. } => Some(Duration::ZERO),
            },
            is_by_evidence: self.is_by_evidence,
            repeats: self.repeats,
            last_ejection: self.last_ejection,
            up_for: now.saturating_duration_since(self.up_since),
        }
    }

    /// Continues where another process was.
    pub(super) fn carry_on(&mut self, carried: &CarriedDetector, now: Instant) {
        let most = self.settings.failures.get();
        self.failures =
            carried.failures.iter().rev().take(most).rev().filter_map(|ago| now.checked_sub(*ago)).collect();
        self.is_by_evidence = carried.is_by_evidence;
        self.repeats = carried.repeats;
        self.last_ejection = carried.last_ejection;
        self.up_since = now.checked_sub(carried.up_for).unwrap_or(now);
        // Not for longer than an ejection may last here.
        let longest = self.settings.max_ejection.mul_f64(1.0 + JITTER);
        if let Some(left) = carried.ejected_for {
            self.sequence += 1;
            self.ejection = self.sequence;
            self.state = DetectorState::Ejected { until: now + left.min(longest) };
        }
    }

    pub(super) fn settings(&self) -> &FailureDetection {
        &self.settings
    }

    /// The state now.
    pub fn state(&self) -> DetectorState {
        self.state
    }

    /// Whether it is out, for evidence.
    pub(super) fn is_out_by_evidence(&self) -> bool {
        self.is_by_evidence && self.state != DetectorState::Up
    }

    /// What a connection that begins now, and is not a probe, is to be judged by later.
    pub(super) fn begin(&self) -> Began {
        if self.state == DetectorState::Up { Began::Up(self.up_period) } else { Began::Ejected(self.ejection) }
    }

    /// The number of the time for which it is up, or was up last.
    pub(super) fn up_period(&self) -> u64 {
        self.up_period
    }

    /// Failed connects within the window that ends now.
    #[cfg(test)]
    pub fn recent_failures(&mut self, now: Instant) -> usize {
        self.forget_before_window(now);
        self.failures.len()
    }

    /// A connect failed. `random` is uniform in 0..1.
    pub fn connect_failed(&mut self, now: Instant, began: Began, random: f64) -> Option<Transition> {
        match self.state {
            DetectorState::Probing { .. } if self.is_current_probe(began) => {
                self.is_by_evidence = false;
                Some(self.eject(now, random))
            }
            DetectorState::Probing { .. } | DetectorState::Ejected { .. } => None,
            // Begun before an outage that is over.
            DetectorState::Up if began != self.begin() => None,
            DetectorState::Up => {
                self.forget_before_window(now);
                self.failures.push_back(now);
                if self.failures.len() < self.settings.failures.get() {
                    return None;
                }
                self.is_by_evidence = false;
                Some(self.eject(now, random))
            }
        }
    }

    /// The backend stands out among its peers by how its connections end.
    pub fn eject_for_evidence(&mut self, now: Instant, random: f64) -> Option<Transition> {
        if self.state != DetectorState::Up {
            return None;
        }
        self.is_by_evidence = true;
        Some(self.eject(now, random))
    }

    /// A connection ended badly that began as `began`. If it was the probe, that counts as far as its clients' share in
    /// it can be told from what `peers` did meanwhile: else the next connection probes at once.
    pub fn probe_ended_badly(
        &mut self,
        now: Instant,
        began: Began,
        peers: TrackRecord,
        random: f64,
    ) -> Option<Transition> {
        if !self.is_current_probe(began) {
            return None;
        }
        self.failed_probes = self.failed_probes.saturating_add(1);
        if probes_have_failed(self.failed_probes, peers) {
            self.is_by_evidence = true;
            return Some(self.eject(now, random));
        }
        self.probe_abandoned(now, began);
        None
    }

    /// A connection went well that began during the current ejection, as its probe or because nothing else was usable.
    pub fn succeeded(&mut self, now: Instant, began: Began) -> Option<Transition> {
        let is_of_this_ejection = self.state != DetectorState::Up && began == Began::Ejected(self.ejection);
        if !is_of_this_ejection && !self.is_current_probe(began) {
            return None;
        }
        self.recover(now);
        Some(Transition::Recovered)
    }

    /// Does what the clock asks for: a probe that was open for long enough has shown that the backend is well.
    pub fn settle(&mut self, now: Instant) -> Option<Transition> {
        let is_settled = matches!(self.state, DetectorState::Probing { settled_at: Some(at) } if at <= now);
        is_settled.then(|| {
            self.recover(now);
            Transition::Recovered
        })
    }

    /// Lets one connection probe, if the ejection is over, and gives its number. It must end in
    /// [`Detector::connect_failed`], [`Detector::probe_ended_badly`], [`Detector::succeeded`] or
    /// [`Detector::probe_abandoned`], or last as long as [`Detector::probe_lasts`] says.
    pub fn begin_probe(&mut self, now: Instant) -> Option<Began> {
        let is_due = matches!(self.state, DetectorState::Ejected { until } if until <= now);
        is_due.then(|| {
            self.sequence += 1;
            self.state = DetectorState::Probing { settled_at: None };
            Began::Probe(self.sequence)
        })
    }

    /// The probe's client has asked for something: from now on only an answer shows that the backend is well. Where it
    /// isn't sure that there is one to come, that is asked only of a backend which is out for evidence: one that
    /// refused connections is well if it keeps one.
    pub fn probe_awaits_answer(&mut self, began: Began, is_sure: bool) {
        if self.is_current_probe(began) && (is_sure || self.is_by_evidence) {
            self.state = DetectorState::Probing { settled_at: None };
        }
    }

    /// The backend has taken the probe's connection, or begun to answer it: it is well if that lasts until
    /// `settled_at`.
    pub fn probe_lasts(&mut self, began: Began, settled_at: Instant) {
        if self.is_current_probe(began) {
            self.state = DetectorState::Probing { settled_at: Some(settled_at) };
        }
    }

    /// The probe ended without showing anything (its client left): the next connection may probe.
    pub fn probe_abandoned(&mut self, now: Instant, began: Began) {
        if self.is_current_probe(began) {
            self.state = DetectorState::Ejected { until: now };
        }
    }

    /// When something is to be done that no connection reports: a probe is due, or has been open for long enough.
    pub fn next_event(&self) -> Option<Instant> {
        match self.state {
            DetectorState::Up => None,
            DetectorState::Ejected { until } => Some(until),
            DetectorState::Probing { settled_at } => settled_at,
        }
    }

    fn is_current_probe(&self, began: Began) -> bool {
        matches!(self.state, DetectorState::Probing { .. }) && began == Began::Probe(self.sequence)
    }

    fn recover(&mut self, now: Instant) {
        self.state = DetectorState::Up;
        self.up_period = self.sequence;
        self.up_since = now;
        self.failed_probes = 0;
    }

    fn eject(&mut self, now: Instant, random: f64) -> Transition {
        let healthy_for = now.duration_since(self.up_since);
        let was_up = self.state == DetectorState::Up;
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
        self.failed_probes = 0;
        self.sequence += 1;
        self.ejection = self.sequence;
        self.state = DetectorState::Ejected { until: now + duration };
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

    use crate::config::PoolConfig;

    use super::super::evidence::Outcomes;
    use super::*;

    const MIDDLE: f64 = 0.5;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn detector(now: Instant) -> Detector {
        let settings = FailureDetection {
            failures: NonZeroUsize::new(3).expect("not zero"),
            window: seconds(10),
            ejection: seconds(10),
            max_ejection: seconds(60),
            ..PoolConfig::example().failure_detection.expect("on by default")
        };
        Detector::new(settings, now)
    }

    fn fail_three_times(detector: &mut Detector, now: Instant) -> Option<Transition> {
        detector.connect_failed(now, detector.begin(), MIDDLE);
        detector.connect_failed(now, detector.begin(), MIDDLE);
        detector.connect_failed(now, detector.begin(), MIDDLE)
    }

    #[test]
    fn ejects_at_the_third_failure_within_the_window() {
        let start = Instant::now();
        let mut detector = detector(start);
        assert_eq!(detector.connect_failed(start, detector.begin(), MIDDLE), None);
        assert_eq!(detector.connect_failed(start + seconds(1), detector.begin(), MIDDLE), None);
        assert_eq!(
            detector.connect_failed(start + seconds(2), detector.begin(), MIDDLE),
            Some(Transition::Ejected(seconds(10)))
        );
        assert_eq!(detector.state(), DetectorState::Ejected { until: start + seconds(12) });
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let start = Instant::now();
        let mut detector = detector(start);
        for second in [0, 6, 12, 18, 24] {
            assert_eq!(
                detector.connect_failed(start + seconds(second), detector.begin(), MIDDLE),
                None,
                "at {second} s"
            );
        }
        assert_eq!(detector.recent_failures(start + seconds(60)), 0);
    }

    #[test]
    fn only_one_probe_at_a_time_and_only_when_due() {
        let start = Instant::now();
        let mut detector = detector(start);
        fail_three_times(&mut detector, start);
        assert_eq!(detector.begin_probe(start + seconds(9)), None);
        let probe = detector.begin_probe(start + seconds(10)).expect("it is due");
        assert_eq!(detector.begin_probe(start + seconds(10)), None);
        assert_eq!(detector.succeeded(start + seconds(11), probe), Some(Transition::Recovered));
        assert_eq!(detector.state(), DetectorState::Up);
    }

    #[test]
    fn a_failed_probe_doubles_the_ejection_up_to_the_maximum() {
        let mut now = Instant::now();
        let mut detector = detector(now);
        fail_three_times(&mut detector, now);
        for expected in [20, 40, 60, 60] {
            now += seconds(100);
            let probe = detector.begin_probe(now).expect("it is due");
            assert_eq!(detector.connect_failed(now, probe, MIDDLE), Some(Transition::Ejected(seconds(expected))));
        }
    }

    #[test]
    fn a_time_of_health_ends_the_doubling() {
        let mut now = Instant::now();
        let mut detector = detector(now);
        fail_three_times(&mut detector, now);
        now += seconds(10);
        let probe = detector.begin_probe(now).expect("it is due");
        detector.succeeded(now, probe);
        now += seconds(5);
        assert_eq!(fail_three_times(&mut detector, now), Some(Transition::Ejected(seconds(20))), "soon again: doubled");
        now += seconds(20);
        let probe = detector.begin_probe(now).expect("it is due");
        detector.succeeded(now, probe);
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
        assert_eq!(detector.connect_failed(start + seconds(1), detector.begin(), MIDDLE), None);
        detector.begin_probe(start + seconds(10)).expect("it is due");
        assert_eq!(detector.connect_failed(start + seconds(10), detector.begin(), MIDDLE), None, "not the probe");
        assert!(matches!(detector.state(), DetectorState::Probing { .. }));
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_one_try_at_once() {
        let start = Instant::now();
        let mut detector = detector(start);
        fail_three_times(&mut detector, start);
        let later = start + seconds(10);
        let probe = detector.begin_probe(later).expect("it is due");
        detector.probe_abandoned(later, probe);
        assert!(detector.begin_probe(later).is_some());
    }

    #[test]
    fn an_old_probe_changes_nothing_for_a_later_one() {
        let start = Instant::now();
        let mut detector = detector(start);
        fail_three_times(&mut detector, start);
        let old = detector.begin_probe(start + seconds(10)).expect("it is due");
        detector.probe_lasts(old, start + seconds(12));
        assert_eq!(detector.settle(start + seconds(12)), Some(Transition::Recovered), "it holds");
        fail_three_times(&mut detector, start + seconds(13));
        let later = start + seconds(60);
        let new = detector.begin_probe(later).expect("it is due");
        assert_eq!(detector.connect_failed(later, old, MIDDLE), None);
        detector.probe_abandoned(later, old);
        assert_eq!(detector.succeeded(later, old), None);
        assert_eq!(detector.begin_probe(later), None, "the new one is under way");
        assert_eq!(detector.succeeded(later, new), Some(Transition::Recovered));
    }

    #[test]
    fn a_connection_of_an_earlier_outage_does_not_end_a_later_one() {
        let start = Instant::now();
        let mut detector = detector(start);
        fail_three_times(&mut detector, start);
        let old = detector.begin();
        let probe = detector.begin_probe(start + seconds(10)).expect("it is due");
        detector.succeeded(start + seconds(10), probe);
        fail_three_times(&mut detector, start + seconds(11));
        assert_eq!(detector.succeeded(start + seconds(12), old), None);
        assert_eq!(detector.succeeded(start + seconds(12), detector.begin()), Some(Transition::Recovered));
    }

    #[test]
    fn a_probe_that_waits_for_an_answer_shows_nothing_by_waiting() {
        let start = Instant::now();
        let mut detector = detector(start);
        fail_three_times(&mut detector, start);
        let probe = detector.begin_probe(start + seconds(10)).expect("it is due");
        detector.probe_lasts(probe, start + seconds(11));
        detector.probe_awaits_answer(probe, true);
        assert_eq!(detector.settle(start + seconds(100)), None);
        assert_eq!(detector.next_event(), None);
        let ended = detector.probe_ended_badly(start + seconds(100), probe, TrackRecord::default(), MIDDLE);
        assert_eq!(ended, Some(Transition::Ejected(seconds(20))), "twice as long");
    }

    #[test]
    fn one_that_refused_is_well_if_it_keeps_a_connection_that_may_get_no_answer() {
        let start = Instant::now();
        let mut detector = detector(start);
        fail_three_times(&mut detector, start);
        let probe = detector.begin_probe(start + seconds(10)).expect("it is due");
        assert_eq!(detector.settle(start + seconds(100)), None, "not connected yet");
        detector.probe_lasts(probe, start + seconds(101));
        detector.probe_awaits_answer(probe, false);
        assert_eq!(detector.settle(start + seconds(101)), Some(Transition::Recovered));
    }

    #[test]
    fn connections_from_before_an_outage_change_nothing_after_it() {
        let start = Instant::now();
        let mut detector = detector(start);
        let before = detector.begin();
        fail_three_times(&mut detector, start);
        let probe = detector.begin_probe(start + seconds(10)).expect("it is due");
        detector.succeeded(start + seconds(10), probe);
        for _ in 0..10 {
            assert_eq!(detector.connect_failed(start + seconds(11), before, MIDDLE), None);
        }
        assert!(fail_three_times(&mut detector, start + seconds(11)).is_some());
    }

    #[test]
    fn bad_probes_count_less_where_clients_misbehave() {
        let start = Instant::now();
        let mut detector = detector(start);
        detector.eject_for_evidence(start, MIDDLE);
        let window = Outcomes { good: 20, bad: 20 };
        let misbehaving = TrackRecord { window, longer: window };
        let later = start + seconds(10);
        for probe in 1..=5 {
            let began = detector.begin_probe(later).expect("the last one showed nothing");
            let ended = detector.probe_ended_badly(later, began, misbehaving, MIDDLE);
            assert_eq!(ended.is_some(), probe == 5, "probe {probe}");
        }
    }

    #[test]
    fn jitter_is_a_tenth_either_way() {
        for (random, millis) in [(0.0, 9_000), (1.0, 11_000)] {
            let start = Instant::now();
            let mut detector = detector(start);
            detector.connect_failed(start, detector.begin(), random);
            detector.connect_failed(start, detector.begin(), random);
            let ejected = Some(Transition::Ejected(Duration::from_millis(millis)));
            assert_eq!(detector.connect_failed(start, detector.begin(), random), ejected);
        }
    }
}
