//! One hour of points, packed: what changes is rounded to 11 bits, which no chart shows.

use std::time::Duration;

use crate::backends::BackendSnapshot;
use crate::telemetry::{Latencies, ListenerTotals};

/// Points of an hour.
pub const MOST_POINTS: usize = 720;

/// Of an hour, packed.
pub(super) const HOUR_BYTES: usize = size_of::<[Packed; MOST_POINTS]>();

/// Counters of one listener, pool or backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Connections: a listener's accepted ones, a backend's made ones.
    pub connections: u64,
    pub requests: u64,
    /// Clients that were not served; a backend's failures.
    pub failed: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// What happened in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    pub counted: Counted,
    /// Open connections at its end.
    pub active: u64,
    /// First-byte times; zero: nobody was answered.
    pub p50: Duration,
    pub p99: Duration,
}

/// The hour of one that has done something in it, and its counters at the last point.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// By tick, modulo an hour; `None`: nothing has happened for an hour.
    hour: Option<Box<[Packed; MOST_POINTS]>>,
    /// Points without anything in a row.
    quiet: usize,
    /// At the last point; `None`: there was none.
    last: Option<Counted>,
}

type Packed = [Rounded; 8];

/// A number in 11 bits and a power of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rounded(u16);

/// Bits of [`Rounded`] for the digits; the other five are the exponent.
const DIGITS: u32 = 11;

impl Rounded {
    fn new(number: u64) -> Self {
        let exponent = (u64::BITS - number.leading_zeros()).saturating_sub(DIGITS).min(31);
        let digits = (number >> exponent).min((1 << DIGITS) - 1);
        Self(u16::try_from(u64::from(exponent) << DIGITS | digits).expect("11 bits and 5"))
    }

    fn number(self) -> u64 {
        (u64::from(self.0) & ((1 << DIGITS) - 1)) << (self.0 >> DIGITS)
    }
}

impl Series {
    /// `may_grow`: whether it may begin an hour.
    pub(super) fn add(&mut self, tick: usize, now: Counted, active: u64, latencies: &Latencies, may_grow: bool) {
        let grown = now.since(&self.last.replace(now).unwrap_or(now));
        let percentile = |share| latencies.percentile(share).unwrap_or_default();
        let point = Point { counted: grown, active, p50: percentile(0.5), p99: percentile(0.99) };
        self.quiet = if point == Point::default() { self.quiet + 1 } else { 0 };
        if self.quiet >= MOST_POINTS {
            self.hour = None;
        }
        if self.hour.is_none() && self.quiet == 0 && may_grow {
            self.hour = Some(Box::new([Packed::default(); MOST_POINTS]));
        }
        if let Some(hour) = &mut self.hour {
            hour[tick % MOST_POINTS] = point.packed();
        }
    }

    /// The hour, for another process on this machine; `None`: there is none.
    pub(super) fn hour_bytes(&self) -> Option<Vec<u8>> {
        let numbers = self.hour.as_ref()?.iter().flatten();
        Some(numbers.flat_map(|number| number.0.to_ne_bytes()).collect())
    }

    /// With the hour of another process: [`HOUR_BYTES`] of them.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        let mut hour = Box::new([Packed::default(); MOST_POINTS]);
        for (number, pair) in hour.iter_mut().flatten().zip(bytes.chunks_exact(2)) {
            *number = Rounded(u16::from_ne_bytes([pair[0], pair[1]]));
        }
        Self { hour: Some(hour), ..Self::default() }
    }

    pub(super) fn has_hour(&self) -> bool {
        self.hour.is_some()
    }

    /// The points of the last hour out of so many ticks, the last one at the end; so many as one, counted from there.
    pub(super) fn points(&self, ticks: usize, merged: usize) -> Vec<Point> {
        let first = ticks.saturating_sub(MOST_POINTS);
        let number = (ticks - first).div_ceil(merged);
        let Some(hour) = &self.hour else { return vec![Point::default(); number] };
        let point = |tick: usize| Point::of(hour[tick % MOST_POINTS]);
        let ends = (0..number).rev().map(|later| ticks - later * merged);
        ends.map(|end| Point::merged((end.saturating_sub(merged).max(first)..end).map(point))).collect()
    }
}

impl Counted {
    pub(super) fn of_listener(totals: &ListenerTotals) -> Self {
        Self {
            connections: totals.accepted,
            requests: totals.requests.values().sum(),
            failed: totals.failures.all(),
            bytes_in: totals.bytes.to_backend,
            bytes_out: totals.bytes.to_client,
        }
    }

    pub(super) fn of_backend(snapshot: &BackendSnapshot) -> Self {
        Self {
            connections: snapshot.total,
            requests: snapshot.requests(),
            failed: snapshot.failures(),
            bytes_in: snapshot.bytes.to_backend,
            bytes_out: snapshot.bytes.to_client,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.requests += other.requests;
        self.failed += other.failed;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }

    /// The growth; a sum from which a backend has gone has none.
    fn since(&self, before: &Self) -> Self {
        Self {
            connections: self.connections.saturating_sub(before.connections),
            requests: self.requests.saturating_sub(before.requests),
            failed: self.failed.saturating_sub(before.failed),
            bytes_in: self.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(before.bytes_out),
        }
    }
}

impl Point {
    fn packed(&self) -> Packed {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let Counted { connections, requests, failed, bytes_in, bytes_out } = self.counted;
        [connections, requests, failed, bytes_in, bytes_out, self.active, micros(self.p50), micros(self.p99)]
            .map(Rounded::new)
    }

    /// Several steps as one: what came in all of them, and the worst of what was.
    fn merged(steps: impl Iterator<Item = Self>) -> Self {
        steps.fold(Self::default(), |mut all, step| {
            all.counted.add(&step.counted);
            let (p50, p99) = (all.p50.max(step.p50), all.p99.max(step.p99));
            Self { active: all.active.max(step.active), p50, p99, ..all }
        })
    }

    fn of(packed: Packed) -> Self {
        let [connections, requests, failed, bytes_in, bytes_out, active, p50, p99] = packed.map(Rounded::number);
        let counted = Counted { connections, requests, failed, bytes_in, bytes_out };
        Self { counted, active, p50: Duration::from_micros(p50), p99: Duration::from_micros(p99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_a_thousandth() {
        for number in (0..62).flat_map(|bits| [(1u64 << bits) - 1, 1 << bits, 3 << bits >> 1]) {
            let rounded = Rounded::new(number).number();
            let off = number.saturating_sub(rounded);
            assert!(rounded <= number, "{number}: {rounded}");
            assert!(off <= number / 1000 || number >= 1 << (31 + DIGITS), "{number}: {rounded}");
        }
        assert_eq!(Rounded::new(2047).number(), 2047);
    }

    #[test]
    fn an_hour_is_kept_and_given_back_after_a_quiet_one() {
        let mut series = Series::default();
        let at = |connections| Counted { connections, ..Counted::default() };
        series.add(0, at(7), 0, &Latencies::default(), true);
        assert!(!series.has_hour(), "what was before is not of this hour");
        for tick in 1..=MOST_POINTS {
            series.add(tick, at(7 + tick as u64), 0, &Latencies::default(), true);
        }
        let points = series.points(MOST_POINTS + 1, 1);
        assert_eq!(points.len(), MOST_POINTS);
        assert!(points.iter().all(|point| point.counted.connections == 1));
        let merged: Vec<u64> = series.points(MOST_POINTS + 1, 500).iter().map(|it| it.counted.connections).collect();
        assert_eq!(merged, [220, 500]);
        for tick in 1..=MOST_POINTS {
            series.add(MOST_POINTS + tick, at(727), 0, &Latencies::default(), true);
        }
        assert!(!series.has_hour());
        assert_eq!(series.points(2 * MOST_POINTS, 1), vec![Point::default(); MOST_POINTS]);
        series.add(3 * MOST_POINTS, at(900), 0, &Latencies::default(), false);
        assert!(!series.has_hour(), "it may not");
    }

    #[test]
    fn an_hour_takes_11_520_bytes() {
        assert_eq!(size_of::<[Packed; MOST_POINTS]>(), 11_520);
        assert!(size_of::<Series>() <= 72, "{}", size_of::<Series>());
    }
}
