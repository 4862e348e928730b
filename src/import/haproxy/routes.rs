//! Which backend gets which clients of a frontend: `use_backend` and `default_backend`.

use std::collections::BTreeMap;
use std::iter;
use std::time::Duration;

use crate::config::file::listener::ListenerSpec;
use crate::config::file::route::RouteSpec;
use crate::import::note::Notes;
use crate::import::values::{TLS_RECORD, escaped_bytes, positive};

use super::acl::{Acls, All, Test};
use super::tree::{Line, Proxy};
use super::values::time;

/// Where its clients go.
pub struct Destinations<'a> {
    /// Routes, each still without its pool, and the backends that they lead to.
    pub routes: Vec<(RouteSpec, &'a str)>,
    pub default: Option<&'a str>,
}

/// What a rule goes by.
enum Clients {
    Tls {
        name: Option<String>,
        protocol: Option<String>,
    },
    FirstBytes(Vec<u8>),
    Silent,
    /// Whoever doesn't speak TLS.
    Plain,
}

/// The rules so far: whom each has taken, for which backend.
#[derive(Default)]
struct Rules<'a> {
    /// Server names and patterns, in lower case, and protocols.
    tls: BTreeMap<(Option<String>, Option<String>), &'a str>,
    first_bytes: BTreeMap<Vec<u8>, &'a str>,
    silent: Option<&'a str>,
    plain: Option<&'a str>,
    routes: Vec<(RouteSpec, &'a str)>,
}

/// The backends that `use_backend` and `default_backend` name.
pub fn destinations<'a>(proxy: &Proxy<'a>, acls: &Acls<'_>, notes: &mut Notes) -> Destinations<'a> {
    let mut default = proxy.value(&["default_backend"]);
    if proxy.section.kind() == "listen" && proxy.section.lines.iter().any(is_server) {
        default = Some(proxy.name());
    }
    let delay = proxy.value(&["tcp-request", "inspect-delay"]).and_then(time).filter(|delay| !delay.is_zero());
    let mut rules = Rules::default();
    for line in proxy.section.all(&["use_backend"]) {
        let clients = match &acls.condition(line.from(2))[..] {
            [all] if all[..] == [(false, Test::Always)] => {
                // Rules after it decide nothing.
                default = Some(line.word(1));
                break;
            }
            _ if proxy.is_http() => None,
            any => any.iter().map(clients_of).collect::<Option<Vec<_>>>(),
        };
        match clients {
            Some(clients) => clients.into_iter().flatten().for_each(|one| rules.add(one, line, delay, notes)),
            // lb has one place for all requests.
            None if default == Some(line.word(1)) && is_last_elsewhere(proxy, line) => {
                notes.harmless(&line.place, &line.text(), "all others go there, too");
            }
            // Whom it keeps out by address would be let in.
            None if proxy.is_http()
                && default.is_none()
                && !line.word(1).contains('%')
                && !is_by_source(line, acls) =>
            {
                notes.changes(
                    &line.place,
                    &line.text(),
                    "all requests go there, not only those that fit its condition",
                );
                default = Some(line.word(1));
            }
            None => {
                let why = match proxy.is_http() {
                    true => "all requests go to one place: lb chooses by no host, path or address",
                    false => "clients are told apart by what they say first, not by their addresses",
                };
                notes.changes(&line.place, &line.text(), why);
            }
        }
    }
    rules.finish(default, delay, proxy, notes)
}

impl<'a> Rules<'a> {
    fn add(&mut self, clients: Clients, line: &'a Line, delay: Option<Duration>, notes: &mut Notes) {
        const GONE: &str = "such clients go where an earlier rule sends them";
        let backend = line.word(1);
        let (route, earlier) = match clients {
            Clients::Plain => {
                self.plain.get_or_insert(backend);
                return;
            }
            Clients::Silent => {
                let Some(delay) = delay else {
                    return notes.changes(&line.place, &line.text(), "without `inspect-delay` nobody is waited for");
                };
                let earlier = self.silent.replace(backend);
                (RouteSpec { silent: Some(positive(delay)), ..RouteSpec::default() }, earlier)
            }
            Clients::FirstBytes(bytes) => {
                let earlier = (1..=bytes.len()).find_map(|end| self.first_bytes.get(&bytes[..end]).copied());
                let starts_with = Some(escaped_bytes(&bytes));
                self.first_bytes.entry(bytes).or_insert(backend);
                (RouteSpec { starts_with, ..RouteSpec::default() }, earlier)
            }
            Clients::Tls { name, protocol } => {
                let earlier = self.tls_rule(name.as_deref(), protocol.as_deref());
                if name.is_some() && self.tls.keys().any(|(name, _)| name.is_none()) {
                    let why = "a client's server name decides first, then what it offers by ALPN";
                    notes.changes(&line.place, &line.text(), why);
                }
                let key = (name.as_ref().map(|name| name.to_ascii_lowercase()), protocol.clone());
                self.tls.entry(key).or_insert(backend);
                (RouteSpec { sni: name, alpn: protocol, ..RouteSpec::default() }, earlier)
            }
        };
        match earlier {
            Some(other) if other != backend => notes.harmless(&line.place, &line.text(), GONE),
            Some(_) => {}
            None => self.routes.push((route, backend)),
        }
    }

    /// Where a rule before sends such clients. The first rule that fits decides in HAProxy, the longest name in lb.
    fn tls_rule(&self, name: Option<&str>, protocol: Option<&str>) -> Option<&'a str> {
        let names: Vec<Option<String>> = name.map_or(vec![None], |name| covering(name).map(Some).collect());
        let protocols = iter::once(None).chain(protocol.map(|protocol| Some(protocol.to_owned())));
        let mut keys = protocols.flat_map(|protocol| names.iter().map(move |name| (name.clone(), protocol.clone())));
        keys.find_map(|key| self.tls.get(&key).copied())
    }

    /// With whom no rule has taken.
    fn finish(
        mut self,
        default: Option<&'a str>,
        delay: Option<Duration>,
        proxy: &Proxy<'a>,
        notes: &mut Notes,
    ) -> Destinations<'a> {
        match (self.plain, default) {
            (None, _) => {}
            (Some(_), Some(default)) => {
                self.first_bytes.insert(TLS_RECORD.to_vec(), default);
                let starts_with = Some(escaped_bytes(TLS_RECORD));
                self.routes.push((RouteSpec { starts_with, ..RouteSpec::default() }, default));
            }
            (Some(plain), None) => {
                let why = format!("TLS clients for whom there is no rule go to {plain}, too");
                notes.changes(proxy.place(), &proxy.section.head.text(), why);
            }
        }
        // Who speaks no TLS gets there, too, unless a rule refuses that.
        if let (Some(default), None, true) = (default, self.plain, self.first_bytes.is_empty())
            && !self.routes.is_empty()
            && self.routes.iter().all(|(route, _)| route.silent.is_none())
            && !is_for_tls_alone(proxy)
        {
            self.first_bytes.insert(TLS_RECORD.to_vec(), default);
            let starts_with = Some(escaped_bytes(TLS_RECORD));
            self.routes.push((RouteSpec { starts_with, ..RouteSpec::default() }, default));
        }
        let default = self.plain.or(default);
        // HAProxy waits no longer for the first bytes, and goes on.
        if let (Some(default), Some(delay), None, false) = (default, delay, self.silent, self.first_bytes.is_empty()) {
            let silent = Some(positive(delay));
            self.routes.push((RouteSpec { silent, ..RouteSpec::default() }, default));
        }
        Destinations { routes: self.routes, default }
    }
}

/// A client that has not said enough in `client_header` is refused: silence has to be noticed before.
pub fn wait_for_silence(listener: &mut ListenerSpec) {
    let silent = listener.routes.iter().filter_map(|route| route.silent).map(|silent| silent.0).max();
    if let Some(silent) = silent.filter(|silent| *silent >= listener.timeouts.client_header.0) {
        listener.timeouts.client_header = positive(silent.saturating_mul(2));
    }
}

/// Whether no rule after this one leads elsewhere than to its backend.
fn is_last_elsewhere(proxy: &Proxy<'_>, line: &Line) -> bool {
    let rules = proxy.section.all(&["use_backend"]);
    rules.skip_while(|other| !std::ptr::eq(*other, line)).all(|other| other.word(1) == line.word(1))
}

fn is_by_source(line: &Line, acls: &Acls<'_>) -> bool {
    acls.condition(line.from(2)).iter().flatten().any(|(_, test)| test.is_of_source())
}

fn is_server(line: &Line) -> bool {
    matches!(line.word(0), "server" | "server-template" | "dispatch")
}

/// Whether a rule refuses clients that speak no TLS.
fn is_for_tls_alone(proxy: &Proxy<'_>) -> bool {
    proxy.all_lines(&["tcp-request", "content"]).iter().any(|line| {
        let is_refusal = matches!(line.word(2), "reject" | "silent-drop");
        is_refusal && (line.word(3).is_empty() || line.words.iter().any(|word| word.contains("ssl_hello_type")))
    })
}

/// Whom a condition means; `None`: lb can't tell them apart from others.
fn clients_of(all: &All) -> Option<Vec<Clients>> {
    let tls = |name: Option<&String>, protocol: Option<&String>| Clients::Tls {
        name: name.cloned(),
        protocol: protocol.cloned(),
    };
    Some(match &all[..] {
        [(false, Test::Never)] => Vec::new(),
        [(false, Test::ServerName(names))] => names.iter().map(|name| tls(Some(name), None)).collect(),
        [(false, Test::Protocol(protocols))] => protocols.iter().map(|protocol| tls(None, Some(protocol))).collect(),
        [(false, Test::ServerName(names)), (false, Test::Protocol(protocols))]
        | [(false, Test::Protocol(protocols)), (false, Test::ServerName(names))] => {
            let pairs = names.iter().flat_map(|name| protocols.iter().map(move |protocol| (name, protocol)));
            pairs.map(|(name, protocol)| tls(Some(name), Some(protocol))).collect()
        }
        [(false, Test::FirstBytes(all))] => all.iter().cloned().map(Clients::FirstBytes).collect(),
        [(false, Test::IsTls)] => vec![Clients::FirstBytes(TLS_RECORD.to_vec())],
        [(true, Test::IsTls)] => vec![Clients::Plain],
        [(false, Test::IsSilent)] => vec![Clients::Silent],
        _ => return None,
    })
}

/// The patterns that fit all clients of this name or pattern.
fn covering(name: &str) -> impl Iterator<Item = String> {
    let name = name.to_ascii_lowercase();
    let wildcards: Vec<String> = name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..])).collect();
    iter::once(name).chain(wildcards)
}
