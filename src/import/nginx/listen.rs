//! `listen` and what else says who may connect: `allow`, `deny`, `limit_conn`, PROXY headers.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use ipnet::IpNet;

use crate::config::BindAddress;
use crate::config::ProxyProtocol;
use crate::config::file::duration_or_off::DurationOrOff;
use crate::config::file::listener::ListenerSpec;
use crate::import::access::{Lists, Rule, network, texts, with_ipv4};
use crate::import::draft::{Draft, MAX_ADDRESSES};
use crate::import::note::Notes;
use crate::import::treatment::Treatment::Translated;
use crate::import::treatment::{note_left_out, treatment_of};
use crate::import::values::or_off;

use super::directives::LISTEN_PARAMETERS;
use super::headers::Remote;
use super::tree::{Directive, Scope};
use super::values::{size, time};

/// Ports of one `listen`; more must be a mistake.
const MAX_PORTS: u32 = 1000;

/// The addresses of a server that have the same parameters.
pub struct Listening<'a> {
    pub bind: Vec<String>,
    pub is_default: bool,
    pub is_tls: bool,
    pub has_proxy_header: bool,
    pub keepalive: Option<&'a str>,
}

/// Where a server listens. What can't be translated is noted.
pub fn listening<'a>(server: &Scope<'a>, draft: &mut Draft) -> Vec<Listening<'a>> {
    let notes = &mut draft.notes;
    let mut all: Vec<Listening<'a>> = Vec::new();
    let directives = server.all("listen");
    for listen in &directives {
        if let Some(why) = unknown_transport(listen) {
            notes.changes(&listen.place, &listen.text(), why);
            continue;
        }
        match addresses(listen) {
            Ok(bind) if draft.addresses + bind.len() > MAX_ADDRESSES => {
                notes.changes(
                    &listen.place,
                    &listen.text(),
                    format!("the file has more than {MAX_ADDRESSES} addresses"),
                );
            }
            Ok(bind) => {
                draft.addresses += bind.len();
                add(&mut all, listen, bind, notes);
            }
            Err(why) => notes.changes(&listen.place, &listen.text(), why),
        }
    }
    if directives.is_empty() {
        let bind = vec!["0.0.0.0:80".to_owned()];
        all.push(Listening { bind, is_default: false, is_tls: false, has_proxy_header: false, keepalive: None });
    }
    all
}

fn unknown_transport(listen: &Directive) -> Option<&'static str> {
    let has = |word: &str| listen.args.iter().any(|arg| arg == word);
    (has("udp") || has("quic")).then_some("lb passes on TCP, not UDP")
}

fn add<'a>(all: &mut Vec<Listening<'a>>, listen: &'a Directive, bind: Vec<String>, notes: &mut Notes) {
    let has = |word: &str| listen.args.iter().skip(1).any(|arg| arg == word);
    let keepalive = listen.args.iter().find_map(|arg| arg.strip_prefix("so_keepalive="));
    for parameter in listen.args.iter().skip(1).filter(|parameter| *parameter != "ssl") {
        let treatment = treatment_of(LISTEN_PARAMETERS, parameter.split('=').next().unwrap_or_default());
        if !matches!(treatment, Some(Translated(_))) {
            note_left_out(treatment, false, &listen.place, &format!("listen … {parameter}"), notes);
        }
    }
    let one = Listening {
        bind,
        is_default: has("default_server") || has("default"),
        is_tls: has("ssl"),
        has_proxy_header: has("proxy_protocol"),
        keepalive,
    };
    let is_alike = |other: &&mut Listening<'_>| {
        (other.is_tls, other.has_proxy_header, other.keepalive) == (one.is_tls, one.has_proxy_header, one.keepalive)
    };
    match all.iter_mut().find(is_alike) {
        Some(other) => {
            other.bind.extend(one.bind);
            other.is_default |= one.is_default;
        }
        None => all.push(one),
    }
}

/// `8080`, `*:8080`, `host`, `host:8080`, `[::]:8080`, `unix:/path`, `8000-8010`.
fn addresses(listen: &Directive) -> Result<Vec<String>, String> {
    let text = listen.arg(0);
    if text.starts_with("unix:") {
        text.parse::<BindAddress>()?;
        return Ok(vec![text.to_owned()]);
    }
    let is_port = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '-');
    let (host, ports) = match text.rsplit_once(':') {
        _ if is_port(text) => ("0.0.0.0", text),
        Some((host, ports)) if !ports.ends_with(']') => (host, ports),
        _ => (text, "80"),
    };
    let host = match host {
        "*" | "" => "0.0.0.0",
        "[::]" if listen.args.iter().any(|arg| arg == "ipv6only=off") => "*",
        other => other,
    };
    let wrong = || format!("`{text}` has no port from 1 to 65535");
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let range = first.parse::<u16>().map_err(|_| wrong())?..=last.parse::<u16>().map_err(|_| wrong())?;
    if range.is_empty() || *range.start() == 0 || range.len() > MAX_PORTS as usize {
        return Err(wrong());
    }
    range.map(|port| format!("{host}:{port}").parse().map(|address: BindAddress| address.to_string())).collect()
}

/// An address's port, or a path.
pub fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

/// The keys of a listener that both kinds of server have.
/// `default_header`: where nginx reads a client's address, unless `real_ip_header` says so.
///
/// # Errors
/// Other clients could come in than with nginx.
pub fn listener(
    listening: &Listening<'_>,
    server: &Scope<'_>,
    default_header: &str,
    notes: &mut Notes,
) -> Result<ListenerSpec, String> {
    let mut listener = ListenerSpec::default();
    listener.bind.0.clone_from(&listening.bind);
    let is_dual = listener.bind.0.iter().any(|address| address.starts_with("*:"));
    let lists = access(server, is_dual, notes);
    if lists.is_none() || refuses_unix(server) {
        leave_out_unix(&mut listener, server, notes)?;
    }
    let lists = lists.unwrap_or_else(Lists::nobody);
    set_proxy_header(&mut listener, &lists, listening, server, default_header, notes)?;
    let access_logs = server.all("access_log");
    listener.access_log = !access_logs.iter().any(|log| log.arg(0) == "off");
    for log in access_logs.iter().filter(|log| log.arg(0) != "off") {
        notes.harmless(&log.place, &log.text(), "lb logs to where `log.access` says, in its own format");
    }
    if server.word("tcp_nodelay") == "off" {
        listener.tcp.nodelay = false;
    }
    match listening.keepalive {
        Some("off") => listener.tcp.keepalive = DurationOrOff(None),
        Some(text) => {
            if let Some(idle) = text.split(':').next().and_then(time) {
                listener.tcp.keepalive = or_off(idle);
            }
        }
        None => {}
    }
    let timeout = ["preread_timeout", "client_header_timeout", "proxy_protocol_timeout"].map(|name| server.word(name));
    if let Some(timeout) = timeout.into_iter().find_map(time).filter(|timeout| !timeout.is_zero()) {
        listener.timeouts.client_header = crate::import::values::positive(timeout);
    }
    if let Some(buffers) = server.one("large_client_header_buffers") {
        let (number, bytes) = (buffers.arg(0).parse::<u64>().unwrap_or(4), size(buffers.arg(1)).unwrap_or(8 << 10));
        listener.http.max_header_bytes.0 = number.saturating_mul(bytes).clamp(16 << 10, 1 << 20);
    }
    Ok(listener)
}

/// Whom `allow` and `deny` let in. Where lb can't say the same, fewer clients are let in; nobody for `None`.
/// `is_dual`: clients of IPv4 come by a socket of IPv6.
fn access(server: &Scope<'_>, is_dual: bool, notes: &mut Notes) -> Option<Lists> {
    let directives = server.all_of(&["allow", "deny"]);
    // Rules of IPv6 hold for clients of IPv4 by such a socket, unless there are rules of IPv4.
    let is_of_ipv4 = |text: &str| text == "all" || !text.contains(':') && network(text).is_some();
    let is_shared = is_dual && !directives.iter().any(|directive| is_of_ipv4(directive.arg(0)));
    let mut rules = Vec::new();
    for directive in &directives {
        let allow = directive.name == "allow";
        let networks = match (directive.arg(0), network(directive.arg(0))) {
            ("all", _) => Vec::new(),
            ("unix:", _) => continue,
            (_, Some(network)) if is_shared => with_ipv4(vec![network]),
            (text, Some(IpNet::V4(_))) if text.contains(':') => continue,
            (_, Some(network)) => vec![network],
            _ => {
                let whom = if allow { "nobody is let in by it" } else { "from here on nobody is let in" };
                notes.changes(&directive.place, &directive.text(), format!("it is not a network: {whom}"));
                if allow {
                    continue;
                }
                Vec::new()
            }
        };
        rules.push(Rule { allow, networks });
    }
    let lists = Lists::of(&rules);
    for directive in directives.iter().filter(|_| lists.is_none()) {
        let why = "nobody is let in: lists of those whom all lines let in would be too long";
        notes.changes(&directive.place, &directive.text(), why);
    }
    lists
}

/// Whether `allow` and `deny` refuse who comes by a unix socket, and so is in no network.
fn refuses_unix(server: &Scope<'_>) -> bool {
    let is_about_unix = |directive: &&Directive| match directive.arg(0) {
        "all" | "unix:" => true,
        text => directive.name == "deny" && network(text).is_none(),
    };
    server.all_of(&["allow", "deny"]).into_iter().find(is_about_unix).is_some_and(|decides| decides.name == "deny")
}

/// lb lets in everybody who may open the file of a unix socket.
fn leave_out_unix(listener: &mut ListenerSpec, server: &Scope<'_>, notes: &mut Notes) -> Result<(), String> {
    let before = listener.bind.0.len();
    listener.bind.0.retain(|address| !address.starts_with("unix:"));
    if listener.bind.0.len() < before {
        for listen in server.all("listen").into_iter().filter(|listen| listen.arg(0).starts_with("unix:")) {
            let why = "it isn't served: `deny` refuses clients without an address, whom lb would let in";
            notes.changes(&listen.place, &listen.text(), why);
        }
    }
    if listener.bind.0.is_empty() { Err("none of its addresses is left".to_owned()) } else { Ok(()) }
}

/// Whom `$remote_addr` names at these addresses.
pub fn remote(listening: &Listening<'_>, server: &Scope<'_>, default_header: &str) -> Remote {
    let has_proxies = !server.all("set_real_ip_from").is_empty();
    match listening.has_proxy_header {
        false => Remote::Client,
        true if has_proxies && is_by_proxy_header(server, default_header) => Remote::Named,
        true => Remote::Sender,
    }
}

fn is_by_proxy_header(server: &Scope<'_>, default_header: &str) -> bool {
    server.one("real_ip_header").map_or(default_header, |header| header.arg(0)) == "proxy_protocol"
}

/// Whose PROXY header is believed. Without `set_real_ip_from`, nginx's rules are on the peer that sends it, lb's
/// on the client that it names.
fn set_proxy_header(
    listener: &mut ListenerSpec,
    lists: &Lists,
    listening: &Listening<'_>,
    server: &Scope<'_>,
    default_header: &str,
    notes: &mut Notes,
) -> Result<(), String> {
    let trusted = server.all("set_real_ip_from");
    let header = server.one("real_ip_header");
    let is_by_proxy_header = is_by_proxy_header(server, default_header);
    if !trusted.is_empty() && !is_by_proxy_header {
        let why = "the client is who connects, or whom a PROXY header names: X-Real-IP, `allow` and hashes follow that";
        for directive in header.map_or(trusted.clone(), |header| vec![header]) {
            notes.changes(&directive.place, &directive.text(), why);
        }
        if *lists != Lists::default() {
            return Err("its `allow` and `deny` are on whom a header of HTTP names, lb's on clients".to_owned());
        }
    }
    if listening.has_proxy_header {
        listener.proxy_protocol = ProxyProtocol::Required;
        if !is_by_proxy_header || trusted.is_empty() {
            let senders = lists.let_in().filter(|senders| !senders.is_empty());
            listener.trusted_proxies = texts(&senders.ok_or("its `allow` and `deny` let in no sender of a header")?);
            return Ok(());
        }
        listener.trusted_proxies = proxies(&trusted, notes);
        if listener.trusted_proxies.is_empty() {
            return Err("no network of proxies is left in its `set_real_ip_from`".to_owned());
        }
    }
    (listener.allow, listener.deny) = (texts(&lists.allow), texts(&lists.deny));
    Ok(())
}

fn proxies(trusted: &[&Directive], notes: &mut Notes) -> Vec<String> {
    let mut networks = Vec::new();
    for directive in trusted {
        match network(directive.arg(0)) {
            Some(network) => networks.push(network.to_string()),
            None => notes.changes(&directive.place, &directive.text(), "it is not a network: nobody is trusted by it"),
        }
    }
    networks
}

/// `limit_conn` of a stream: connections of a client at once.
pub fn set_client_limit(listener: &mut ListenerSpec, server: &Scope<'_>, notes: &mut Notes) {
    let zones: BTreeMap<String, String> = server
        .all("limit_conn_zone")
        .into_iter()
        .filter_map(|zone| {
            let name = zone.args.iter().find_map(|arg| arg.strip_prefix("zone="))?.split(':').next()?;
            Some((name.to_owned(), zone.arg(0).to_owned()))
        })
        .collect();
    for limit in server.all("limit_conn") {
        let number = limit.arg(1).parse::<NonZeroUsize>().ok();
        match (zones.get(limit.arg(0)).map(String::as_str), number) {
            (Some("$binary_remote_addr" | "$remote_addr"), Some(number)) => {
                listener.per_client.max_connections = number.get();
            }
            (Some("$server_addr" | "$server_port"), Some(number)) => listener.max_connections = number.get(),
            _ => notes.changes(&limit.place, &limit.text(), "lb limits the connections of a client or of a listener"),
        }
    }
}
