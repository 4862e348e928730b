//! The keys of a listener.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::listener::ProxyProtocol;

use super::duration_or_off::DurationOrOff;
use super::http::HttpSpec;
use super::off::{OffOr, off_or_word, or_false, switch};
use super::pool::TcpSpec;
use super::route::RouteSpec;
use super::tls::TlsServerSpec;
use super::units::{DurationText, OneOrMany, texts_or_blocks};

/// One listener.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerSpec {
    /// host:port, [::]:port, *:port (both families), unix:/path or fd@N; or a list.
    pub bind: OneOrMany,
    /// tcp: any protocol, bytes unchanged. http: each request is balanced, and headers are set.
    pub mode: ModeSpec,
    /// The pool that serves it; may be left out if there is only one.
    pub pool: Option<String>,
    /// Pools by what clients say first (mode tcp); `pool` has the rest.
    #[serde(deserialize_with = "texts_or_blocks")]
    pub routes: Vec<RouteSpec>,
    /// Connections at once; 0: only the global limit.
    pub max_connections: usize,
    /// required: each connection must begin with a PROXY header, v1 or v2, from a trusted proxy. from_trusted: those of
    /// trusted proxies must, all others are clients themselves.
    #[serde(deserialize_with = "off_or_word")]
    #[schemars(transform = or_false)]
    pub proxy_protocol: ProxyProtocol,
    /// off: bytes are taken as they come. Or a block: the listener ends TLS.
    pub tls: OffOr<TlsServerSpec>,
    /// Networks of proxies that may send a PROXY header, and whose X-Forwarded-* headers are believed.
    pub trusted_proxies: Vec<String>,
    /// Networks that may connect; empty: all.
    pub allow: Vec<String>,
    /// Networks that may not; wins over allow.
    pub deny: Vec<String>,
    /// Limits of each client (an IPv4 address or IPv6 /64 network).
    pub per_client: PerClientSpec,
    /// Time limits.
    pub timeouts: ListenerTimeoutsSpec,
    /// Options of the sockets to clients.
    pub tcp: TcpSpec,
    /// Whether its connections are logged.
    #[serde(deserialize_with = "switch")]
    pub access_log: bool,
    /// Settings of mode http.
    pub http: HttpSpec,
}

impl Default for ListenerSpec {
    fn default() -> Self {
        Self {
            bind: OneOrMany::default(),
            mode: ModeSpec::Tcp,
            pool: None,
            routes: Vec::new(),
            max_connections: 0,
            proxy_protocol: ProxyProtocol::Off,
            tls: OffOr::Off,
            trusted_proxies: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            per_client: PerClientSpec::default(),
            timeouts: ListenerTimeoutsSpec::default(),
            tcp: TcpSpec::default(),
            access_log: true,
            http: HttpSpec::default(),
        }
    }
}

/// What a listener reads of the bytes that it passes on.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeSpec {
    /// Nothing: any protocol passes unchanged.
    Tcp,
    /// HTTP/1: requests are balanced one by one, and headers are set on each.
    Http,
}

/// Limits of each client.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerClientSpec {
    /// Connections at once; 0: any number.
    pub max_connections: usize,
    /// New connections in a second; 0: any number.
    pub connections_per_second: usize,
}

/// A listener's time limits.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTimeoutsSpec {
    /// A connection without a byte in either direction for this long is reset; off: no limit.
    pub idle: DurationOrOff,
    /// The same once one side has ended.
    pub half_closed: DurationOrOff,
    /// A request's head, a PROXY header, a TLS handshake and what a route goes by must each be there in this time.
    pub client_header: DurationText,
}

impl Default for ListenerTimeoutsSpec {
    fn default() -> Self {
        Self {
            idle: DurationOrOff::seconds(600),
            half_closed: DurationOrOff::seconds(60),
            client_header: DurationText::seconds(10),
        }
    }
}
