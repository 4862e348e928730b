//! `GET /api/v1/history`: the last hour.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::telemetry::rfc3339;

use super::super::history::{History, Past, PastSeries, Point, STEP, Wanted};

/// `GET /api/v1/history`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HistoryReport {
    /// Of one point.
    pub step_seconds: u64,
    /// When the last point ended (RFC 3339); null: there is none yet.
    pub until: Option<String>,
    pub series: Vec<SeriesReport>,
}

/// One listener, pool or backend: a number for each step, the last one at the end. Counters are what came in that step.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SeriesReport {
    pub listener: Option<String>,
    pub pool: Option<String>,
    pub backend: Option<String>,
    /// Connections: a listener's accepted ones, a backend's made ones.
    pub connections: Vec<u64>,
    /// 0 in mode tcp.
    pub requests: Vec<u64>,
    /// Clients, in mode http requests, that were not served; of a backend: its failures.
    pub failed: Vec<u64>,
    pub bytes_in: Vec<u64>,
    pub bytes_out: Vec<u64>,
    /// Open connections at the step's end.
    pub active: Vec<u64>,
    /// First-byte times in milliseconds; 0: nobody was answered. A listener has none.
    pub p50_ms: Vec<f64>,
    pub p99_ms: Vec<f64>,
}

impl HistoryReport {
    /// In at most `most` points: several steps become one.
    pub(in crate::admin) fn new(history: &History, wanted: &Wanted<'_>, most: usize) -> Self {
        let Past { series, merged, until } = history.series(wanted, most);
        Self {
            step_seconds: STEP.as_secs() * merged as u64,
            until: until.map(|until| rfc3339(until).to_string()),
            series: series.into_iter().map(SeriesReport::new).collect(),
        }
    }
}

impl SeriesReport {
    fn new(PastSeries { listener, pool, backend, points }: PastSeries) -> Self {
        let of = |pick: fn(&Point) -> u64| points.iter().map(pick).collect();
        let milliseconds = |pick: fn(&Point) -> Duration| {
            // No digits that nothing measured.
            points.iter().map(|point| pick(point).as_micros() as f64 / 1e3).collect()
        };
        Self {
            listener,
            pool,
            backend,
            connections: of(|point| point.counted.connections),
            requests: of(|point| point.counted.requests),
            failed: of(|point| point.counted.failed),
            bytes_in: of(|point| point.counted.bytes_in),
            bytes_out: of(|point| point.counted.bytes_out),
            active: of(|point| point.active),
            p50_ms: milliseconds(|point| point.p50),
            p99_ms: milliseconds(|point| point.p99),
        }
    }
}
