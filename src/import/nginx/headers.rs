//! `proxy_set_header`, and the headers that nginx sets by itself.

use crate::import::headers::Headers;
use crate::import::note::Notes;
use crate::protocol::http1::InvalidEdit;

use super::tree::{Directive, Scope};
use super::values::{Part, parts};

/// What a header's value may be made of, beside the client's and lb's own variables.
pub struct Facts<'a> {
    /// `$proxy_host`: what `proxy_pass` names.
    pub proxy_host: &'a str,
    pub server_name: &'a str,
    /// `$scheme`.
    pub scheme: &'a str,
    /// Whose address `$remote_addr` is.
    pub remote: Remote,
}

/// Whose address nginx takes for the client's. lb's client is always the one that a PROXY header names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// There is no PROXY header.
    Client,
    /// That of who sends the PROXY header.
    Sender,
    /// That of whom it names.
    Named,
}

/// Variables of lb with nginx's names.
const SHARED: [&str; 8] = [
    "host",
    "http_host",
    "remote_addr",
    "remote_port",
    "proxy_add_x_forwarded_for",
    "request_id",
    "server_addr",
    "server_port",
];

/// The headers of requests that are passed on from this block.
pub fn headers(scope: &Scope<'_>, facts: &Facts<'_>, notes: &mut Notes) -> Headers {
    let mut headers = Headers::as_sent();
    // ngx_http_proxy_module sets Host to $proxy_host unless it is told otherwise.
    let own = facts.proxy_host.strip_suffix(":80").unwrap_or(facts.proxy_host);
    drop(headers.set("Host", &own.replace('$', "$$")));
    for directive in scope.all("proxy_set_header") {
        let name = directive.arg(0);
        let result = match value(directive.arg(1), scope, facts) {
            // lb keeps what it knows: connections, framing, upgrades.
            Err(_) if headers.set(name, "") == Err(InvalidEdit::Reserved) => Err(InvalidEdit::Reserved.to_string()),
            Err(variable) => Err(format!("lb has no variable ${variable}: the header is removed")),
            Ok(value) => headers.set(name, &value).map_err(|invalid| invalid.to_string()),
        };
        match result {
            Ok(()) if facts.remote == Remote::Sender && is_of_remote(directive.arg(1)) => {
                let why =
                    "nginx takes who sends the PROXY header for the client (see real_ip_header), lb whom it names";
                notes.changes(&directive.place, &directive.text(), why);
            }
            Ok(()) => {}
            Err(why) if why == InvalidEdit::Reserved.to_string() => {
                notes.harmless(&directive.place, &directive.text(), "lb sets it by itself, as the connection needs it");
            }
            Err(why) => notes.changes(&directive.place, &directive.text(), why),
        }
    }
    headers
}

/// Whether the value has the address in it that nginx connects a client with.
fn is_of_remote(text: &str) -> bool {
    const OF_REMOTE: [&str; 5] =
        ["remote_addr", "remote_port", "proxy_add_x_forwarded_for", "realip_remote_addr", "realip_remote_port"];
    parts(text).iter().any(|part| matches!(part, Part::Variable(name) if OF_REMOTE.contains(name)))
}

/// A value with the variables of lb; the error is the name of a variable that it doesn't have.
fn value(text: &str, scope: &Scope<'_>, facts: &Facts<'_>) -> Result<String, String> {
    let mut value = String::new();
    let mut parts = parts(text).into_iter().peekable();
    while let Some(part) = parts.next() {
        // nginx takes their names in any case.
        let lower = if let Part::Variable(name) = part { name.to_ascii_lowercase() } else { String::new() };
        let part = if lower.is_empty() { part } else { Part::Variable(&lower) };
        let own = match part {
            Part::Text(text) => {
                value += &text.replace('$', "$$");
                continue;
            }
            // Without a PROXY header, these are empty.
            Part::Variable(name) if name.starts_with("proxy_protocol_") && facts.remote == Remote::Client => continue,
            Part::Variable("proxy_protocol_addr") => "remote_addr",
            Part::Variable("proxy_protocol_port") => "remote_port",
            Part::Variable("proxy_protocol_server_addr") => "server_addr",
            Part::Variable("proxy_protocol_server_port") => "server_port",
            Part::Variable("realip_remote_addr") if facts.remote != Remote::Named => "remote_addr",
            Part::Variable("realip_remote_port") if facts.remote != Remote::Named => "remote_port",
            Part::Variable(name) if SHARED.contains(&name) || name.starts_with("http_") && name.len() > 5 => name,
            Part::Variable(name) => {
                value += &fixed(name, scope, facts).ok_or(name.to_owned())?.replace('$', "$$");
                continue;
            }
        };
        let goes_on = |part: &Part<'_>| matches!(part, Part::Text(text) if text.starts_with(is_of_name));
        value += &if parts.peek().is_some_and(goes_on) { format!("${{{own}}}") } else { format!("${own}") };
    }
    Ok(value)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The value of a variable that is the same for each request.
fn fixed(name: &str, scope: &Scope<'_>, facts: &Facts<'_>) -> Option<String> {
    Some(match name {
        "scheme" => facts.scheme.to_owned(),
        "proxy_host" => facts.proxy_host.to_owned(),
        "server_name" => facts.server_name.to_owned(),
        _ => return constant(name, scope),
    })
}

/// The default of the map that gives a variable its value.
pub fn map_default<'a>(name: &str, scope: &Scope<'a>) -> Option<(&'a Directive, String)> {
    let map = scope.find(|one| one.name == "map" && one.arg(1).strip_prefix('$') == Some(name))?;
    let default = map.inner().iter().find(|entry| entry.name == "default")?.arg(0);
    (!default.is_empty() && !default.contains('$')).then(|| (map, default.to_owned()))
}

/// The value that `set` gives a variable, if it has no variable in it.
pub fn constant(name: &str, scope: &Scope<'_>) -> Option<String> {
    let set = scope.find(|set| set.name == "set" && set.arg(0).strip_prefix('$') == Some(name))?;
    (!set.see().arg(1).contains('$')).then(|| set.arg(1).to_owned())
}
