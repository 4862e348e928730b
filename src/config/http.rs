//! The settings of a listener in mode http.

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::protocol::http1::{HeadLimits, HeaderEdit};

use super::networks::Networks;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Headers that are set on each request.
    pub set_headers: Vec<HeaderEdit>,
    pub request_trailers: RequestTrailers,
    /// Whose X-Forwarded-For and X-Forwarded-Proto are believed.
    pub forwarded_from: TrustedSenders,
    /// Whether requests are answered by a redirect to the same URL with https.
    pub redirects_to_https: bool,
    /// Bounds on the head of a request or response.
    pub head_limits: HeadLimits,
    /// From the request's last byte to the end of the response's head.
    pub response_header_timeout: Duration,
    /// A client may be silent for this long between two requests.
    pub keep_alive_timeout: Duration,
    /// Idle connections to backends, for the next request.
    pub backend_keep_alive: BackendKeepAlive,
}

/// Idle connections of one worker to one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendKeepAlive {
    /// The most that stay open; 0: none.
    pub idle_connections: usize,
    /// How long they stay open.
    pub idle_timeout: Duration,
}

/// What becomes of the trailers of a chunked request. Those of responses are passed on.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestTrailers {
    /// No backend gets them.
    #[default]
    Drop,
    /// Backends get those that mean nothing in a head, and that no header of `set_headers` has the name of.
    Pass,
}

/// Clients whose requests may tell of other clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedSenders {
    pub networks: Networks,
    /// Also those that connect by a unix socket: its file's permissions say who can.
    pub unix_peers: bool,
}

impl TrustedSenders {
    /// `None` is the address of a unix socket's peer.
    pub fn includes(&self, sender: Option<IpAddr>) -> bool {
        sender.map_or(self.unix_peers, |address| self.networks.contains(address))
    }
}
