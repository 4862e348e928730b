//! The servers of `http`: each that passes requests on becomes a listener in mode http, for one place that all its
//! requests go to. lb doesn't choose by path or host, so what goes elsewhere is left out, and said.

use std::collections::BTreeSet;

use crate::config::file::http::Redirect;
use crate::config::file::listener::{ListenerSpec, ModeSpec};
use crate::config::file::off::OffOr;
use crate::config::file::pool::PoolSpec;
use crate::import::draft::Draft;
use crate::import::headers::{EVERYBODY, Headers};
use crate::import::note::Notes;
use crate::import::values::{or_off, positive};

use super::headers::{Facts, constant, headers, map_default};
use super::listen::{Listening, listener, listening, port, remote};
use super::pages;
use super::pool::Upstreams;
use super::tls;
use super::tree::{Directive, Scope};
use super::values::{Part, parts, time};

/// The most idle connections that `config` takes.
const MAX_IDLE_CONNECTIONS: usize = 10_000;

/// Where the requests of a location go.
struct Destination<'a> {
    location: &'a Directive,
    /// What `proxy_pass` names, without scheme and path.
    host: String,
    is_tls: bool,
    path: String,
    /// A map that may name another host for some requests.
    chosen_by: Option<&'a Directive>,
    /// With variables, nginx takes the path as it is written, for all requests.
    has_variables: bool,
}

/// Requests of a server, as they are passed on.
struct Passed {
    pool_name: String,
    pool: PoolSpec,
    listener: ListenerSpec,
}

/// Translates the servers of an `http` block.
pub fn translate(http: &Scope<'_>, draft: &mut Draft) {
    let upstreams = Upstreams::of(http);
    let mut servers: Vec<&Directive> = http.own.iter().filter(|directive| directive.name == "server").collect();
    // Of the servers at one address, the default one is translated, else the first.
    servers.sort_by_key(|server| !is_default(server));
    let mut taken = BTreeSet::new();
    let (mut redirects, mut others) = (Vec::new(), Vec::new());
    for server in servers {
        let scope = http.within(server.see().inner());
        let destinations = destinations(&scope);
        let all = scope.own.iter().find(|one| one.name == "location" && path_of(one) == "/" && one.arg(0) != "=");
        if pages::redirects_to_https(server) || all.is_some_and(pages::redirects_to_https) {
            redirects.push(server);
            continue;
        }
        match main_destination(&destinations) {
            Some(main) if all.is_some_and(|all| !std::ptr::eq(all, main.location) && pages::refuses(all)) => {
                let why = "it refuses all paths but some: lb, which doesn't choose by path, would let them in";
                leave_out(server, why, &mut draft.notes);
            }
            Some(main) if pages::guarded_way_to(server, path_of(main.location)) => {
                let why = "the location that leads to the one which passes requests on refuses some: write an `allow`";
                leave_out(server, why, &mut draft.notes);
            }
            Some(main) => translate_server(server, &scope, (main, &destinations), &upstreams, &mut taken, draft),
            None => others.push(server),
        }
    }
    for server in redirects {
        redirect(server, &http.within(server.inner()), &mut taken, draft);
    }
    // The admin server may have an address that none of these has.
    for server in others {
        pages::translate(server, &http.within(server.inner()), &taken, draft);
    }
}

fn is_default(server: &Directive) -> bool {
    let is_default = |listen: &&Directive| listen.args.iter().any(|arg| arg == "default_server" || arg == "default");
    server.inner().iter().filter(|directive| directive.name == "listen").any(|listen| is_default(&listen))
}

fn translate_server(
    server: &Directive,
    scope: &Scope<'_>,
    (main, destinations): (&Destination<'_>, &[Destination<'_>]),
    upstreams: &Upstreams<'_>,
    taken: &mut BTreeSet<String>,
    draft: &mut Draft,
) {
    let mut all = listening(scope, draft);
    let tls =
        if all.iter().any(|one| one.is_tls) { tls::of_clients(server, scope, &mut draft.notes) } else { OffOr::Off };
    all.retain(|one| !one.is_tls || matches!(tls, OffOr::On(_)));
    keep_free(&mut all, taken);
    if all.is_empty() {
        let why = "its address belongs to another server, or needs TLS; lb doesn't choose by host name";
        return leave_out(server, why, &mut draft.notes);
    }
    let names = scope.one("server_name");
    let name = names.map(|names| names.arg(0)).filter(|name| !matches!(*name, "_" | "" | "localhost"));
    let name = name.map_or_else(|| format!("http-{}", port(&all[0].bind[0])), str::to_owned);
    let within = scope.within(main.location.inner());
    for one in &all {
        match pass(main, one, &within, upstreams, &mut draft.notes) {
            Ok(Passed { pool_name, pool, mut listener }) => {
                listener.pool = Some(draft.add_pool(&pool_name, &server.place, pool));
                if one.is_tls {
                    listener.tls = tls.clone();
                }
                draft.add_listener(&name, &server.place, listener);
            }
            Err(why) => return leave_out(server, &why, &mut draft.notes),
        }
    }
    note_main_location(main, &mut draft.notes);
    for other in scope.own.iter().filter(|directive| directive.name == "location") {
        note_other_location(other, main, destinations, &all[0], scope, upstreams, &mut draft.notes);
    }
}

/// Keeps the addresses that no server before this one has.
fn keep_free(all: &mut Vec<Listening<'_>>, taken: &mut BTreeSet<String>) {
    for one in &mut *all {
        one.bind.retain(|address| taken.insert(address.clone()));
    }
    all.retain(|one| !one.bind.is_empty());
}

/// A server that sends everybody to https.
fn redirect(server: &Directive, scope: &Scope<'_>, taken: &mut BTreeSet<String>, draft: &mut Draft) {
    let mut all = listening(scope, draft);
    all.retain(|one| !one.is_tls);
    keep_free(&mut all, taken);
    // No request gets there, but each listener has a pool.
    let Some(pool) = draft.file.pools.keys().next().cloned() else {
        return leave_out(server, "there are no backends, and lb redirects only beside them", &mut draft.notes);
    };
    if all.is_empty() {
        let why = "its address belongs to another server, which serves its requests, too";
        return leave_out(server, why, &mut draft.notes);
    }
    for one in &all {
        match listener(one, scope, "X-Real-IP", &mut draft.notes) {
            Ok(mut listener) => {
                (listener.mode, listener.pool) = (ModeSpec::Http, Some(pool.clone()));
                listener.http.redirect = Redirect::Https;
                draft.add_listener(&format!("http-{}", port(&one.bind[0])), &server.place, listener);
            }
            Err(why) => return leave_out(server, &why, &mut draft.notes),
        }
    }
    pages::note_redirect(server, &mut draft.notes);
}

fn leave_out(directive: &Directive, why: &str, notes: &mut Notes) {
    directive.see_all();
    notes.changes(&directive.place, &directive.text(), why);
}

/// The locations of a server that pass requests on.
fn destinations<'a>(server: &Scope<'a>) -> Vec<Destination<'a>> {
    let locations = server.own.iter().filter(|directive| directive.name == "location");
    locations.filter_map(|location| destination(location, server)).collect()
}

fn destination<'a>(location: &'a Directive, server: &Scope<'a>) -> Option<Destination<'a>> {
    let has = |name: &str| location.inner().iter().any(|directive| directive.name == name);
    let pass = location.inner().iter().rfind(|directive| directive.name == "proxy_pass")?;
    // Its requests are answered already, or come from nginx itself alone.
    if has("return") || has("internal") {
        return None;
    }
    let scope = server.within(location.inner());
    let (mut target, mut chosen_by, mut has_variables) = (String::new(), None, false);
    for part in parts(pass.arg(0)) {
        match part {
            Part::Text(text) => target += text,
            // The request's own path and query, which pass unchanged anyway.
            Part::Variable("request_uri") if target.matches('/').count() == 2 => {}
            Part::Variable(name) => {
                has_variables = true;
                match (constant(name, &scope), map_default(name, server)) {
                    (Some(value), _) => target += &value,
                    (None, Some((map, default))) => {
                        target += &default;
                        chosen_by = Some(map);
                    }
                    (None, None) => return None,
                }
            }
        }
    }
    let (scheme, rest) = target.split_once("://")?;
    let split = if rest.starts_with("unix:") { rest.rfind(':').filter(|at| *at > 4) } else { rest.find('/') };
    let (host, path) = rest.split_at(split.unwrap_or(rest.len()));
    let path = path.trim_start_matches(':').to_owned();
    let is_tls = scheme.eq_ignore_ascii_case("https");
    Some(Destination { location, host: host.to_owned(), is_tls, path, chosen_by, has_variables })
}

/// A location's path, without its kind.
fn path_of(location: &Directive) -> &str {
    location.args.last().map_or("", String::as_str)
}

/// That of all paths, else the one that `try_files` falls back to, else the first.
fn main_destination<'a, 'b>(destinations: &'b [Destination<'a>]) -> Option<&'b Destination<'a>> {
    let is_exact = |one: &&Destination<'_>| one.location.arg(0) == "=";
    let all = destinations.iter().find(|one| path_of(one.location) == "/" && !is_exact(one));
    let named = destinations.iter().find(|one| path_of(one.location).starts_with('@'));
    all.or(named).or_else(|| destinations.iter().find(|one| !is_exact(one))).or_else(|| destinations.first())
}

/// The listener and the pool for requests that this location passes on.
fn pass(
    to: &Destination<'_>,
    listening: &Listening<'_>,
    scope: &Scope<'_>,
    upstreams: &Upstreams<'_>,
    notes: &mut Notes,
) -> Result<Passed, String> {
    to.location.see();
    let _ = scope.one("proxy_pass");
    let mut pool = upstreams.pool(&to.host, Some(if to.is_tls { 443 } else { 80 }), scope, notes)?;
    if to.is_tls {
        tls::to_backends(&mut pool, &to.host, scope, notes);
    }
    let mut listener = listener(listening, scope, "X-Real-IP", notes)?;
    listener.mode = ModeSpec::Http;
    let facts = Facts {
        proxy_host: &to.host,
        server_name: scope.word("server_name"),
        scheme: if listening.is_tls { "https" } else { "http" },
        remote: remote(listening, scope, "X-Real-IP"),
    };
    let headers = headers(scope, &facts, notes);
    note_redirects(scope, &headers, notes);
    if headers.mention("$proxy_add_x_forwarded_for") {
        listener.http.forwarded_from = Some(EVERYBODY.map(str::to_owned).to_vec());
        let added = scope.all("proxy_set_header").into_iter().find(|one| one.arg(1).contains("proxy_add_x_forwarded"));
        if let Some(added) = added {
            let why =
                "as with nginx, what clients send of it is kept; `http.forwarded_from` can name your proxies alone";
            notes.harmless(&added.place, &added.text(), why);
        }
    }
    listener.http.set_headers = headers.into_map();
    set_timeouts(&mut listener, scope);
    set_keep_alive(&mut listener, &Scope::of(upstreams.block(&to.host)), notes);
    let pool_name = if upstreams.has(&to.host) { to.host.as_str() } else { to.host.trim_start_matches("unix:") };
    Ok(Passed { pool_name: pool_name.to_owned(), pool, listener })
}

/// nginx's own choice rewrites the backend's address in Location, which backends that know the client's Host don't use.
fn note_redirects(scope: &Scope<'_>, headers: &Headers, notes: &mut Notes) {
    for redirect in scope.all("proxy_redirect") {
        let (place, text) = (&redirect.place, redirect.text());
        match redirect.arg(0) {
            "off" => notes.harmless(place, &text, "it is off"),
            "default" if headers.is_host_of_client() => {
                notes.harmless(place, &text, "with the client's Host, backends redirect to where the client came from");
            }
            _ => notes.changes(place, &text, "Location and Refresh pass as the backend sends them"),
        }
    }
}

fn set_timeouts(listener: &mut ListenerSpec, scope: &Scope<'_>) {
    if let Some(read) = time(scope.word("proxy_read_timeout")) {
        listener.http.timeouts.response_header = positive(read);
        listener.timeouts.idle = or_off(read);
    }
    if let Some(keep) = time(scope.word("keepalive_timeout")) {
        listener.http.timeouts.keep_alive = positive(keep);
    }
}

/// Idle connections to the servers of an upstream.
fn set_keep_alive(listener: &mut ListenerSpec, upstream: &Scope<'_>, notes: &mut Notes) {
    let keep = &mut listener.http.backend_keep_alive;
    if let Some(keepalive) = upstream.one("keepalive") {
        let wanted: usize = keepalive.arg(0).parse().unwrap_or(keep.idle_connections);
        keep.idle_connections = wanted.min(MAX_IDLE_CONNECTIONS);
        if wanted > MAX_IDLE_CONNECTIONS {
            let why = format!("a worker keeps {MAX_IDLE_CONNECTIONS} idle connections to a backend at most");
            notes.harmless(&keepalive.place, &keepalive.text(), why);
        }
    }
    if let Some(timeout) = time(upstream.word("keepalive_timeout")) {
        keep.idle_timeout = positive(timeout);
    }
}

/// What differs although the location is translated.
fn note_main_location(main: &Destination<'_>, notes: &mut Notes) {
    let (location, path) = (main.location, path_of(main.location));
    if location.arg(0) == "=" || !matches!(path, "/" | "^/" | "^" | ".*" | "^.*") {
        let why = "requests for all other paths go to its backends, too: lb doesn't choose by path";
        notes.changes(&location.place, &location.text(), why);
    }
    if let Some(map) = main.chosen_by {
        map.see_all();
        notes.changes(&map.place, &map.text(), "all requests go to its default: lb decides nothing by their content");
    }
    if main.has_variables && !main.path.is_empty() {
        let why = format!("nginx sends `{}` for every path, as it has a variable there; lb passes paths", main.path);
        notes.changes(&location.place, "proxy_pass", why);
    } else if !main.path.is_empty() && main.path != path {
        let why = format!("paths pass unchanged: `{path}` doesn't become `{}`", main.path);
        notes.changes(&location.place, "proxy_pass", why);
    }
}

fn note_other_location(
    other: &Directive,
    main: &Destination<'_>,
    destinations: &[Destination<'_>],
    listening: &Listening<'_>,
    server: &Scope<'_>,
    upstreams: &Upstreams<'_>,
    notes: &mut Notes,
) {
    if std::ptr::eq(other, main.location) {
        return;
    }
    let own = destinations.iter().find(|one| std::ptr::eq(one.location, other));
    let passed = |to: &Destination<'_>, notes: &mut Notes| {
        let scope = server.within(to.location.inner());
        let passed = pass(to, listening, &scope, upstreams, notes).ok();
        passed.map(|Passed { pool, listener, .. }| format!("{pool:?} {listener:?}"))
    };
    let mut own_notes = Notes::default();
    match own {
        Some(own)
            if (own.path.is_empty() || own.path == path_of(other))
                && passed(own, &mut own_notes) == passed(main, &mut Notes::default()) =>
        {
            notes.extend(own_notes);
        }
        _ if pages::is_monitoring(other) => {
            other.see_all();
            notes.harmless(&other.place, &other.text(), "the admin server has metrics and a status page");
        }
        _ if pages::refuses(other) => {
            leave_out(other, "whom it refuses gets to the backends: lb doesn't choose by path", notes);
        }
        _ if other.inner().iter().any(|directive| directive.name == "proxy_pass") => {
            leave_out(other, "its requests go where all others go: lb doesn't choose by path", notes);
        }
        _ => leave_out(other, "its requests go to the backends, as all others: lb serves nothing itself", notes),
    }
}
