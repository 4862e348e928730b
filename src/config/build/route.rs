//! The rules of a listener's routes.

use crate::config::file::File;
use crate::config::file::listener::{ListenerSpec, ModeSpec};
use crate::config::file::off::OffOr;
use crate::config::file::route::{RouteSpec, RouteToSpec};
use crate::config::file::units::DurationText;
use crate::config::route::{Route, RouteClients, ToServerName};

use super::block::Block;
use super::pool_name::check_pool;
use super::secret::unescaped;

/// More than any protocol needs to be known by. Bounds what is peeked at.
const MAX_FIRST_BYTES: usize = 256;
/// Where TLS by server name is at home.
const HTTPS_PORT: u16 = 443;
/// A byte holds its length (RFC 7301 section 3.1).
const MAX_PROTOCOL_BYTES: usize = 255;

pub fn build_routes(listener: &ListenerSpec, file: &File, block: &mut Block<'_>) -> Vec<Route> {
    if !listener.routes.is_empty() && listener.mode == ModeSpec::Http {
        let message = "go by what a client says first, which mode `http` doesn't look at; use mode `tcp`";
        block.problem("routes", message);
    }
    let mut routes: Vec<Route> = Vec::new();
    for (index, spec) in listener.routes.iter().enumerate() {
        let mut block = block.inner(&format!("routes[{index}]"));
        check_pool("pool", &spec.pool, file, &mut block);
        let Some((key, clients)) = build_clients(spec, listener, &mut block) else { continue };
        if routes.iter().any(|other| is_for_same(&other.clients, &clients)) {
            let message = match key {
                "silent" => "has a route already; there can be one such route".to_owned(),
                _ => format!("`{}` has a route already; remove one", written(key, spec)),
            };
            block.problem(key, message);
        }
        routes.push(Route { clients, pool: spec.pool.clone(), to_server_name: build_to(spec, &mut block) });
    }
    routes
}

/// Whether all that leads to this pool are routes to server names: then it needs no backends.
pub fn serves_names_alone(pool: &str, file: &File) -> bool {
    let mut routes = file.listeners.values().flat_map(|listener| &listener.routes).filter(|route| route.pool == pool);
    let is_named = |listener: &ListenerSpec| listener.pool.as_deref() == Some(pool);
    routes.clone().next().is_some()
        && routes.all(|route| route.to == Some(RouteToSpec::ServerName))
        && !file.listeners.values().any(is_named)
}

fn build_to(spec: &RouteSpec, block: &mut Block<'_>) -> Option<ToServerName> {
    if spec.to.is_none() {
        for (key, is_set) in [("port", spec.port.is_some()), ("allow_local", spec.allow_local)] {
            if is_set {
                block.problem(key, "is for routes `to: server_name`; add that, or remove this key");
            }
        }
        return None;
    }
    if spec.sni.is_none() {
        block.problem("to", "needs `sni`: the names that clients may be led to, such as \"*.internal.example\"");
    }
    let port = spec.port.unwrap_or(HTTPS_PORT);
    if port == 0 {
        block.problem("port", "must be from 1 to 65535");
    }
    Some(ToServerName { port, allows_local: spec.allow_local })
}

/// With the key that names them; `None`: a problem was reported.
fn build_clients(
    spec: &RouteSpec,
    listener: &ListenerSpec,
    block: &mut Block<'_>,
) -> Option<(&'static str, RouteClients)> {
    let by_tls = if spec.sni.is_some() { Some("sni") } else { spec.alpn.as_ref().map(|_| "alpn") };
    let by_bytes = spec.starts_with.as_ref().map(|_| "starts_with");
    let by_silence = spec.silent.map(|_| "silent");
    let kinds: Vec<_> = [by_tls, by_bytes, by_silence].into_iter().flatten().collect();
    let &[key] = &kinds[..] else {
        let message = match &kinds[..] {
            [] => "says for no client that it is theirs: add `sni`, `alpn`, `starts_with` or `silent`".to_owned(),
            [one, other, ..] => {
                format!("`{one}` and `{other}` never hold together; make a route of each (`sni` and `alpn` may be one)")
            }
            [_] => unreachable!("it is one"),
        };
        block.problem_here(message);
        return None;
    };
    let clients = match (&spec.starts_with, spec.silent) {
        (Some(text), _) => RouteClients::FirstBytes(build_first_bytes(text, block)?),
        (_, Some(silent)) => build_silent(silent, listener, block),
        _ => build_tls_clients(spec, listener, block)?,
    };
    Some((key, clients))
}

fn build_tls_clients(spec: &RouteSpec, listener: &ListenerSpec, block: &mut Block<'_>) -> Option<RouteClients> {
    let sni = match &spec.sni {
        Some(text) => Some(block.parsed("sni", text)?),
        None => None,
    };
    if let Some(alpn) = &spec.alpn {
        let of_tls = match &listener.tls {
            OffOr::On(tls) => Some(&tls.alpn.0),
            OffOr::Off => None,
        };
        if alpn.is_empty() || alpn.len() > MAX_PROTOCOL_BYTES {
            block.problem("alpn", format!("must be from 1 to {MAX_PROTOCOL_BYTES} bytes, such as h2"));
        } else if of_tls.is_some_and(|known| !known.contains(alpn)) {
            let message = format!("no client can get `{alpn}`: add it to `alpn` of the listener's `tls`");
            block.problem("alpn", message);
        }
    }
    Some(RouteClients::Tls { sni, alpn: spec.alpn.as_ref().map(|alpn| alpn.clone().into_bytes()) })
}

fn build_first_bytes(text: &str, block: &mut Block<'_>) -> Option<Vec<u8>> {
    let bytes = unescaped("starts_with", text, block);
    if block.has_problem_in("starts_with") {
        return None;
    }
    if bytes.is_empty() || bytes.len() > MAX_FIRST_BYTES {
        block.problem("starts_with", format!("must be from 1 to {MAX_FIRST_BYTES} bytes, such as \"SSH-\""));
    }
    Some(bytes)
}

fn build_silent(silent: DurationText, listener: &ListenerSpec, block: &mut Block<'_>) -> RouteClients {
    let duration = block.positive("silent", silent);
    let limit = listener.timeouts.client_header;
    if duration >= limit.0 {
        let message =
            format!("must be shorter than `timeouts.client_header` ({limit}), after which clients are refused");
        block.problem("silent", message);
    }
    RouteClients::Silent(duration)
}

fn is_for_same(one: &RouteClients, other: &RouteClients) -> bool {
    one == other || matches!((one, other), (RouteClients::Silent(_), RouteClients::Silent(_)))
}

fn written(key: &str, spec: &RouteSpec) -> String {
    match (key, &spec.sni, &spec.alpn) {
        ("sni", Some(sni), Some(alpn)) => format!("{sni}` with `{alpn}"),
        ("sni", Some(text), _) | ("alpn", _, Some(text)) => text.clone(),
        _ => spec.starts_with.clone().unwrap_or_default(),
    }
}
