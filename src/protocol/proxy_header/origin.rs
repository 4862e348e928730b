//! What both versions of a header can say. It knows neither's bytes.

use std::net::{IpAddr, SocketAddr};

/// What a header says about the connection it precedes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// LOCAL, UNKNOWN or UNSPEC: the sender speaks for itself or can't say; the connection's own addresses hold.
    Local,
    /// The client's connection came to the first proxy over TCP.
    Tcp {
        /// Who connected.
        client: SocketAddr,
        /// What it connected to.
        server: SocketAddr,
    },
    /// The client's connection was a unix stream socket; the paths are not kept.
    Unix,
}

impl Origin {
    /// Where both addresses are IPv4-mapped, as on a dual-stack listener, they are IPv4.
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
