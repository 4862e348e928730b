//! The keys of TLS.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::off::OnOff;

/// TLS towards a server.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsClientSpec {
    /// Whether the server's certificate must be good: signed by an authority that is known, not expired, for this name.
    pub verify: OnOff,
    /// A file with the certificates that are trusted (PEM); default: the authorities that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The name that is asked for and that the certificate must have; default: that of the backend, or its IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// A file with this side's certificate and its chain (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// A file with its private key (PEM); default: in the file of `cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl Default for TlsClientSpec {
    fn default() -> Self {
        Self { verify: OnOff(true), ca_file: None, server_name: None, cert: None, key: None }
    }
}
