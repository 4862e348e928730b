//! What a listener's `http:` block comes to, ready for use.

use std::time::Duration;

use metrics::Histogram;

use crate::config::{self, BackendKeepAlive, Mode};
use crate::protocol::http1::{HeadLimits, HeaderEdit};
use crate::telemetry::metric;

/// A listener's part of http mode.
pub(super) struct HttpSettings {
    pub(super) edits: Vec<HeaderEdit>,
    pub(super) limits: HeadLimits,
    pub(super) client_header: Duration,
    pub(super) response_header: Duration,
    pub(super) keep_alive: Duration,
    pub(super) backend_keep_alive: BackendKeepAlive,
    pub(super) duration: Histogram,
    pub(super) uses_request_id: bool,
    pub(super) uses_server_port: bool,
}

impl HttpSettings {
    /// `None` for a listener of another mode.
    pub(super) fn new(listener: &config::ListenerConfig) -> Option<Self> {
        if listener.mode != Mode::Http {
            return None;
        }
        let http = &listener.http;
        let edit = |(name, template): &(String, String)| {
            HeaderEdit::parse(name, template).expect("the configuration was validated with `check_header`")
        };
        let uses = |variable: &str| http.set_headers.iter().any(|(_, template)| template.contains(variable));
        let usual = HeadLimits::default();
        Some(Self {
            edits: http.set_headers.iter().map(edit).collect(),
            limits: HeadLimits {
                max_head_bytes: http.max_header_bytes,
                max_line_bytes: usual.max_line_bytes.min(http.max_header_bytes),
                max_headers: http.max_headers,
            },
            client_header: listener.client_header_timeout,
            response_header: http.response_header_timeout,
            keep_alive: http.keep_alive_timeout,
            backend_keep_alive: http.backend_keep_alive,
            duration: metric::http_request_duration(&listener.name),
            uses_request_id: uses("request_id"),
            uses_server_port: uses("server_port"),
        })
    }
}

/// Judges a header of the configuration's `set_headers`.
///
/// # Errors
/// What is wrong, and the remedy.
pub(super) fn check_header(name: &str, template: &str) -> Result<(), String> {
    HeaderEdit::parse(name, template).map(drop).map_err(|invalid| format!("can't be set to `{template}`: {invalid}"))
}
