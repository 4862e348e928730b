//! haproxy.cfg: read as HAProxy reads it (`lexer`, `tree`), and translated proxy by proxy. `keywords` has all that are
//! known; what no translation has asked for in the end is noted by it.

mod access;
mod acl;
mod check;
mod check_connect;
mod check_http;
mod check_tcp;
mod keywords;
mod lexer;
mod listener;
mod pages;
mod pool;
mod routes;
mod rules;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod tree;
mod values;

use std::collections::BTreeMap;

use crate::config::file::http::Redirect;
use crate::config::file::listener::{ListenerSpec, ModeSpec};
use crate::config::file::off::OffOr;
use crate::config::file::route::RouteSpec;
use crate::config::file::units::{AutoOr, OneOrMany};

use super::draft::Draft;
use super::note::{Notes, Unreadable};
use super::surroundings::Surroundings;
use super::treatment::{note_left_out, treatment_of};
use super::values::positive;

pub use keywords::KEYWORDS;
#[cfg(test)]
pub use keywords::{BIND_PARAMETERS, SERVER_PARAMETERS};
pub use tree::SECTIONS;

use acl::Acls;
use listener::{listeners, set_timeouts};
use routes::{destinations, wait_for_silence};
use tree::{Line, Proxy, Section};
use values::port_of;

/// The most workers that `config` takes.
const MAX_WORKERS: usize = 1024;
/// Of all binds together.
const MAX_ADDRESSES: usize = 10_000;

/// A proxy of the file, and where its clients come in.
struct Translation<'a> {
    sections: &'a [Section],
    backends: BTreeMap<&'a str, Proxy<'a>>,
    /// The pools that backends have become, by name and by the port of the clients, where servers have none of their
    /// own; `None`: it can't be translated.
    pools: BTreeMap<(&'a str, Option<u16>), Option<String>>,
}

/// Translates `text`, the content of `file`.
///
/// # Errors
/// HAProxy itself couldn't read it.
pub fn translate(
    file: &str,
    text: &str,
    surroundings: &mut Surroundings<'_>,
    draft: &mut Draft,
) -> Result<(), Unreadable> {
    let mut sections = tree::read(file, text, surroundings, &mut draft.notes)?;
    tls::join_bases(&mut sections);
    check_addresses(&sections)?;
    for section in sections.iter().filter(|section| section.kind() == "global") {
        section.head.see();
        set_process(section, draft);
    }
    let backends = Proxy::all(&sections, &["backend", "listen"]);
    let backends = backends.into_iter().map(|proxy| (proxy.name(), proxy)).collect();
    let mut all = Translation { sections: &sections, backends, pools: BTreeMap::new() };
    for proxy in &Proxy::all(&sections, &["frontend", "listen"]) {
        all.translate_frontend(proxy, draft);
    }
    for section in sections.iter().filter(|section| section.kind() == "backend") {
        let next = all.pools.range((section.name(), None)..).next();
        if next.is_none_or(|((name, _), _)| *name != section.name()) {
            all.pool(section.name(), None, draft);
        }
    }
    note_unseen(&sections, &mut draft.notes);
    Ok(())
}

/// # Errors
/// There are so many that it could take long, or much memory.
fn check_addresses(sections: &[Section]) -> Result<(), Unreadable> {
    let mut addresses = 0;
    for line in sections.iter().flat_map(|section| &section.lines).filter(|line| line.word(0) == "bind") {
        addresses += values::binds(line.word(1), false).map_or(0, |of_line| of_line.len());
        if addresses > MAX_ADDRESSES {
            let message = format!("more than {MAX_ADDRESSES} addresses");
            return Err(Unreadable { place: line.place.clone(), message });
        }
    }
    Ok(())
}

fn set_process(global: &Section, draft: &mut Draft) {
    for line in &global.lines {
        let number = line.word(1).parse::<usize>().ok().filter(|number| *number > 0);
        let duration = values::time(line.word(1));
        match (line.word(0), number, duration) {
            ("maxconn", Some(number), _) => draft.file.max_connections = AutoOr::Number(number),
            ("nbthread" | "nbproc", Some(number), _) => draft.file.workers = AutoOr::Number(number.min(MAX_WORKERS)),
            ("hard-stop-after", _, Some(time)) => draft.file.drain.timeout = positive(time),
            ("grace", _, Some(time)) => draft.file.drain.grace = positive(time),
            ("stats" | "setenv" | "presetenv", ..) => {
                draft.notes.harmless(&line.place, &line.text(), "the admin server has metrics, health and commands");
            }
            ("ssl-server-verify", ..) if line.word(1) == "none" => {
                draft.notes.changes(&line.place, &line.text(), "lb verifies servers: write `verify none` at each");
            }
            ("ssl-default-bind-options", ..) if line.words.iter().any(|word| tls::LIMITS.contains(&word.as_str())) => {
                draft.notes.changes(&line.place, &line.text(), "versions of TLS are chosen at each bind");
            }
            _ => continue,
        }
        line.see();
    }
}

impl<'a> Translation<'a> {
    /// The name of the pool of a backend for clients that come by this port; `None`: it has none.
    fn pool(&mut self, name: &'a str, port: Option<u16>, draft: &mut Draft) -> Option<String> {
        let proxy = self.backends.get(name)?;
        let port = port.filter(|_| has_ports_of_clients(proxy));
        if let Some(pool) = self.pools.get(&(name, port)) {
            return pool.clone();
        }
        let pool = match pool::pool(proxy, port, self.sections, &mut draft.notes) {
            Ok(pool) => Some(draft.add_pool(name, proxy.place(), pool)),
            Err(why) => {
                proxy.section.see_all();
                draft.notes.changes(proxy.place(), &proxy.section.head.text(), why);
                None
            }
        };
        self.pools.insert((name, port), pool.clone());
        pool
    }

    fn translate_frontend(&mut self, proxy: &Proxy<'a>, draft: &mut Draft) {
        if proxy.section.all(&["disabled"]).next().is_some() {
            proxy.section.see_all();
            return draft.notes.harmless(proxy.place(), &proxy.section.head.text(), "it is disabled");
        }
        let listeners = listeners(proxy, &mut draft.notes);
        if pages::is_of_pages(proxy) {
            return pages::translate(proxy, &listeners, draft);
        }
        if listeners.is_empty() {
            return leave_out(proxy, "it has no address that lb can use", &mut draft.notes);
        }
        for listener in self.by_port(proxy, listeners) {
            self.translate_listener(proxy, listener, draft);
        }
    }

    /// A listener for each port, where a server has the port by which its client came.
    fn by_port(&self, proxy: &Proxy<'a>, listeners: Vec<ListenerSpec>) -> Vec<ListenerSpec> {
        let lines = proxy.section.lines.iter().filter(|line| matches!(line.word(0), "use_backend" | "default_backend"));
        let names = lines.map(|line| line.word(1)).chain(proxy.value(&["default_backend"])).chain([proxy.name()]);
        if !names.filter_map(|name| self.backends.get(name)).any(has_ports_of_clients) {
            return listeners;
        }
        let mut split = Vec::new();
        for listener in listeners {
            let mut by_port: BTreeMap<Option<u16>, Vec<String>> = BTreeMap::new();
            for address in &listener.bind.0 {
                by_port.entry(port_of(address)).or_default().push(address.clone());
            }
            split.extend(by_port.into_values().map(|bind| ListenerSpec { bind: OneOrMany(bind), ..listener.clone() }));
        }
        split
    }

    fn translate_listener(&mut self, proxy: &Proxy<'a>, mut listener: ListenerSpec, draft: &mut Draft) {
        let is_tls = matches!(listener.tls, OffOr::On(_));
        let acls = Acls::of(proxy.section, is_tls);
        let redirects = listener.mode == ModeSpec::Http && rules::redirects_to_https(proxy, is_tls, &mut draft.notes);
        let mut destinations = destinations(proxy, &acls, &mut draft.notes);
        if redirects {
            listener.http.redirect = Redirect::Https;
            // No request gets there, but each listener has a pool.
            destinations.default = destinations.default.or_else(|| self.backends.keys().next().copied());
        }
        if destinations.default.is_none() && destinations.routes.is_empty() {
            return leave_out(proxy, "it has no servers, and lb serves nothing itself", &mut draft.notes);
        }
        let port = listener.bind.0.first().and_then(|address| port_of(address));
        for (route, backend) in &destinations.routes {
            if let Some(pool) = self.pool(backend, port, draft) {
                listener.routes.push(RouteSpec { pool, ..route.clone() });
            }
        }
        listener.pool = destinations.default.and_then(|backend| self.pool(backend, port, draft));
        if listener.pool.is_none() && listener.routes.is_empty() {
            return leave_out(proxy, "no backend of it could be translated", &mut draft.notes);
        }
        let names = destinations.routes.iter().map(|(_, backend)| *backend).chain(destinations.default);
        let backends: Vec<&Proxy<'a>> = names.filter_map(|name| self.backends.get(name)).collect();
        set_timeouts(&mut listener, proxy, &backends, &mut draft.notes);
        wait_for_silence(&mut listener);
        access::set_access(&mut listener, proxy, &backends, is_tls, &mut draft.notes);
        if listener.bind.0.is_empty() {
            return;
        }
        if listener.mode == ModeSpec::Http {
            set_http(&mut listener, proxy, destinations.default.and_then(|name| self.backends.get(name)), draft);
        }
        pages::note(proxy, &mut draft.notes);
        draft.add_listener(proxy.name(), proxy.place(), listener);
    }
}

/// Whether a server's port is that by which its client came.
fn has_ports_of_clients(proxy: &Proxy<'_>) -> bool {
    let address = |line: &Line| match line.word(0) {
        "server" => Some(line.word(2).to_owned()),
        "server-template" => Some(line.word(3).to_owned()),
        _ => None,
    };
    proxy.section.lines.iter().filter_map(address).any(|address| values::server(&address, None).is_err())
}

fn set_http(listener: &mut ListenerSpec, proxy: &Proxy<'_>, backend: Option<&Proxy<'_>>, draft: &mut Draft) {
    let backend = backend.filter(|backend| !std::ptr::eq(backend.section, proxy.section));
    let is_tls = matches!(listener.tls, OffOr::On(_));
    let proxies: Vec<&Proxy<'_>> = [proxy].into_iter().chain(backend).collect();
    rules::set_headers(listener, &proxies, is_tls, &mut draft.notes);
    let closes = |proxy: &Proxy<'_>| {
        let options = ["http-server-close", "httpclose", "forceclose"].map(|name| proxy.option(name).is_some());
        options.contains(&true) || proxy.value(&["http-reuse"]) == Some("never")
    };
    let backend_closes = backend.is_some_and(closes);
    if closes(proxy) || backend_closes {
        listener.http.backend_keep_alive.idle_connections = 0;
    }
}

/// A proxy isn't translated at all.
fn leave_out(proxy: &Proxy<'_>, why: &str, notes: &mut Notes) {
    proxy.section.see_all();
    notes.changes(proxy.place(), &proxy.section.head.text(), why);
}

/// Notes what no translation has asked for.
fn note_unseen(sections: &[Section], notes: &mut Notes) {
    for section in sections {
        let is_known =
            matches!(section.kind(), "global" | "defaults" | "frontend" | "backend" | "listen" | "resolvers");
        if !section.head.is_seen() && !is_known {
            section.see_all();
            note(&section.head, section.head.word(0), notes);
        }
        for line in section.lines.iter().filter(|line| !line.is_seen()) {
            note(line, &keyword(line), notes);
        }
    }
}

/// The words by which a table knows the line.
fn keyword(line: &Line) -> String {
    match line.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["no" | "default", "option", name, ..] | ["option", name, ..] => format!("option_{name}"),
        ["timeout", name, ..] => format!("timeout_{name}"),
        ["no", name, ..] => format!("no_{name}"),
        [name, ..] if name.starts_with("tune.") => "tune.*".to_owned(),
        [name, ..] if name.starts_with("stats") => "stats".to_owned(),
        [name, ..] => name.to_owned(),
        [] => String::new(),
    }
}

fn note(line: &Line, keyword: &str, notes: &mut Notes) {
    let is_off = line.word(0) == "no";
    note_left_out(treatment_of(KEYWORDS, keyword), is_off, &line.place, &line.text(), notes);
}
