//! Addresses as the user writes them: where to listen, where a backend is.

use std::fmt;
use std::net::SocketAddr;
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
    /// A host name and port: every address that it resolves to at the start.
    Name(String, u16),
    /// A listening socket that the process was started with, by its descriptor's number.
    Inherited(u32),
}

impl BindAddress {
    /// Port 0 may be asked for often: each time the kernel chooses another one.
    pub fn is_chosen_by_kernel(&self) -> bool {
        match self {
            Self::Tcp(address) => address.port() == 0,
            Self::Any(port) | Self::Name(_, port) => *port == 0,
            Self::Unix(_) | Self::Inherited(_) => false,
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
            Self::Name(host, _) => host.eq_ignore_ascii_case("localhost"),
            Self::Any(_) | Self::Inherited(_) => false,
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
        if let Some(number) = text.strip_prefix("fd@") {
            let wrong = || format!("`{text}`: write fd@ and the number of a socket that lb is started with, from 3 on");
            return number.parse().ok().filter(|number| *number >= 3).map(Self::Inherited).ok_or_else(wrong);
        }
        let wrong = || {
            format!("`{text}` is not an address to listen on; write host:port, [::]:port, *:port, unix:/path or fd@3")
        };
        text.parse().map(Self::Tcp).or_else(|_| {
            let (host, port) = named_port(text).ok_or_else(wrong)?;
            Ok(Self::Name(host.to_owned(), port))
        })
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Any(port) => write!(f, "*:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Inherited(number) => write!(f, "fd@{number}"),
        }
    }
}

/// Where a backend listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BackendAddress {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// A host name and port: every address that it resolves to is a backend.
    Name(String, u16),
    /// A service's SRV records: their hosts, ports and weights.
    Srv(String),
}

/// Of a name in text, without the dot of the root (RFC 1035, 2.3.4: 255 bytes, two of which text has no need of).
const MAX_NAME_LENGTH: usize = 253;

impl FromStr for BackendAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a backend's address; write IP:port, name:port, unix:/path or srv:_service._tcp.name"
            )
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!("`{text}`: a unix socket needs an absolute path, such as unix:/run/app.sock"))
            };
        }
        if let Some(service) = text.strip_prefix("srv:") {
            return if is_name(service) { Ok(Self::Srv(service.to_owned())) } else { Err(wrong()) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err(format!("`{text}`: a backend's port must be from 1 to 65535")),
            Ok(port) => port,
        };
        match text.parse() {
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) if named_port(text).is_some() => Ok(Self::Name(host.to_owned(), port)),
            Err(_) => Err(wrong()),
        }
    }
}

/// A host name and a port.
fn named_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // Digits and dots only are an address gone wrong, not a name.
    let is_host = is_name(host) && !host.chars().all(|c| c.is_ascii_digit() || c == '.');
    Some((host, port.parse().ok()?)).filter(|_| is_host)
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let labels = text.strip_suffix('.').unwrap_or(text);
    labels.len() <= MAX_NAME_LENGTH && labels.split('.').all(is_label)
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Srv(service) => write!(f, "srv:{service}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_addresses_names_sockets_or_services() {
        for text in ["127.0.0.1:80", "[::1]:80", "app.internal:80", "app:80", "unix:/run/a.sock", "srv:_http._tcp.app"]
        {
            assert_eq!(text.parse::<BackendAddress>().map(|address| address.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "nonsense",
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1:99999",
            "300.1.1.1:80",
            ":80",
            "a b:80",
            "::1:80",
            "http://a:80",
            "unix:relative",
            "srv:",
            "-a:80",
            "a..b:80",
        ] {
            assert!(text.parse::<BackendAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_as_long_as_dns_allows_whether_the_root_is_written_or_not() {
        let label = "a".repeat(63);
        let longest = [label.as_str(), &label, &label, &label[..61]].join(".");
        for (name, is_name) in [(longest.clone(), true), (format!("{longest}."), true), (format!("{longest}a"), false)]
        {
            assert_eq!(format!("{name}:80").parse::<BackendAddress>().is_ok(), is_name, "{} bytes", name.len());
        }
    }
}
