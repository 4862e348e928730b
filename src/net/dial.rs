//! Connects to a backend, and sorts the errors by whose fault they are.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, ipproto};

use super::address::Target;
use super::socket_option::set_bind_address_no_port;
use super::stream::{NoDelay, Stream, reset_on_close};
use super::transport::Transport;

/// Options of a socket to a backend.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// The connect may take this long.
    pub timeout: Duration,
    /// Send small writes at once.
    pub nodelay: bool,
    /// How long sent bytes may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// The connection is only to show that it can be made, and is dropped at once: TCP's handshake is left without its
    /// last acknowledgement, and then reset, so that the application's accept(2) never returns it.
    pub unseen: bool,
}

labels! {
    /// Why a connect failed.
    ConnectFailure {
        /// Nothing listens there.
        Refused = "refused",
        /// The backend reset the connection while it was made.
        Reset = "reset",
        /// There is no route, or the network refuses to use it.
        Unreachable = "unreachable",
        /// No answer in time.
        Timeout = "timeout",
        /// A limit of this machine: open files, memory, local ports. Not the backend's fault.
        Local = "local",
    }
}

impl ConnectFailure {
    /// Whether failure detection should count it.
    pub fn is_backends_fault(self) -> bool {
        self != Self::Local
    }
}

/// A connect that failed.
#[derive(Debug)]
pub struct DialError {
    pub failure: ConnectFailure,
    source: io::Error,
}

impl DialError {
    /// For a connection that failed after the connect, before its first use.
    pub fn new(failure: ConnectFailure, source: io::Error) -> Self {
        Self { failure, source }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connect failed ({}): {}", self.failure.as_str(), self.source)
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<io::Error> for DialError {
    fn from(source: io::Error) -> Self {
        let failure = match Errno::from_io_error(&source) {
            Some(Errno::CONNREFUSED) => ConnectFailure::Refused,
            Some(Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED) => ConnectFailure::Reset,
            Some(Errno::TIMEDOUT) => ConnectFailure::Timeout,
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN) => {
                ConnectFailure::Unreachable
            }
            _ => ConnectFailure::Local,
        };
        Self { failure, source }
    }
}

/// Connects to `target`, from `source` where one is given. Safe to cancel: the half-made connection is closed.
///
/// # Errors
/// The connect failed, by the backend's fault or by local resource exhaustion.
pub async fn dial(target: &Target, source: Option<IpAddr>, options: &DialOptions) -> Result<Transport, DialError> {
    let stream = match target {
        Target::Tcp(address) => start_tcp(*address, source, options)?,
        Target::Unix(path) => connect_unix(path)?,
    };
    match tokio::time::timeout(options.timeout, poll_fn(|cx| stream.poll_connected(cx))).await {
        Ok(Ok(true)) => Ok(stream.into()),
        Ok(Ok(false)) => Err(stream.take_error().into()),
        Ok(Err(error)) => Err(DialError { failure: ConnectFailure::Local, source: error }),
        Err(_) => Err(DialError { failure: ConnectFailure::Timeout, source: io::ErrorKind::TimedOut.into() }),
    }
}

fn start_tcp(address: SocketAddr, source: Option<IpAddr>, options: &DialOptions) -> io::Result<Stream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    if let Some(timeout) = options.user_timeout {
        sockopt::set_tcp_user_timeout(&fd, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?;
    }
    if options.unseen {
        // Linux delays the last acknowledgement by 200 ms then, for data to go with it (TCP_QUICKACK in tcp(7)).
        sockopt::set_tcp_quickack(&fd, false)?;
        reset_on_close(&fd);
    }
    if let Some(source) = source {
        // Else bind would choose a port that no other connection from this source may use, whatever its backend: there
        // could be no more connections than ports.
        set_bind_address_no_port(&fd)?;
        rustix::net::bind(&fd, &SocketAddr::new(source, 0))?;
    }
    match rustix::net::connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {
            Stream::register(fd, if options.nodelay { NoDelay::Wanted } else { NoDelay::Settled })
        }
        Err(error) => Err(error.into()),
    }
}

/// A unix socket connects at once or not at all (unix(7)): its connection waits in the backend's queue.
fn connect_unix(path: &Path) -> Result<Stream, DialError> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(io::Error::from)?;
    let address = SocketAddrUnix::new(path).map_err(io::Error::from)?;
    match rustix::net::connect(&fd, &address) {
        Ok(()) => Ok(Stream::register(fd, NoDelay::Settled)?),
        // There is no such socket, or its queue is full.
        Err(error @ (Errno::NOENT | Errno::AGAIN)) => {
            Err(DialError { failure: ConnectFailure::Refused, source: error.into() })
        }
        Err(error) => Err(io::Error::from(error).into()),
    }
}
