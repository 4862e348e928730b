//! Addresses that the kernel understands, and their text form. Opens nothing.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where to listen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ListenAddress {
    /// One address and port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// `*:port`: every address of both families, by one IPv6 socket that takes IPv4 too.
    Any(u16),
    /// A unix socket; a stale file of a dead process is replaced.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Its port; `None`: it is a unix socket, or the kernel chooses.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) if address.port() != 0 => Some(address.port()),
            Self::Any(port) if *port != 0 => Some(*port),
            Self::Tcp(_) | Self::Any(_) | Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Any(port) => write!(f, "*:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where a backend listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// An address and port.
    Tcp(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
