//! The content of a header of either version. It knows neither's bytes.

use std::net::SocketAddr;

use super::tls_tlvs::TlsFacts;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub origin: Origin,
    /// What is known of the client's TLS. Only version 2 can express it.
    pub tls: Option<TlsFacts<'a>>,
}

impl From<Origin> for Header<'_> {
    /// Without TLS.
    fn from(origin: Origin) -> Self {
        Self { origin, tls: None }
    }
}

/// Where the connection that a header precedes comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// LOCAL, UNKNOWN or UNSPEC: it is the sender's own, or of unknown origin; its own addresses hold.
    Local,
    /// The client connected to the first proxy over TCP.
    Tcp {
        client: SocketAddr,
        /// What the client connected to.
        server: SocketAddr,
    },
    /// The client connected by a unix stream socket. The paths are ignored.
    Unix,
}

impl Origin {
    /// An IPv4-mapped address, as a dual-stack listener has it, becomes IPv4.
    pub(super) fn tcp(client: SocketAddr, server: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self::Tcp { client: canonical(client), server: canonical(server) }
    }
}
