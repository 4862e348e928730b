//! A listener's `http:` block in the form that its requests use.

use std::time::Duration;

use crate::config::{self, BackendKeepAlive, Mode, RequestTrailers, TrustedSenders};
use crate::protocol::http1::{HeadLimits, HeaderEdit, Variable};

pub(super) struct HttpSettings {
    pub(super) edits: Vec<HeaderEdit>,
    pub(super) passes_trailers: bool,
    pub(super) forwarded_from: TrustedSenders,
    pub(super) redirects_to_https: bool,
    pub(super) limits: HeadLimits,
    pub(super) client_header: Duration,
    pub(super) response_header: Duration,
    pub(super) keep_alive: Duration,
    pub(super) backend_keep_alive: BackendKeepAlive,
    pub(super) uses_request_id: bool,
    /// Whether a header has the address or port that the client connected to.
    pub(super) uses_server: bool,
}

impl HttpSettings {
    /// `None` for a listener of another mode.
    pub(super) fn new(listener: &config::ListenerConfig) -> Option<Self> {
        let Mode::Http(http) = &listener.mode else { return None };
        let uses = |variable: &Variable| http.set_headers.iter().any(|edit| edit.uses(variable));
        Some(Self {
            edits: http.set_headers.clone(),
            passes_trailers: http.request_trailers == RequestTrailers::Pass,
            forwarded_from: http.forwarded_from.clone(),
            redirects_to_https: http.redirects_to_https,
            limits: http.head_limits,
            client_header: listener.client_header_timeout,
            response_header: http.response_header_timeout,
            keep_alive: http.keep_alive_timeout,
            backend_keep_alive: http.backend_keep_alive,
            uses_request_id: uses(&Variable::RequestId),
            uses_server: uses(&Variable::ServerAddr) || uses(&Variable::ServerPort),
        })
    }
}
