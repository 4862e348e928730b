//! The keys of a route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::off::switch;
use super::units::{DurationText, TextOrBlock, UNREADABLE};

/// One route: which clients it is for, and their pool. `sni` and `alpn` may stand together, and both must hold then.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// TLS clients that ask for this name: a name, `*.` and a name (one or more labels before it), or `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// TLS clients that offer this protocol (ALPN), such as h2; where the listener ends TLS, those that get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// Clients whose first bytes are these; `\r`, `\n`, `\t`, `\\` and `\xNN` stand for bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_with: Option<String>,
    /// Clients that send nothing for so long before it is clear what they speak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<DurationText>,
    /// server_name: the host that the client asks for by its `sni`, looked up as `pool` looks up names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<RouteToSpec>,
    /// The port there; default: 443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether that host may have an address of this machine or of its links, such as 127.0.0.1 and 169.254.0.0/16.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "switch")]
    pub allow_local: bool,
    /// The pool's name.
    pub pool: String,
}

/// Where a route leads to.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteToSpec {
    /// To the host that the client asks for.
    ServerName,
}

impl RouteSpec {
    /// For TLS clients that ask for this name.
    pub fn by_name(sni: String, pool: String) -> Self {
        Self { sni: Some(sni), pool, ..Self::default() }
    }

    /// Whether it is for exactly the clients that ask for this name.
    pub fn is_by_name(&self, name: &str) -> bool {
        self.alpn.is_none() && self.sni.as_ref().is_some_and(|sni| sni.eq_ignore_ascii_case(name))
    }
}

impl TextOrBlock for RouteSpec {
    const EXPECTED: &'static str = "a block such as {sni: a.example.com, pool: a}";

    fn from_text(text: &str) -> Option<Self> {
        (text == UNREADABLE).then(|| Self::by_name(text.to_owned(), text.to_owned()))
    }
}
