//! /metrics: the workers' counters, added up and rendered for Prometheus.
//!
//! The series of a listener come from one summing-up, so they agree: accepted = closed + rejected + active. Histograms
//! are summed up after that, and may be a few connections ahead.

mod backends;
mod exposition;
mod process;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::runtime::RuntimeMetrics;

use crate::backends::Pool;
use crate::telemetry::metric;
use crate::telemetry::{AcceptError, Cause, HandshakeTotals, ListenerStats, ListenerTotals, Rejection, log_writer};

use super::view::{ShownListener, View};
use exposition::Exposition;

/// Renders the process's metrics.
#[derive(Debug)]
pub struct Exporter {
    handle: PrometheusHandle,
    /// One scrape at a time: the next must not change a number between two lines of this one.
    scraping: Mutex<()>,
    /// When the process started.
    started: SystemTime,
}

impl Exporter {
    /// Becomes the recorder of the whole process.
    ///
    /// # Errors
    /// Another recorder was installed before.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            // Each scrape sets every counter and gauge anew. What wasn't set since the last one belongs to a listener
            // or pool that is gone.
            .idle_timeout(MetricKindMask::COUNTER | MetricKindMask::GAUGE, Some(Duration::ZERO))
            .install_recorder()?;
        metric::describe();
        Ok(Self { handle, scraping: Mutex::new(()), started: SystemTime::now() })
    }

    /// The text exposition of everything.
    pub(in crate::admin) fn render(&self, view: &View) -> String {
        let _one_at_a_time = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        collect_process(view);
        let shown = view.shown.load();
        let present: Vec<_> = shown.listeners.iter().filter(|listener| !listener.is_gone()).collect();
        present.iter().for_each(|listener| collect_listener(&listener.stats));
        present.iter().for_each(|listener| collect_certificates(listener));
        shown.pools.iter().for_each(|pool| collect_pool(pool));
        let mut text = Exposition::after(self.handle.render());
        backends::write(&shown.pools, &mut text);
        write_histograms(&present, &shown.pools, &mut text);
        process::write(self.started, &mut text);
        text.into_text()
    }
}

/// The exporter's own histograms can't be taken away while somebody may record: these end with their listener or pool.
fn write_histograms(listeners: &[&ShownListener], pools: &[Arc<Pool>], text: &mut Exposition) {
    let all = listeners.iter().map(|listener| &*listener.stats);
    text.histograms(metric::CONNECTION_DURATION, "listener", all.map(|of| (&*of.name, &of.connection_duration)));
    let http = listeners.iter().filter(|listener| listener.is_http()).map(|listener| &*listener.stats);
    text.histograms(metric::HTTP_REQUEST_DURATION, "listener", http.map(|of| (&*of.name, &of.request_duration)));
    let connect = pools.iter().map(|pool| (pool.name(), &pool.histograms().connect));
    text.histograms(metric::CONNECT_DURATION, "pool", connect);
    let first_byte = pools.iter().map(|pool| (pool.name(), &pool.histograms().first_byte));
    text.histograms(metric::FIRST_BYTE_DURATION, "pool", first_byte);
}

#[allow(clippy::cast_precision_loss, reason = "gauges are f64 by the format; counts below 2^53 stay exact")]
fn collect_process(view: &View) {
    gauge!(metric::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(metric::DRAINING).set(f64::from(u8::from(view.is_draining())));
    let tasks: usize = view.runtimes.get().into_iter().flatten().map(RuntimeMetrics::num_alive_tasks).sum();
    gauge!(metric::TASKS).set(tasks as f64);
    gauge!(metric::MAX_CONNECTIONS).set(view.connections.max() as f64);
    for (result, count) in view.reloads.counts() {
        counter!(metric::RELOADS, "result" => result).absolute(count);
    }
    for (state, pipes) in [("open", view.pipes.open()), ("refused", view.pipes.refused())] {
        gauge!(metric::SPLICE_PIPES, "state" => state).set(pipes as f64);
    }
    for (engine, workers) in [("io_uring", view.engine.rings()), ("epoll", view.engine.without_ring())] {
        gauge!(metric::RELAY_ENGINE, "engine" => engine).set(f64::from(u8::from(workers > 0)));
    }
    counter!(metric::SPLICED_BYTES).absolute(view.pipes.spliced_bytes());
    let last_went_well = view.reloads.last().is_none_or(|last| last.result.is_ok());
    gauge!(metric::LAST_RELOAD).set(f64::from(u8::from(last_went_well)));
    for (reason, count) in view.guard.refused() {
        counter!(metric::ADMIN_REFUSED, "reason" => reason).absolute(count);
    }
    if let Some(log) = &view.access_log {
        counter!(metric::ACCESS_LOG_DROPPED).absolute(log.lost());
    }
    if let Some(log) = log_writer() {
        counter!(metric::LOG_DROPPED).absolute(log.lost());
    }
}

#[allow(clippy::cast_precision_loss, reason = "gauges are f64 by the format; counts below 2^53 stay exact")]
fn collect_listener(stats: &ListenerStats) {
    let listener = || stats.name.clone();
    let totals = ListenerTotals::sum(&stats.counters);
    counter!(metric::ACCEPTED, "listener" => listener()).absolute(totals.accepted);
    gauge!(metric::ACTIVE, "listener" => listener()).set(totals.active() as f64);
    for cause in Cause::ALL {
        let closed = counter!(metric::CLOSED, "listener" => listener(), "reason" => cause.as_str());
        closed.absolute(totals.closed[*cause as usize]);
    }
    for reason in Rejection::ALL {
        let rejected = counter!(metric::REJECTED, "listener" => listener(), "reason" => reason.as_str());
        rejected.absolute(totals.rejected[*reason as usize]);
    }
    for reason in AcceptError::ALL {
        let errors = counter!(metric::ACCEPT_ERRORS, "listener" => listener(), "reason" => reason.as_str());
        errors.absolute(totals.accept_errors[*reason as usize]);
    }
    for ((status, answerer), requests) in totals.requests {
        let labels = [("listener", listener()), ("code", status.to_string()), ("origin", answerer.as_str().to_owned())];
        counter!(metric::HTTP_REQUESTS, &labels).absolute(requests);
    }
    for (failure, count) in totals.failures.by_why() {
        counter!(metric::FAILED, "listener" => listener(), "reason" => failure.as_str()).absolute(count);
    }
    for (result, version, resumed, count) in totals.handshakes.iter().flat_map(handshakes) {
        let labels = [("listener", listener()), ("result", result), ("version", version), ("resumed", resumed)];
        counter!(metric::TLS_HANDSHAKES, &labels).absolute(count);
    }
    counter!(metric::BYTES, "listener" => listener(), "direction" => "in").absolute(totals.bytes.to_backend);
    counter!(metric::BYTES, "listener" => listener(), "direction" => "out").absolute(totals.bytes.to_client);
}

/// Result, version, whether it was resumed, and how many there were. Failures agreed on nothing.
fn handshakes(totals: &HandshakeTotals) -> impl Iterator<Item = (String, String, String, u64)> {
    let worked = totals.worked().map(|(kind, count)| {
        let version = if kind.is_tls13 { "TLSv1.3" } else { "TLSv1.2" };
        ("ok".to_owned(), version.to_owned(), kind.is_resumed.to_string(), count)
    });
    let failed =
        totals.failed().map(|(why, count)| (why.as_str().to_owned(), String::new(), "false".to_owned(), count));
    worked.chain(failed)
}

/// Of several with one name, as of RSA and ECDSA, the first to expire counts.
fn collect_certificates(listener: &ShownListener) {
    let Some(tls) = &listener.tls else { return };
    let mut by_name: BTreeMap<String, f64> = BTreeMap::new();
    for certificate in tls.loaded().certificates() {
        let expires = certificate.expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let first = by_name.entry(certificate.name.clone()).or_insert(expires);
        *first = first.min(expires);
    }
    for (name, expires) in by_name {
        gauge!(metric::CERTIFICATE_EXPIRY, "listener" => listener.stats.name.clone(), "name" => name).set(expires);
    }
}

#[allow(clippy::cast_precision_loss, reason = "gauges are f64 by the format; counts below 2^53 stay exact")]
fn collect_pool(pool: &Pool) {
    gauge!(metric::POOL_USABLE, "pool" => pool.name().to_owned()).set(pool.usable() as f64);
    gauge!(metric::POOL_QUEUE, "pool" => pool.name().to_owned()).set(pool.waiting() as f64);
    counter!(metric::RETRIES, "pool" => pool.name().to_owned()).absolute(pool.retries());
    for (failure, count) in pool.failures().totals().by_why() {
        let failed = counter!(metric::POOL_FAILED, "pool" => pool.name().to_owned(), "reason" => failure.as_str());
        failed.absolute(count);
    }
}
