//! The servers of `stream`: each becomes a listener in mode tcp, with routes where a map chooses by server name.

use std::collections::BTreeMap;

use crate::config::file::listener::ListenerSpec;
use crate::config::file::off::OffOr;
use crate::config::file::route::RouteSpec;
use crate::import::draft::Draft;
use crate::import::note::Notes;
use crate::import::values::or_off;
use crate::protocol::client_hello::ServerNamePattern;

use super::headers::{Remote, constant};
use super::listen::{listener, listening, port, remote, set_client_limit};
use super::pool::Upstreams;
use super::tls;
use super::tree::{Directive, Scope};
use super::values::{Part, parts, time};

/// Where the connections of a server go.
enum Target<'a> {
    /// An upstream or an address.
    One(String),
    /// By server name.
    Map(&'a Directive),
}

/// Translates the servers of a `stream` block.
pub fn translate(stream: &Scope<'_>, draft: &mut Draft) {
    let upstreams = Upstreams::of(stream);
    let maps: BTreeMap<&str, &Directive> =
        stream.all("map").into_iter().map(|map| (map.arg(1).trim_start_matches('$'), map)).collect();
    for server in stream.own.iter().filter(|directive| directive.name == "server") {
        server.see();
        let scope = stream.within(server.inner());
        if let Err(why) = translate_server(server, &scope, &upstreams, &maps, draft) {
            server.see_all();
            draft.notes.changes(&server.place, &server.text(), why);
        }
    }
}

fn translate_server<'a>(
    server: &'a Directive,
    scope: &Scope<'a>,
    upstreams: &Upstreams<'a>,
    maps: &BTreeMap<&str, &'a Directive>,
    draft: &mut Draft,
) -> Result<(), String> {
    let pass = scope.one("proxy_pass").ok_or("it passes nothing on")?;
    let target = target(pass, scope, maps)?;
    let mut all = listening(scope, draft);
    let tls =
        if all.iter().any(|one| one.is_tls) { tls::of_clients(server, scope, &mut draft.notes) } else { OffOr::Off };
    all.retain(|one| !one.is_tls || matches!(tls, OffOr::On(_)));
    if all.is_empty() {
        return Err("none of its addresses is left".to_owned());
    }
    for one in &all {
        let mut listener = listener(one, scope, "proxy_protocol", &mut draft.notes)?;
        if let Some(timeout) = time(scope.word("proxy_timeout")) {
            listener.timeouts.idle = or_off(timeout);
        }
        if one.is_tls {
            listener.tls = tls.clone();
        }
        set_client_limit(&mut listener, scope, &mut draft.notes);
        if remote(one, scope, "proxy_protocol") == Remote::Sender {
            note_sender(scope, &mut draft.notes);
        }
        match &target {
            Target::One(name) => listener.pool = Some(add_pool(name, server, scope, upstreams, draft)?),
            Target::Map(map) => add_routes(&mut listener, map, server, scope, upstreams, draft)?,
        }
        let port = port(&one.bind[0]);
        draft.add_listener(&format!("stream-{port}"), &server.place, listener);
    }
    let _ = scope.one("ssl_preread");
    Ok(())
}

/// What nginx does by the address of who sends a PROXY header, and lb by that of the client whom it names.
fn note_sender(scope: &Scope<'_>, notes: &mut Notes) {
    let is_on = |one: &&Directive| one.name == "limit_conn" || one.arg(0) == "on";
    for directive in scope.all("proxy_protocol").into_iter().chain(scope.all("limit_conn")).filter(is_on) {
        let why = "nginx takes who sends the PROXY header for the client (see set_real_ip_from), lb whom it names";
        notes.changes(&directive.place, &directive.text(), why);
    }
}

fn target<'a>(pass: &Directive, scope: &Scope<'a>, maps: &BTreeMap<&str, &'a Directive>) -> Result<Target<'a>, String> {
    let mut text = String::new();
    let parts = parts(pass.arg(0));
    for part in &parts {
        match part {
            Part::Text(own) => text += own,
            Part::Variable(name) => match (constant(name, scope), maps.get(name)) {
                (Some(value), _) => text += &value,
                (None, Some(map)) if parts.len() == 1 && map.arg(0) == "$ssl_preread_server_name" => {
                    return Ok(Target::Map(map));
                }
                (None, Some(map)) => return Err(format!("lb doesn't choose a pool by {}", map.arg(0))),
                (None, None) => return Err(format!("where its connections go depends on ${name}")),
            },
        }
    }
    Ok(Target::One(text))
}

fn add_pool<'a>(
    name: &str,
    server: &Directive,
    scope: &Scope<'a>,
    upstreams: &Upstreams<'a>,
    draft: &mut Draft,
) -> Result<String, String> {
    let mut pool = upstreams.pool(name, None, scope, &mut draft.notes)?;
    if scope.word("proxy_ssl") == "on" {
        tls::to_backends(&mut pool, name, scope, &mut draft.notes);
    }
    Ok(draft.add_pool(name.trim_start_matches("unix:"), &server.place, pool))
}

/// The routes of a map by server name; its default is the listener's pool.
fn add_routes<'a>(
    listener: &mut ListenerSpec,
    map: &'a Directive,
    server: &Directive,
    scope: &Scope<'a>,
    upstreams: &Upstreams<'a>,
    draft: &mut Draft,
) -> Result<(), String> {
    let has_wildcards = map.inner().iter().any(|entry| entry.name == "hostnames");
    for entry in map.inner() {
        entry.see();
        if matches!(entry.name.as_str(), "hostnames" | "volatile") {
            continue;
        }
        match add_pool(entry.arg(0), server, scope, upstreams, draft) {
            Ok(pool) if entry.name == "default" => listener.pool = Some(pool),
            Ok(pool) => add_route(listener, entry, &pool, has_wildcards, &mut draft.notes),
            Err(why) => draft.notes.changes(&entry.place, &entry.text(), why),
        }
    }
    if listener.routes.is_empty() && listener.pool.is_none() {
        return Err("no entry of its map could be translated".to_owned());
    }
    Ok(())
}

fn add_route(listener: &mut ListenerSpec, entry: &Directive, pool: &str, has_wildcards: bool, notes: &mut Notes) {
    let name = entry.name.trim_start_matches('\\');
    // `.example.org` is the name itself and all below it.
    let names = match name.strip_prefix('.') {
        Some(rest) if has_wildcards => vec![rest.to_owned(), format!("*.{rest}")],
        _ => vec![name.to_owned()],
    };
    for sni in names {
        let is_known = listener.routes.iter().any(|route| route.is_by_name(&sni));
        if !is_known && sni.parse::<ServerNamePattern>().is_ok() && (has_wildcards || !sni.contains('*')) {
            listener.routes.push(RouteSpec::by_name(sni, pool.to_owned()));
        } else {
            let why = "routes are by a name, or by all names below one (`*.example.org`)";
            notes.changes(&entry.place, &entry.text(), why);
        }
    }
}
