//! The servers of `stream`: each becomes a listener in mode tcp.

use std::collections::BTreeMap;

use crate::config::file::off::OffOr;
use crate::import::draft::Draft;
use crate::import::note::Notes;
use crate::import::values::or_off;

use super::headers::Remote;
use super::listen::{listener, listening, port, remote, set_client_limit};
use super::pool::Upstreams;
use super::routes::{Making, target};
use super::tls;
use super::tree::{Directive, Scope};
use super::values::time;

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
        let port = port(&one.bind[0]);
        let making = Making { server, scope, upstreams, port: port.parse().unwrap_or_default() };
        making.set(&mut listener, &target, draft)?;
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
