//! What is known of a client beside its address, for those who tell its backend.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::access_log::TlsEntry;
use crate::backends::Backend;
use crate::protocol::proxy_header::TlsFacts;
use crate::tls::SessionInfo;

/// What the preface says of a client beside its address.
#[derive(Default)]
pub(super) struct ClientFacts {
    /// Where it connected to, if a PROXY header names it.
    pub(super) server: Option<SocketAddr>,
    /// What its TLS handshake agreed on, if the listener ends TLS.
    pub(super) tls: Option<SessionInfo>,
    /// The name that the client asked for by TLS that passes through, where routes have looked at it.
    pub(super) passing_name: OnceCell<String>,
    /// The addresses of the host that it named, where a route leads there; empty: its pool's backends serve it.
    pub(super) named: Vec<Arc<Backend>>,
}

impl ClientFacts {
    /// The name that the client asked for by TLS.
    pub(super) fn server_name(&self) -> Option<&str> {
        match &self.tls {
            Some(session) => session.server_name.as_deref(),
            None => self.passing_name.get().map(String::as_str),
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.server.is_none() && self.tls.is_none() && self.passing_name.get().is_none() && self.named.is_empty()
    }

    /// For the access log.
    pub(super) fn tls_entry(&self) -> Option<TlsEntry<'_>> {
        let SessionInfo { version, cipher, client, .. } = self.tls.as_ref()?;
        Some(TlsEntry {
            tls_version: version,
            tls_cipher: cipher,
            client_cert: client.as_ref().map(|client| &*client.subject),
        })
    }

    /// For a backend, in the words of the PROXY protocol.
    pub(super) fn tls_header(&self) -> Option<TlsFacts<'_>> {
        let SessionInfo { version, cipher, server_name, alpn, client } = self.tls.as_ref()?;
        Some(TlsFacts {
            version,
            cipher,
            server_name: server_name.as_deref(),
            alpn: alpn.as_deref(),
            client: client.as_ref().map(|client| client.common_name.as_deref().unwrap_or_default()),
        })
    }
}
