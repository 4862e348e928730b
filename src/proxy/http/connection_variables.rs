//! The variables of `set_headers` that are the same for all requests of a connection.

use std::net::SocketAddr;

use crate::net::Peer;

use super::super::connect::ConnectContext;
use super::super::frontend::Frontend;
use super::super::http_settings::HttpSettings;

pub(super) struct ConnectionVariables {
    /// The client's.
    pub(super) remote_addr: String,
    pub(super) remote_port: u16,
    /// What it connected to.
    pub(super) server_addr: String,
    pub(super) server_port: u16,
    /// Whether X-Forwarded-For and X-Forwarded-Proto of its requests are believed.
    pub(super) trusts_forwarded: bool,
}

impl ConnectionVariables {
    pub(super) fn new(frontend: &Frontend, http: &HttpSettings, context: ConnectContext<'_>) -> Self {
        // A system call, which most configurations have no use for.
        let server = if http.uses_server { context.server() } else { None };
        let client = match context.peer {
            Peer::Tcp(address) => Some(address),
            Peer::Unix => None,
        };
        // After a PROXY header that names nobody the peer is the proxy, which has not looked into the request.
        let is_unknown = frontend.requires_proxy_header && context.named_server().is_none();
        Self {
            remote_addr: ip_text(client),
            remote_port: client.map_or(0, |address| address.port()),
            server_addr: ip_text(server),
            server_port: server.map_or(0, |address| address.port()),
            trusts_forwarded: !is_unknown && http.forwarded_from.includes(context.peer.ip()),
        }
    }
}

/// A unix socket's as nginx writes it.
fn ip_text(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "unix:".to_owned(), |address| address.ip().to_string())
}
