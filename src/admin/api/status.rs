//! `GET /api/v1/status`: the process and its listeners.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::relay::{Engine, Pipes};
use crate::telemetry::{ListenerTotals, rfc3339};
use crate::tls;

use super::super::authorization::Reach;
use super::super::view::{LastReload, ShownListener, View};
use super::failures::failures;

/// `GET /api/v1/status`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StatusReport {
    pub version: String,
    /// The process's id.
    pub pid: u32,
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
    /// Whether there is a token; without one, where changes need it, there are none.
    pub has_token: bool,
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
    /// Requests so far; 0 in mode tcp.
    pub requests: u64,
    /// Clients, in mode http requests, that were not served so far.
    pub failed: u64,
    /// Those by why, as of a pool.
    pub failures: BTreeMap<String, u64>,
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

impl StatusReport {
    pub(in crate::admin) fn new(view: &View, reach: Reach) -> Self {
        let shown = view.shown.load();
        let listeners = shown.listeners.iter();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: view.started.elapsed().as_secs_f64(),
            workers: view.workers,
            connections: ConnectionsReport { active: view.connections.active(), max: view.connections.max() },
            engine: EngineReport::new(&view.engine),
            splice: SpliceReport::new(&view.pipes),
            draining: view.is_draining(),
            ready: view.unready().is_none(),
            unready_reason: view.unready(),
            may_post: view.guard.is_open(reach),
            has_token: view.guard.has_token(),
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
            requests: totals.requests.values().sum(),
            failed: totals.failures.all(),
            failures: failures(totals.failures),
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
