//! `http-check connect` and `tcp-check connect`.

use crate::config::file::health_check::HealthCheckSpec;
use crate::config::file::off::OnOffOr;
use crate::import::note::Notes;

use super::server::Server;
use super::tls;
use super::tree::Line;

/// Sets where and how the check of `server` connects, by the options of the line: as the server's own parameters say
/// only with `default`.
pub fn read_connect(check: &mut HealthCheckSpec, line: &Line, server: &Server<'_>, notes: &mut Notes) {
    let options = line.from(2);
    let has = |name: &str| options.iter().any(|word| word == name);
    let after = |name: &str| options.iter().skip_while(|word| *word != name).nth(1);
    if let Some(port) = after("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0) {
        check.port = Some(port);
    }
    if has("ssl") {
        check.tls = OnOffOr::On(tls::of_check(&server.parameters, after("sni").map(String::as_str)));
    } else if !has("default") {
        check.tls = OnOffOr::Off;
    }
    if ["addr", "via-socks4", "alpn", "proto"].into_iter().any(has) {
        notes.changes(&line.place, &line.text(), "checks go to each server itself, or where its `port` and `addr` say");
    }
}
