//! A pool from an `upstream`, or from the address that `proxy_pass` names, with the settings of the block around it.

use std::collections::BTreeMap;

use crate::config::file::backup::BackupRank;
use crate::config::file::off::OffOr;
use crate::config::file::pool::{BackendSpec, FailureDetectionSpec, PoolSpec, SendProxy};
use crate::config::file::units::{OneOrMany, TextOrBlock};
use crate::config::{AddressFamily, Policy};
use crate::import::note::{Notes, Place};
use crate::import::treatment::{note_left_out, treatment_of};
use crate::import::values::{MAX_ATTEMPTS, MAX_WEIGHT, positive};

use super::directives::SERVER_PARAMETERS;
use super::tree::{Directive, Scope};
use super::values::{backend, time};

/// The upstreams of a block, by name.
pub struct Upstreams<'a>(BTreeMap<&'a str, &'a Directive>);

/// What a server in an upstream says of the detection of its failures.
struct Detection<'a> {
    place: &'a Place,
    /// `None`: nginx's default.
    max_fails: Option<usize>,
    fail_timeout: Option<std::time::Duration>,
}

impl<'a> Upstreams<'a> {
    pub fn of(scope: &Scope<'a>) -> Self {
        Self(scope.all("upstream").into_iter().map(|upstream| (upstream.arg(0), upstream)).collect())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The block of an upstream; empty for an address.
    pub fn block(&self, name: &str) -> &'a [Directive] {
        self.0.get(name).map_or(&[], |upstream| upstream.inner())
    }

    /// The pool that `target` names: an upstream, or an address, to which `port` belongs if it has none.
    ///
    /// # Errors
    /// It is neither, or has no server.
    pub fn pool(
        &self,
        target: &str,
        port: Option<u16>,
        scope: &Scope<'a>,
        notes: &mut Notes,
    ) -> Result<PoolSpec, String> {
        let mut pool = PoolSpec::default();
        match self.0.get(target) {
            Some(upstream) => fill_from_upstream(&mut pool, upstream, port, notes)?,
            None => pool.backends.push(plain(&backend(target, port)?.to_string())),
        }
        set(&mut pool, scope, is_resolved_again(self.block(target), scope), notes);
        Ok(pool)
    }
}

/// The pool of hosts that clients name.
pub fn of_hosts(scope: &Scope<'_>, notes: &mut Notes) -> PoolSpec {
    let mut pool = PoolSpec::default();
    set(&mut pool, scope, true, notes);
    pool
}

/// What a pool has from the block around it.
fn set(pool: &mut PoolSpec, scope: &Scope<'_>, is_resolved_again: bool, notes: &mut Notes) {
    set_attempts(pool, scope, notes);
    if let Some(timeout) = time(scope.word("proxy_connect_timeout")) {
        pool.connect_timeout = positive(timeout);
    }
    if let Some(resolver) = scope.one("resolver").filter(|_| is_resolved_again) {
        set_resolver(pool, resolver);
    }
    if scope.word("proxy_protocol") == "on" {
        pool.send_proxy = SendProxy::V1;
    }
    if scope.word("tcp_nodelay") == "off" {
        pool.tcp.nodelay = false;
    }
    set_source(pool, scope, notes);
}

fn plain(address: &str) -> BackendSpec {
    BackendSpec::from_text(address).expect("every text is a backend's short form")
}

fn fill_from_upstream(
    pool: &mut PoolSpec,
    upstream: &Directive,
    port: Option<u16>,
    notes: &mut Notes,
) -> Result<(), String> {
    let block = Scope::of(upstream.inner());
    let mut detections = Vec::new();
    let mut weights = Vec::new();
    for server in upstream.inner().iter().filter(|directive| directive.name == "server") {
        server.see();
        match read_server(server, port, pool, notes) {
            Ok((spec, weight, detection)) => {
                detections.push(detection);
                add_server(pool, &mut weights, spec, weight, server, notes);
            }
            Err(why) => notes.changes(&server.place, &server.text(), why),
        }
    }
    if pool.backends.is_empty() {
        return Err(format!("upstream `{}` has no server", upstream.arg(0)));
    }
    scale_weights(&mut pool.backends, &weights, &upstream.place, notes);
    set_detection(pool, &detections, notes);
    set_policy(pool, &block, notes);
    Ok(())
}

/// A server's line, its weight, and what it says of failures.
fn read_server<'a>(
    server: &'a Directive,
    port: Option<u16>,
    pool: &mut PoolSpec,
    notes: &mut Notes,
) -> Result<(BackendSpec, usize, Detection<'a>), String> {
    let value = |name: &str| server.args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| value(name).and_then(|text| text.parse::<usize>().ok());
    let address = match value("service") {
        // `service=http` is short for `_http._tcp`.
        Some(service) if service.contains('.') => format!("srv:{service}.{}", server.arg(0)),
        Some(service) => format!("srv:_{}._tcp.{}", service.trim_start_matches('_'), server.arg(0)),
        None => backend(server.arg(0), port)?.to_string(),
    };
    address.parse::<crate::config::BackendAddress>()?;
    let mut spec = plain(&address);
    for parameter in server.args.iter().skip(1) {
        let name = parameter.split('=').next().unwrap_or_default();
        let treatment = treatment_of(SERVER_PARAMETERS, name);
        match name {
            "backup" => spec.backup = BackupRank(1),
            "max_conns" => spec.max_connections = number(name).unwrap_or(0),
            "slow_start" => pool.slow_start.0 = value(name).and_then(time),
            _ if matches!(treatment, Some(crate::import::treatment::Treatment::Translated(_))) => {}
            _ => note_left_out(treatment, false, &server.place, &format!("server … {parameter}"), notes),
        }
    }
    let is_down = server.args.iter().any(|arg| arg == "down" || arg == "drain");
    let weight = if is_down { 0 } else { number("weight").unwrap_or(1) };
    let fail_timeout = value("fail_timeout").and_then(time);
    let detection = Detection { place: &server.place, max_fails: number("max_fails"), fail_timeout };
    Ok((spec, weight, detection))
}

/// A server that stands twice has twice the share.
fn add_server(
    pool: &mut PoolSpec,
    weights: &mut Vec<usize>,
    spec: BackendSpec,
    weight: usize,
    server: &Directive,
    notes: &mut Notes,
) {
    match pool.backends.iter().position(|other| other.address == spec.address) {
        None => {
            pool.backends.push(spec);
            weights.push(weight);
        }
        Some(at) if pool.backends[at].backup == spec.backup => weights[at] = weights[at].saturating_add(weight),
        Some(_) => notes.changes(&server.place, &server.text(), "the same server is a primary and a backup"),
    }
}

/// Weights as they are, or the same shares with smaller numbers.
pub fn scale_weights(backends: &mut [BackendSpec], weights: &[usize], place: &Place, notes: &mut Notes) {
    let most = weights.iter().copied().max().unwrap_or(1);
    if most > MAX_WEIGHT {
        notes.harmless(place, "weight", format!("weights are scaled so that the largest is {MAX_WEIGHT}"));
    }
    for (backend, weight) in backends.iter_mut().zip(weights) {
        let scaled = if most > MAX_WEIGHT {
            (*weight as u128 * MAX_WEIGHT as u128).div_ceil(most as u128)
        } else {
            *weight as u128
        };
        backend.weight = u16::try_from(scaled).unwrap_or(u16::MAX);
    }
}

/// nginx counts each server's failures by its own numbers, lb all of a pool by the same.
fn set_detection(pool: &mut PoolSpec, detections: &[Detection<'_>], notes: &mut Notes) {
    // nginx's defaults.
    let of = |one: &Detection<'_>| {
        (one.max_fails.unwrap_or(1), one.fail_timeout.unwrap_or(std::time::Duration::from_secs(10)))
    };
    let first = detections.iter().find(|one| one.max_fails.is_some() || one.fail_timeout.is_some());
    let Some(first) = first else { return };
    for other in detections.iter().filter(|other| of(other) != of(first)) {
        let why = format!("all servers of a pool have one `failure_detection`: that of line {}", first.place.line);
        if other.max_fails.is_some() || other.fail_timeout.is_some() {
            notes.changes(other.place, "server … max_fails fail_timeout", why);
        } else {
            notes.harmless(other.place, "server …", why);
        }
    }
    let (failures, time) = of(first);
    if failures == 0 || time.is_zero() {
        pool.failure_detection = OffOr::Off;
        return;
    }
    let time = positive(time);
    // nginx's ejection is as long each time.
    pool.failure_detection = OffOr::On(FailureDetectionSpec {
        failures: failures.min(1000),
        window: time,
        ejection: time,
        max_ejection: time,
        ..FailureDetectionSpec::default()
    });
}

fn set_policy(pool: &mut PoolSpec, block: &Scope<'_>, notes: &mut Notes) {
    if block.one("least_conn").is_some() {
        pool.policy = Policy::LeastConnections;
    }
    if block.one("ip_hash").is_some() {
        pool.policy = Policy::SourceHash;
    }
    if block.one("random").is_some() {
        pool.policy = Policy::RandomTwo;
    }
    if let Some(hash) = block.one("hash") {
        if matches!(hash.arg(0), "$remote_addr" | "$binary_remote_addr" | "${remote_addr}") {
            pool.policy = Policy::SourceHash;
        } else {
            notes.changes(&hash.place, &hash.text(), "lb hashes the client's address alone; connections go in turn");
        }
    }
}

/// nginx tries every server once, unless it is told otherwise.
fn set_attempts(pool: &mut PoolSpec, scope: &Scope<'_>, notes: &mut Notes) {
    let all = pool.backends.len().clamp(1, MAX_ATTEMPTS);
    pool.attempts = pool.attempts.max(all);
    if let Some(tries) = scope.word("proxy_next_upstream_tries").parse::<usize>().ok().filter(|tries| *tries > 0) {
        pool.attempts = tries.min(MAX_ATTEMPTS);
    }
    let Some(next) = scope.one("proxy_next_upstream") else { return };
    if next.arg(0) == "off" {
        pool.attempts = 1;
    }
    let known = ["on", "off", "error", "timeout", "invalid_header"];
    let others: Vec<&str> = next.args.iter().map(String::as_str).filter(|word| !known.contains(word)).collect();
    if !others.is_empty() {
        let why = format!(
            "another server is tried only while none took a byte of the request, not for {}",
            others.join(", ")
        );
        notes.changes(&next.place, &next.text(), why);
    }
}

/// Whether nginx would ask name servers while it runs, and not only at its start.
fn is_resolved_again(upstream: &[Directive], scope: &Scope<'_>) -> bool {
    upstream.is_empty() && scope.word("proxy_pass").contains('$')
        || upstream.iter().any(|server| server.args.iter().any(|arg| arg == "resolve"))
}

fn set_resolver(pool: &mut PoolSpec, resolver: &Directive) {
    let servers = resolver.args.iter().filter(|arg| !arg.contains('='));
    // One that is a name itself can't be asked for before another one is known.
    let is_address =
        |text: &&String| text.parse::<std::net::IpAddr>().is_ok() || text.parse::<std::net::SocketAddr>().is_ok();
    pool.resolve.nameservers = OneOrMany(servers.filter(is_address).cloned().collect());
    for parameter in &resolver.args {
        match parameter.split_once('=') {
            Some(("valid", valid)) => {
                if let Some(valid) = time(valid) {
                    pool.resolve.max_ttl = positive(valid.max(pool.resolve.min_ttl.0));
                }
            }
            Some(("ipv6", "off")) => pool.resolve.family = AddressFamily::Ipv4,
            Some(("ipv4", "off")) => pool.resolve.family = AddressFamily::Ipv6,
            _ => {}
        }
    }
}

fn set_source(pool: &mut PoolSpec, scope: &Scope<'_>, notes: &mut Notes) {
    let Some(bind) = scope.one("proxy_bind").filter(|bind| bind.arg(0) != "off") else { return };
    let address = bind.arg(0).split(':').next().unwrap_or_default();
    match address.parse::<std::net::IpAddr>() {
        Ok(address) if bind.args.len() == 1 => pool.source = OneOrMany(vec![address.to_string()]),
        _ => notes.changes(&bind.place, &bind.text(), "backends see the address of this machine, not the client's"),
    }
}
