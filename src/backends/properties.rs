//! Properties of failure detection, health checks and the slow start, over a simulated clock.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::config::{FailureDetection, HealthCheck, PoolConfig};

use super::detection::{Began, Detector, DetectorState, Transition};
use super::rise_fall::{CheckFinding, CheckVerdict, RiseFall};
use super::status::{BackendState, FULL_SHARE, Status};

/// What may happen to a backend.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Time passes.
    Wait(Duration),
    /// A connection that is no probe fails.
    Fails,
    /// A connection asks to be the probe.
    AsksToProbe,
    /// The probe under way fails.
    ProbeFails,
    /// The probe under way goes well.
    ProbeGoesWell,
    /// The probe's client leaves.
    ProbeIsAbandoned,
}

fn events() -> impl Strategy<Value = Vec<(Event, f64)>> {
    let event = prop_oneof![
        3 => (0u64..15_000).prop_map(|ms| Event::Wait(Duration::from_millis(ms))),
        6 => Just(Event::Fails),
        4 => Just(Event::AsksToProbe),
        2 => Just(Event::ProbeFails),
        1 => Just(Event::ProbeGoesWell),
        1 => Just(Event::ProbeIsAbandoned),
    ];
    prop::collection::vec((event, 0.0..1.0), 1..120)
}

fn count(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}

prop_compose! {
    fn settings()(
        failures in 1usize..6,
        window_ms in 100u64..20_000,
        ejection_ms in 100u64..20_000,
        longest in 1u32..40,
    ) -> FailureDetection {
        let ejection = Duration::from_millis(ejection_ms);
        FailureDetection {
            failures: count(failures),
            window: Duration::from_millis(window_ms),
            ejection,
            max_ejection: ejection * longest,
            ..PoolConfig::example().failure_detection.expect("on by default")
        }
    }
}

fn pool(detection: Option<FailureDetection>, check: Option<HealthCheck>, slow_start: Duration) -> PoolConfig {
    PoolConfig { failure_detection: detection, health_check: check, slow_start, ..PoolConfig::example() }
}

fn health_check(rise: usize, fall: usize) -> HealthCheck {
    HealthCheck { rise: count(rise), fall: count(fall), ..HealthCheck::example() }
}

/// A detector and the clock it lives by.
struct Course {
    detector: Detector,
    now: Instant,
    probe: Option<Began>,
}

impl Course {
    fn new(settings: &FailureDetection) -> Self {
        let now = Instant::now();
        Self { detector: Detector::new(settings.clone(), now), now, probe: None }
    }

    /// Lets it happen, if it can.
    fn take(&mut self, event: Event, random: f64) -> Option<Transition> {
        match event {
            Event::Wait(time) => {
                self.now += time;
                None
            }
            Event::Fails => {
                let began = self.detector.begin();
                self.detector.connect_failed(self.now, began, random)
            }
            Event::AsksToProbe => {
                self.probe = self.detector.begin_probe(self.now).or(self.probe);
                None
            }
            Event::ProbeFails => {
                let probe = self.probe.take()?;
                self.detector.connect_failed(self.now, probe, random)
            }
            Event::ProbeGoesWell => {
                let probe = self.probe.take()?;
                self.detector.succeeded(self.now, probe)
            }
            Event::ProbeIsAbandoned => {
                let probe = self.probe.take()?;
                self.detector.probe_abandoned(self.now, probe);
                None
            }
        }
    }
}

proptest! {
    #[test]
    fn ejects_exactly_at_the_last_of_enough_failures_within_the_window(settings in settings(), events in events()) {
        let mut course = Course::new(&settings);
        let mut counted: Vec<Instant> = Vec::new();
        for (event, random) in events {
            let was_up = course.detector.state() == DetectorState::Up;
            let transition = course.take(event, random);
            if !was_up {
                continue;
            }
            if matches!(event, Event::Fails) {
                counted.push(course.now);
            }
            let recent = counted.iter().filter(|at| course.now - **at <= settings.window).count();
            let is_ejected = matches!(transition, Some(Transition::Ejected(_)));
            prop_assert_eq!(is_ejected, matches!(event, Event::Fails) && recent >= settings.failures.get());
            if is_ejected {
                counted.clear();
            }
        }
    }

    #[test]
    fn repeated_ejections_double_up_to_the_maximum_with_a_tenth_of_jitter(
        settings in settings(),
        randoms in prop::collection::vec(0.0..1.0, 1..30),
    ) {
        let mut course = Course::new(&settings);
        for _ in 1..settings.failures.get() {
            course.take(Event::Fails, 0.5);
        }
        let mut last = course.take(Event::Fails, randoms[0]);
        for (repeat, random) in (0u32..).zip(&randoms[1..]) {
            let Some(Transition::Ejected(duration)) = last else { panic!("not ejected") };
            let ideal = settings.ejection.saturating_mul(1 << repeat.min(20)).min(settings.max_ejection);
            let ratio = duration.as_secs_f64() / ideal.as_secs_f64();
            prop_assert!((0.899..=1.101).contains(&ratio), "{:?} for {:?}", duration, ideal);
            course.take(Event::Wait(duration), 0.5);
            course.take(Event::AsksToProbe, 0.5);
            last = course.take(Event::ProbeFails, *random);
        }
    }

    #[test]
    fn never_two_probes_at_once_and_none_before_the_ejection_is_over(settings in settings(), events in events()) {
        let mut course = Course::new(&settings);
        for (event, random) in events {
            let (before, was_probing) = (course.detector.state(), course.probe.is_some());
            course.take(event, random);
            if course.probe.is_some() && !was_probing {
                prop_assert!(matches!(before, DetectorState::Ejected { until } if until <= course.now), "{:?}", before);
            }
            let says_probing = matches!(course.detector.state(), DetectorState::Probing { .. });
            prop_assert_eq!(says_probing, course.probe.is_some());
            if says_probing {
                prop_assert_eq!(course.detector.begin_probe(course.now), None, "a second probe");
            }
        }
    }

    #[test]
    fn a_due_probe_is_always_granted(settings in settings(), events in events()) {
        let mut course = Course::new(&settings);
        for (event, random) in events {
            course.take(event, random);
            if let DetectorState::Ejected { until } = course.detector.state() {
                course.probe = course.detector.begin_probe(course.now);
                prop_assert_eq!(course.probe.is_some(), until <= course.now);
            }
        }
    }

    #[test]
    fn every_change_of_use_is_reported_once(settings in settings(), events in events()) {
        let mut course = Course::new(&settings);
        let mut is_reported_up = true;
        for (event, random) in events {
            let before = course.detector.state();
            match course.take(event, random) {
                Some(Transition::Ejected(duration)) => {
                    let until = course.now + duration;
                    prop_assert_eq!(course.detector.state(), DetectorState::Ejected { until });
                    is_reported_up = false;
                }
                Some(Transition::Recovered) => {
                    prop_assert!(before != DetectorState::Up);
                    is_reported_up = true;
                }
                None => {}
            }
            prop_assert_eq!(is_reported_up, course.detector.state() == DetectorState::Up);
        }
    }

    #[test]
    fn failures_of_older_connections_never_prolong_an_ejection(settings in settings(), events in events()) {
        let mut course = Course::new(&settings);
        for (event, random) in events {
            let before = course.detector.state();
            let transition = course.take(event, random);
            if before != DetectorState::Up && matches!(event, Event::Fails) {
                prop_assert_eq!(transition, None);
                prop_assert_eq!(course.detector.state(), before);
            }
        }
    }

    #[test]
    fn a_success_brings_back_from_anywhere_and_nothing_is_remembered(settings in settings(), events in events()) {
        let mut course = Course::new(&settings);
        for (event, random) in events {
            course.take(event, random);
        }
        let was_away = course.detector.state() != DetectorState::Up;
        // The probe under way, or one that was made because nothing else was usable.
        let began = course.probe.unwrap_or(course.detector.begin());
        prop_assert_eq!(course.detector.succeeded(course.now, began), was_away.then_some(Transition::Recovered));
        prop_assert_eq!(course.detector.state(), DetectorState::Up);
        prop_assert_eq!(course.detector.next_event(), None);
        if was_away {
            prop_assert_eq!(course.detector.recent_failures(course.now), 0, "failures from before the ejection");
        }
    }

    #[test]
    fn memory_is_bounded_by_the_number_of_failures(settings in settings(), events in events()) {
        let mut course = Course::new(&settings);
        for (event, random) in events {
            course.take(event, random);
            let remembered = course.detector.recent_failures(course.now);
            prop_assert!(remembered < settings.failures.get(), "{} failures and not ejected", remembered);
        }
    }

    #[test]
    fn rare_failures_never_eject(settings in settings(), failures in 1usize..50, extra_ms in 1u64..1000) {
        prop_assume!(settings.failures.get() > 1);
        let mut course = Course::new(&settings);
        let gap = settings.window / u32::try_from(settings.failures.get() - 1).expect("few");
        for _ in 0..failures {
            prop_assert_eq!(course.take(Event::Fails, 0.5), None);
            course.take(Event::Wait(gap + Duration::from_millis(extra_ms)), 0.5);
        }
    }

    #[test]
    fn long_health_ends_the_doubling(settings in settings(), repeats in 1usize..8, random in 0.0..1.0) {
        let mut course = Course::new(&settings);
        for _ in 0..repeats {
            while course.detector.state() == DetectorState::Up {
                course.take(Event::Fails, 1.0);
            }
            course.take(Event::Wait(settings.max_ejection * 2), 0.5);
            course.take(Event::AsksToProbe, 0.5);
            prop_assert_eq!(course.take(Event::ProbeGoesWell, 0.5), Some(Transition::Recovered));
        }
        course.take(Event::Wait(settings.max_ejection * 2 + settings.window), 0.5);
        let ejected = (0..settings.failures.get()).find_map(|_| course.take(Event::Fails, random));
        let Some(Transition::Ejected(duration)) = ejected else { panic!("not ejected") };
        prop_assert!(duration <= settings.ejection.mul_f64(1.101), "{:?}", duration);
    }

    #[test]
    fn health_checks_turn_only_after_enough_results_in_a_row(
        rise in 1usize..6,
        fall in 1usize..6,
        results in prop::collection::vec(any::<bool>(), 1..200),
    ) {
        let mut rise_fall = RiseFall::new(&health_check(rise, fall));
        prop_assert_eq!(rise_fall.verdict(), CheckVerdict::Unknown);
        let mut is_up = results[0];
        for end in 1..=results.len() {
            let changed = rise_fall.record(results[end - 1]);
            let needed = if is_up { fall } else { rise };
            let in_a_row = results[..end].iter().rev().take_while(|well| **well != is_up).count();
            let turns = in_a_row >= needed;
            prop_assert_eq!(changed, turns || end == 1);
            is_up ^= turns;
            prop_assert_eq!(rise_fall.verdict(), if is_up { CheckVerdict::Up } else { CheckVerdict::Down });
        }
    }

    #[test]
    fn a_slow_start_only_rises_and_ends_full_in_time(
        slow_start_ms in 1u64..100_000,
        mut looks_ms in prop::collection::vec(0u64..120_000, 1..40),
    ) {
        let back = Instant::now();
        let slow_start = Duration::from_millis(slow_start_ms);
        let mut status = Status::new(&pool(None, None, slow_start), back);
        prop_assert_eq!(status.share(back), FULL_SHARE, "never away");
        status.came_back(back);
        looks_ms.sort_unstable();
        let mut last = 1;
        for look in looks_ms {
            let now = back + Duration::from_millis(look);
            let share = status.share(now);
            prop_assert!((last..=FULL_SHARE).contains(&share), "{} after {}", share, last);
            prop_assert_eq!(share == FULL_SHARE, look >= slow_start_ms);
            prop_assert_eq!(status.next_event(now).is_some(), share < FULL_SHARE);
            prop_assert!(status.next_event(now).is_none_or(|at| at > now), "asked for again and again");
            last = share;
        }
    }

    #[test]
    fn up_takes_both_detections(
        settings in settings(),
        rise in 1usize..4,
        fall in 1usize..4,
        steps in prop::collection::vec((events(), any::<bool>()), 1..12),
    ) {
        let start = Instant::now();
        let pool = pool(Some(settings.clone()), Some(health_check(rise, fall)), Duration::ZERO);
        let mut status = Status::new(&pool, start);
        let mut course = Course::new(&settings);
        let mut rise_fall = RiseFall::new(&health_check(rise, fall));
        for (events, is_well) in steps {
            for (event, random) in events.into_iter().take(5) {
                course.take(event, random);
            }
            status.detector = Some(std::mem::replace(&mut course.detector, Detector::new(settings.clone(), start)));
            let result = if is_well { CheckFinding::Well } else { CheckFinding::Failed("") };
            prop_assert_eq!(status.record_check(result), rise_fall.record(is_well));
            let passive = status.detector_state() == DetectorState::Up;
            let active = rise_fall.verdict() != CheckVerdict::Down;
            prop_assert_eq!(status.state() == BackendState::Up, passive && active);
            prop_assert_eq!(status.state() == BackendState::Down, !active);
            // Nothing is to be done about one whose checks fail, whatever the clock says.
            prop_assert!(active || status.next_event(course.now).is_none());
            course.detector = status.detector.take().expect("put there above");
        }
    }
}
