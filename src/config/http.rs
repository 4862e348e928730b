//! The settings of a listener in mode http.

use std::time::Duration;

use crate::protocol::http1::{HeadLimits, HeaderEdit};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Headers that are set on each request, Host first.
    pub set_headers: Vec<HeaderEdit>,
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
