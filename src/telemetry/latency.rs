//! First-byte times counted finely enough for percentiles: those of several backends, or of several times, can be
//! added.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Buckets of each doubling: values in one differ by 1/16 at most, so a percentile is right within 4 %.
const PER_OCTAVE: usize = 16;
const PER_OCTAVE_BITS: u32 = PER_OCTAVE.ilog2();
/// Microseconds below twice this many have a bucket each.
const EXACT: usize = 2 * PER_OCTAVE;
/// 2^26 µs, about a minute: what is longer counts as that.
const MOST_BITS: u32 = 26;
const BUCKETS: usize = EXACT + (MOST_BITS - PER_OCTAVE_BITS - 1) as usize * PER_OCTAVE;

/// Of one backend, for all workers. It takes 1.5 KB, from the first time on.
#[derive(Debug, Default)]
pub struct LatencyBuckets(OnceLock<Box<[AtomicU32; BUCKETS]>>);

/// What came between two looks: buckets and their counts, without those that are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies(Vec<(u16, u32)>);

/// How far a reader has looked.
#[derive(Debug, Default)]
pub struct SeenLatencies(Option<Box<[u32; BUCKETS]>>);

impl LatencyBuckets {
    pub fn record(&self, took: Duration) {
        let buckets = self.0.get_or_init(|| Box::new([const { AtomicU32::new(0) }; BUCKETS]));
        buckets[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was recorded since the last look.
    pub fn since(&self, seen: &mut SeenLatencies) -> Latencies {
        let Some(buckets) = self.0.get() else { return Latencies::default() };
        let seen = seen.0.get_or_insert_with(|| Box::new([0; BUCKETS]));
        let mut grown = Vec::new();
        for ((bucket, seen), index) in buckets.iter().zip(seen.iter_mut()).zip(0..) {
            let now = bucket.load(Ordering::Relaxed);
            // Wraps after four thousand million.
            let more = now.wrapping_sub(std::mem::replace(seen, now));
            if more > 0 {
                grown.push((index, more));
            }
        }
        Latencies(grown)
    }
}

impl Latencies {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them together.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sums = [0u32; BUCKETS];
        for (bucket, count) in all.into_iter().flat_map(|one| &one.0) {
            let sum = &mut sums[usize::from(*bucket)];
            *sum = sum.saturating_add(*count);
        }
        Self((0..).zip(sums).filter(|(_, count)| *count > 0).collect())
    }

    /// The time within which this share of them came, 0 to 1; `None`: there are none.
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let count: u64 = self.0.iter().map(|(_, count)| u64::from(*count)).sum();
        let wanted = (count as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        let (bucket, _) = self.0.iter().find(|(_, count)| {
            below += u64::from(*count);
            below >= wanted
        })?;
        Some(middle_of(usize::from(*bucket)))
    }
}

fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min((1 << MOST_BITS) - 1);
    let micros = usize::try_from(micros).expect("it has 26 bits");
    if micros < EXACT {
        return micros;
    }
    let octave = micros.ilog2() - PER_OCTAVE_BITS;
    // The highest bits but the first, which is 1.
    octave as usize * PER_OCTAVE + (micros >> octave)
}

/// Half-way between its bounds.
fn middle_of(bucket: usize) -> Duration {
    if bucket < EXACT {
        return Duration::from_micros(bucket as u64);
    }
    let octave = bucket / PER_OCTAVE - 1;
    let lowest = ((bucket % PER_OCTAVE + PER_OCTAVE) << octave) as u64;
    Duration::from_micros(lowest + (1 << octave) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_within_four_percent_of_its_bucket() {
        let times = (0..600).map(|step| Duration::from_secs_f64(1e-6 * 1.03f64.powi(step)));
        let mut last = 0;
        for time in times.filter(|time| time.as_micros() < 1 << MOST_BITS) {
            let bucket = bucket_of(time);
            assert!(bucket >= last && bucket < BUCKETS, "{time:?}: {bucket} after {last}");
            let off = middle_of(bucket).as_secs_f64() / time.as_secs_f64() - 1.0;
            assert!(off.abs() < 0.04 || time < Duration::from_micros(32), "{time:?} is off by {off}");
            last = bucket;
        }
        assert_eq!(bucket_of(Duration::from_secs(3600)), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_of_what_came_since_the_last_look() {
        let (buckets, mut seen) = (LatencyBuckets::default(), SeenLatencies::default());
        assert_eq!(buckets.since(&mut seen).percentile(0.5), None);
        buckets.record(Duration::from_secs(9));
        let first = buckets.since(&mut seen);
        (0..99).for_each(|_| buckets.record(Duration::from_micros(20)));
        buckets.record(Duration::from_secs(9));
        let second = buckets.since(&mut seen);
        let near = |time: Option<Duration>, seconds: f64| {
            (time.unwrap_or_default().as_secs_f64() / seconds - 1.0).abs() < 0.04
        };
        assert_eq!(second.percentile(0.99), Some(Duration::from_micros(20)));
        assert!(near(second.percentile(1.0), 9.0) && near(first.percentile(0.5), 9.0));
        let both = Latencies::sum([&first, &second]);
        assert!(near(both.percentile(0.99), 9.0), "2 of 101");
        assert!(buckets.since(&mut seen).is_empty());
    }
}
