//! A listener: the mirror of its block in the file, and the run-time form.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use super::http::{HttpConfig, HttpSpec};
use super::mirror::UNREADABLE;
use super::networks::Networks;
use super::units::{DurationText, OneOrMany};
use super::{BindAddress, Mode};

/// A place to accept connections, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name in logs and metrics.
    pub name: String,
    /// At least one.
    pub bind: Vec<BindAddress>,
    /// What is understood of the bytes.
    pub mode: Mode,
    /// The name of the pool that serves it; `None`: a connection without a route is refused.
    pub pool: Option<String>,
    /// Pools by the server name of a TLS client; the first that matches best.
    pub routes: Vec<Route>,
    /// `None`: only the global limit.
    pub max_connections: Option<NonZeroUsize>,
    /// No byte either way for this long ends a connection; default 10 minutes.
    pub idle_timeout: Duration,
    /// The same once one side has ended; default 1 minute.
    pub half_closed_timeout: Duration,
    /// A request's head, a PROXY header, a TLS ClientHello must each be there in this time; default 10 seconds.
    pub client_header_timeout: Duration,
    /// Whether each connection must begin with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// Peers that may send a PROXY header, and whose X-Forwarded-For and X-Forwarded-Proto are believed.
    pub trusted_proxies: Networks,
    /// Clients that may connect; empty: all.
    pub allow: Networks,
    /// Clients that may not; wins over `allow`.
    pub deny: Networks,
    /// What one client may take.
    pub per_client: PerClient,
    /// What `mode: http` adds.
    pub http: HttpConfig,
    /// Whether its connections are logged; default true.
    pub access_log: bool,
}

impl ListenerConfig {
    /// The shortest of its time limits: how precise its clock must be.
    pub fn shortest_limit(&self) -> Duration {
        let always = self.idle_timeout.min(self.half_closed_timeout);
        match self.mode {
            Mode::Tcp if self.proxy_protocol == ProxyProtocol::Off && self.routes.is_empty() => always,
            Mode::Tcp => always.min(self.client_header_timeout),
            Mode::Http => [self.client_header_timeout, self.http.response_header_timeout, self.http.keep_alive_timeout]
                .into_iter()
                .fold(always, Duration::min),
        }
    }
}

/// Whether a listener's connections begin with a PROXY header (the PROXY protocol, versions 1 and 2).
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// They don't.
    #[default]
    Off,
    /// They must, and it says who the client is.
    Required,
}

/// What one client (an IPv4 address, or an IPv6 /64) may take of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClient {
    /// Connections at once; `None`: any number.
    pub max_connections: Option<NonZeroUsize>,
    /// New connections in a second, and as many at once; `None`: any number.
    pub connections_per_second: Option<NonZeroUsize>,
}

/// The pool for TLS clients that ask for certain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// A name, `*.` and a name, or `*`.
    pub sni: String,
    /// The pool's name.
    pub pool: String,
}

/// One listener.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerSpec {
    /// host:port, [::]:port, *:port (both families), unix:/path or fd@N; or a list.
    pub bind: OneOrMany,
    /// tcp: raw bytes, any protocol. http: requests one by one, headers injected.
    pub mode: Mode,
    /// Who serves it; may be left out where there is only one pool.
    pub pool: Option<String>,
    /// Pools by the server name of TLS clients (mode tcp); who has none goes to `pool`.
    pub routes: Vec<RouteSpec>,
    /// Connections at once; 0: only the global limit.
    pub max_connections: usize,
    /// required: PROXY v1 or v2 must come first, from a trusted proxy.
    pub proxy_protocol: ProxyProtocol,
    /// Networks that may send a PROXY header, or X-Forwarded-* that is kept.
    pub trusted_proxies: Vec<String>,
    /// Networks that may connect; empty: all.
    pub allow: Vec<String>,
    /// Networks that may not; wins over allow.
    pub deny: Vec<String>,
    /// What one client (IPv4 address or IPv6 /64) may take.
    pub per_client: PerClientSpec,
    /// Time limits.
    pub timeouts: ListenerTimeoutsSpec,
    /// Whether its connections are logged.
    pub access_log: bool,
    /// What mode http does.
    pub http: HttpSpec,
}

impl Default for ListenerSpec {
    fn default() -> Self {
        Self {
            bind: OneOrMany::default(),
            mode: Mode::Tcp,
            pool: None,
            routes: Vec::new(),
            max_connections: 0,
            proxy_protocol: ProxyProtocol::Off,
            trusted_proxies: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            per_client: PerClientSpec::default(),
            timeouts: ListenerTimeoutsSpec::default(),
            access_log: true,
            http: HttpSpec::default(),
        }
    }
}

/// One route.
#[derive(Clone, Debug, JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct RouteSpec {
    /// A name, `*.` and a name (one or more labels), or `*`.
    pub sni: String,
    /// The pool's name.
    pub pool: String,
}

/// What [`RouteSpec`] is read from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteBlock {
    sni: String,
    pool: String,
}

impl<'de> Deserialize<'de> for RouteSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Block;
        impl<'de> Visitor<'de> for Block {
            type Value = RouteSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a block such as {sni: a.example.com, pool: a}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RouteSpec, E> {
                match text {
                    UNREADABLE => Ok(RouteSpec { sni: text.to_owned(), pool: text.to_owned() }),
                    _ => Err(E::invalid_type(Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteSpec, A::Error> {
                let RouteBlock { sni, pool } = RouteBlock::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(RouteSpec { sni, pool })
            }
        }
        deserializer.deserialize_any(Block)
    }
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
    /// No byte either way for this long ends a connection.
    pub idle: DurationText,
    /// The same once one side has ended.
    pub half_closed: DurationText,
    /// A request's head, a PROXY header, a TLS ClientHello must be there in this time.
    pub client_header: DurationText,
}

impl Default for ListenerTimeoutsSpec {
    fn default() -> Self {
        Self {
            idle: DurationText::seconds(600),
            half_closed: DurationText::seconds(60),
            client_header: DurationText::seconds(10),
        }
    }
}
