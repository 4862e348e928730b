//! Durations counted in buckets. They live with what they are of, and so does their memory, however many come.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most bounds that a histogram may have.
const MAX_BOUNDS: usize = 16;

/// A histogram that all workers count in.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in seconds, ascending; beyond the last there is one more bucket.
    bounds: &'static [f64],
    counts: [AtomicU64; MAX_BOUNDS + 1],
    nanoseconds: AtomicU64,
}

/// What a histogram has counted.
#[derive(Debug)]
pub struct HistogramTotals {
    /// For each bound, in seconds: the durations up to it.
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    /// In seconds.
    pub sum: f64,
}

impl Histogram {
    /// `bounds`: upper bounds in seconds, ascending, at most 16.
    pub fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() <= MAX_BOUNDS, "the bounds are constants of this crate");
        Self { bounds, counts: Default::default(), nanoseconds: AtomicU64::new(0) }
    }

    pub fn record(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = duration.as_nanos().try_into().unwrap_or(u64::MAX);
        // Wraps after 584 years of durations, which Prometheus takes for a restart.
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub fn totals(&self) -> HistogramTotals {
        let mut count = 0;
        let mut cumulative = |bucket: &AtomicU64| {
            count += bucket.load(Ordering::Relaxed);
            count
        };
        let buckets =
            self.bounds.iter().zip(&self.counts).map(|(bound, bucket)| (*bound, cumulative(bucket))).collect();
        cumulative(&self.counts[self.bounds.len()]);
        let sum = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        HistogramTotals { buckets, count, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_has_room_for_it() {
        let histogram = Histogram::new(&[0.001, 1.0]);
        for milliseconds in [0, 1, 2, 1_000, 1_001] {
            histogram.record(Duration::from_millis(milliseconds));
        }
        let totals = histogram.totals();
        assert_eq!((totals.buckets, totals.count), (vec![(0.001, 2), (1.0, 4)], 5));
        assert!((totals.sum - 2.004).abs() < 1e-9, "{}", totals.sum);
    }
}
