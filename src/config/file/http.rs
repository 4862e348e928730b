//! The keys of a listener's `http:` block.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use crate::config::http::RequestTrailers;

use super::off::{off_or_word, or_false};
use super::units::{ByteSize, DurationText};

/// Set on every request unless the configuration has others: those that are usual with nginx.
const DEFAULT_HEADERS: [(&str, &str); 4] = [
    ("Host", "$host"),
    ("X-Real-IP", "$remote_addr"),
    ("X-Forwarded-For", "$proxy_add_x_forwarded_for"),
    ("X-Forwarded-Proto", "$scheme"),
];

/// The `http:` block.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSpec {
    /// Headers set on each request, in place of the client's of such a name. null: only those are removed.
    #[serde(deserialize_with = "over_defaults")]
    pub set_headers: BTreeMap<String, Option<String>>,
    /// drop: no backend gets the trailers of a request. pass: those that mean nothing in a head.
    pub request_trailers: RequestTrailers,
    /// Networks of clients whose X-Forwarded-For and X-Forwarded-Proto are believed. Default: trusted_proxies, and
    /// peers of a unix socket where no PROXY header is required.
    pub forwarded_from: Option<Vec<String>>,
    /// https: each request is answered by a redirect (308) to the same URL with https, unless a trusted proxy says that
    /// it came by https.
    #[serde(deserialize_with = "off_or_word")]
    #[schemars(transform = or_false)]
    pub redirect: Redirect,
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
            request_trailers: RequestTrailers::Drop,
            forwarded_from: None,
            redirect: Redirect::Off,
            max_header_bytes: ByteSize(16 << 10),
            max_headers: 100,
            timeouts: HttpTimeoutsSpec::default(),
            backend_keep_alive: BackendKeepAliveSpec::default(),
        }
    }
}

/// Where requests are sent instead.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Redirect {
    /// Nowhere: backends answer them.
    #[default]
    Off,
    /// To the same URL with https.
    Https,
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
    /// The most that stay open; 0: none.
    pub idle_connections: usize,
    /// How long they stay open.
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
