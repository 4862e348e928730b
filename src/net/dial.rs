//! Connects to a backend.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, ipproto};

use super::address::Target;
use super::connect_failure::{ConnectFailure, DialError};
use super::socket_option::{set_bind_address_no_port, set_transparent};
use super::stream::{NoDelay, Stream, keep_urgent_data_inline, reset_on_close};
use super::transport::Transport;

/// A UDP connect wants a port, and sends nothing to it.
const DISCARD_PORT: u16 = 9;

/// Options of a socket to a backend.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// The connect may take this long.
    pub timeout: Duration,
    /// Send small writes at once.
    pub nodelay: bool,
    /// How long sent bytes may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Bytes that follow at once: the handshake's last acknowledgement goes with them, which spares a packet. Without
    /// them a server that speaks first could stay silent for ever: where its queues are full, Linux forgets the
    /// handshake (tcp_syncookies in tcp(7)), and only bytes are sent again.
    Data,
    /// To show that it can be made; it is dropped at once: TCP's handshake is left without its last acknowledgement,
    /// and then reset, so that the application's accept(2) never returns it.
    Unseen,
    /// Anything else.
    Talk,
}

/// The address that a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel chooses.
    Any,
    /// One of this machine's.
    Own(IpAddr),
    /// Another machine's; its network has to bring the answers here.
    Foreign(IpAddr),
}

/// Connects to `target`, from `source` unless it is a unix socket. Safe to cancel: the half-made connection is closed.
///
/// # Errors
/// The connect failed, by the backend's fault or by our own.
pub async fn dial(target: &Target, source: Source, options: &DialOptions) -> Result<Transport, DialError> {
    let (stream, address) = match target {
        Target::Tcp(address) => (start_tcp(open_tcp(address)?, *address, source, options)?, Some(*address)),
        Target::Zoned(zoned) => {
            let socket = open_tcp(&zoned.without_zone())?;
            let address = zoned.resolve(&socket)?;
            (start_tcp(socket, address, source, options)?, Some(address))
        }
        Target::Unix(path) => (connect_unix(path)?, None),
    };
    match tokio::time::timeout(options.timeout, poll_fn(|cx| stream.poll_connected(cx))).await {
        Ok(Ok(true)) if address.is_some_and(|address| is_self_connected(&stream, address)) => {
            // A reset frees the port at once, which the backend needs to start.
            stream.reset_on_close();
            Err(Errno::CONNREFUSED.into())
        }
        Ok(Ok(true)) => Ok(stream.into()),
        Ok(Ok(false)) => Err(stream.take_error().into()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Errno::TIMEDOUT.into()),
    }
}

fn open_tcp(address: &SocketAddr) -> Result<OwnedFd, DialError> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    keep_urgent_data_inline(&fd)?;
    Ok(fd)
}

fn start_tcp(fd: OwnedFd, address: SocketAddr, source: Source, options: &DialOptions) -> Result<Stream, DialError> {
    if let Some(timeout) = options.user_timeout {
        sockopt::set_tcp_user_timeout(&fd, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?;
    }
    if options.purpose != Purpose::Talk {
        // Linux delays the last acknowledgement by 200 ms then, for data to go with it (TCP_QUICKACK in tcp(7)).
        sockopt::set_tcp_quickack(&fd, false)?;
    }
    if options.purpose == Purpose::Unseen {
        reset_on_close(&fd);
    }
    bind_to(&fd, source, address)?;
    match rustix::net::connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {
            Ok(Stream::register(fd, if options.nodelay { NoDelay::Wanted } else { NoDelay::Settled })?)
        }
        // With IPv6 off there is no address to connect to `::1` from. That isn't the lack of a port, for which the
        // kernel has the same errno.
        Err(error @ Errno::ADDRNOTAVAIL) if source == Source::Any && !has_source_for(&address) => {
            Err(DialError::new(ConnectFailure::Unreachable, error.into()))
        }
        Err(error) => Err(error.into()),
    }
}

fn bind_to(fd: &OwnedFd, source: Source, to: SocketAddr) -> Result<(), DialError> {
    let ip = match source {
        Source::Any => return Ok(()),
        Source::Own(ip) => ip,
        Source::Foreign(ip) => {
            let ours = |error| DialError::new(ConnectFailure::Local, error);
            // The kernel's errors for these would blame the backend.
            if ip.is_ipv4() != to.is_ipv4() || ip.is_loopback() && !to.ip().is_loopback() {
                return Err(ours(io::Error::other(format!("{ip}, the client's address, can't be used to reach {to}"))));
            }
            set_transparent(fd, ip.is_ipv4()).map_err(ours)?;
            ip
        }
    };
    // Else bind would choose a port that no other connection from this source may use, whatever its backend: there
    // could be no more connections than ports.
    set_bind_address_no_port(fd)?;
    Ok(rustix::net::bind(fd, &SocketAddr::new(ip, 0))?)
}

/// Finds out whether connections may come from addresses of other machines ([`Source::Foreign`]).
///
/// # Errors
/// They may not, for want of CAP_NET_ADMIN.
pub fn check_foreign_sources() -> io::Result<()> {
    for (family, is_ipv4) in [(AddressFamily::INET, true), (AddressFamily::INET6, false)] {
        // A machine may lack IPv6.
        if let Ok(socket) = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None) {
            set_transparent(socket, is_ipv4)?;
        }
    }
    Ok(())
}

/// Whether this machine has an address from which it could reach `address`. A UDP connect chooses one as a TCP connect
/// does, sends nothing, and has ports of its own (udp(7)).
fn has_source_for(address: &SocketAddr) -> bool {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    // Any other error, also of the socket, says nothing of that: what is short then is ours.
    socket.and_then(|socket| rustix::net::connect(socket, address)) != Err(Errno::ADDRNOTAVAIL)
}

/// Whether `ip` is an address of this machine: the kernel connects to such a one from itself.
///
/// # Errors
/// There was no socket to find it out with.
pub fn is_own_address(ip: IpAddr) -> io::Result<bool> {
    let address = SocketAddr::new(ip, DISCARD_PORT);
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let connected = rustix::net::connect(&socket, &address).and_then(|()| rustix::net::getsockname(&socket));
    Ok(connected.is_ok_and(|local| SocketAddr::try_from(local).is_ok_and(|local| local.ip() == ip)))
}

/// Whether it is connected to itself: TCP lets two SYNs that cross make one connection (RFC 9293, 3.5), and where the
/// kernel chooses the very port that is being connected to, on this machine, the two are one. No server has answered.
fn is_self_connected(stream: &Stream, address: SocketAddr) -> bool {
    is_chosen_by_kernel(address.port())
        && stream
            .local_address()
            .is_some_and(|local| local.port() == address.port() && local.ip() == address.ip().to_canonical())
}

/// Whether the kernel may choose this port for a connection (ip(7), ip_local_port_range). Most backends listen on
/// another, which spares a call for each connection. Read once.
fn is_chosen_by_kernel(port: u16) -> bool {
    static RANGE: OnceLock<RangeInclusive<u16>> = OnceLock::new();
    RANGE.get_or_init(|| local_port_range().unwrap_or(0..=u16::MAX)).contains(&port)
}

fn local_port_range() -> Option<RangeInclusive<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map(str::parse);
    Some(ports.next()?.ok()?..=ports.next()?.ok()?)
}

/// A unix socket connects at once or not at all (unix(7)): its connection waits in the backend's queue.
fn connect_unix(path: &Path) -> Result<Stream, DialError> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    keep_urgent_data_inline(&fd)?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(Stream::register(fd, NoDelay::Settled)?)
}
