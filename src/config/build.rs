//! From the YAML mirror to a configuration that can run: every rule that a value must keep, checked in one pass.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::build_pool::build_pool;
use super::http;
use super::listener::{ListenerSpec, RouteSpec};
use super::mirror::File;
use super::networks;
use super::report::{Reporter, listed};
use super::units::{AutoOr, DurationText};
use super::{
    AdminConfig, BindAddress, Checks, Config, DrainConfig, ListenerConfig, LogConfig, Mode, NameCheck, PerClient,
    PoolConfig, ProxyProtocol, Route,
};

/// More worker threads than this are a mistake.
const MAX_WORKERS: usize = 1024;
/// Names stand in metrics and paths of `--set`.
const MAX_NAME_LENGTH: usize = 64;

/// Validates `file`. `None` or problems in `report` mean that it can't run.
pub(super) fn build(file: &File, check: &Checks, report: &mut Reporter) -> Option<Config> {
    let pools: Vec<PoolConfig> = file.pools.iter().filter_map(|(name, pool)| build_pool(name, pool, report)).collect();
    let mut bound = HashMap::new();
    let listeners: Vec<ListenerConfig> = file
        .listeners
        .iter()
        .filter_map(|(name, listener)| build_listener(name, listener, file, check, &mut bound, report))
        .collect();
    if file.listeners.is_empty() && report.problems.is_empty() {
        report.problem("listeners", "there is no listener; add `listen: 0.0.0.0:8080` or give --listen 0.0.0.0:8080");
    }
    let admin: Option<BindAddress> = match file.admin.bind.as_str() {
        "off" => None,
        text => parsed("admin.bind", text, report),
    };
    if let Some(owner) =
        admin.as_ref().filter(|address| !address.is_chosen_by_kernel()).and_then(|address| bound.get(address))
    {
        let message = format!("is bound by `{}` too; choose another port, or off", report.shown(owner));
        report.problem("admin.bind", message);
    }
    let workers = count("workers", file.workers, MAX_WORKERS, report);
    let max_connections = count("max_connections", file.max_connections, usize::MAX, report);
    let drain = DrainConfig { grace: file.drain.grace.0, timeout: file.drain.timeout.0 };
    let log = LogConfig { level: file.log.level, format: file.log.format, access: file.log.access.clone() };
    Some(Config {
        listeners,
        pools,
        admin: AdminConfig {
            bind: admin,
            token_file: file.admin.token_file.clone(),
            allowed_hosts: file.admin.allowed_hosts.clone(),
        },
        workers,
        max_connections,
        drain,
        relay: file.relay.mode,
        log,
        watch: file.watch,
    })
}

fn build_listener(
    name: &str,
    listener: &ListenerSpec,
    file: &File,
    check: &Checks,
    bound: &mut HashMap<BindAddress, String>,
    report: &mut Reporter,
) -> Option<ListenerConfig> {
    let path = format!("listeners.{name}");
    check_name(&path, name, report);
    if listener.bind.0.is_empty() {
        report.problem(&format!("{path}.bind"), "is missing: say where to listen, such as 0.0.0.0:8080");
    }
    let bind: Vec<BindAddress> = listener
        .bind
        .0
        .iter()
        .enumerate()
        .filter_map(|(index, text)| {
            let at = if listener.bind.0.len() == 1 { format!("{path}.bind") } else { format!("{path}.bind[{index}]") };
            let address: BindAddress = parsed(&at, text, report)?;
            if !address.is_chosen_by_kernel()
                && let Some(other) = bound.insert(address.clone(), at.clone())
            {
                let message = format!("`{text}` is bound twice (also by `{}`); remove one", report.shown(&other));
                report.problem(&at, message);
            }
            Some(address)
        })
        .collect();
    let idle_timeout = positive(&format!("{path}.timeouts.idle"), listener.timeouts.idle, report);
    let half_closed_timeout = positive(&format!("{path}.timeouts.half_closed"), listener.timeouts.half_closed, report);
    let client_header = positive(&format!("{path}.timeouts.client_header"), listener.timeouts.client_header, report);
    let http = http::build(&format!("{path}.http"), &listener.http, check.header, report);
    let trusted_proxies = networks::build(&format!("{path}.trusted_proxies"), &listener.trusted_proxies, report);
    if listener.proxy_protocol == ProxyProtocol::Required && listener.trusted_proxies.is_empty() {
        let message = "is required, but nobody may send it: name the balancers in front in `trusted_proxies`, such as [10.0.0.0/8]";
        report.problem(&format!("{path}.proxy_protocol"), message);
    }
    let routes = build_routes(&path, listener, file, check.server_name, report);
    let pool = pool_of(&path, listener, file, report);
    Some(ListenerConfig {
        name: name.to_owned(),
        bind,
        mode: listener.mode,
        pool,
        routes,
        max_connections: NonZeroUsize::new(listener.max_connections),
        idle_timeout,
        half_closed_timeout,
        client_header_timeout: client_header,
        proxy_protocol: listener.proxy_protocol,
        trusted_proxies,
        allow: networks::build(&format!("{path}.allow"), &listener.allow, report),
        deny: networks::build(&format!("{path}.deny"), &listener.deny, report),
        per_client: PerClient {
            max_connections: NonZeroUsize::new(listener.per_client.max_connections),
            connections_per_second: NonZeroUsize::new(listener.per_client.connections_per_second),
        },
        http,
        access_log: listener.access_log,
    })
}

/// The listener's pool; where there is only one, it needn't be named.
fn pool_of(path: &str, listener: &ListenerSpec, file: &File, report: &mut Reporter) -> Option<String> {
    match &listener.pool {
        Some(pool) => {
            return is_pool(pool, &format!("{path}.pool"), file, report).then(|| pool.clone());
        }
        // Who has no route is refused where the long form names no pool.
        None if !listener.routes.is_empty() && !report.short_form => return None,
        None if file.pools.len() == 1 => return file.pools.keys().next().cloned(),
        None if file.pools.is_empty() => {
            report.problem(
                "backends",
                "there are none; add `backends: [127.0.0.1:3001]` or give --backend 127.0.0.1:3001",
            );
        }
        None if report.knows_problem_in(&format!("{path}.routes")) => {}
        None => {
            let known = listed(file.pools.keys());
            report.problem(&format!("{path}.pool"), format!("is missing: choose one of the pools: {known}"));
        }
    }
    None
}

/// Whether there is a pool of this name, which stands at `path`. One that could not be read is there all the same, as was said.
fn is_pool(name: &str, path: &str, file: &File, report: &mut Reporter) -> bool {
    let is_there = file.pools.contains_key(name);
    if !is_there && !report.knows_problem_at("pools") && !report.knows_problem_at(&format!("pools.{name}")) {
        let known = listed(file.pools.keys());
        report.problem(path, format!("there is no pool `{name}`; the pools are: {known}"));
    }
    is_there
}

fn build_routes(
    path: &str,
    listener: &ListenerSpec,
    file: &File,
    check: NameCheck,
    report: &mut Reporter,
) -> Vec<Route> {
    if !listener.routes.is_empty() && listener.mode == Mode::Http {
        let message = "are by the server name of TLS, which mode `http` doesn't read; use mode `tcp`";
        report.problem(&format!("{path}.routes"), message);
    }
    let mut routes: Vec<Route> = Vec::new();
    for (index, RouteSpec { sni, pool }) in listener.routes.iter().enumerate() {
        let at = |key: &str| format!("{path}.routes[{index}].{key}");
        if let Err(wrong) = check(sni) {
            report.problem(&at("sni"), wrong);
        } else if routes.iter().any(|route| route.sni.eq_ignore_ascii_case(sni)) {
            report.problem(&at("sni"), format!("`{sni}` has a route already; remove one"));
        }
        is_pool(pool, &at("pool"), file, report);
        routes.push(Route { sni: sni.clone(), pool: pool.clone() });
    }
    routes
}

pub(super) fn check_name(path: &str, name: &str, report: &mut Reporter) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.chars().all(allowed) {
        let message = format!("`{name}` is not a name: use 1 to {MAX_NAME_LENGTH} letters, digits, `_` and `-`");
        report.problem(path, message);
    }
}

pub(super) fn parsed<T: std::str::FromStr<Err = String>>(path: &str, text: &str, report: &mut Reporter) -> Option<T> {
    text.parse().map_err(|error: String| report.problem(path, error)).ok()
}

pub(super) fn positive(path: &str, duration: DurationText, report: &mut Reporter) -> Duration {
    if duration.0.is_zero() {
        report.problem(path, "must be more than zero");
    }
    duration.0
}

fn count(path: &str, value: AutoOr, max: usize, report: &mut Reporter) -> Option<NonZeroUsize> {
    let AutoOr::Is(number) = value else { return None };
    if number == 0 || number > max {
        let bound = if max == usize::MAX { "at least 1".to_owned() } else { format!("from 1 to {max}") };
        report.problem(path, format!("must be {bound}, or auto"));
    }
    NonZeroUsize::new(number)
}
