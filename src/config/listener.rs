//! The settings of a listener.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lifecycle::ClientLimits;
use crate::net::TcpOptions;
use crate::tls;

use super::address::BindAddress;
use super::http::HttpConfig;
use super::networks::Networks;
use super::route::Route;

/// Where connections are accepted, and what is done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// In logs and metrics.
    pub name: String,
    /// At least one.
    pub bind: Vec<BindAddress>,
    pub mode: Mode,
    /// The name of the pool that serves it; `None`: a connection without a route is refused.
    pub pool: Option<String>,
    /// `None`: only the global limit.
    pub max_connections: Option<NonZeroUsize>,
    /// A connection without a byte in either direction for this long is reset; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// The same once one side has ended.
    pub half_closed_timeout: Option<Duration>,
    /// A request's head, a PROXY header, a TLS handshake and what a route goes by must each be there in this time.
    pub client_header_timeout: Duration,
    pub proxy_protocol: ProxyProtocol,
    /// `None`: bytes are taken as they come.
    pub tls: Option<tls::Server>,
    /// Peers that may send a PROXY header, and whose X-Forwarded-For and X-Forwarded-Proto are believed.
    pub trusted_proxies: Networks,
    /// Clients that may connect; empty: all.
    pub allow: Networks,
    /// Clients that may not; wins over `allow`.
    pub deny: Networks,
    pub per_client: ClientLimits,
    /// Options of the sockets to clients.
    pub tcp: TcpOptions,
    /// Whether its connections are logged.
    pub access_log: bool,
}

impl ListenerConfig {
    /// The shortest of its time limits.
    pub fn shortest_limit(&self) -> Duration {
        let limits = [self.idle_timeout, self.half_closed_timeout];
        let always = limits.into_iter().flatten().min().unwrap_or(Duration::MAX);
        match &self.mode {
            Mode::Tcp { .. } if !self.reads_preface() => always,
            Mode::Tcp { .. } => always.min(self.client_header_timeout),
            Mode::Http(http) => [self.client_header_timeout, http.response_header_timeout, http.keep_alive_timeout]
                .into_iter()
                .fold(always, Duration::min),
        }
    }

    /// Whether something of a client is waited for before a backend can be chosen: a PROXY header, a TLS handshake,
    /// what routes go by.
    fn reads_preface(&self) -> bool {
        self.proxy_protocol != ProxyProtocol::Off || self.tls.is_some() || !self.mode.routes().is_empty()
    }
}

/// What a listener reads of the bytes that it passes on, with the settings of that mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: any protocol passes unchanged.
    Tcp {
        /// Pools by what clients say first.
        routes: Vec<Route>,
    },
    /// HTTP/1: requests are balanced one by one, and headers are set on each.
    Http(HttpConfig),
}

impl Mode {
    /// `tcp` or `http`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Http(_) => "http",
        }
    }

    /// Empty in mode http.
    pub fn routes(&self) -> &[Route] {
        match self {
            Self::Tcp { routes } => routes,
            Self::Http(_) => &[],
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
    /// They must, and it names the client.
    Required,
    /// Those of `trusted_proxies` must, and of unix sockets; all others are clients themselves.
    FromTrusted,
}
