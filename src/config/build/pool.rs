//! The rules of a pool: backends, detection, checks, limits.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;

use crate::config::address::BackendAddress;
use crate::config::file::off::OffOr;
use crate::config::file::pool::{BackendSpec, FailureDetectionSpec, PoolSpec, ResolveSpec, SendProxy, TcpSpec};
use crate::config::pool::{
    BackendConfig, FailureDetection, OnDown, OnReturn, PoolConfig, Queue, Resolve, SourceAddress,
};
use crate::config::yaml::Reporter;
use crate::net::TcpOptions;
use crate::protocol::proxy_header::ProxyVersion;
use crate::tls::Sessions;

use super::block::{Block, some_unless_zero};
use super::health_check::build_check;
use super::tls::build_tls;

/// Bounds the length of the balancer's round.
const MAX_WEIGHT: u16 = 256;
/// More attempts than this for one client would overload a failing pool.
const MAX_ATTEMPTS: usize = 16;
/// Bounds memory: each failure within the window is remembered.
const MAX_FAILURES: usize = 1000;
/// The balancer's hash table has backends' indices of 16 bits.
pub const MAX_BACKENDS: usize = 10_000;
/// The port of DNS (RFC 1035, 4.2).
const DNS_PORT: u16 = 53;

/// `may_be_empty`: its clients name their backends.
pub fn build_pool(name: &str, pool: &PoolSpec, may_be_empty: bool, root: &mut Block<'_>) -> PoolConfig {
    let mut block = root.named("pools", name);
    check_roles(pool, &mut block);
    PoolConfig {
        name: name.to_owned(),
        policy: pool.policy,
        backends: build_backends(&pool.backends, may_be_empty, &mut block),
        connect_timeout: block.positive("connect_timeout", pool.connect_timeout),
        attempts: block.within("attempts", pool.attempts, MAX_ATTEMPTS),
        retry_budget: pool.retry_budget.0,
        queue: Queue { length: pool.queue.length, timeout: block.positive("queue.timeout", pool.queue.timeout) },
        failure_detection: match pool.failure_detection {
            OffOr::Off => None,
            OffOr::On(settings) => Some(build_detection(settings, &mut block.inner("failure_detection"))),
        },
        health_check: match &pool.health_check {
            OffOr::Off => None,
            OffOr::On(settings) => Some(build_check(settings, &pool.backends, &mut block.inner("health_check"))),
        },
        when_all_down: pool.when_all_down,
        on_down: pool.on_down,
        on_return: pool.on_return,
        first_byte_timeout: some_unless_zero(pool.first_byte_timeout),
        slow_start: pool.slow_start.0.unwrap_or_default(),
        source: build_source(&pool.source.0, &mut block),
        send_proxy: match pool.send_proxy {
            SendProxy::Off => None,
            SendProxy::V1 => Some(ProxyVersion::V1),
            SendProxy::V2 => Some(ProxyVersion::V2),
        },
        tls: build_tls(&pool.tls, Sessions::Resumed, &mut block.inner("tls")),
        resolve: build_resolve(&pool.resolve, &mut block.inner("resolve")),
        tcp: build_tcp(&pool.tcp),
    }
}

/// Of a pool or of a listener.
pub fn build_tcp(tcp: &TcpSpec) -> TcpOptions {
    TcpOptions {
        keepalive: some_unless_zero(tcp.keepalive),
        nodelay: tcp.nodelay,
        user_timeout: some_unless_zero(tcp.user_timeout),
    }
}

impl PoolConfig {
    /// For tests and benchmarks: a pool with the file's defaults, and without a backend yet.
    #[doc(hidden)]
    pub fn example() -> Self {
        build_pool("app", &PoolSpec::default(), true, &mut Block::root(&mut Reporter::default()))
    }
}

/// What is to happen when a health check takes a backend out, or lets it in again, needs one.
fn check_roles(pool: &PoolSpec, block: &mut Block<'_>) {
    let is_checked = matches!(pool.health_check, OffOr::On(_));
    for (index, backend) in pool.backends.iter().enumerate() {
        check_place(&format!("backends[{index}]"), backend, is_checked, block);
    }
    if pool.on_down == OnDown::Close && !is_checked {
        block.problem("on_down", "`close` needs a `health_check`, which takes backends out; add one, or write `keep`");
    }
    if pool.on_return == OnReturn::Wait && !is_checked {
        block.problem("on_return", "`wait` needs a `health_check`, which takes backends out; add one, or write `use`");
    }
    // The targets of SRV records may be backups too.
    let may_be_backup = |backend: &BackendSpec| backend.backup.0 > 0 || backend.address.starts_with("srv:");
    if pool.on_return == OnReturn::CloseBackups && !pool.backends.iter().any(may_be_backup) {
        let message = "`close_backups` needs a backup: write `backup: 1` at a backend, `backup: 2` at one behind it";
        block.problem("on_return", message);
    }
}

fn check_place(key: &str, backend: &BackendSpec, is_checked: bool, block: &mut Block<'_>) {
    if backend.check.is_some() && !is_checked {
        block.problem(&format!("{key}.check"), "needs a `health_check` of the pool, which goes there");
    }
}

/// One backend more of a pool that runs, by the rules of the file; `None`: a problem was reported. `key` is where it
/// was read.
pub fn build_further_backend(
    key: &str,
    backend: &BackendSpec,
    pool: &PoolConfig,
    report: &mut Reporter,
) -> Option<BackendConfig> {
    let mut root = Block::root(report);
    check_place(key, backend, pool.health_check.is_some(), &mut root);
    build_backend(key, backend, &mut HashMap::new(), &mut root)
}

/// A weight at `key`.
pub fn check_weight(key: &str, weight: u16, block: &mut Block<'_>) {
    if weight > MAX_WEIGHT {
        block.problem(key, format!("must be from 0 to {MAX_WEIGHT} (0 takes no new connections)"));
    }
}

fn build_backends(backends: &[BackendSpec], may_be_empty: bool, block: &mut Block<'_>) -> Vec<BackendConfig> {
    if backends.is_empty() && !may_be_empty {
        block.problem("backends", "is empty: add at least one, such as [127.0.0.1:3001]");
    }
    if backends.len() > MAX_BACKENDS {
        block.problem("backends", format!("has {} backends; at most {MAX_BACKENDS}", backends.len()));
    }
    let mut seen = HashMap::new();
    let mut built = Vec::new();
    for (index, spec) in backends.iter().enumerate() {
        built.extend(build_backend(&format!("backends[{index}]"), spec, &mut seen, block));
    }
    built
}

/// `seen` are the addresses so far, each with its path.
fn build_backend(
    key: &str,
    backend: &BackendSpec,
    seen: &mut HashMap<BackendAddress, String>,
    block: &mut Block<'_>,
) -> Option<BackendConfig> {
    check_weight(&format!("{key}.weight"), backend.weight, block);
    let address: BackendAddress = block.parsed(key, &backend.address)?;
    if let Some(first) = seen.insert(address.clone(), block.path(key)) {
        let first = block.report.shown(&first);
        let message =
            format!("`{address}` is duplicated (first as {first}); remove one, and use weight for a larger share");
        block.problem(key, message);
    }
    let max_connections = NonZeroUsize::new(backend.max_connections);
    let check = backend.check.as_ref().and_then(|text| build_check_address(&format!("{key}.check"), text, block));
    Some(BackendConfig { address, weight: backend.weight, rank: backend.backup.0, max_connections, check })
}

fn build_check_address(key: &str, text: &str, block: &mut Block<'_>) -> Option<BackendAddress> {
    let address = block.parsed(key, text)?;
    if matches!(address, BackendAddress::Srv(_)) {
        block.problem(key, format!("`{text}` stands for many addresses; write IP:port, name:port or unix:/path"));
    }
    Some(address)
}

fn build_detection(settings: FailureDetectionSpec, block: &mut Block<'_>) -> FailureDetection {
    if settings.failures == 0 {
        block.problem("failures", "must be at least 1; to switch detection off write `failure_detection: off`");
    }
    let ejection = block.positive("ejection", settings.ejection);
    let max_ejection = block.positive("max_ejection", settings.max_ejection);
    if max_ejection < ejection {
        block.problem("max_ejection", format!("must be at least `ejection` ({})", settings.ejection));
    }
    FailureDetection {
        failures: block.within("failures", settings.failures, MAX_FAILURES),
        window: block.positive("window", settings.window),
        ejection,
        max_ejection,
        count_early_close: settings.count_early_close,
        count_5xx: settings.count_5xx,
        count_silence: settings.count_silence,
    }
}

fn build_resolve(resolve: &ResolveSpec, block: &mut Block<'_>) -> Resolve {
    let min_ttl = block.positive("min_ttl", resolve.min_ttl);
    let max_ttl = resolve.max_ttl.0;
    if max_ttl < min_ttl {
        block.problem("max_ttl", format!("must be at least `min_ttl` ({})", resolve.min_ttl));
    }
    let mut nameservers = Vec::new();
    for text in &resolve.nameservers.0 {
        let with_port = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
        match text.parse::<SocketAddr>().or_else(|_| with_port()) {
            Ok(server) => nameservers.push(server),
            Err(_) => block.problem("nameservers", format!("`{text}` is not IP or IP:port")),
        }
    }
    Resolve { min_ttl, max_ttl: max_ttl.max(min_ttl), nameservers, family: resolve.family }
}

/// In place of addresses: that of the client.
const CLIENT: &str = "client";

fn build_source(texts: &[String], block: &mut Block<'_>) -> SourceAddress {
    if texts == [CLIENT] {
        return SourceAddress::Client;
    }
    let mut sources = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(source) => sources.push(source),
            Err(_) if text == CLIENT => block.problem("source", "`client` stands alone; remove it, or the addresses"),
            Err(_) => {
                let message = format!("`{text}` is not an IP address of this machine, such as 10.0.0.5, nor `client`");
                block.problem("source", message);
            }
        }
    }
    SourceAddress::Addresses(sources)
}
