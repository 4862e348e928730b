//! Listening sockets, and accepting from them.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::address::ListenAddress;
use super::peer::Peer;
use super::stream::{NoDelay, Stream, register, reset_on_close};
use super::transport::Transport;

/// Connections that the kernel holds for us; it lowers this to net.core.somaxconn by itself.
pub const BACKLOG: i32 = 65_535;

/// Options of TCP sockets. Accepted sockets inherit a listening one's, which saves the calls for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Send small writes at once (TCP_NODELAY).
    pub nodelay: bool,
    /// Idle time before the first keep-alive probe; `None`: no probes.
    pub keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT); `None`: the kernel's default.
    pub user_timeout: Option<Duration>,
}

/// Opens `sockets` listening sockets on one address, one a worker: TCP shares the port by SO_REUSEPORT (socket(7)), a
/// unix socket is duplicated. `is_ours`: this process has the port already, on another address.
///
/// # Errors
/// What the kernel said: the address is taken, not ours, not permitted.
pub fn bind_listen_sockets(
    address: &ListenAddress,
    options: &TcpOptions,
    sockets: usize,
    is_ours: bool,
) -> io::Result<Vec<OwnedFd>> {
    let (address, both_families) = match address {
        ListenAddress::Unix(path) => return duplicate_first(vec![bind_unix(path)?.into()], sockets),
        ListenAddress::Tcp(address) => (*address, false),
        ListenAddress::Any(port) => ((Ipv6Addr::UNSPECIFIED, *port).into(), true),
    };
    let address = if is_ours { address } else { probe_free_port(address, both_families)? };
    bind_tcp(address, both_families, options, sockets)
}

/// Makes sockets that listen on one address already enough for `wanted` workers, and gives them `options`: those that
/// are missing are opened beside them. There may be more than wanted; each must be accepted from, for the kernel gives
/// connections to all.
///
/// # Errors
/// What the kernel said.
pub fn adopt_listen_sockets(sockets: Vec<OwnedFd>, wanted: usize, options: &TcpOptions) -> io::Result<Vec<OwnedFd>> {
    let Some(first) = sockets.first() else { return Ok(sockets) };
    let socket = SockRef::from(first);
    let shares_port = socket.reuse_port().unwrap_or(false);
    let address = socket.local_addr()?.as_socket();
    if address.is_some() {
        sockets.iter().try_for_each(|socket| set_listen_options(socket, options))?;
    }
    match address {
        Some(address) if shares_port => {
            let both_families = address.is_ipv6() && !socket.only_v6()?;
            let missing = wanted.saturating_sub(sockets.len());
            let further = bind_tcp(address, both_families, options, missing)?;
            Ok(sockets.into_iter().chain(further).collect())
        }
        _ => duplicate_first(sockets, wanted),
    }
}

/// The port that a socket listens on; `None`: it is no TCP socket.
pub fn local_port(socket: &OwnedFd) -> Option<u16> {
    Some(SockRef::from(socket).local_addr().ok()?.as_socket()?.port())
}

/// Duplicates the first until there are `wanted`: all accept from one queue.
fn duplicate_first(mut sockets: Vec<OwnedFd>, wanted: usize) -> io::Result<Vec<OwnedFd>> {
    while sockets.len() < wanted {
        sockets.push(sockets[0].try_clone()?);
    }
    Ok(sockets)
}

/// Binds `address` without SO_REUSEPORT, which would let a second process of the same user share the port unnoticed,
/// and frees it again. Gives the address with the port that it got, where the kernel chose one.
fn probe_free_port(address: SocketAddr, both_families: bool) -> io::Result<SocketAddr> {
    let probe = open_tcp(address, both_families)?;
    probe.bind(&address.into())?;
    Ok(probe.local_addr()?.as_socket().unwrap_or(address))
}

/// The address that a listening socket got, as text.
pub fn local_address(socket: &OwnedFd) -> String {
    let address = rustix::net::getsockname(socket).map(SocketAddr::try_from);
    match address {
        Ok(Ok(address)) => address.to_string(),
        _ => "unix socket".to_owned(),
    }
}

/// Whether a socket is a unix one.
pub fn is_unix(socket: &OwnedFd) -> bool {
    SockRef::from(socket).domain().is_ok_and(|domain| domain == Domain::UNIX)
}

fn bind_tcp(
    address: SocketAddr,
    both_families: bool,
    options: &TcpOptions,
    sockets: usize,
) -> io::Result<Vec<OwnedFd>> {
    (0..sockets)
        .map(|_| {
            let socket = open_tcp(address, both_families)?;
            socket.set_reuse_port(true)?;
            set_listen_options(&socket, options)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// Gives a listening TCP socket other options, which the connections that it accepts from now on inherit.
///
/// # Errors
/// What the kernel said; for a unix socket, that it has none of them.
pub fn set_listen_options(socket: &impl AsFd, options: &TcpOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(options.nodelay)?;
    socket.set_keepalive(options.keepalive.is_some())?;
    if let Some(idle) = options.keepalive {
        socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(idle).with_interval(idle))?;
    }
    socket.set_tcp_user_timeout(options.user_timeout)
}

fn open_tcp(address: SocketAddr, both_families: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!both_families)?;
    }
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let is_stale = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_stale {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// An accepted socket that belongs to no runtime yet, so that any worker may take it.
#[derive(Debug)]
pub struct Accepted(OwnedFd);

impl Accepted {
    /// Makes this thread's runtime its own.
    ///
    /// # Errors
    /// The runtime's epoll refused it.
    pub fn into_transport(self) -> io::Result<Transport> {
        Ok(Stream::register(self.0, NoDelay::Settled)?.into())
    }

    /// Closes it with a reset: nobody can take that for an empty answer, and no TIME_WAIT stays behind.
    pub fn refuse(self) {
        reset_on_close(&self.0);
    }
}

/// A listening socket, registered with one worker's runtime.
#[derive(Debug)]
pub struct ListenSocket {
    fd: AsyncFd<OwnedFd>,
}

impl ListenSocket {
    /// Registers a listening socket with this thread's runtime.
    ///
    /// # Errors
    /// The runtime's epoll refused it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: register(fd, Interest::READABLE)? })
    }

    /// Accepts the next connection: one accept4(2), which also gives the peer and sets the flags. Safe to cancel.
    ///
    /// # Errors
    /// What accept4 said; errors of the dead connection itself are passed over.
    pub async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Accepts a connection that waits already; `None` where none does, or it can't be had.
    pub fn accept_waiting(&self) -> Option<(Accepted, Peer)> {
        self.accept_once().and_then(Result::ok)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Accepted, Peer)>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match self.accept_once() {
                Some(accepted) => return Poll::Ready(accepted),
                None => guard.clear_ready(),
            }
        }
    }

    /// `None`: nobody waits.
    fn accept_once(&self) -> Option<io::Result<(Accepted, Peer)>> {
        loop {
            match rustix::net::acceptfrom_with(&self.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, address)) => {
                    let address = address.and_then(|any| SocketAddr::try_from(any).ok());
                    let peer = address.map_or(Peer::Unix, |address| Peer::Tcp(unmapped(address)));
                    return Some(Ok((Accepted(fd), peer)));
                }
                Err(Errno::AGAIN) => return None,
                // The connection died in the queue (accept(2), "Error handling"): the next one may live.
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

/// Whether accept failed because the process or the system has no file descriptor left.
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether accept failed because the kernel has no memory for a socket.
pub fn is_out_of_memory(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOBUFS | Errno::NOMEM))
}

/// An IPv4 client of a socket of both families shows as ::ffff:a.b.c.d; logs and rules want a.b.c.d.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
