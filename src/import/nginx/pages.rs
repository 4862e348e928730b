//! Servers of `http` that pass nothing on. One that only answers health checks and shows the status becomes the admin
//! server; others are left out.

use std::collections::BTreeSet;

use crate::import::draft::Draft;
use crate::import::note::Notes;

use super::listen::{Listening, listening, port};
use super::tree::{Directive, Scope};

/// Answers of the admin server with status 200.
const ADMIN_PATHS: [&str; 4] = ["/", "/healthz", "/readyz", "/metrics"];

/// What stands in a server or a location that anybody may see.
const OF_PAGES: [&str; 9] = [
    "listen",
    "server_name",
    "location",
    "access_log",
    "error_log",
    "default_type",
    "return",
    "stub_status",
    "add_header",
];

/// What keeps clients from pages, also where it stands in `http`.
const GUARDS: [&str; 5] = ["allow", "deny", "auth_basic", "auth_request", "auth_jwt"];

/// Translates a server without a location that passes requests on. `taken`: the addresses of those that do.
pub fn translate(server: &Directive, scope: &Scope<'_>, taken: &BTreeSet<String>, draft: &mut Draft) {
    let locations: Vec<&Directive> = scope.own.iter().filter(|directive| directive.name == "location").collect();
    let is_page = |location: &&Directive| is_monitoring(location) || is_health_page(location);
    let is_of_pages = !locations.is_empty() && locations.iter().all(is_page) && !has(server, "return");
    let is_open = is_open(server) && scope.find(|one| GUARDS.contains(&one.name.as_str())).is_none();
    let mut all = if is_of_pages && is_open { listening(scope, draft) } else { Vec::new() };
    let has_other = draft.places.contains_key("admin");
    let is_plain = |one: &Listening<'_>| !one.is_tls && !one.has_proxy_header;
    let address = all.pop().filter(|one| all.is_empty() && is_plain(one)).and_then(|mut one| one.bind.pop());
    let is_free = |address: &String| !taken.iter().any(|other| port(other) == port(address));
    let Some(bind) = address.filter(|address| !has_other && is_free(address)) else {
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

/// Whether a server or a location answers all requests with a redirect to the same URL with https.
pub fn redirects_to_https(block: &Directive) -> bool {
    block.inner().iter().any(is_redirect_to_https)
}

fn is_redirect_to_https(directive: &Directive) -> bool {
    let has_status = matches!(directive.arg(0), "301" | "302" | "303" | "307" | "308");
    let is_whole = |target: &str| {
        let host = target.strip_prefix("https://").and_then(|rest| rest.strip_suffix("$request_uri"));
        host.is_some_and(|host| matches!(host, "$host" | "$http_host" | "$server_name" | "${host}"))
    };
    match directive.name.as_str() {
        "return" => is_whole(if has_status { directive.arg(1) } else { directive.arg(0) }),
        "rewrite" => {
            let (pattern, target) = (directive.arg(0), directive.arg(1).trim_end_matches('?'));
            let is_all = matches!(pattern, "^" | "^(.*)$" | "^(.*)" | "^/(.*)$" | "^/(.*)" | ".*" | "(.*)");
            is_all && is_whole(&target.replace("/$1", "$request_uri").replace("$1", "$request_uri"))
        }
        _ => false,
    }
}

/// Notes what a server that redirects has beside that.
pub fn note_redirect(server: &Directive, notes: &mut Notes) {
    const WHY: &str = "lb answers with 308, with which clients keep the method";
    for directive in server.inner() {
        if is_redirect_to_https(directive) {
            directive.see_all();
            notes.harmless(&directive.place, &directive.text(), WHY);
        } else if directive.name == "location" {
            directive.see_all();
            match directive.inner().iter().find(|inner| is_redirect_to_https(inner)) {
                Some(redirect) => notes.harmless(&redirect.place, &redirect.text(), WHY),
                None => {
                    let why = "its requests are redirected, as all others: lb serves nothing itself";
                    notes.changes(&directive.place, &directive.text(), why);
                }
            }
        }
    }
}

/// Whether a location lets only some in, or nobody.
pub fn refuses(location: &Directive) -> bool {
    let refuses = |one: &Directive| match one.name.as_str() {
        "return" => one.arg(0).starts_with('4'),
        "auth_basic" => one.arg(0) != "off",
        name => matches!(name, "deny" | "auth_request" | "auth_jwt"),
    };
    location.inner().iter().any(refuses)
}

/// Whether a location of the server that refuses some leads all others to the named location `name`.
pub fn guarded_way_to(server: &Directive, name: &str) -> bool {
    let leads = |one: &Directive| {
        matches!(one.name.as_str(), "try_files" | "error_page") && one.args.last().is_some_and(|last| last == name)
    };
    let locations = server.inner().iter().filter(|one| one.name == "location");
    name.starts_with('@') && locations.filter(|one| one.inner().iter().any(leads)).any(refuses)
}

/// Why a server is left out.
fn why(server: &Directive) -> &'static str {
    let all = || server.inner().iter().chain(server.inner().iter().flat_map(Directive::inner));
    if all().any(|directive| directive.name == "return" && directive.args.iter().any(|arg| arg.contains("://"))) {
        "lb redirects to the same URL with https alone"
    } else if refuses(server) {
        "clients whom it refuses reach the other servers of its address: lb doesn't choose by host name"
    } else if all().any(|directive| matches!(directive.name.as_str(), "fastcgi_pass" | "uwsgi_pass" | "grpc_pass")) {
        "lb speaks HTTP/1 to backends, or passes TCP bytes"
    } else if all().any(|directive| directive.name == "proxy_pass") {
        "where its requests go depends on each request"
    } else {
        "it passes no requests on, and lb serves nothing itself but the admin server's pages, to all who reach them"
    }
}

/// Whether a block has nothing but what `OF_PAGES` lists.
fn is_open(block: &Directive) -> bool {
    block.inner().iter().all(|inner| OF_PAGES.contains(&inner.name.as_str()) && is_open(inner))
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
