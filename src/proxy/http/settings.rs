//! What a listener's `http:` block comes to, ready for use.

use std::net::IpAddr;
use std::time::Duration;

use metrics::Histogram;

use crate::config::{self, BackendKeepAlive, Mode, Networks};
use crate::protocol::http1::{HeadLimits, HeaderEdit, Variable};
use crate::telemetry::metric;

/// A listener's part of http mode.
pub(in crate::proxy) struct Http {
    pub(super) edits: Vec<HeaderEdit>,
    pub(super) limits: HeadLimits,
    pub(super) client_header: Duration,
    pub(super) response_header: Duration,
    pub(super) keep_alive: Duration,
    pub(super) backend_keep_alive: BackendKeepAlive,
    pub(super) duration: Histogram,
    pub(super) uses_request_id: bool,
    pub(super) uses_server_port: bool,
    trusted: Networks,
}

impl Http {
    /// `None` for a listener of another mode.
    pub(in crate::proxy) fn new(listener: &config::ListenerConfig) -> Option<Self> {
        let Mode::Http(http) = &listener.mode else { return None };
        let uses = |variable| http.set_headers.iter().any(|edit| edit.uses(variable));
        Some(Self {
            edits: http.set_headers.clone(),
            limits: http.head_limits,
            client_header: listener.client_header_timeout,
            response_header: http.response_header_timeout,
            keep_alive: http.keep_alive_timeout,
            backend_keep_alive: http.backend_keep_alive,
            duration: metric::http_request_duration(&listener.name),
            uses_request_id: uses(Variable::RequestId),
            uses_server_port: uses(Variable::ServerPort),
            trusted: listener.trusted_proxies.clone(),
        })
    }

    /// Whether what this peer says of earlier hops is believed.
    pub(super) fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|peer| self.trusted.contains(peer))
    }
}
