//! From the file's types to a configuration that can run: checks every rule in one pass.
//!
//! For a value that breaks a rule a problem is reported, and any valid value takes its place: the result is used only
//! if there is no problem.

mod block;
mod health_check;
mod http;
mod listener;
mod log;
mod loops;
mod pool;
mod pool_name;
mod route;
mod secret;
mod tls;
mod tls_server;

use std::collections::HashMap;
use std::num::NonZeroUsize;

use super::address::BindAddress;
use super::file::units::AutoOr;
use super::file::{AdminSpec, File};
use super::global::{AdminConfig, Config, DrainConfig, RelayConfig};
use super::listener::ListenerConfig;
use super::pool::PoolConfig;
use super::yaml::{Reporter, join};

pub use block::Block;
pub use pool::{MAX_BACKENDS, build_further_backend, check_weight};

use listener::build_listener;
use log::build_log;
pub use loops::check_loops;
use pool::build_pool;
use route::serves_names_alone;

/// More worker threads than this must be a mistake.
const MAX_WORKERS: usize = 1024;

/// Validates `file`: the result can run if `report` has no problem then.
pub fn build(file: &File, report: &mut Reporter) -> Config {
    let mut root = Block::root(report);
    let mut pools = Vec::new();
    for (name, spec) in &file.pools {
        pools.push(build_pool(name, spec, serves_names_alone(name, file), &mut root));
    }
    let mut bound = HashMap::new();
    let mut listeners = Vec::new();
    for (name, spec) in &file.listeners {
        listeners.push(build_listener(name, spec, file, &mut bound, &mut root));
    }
    if file.listeners.is_empty() && root.report.problems.is_empty() {
        root.problem("listeners", "there is no listener; add `listen: 0.0.0.0:8080` or give --listen 0.0.0.0:8080");
    }
    check_loops(&listeners, &pools, &mut root);
    warn_of_unused_pools(&listeners, &pools, &mut root);
    Config {
        listeners,
        pools,
        admin: build_admin(&file.admin, &bound, &mut root.inner("admin")),
        workers: count("workers", file.workers, MAX_WORKERS, &mut root),
        max_connections: count("max_connections", file.max_connections, usize::MAX, &mut root),
        drain: DrainConfig {
            grace: file.drain.grace.0,
            timeout: file.drain.timeout.0,
            upgrade_timeout: file.drain.upgrade_timeout.0,
        },
        relay: RelayConfig { mode: file.relay.mode, engine: file.relay.engine },
        log: build_log(&file.log, &mut root.inner("log")),
        watch: file.watch,
    }
}

fn warn_of_unused_pools(listeners: &[ListenerConfig], pools: &[PoolConfig], root: &mut Block<'_>) {
    let of_listener = |listener: &ListenerConfig, pool: &str| {
        listener.pool.as_deref() == Some(pool) || listener.mode.routes().iter().any(|route| route.pool == pool)
    };
    for PoolConfig { name, .. } in pools {
        if !listeners.iter().any(|listener| of_listener(listener, name)) {
            let message = "is used by no listener and no route; name it as the `pool` of one, or remove it";
            root.report.warning(&root.path(&join("pools", name)), message);
        }
    }
}

/// `bound` are the listeners' addresses, each with the path of its key.
fn build_admin(admin: &AdminSpec, bound: &HashMap<BindAddress, String>, block: &mut Block<'_>) -> AdminConfig {
    let bind: Option<BindAddress> = match admin.bind.as_str() {
        "off" => None,
        text => block.parsed("bind", text),
    };
    let socket: Option<BindAddress> = match admin.socket.as_str() {
        "off" => None,
        path => block.parsed("socket", &format!("unix:{}", path.trim_start_matches("unix:"))),
    };
    for (key, address, what) in [("bind", &bind, "port"), ("socket", &socket, "path")] {
        let shared = address.as_ref().filter(|address| !address.is_chosen_by_kernel());
        if let Some(owner) = shared.and_then(|address| bound.get(&address.of_socket())) {
            let message = format!("is already bound by `{}`; choose another {what}, or off", block.report.shown(owner));
            block.problem(key, message);
        }
    }
    if socket.is_some() && socket == bind {
        block.problem("socket", "is `admin.bind` already; leave out one of them");
    }
    let (token_file, allowed_hosts) = (admin.token_file.clone(), admin.allowed_hosts.clone());
    AdminConfig { bind, socket, token_file, allowed_hosts }
}

/// `None`: auto.
fn count(key: &str, value: AutoOr, max: usize, block: &mut Block<'_>) -> Option<NonZeroUsize> {
    let AutoOr::Number(number) = value else { return None };
    if number == 0 || number > max {
        let bound = if max == usize::MAX { "at least 1".to_owned() } else { format!("from 1 to {max}") };
        block.problem(key, format!("must be {bound}, or auto"));
    }
    NonZeroUsize::new(number)
}
