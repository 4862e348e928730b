//! Where the connections of a `stream` server go: to a pool, or by what `ssl_preread` tells of each client.

use std::collections::BTreeMap;

use crate::config::file::listener::ListenerSpec;
use crate::config::file::route::{RouteSpec, RouteToSpec};
use crate::import::draft::Draft;
use crate::import::values::{TLS_RECORD, escaped_bytes};
use crate::protocol::client_hello::ServerNamePattern;

use super::headers::constant;
use super::pool::{self, Upstreams};
use super::tls;
use super::tree::{Directive, Scope};
use super::values::{Part, parts};

const SERVER_NAME: &str = "ssl_preread_server_name";

/// Where the connections of a server go.
pub enum Target<'a> {
    /// To an upstream or an address.
    One(String),
    /// To the host that the client asks for; its port, where that isn't the listener's.
    Host(Option<u16>),
    /// By a map of what `ssl_preread` tells.
    Map(&'a Directive, Preread),
}

/// What `ssl_preread` tells of a client.
#[derive(Clone, Copy)]
pub enum Preread {
    ServerName,
    /// All protocols that it offers, with commas.
    Protocols,
    /// The version of TLS; empty: it isn't TLS.
    Version,
}

/// What a server's routes are made of.
pub struct Making<'a, 'b> {
    pub server: &'a Directive,
    pub scope: &'b Scope<'a>,
    pub upstreams: &'b Upstreams<'a>,
    /// That of the listener.
    pub port: u16,
}

/// Where `proxy_pass` leads.
///
/// # Errors
/// By what lb can't ask.
pub fn target<'a>(
    pass: &Directive,
    scope: &Scope<'a>,
    maps: &BTreeMap<&str, &'a Directive>,
) -> Result<Target<'a>, String> {
    let mut text = String::new();
    let parts = parts(pass.arg(0));
    if let Some(port) = port_of_host(&parts) {
        return Ok(Target::Host(port));
    }
    for part in &parts {
        match part {
            Part::Text(own) => text += own,
            Part::Variable(name) => match (constant(name, scope), maps.get(name)) {
                (Some(value), _) => text += &value,
                (None, Some(map)) => match (parts.len(), preread(map)) {
                    (1, Some(preread)) => return Ok(Target::Map(map, preread)),
                    _ => return Err(format!("lb doesn't choose a pool by {}", map.arg(0))),
                },
                (None, None) => return Err(format!("where its connections go depends on ${name}")),
            },
        }
    }
    Ok(Target::One(text))
}

fn preread(map: &Directive) -> Option<Preread> {
    Some(match map.arg(0).strip_prefix('$')? {
        SERVER_NAME => Preread::ServerName,
        "ssl_preread_alpn_protocols" => Preread::Protocols,
        "ssl_preread_protocol" => Preread::Version,
        _ => return None,
    })
}

/// `$ssl_preread_server_name:443`: its port, or that of the listener.
fn port_of_host(parts: &[Part<'_>]) -> Option<Option<u16>> {
    match parts {
        [Part::Variable(SERVER_NAME), Part::Text(port)] => port.strip_prefix(':')?.parse().ok().map(Some),
        [Part::Variable(SERVER_NAME), Part::Text(":"), Part::Variable("server_port")] => Some(None),
        _ => None,
    }
}

impl<'a> Making<'a, '_> {
    /// The pool and the routes of a listener.
    ///
    /// # Errors
    /// Nothing is left of them.
    pub fn set(&self, listener: &mut ListenerSpec, target: &Target<'a>, draft: &mut Draft) -> Result<(), String> {
        match target {
            Target::One(name) => listener.pool = Some(self.pool(name, draft)?),
            Target::Host(port) => self.add_hosts(listener, "*".to_owned(), *port, self.server, draft),
            Target::Map(map, preread) => {
                map.see_all();
                match preread {
                    Preread::ServerName => {
                        self.add_names(listener, map, draft);
                        add_rest_of_tls(listener);
                    }
                    Preread::Protocols => {
                        self.add_protocols(listener, map, draft);
                        add_rest_of_tls(listener);
                    }
                    Preread::Version => self.add_versions(listener, map, draft),
                }
                if listener.routes.is_empty() && listener.pool.is_none() {
                    return Err("no entry of its map could be translated".to_owned());
                }
            }
        }
        Ok(())
    }

    fn pool(&self, name: &str, draft: &mut Draft) -> Result<String, String> {
        let mut pool = self.upstreams.pool(name, None, self.scope, &mut draft.notes)?;
        if self.scope.word("proxy_ssl") == "on" {
            tls::to_backends(&mut pool, name, self.scope, &mut draft.notes);
        }
        Ok(draft.add_pool(name.trim_start_matches("unix:"), &self.server.place, pool))
    }

    /// The pool that an entry of a map names; where there is none, the entry is said to be left out.
    fn pool_of(&self, entry: &Directive, draft: &mut Draft) -> Option<String> {
        let pool = self.pool(entry.arg(0), draft);
        pool.map_err(|why| draft.notes.changes(&entry.place, &entry.text(), why)).ok()
    }

    /// A route to the hosts that clients ask for.
    fn add_hosts(
        &self,
        listener: &mut ListenerSpec,
        sni: String,
        port: Option<u16>,
        at: &Directive,
        draft: &mut Draft,
    ) {
        let pool = pool::of_hosts(self.scope, &mut draft.notes);
        let pool = draft.add_pool("server-name", &self.server.place, pool);
        let (to, port) = (Some(RouteToSpec::ServerName), Some(port.unwrap_or(self.port)));
        listener.routes.push(RouteSpec { to, port, ..RouteSpec::by_name(sni, pool) });
        let why = "names with an address of this machine or of its links are refused; `allow_local: true` allows them";
        draft.notes.changes(&at.place, &at.text(), why);
    }

    fn add_names(&self, listener: &mut ListenerSpec, map: &'a Directive, draft: &mut Draft) {
        let has_wildcards = map.inner().iter().any(|entry| entry.name == "hostnames");
        for entry in entries(map) {
            let host = port_of_host(&parts(entry.arg(0)));
            match (entry.name.as_str(), host) {
                ("default", Some(port)) => self.add_hosts(listener, "*".to_owned(), port, entry, draft),
                ("default", None) => listener.pool = self.pool_of(entry, draft),
                (name, host) => {
                    for sni in names(name, has_wildcards) {
                        let is_known = listener.routes.iter().any(|route| route.is_by_name(&sni));
                        let is_name = sni.parse::<ServerNamePattern>().is_ok() && (has_wildcards || !sni.contains('*'));
                        if is_known || !is_name {
                            let why = "routes are by a name, or by all names below one (`*.example.org`)";
                            draft.notes.changes(&entry.place, &entry.text(), why);
                        } else if let Some(port) = host {
                            self.add_hosts(listener, sni, port, entry, draft);
                        } else if let Some(pool) = self.pool_of(entry, draft) {
                            listener.routes.push(RouteSpec::by_name(sni, pool));
                        }
                    }
                }
            }
        }
    }

    /// By `~\bh2\b` and the like.
    fn add_protocols(&self, listener: &mut ListenerSpec, map: &'a Directive, draft: &mut Draft) {
        for entry in entries(map) {
            if entry.name == "default" {
                listener.pool = self.pool_of(entry, draft);
                continue;
            }
            let Some(protocol) = offered(&entry.name) else {
                let why = r"routes are by one of the protocols that are offered (`~\bh2\b`), not by all of them";
                draft.notes.changes(&entry.place, &entry.text(), why);
                continue;
            };
            let Some(pool) = self.pool_of(entry, draft) else { continue };
            if listener.routes.iter().any(|route| route.pool != pool) {
                let why = "of several that a client offers, its own order decides";
                draft.notes.changes(&entry.place, &entry.text(), why);
            }
            if listener.routes.iter().all(|route| route.alpn.as_deref() != Some(protocol)) {
                listener.routes.push(RouteSpec { alpn: Some(protocol.to_owned()), pool, ..RouteSpec::default() });
            }
        }
    }

    /// TLS, or none at all.
    fn add_versions(&self, listener: &mut ListenerSpec, map: &'a Directive, draft: &mut Draft) {
        let default = map.inner().iter().find(|entry| entry.name == "default");
        let plain = map.inner().iter().find(|entry| entry.name.is_empty()).or(default);
        let tls = default.or_else(|| entries(map).find(|entry| !entry.name.is_empty()));
        for entry in entries(map).filter(|entry| !entry.name.is_empty()) {
            if tls.is_some_and(|tls| tls.arg(0) != entry.arg(0)) {
                let why = "routes are by TLS, not by its version";
                draft.notes.changes(&entry.place, &entry.text(), why);
            }
        }
        listener.pool = plain.and_then(|entry| self.pool_of(entry, draft));
        let Some(tls) = tls.filter(|tls| plain.is_none_or(|plain| plain.arg(0) != tls.arg(0))) else { return };
        let Some(pool) = self.pool_of(tls, draft) else { return };
        let starts_with = Some(escaped_bytes(TLS_RECORD));
        listener.routes.push(RouteSpec { starts_with, pool, ..RouteSpec::default() });
    }
}

/// Where all routes are by TLS, lb refuses who speaks none; nginx sends such clients to the default.
fn add_rest_of_tls(listener: &mut ListenerSpec) {
    if let (Some(pool), false) = (listener.pool.clone(), listener.routes.is_empty()) {
        let starts_with = Some(escaped_bytes(TLS_RECORD));
        listener.routes.push(RouteSpec { starts_with, pool, ..RouteSpec::default() });
    }
}

fn entries(map: &Directive) -> impl Iterator<Item = &Directive> {
    map.inner().iter().filter(|entry| !matches!(entry.name.as_str(), "hostnames" | "volatile"))
}

/// `.example.org` is the name itself and all below it.
fn names(name: &str, has_wildcards: bool) -> Vec<String> {
    let name = name.trim_start_matches('\\');
    match name.strip_prefix('.') {
        Some(rest) if has_wildcards => vec![rest.to_owned(), format!("*.{rest}")],
        _ => vec![name.to_owned()],
    }
}

/// The protocol that `~\bh2\b` looks for.
fn offered(pattern: &str) -> Option<&str> {
    let protocol = pattern.strip_prefix('~')?.strip_prefix(r"\b")?.strip_suffix(r"\b")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_');
    (!protocol.is_empty() && protocol.bytes().all(is_plain)).then_some(protocol)
}
