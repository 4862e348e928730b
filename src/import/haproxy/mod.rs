//! haproxy.cfg: read as HAProxy reads it (`lexer`, `tree`), and translated proxy by proxy. `keywords` has all that are
//! known; what no translation has asked for in the end is noted by it.

mod access;
mod acl;
mod check;
mod check_http;
mod check_tcp;
mod keywords;
mod lexer;
mod listener;
mod pool;
mod rules;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod tree;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use crate::config::file::listener::{ListenerSpec, ModeSpec};
use crate::config::file::off::OffOr;
use crate::config::file::units::AutoOr;

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
use listener::{add_route, destinations, listen, set_timeouts};
use tree::{Line, Proxy, Section};
use values::port_of;

/// The most workers that `config` takes.
const MAX_WORKERS: usize = 1024;
/// Answers of the admin server with status 200.
const ADMIN_PATHS: [&str; 4] = ["/", "/healthz", "/readyz", "/metrics"];

/// A proxy of the file, and where its clients come in.
struct Translation<'a> {
    sections: &'a [Section],
    backends: BTreeMap<&'a str, Proxy<'a>>,
    /// The ports by which clients come to a backend.
    ports: BTreeMap<&'a str, BTreeSet<u16>>,
    /// The pools that backends have become; `None`: it can't be translated.
    pools: BTreeMap<&'a str, Option<String>>,
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
    let sections = tree::read(file, text, surroundings, &mut draft.notes)?;
    for section in sections.iter().filter(|section| section.kind() == "global") {
        section.head.see();
        set_process(section, draft);
    }
    let backends = Proxy::all(&sections, &["backend", "listen"]);
    let backends = backends.into_iter().map(|proxy| (proxy.name(), proxy)).collect();
    let mut all = Translation { sections: &sections, backends, ports: BTreeMap::new(), pools: BTreeMap::new() };
    let frontends = Proxy::all(&sections, &["frontend", "listen"]);
    for proxy in &frontends {
        all.note_ports(proxy);
    }
    for proxy in &frontends {
        all.translate_frontend(proxy, draft);
    }
    for section in sections.iter().filter(|section| section.kind() == "backend") {
        all.pool(section.name(), draft);
    }
    note_unseen(&sections, &mut draft.notes);
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
            _ => continue,
        }
        line.see();
    }
}

impl<'a> Translation<'a> {
    fn note_ports(&mut self, proxy: &Proxy<'a>) {
        let binds = [false, true].map(|of_tls| listen(proxy, of_tls, &mut Notes::default()).bind.0).concat();
        let ports: Vec<u16> = binds.iter().filter_map(|address| port_of(address)).collect();
        let used = proxy.section.lines.iter().filter(|line| matches!(line.word(0), "use_backend" | "default_backend"));
        let inherited = proxy.value(&["default_backend"]);
        for name in used.map(|line| line.word(1)).chain(inherited).chain([proxy.name()]) {
            self.ports.entry(name).or_default().extend(&ports);
        }
    }

    /// The name of the pool of a backend; `None`: it has none.
    fn pool(&mut self, name: &'a str, draft: &mut Draft) -> Option<String> {
        if let Some(pool) = self.pools.get(name) {
            return pool.clone();
        }
        let proxy = self.backends.get(name)?;
        let ports = self.ports.get(name).filter(|ports| ports.len() == 1);
        let port = ports.and_then(|ports| ports.first().copied());
        let pool = match pool::pool(proxy, port, self.sections, &mut draft.notes) {
            Ok(pool) => Some(draft.add_pool(name, proxy.place(), pool)),
            Err(why) => {
                proxy.section.see_all();
                draft.notes.changes(proxy.place(), &proxy.section.head.text(), why);
                None
            }
        };
        self.pools.insert(name, pool.clone());
        pool
    }

    fn translate_frontend(&mut self, proxy: &Proxy<'a>, draft: &mut Draft) {
        if proxy.section.all(&["disabled"]).next().is_some() {
            proxy.section.see_all();
            return draft.notes.harmless(proxy.place(), &proxy.section.head.text(), "it is disabled");
        }
        let plain = listen(proxy, false, &mut draft.notes);
        let with_tls = listen(proxy, true, &mut draft.notes);
        let has_tls = !with_tls.bind.0.is_empty();
        if has_tls {
            self.translate_listener(proxy, with_tls, true, draft);
        }
        if !has_tls || !plain.bind.0.is_empty() {
            self.translate_listener(proxy, plain, false, draft);
        }
    }

    fn translate_listener(&mut self, proxy: &Proxy<'a>, mut listener: ListenerSpec, is_tls: bool, draft: &mut Draft) {
        let acls = Acls::of(proxy.section, is_tls);
        let destinations = destinations(proxy, &acls, &mut draft.notes);
        if destinations.default.is_none() && destinations.by_name.is_empty() {
            return translate_pages(proxy, &listener, draft);
        }
        for (name, backend) in &destinations.by_name {
            if let Some(pool) = self.pool(backend, draft) {
                add_route(&mut listener, name.clone(), pool);
            }
        }
        listener.pool = destinations.default.and_then(|backend| self.pool(backend, draft));
        let is_empty = listener.pool.is_none() && listener.routes.is_empty();
        if is_empty || listener.bind.0.is_empty() {
            let why =
                if is_empty { "no backend of it could be translated" } else { "it has no address that lb can use" };
            proxy.section.see_all();
            return draft.notes.changes(proxy.place(), &proxy.section.head.text(), why);
        }
        let names = destinations.by_name.iter().map(|(_, backend)| *backend).chain(destinations.default);
        let backends: Vec<&Proxy<'a>> = names.filter_map(|name| self.backends.get(name)).collect();
        set_timeouts(&mut listener, proxy, &backends, &mut draft.notes);
        access::set_access(&mut listener, proxy, is_tls, &mut draft.notes);
        if listener.mode == ModeSpec::Http {
            set_http(&mut listener, proxy, destinations.default.and_then(|name| self.backends.get(name)), draft);
        }
        note_pages(proxy, &mut draft.notes);
        draft.add_listener(proxy.name(), proxy.place(), listener);
    }
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

/// A proxy without servers: its pages of statistics and health are the admin server's.
fn translate_pages(proxy: &Proxy<'_>, listener: &ListenerSpec, draft: &mut Draft) {
    let has = |words: &[&str]| !proxy.all_lines(words).is_empty();
    let is_of_pages = has(&["stats"]) || has(&["monitor-uri"]) || has(&["http-request", "use-service"]);
    let (place, head) = (proxy.place(), proxy.section.head.text());
    let Some(bind) = listener.bind.0.first().filter(|_| is_of_pages && proxy.name() != "") else {
        proxy.section.see_all();
        return draft.notes.changes(place, &head, "it has no servers, and lb serves nothing itself");
    };
    let needs_password = has(&["stats", "auth"]);
    let monitor = proxy.value(&["monitor-uri"]);
    for line in &proxy.section.lines {
        line.see();
    }
    if needs_password || draft.places.contains_key("admin") {
        let why = "the status page is the admin server's, on this machine only: it asks for no password";
        return draft.notes.harmless(place, &head, why);
    }
    if let Some(path) = monitor.filter(|path| !ADMIN_PATHS.contains(path)) {
        draft.notes.changes(place, &format!("monitor-uri {path}"), "the admin server's health page is /healthz");
    }
    draft.file.admin.bind.clone_from(bind);
    draft.places.insert("admin".to_owned(), place.clone());
    draft.notes.harmless(place, &head, "the admin server answers at this address, with metrics and a status page");
}

/// Pages beside traffic.
fn note_pages(proxy: &Proxy<'_>, notes: &mut Notes) {
    for line in proxy.all_lines(&["stats"]) {
        notes.harmless(&line.place, &line.text(), "the admin server has a status page, at an address of its own");
    }
    for line in proxy.all_lines(&["monitor-uri"]) {
        notes.changes(&line.place, &line.text(), "the admin server has /healthz, at an address of its own");
    }
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
