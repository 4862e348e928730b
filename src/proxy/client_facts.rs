//! What is known of a client beside its address, for those who tell its backend.

use std::net::SocketAddr;

use crate::tls::SessionInfo;

/// What the preface says of a client beside its address.
#[derive(Default)]
pub(super) struct ClientFacts {
    /// Where it connected to, if a PROXY header names it.
    pub(super) server: Option<SocketAddr>,
    /// What its TLS handshake agreed on, if the listener ends TLS.
    pub(super) tls: Option<SessionInfo>,
}
