//! The rules of a listener.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use crate::config::address::BindAddress;
use crate::config::file::File;
use crate::config::file::listener::{ListenerSpec, ModeSpec};
use crate::config::file::units::OneOrMany;
use crate::config::listener::{ListenerConfig, Mode, ProxyProtocol, Route};
use crate::config::yaml::listed;
use crate::lifecycle::ClientLimits;
use crate::protocol::client_hello::ServerNamePattern;

use super::block::Block;
use super::http::build_http;
use super::pool::build_tcp;
use super::tls_server::build_tls_server;

/// `bound` are the addresses of all listeners so far, each with the path of its key.
pub fn build_listener(
    name: &str,
    spec: &ListenerSpec,
    file: &File,
    bound: &mut HashMap<BindAddress, String>,
    root: &mut Block<'_>,
) -> ListenerConfig {
    let mut block = root.named("listeners", name);
    let bind = build_bind(&spec.bind, bound, &mut block);
    let trusted_proxies = block.networks("trusted_proxies", &spec.trusted_proxies);
    // Both modes' keys are checked in either mode, so that a mistake doesn't show up only when the mode changes.
    let http = build_http(spec, &trusted_proxies, &mut block.inner("http"));
    let routes = build_routes(spec, file, &mut block);
    let mode = match spec.mode {
        ModeSpec::Tcp => Mode::Tcp { routes },
        ModeSpec::Http => Mode::Http(http),
    };
    let pool = build_pool_name(spec, file, &mut block);
    if spec.proxy_protocol == ProxyProtocol::Required && spec.trusted_proxies.is_empty() {
        let message = "is required, but no peer may send it: list the proxies in front in `trusted_proxies`, such as \
                       [10.0.0.0/8]";
        block.problem("proxy_protocol", message);
    }
    let (allow, deny) = (block.networks("allow", &spec.allow), block.networks("deny", &spec.deny));
    let tls = build_tls_server(spec, &mut block.inner("tls"));
    let mut timeouts = block.inner("timeouts");
    ListenerConfig {
        name: name.to_owned(),
        bind,
        mode,
        pool,
        max_connections: NonZeroUsize::new(spec.max_connections),
        idle_timeout: timeouts.limit("idle", spec.timeouts.idle),
        half_closed_timeout: timeouts.limit("half_closed", spec.timeouts.half_closed),
        client_header_timeout: timeouts.positive("client_header", spec.timeouts.client_header),
        proxy_protocol: spec.proxy_protocol,
        tls,
        trusted_proxies,
        allow,
        deny,
        per_client: ClientLimits {
            max_connections: NonZeroUsize::new(spec.per_client.max_connections),
            connections_per_second: NonZeroUsize::new(spec.per_client.connections_per_second),
        },
        tcp: build_tcp(&spec.tcp),
        access_log: spec.access_log,
    }
}

fn build_bind(bind: &OneOrMany, bound: &mut HashMap<BindAddress, String>, block: &mut Block<'_>) -> Vec<BindAddress> {
    if bind.0.is_empty() {
        block.problem("bind", "is missing: add the address to listen on, such as 0.0.0.0:8080");
    }
    let mut addresses = Vec::new();
    for (index, text) in bind.0.iter().enumerate() {
        let key = if bind.0.len() == 1 { "bind".to_owned() } else { format!("bind[{index}]") };
        let Some(address) = block.parsed::<BindAddress>(&key, text) else { continue };
        if !address.is_chosen_by_kernel()
            && let Some(other) = bound.insert(address.of_socket(), block.path(&key))
        {
            let message = format!("`{text}` is already bound by `{}`; remove one", block.report.shown(&other));
            block.problem(&key, message);
        }
        addresses.push(address);
    }
    addresses
}

fn build_routes(spec: &ListenerSpec, file: &File, block: &mut Block<'_>) -> Vec<Route> {
    if !spec.routes.is_empty() && spec.mode == ModeSpec::Http {
        let message = "need the server name of TLS clients, which mode `http` doesn't read; use mode `tcp`";
        block.problem("routes", message);
    }
    let mut routes: Vec<Route> = Vec::new();
    for (index, route) in spec.routes.iter().enumerate() {
        let mut block = block.inner(&format!("routes[{index}]"));
        let sni: Option<ServerNamePattern> = block.parsed("sni", &route.sni);
        if routes.iter().any(|other| Some(&other.sni) == sni.as_ref()) {
            block.problem("sni", format!("`{}` has a route already; remove one", route.sni));
        }
        check_pool("pool", &route.pool, file, &mut block);
        routes.extend(sni.map(|sni| Route { sni, pool: route.pool.clone() }));
    }
    routes
}

/// The listener's pool. If there is only one, it need not be named.
fn build_pool_name(spec: &ListenerSpec, file: &File, block: &mut Block<'_>) -> Option<String> {
    if let Some(pool) = &spec.pool {
        check_pool("pool", pool, file, block);
        return Some(pool.clone());
    }
    // In the long form, a listener with routes and no pool refuses clients without a route.
    if !spec.routes.is_empty() && !block.report.short_form {
        return None;
    }
    if file.pools.len() == 1 {
        return file.pools.keys().next().cloned();
    }
    if file.pools.is_empty() {
        let message = "no backends configured; add `backends: [127.0.0.1:3001]` or give --backend 127.0.0.1:3001";
        block.report.problem("backends", message);
    } else if !block.has_problem_in("routes") {
        let known = listed(file.pools.keys());
        block.problem("pool", format!("is missing: choose one of the pools: {known}"));
    }
    None
}

/// Reports a name that no pool has, unless the pool is missing because of a problem that was reported already.
fn check_pool(key: &str, name: &str, file: &File, block: &mut Block<'_>) {
    let is_reported = |path: &str| block.report.knows_problem_at(path);
    if !file.pools.contains_key(name) && !is_reported("pools") && !is_reported(&format!("pools.{name}")) {
        let known = listed(file.pools.keys());
        block.problem(key, format!("there is no pool `{name}`; the pools are: {known}"));
    }
}
