//! Pages of statistics and health, which are the admin server's.

use crate::config::ProxyProtocol;
use crate::config::file::listener::ListenerSpec;
use crate::config::file::off::OffOr;
use crate::import::draft::Draft;
use crate::import::note::Notes;

use super::access::is_rule_of_access;
use super::tree::{Line, Proxy};

/// Answers of the admin server with status 200.
const ADMIN_PATHS: [&str; 4] = ["/", "/healthz", "/readyz", "/metrics"];
/// The metrics page of HAProxy.
const METRICS: [&str; 3] = ["http-request", "use-service", "prometheus-exporter"];

/// Whether the section has pages, and no servers or rules on where requests go.
pub fn is_of_pages(proxy: &Proxy<'_>) -> bool {
    const OF_TRAFFIC: [&str; 6] =
        ["use_backend", "default_backend", "server", "server-template", "dispatch", "use-server"];
    let has_traffic = proxy.section.lines.iter().any(|line| OF_TRAFFIC.contains(&line.word(0)));
    !has_traffic && proxy.value(&["default_backend"]).is_none() && proxy.section.lines.iter().any(is_page)
}

fn is_page(line: &Line) -> bool {
    matches!(line.word(0), "stats" | "monitor-uri") || line.begins_with(&METRICS)
}

/// The admin server takes the pages' place, and their address where nothing limits who may ask for them.
pub fn translate(proxy: &Proxy<'_>, listeners: &[ListenerSpec], draft: &mut Draft) {
    let (place, head) = (proxy.place(), proxy.section.head.text());
    let is_open = proxy.section.lines.iter().all(is_open_to_all)
        && listeners.iter().all(is_plain)
        && !proxy.sections().flat_map(|section| &section.lines).any(is_limit);
    let monitor = proxy.value(&["monitor-uri"]);
    proxy.section.see_all();
    let Some(bind) = listeners.first().and_then(|listener| listener.bind.0.first()).filter(|_| is_open) else {
        let why = "the admin server has a status page, on this machine only: it knows no TLS, passwords or rules";
        return draft.notes.changes(place, &head, why);
    };
    if draft.places.contains_key("admin") {
        let why = "there is one admin server, and it answers at another address";
        return draft.notes.changes(place, &head, why);
    }
    if let Some(path) = monitor.filter(|path| !ADMIN_PATHS.contains(path)) {
        draft.notes.changes(place, &format!("monitor-uri {path}"), "the admin server's health page is /healthz");
    }
    draft.file.admin.bind.clone_from(bind);
    draft.places.insert("admin".to_owned(), place.clone());
    draft.notes.harmless(place, &head, "the admin server answers at this address, with metrics and a status page");
}

/// Whether the line says nothing on who may ask.
fn is_open_to_all(line: &Line) -> bool {
    match line.word(0) {
        "bind" | "mode" | "monitor-uri" | "log" | "timeout" | "maxconn" | "option" => true,
        "no" => line.word(1) == "log",
        "stats" => matches!(
            line.word(1),
            "enable"
                | "uri"
                | "realm"
                | "scope"
                | "refresh"
                | "hide-version"
                | "show-legends"
                | "show-node"
                | "show-desc"
                | "show-modules"
        ),
        _ => line.words.iter().map(String::as_str).take(3).eq(METRICS),
    }
}

/// One without TLS or a PROXY header.
fn is_plain(listener: &ListenerSpec) -> bool {
    matches!(listener.tls, OffOr::Off) && listener.proxy_protocol == ProxyProtocol::Off
}

/// Whether the line, perhaps of its defaults, limits who may ask.
fn is_limit(line: &Line) -> bool {
    is_rule_of_access(line)
        || line.begins_with(&["stats", "auth"])
        || line.begins_with(&["stats", "http-request"])
        || line.begins_with(&["http-request", "auth"])
}

/// Pages beside traffic.
pub fn note(proxy: &Proxy<'_>, notes: &mut Notes) {
    for line in proxy.all_lines(&["stats"]) {
        notes.harmless(&line.place, &line.text(), "the admin server has a status page, at an address of its own");
    }
    for line in proxy.all_lines(&["monitor-uri"]) {
        notes.changes(&line.place, &line.text(), "the admin server has /healthz, at an address of its own");
    }
}
