//! `listen` and what else says who may connect: `allow`, `deny`, `limit_conn`, PROXY headers.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use crate::config::BindAddress;
use crate::config::ProxyProtocol;
use crate::config::file::duration_or_off::DurationOrOff;
use crate::config::file::listener::ListenerSpec;
use crate::import::access::{Rule, lists, network};
use crate::import::headers::EVERYBODY;
use crate::import::note::Notes;
use crate::import::treatment::Treatment::Translated;
use crate::import::treatment::{note_left_out, treatment_of};
use crate::import::values::or_off;

use super::directives::LISTEN_PARAMETERS;
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
pub fn listening<'a>(server: &Scope<'a>, notes: &mut Notes) -> Vec<Listening<'a>> {
    let mut all: Vec<Listening<'a>> = Vec::new();
    let directives = server.all("listen");
    for listen in &directives {
        if let Some(why) = unknown_transport(listen) {
            notes.changes(&listen.place, &listen.text(), why);
            continue;
        }
        match addresses(listen) {
            Ok(bind) => add(&mut all, listen, bind, notes),
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

/// The keys of a listener that both kinds of server have.
pub fn listener(listening: &Listening<'_>, server: &Scope<'_>, notes: &mut Notes) -> ListenerSpec {
    let mut listener = ListenerSpec::default();
    listener.bind.0.clone_from(&listening.bind);
    set_access(&mut listener, server, notes);
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
    set_proxy_header(&mut listener, listening, server, notes);
    let timeout = ["preread_timeout", "client_header_timeout", "proxy_protocol_timeout"].map(|name| server.word(name));
    if let Some(timeout) = timeout.into_iter().find_map(time).filter(|timeout| !timeout.is_zero()) {
        listener.timeouts.client_header = crate::import::values::positive(timeout);
    }
    if let Some(buffers) = server.one("large_client_header_buffers") {
        let (number, bytes) = (buffers.arg(0).parse::<u64>().unwrap_or(4), size(buffers.arg(1)).unwrap_or(8 << 10));
        listener.http.max_header_bytes.0 = number.saturating_mul(bytes).clamp(16 << 10, 1 << 20);
    }
    listener
}

fn set_access(listener: &mut ListenerSpec, server: &Scope<'_>, notes: &mut Notes) {
    let directives = server.all_of(&["allow", "deny"]);
    let mut rules = Vec::new();
    for directive in &directives {
        let networks = match directive.arg(0) {
            "all" => Vec::new(),
            text => match network(text) {
                Some(network) => vec![network],
                None => return notes.changes(&directive.place, &directive.text(), "it is not a network"),
            },
        };
        rules.push(Rule { allow: directive.name == "allow", networks });
    }
    match lists(&rules) {
        Some(lists) => (listener.allow, listener.deny) = (lists.allow, lists.deny),
        None => {
            for directive in directives {
                let why = "in lb `deny` wins over `allow`, whatever their order: write both lists anew";
                notes.changes(&directive.place, &directive.text(), why);
            }
        }
    }
}

fn set_proxy_header(listener: &mut ListenerSpec, listening: &Listening<'_>, server: &Scope<'_>, notes: &mut Notes) {
    let trusted = server.all("set_real_ip_from");
    let by_header = server.one("real_ip_header");
    if listening.has_proxy_header {
        listener.proxy_protocol = ProxyProtocol::Required;
        listener.trusted_proxies = EVERYBODY.map(str::to_owned).to_vec();
    }
    let is_proxy_protocol = by_header.is_none_or(|header| header.arg(0) == "proxy_protocol");
    if listening.has_proxy_header && is_proxy_protocol && !trusted.is_empty() {
        let networks = trusted.iter().filter_map(|directive| network(directive.arg(0)));
        listener.trusted_proxies = networks.map(|network| network.to_string()).collect();
        if listener.trusted_proxies.is_empty() {
            listener.trusted_proxies = EVERYBODY.map(str::to_owned).to_vec();
        }
    } else if let Some(header) = by_header.filter(|_| !trusted.is_empty()) {
        let why = "the client is who connects, or whom a PROXY header names: X-Real-IP, `allow` and hashes follow that";
        notes.changes(&header.place, &header.text(), why);
    }
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
