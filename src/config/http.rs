//! What `mode: http` adds to a listener: the mirror of its `http:` block and the run-time form.
//!
//! Header names and templates are texts here: the protocol's own check is passed in, as this floor doesn't know it.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use super::build::positive;
use super::report::Reporter;
use super::units::{ByteSize, DurationText};

/// Says what is wrong with a header that is to be set, by its name and its template.
pub type HeaderCheck = fn(name: &str, template: &str) -> Result<(), String>;

/// Set on every request unless the configuration says otherwise; nginx's usual four.
const DEFAULT_HEADERS: [(&str, &str); 4] = [
    ("Host", "$host"),
    ("X-Real-IP", "$remote_addr"),
    ("X-Forwarded-For", "$proxy_add_x_forwarded_for"),
    ("X-Forwarded-Proto", "$scheme"),
];
/// A smaller head than this is no browser's; a larger one is memory that any client may ask for.
const HEAD_BYTES: std::ops::RangeInclusive<u64> = 1024..=1024 * 1024;
/// Each header is looked at when a request is rewritten.
const MAX_HEADERS: usize = 1000;
/// Descriptors of one worker that may lie idle for one backend.
const MAX_IDLE_CONNECTIONS: usize = 10_000;

/// How a listener treats HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Name and template of each header that is set on a request.
    pub set_headers: Vec<(String, String)>,
    /// A request head may have this many bytes; default 16 KiB.
    pub max_header_bytes: usize,
    /// A request head may have this many header lines; default 100.
    pub max_headers: usize,
    /// From the request's last byte to the end of the response's head; default 1 minute.
    pub response_header_timeout: Duration,
    /// A client may be silent for this long between two requests; default 75 seconds.
    pub keep_alive_timeout: Duration,
    /// Connections to backends that are kept for the next request.
    pub backend_keep_alive: BackendKeepAlive,
}

/// Idle connections of one worker to one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendKeepAlive {
    /// As many at most; 0 keeps none. Default 64.
    pub idle_connections: usize,
    /// For this long; default 60 seconds.
    pub idle_timeout: Duration,
}

/// The `http:` block.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSpec {
    /// Headers set on each request; null removes a default.
    #[serde(deserialize_with = "over_defaults")]
    pub set_headers: BTreeMap<String, Option<String>>,
    /// A request head may have this many bytes, 1KiB to 1MiB.
    pub max_header_bytes: ByteSize,
    /// A request head may have this many lines.
    pub max_headers: usize,
    /// Time limits of an exchange.
    pub timeouts: HttpTimeoutsSpec,
    /// Idle connections of one worker to one backend.
    pub backend_keep_alive: BackendKeepAliveSpec,
}

impl Default for HttpSpec {
    fn default() -> Self {
        Self {
            set_headers: default_headers(),
            max_header_bytes: ByteSize(16 << 10),
            max_headers: 100,
            timeouts: HttpTimeoutsSpec::default(),
            backend_keep_alive: BackendKeepAliveSpec::default(),
        }
    }
}

/// Time limits of an exchange.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpTimeoutsSpec {
    /// From the request's last byte to the end of the response's head.
    pub response_header: DurationText,
    /// A client may be silent for this long between two requests.
    pub keep_alive: DurationText,
}

impl Default for HttpTimeoutsSpec {
    fn default() -> Self {
        Self { response_header: DurationText::seconds(60), keep_alive: DurationText::seconds(75) }
    }
}

/// Idle connections to backends.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendKeepAliveSpec {
    /// As many at most; 0 keeps none.
    pub idle_connections: usize,
    /// For this long.
    pub idle_timeout: DurationText,
}

impl Default for BackendKeepAliveSpec {
    fn default() -> Self {
        Self { idle_connections: 64, idle_timeout: DurationText::seconds(60) }
    }
}

fn default_headers() -> BTreeMap<String, Option<String>> {
    DEFAULT_HEADERS.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect()
}

/// The user's headers, and the defaults that they don't name.
fn over_defaults<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Option<String>>, D::Error> {
    let mut headers = BTreeMap::<String, Option<String>>::deserialize(deserializer)?;
    for (name, value) in default_headers() {
        if !headers.keys().any(|own| own.eq_ignore_ascii_case(&name)) {
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

/// Validates the block at `path`.
pub(super) fn build(path: &str, http: &HttpSpec, check: HeaderCheck, report: &mut Reporter) -> HttpConfig {
    let bytes = http.max_header_bytes.0;
    if !HEAD_BYTES.contains(&bytes) {
        report.problem(&format!("{path}.max_header_bytes"), "must be from 1KiB to 1MiB");
    }
    if http.max_headers == 0 || http.max_headers > MAX_HEADERS {
        report.problem(&format!("{path}.max_headers"), format!("must be from 1 to {MAX_HEADERS}"));
    }
    let idle_connections = http.backend_keep_alive.idle_connections;
    if idle_connections > MAX_IDLE_CONNECTIONS {
        let message = format!("must be from 0 to {MAX_IDLE_CONNECTIONS} (0 keeps none)");
        report.problem(&format!("{path}.backend_keep_alive.idle_connections"), message);
    }
    let HttpTimeoutsSpec { response_header, keep_alive } = http.timeouts;
    let idle_timeout = http.backend_keep_alive.idle_timeout;
    HttpConfig {
        set_headers: build_headers(&format!("{path}.set_headers"), &http.set_headers, check, report),
        max_header_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        max_headers: http.max_headers,
        response_header_timeout: positive(&format!("{path}.timeouts.response_header"), response_header, report),
        keep_alive_timeout: positive(&format!("{path}.timeouts.keep_alive"), keep_alive, report),
        backend_keep_alive: BackendKeepAlive {
            idle_connections,
            idle_timeout: positive(&format!("{path}.backend_keep_alive.idle_timeout"), idle_timeout, report),
        },
    }
}

fn build_headers(
    path: &str,
    headers: &BTreeMap<String, Option<String>>,
    check: HeaderCheck,
    report: &mut Reporter,
) -> Vec<(String, String)> {
    let mut set: Vec<(String, String)> = Vec::new();
    for (name, template) in headers {
        let at = format!("{path}.{name}");
        if let Err(wrong) = check(name, template.as_deref().unwrap_or_default()) {
            report.problem(&at, wrong);
        } else if set.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            report.problem(&at, "stands twice, in another spelling; remove one");
        } else if let Some(template) = template {
            set.push((name.clone(), template.clone()));
        }
    }
    // Host leads, as clients send it (RFC 9110 section 7.2).
    set.sort_by_key(|(name, _)| !name.eq_ignore_ascii_case("host"));
    set
}
