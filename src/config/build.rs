//! From the YAML mirror to a configuration that can run: every rule that a value must keep, checked in one pass.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::build_pool::build_pool;
use super::http::{self, HeaderCheck};
use super::listener::ListenerFile;
use super::mirror::File;
use super::report::Reporter;
use super::units::{AutoOr, DurationText};
use super::{BindAddress, Config, Drain, Listener, Log, Pool};

/// More worker threads than this are a mistake.
const MAX_WORKERS: usize = 1024;
/// Names stand in metrics and paths of `--set`.
const MAX_NAME_LENGTH: usize = 64;

/// Validates `file`. `None` or problems in `report` mean that it can't run.
pub(super) fn build(file: &File, check_header: HeaderCheck, report: &mut Reporter) -> Option<Config> {
    let pools: Vec<Pool> = file.pools.iter().filter_map(|(name, pool)| build_pool(name, pool, report)).collect();
    let mut bound = HashMap::new();
    let listeners: Vec<Listener> = file
        .listeners
        .iter()
        .filter_map(|(name, listener)| build_listener(name, listener, file, check_header, &mut bound, report))
        .collect();
    if file.listeners.is_empty() && report.problems.is_empty() {
        report.problem("listeners", "there is no listener; add `listen: 0.0.0.0:8080` or give --listen 0.0.0.0:8080");
    }
    let admin = match file.admin.bind.as_str() {
        "off" => None,
        text => parsed("admin.bind", text, report),
    };
    if let Some(owner) =
        admin.as_ref().filter(|address| !is_chosen_by_kernel(address)).and_then(|address| bound.get(address))
    {
        let message = format!("is bound by `{}` too; choose another port, or off", report.shown(owner));
        report.problem("admin.bind", message);
    }
    let workers = count("workers", file.workers, MAX_WORKERS, report);
    let max_connections = count("max_connections", file.max_connections, usize::MAX, report);
    let drain = Drain { grace: file.drain.grace.0, timeout: file.drain.timeout.0 };
    let log = Log { level: file.log.level, format: file.log.format, access: file.log.access.clone() };
    Some(Config { listeners, pools, admin, workers, max_connections, drain, relay: file.relay.mode, log })
}

fn build_listener(
    name: &str,
    listener: &ListenerFile,
    file: &File,
    check_header: HeaderCheck,
    bound: &mut HashMap<BindAddress, String>,
    report: &mut Reporter,
) -> Option<Listener> {
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
            if !is_chosen_by_kernel(&address)
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
    let http = http::build(&format!("{path}.http"), &listener.http, check_header, report);
    let trusted_proxies = http::build_networks(&format!("{path}.trusted_proxies"), &listener.trusted_proxies, report);
    let pool = pool_of(&path, listener, file, report)?;
    Some(Listener {
        name: name.to_owned(),
        bind,
        mode: listener.mode,
        pool,
        max_connections: NonZeroUsize::new(listener.max_connections),
        idle_timeout,
        half_closed_timeout,
        client_header_timeout: client_header,
        trusted_proxies,
        http,
        access_log: listener.access_log,
    })
}

/// The listener's pool; where there is only one, it needn't be named.
fn pool_of(path: &str, listener: &ListenerFile, file: &File, report: &mut Reporter) -> Option<String> {
    let known = || file.pools.keys().cloned().collect::<Vec<_>>().join(", ");
    match &listener.pool {
        Some(pool) if file.pools.contains_key(pool) => return Some(pool.clone()),
        Some(pool) => {
            report.problem(&format!("{path}.pool"), format!("there is no pool `{pool}`; the pools are: {}", known()));
        }
        None if file.pools.len() == 1 => return file.pools.keys().next().cloned(),
        None if file.pools.is_empty() => {
            report.problem(
                "backends",
                "there are none; add `backends: [127.0.0.1:3001]` or give --backend 127.0.0.1:3001",
            );
        }
        None => report.problem(&format!("{path}.pool"), format!("is missing: choose one of the pools: {}", known())),
    }
    None
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

/// Port 0 may be asked for often: each time it is another port.
fn is_chosen_by_kernel(address: &BindAddress) -> bool {
    match address {
        BindAddress::Tcp(address) => address.port() == 0,
        BindAddress::Any(port) => *port == 0,
        BindAddress::Unix(_) => false,
    }
}
