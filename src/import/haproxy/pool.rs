//! The servers of a `backend` or `listen` as a pool.

use std::time::Duration;

use crate::config::file::backup::BackupRank;
use crate::config::file::duration_or_off::DurationOrOff;
use crate::config::file::off::OffOr;
use crate::config::file::pool::{BackendSpec, FailureDetectionSpec, PoolSpec, SendProxy};
use crate::config::file::units::{OneOrMany, TextOrBlock};
use crate::config::{AddressFamily, OnDown, OnReturn, Policy};
use crate::import::note::Notes;
use crate::import::values::{MAX_ATTEMPTS, MAX_WEIGHT, positive};

use super::check::health_check;
use super::server::{Server, servers};
use super::tls;
use super::tree::{Proxy, Section};
use super::values::{is_ip, server, time};

/// The largest rank that `config` takes.
const MAX_RANK: u8 = 100;
/// HAProxy's queues have no bound of their own.
const QUEUE_LENGTH: usize = 10_000;

/// The pool of a proxy; `port` is the one by which its clients come, if there is only one.
///
/// # Errors
/// None of its servers can be translated.
pub fn pool(proxy: &Proxy<'_>, port: Option<u16>, sections: &[Section], notes: &mut Notes) -> Result<PoolSpec, String> {
    let mut pool = PoolSpec { failure_detection: OffOr::Off, ..PoolSpec::default() };
    let mut servers = servers(proxy, notes);
    // Whether requests are read is up to the listener.
    let _ = proxy.is_http();
    let has_all_backups = proxy.option("allbackups").is_some();
    let mut rank = 0;
    servers.retain(|server| match backend(server, port, notes) {
        Ok(mut backend) => {
            if server.parameters.has("backup") {
                // One at a time, in order, unless all are to share the load.
                rank = if has_all_backups { 1 } else { (rank + 1).min(MAX_RANK) };
                backend.backup = BackupRank(rank);
            }
            add(&mut pool, backend, server, notes)
        }
        Err(why) => {
            notes.changes(&server.line.place, &server.line.text(), why);
            false
        }
    });
    if pool.backends.is_empty() {
        return Err("it has no server that lb can use".to_owned());
    }
    tls::to_backends(&mut pool, &servers, notes)?;
    set_balance(&mut pool, proxy, notes);
    set_limits(&mut pool, proxy, &servers);
    set_proxy_header(&mut pool, &servers, notes);
    set_source(&mut pool, proxy, &servers, notes);
    set_resolve(&mut pool, &servers, sections);
    set_detection(&mut pool, &servers);
    health_check(&mut pool, proxy, &servers, notes);
    set_roles(&mut pool, &servers);
    note_differences(&servers, notes);
    Ok(pool)
}

/// What a pool has once, and each server of HAProxy by itself.
fn note_differences(servers: &[Server<'_>], notes: &mut Notes) {
    let Some((first, others)) = servers.split_first() else { return };
    for name in ["slowstart", "observe", "error-limit", "on-marked-down", "source"] {
        let differs = |other: &&Server<'_>| other.parameters.value(name) != first.parameters.value(name);
        for other in others.iter().filter(differs) {
            let shown = format!("{} {} … {name}", other.line.word(0), other.line.word(1));
            notes.changes(&other.line.place, &shown, "all servers of a pool have it alike");
        }
    }
}

fn backend(of: &Server<'_>, port: Option<u16>, notes: &mut Notes) -> Result<BackendSpec, String> {
    let address = server(of.address, port)?;
    let mut backend = BackendSpec::from_text(&address).expect("every text is a backend's short form");
    let number = |name: &str| of.parameters.value(name).and_then(|text| text.parse::<usize>().ok());
    backend.max_connections = number("maxconn").unwrap_or(0);
    // As HAProxy reads it: `80%` is 80.
    let weight = of.parameters.value("weight").map(|text| text.trim_end_matches(|c: char| !c.is_ascii_digit()));
    let weight = weight.and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    backend.weight = u16::try_from(weight.min(MAX_WEIGHT)).unwrap_or(u16::MAX);
    if of.parameters.has("disabled") && !of.parameters.has("enabled") {
        backend.weight = 0;
    }
    if !is_ip(&address) && !address.starts_with("unix:") && !address.starts_with("srv:") {
        notes.harmless(&of.line.place, &of.line.text(), "HAProxy uses one address of this name, lb all that it has");
    }
    Ok(backend)
}

/// A server that stands twice has both shares.
fn add(pool: &mut PoolSpec, backend: BackendSpec, server: &Server<'_>, notes: &mut Notes) -> bool {
    match pool.backends.iter_mut().find(|other| other.address == backend.address) {
        None => {
            pool.backends.push(backend);
            true
        }
        Some(other) if other.backup == backend.backup => {
            other.weight = (other.weight + backend.weight).min(256);
            other.max_connections = other.max_connections.saturating_add(backend.max_connections);
            false
        }
        Some(_) => {
            notes.changes(&server.line.place, &server.line.text(), "the same address stands in the pool already");
            false
        }
    }
}

fn set_balance(pool: &mut PoolSpec, proxy: &Proxy<'_>, notes: &mut Notes) {
    if let Some(balance) = proxy.line(&["balance"]) {
        pool.policy = match (balance.word(1), balance.word(2)) {
            ("roundrobin" | "static-rr", _) => Policy::RoundRobin,
            ("leastconn", _) => Policy::LeastConnections,
            ("source", _) | ("hash", "src") => Policy::SourceHash,
            ("first", _) => Policy::First,
            (random, _) if random.starts_with("random") => Policy::RandomTwo,
            _ => {
                notes.changes(
                    &balance.place,
                    &balance.text(),
                    "connections go in turn: lb hashes the client's address alone",
                );
                Policy::RoundRobin
            }
        };
    }
    let table = proxy.line(&["stick-table"]);
    for stick in ["on", "match", "store-request"].iter().flat_map(|how| proxy.all_lines(&["stick", how])) {
        if stick.word(2) == "src" && stick.words.len() == 3 && table.is_some() {
            pool.policy = Policy::SourceHash;
        } else {
            notes.changes(
                &stick.place,
                &stick.text(),
                "lb keeps a client's backend by its address alone, without a table",
            );
        }
    }
}

fn set_limits(pool: &mut PoolSpec, proxy: &Proxy<'_>, servers: &[Server<'_>]) {
    let timeout = |name: &str| proxy.value(&["timeout", name]).and_then(time);
    let connect = timeout("connect").or_else(|| proxy.value(&["contimeout"]).and_then(time));
    if let Some(connect) = connect.filter(|connect| !connect.is_zero()) {
        pool.connect_timeout = positive(connect);
    }
    let _ = proxy.option("redispatch");
    let retries = proxy.value(&["retries"]).and_then(|text| text.parse::<usize>().ok()).unwrap_or(3);
    pool.attempts = retries.saturating_add(1).min(MAX_ATTEMPTS);
    let queue = timeout("queue").or(connect);
    if pool.backends.iter().any(|backend| backend.max_connections > 0) {
        let number = |server: &Server<'_>| server.parameters.value("maxqueue")?.parse::<usize>().ok();
        let bound = servers.iter().map(number).sum::<Option<usize>>().filter(|bound| *bound > 0);
        pool.queue.length = bound.unwrap_or(QUEUE_LENGTH);
        pool.queue.timeout = positive(queue.unwrap_or(Duration::from_secs(60)));
    }
    let slow_start = servers.iter().find_map(|server| server.parameters.value("slowstart")).and_then(time);
    if let Some(slow_start) = slow_start.filter(|slow_start| !slow_start.is_zero()) {
        pool.slow_start = DurationOrOff(Some(positive(slow_start).0));
    }
}

fn set_proxy_header(pool: &mut PoolSpec, servers: &[Server<'_>], notes: &mut Notes) {
    let version = |server: &Server<'_>| {
        let has = |name: &str| server.parameters.has(name);
        if has("send-proxy-v2") || has("send-proxy-v2-ssl") || has("send-proxy-v2-ssl-cn") {
            SendProxy::V2
        } else if has("send-proxy") {
            SendProxy::V1
        } else {
            SendProxy::Off
        }
    };
    let text = |server: &Server<'_>| format!("{:?}", version(server));
    let Some(first) = servers.first() else { return };
    pool.send_proxy = version(first);
    if let Some(other) = servers.iter().find(|other| text(other) != text(first)) {
        notes.changes(&other.line.place, &other.line.text(), "all servers of a pool get the PROXY header of the first");
    }
}

fn set_source(pool: &mut PoolSpec, proxy: &Proxy<'_>, servers: &[Server<'_>], notes: &mut Notes) {
    let of_server = servers.iter().find_map(|server| Some((server.line, server.parameters.value("source")?)));
    let of_proxy = proxy.line(&["source"]).map(|line| (line, line.word(1)));
    let Some((line, text)) = of_server.or(of_proxy) else { return };
    let is_transparent = line.words.iter().any(|word| word == "usesrc");
    let address = text.split(':').next().unwrap_or_default();
    match address.parse::<std::net::IpAddr>() {
        Ok(address) if !is_transparent && address.is_unspecified() => {}
        Ok(address) if !is_transparent => pool.source = OneOrMany(vec![address.to_string()]),
        _ => notes.changes(&line.place, &line.text(), "backends see the address of this machine, not the client's"),
    }
}

/// Those of the first server that names some: a pool has one way to resolve names.
fn set_resolve(pool: &mut PoolSpec, servers: &[Server<'_>], sections: &[Section]) {
    let value = |name: &str| servers.iter().find_map(|server| server.parameters.value(name));
    pool.resolve.family = match value("resolve-prefer") {
        Some("ipv4") => AddressFamily::Ipv4,
        Some("ipv6") => AddressFamily::Ipv6,
        _ => AddressFamily::Any,
    };
    let Some(name) = value("resolvers") else { return };
    let Some(section) = sections.iter().find(|section| section.kind() == "resolvers" && section.name() == name) else {
        return;
    };
    section.head.see();
    let address = |text: &str| {
        let text = text.trim_start_matches("udp@").trim_start_matches("tcp@").to_owned();
        text.parse::<std::net::SocketAddr>().is_ok().then_some(text)
    };
    pool.resolve.nameservers =
        OneOrMany(section.all(&["nameserver"]).filter_map(|line| address(line.word(2))).collect());
    for hold in section.all(&["hold"]) {
        if let (Some(valid), "valid") = (time(hold.word(2)), hold.word(1)) {
            pool.resolve.max_ttl = positive(valid.max(pool.resolve.min_ttl.0));
        }
    }
}

/// HAProxy takes no server out by its traffic, unless it is told to watch it.
fn set_detection(pool: &mut PoolSpec, servers: &[Server<'_>]) {
    let Some(server) = servers.iter().find(|server| server.parameters.has("observe")) else { return };
    let limit = server.parameters.value("error-limit").and_then(|text| text.parse::<usize>().ok()).unwrap_or(10);
    let is_of_requests = server.parameters.value("observe") == Some("layer7");
    pool.failure_detection = OffOr::On(FailureDetectionSpec {
        failures: limit.clamp(1, 1000),
        count_5xx: is_of_requests,
        ..FailureDetectionSpec::default()
    });
}

fn set_roles(pool: &mut PoolSpec, servers: &[Server<'_>]) {
    let says = |name: &str, value: &str| servers.iter().any(|server| server.parameters.value(name) == Some(value));
    let is_checked = matches!(pool.health_check, OffOr::On(_));
    let has_backups = pool.backends.iter().any(|backend| backend.backup.0 > 0);
    if is_checked && says("on-marked-down", "shutdown-sessions") {
        pool.on_down = OnDown::Close;
    }
    if has_backups && says("on-marked-up", "shutdown-backup-sessions") && pool.on_return == OnReturn::Use {
        pool.on_return = OnReturn::CloseBackups;
    }
}
