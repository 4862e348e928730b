//! The answers of the API: what is true now, as JSON.

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::backends::Backend;
use crate::config::PolicyKind;

use super::server::View;

/// `GET /api/v1/status`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StatusReport {
    #[allow(missing_docs)]
    pub version: String,
    /// Since the start.
    pub uptime_seconds: f64,
    /// Worker threads.
    pub workers: usize,
    #[allow(missing_docs)]
    pub connections: ConnectionsReport,
    /// Asked to stop.
    pub draining: bool,
}

/// Client connections of the process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ConnectionsReport {
    /// Now.
    pub active: usize,
    /// At most.
    pub max: usize,
}

/// `GET /api/v1/pools`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PoolsReport {
    /// In the order of their names.
    pub pools: Vec<PoolReport>,
}

/// One pool.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PoolReport {
    #[allow(missing_docs)]
    pub name: String,
    /// How the next backend is chosen.
    pub policy: PolicyKind,
    /// In the order of the configuration.
    pub backends: Vec<BackendReport>,
}

/// One backend.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BackendReport {
    #[allow(missing_docs)]
    pub address: String,
    #[allow(missing_docs)]
    pub weight: u16,
    #[allow(missing_docs)]
    pub backup: bool,
    /// `up`, `ejected`, `probing` or `down`.
    pub state: String,
    /// Connections that live now.
    pub active: usize,
    /// Connections made so far.
    pub total: u64,
    /// Failures so far: connects that failed by its fault, and early closes.
    pub failures: u64,
    /// When a connection may probe it (RFC 3339); null unless ejected.
    pub ejected_until: Option<String>,
    /// Milliseconds that the last connect took; null before the first.
    pub latency: Option<f64>,
}

impl StatusReport {
    pub(super) fn of(view: &View) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: view.started.elapsed().as_secs_f64(),
            workers: view.workers,
            connections: ConnectionsReport { active: view.connections.active(), max: view.connections.max() },
            draining: view.is_draining(),
        }
    }
}

impl PoolsReport {
    pub(super) fn of(view: &View) -> Self {
        let now = Instant::now();
        let pools = view
            .pools
            .iter()
            .map(|pool| PoolReport {
                name: pool.name().to_owned(),
                policy: pool.settings().policy,
                backends: pool.backends().iter().map(|backend| BackendReport::of(backend, now)).collect(),
            })
            .collect();
        Self { pools }
    }
}

impl BackendReport {
    fn of(backend: &Backend, now: Instant) -> Self {
        let (identity, snapshot) = (backend.identity(), backend.snapshot(now));
        Self {
            address: backend.label().to_owned(),
            weight: identity.weight,
            backup: identity.backup,
            state: snapshot.state.word().to_owned(),
            active: snapshot.active,
            total: snapshot.total,
            failures: snapshot.failures(),
            ejected_until: snapshot.ejected_for.map(rfc3339_in),
            // Microseconds divided by a thousand: no digits that nothing measured.
            latency: snapshot.last_connect.map(|took| took.as_micros() as f64 / 1e3),
        }
    }
}

fn rfc3339_in(wait: Duration) -> String {
    humantime::format_rfc3339_millis(SystemTime::now() + wait).to_string()
}
