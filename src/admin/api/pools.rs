//! `GET /api/v1/pools`: the pools and their backends.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::backends::{Backend, BackendSnapshot, LastCheck, Pool, Unresolved};
use crate::config::Policy;
use crate::telemetry::{Answer, rfc3339};

use super::super::history::{FirstByte, History};
use super::super::view::View;
use super::failures::failures;

/// `GET /api/v1/pools`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PoolsReport {
    /// In the order of their names.
    pub pools: Vec<PoolReport>,
}

/// One pool.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PoolReport {
    pub name: String,
    /// How the next backend is chosen.
    pub policy: Policy,
    /// `served`; `ejected_tried`: none is usable, those that have failed are tried; `all_tried`: none passes its health
    /// check; `refused`: no backend may be used.
    pub service: String,
    /// Backends that get new connections.
    pub usable: usize,
    /// Clients in the queue.
    pub waiting: usize,
    /// Retries so far: further backends tried.
    pub retries: u64,
    /// Since when no backend is usable (RFC 3339); null: one is.
    pub outage_since: Option<String>,
    /// Clients, in mode http requests, that were not served so far.
    pub failed: u64,
    /// Those by why, without those that never happened: `connect_failed`, `no_backend`, `no_room`, `no_answer`,
    /// `internal`.
    pub failures: BTreeMap<String, u64>,
    /// In the order of the configuration.
    pub backends: Vec<BackendReport>,
    /// Names, and targets of services, that don't resolve now; what they gave before stays in use.
    #[serde(default)]
    pub unresolved: Vec<UnresolvedReport>,
}

/// A name that doesn't resolve.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UnresolvedReport {
    pub name: String,
    /// Why.
    pub error: String,
}

/// One backend.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BackendReport {
    pub address: String,
    pub weight: u16,
    /// Whether its rank is above 0.
    pub backup: bool,
    /// 0: a primary. A backup is used only when no backend of a lower rank is usable.
    pub rank: u8,
    /// The limit of open connections; null: none.
    pub max_connections: Option<usize>,
    /// `up`, `ejected`, `probing`, `down`, `standby`, `waiting`, `draining` or `disabled`.
    pub state: String,
    /// When the state began (RFC 3339).
    pub since: Option<String>,
    /// Why it is ejected, probing, down, standby or waiting; null in the other states.
    pub reason: Option<String>,
    /// What changes the state next: `probe in 8 s`; null: nothing is under way.
    pub next: Option<String>,
    /// Open connections; in mode http, requests under way.
    pub active: usize,
    /// Connections made so far.
    pub total: u64,
    /// Failures so far: connects that failed by its fault, and connections (in mode http requests) that ended badly.
    pub failures: u64,
    /// Requests that it has answered so far; 0 in mode tcp.
    pub requests: u64,
    /// Those by the status's class (`2xx` …), without those that never occurred.
    pub answers: BTreeMap<String, u64>,
    /// Until its first byte came, in the last minute; null: it answered nobody.
    pub first_byte: Option<FirstByteReport>,
    /// Ejections so far.
    pub ejections: u64,
    /// When a probe may come (RFC 3339); null unless ejected.
    pub ejected_until: Option<String>,
    /// Milliseconds that the last connect took; null before the first.
    pub latency: Option<f64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When that was (RFC 3339).
    pub last_error_at: Option<String>,
    /// The last health check; null before the first.
    pub last_check: Option<CheckReport>,
    /// Bytes to the backend.
    pub bytes_in: u64,
    /// Bytes from the backend.
    pub bytes_out: u64,
}

/// First-byte times, in milliseconds: in mode http from the request, in mode tcp from the client's first byte, or from
/// the connect where the backend speaks first; of each connection the first.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FirstByteReport {
    /// A mean of the last seconds.
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// One health check.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CheckReport {
    /// RFC 3339.
    pub time: String,
    /// `success`, `standby`, `failure`, or `skipped`: this machine had no file or no port for it.
    pub result: String,
    /// What was wrong; null: nothing.
    pub reason: Option<String>,
    /// Milliseconds that it took.
    pub took: f64,
}

impl PoolsReport {
    pub(in crate::admin) fn new(view: &View) -> Self {
        let now = Instant::now();
        let shown = view.shown.load();
        Self { pools: shown.pools.iter().map(|pool| PoolReport::new(pool, &view.history, now)).collect() }
    }
}

impl PoolReport {
    /// Whether it has backends, and none is usable.
    pub fn is_down(&self) -> bool {
        self.outage_since.is_some()
    }

    fn new(pool: &Pool, history: &History, now: Instant) -> Self {
        let failed = pool.failures().totals();
        Self {
            name: pool.name().to_owned(),
            policy: pool.settings().policy,
            service: pool.service().as_str().to_owned(),
            usable: pool.usable(),
            waiting: pool.waiting(),
            retries: pool.retries(),
            outage_since: pool.outage_since().map(|since| rfc3339(since).to_string()),
            failed: failed.all(),
            failures: failures(failed),
            backends: pool.backends().iter().map(|backend| BackendReport::new(backend, history, now)).collect(),
            unresolved: pool.unresolved().iter().map(UnresolvedReport::new).collect(),
        }
    }
}

impl UnresolvedReport {
    fn new(unresolved: &Unresolved) -> Self {
        Self { name: unresolved.name.clone(), error: unresolved.error.clone() }
    }
}

impl BackendReport {
    pub(super) fn new(backend: &Backend, history: &History, now: Instant) -> Self {
        let snapshot = backend.snapshot(now);
        Self {
            address: backend.label().to_owned(),
            weight: backend.weight(),
            backup: backend.rank() > 0,
            rank: backend.rank(),
            max_connections: backend.max_connections().map(NonZeroUsize::get),
            state: snapshot.state.as_str().to_owned(),
            since: snapshot.since.map(|since| rfc3339(since).to_string()),
            reason: snapshot.reason.clone(),
            next: snapshot.next.clone(),
            active: snapshot.active,
            total: snapshot.total,
            failures: snapshot.failures(),
            requests: snapshot.requests(),
            answers: answers(&snapshot),
            first_byte: history.first_byte(backend.id()).map(FirstByteReport::new),
            ejections: snapshot.ejections.values().sum(),
            ejected_until: snapshot.ejected_for.map(rfc3339_in),
            // Microseconds divided by a thousand: no digits that nothing measured.
            latency: snapshot.last_connect.map(|took| took.as_micros() as f64 / 1e3),
            last_error: snapshot.last_error.as_ref().map(|(error, _)| error.clone()),
            last_error_at: snapshot.last_error.as_ref().map(|(_, at)| rfc3339(*at).to_string()),
            last_check: snapshot.last_check.as_ref().map(CheckReport::new),
            bytes_in: snapshot.bytes.to_backend,
            bytes_out: snapshot.bytes.to_client,
        }
    }
}

/// To requests, by class.
fn answers(snapshot: &BackendSnapshot) -> BTreeMap<String, u64> {
    let classes = Answer::ALL.iter().filter(|class| **class != Answer::Byte);
    let counts = classes.map(|class| (class.as_str().to_owned(), snapshot.answers[*class as usize]));
    counts.filter(|(_, count)| *count > 0).collect()
}

impl FirstByteReport {
    fn new(times: FirstByte) -> Self {
        let milliseconds = |time: Duration| time.as_micros() as f64 / 1e3;
        Self { mean_ms: milliseconds(times.mean), p50_ms: milliseconds(times.p50), p99_ms: milliseconds(times.p99) }
    }
}

impl CheckReport {
    fn new(check: &LastCheck) -> Self {
        Self {
            time: rfc3339(check.at).to_string(),
            result: check.result.as_str().to_owned(),
            reason: (!check.reason.is_empty()).then(|| check.reason.clone()),
            took: check.took.as_micros() as f64 / 1e3,
        }
    }
}

fn rfc3339_in(wait: Duration) -> String {
    rfc3339(SystemTime::now() + wait).to_string()
}
