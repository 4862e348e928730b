//! The content of a header of either version. It knows neither's bytes.

use std::net::{IpAddr, SocketAddr};

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
    /// Two IPv4-mapped addresses, as a dual-stack listener has them, become IPv4.
    pub(super) fn tcp(client: SocketAddr, server: SocketAddr) -> Self {
        match (client.ip().to_canonical(), server.ip().to_canonical()) {
            (client_ip @ IpAddr::V4(_), server_ip @ IpAddr::V4(_)) => Self::Tcp {
                client: SocketAddr::new(client_ip, client.port()),
                server: SocketAddr::new(server_ip, server.port()),
            },
            _ => Self::Tcp { client, server },
        }
    }
}
