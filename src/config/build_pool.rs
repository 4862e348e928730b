//! The part of `build` that makes pools: backends, detection, checks, limits.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::build::{check_name, parsed, positive};
use super::mirror::{BackendSpec, FailureDetectionSpec, HealthCheckSpec, HttpCheckSpec, PoolSpec, ResolveSpec};
use super::report::Reporter;
use super::units::{DurationText, OffOr};
use super::{BackendAddress, BackendConfig, FailureDetection, HealthCheck, HttpCheck, PoolConfig, Queue, Resolve, Tcp};

/// The largest weight; sums of them stay small.
const MAX_WEIGHT: u16 = 256;
/// More attempts than this for one client would be a storm.
const MAX_ATTEMPTS: usize = 16;
/// Failures counted within a window at most; the window remembers each.
const MAX_FAILURES: usize = 1000;
/// Results of health checks in a row at most.
const MAX_RESULTS: usize = 1000;
/// Tables of the policies number backends in 16 bits.
const MAX_BACKENDS: usize = 10_000;
/// The port of DNS (RFC 1035, 4.2).
const DNS_PORT: u16 = 53;

pub(super) fn build_pool(name: &str, pool: &PoolSpec, report: &mut Reporter) -> Option<PoolConfig> {
    let path = format!("pools.{name}");
    let at = |key: &str| format!("{path}.{key}");
    check_name(&path, name, report);
    let backends = build_backends(&at("backends"), &pool.backends, report);
    let attempts = within(&at("attempts"), pool.attempts, MAX_ATTEMPTS, report);
    let failure_detection = match pool.failure_detection {
        OffOr::Off => None,
        OffOr::On(settings) => build_detection(&at("failure_detection"), settings, report),
    };
    let health_check = match &pool.health_check {
        OffOr::Off => None,
        OffOr::On(settings) => build_check(&at("health_check"), settings, report),
    };
    let source = pool.source.0.iter().filter_map(|text| parse_source(&at("source"), text, report)).collect();
    Some(PoolConfig {
        name: name.to_owned(),
        policy: pool.policy,
        backends,
        connect_timeout: positive(&at("connect_timeout"), pool.connect_timeout, report),
        attempts: attempts?,
        retry_budget: pool.retry_budget.0,
        queue: Queue { length: pool.queue.length, timeout: positive(&at("queue.timeout"), pool.queue.timeout, report) },
        failure_detection,
        health_check,
        slow_start: pool.slow_start.0,
        source,
        send_proxy: pool.send_proxy,
        resolve: build_resolve(&at("resolve"), &pool.resolve, report),
        tcp: Tcp {
            keepalive: some_unless_zero(pool.tcp.keepalive),
            nodelay: pool.tcp.nodelay,
            user_timeout: some_unless_zero(pool.tcp.user_timeout),
        },
    })
}

fn build_backends(path: &str, backends: &[BackendSpec], report: &mut Reporter) -> Vec<BackendConfig> {
    if backends.is_empty() {
        report.problem(path, "is empty: add at least one, such as [127.0.0.1:3001]");
    }
    if backends.len() > MAX_BACKENDS {
        report.problem(path, format!("has {} backends; at most {MAX_BACKENDS}", backends.len()));
    }
    let mut seen = HashMap::new();
    let mut build = |(index, backend)| build_backend(&format!("{path}[{index}]"), backend, &mut seen, report);
    backends.iter().enumerate().filter_map(&mut build).collect()
}

fn build_backend(
    path: &str,
    backend: &BackendSpec,
    seen: &mut HashMap<BackendAddress, String>,
    report: &mut Reporter,
) -> Option<BackendConfig> {
    if backend.weight > MAX_WEIGHT {
        let message = format!("must be from 0 to {MAX_WEIGHT} (0 takes no new connections)");
        report.problem(&format!("{path}.weight"), message);
    }
    let address: BackendAddress = parsed(path, &backend.address, report)?;
    if let Some(first) = seen.insert(address.clone(), path.to_owned()) {
        let message = format!(
            "`{address}` stands twice (first as {}); remove one, and use weight for a larger share",
            report.shown(&first)
        );
        report.problem(path, message);
    }
    let max_connections = NonZeroUsize::new(backend.max_connections);
    Some(BackendConfig { address, weight: backend.weight, backup: backend.backup, max_connections })
}

fn build_detection(path: &str, settings: FailureDetectionSpec, report: &mut Reporter) -> Option<FailureDetection> {
    let failures_path = format!("{path}.failures");
    if settings.failures == 0 {
        report.problem(&failures_path, "must be at least 1; to switch detection off write `failure_detection: off`");
    }
    let failures = within(&failures_path, settings.failures, MAX_FAILURES, report);
    let ejection = positive(&format!("{path}.ejection"), settings.ejection, report);
    let max_ejection = positive(&format!("{path}.max_ejection"), settings.max_ejection, report);
    if max_ejection < ejection {
        let message = format!("must be at least `ejection` ({})", settings.ejection);
        report.problem(&format!("{path}.max_ejection"), message);
    }
    Some(FailureDetection {
        failures: failures?,
        window: positive(&format!("{path}.window"), settings.window, report),
        ejection,
        max_ejection,
        count_early_close: settings.count_early_close,
        count_5xx: settings.count_5xx,
    })
}

fn build_check(path: &str, settings: &HealthCheckSpec, report: &mut Reporter) -> Option<HealthCheck> {
    let interval = positive(&format!("{path}.interval"), settings.interval, report);
    let timeout = positive(&format!("{path}.timeout"), settings.timeout, report);
    let rise = within(&format!("{path}.rise"), settings.rise, MAX_RESULTS, report);
    let fall = within(&format!("{path}.fall"), settings.fall, MAX_RESULTS, report);
    let http = settings.http.as_ref().map(|http| build_http_check(&format!("{path}.http"), http, report));
    Some(HealthCheck { interval, timeout, rise: rise?, fall: fall?, http })
}

fn build_http_check(path: &str, http: &HttpCheckSpec, report: &mut Reporter) -> HttpCheck {
    if !http.path.starts_with('/') || !http.path.bytes().all(|byte| byte.is_ascii_graphic()) {
        report.problem(&format!("{path}.path"), "must start with `/` and have no spaces, such as /healthz");
    }
    if http.host.as_ref().is_some_and(|host| host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic())) {
        report.problem(&format!("{path}.host"), "must be a host name, such as app.internal");
    }
    let mut status = Vec::new();
    for text in &http.status.0 {
        match parse_statuses(text) {
            Some(range) => status.push(range),
            None => report
                .problem(&format!("{path}.status"), format!("`{text}` is no range of statuses; write 200 or 200-399")),
        }
    }
    HttpCheck { path: http.path.clone(), host: http.host.clone(), status }
}

fn parse_statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
    (*range.start() >= 100 && *range.end() <= 599 && !range.is_empty()).then_some(range)
}

fn build_resolve(path: &str, resolve: &ResolveSpec, report: &mut Reporter) -> Resolve {
    let min_ttl = positive(&format!("{path}.min_ttl"), resolve.min_ttl, report);
    let max_ttl = resolve.max_ttl.0;
    if max_ttl < min_ttl {
        report.problem(&format!("{path}.max_ttl"), format!("must be at least `min_ttl` ({})", resolve.min_ttl));
    }
    let mut nameservers = Vec::new();
    for text in &resolve.nameservers.0 {
        let with_port = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
        match text.parse::<SocketAddr>().or_else(|_| with_port()) {
            Ok(server) => nameservers.push(server),
            Err(_) => report.problem(&format!("{path}.nameservers"), format!("`{text}` is not IP or IP:port")),
        }
    }
    Resolve { min_ttl, max_ttl: max_ttl.max(min_ttl), nameservers }
}

fn parse_source(path: &str, text: &str, report: &mut Reporter) -> Option<IpAddr> {
    let wrong = |_| report.problem(path, format!("`{text}` is not an IP address of this machine, such as 10.0.0.5"));
    text.parse().map_err(wrong).ok()
}

fn within(path: &str, number: usize, max: usize, report: &mut Reporter) -> Option<NonZeroUsize> {
    if number == 0 || number > max {
        report.problem(path, format!("must be from 1 to {max}"));
    }
    NonZeroUsize::new(number)
}

fn some_unless_zero(duration: DurationText) -> Option<Duration> {
    (!duration.0.is_zero()).then_some(duration.0)
}
