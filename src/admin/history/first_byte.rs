//! The first-byte times of one backend in the last minute.

use std::collections::VecDeque;
use std::time::Duration;

use crate::backends::BackendSnapshot;
use crate::telemetry::{Latencies, LatencyBuckets, SeenLatencies};

/// Steps of a minute.
const STEPS: usize = 12;
/// The part that the last step's mean has in the running one.
const NEWEST: f64 = 0.3;

/// What is known of the last minute.
#[derive(Clone, Copy, Debug)]
pub struct FirstByte {
    /// Of the last seconds: each step counts less by 30 % than the one after it.
    pub mean: Duration,
    pub p50: Duration,
    pub p99: Duration,
}

#[derive(Debug, Default)]
pub(super) struct FirstByteTimes {
    seen: SeenLatencies,
    steps: VecDeque<Latencies>,
    answers: u64,
    waited: Duration,
    /// In seconds; `None`: there was no answer yet.
    mean: Option<f64>,
    shown: Option<FirstByte>,
}

impl FirstByteTimes {
    /// What came in the step that ends now.
    pub(super) fn look(&mut self, buckets: &LatencyBuckets, snapshot: &BackendSnapshot) -> Latencies {
        self.note_mean(snapshot);
        let newest = buckets.since(&mut self.seen);
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(newest.clone());
        if self.steps.iter().all(Latencies::is_empty) {
            self.steps.clear();
            self.shown = None;
            return newest;
        }
        let minute = Latencies::sum(&self.steps);
        let percentile = |share| minute.percentile(share).unwrap_or_default();
        let mean = Duration::from_secs_f64(self.mean.unwrap_or_default());
        self.shown = Some(FirstByte { mean, p50: percentile(0.5), p99: percentile(0.99) });
        newest
    }

    pub(super) fn shown(&self) -> Option<FirstByte> {
        self.shown
    }

    #[allow(clippy::cast_precision_loss, reason = "a mean of three digits is shown")]
    fn note_mean(&mut self, snapshot: &BackendSnapshot) {
        let answers: u64 = snapshot.answers.iter().sum();
        let (more, longer) = (answers - self.answers, snapshot.waited.saturating_sub(self.waited));
        (self.answers, self.waited) = (answers, snapshot.waited);
        if more > 0 {
            let newest = longer.as_secs_f64() / more as f64;
            self.mean = Some(self.mean.map_or(newest, |mean| mean + NEWEST * (newest - mean)));
        }
    }
}
