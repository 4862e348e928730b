//! The rules of a listener's `http:` block.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::config::file::http::{HttpSpec, Redirect};
use crate::config::file::listener::ListenerSpec;
use crate::config::file::off::OffOr;
use crate::config::http::{BackendKeepAlive, HttpConfig, TrustedSenders};
use crate::config::listener::ProxyProtocol;
use crate::config::networks::Networks;
use crate::protocol::http1::{HeadLimits, HeaderEdit};

use super::block::Block;

/// Less than this is too little for browsers; more is memory that any client could make each connection use.
const HEAD_BYTES: RangeInclusive<u64> = 1024..=1024 * 1024;
/// Bounds work: each header is looked at when a request is rewritten.
const MAX_HEADERS: usize = 1000;
/// Bounds the descriptors that one worker has open to one backend without use.
const MAX_IDLE_CONNECTIONS: usize = 10_000;

pub fn build_http(listener: &ListenerSpec, trusted_proxies: &Networks, block: &mut Block<'_>) -> HttpConfig {
    let http = &listener.http;
    let bytes = http.max_header_bytes.0;
    if !HEAD_BYTES.contains(&bytes) {
        block.problem("max_header_bytes", "must be from 1KiB to 1MiB");
    }
    let max_headers = block.within("max_headers", http.max_headers, MAX_HEADERS).get();
    let max_head_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let max_line_bytes = HeadLimits::default().max_line_bytes.min(max_head_bytes);
    let redirects_to_https = http.redirect == Redirect::Https;
    if redirects_to_https && !matches!(listener.tls, OffOr::Off) {
        let message = "would go round in circles: with `tls` requests are https already; set it at a listener without";
        block.problem("redirect", message);
    }
    let mut timeouts = block.inner("timeouts");
    HttpConfig {
        head_limits: HeadLimits { max_head_bytes, max_line_bytes, max_headers },
        response_header_timeout: timeouts.positive("response_header", http.timeouts.response_header),
        keep_alive_timeout: timeouts.positive("keep_alive", http.timeouts.keep_alive),
        set_headers: build_headers(&http.set_headers, &mut block.inner("set_headers")),
        request_trailers: http.request_trailers,
        redirects_to_https,
        forwarded_from: build_forwarded_from(listener, trusted_proxies, block),
        backend_keep_alive: build_keep_alive(http, &mut block.inner("backend_keep_alive")),
    }
}

/// By default those who may send a PROXY header: which of the clients that such headers name are HTTP proxies, only a
/// list of their own can say.
fn build_forwarded_from(listener: &ListenerSpec, trusted_proxies: &Networks, block: &mut Block<'_>) -> TrustedSenders {
    match &listener.http.forwarded_from {
        Some(listed) => TrustedSenders { networks: block.networks("forwarded_from", listed), unix_peers: false },
        None => TrustedSenders {
            networks: trusted_proxies.clone(),
            unix_peers: listener.proxy_protocol == ProxyProtocol::Off,
        },
    }
}

fn build_keep_alive(http: &HttpSpec, block: &mut Block<'_>) -> BackendKeepAlive {
    let keep_alive = http.backend_keep_alive;
    if keep_alive.idle_connections > MAX_IDLE_CONNECTIONS {
        block.problem("idle_connections", format!("must be from 0 to {MAX_IDLE_CONNECTIONS} (0 keeps none)"));
    }
    BackendKeepAlive {
        idle_connections: keep_alive.idle_connections,
        idle_timeout: block.positive("idle_timeout", keep_alive.idle_timeout),
    }
}

fn build_headers(headers: &BTreeMap<String, Option<String>>, block: &mut Block<'_>) -> Vec<HeaderEdit> {
    let mut edits: Vec<HeaderEdit> = Vec::new();
    for (name, template) in headers {
        let text = template.as_deref().unwrap_or_default();
        match HeaderEdit::parse(name, text) {
            Err(invalid) => block.problem(name, format!("can't be set to `{text}`: {invalid}")),
            Ok(edit) if edits.iter().any(|other| other.name().eq_ignore_ascii_case(edit.name())) => {
                block.problem(name, "is duplicated in another spelling; remove one");
            }
            Ok(edit) => edits.push(edit),
        }
    }
    edits
}
