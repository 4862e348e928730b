//! Addresses that the kernel understands, and their text form. Opens nothing.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;

use rustix::net::netdevice::name_to_index;

/// Where to listen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ListenAddress {
    /// One address and port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// The same, on the link of an interface.
    Zoned(ZonedAddress),
    /// `*:port`: every address of both families, by one IPv6 socket that takes IPv4 too.
    Any(u16),
    /// A unix socket; a stale file of a dead process is replaced.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The same with another port, where it has one.
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Self::Tcp(address) => Self::Tcp(SocketAddr::new(address.ip(), port)),
            Self::Zoned(address) => Self::Zoned(ZonedAddress { port, ..address.clone() }),
            Self::Any(_) => Self::Any(port),
            Self::Unix(path) => Self::Unix(path.clone()),
        }
    }

    /// Its port, 0 if the kernel chooses; `None`: it is a unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Zoned(address) => Some(address.port),
            Self::Any(port) => Some(*port),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Zoned(address) => address.fmt(f),
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
    /// The same, on the link of an interface.
    Zoned(ZonedAddress),
    /// A unix socket's path.
    Unix(PathBuf),
}

impl Target {
    /// Its address, without the zone; `None`: it is a unix socket.
    pub fn ip_and_port(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Zoned(address) => Some(address.without_zone()),
            Self::Unix(_) => None,
        }
    }

    /// The same with another port. A unix socket has none, and stays as it is.
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Self::Tcp(address) => Self::Tcp(SocketAddr::new(address.ip(), port)),
            Self::Zoned(address) => Self::Zoned(ZonedAddress { port, ..address.clone() }),
            Self::Unix(_) => self.clone(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Zoned(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The longest name of an interface (IFNAMSIZ without the zero).
const MAX_INTERFACE_BYTES: usize = 15;

/// An IPv6 address on the link of an interface that is known by its name: `[fe80::1%eth0]:80` (RFC 4007, 11). The
/// kernel wants the interface's number, which is looked up at each use: one that goes and comes back has another.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ZonedAddress {
    ip: Ipv6Addr,
    port: u16,
    interface: String,
}

impl ZonedAddress {
    pub(super) fn without_zone(&self) -> SocketAddr {
        SocketAddr::from((self.ip, self.port))
    }

    /// With the interface's number now. `socket` may be any.
    ///
    /// # Errors
    /// There is no such interface.
    pub(super) fn resolve(&self, socket: impl AsFd) -> io::Result<SocketAddr> {
        let index = name_to_index(socket, &self.interface)?;
        Ok(SocketAddrV6::new(self.ip, self.port, 0, index).into())
    }
}

impl FromStr for ZonedAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, port) = text.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")).ok_or(())?;
        let (ip, interface) = address.split_once('%').ok_or(())?;
        let is_name = (1..=MAX_INTERFACE_BYTES).contains(&interface.len())
            && interface.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
        if !is_name {
            return Err(());
        }
        let (ip, port) = (ip.parse().map_err(drop)?, port.parse().map_err(drop)?);
        Ok(Self { ip, port, interface: interface.to_owned() })
    }
}

impl fmt::Display for ZonedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}%{}]:{}", self.ip, self.interface, self.port)
    }
}
