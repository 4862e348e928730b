//! The PROXY protocol: the header that a proxy sends ahead of a connection's own bytes to say whose connection it is.
//! It follows HAProxy's "proxy-protocol.txt", version 1 (section 2.1) and version 2 (section 2.2), both ways.
//! It can't know whom to believe, and must not guess whether a header is there: whoever may send one may claim any
//! address (section 5). Ask for it where the configuration says so, of peers that it names.

mod malformed;
mod v1;
mod v2;
#[cfg(test)]
mod vectors;
mod write;

pub use malformed::Malformed;
pub use write::write;

use std::net::{IpAddr, SocketAddr};

/// The most bytes that a header may have. Version 1 ends at 107; version 2 could announce 64 KiB of TLVs, of which real
/// ones (names, ids, a certificate's common name) need a few hundred bytes.
pub const MAX_HEADER_BYTES: usize = 4096;

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

/// Which header is written; both are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// Reads the header that `bytes` begin with: `None` asks for more of them, and of an accepted header the length is
/// given, behind which the connection's own bytes begin. The verdict is the same wherever the network cut the bytes.
///
/// # Errors
/// At the first byte, or field of version 1, that no more bytes could mend.
pub fn parse(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => v1::parse(bytes),
        Some(b'\r') => v2::parse(bytes),
        Some(_) => Err(Malformed::Signature),
    }
}

impl Origin {
    /// Where both addresses are IPv4 in IPv6's clothes, as on a dual-stack listener, they are IPv4.
    fn tcp(client: SocketAddr, server: SocketAddr) -> Self {
        match (client.ip().to_canonical(), server.ip().to_canonical()) {
            (client_ip @ IpAddr::V4(_), server_ip @ IpAddr::V4(_)) => Self::Tcp {
                client: SocketAddr::new(client_ip, client.port()),
                server: SocketAddr::new(server_ip, server.port()),
            },
            _ => Self::Tcp { client, server },
        }
    }
}
