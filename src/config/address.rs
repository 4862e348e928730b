//! Addresses as the user writes them: where to listen, where a backend is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::net::{ListenAddress, Target};
use crate::protocol::client_hello::name;

/// Where a listener accepts.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BindAddress {
    Address(ListenAddress),
    /// A host name and port: every address that it resolves to at the start.
    Name(String, u16),
    /// A listening socket that the process was started with, by its descriptor's number.
    Inherited(u32),
}

impl BindAddress {
    /// Whether it has port 0, which may be used more than once: the kernel chooses another port each time.
    pub fn is_chosen_by_kernel(&self) -> bool {
        match self {
            Self::Address(address) => address.port() == Some(0),
            Self::Name(_, port) => *port == 0,
            Self::Inherited(_) => false,
        }
    }

    /// What tells its socket from others: `*:port` and `[::]:port` are one address to the kernel.
    pub fn of_socket(&self) -> Self {
        match self {
            Self::Address(ListenAddress::Any(port)) => {
                Self::Address(ListenAddress::Tcp((Ipv6Addr::UNSPECIFIED, *port).into()))
            }
            other => other.clone(),
        }
    }

    /// Whether a connection to `backend` from this machine arrives here, as far as this can be told from the two texts:
    /// a backend that is a name has other addresses too, and other addresses are this machine's too.
    pub fn takes(&self, backend: &BackendAddress) -> bool {
        match (self, backend) {
            (Self::Address(bind), BackendAddress::Address(target)) => bind_takes(bind, target),
            (Self::Address(bind), BackendAddress::Name(host, port)) if is_localhost(host) => {
                let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
                loopback.iter().any(|ip| bind_takes(bind, &Target::Tcp(SocketAddr::new(*ip, *port))))
            }
            (Self::Name(host, own), BackendAddress::Name(name, port)) => own == port && host.eq_ignore_ascii_case(name),
            (Self::Name(host, own), BackendAddress::Address(Target::Tcp(address))) if is_localhost(host) => {
                *own == address.port() && address.ip().is_loopback()
            }
            _ => false,
        }
    }

    /// Whether it is a unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Address(ListenAddress::Unix(_)))
    }

    /// Whether it can be reached from this machine only.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Address(ListenAddress::Tcp(address)) => address.ip().is_loopback(),
            Self::Address(ListenAddress::Unix(_)) => true,
            Self::Name(host, _) => is_localhost(host),
            Self::Address(ListenAddress::Any(_) | ListenAddress::Zoned(_)) | Self::Inherited(_) => false,
        }
    }
}

fn is_localhost(host: &str) -> bool {
    host.trim_end_matches('.').eq_ignore_ascii_case("localhost")
}

fn bind_takes(bind: &ListenAddress, target: &Target) -> bool {
    match (bind, target) {
        (ListenAddress::Unix(path), Target::Unix(other)) => path == other,
        (ListenAddress::Zoned(address), Target::Zoned(other)) => address == other,
        (ListenAddress::Any(port), Target::Tcp(target)) => *port == target.port() && is_this_machine(target.ip()),
        (ListenAddress::Tcp(bind), Target::Tcp(target)) if bind.port() == target.port() => {
            let takes_all = bind.ip().is_unspecified() && bind.is_ipv4() == target.is_ipv4();
            bind.ip() == target.ip() || takes_all && is_this_machine(target.ip())
        }
        _ => false,
    }
}

/// Whether it is surely this machine: a connection to `0.0.0.0` goes to loopback, too.
fn is_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

/// Descriptors below are standard input, output and error.
const FIRST_INHERITED: u32 = 3;

impl FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = unix_path(text, "unix:/run/lb.sock") {
            return Ok(Self::Address(ListenAddress::Unix(path?)));
        }
        if let Some(port) = text.strip_prefix("*:") {
            let port = port.parse().map_err(|_| format!("`{text}`: the port must be from 0 to 65535"))?;
            return Ok(Self::Address(ListenAddress::Any(port)));
        }
        if let Some(number) = text.strip_prefix("fd@") {
            return match number.parse() {
                Ok(number) if number >= FIRST_INHERITED => Ok(Self::Inherited(number)),
                _ => Err(format!("`{text}`: write fd@ and the number of a socket that lb is started with, from 3 on")),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(ListenAddress::Tcp(address)));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(ListenAddress::Zoned(address)));
        }
        let (host, port) = named_port(text).ok_or_else(|| {
            let forms = "write host:port, [::]:port, *:port, unix:/path or fd@3";
            url_remedy(text).unwrap_or_else(|| format!("`{text}` is not an address to listen on; {forms}"))
        })?;
        Ok(Self::Name(host.to_owned(), port))
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Inherited(number) => write!(f, "fd@{number}"),
        }
    }
}

/// Where a backend listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BackendAddress {
    Address(Target),
    /// A host name and port: every address that it resolves to is a backend.
    Name(String, u16),
    /// A service's SRV records: their hosts, ports and weights.
    Srv(String),
}

impl FromStr for BackendAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = unix_path(text, "unix:/run/app.sock") {
            return Ok(Self::Address(Target::Unix(path?)));
        }
        let wrong = || {
            let forms = "write IP:port, name:port, unix:/path or srv:_service._tcp.name";
            url_remedy(text).unwrap_or_else(|| format!("`{text}` is not a backend's address; {forms}"))
        };
        if let Some(service) = text.strip_prefix("srv:") {
            return if is_name(service) { Ok(Self::Srv(service.to_owned())) } else { Err(wrong()) };
        }
        let (_, port) = text.rsplit_once(':').filter(|_| !text.contains("://")).ok_or_else(wrong)?;
        if matches!(port.parse::<u16>(), Ok(0) | Err(_)) {
            return Err(format!("`{text}`: a backend's port must be from 1 to 65535"));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(Target::Tcp(address)));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(Target::Zoned(address)));
        }
        let (host, port) = named_port(text).ok_or_else(wrong)?;
        Ok(Self::Name(host.to_owned(), port))
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(target) => target.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Srv(service) => write!(f, "srv:{service}"),
        }
    }
}

/// The kernel's structure has 108 bytes for it, one of them for the zero at its end (unix(7)).
const MAX_UNIX_PATH_BYTES: usize = 107;

/// The path of `unix:/path`; `None`: the text is of another form.
fn unix_path(text: &str, example: &str) -> Option<Result<PathBuf, String>> {
    let path = text.strip_prefix("unix:")?;
    Some(if !path.starts_with('/') {
        Err(format!("`{text}`: a unix socket needs an absolute path, such as {example}"))
    } else if path.len() > MAX_UNIX_PATH_BYTES || path.contains('\0') {
        Err(format!(
            "`{text}`: a unix socket's path has at most {MAX_UNIX_PATH_BYTES} bytes, and no zero byte; this one \
             has {}: use a shorter one, such as {example}",
            path.len()
        ))
    } else {
        Ok(path.into())
    })
}

/// What to write in place of a URL; `None`: the text is none.
fn url_remedy(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (_, host) = host.rsplit_once('@').unwrap_or(("", host));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = match scheme {
        _ if has_port => "",
        "https" => ":443",
        _ => ":80",
    };
    Some(format!("`{text}` is a URL; write host and port alone: {host}{port}"))
}

/// A host name and a port.
fn named_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // Digits and dots only are a mistyped address, not a name.
    let is_like_address = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if is_like_address || !is_name(host) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

/// Whether it is a host name whose labels don't begin with a hyphen. Names of clients may, names to resolve don't.
fn is_name(text: &str) -> bool {
    name::normalize(text.as_bytes()).is_ok() && !text.split('.').any(|label| label.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_addresses_names_sockets_or_services() {
        for text in [
            "127.0.0.1:80",
            "[::1]:80",
            "[fe80::1%2]:80",
            "[fe80::1%eth0]:80",
            "app.internal:80",
            "app:80",
            "unix:/run/a.sock",
            "srv:_http._tcp.app",
        ] {
            assert_eq!(text.parse::<BackendAddress>().map(|address| address.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn texts_that_are_not_addresses_are_refused() {
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
            "[fe80::1%]:80",
            "[fe80::1%eth0]:0",
            "[fe80::1%a/b]:80",
            "[fe80::1%sixteen--letters]:80",
            "[10.0.0.1%eth0]:80",
        ] {
            assert!(text.parse::<BackendAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_unix_path_is_as_long_as_the_kernel_takes_it() {
        let path = |bytes: usize| format!("unix:/{}", "a".repeat(bytes - 1));
        assert!(path(107).parse::<BackendAddress>().is_ok() && path(107).parse::<BindAddress>().is_ok());
        assert!(path(108).parse::<BackendAddress>().is_err() && path(108).parse::<BindAddress>().is_err());
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
