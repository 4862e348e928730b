//! The answers of the API: what is true now, as JSON.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::backends::{Backend, LastCheck, Unresolved};
use crate::config::Policy;
use crate::relay::{Engine, Pipes};
use crate::telemetry::{ListenerTotals, rfc3339};
use crate::tls;

use super::authorization::Reach;
use super::view::{LastReload, ShownListener, View};

/// `GET /api/v1/status`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StatusReport {
    pub version: String,
    /// Since the start.
    pub uptime_seconds: f64,
    /// Worker threads.
    pub workers: usize,
    pub connections: ConnectionsReport,
    /// What hands small sends to the kernel.
    pub engine: EngineReport,
    /// How bulk is moved inside the kernel.
    pub splice: SpliceReport,
    /// Whether it drains: it was asked to stop.
    pub draining: bool,
    /// Whether it should get traffic, as in /readyz.
    pub ready: bool,
    /// Why it is not ready; null while it is.
    pub unready_reason: Option<String>,
    /// Whether changes need no token here.
    pub may_post: bool,
    /// Null: flags and variables alone configure it.
    pub config_file: Option<String>,
    /// Null before the first.
    pub last_reload: Option<ReloadReport>,
    /// Ids of the processes that upgrades have left behind and that still have connections, the oldest first.
    pub former_processes: Vec<i32>,
    /// In the order of their names; at the end removed ones that still have connections.
    pub listeners: Vec<ListenerReport>,
}

/// How the last reload went.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ReloadReport {
    /// RFC 3339.
    pub time: String,
    /// `success` or `failure`.
    pub result: String,
    /// What it changed, or why it changed nothing.
    pub message: String,
}

/// One listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ListenerReport {
    pub name: String,
    /// Where it listens, with the ports that the kernel chose; empty: a reload has removed it, and it still has
    /// connections.
    pub addresses: Vec<String>,
    /// `tcp` or `http`.
    pub mode: String,
    /// The pool that serves it; null: only its routes have pools.
    pub pool: Option<String>,
    /// Open connections.
    pub active: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections closed so far.
    pub closed: u64,
    /// Connections rejected so far, after accept.
    pub rejected: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Null: it ends no TLS.
    pub tls: Option<TlsReport>,
}

/// A listener's TLS.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TlsReport {
    /// In the order of the configuration.
    pub certificates: Vec<CertificateReport>,
    /// Why its files can't be used as they are now, while what they held before is; null: they are in use.
    pub problem: Option<String>,
}

/// One certificate.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CertificateReport {
    /// The first of its host names, or its subject.
    pub name: String,
    /// Host names that it is for.
    pub names: Vec<String>,
    /// RFC 3339.
    pub expires: String,
    /// Whether that is in less than 30 days, or past.
    pub expires_soon: bool,
}

/// Client connections of the process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ConnectionsReport {
    /// Open now.
    pub active: usize,
    /// The limit of open ones.
    pub max: usize,
}

/// What hands small sends to the kernel.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EngineReport {
    /// io_uring or epoll.
    pub name: String,
    /// Why this one.
    pub reason: String,
    /// Workers that use io_uring. Those whose ring failed use epoll.
    pub rings: usize,
}

/// The workers' pipes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SpliceReport {
    /// Open ones; at most one a worker.
    pub pipes: usize,
    /// Those that the system refuses; their workers copy.
    pub refused: usize,
    /// What the open ones hold at most, together.
    pub pipe_bytes: usize,
    /// Bytes that went through them so far.
    pub spliced_bytes: u64,
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
    pub name: String,
    /// How the next backend is chosen.
    pub policy: Policy,
    /// `served`; `refused`: no backend may be used; `all_tried`: none passes its health check.
    pub service: String,
    /// Backends that get new connections.
    pub usable: usize,
    /// Clients in the queue.
    pub waiting: usize,
    /// Retries so far: further backends tried.
    pub retries: u64,
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
    /// Why it is ejected, probing, down, standby or waiting; null in the other states.
    pub reason: Option<String>,
    /// Open connections; in mode http, requests under way.
    pub active: usize,
    /// Connections made so far.
    pub total: u64,
    /// Failures so far: connects that failed by its fault, and connections (in mode http requests) that ended badly.
    pub failures: u64,
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

impl StatusReport {
    pub(super) fn new(view: &View, reach: Reach) -> Self {
        let shown = view.shown.load();
        let listeners = shown.listeners.iter();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: view.started.elapsed().as_secs_f64(),
            workers: view.workers,
            connections: ConnectionsReport { active: view.connections.active(), max: view.connections.max() },
            engine: EngineReport::new(&view.engine),
            splice: SpliceReport::new(&view.pipes),
            draining: view.is_draining(),
            ready: view.unready().is_none(),
            unready_reason: view.unready(),
            may_post: view.guard.is_open(reach),
            config_file: view.config_file.clone(),
            last_reload: view.reloads.last().map(|last| ReloadReport::new(&last)),
            former_processes: view.former_processes.pids(),
            listeners: listeners.filter(|listener| !listener.is_gone()).map(ListenerReport::new).collect(),
        }
    }
}

impl EngineReport {
    fn new(engine: &Engine) -> Self {
        Self { name: engine.name().to_owned(), reason: engine.reason().to_owned(), rings: engine.rings() }
    }
}

impl SpliceReport {
    fn new(pipes: &Pipes) -> Self {
        Self {
            pipes: pipes.open(),
            refused: pipes.refused(),
            pipe_bytes: pipes.open_bytes(),
            spliced_bytes: pipes.spliced_bytes(),
        }
    }
}

impl ReloadReport {
    fn new(last: &LastReload) -> Self {
        let (result, message) = match &last.result {
            Ok(what) => ("success", what),
            Err(why) => ("failure", why),
        };
        Self { time: rfc3339(last.at).to_string(), result: result.to_owned(), message: message.clone() }
    }
}

impl ListenerReport {
    fn new(listener: &ShownListener) -> Self {
        let totals = ListenerTotals::sum(&listener.stats.counters);
        Self {
            name: listener.stats.name.clone(),
            addresses: listener.addresses.clone(),
            mode: listener.mode.to_owned(),
            pool: listener.pool.clone(),
            active: totals.active(),
            accepted: totals.accepted,
            closed: totals.closed.iter().sum(),
            rejected: totals.rejected.iter().sum(),
            bytes_in: totals.bytes.to_backend,
            bytes_out: totals.bytes.to_client,
            tls: listener.tls.as_ref().map(TlsReport::new),
        }
    }
}

impl TlsReport {
    fn new(server: &tls::Server) -> Self {
        let now = SystemTime::now();
        let certificates = server.loaded().certificates().map(|it| CertificateReport::new(it, now)).collect();
        Self { certificates, problem: server.problem().map(|problem| problem.to_string()) }
    }
}

impl CertificateReport {
    fn new(certificate: &tls::Certificate, now: SystemTime) -> Self {
        Self {
            name: certificate.name.clone(),
            names: certificate.names.clone(),
            expires: rfc3339(certificate.expires).to_string(),
            expires_soon: certificate.expires_soon(now),
        }
    }
}

impl PoolsReport {
    pub(super) fn new(view: &View) -> Self {
        let now = Instant::now();
        let shown = view.shown.load();
        let pools = shown
            .pools
            .iter()
            .map(|pool| PoolReport {
                name: pool.name().to_owned(),
                policy: pool.settings().policy,
                service: pool.service().as_str().to_owned(),
                usable: pool.usable(),
                waiting: pool.waiting(),
                retries: pool.retries(),
                backends: pool.backends().iter().map(|backend| BackendReport::new(backend, now)).collect(),
                unresolved: pool.unresolved().iter().map(UnresolvedReport::new).collect(),
            })
            .collect();
        Self { pools }
    }
}

impl UnresolvedReport {
    fn new(unresolved: &Unresolved) -> Self {
        Self { name: unresolved.name.clone(), error: unresolved.error.clone() }
    }
}

impl BackendReport {
    fn new(backend: &Backend, now: Instant) -> Self {
        let snapshot = backend.snapshot(now);
        Self {
            address: backend.label().to_owned(),
            weight: backend.weight(),
            backup: backend.rank() > 0,
            rank: backend.rank(),
            max_connections: backend.max_connections().map(NonZeroUsize::get),
            state: snapshot.state.as_str().to_owned(),
            reason: snapshot.reason.clone(),
            active: snapshot.active,
            total: snapshot.total,
            failures: snapshot.failures(),
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
