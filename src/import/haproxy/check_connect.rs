//! `http-check connect` and `tcp-check connect`.

use crate::config::file::health_check::HealthCheckSpec;
use crate::config::file::off::OnOffOr;

use super::server::Server;
use super::tls;

/// Sets where and how the check of `server` connects, by the options of the line.
pub fn read_connect(check: &mut HealthCheckSpec, options: &[String], server: &Server<'_>) {
    let after = |name: &str| options.iter().skip_while(|word| *word != name).nth(1);
    if let Some(port) = after("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0) {
        check.port = Some(port);
    }
    if options.iter().any(|word| word == "ssl") {
        check.tls = OnOffOr::On(tls::of_check(&server.parameters, after("sni").map(String::as_str)));
    }
}
