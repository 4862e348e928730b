//! TLS towards servers, as it runs.

use crate::tls::{Client, ServerName};

/// How this side of a TLS connection behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTo {
    pub client: Client,
    /// The name of the server; `None`: that of the backend, or its address.
    pub server_name: Option<ServerName<'static>>,
}
