//! Addresses as the user writes them: where to listen, where a backend is.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a listener accepts.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BindAddress {
    /// One address and port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// `*:port`: every address of both families, by one IPv6 socket that takes IPv4 too.
    Any(u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl BindAddress {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Any(_) => false,
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!("`{text}`: a unix socket needs an absolute path, such as unix:/run/lb.sock"))
            };
        }
        if let Some(port) = text.strip_prefix("*:") {
            return port.parse().map(Self::Any).map_err(|_| format!("`{text}`: the port must be from 0 to 65535"));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("`{text}` is not an address to listen on; write IP:port, [::]:port, *:port or unix:/path")
        })
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Any(port) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)).fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where a backend listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BackendAddress {
    /// An IP address and port.
    Tcp(SocketAddr),
}

impl FromStr for BackendAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("`{text}` is not a backend's address; write IP:port, such as 127.0.0.1:3001 or [::1]:3001")
        })?;
        if address.port() == 0 {
            return Err(format!("`{text}`: a backend's port must be from 1 to 65535"));
        }
        Ok(Self::Tcp(address))
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
        }
    }
}
