//! A `frontend` or `listen` as a listener: binds, limits, times, and which pool gets its clients.

use std::time::Duration;

use crate::config::ProxyProtocol;
use crate::config::file::duration_or_off::DurationOrOff;
use crate::config::file::listener::{ListenerSpec, ModeSpec, RouteSpec};
use crate::config::file::off::OffOr;
use crate::import::headers::EVERYBODY;
use crate::import::note::Notes;
use crate::import::values::{or_off, positive};

use super::acl::{Acls, Test};
use super::keywords::BIND_PARAMETERS;
use super::server::Parameters;
use super::tls;
use super::tree::{Line, Proxy};
use super::values::{binds, port_of, time};

/// Where its clients go.
pub struct Destinations<'a> {
    /// By server name, in order.
    pub by_name: Vec<(String, &'a str)>,
    pub default: Option<&'a str>,
}

/// Where a proxy listens, with TLS or without it, and with which parameters.
pub fn listen(proxy: &Proxy<'_>, of_tls: bool, notes: &mut Notes) -> ListenerSpec {
    let mut listener = ListenerSpec::default();
    let lines: Vec<&Line> = proxy.section.all(&["bind"]).collect();
    for line in &lines {
        let mut parameters = Parameters::default();
        let is_tls = line.from(2).iter().any(|word| word == "ssl");
        if is_tls != of_tls {
            continue;
        }
        parameters.read(line, 2, BIND_PARAMETERS, notes);
        if is_tls {
            match tls::of_bind(line, &parameters, proxy.is_http()) {
                Ok(spec) => listener.tls = OffOr::On(spec),
                Err(why) => {
                    notes.changes(&line.place, &line.text(), format!("it isn't served: {why}"));
                    continue;
                }
            }
        }
        match addresses(line, &parameters, &lines) {
            Ok(addresses) => listener.bind.0.extend(addresses),
            Err(why) => notes.changes(&line.place, &line.text(), why),
        }
        if parameters.has("accept-proxy") {
            listener.proxy_protocol = ProxyProtocol::Required;
            listener.trusted_proxies = EVERYBODY.map(str::to_owned).to_vec();
        }
        if let Some(limit) = parameters.value("maxconn").and_then(|text| text.parse().ok()) {
            listener.max_connections = limit;
        }
    }
    // `listen NAME ADDRESS`, as it was before 1.5.
    if let Some(address) = proxy.section.head.words.get(2).filter(|word| word.contains(':') && !of_tls) {
        listener.bind.0.extend(binds(address, true).unwrap_or_default());
    }
    listener.bind.0.dedup();
    if let Some(limit) = proxy.value(&["maxconn"]).and_then(|text| text.parse().ok()) {
        listener.max_connections = limit;
    }
    if proxy.is_http() {
        listener.mode = ModeSpec::Http;
    }
    listener
}

/// An IPv6 wildcard takes IPv4 clients as well, unless it isn't to, or another bind has them.
fn addresses(line: &Line, parameters: &Parameters<'_>, all: &[&Line]) -> Result<Vec<String>, String> {
    let own = binds(line.word(1), true)?;
    let has_ipv4 = |port: Option<u16>| {
        let others = all.iter().filter(|other| !std::ptr::eq(**other, line));
        let mut others = others.flat_map(|other| binds(other.word(1), false).unwrap_or_default());
        others.any(|other| other.starts_with("0.0.0.0:") && port_of(&other) == port)
    };
    let is_shared = own.iter().any(|address| address.starts_with("*:") && has_ipv4(port_of(address)));
    if parameters.has("v6only") || is_shared { binds(line.word(1), false) } else { Ok(own) }
}

/// Sets the times of a listener whose clients go to `backends`.
pub fn set_timeouts(listener: &mut ListenerSpec, proxy: &Proxy<'_>, backends: &[&Proxy<'_>], notes: &mut Notes) {
    let of = |proxy: &Proxy<'_>, name: &str, old: &str| {
        let value = proxy.value(&["timeout", name]).or_else(|| proxy.value(&[old]));
        value.and_then(time).filter(|time| !time.is_zero())
    };
    let client = of(proxy, "client", "clitimeout");
    let servers: Vec<Option<Duration>> = backends.iter().map(|one| of(one, "server", "srvtimeout")).collect();
    let tunnel = backends.iter().chain([&proxy]).filter_map(|one| of(one, "tunnel", "")).max();
    // A connection ends when either side was idle for too long; with several backends, for the longest of their times.
    let server = if servers.contains(&None) { None } else { servers.iter().copied().max().flatten() };
    if servers.iter().any(|other| *other != servers[0]) {
        let line = backends.iter().find_map(|one| one.line(&["timeout", "server"]));
        let place = line.map_or(proxy.place(), |line| &line.place);
        notes.harmless(place, "timeout server", "a listener has one `timeouts.idle`: the longest of its backends'");
    }
    let idle = tunnel.or_else(|| client.into_iter().chain(server).min());
    listener.timeouts.idle = idle.map_or(DurationOrOff(None), or_off);
    let fin = ["client-fin", "server-fin"]
        .map(|name| of(proxy, name, "").or_else(|| backends.iter().find_map(|one| of(one, name, ""))));
    // Half of a connection may be idle as long as a whole one, unless there is a time for that.
    listener.timeouts.half_closed = fin.into_iter().flatten().min().map_or(listener.timeouts.idle, or_off);
    if listener.mode == ModeSpec::Http {
        let request = of(proxy, "http-request", "");
        if let Some(request) = request.or(client) {
            listener.timeouts.client_header = positive(request);
        }
        if let Some(server) = server {
            listener.http.timeouts.response_header = positive(server);
        }
        if let Some(keep) = of(proxy, "http-keep-alive", "").or(request).or(client) {
            listener.http.timeouts.keep_alive = positive(keep);
        }
    }
}

/// The backends that `use_backend` and `default_backend` name.
pub fn destinations<'a>(proxy: &Proxy<'a>, acls: &Acls<'_>, notes: &mut Notes) -> Destinations<'a> {
    let mut found = Destinations { by_name: Vec::new(), default: proxy.value(&["default_backend"]) };
    if proxy.section.kind() == "listen" && proxy.section.lines.iter().any(is_server) {
        found.default = Some(proxy.name());
    }
    for line in proxy.section.all(&["use_backend"]) {
        let names = match &acls.condition(line.from(2))[..] {
            [all] if all[..] == [(false, Test::Always)] => {
                // Rules after it decide nothing.
                found.default = Some(line.word(1));
                break;
            }
            any if proxy.is_http() || any.iter().any(|all| all.len() != 1) => None,
            any => any.iter().map(|all| names_of(&all[0])).collect::<Option<Vec<_>>>(),
        };
        match names {
            Some(names) => {
                found.by_name.extend(names.into_iter().flatten().map(|name| (name, line.word(1))));
            }
            None => {
                let why = "clients are told apart by the server name of TLS alone, not by requests or addresses";
                notes.changes(&line.place, &line.text(), why);
            }
        }
    }
    found
}

fn is_server(line: &Line) -> bool {
    matches!(line.word(0), "server" | "server-template" | "dispatch")
}

fn names_of(test: &(bool, Test)) -> Option<Vec<String>> {
    match test {
        (false, Test::ServerName(names)) => Some(names.clone()),
        (false, Test::Never) => Some(Vec::new()),
        _ => None,
    }
}

/// The first rule that fits decides in HAProxy, the longest name in lb: a name has one route.
pub fn add_route(listener: &mut ListenerSpec, sni: String, pool: String) {
    if !listener.routes.iter().any(|route| route.sni.eq_ignore_ascii_case(&sni)) {
        listener.routes.push(RouteSpec { sni, pool });
    }
}
