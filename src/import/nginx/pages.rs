//! Servers of `http` that pass nothing on. One that only answers health checks and shows the status becomes the admin
//! server; others are left out.

use crate::import::draft::Draft;

use super::listen::listening;
use super::tree::{Directive, Scope};

/// Answers of the admin server with status 200.
const ADMIN_PATHS: [&str; 4] = ["/", "/healthz", "/readyz", "/metrics"];

/// Translates a server without a location that passes requests on.
pub fn translate(server: &Directive, scope: &Scope<'_>, draft: &mut Draft) {
    let locations: Vec<&Directive> = scope.own.iter().filter(|directive| directive.name == "location").collect();
    let is_page = |location: &&Directive| is_monitoring(location) || is_health_page(location);
    let is_of_pages = !locations.is_empty() && locations.iter().all(is_page) && !has(server, "return");
    let mut all = if is_of_pages { listening(scope, &mut draft.notes) } else { Vec::new() };
    let has_other = draft.places.contains_key("admin");
    let address = all.pop().filter(|one| all.is_empty() && !one.is_tls).and_then(|mut one| one.bind.pop());
    let Some(bind) = address.filter(|_| !has_other) else {
        server.see_all();
        return draft.notes.changes(&server.place, &server.text(), why(server));
    };
    draft.file.admin.bind = bind;
    draft.places.insert("admin".to_owned(), server.place.clone());
    for location in locations {
        location.see_all();
        let why = "the admin server answers at this address, with metrics and a status page";
        draft.notes.harmless(&location.place, &location.text(), why);
    }
}

/// Why a server is left out.
fn why(server: &Directive) -> &'static str {
    let all = || server.inner().iter().chain(server.inner().iter().flat_map(Directive::inner));
    if all().any(|directive| directive.name == "return" && directive.args.iter().any(|arg| arg.contains("://"))) {
        "lb doesn't redirect"
    } else if all().any(|directive| matches!(directive.name.as_str(), "fastcgi_pass" | "uwsgi_pass" | "grpc_pass")) {
        "lb speaks HTTP/1 to backends, or passes TCP bytes"
    } else if all().any(|directive| directive.name == "proxy_pass") {
        "where its requests go depends on each request"
    } else {
        "it passes no requests on, and lb serves nothing itself"
    }
}

fn has(block: &Directive, name: &str) -> bool {
    block.inner().iter().any(|directive| directive.name == name)
}

/// Whether a location shows nginx's own state.
pub fn is_monitoring(location: &Directive) -> bool {
    has(location, "stub_status") || has(location, "status") || has(location, "api")
}

/// Whether a location is a health page at a path where the admin server has one.
fn is_health_page(location: &Directive) -> bool {
    let path = location.args.last().map_or("", String::as_str);
    let answers = location.inner().iter().any(|directive| directive.name == "return" && directive.arg(0) == "200");
    answers && ADMIN_PATHS.contains(&path)
}
