//! The variables of `set_headers` that are the same for all requests of a connection.

use std::net::SocketAddr;

use crate::net::Peer;
use crate::protocol::http1::{RequestHead, TlsVariables};
use crate::tls::SessionInfo;

use super::super::connect::ConnectContext;
use super::super::frontend::Frontend;
use super::super::http_settings::HttpSettings;

pub(super) struct ConnectionVariables<'a> {
    /// The client's.
    pub(super) remote_addr: String,
    pub(super) remote_port: u16,
    /// What it connected to.
    pub(super) server_addr: String,
    pub(super) server_port: u16,
    /// Whether X-Forwarded-For and X-Forwarded-Proto of its requests are believed.
    pub(super) trusts_forwarded: bool,
    /// `None`: the listener ends no TLS.
    tls: Option<&'a SessionInfo>,
}

impl<'a> ConnectionVariables<'a> {
    pub(super) fn new(frontend: &Frontend, http: &HttpSettings, context: ConnectContext<'a>) -> Self {
        // A system call, which most configurations have no use for.
        let server = if http.uses_server { context.server() } else { None };
        let client = match context.peer() {
            Peer::Tcp(address) => Some(address),
            Peer::Unix => None,
        };
        // After a PROXY header that names nobody the peer is the proxy, which has not looked into the request.
        let is_unknown = frontend.awaits_proxy_header(context.peer()) && context.named_server().is_none();
        Self {
            remote_addr: ip_text(client),
            remote_port: client.map_or(0, |address| address.port()),
            server_addr: ip_text(server),
            server_port: server.map_or(0, |address| address.port()),
            trusts_forwarded: !is_unknown && http.forwarded_from.includes(context.peer().ip()),
            tls: context.facts().and_then(|facts| facts.tls.as_ref()),
        }
    }

    /// By what a request was made. What a proxy before this one reports is believed only of a trusted one: any client
    /// can send that header.
    pub(super) fn scheme(&self, head: &RequestHead, bytes: &[u8]) -> &'static str {
        let forwarded = if self.trusts_forwarded { head.forwarded_scheme(bytes) } else { None };
        forwarded.unwrap_or(if self.tls.is_some() { "https" } else { "http" })
    }

    pub(super) fn tls(&self) -> TlsVariables<'a> {
        let Some(SessionInfo { version, cipher, server_name, client, .. }) = self.tls else {
            return TlsVariables::default();
        };
        TlsVariables {
            protocol: version,
            cipher,
            server_name: server_name.as_deref().unwrap_or_default(),
            client_subject: client.as_ref().map_or("", |client| &client.subject),
        }
    }
}

/// A unix socket's as nginx writes it.
fn ip_text(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "unix:".to_owned(), |address| address.ip().to_string())
}
