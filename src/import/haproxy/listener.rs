//! A `frontend` or `listen` as a listener: binds, limits, times, and which pool gets its clients.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::ProxyProtocol;
use crate::config::file::duration_or_off::DurationOrOff;
use crate::config::file::listener::{ListenerSpec, ModeSpec};
use crate::config::file::off::OffOr;
use crate::import::headers::EVERYBODY;
use crate::import::note::Notes;
use crate::import::values::{or_off, positive};

use super::keywords::BIND_PARAMETERS;
use super::server::Parameters;
use super::tls;
use super::tree::{Line, Proxy};
use super::values::{binds, port_of, time};

/// The listeners of a proxy: binds with the same TLS, PROXY header and limit share one.
pub fn listeners(proxy: &Proxy<'_>, notes: &mut Notes) -> Vec<ListenerSpec> {
    let mut listeners = Vec::new();
    let lines: Vec<&Line> = proxy.section.all(&["bind"]).collect();
    let ipv4_ports = ipv4_ports(&lines);
    let limit = proxy.value(&["maxconn"]).and_then(|text| text.parse().ok());
    for line in lines {
        match listener(line, proxy.is_http(), limit, &ipv4_ports, notes) {
            Ok(listener) => add_listener(&mut listeners, listener),
            Err(why) => notes.changes(&line.place, &line.text(), format!("it isn't served: {why}")),
        }
    }
    // `listen NAME ADDRESS`, as it was before 1.5.
    if let Some(address) = proxy.section.head.words.get(2).filter(|word| word.contains(':')) {
        let mut listener = ListenerSpec::default();
        listener.bind.0 = binds(address, true).unwrap_or_default();
        listener.max_connections = limit.unwrap_or(listener.max_connections);
        set_mode(&mut listener, proxy.is_http());
        add_listener(&mut listeners, listener);
    }
    listeners.into_iter().map(|(_, listener)| listener).collect()
}

/// Each listener has a text that says all but its addresses.
fn add_listener(listeners: &mut Vec<(String, ListenerSpec)>, mut listener: ListenerSpec) {
    let addresses = std::mem::take(&mut listener.bind.0);
    let text = format!("{listener:?}");
    let at = listeners.iter().position(|(other, _)| *other == text).unwrap_or_else(|| {
        listeners.push((text, listener));
        listeners.len() - 1
    });
    let known = &mut listeners[at].1.bind.0;
    known.extend(addresses);
    known.dedup();
}

fn set_mode(listener: &mut ListenerSpec, is_http: bool) {
    if is_http {
        listener.mode = ModeSpec::Http;
    }
}

/// The listener of a bind; `limit` is that of its proxy.
fn listener(
    line: &Line,
    is_http: bool,
    limit: Option<usize>,
    ipv4_ports: &BTreeSet<u16>,
    notes: &mut Notes,
) -> Result<ListenerSpec, String> {
    let mut listener = ListenerSpec::default();
    set_mode(&mut listener, is_http);
    let mut parameters = Parameters::default();
    parameters.read(line, 2, BIND_PARAMETERS, notes);
    if parameters.has("ssl") {
        listener.tls = OffOr::On(tls::of_bind(line, &parameters, is_http, notes)?);
    }
    listener.bind.0 = addresses(line, &parameters, ipv4_ports)?;
    if parameters.has("accept-netscaler-cip") {
        return Err("lb can't read the header that names its clients".to_owned());
    }
    if parameters.has("interface") || parameters.has("namespace") {
        return Err("it would be reached by other networks, too: lb knows no `interface` or `namespace`".to_owned());
    }
    if parameters.has("accept-proxy") {
        listener.proxy_protocol = ProxyProtocol::Required;
        listener.trusted_proxies = EVERYBODY.map(str::to_owned).to_vec();
    }
    let own = parameters.value("maxconn").and_then(|text| text.parse().ok());
    if let Some(limit) = own.into_iter().chain(limit).min() {
        listener.max_connections = limit;
    }
    Ok(listener)
}

/// The ports at which binds listen on every address of IPv4.
fn ipv4_ports(lines: &[&Line]) -> BTreeSet<u16> {
    let addresses = lines.iter().flat_map(|line| binds(line.word(1), false).unwrap_or_default());
    addresses.filter(|address| address.starts_with("0.0.0.0:")).filter_map(|address| port_of(&address)).collect()
}

/// An IPv6 wildcard takes IPv4 clients as well, unless it isn't to, or another bind has them.
fn addresses(line: &Line, parameters: &Parameters<'_>, ipv4_ports: &BTreeSet<u16>) -> Result<Vec<String>, String> {
    let own = binds(line.word(1), true)?;
    let has_ipv4 = |address: &String| port_of(address).is_some_and(|port| ipv4_ports.contains(&port));
    let is_shared = own.iter().any(|address| address.starts_with("*:") && has_ipv4(address));
    if parameters.has("v6only") || is_shared { binds(line.word(1), false) } else { Ok(own) }
}

/// Sets the times of a listener whose clients go to `backends`.
pub fn set_timeouts(listener: &mut ListenerSpec, proxy: &Proxy<'_>, backends: &[&Proxy<'_>], notes: &mut Notes) {
    let of = |proxy: &Proxy<'_>, name: &str, old: &str| {
        let value = proxy.value(&["timeout", name]).or_else(|| proxy.value(&[old]));
        value.and_then(time).filter(|time| !time.is_zero())
    };
    for line in backends.iter().chain([&proxy]).flat_map(|proxy| proxy.all_lines(&["timeout"])) {
        if time(line.word(2)).is_none() {
            notes.changes(&line.place, &line.text(), "it is no time, such as `30s`");
        }
    }
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
