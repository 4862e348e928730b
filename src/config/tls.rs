//! TLS as it runs: from clients and towards servers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tls::{Client, ServerName};

/// How this side of a TLS connection to a server behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTo {
    pub client: Client,
    /// The name of the server; `None`: that of the backend, or its address.
    pub server_name: Option<ServerName<'static>>,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// No.
    #[default]
    Off,
    /// Those that show one must show a good one.
    Optional,
    /// All must show a good one.
    Required,
}
