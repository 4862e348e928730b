//! Binds listening sockets, and accepts from them.

use std::cell::Cell;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
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
use super::stream::{NoDelay, Stream, keep_urgent_data_inline, register, reset_on_close};
use super::transport::Transport;

/// Connections that the kernel queues for one socket; it lowers this to net.core.somaxconn by itself.
pub const BACKLOG: i32 = 65_535;

/// Options of TCP sockets. Accepted sockets inherit those of the listening one, which saves a call for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Send small writes at once (TCP_NODELAY).
    pub nodelay: bool,
    /// Idle time before the first keep-alive probe; `None`: no probes.
    pub keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT); `None`: the kernel's default.
    pub user_timeout: Option<Duration>,
}

/// Binds the address without SO_REUSEPORT, and frees it again: with the option, a second balancer of the same user
/// would share the port unnoticed. Not for a port on which this process listens already, on another address.
///
/// # Errors
/// The address is in use, not one of this machine, or not permitted.
pub fn check_free(address: &ListenAddress) -> io::Result<()> {
    let Some((address, both_families)) = tcp_address(address)? else { return Ok(()) };
    open_tcp(address, both_families)?.bind(&address.into())
}

/// Opens as many listening sockets on one address as there are workers: TCP sockets share the port by SO_REUSEPORT
/// (socket(7)), a unix socket is duplicated.
///
/// # Errors
/// The address is in use, not one of this machine, or not permitted.
pub fn bind_listen_sockets(address: &ListenAddress, options: &TcpOptions, sockets: usize) -> io::Result<Vec<OwnedFd>> {
    let (mut address, both_families) = match (tcp_address(address)?, address) {
        (Some(address), _) => address,
        (None, ListenAddress::Unix(path)) => return duplicate_first(vec![bind_unix(path)?.into()], sockets),
        (None, _) => return Err(Errno::AFNOSUPPORT.into()),
    };
    let mut bound = Vec::new();
    for _ in 0..sockets {
        let socket = bind_tcp(address, both_families, options)?;
        // The port that the kernel chose, if it did, is that of the others too.
        address.set_port(socket.local_addr()?.as_socket().map_or(address.port(), |local| local.port()));
        bound.push(socket.into());
    }
    Ok(bound)
}

/// The address to bind, and whether it takes both families; `None`: it is a unix socket.
fn tcp_address(address: &ListenAddress) -> io::Result<Option<(SocketAddr, bool)>> {
    Ok(match address {
        ListenAddress::Unix(_) => None,
        ListenAddress::Tcp(address) => Some((*address, false)),
        ListenAddress::Zoned(zoned) => Some((zoned.resolve(open_tcp(zoned.without_zone(), false)?)?, false)),
        // A kernel without IPv6 has IPv4 alone.
        ListenAddress::Any(port) if !has_ipv6() => Some(((Ipv4Addr::UNSPECIFIED, *port).into(), false)),
        ListenAddress::Any(port) => Some(((Ipv6Addr::UNSPECIFIED, *port).into(), true)),
    })
}

/// Where a socket of this address is to listen by TCP; `None`: the kernel chooses the port, or it is a unix socket.
pub fn known_tcp_address(address: &ListenAddress) -> Option<SocketAddr> {
    let (address, _) = tcp_address(address).ok()??;
    (address.port() != 0).then_some(address)
}

fn has_ipv6() -> bool {
    Socket::new(Domain::IPV6, Type::STREAM, None)
        .map_or_else(|error| Errno::from_io_error(&error) != Some(Errno::AFNOSUPPORT), |_| true)
}

/// Whether binding failed because this machine has no such address now.
pub fn is_no_own_address(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// Takes over sockets that listen on one address already: gives them `options`, and opens more until `wanted` workers
/// have one each. There may be more sockets than workers; each must be accepted from, as the kernel queues connections
/// on all.
///
/// # Errors
/// An option can't be set, or a socket not opened.
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
            let further = (0..missing).map(|_| Ok(bind_tcp(address, both_families, options)?.into()));
            let further: Vec<OwnedFd> = further.collect::<io::Result<_>>()?;
            Ok(sockets.into_iter().chain(further).collect())
        }
        _ => duplicate_first(sockets, wanted),
    }
}

/// The address that a socket listens on; `None`: it is no TCP socket.
pub fn local_tcp_address(socket: &OwnedFd) -> Option<SocketAddr> {
    SockRef::from(socket).local_addr().ok()?.as_socket()
}

/// Duplicates the first socket until there are `wanted`: all accept from its one queue.
fn duplicate_first(mut sockets: Vec<OwnedFd>, wanted: usize) -> io::Result<Vec<OwnedFd>> {
    while sockets.len() < wanted {
        sockets.push(sockets[0].try_clone()?);
    }
    Ok(sockets)
}

/// The address that a listening socket got, as text.
pub fn local_address(socket: &OwnedFd) -> String {
    match SockRef::from(socket).local_addr() {
        Ok(address) => match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => address.to_string(),
            (None, Some(path)) => format!("unix:{}", path.display()),
            (None, None) => "unix socket".to_owned(),
        },
        Err(_) => "unknown".to_owned(),
    }
}

/// Whether a socket is a unix one.
pub fn is_unix(socket: &OwnedFd) -> bool {
    SockRef::from(socket).domain().is_ok_and(|domain| domain == Domain::UNIX)
}

fn bind_tcp(address: SocketAddr, both_families: bool, options: &TcpOptions) -> io::Result<Socket> {
    let socket = open_tcp(address, both_families)?;
    socket.set_reuse_port(true)?;
    set_listen_options(&socket, options)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Sets the options that the connections accepted from now on inherit.
///
/// # Errors
/// It is a unix socket, which has none of them.
pub fn set_listen_options(socket: &impl AsFd, options: &TcpOptions) -> io::Result<()> {
    keep_urgent_data_inline(socket)?;
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
    if check_unix_path_free(path)? {
        fs::remove_file(path)?;
    }
    let socket = open_unix()?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Whether the file of a process that has ended is in the way: it refuses connections.
///
/// # Errors
/// Something else is: a live process's socket, or a file that is none.
pub fn check_unix_path_free(path: &Path) -> io::Result<bool> {
    let Ok(file) = fs::symlink_metadata(path) else { return Ok(false) };
    if !file.file_type().is_socket() {
        let message = "a file that is no socket is there; remove it, or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match open_unix()?.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        _ => Err(Errno::ADDRINUSE.into()),
    }
}

/// Doesn't block: the queue of a live socket may be full, and then a connect would wait for as long as its process is
/// stuck.
fn open_unix() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
}

/// An accepted socket that is registered with no runtime yet, so that any worker may take it.
#[derive(Debug)]
pub struct Accepted(OwnedFd);

impl Accepted {
    /// Registers it with this thread's runtime.
    ///
    /// # Errors
    /// The runtime's epoll refused it.
    pub fn into_transport(self) -> io::Result<Transport> {
        Ok(Stream::register(self.0, NoDelay::Settled)?.into())
    }

    /// One that a test has made.
    #[cfg(test)]
    pub fn of(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Closes it with a reset, which no client takes for an empty answer, and which leaves no TIME_WAIT behind.
    pub fn refuse(self) {
        reset_on_close(&self.0);
    }
}

/// A listening socket, registered with one worker's runtime.
#[derive(Debug)]
pub struct ListenSocket {
    fd: AsyncFd<OwnedFd>,
    /// Connections may lack SO_OOBINLINE: those to a unix socket never inherit it, and those to an adopted socket may
    /// have been made before it was set, but not once the queue has been empty.
    may_lack_inline: Cell<bool>,
}

impl ListenSocket {
    /// Registers a listening socket with this thread's runtime.
    ///
    /// # Errors
    /// The runtime's epoll refused it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: register(fd, Interest::READABLE)?, may_lack_inline: Cell::new(true) })
    }

    /// Accepts the next connection by one accept4(2), which also returns the peer and sets the flags. Safe to cancel.
    ///
    /// # Errors
    /// Those of accept4, but for errors of a connection that died in the queue: these are skipped.
    pub async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Accepts a connection that is in the queue already; `None`: there is none, or the accept failed.
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

    /// `None`: the queue is empty.
    fn accept_once(&self) -> Option<io::Result<(Accepted, Peer)>> {
        loop {
            match rustix::net::acceptfrom_with(&self.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, address)) => {
                    let address = address.and_then(|any| SocketAddr::try_from(any).ok());
                    let peer = address.map_or(Peer::Unix, |address| Peer::Tcp(unmapped(address)));
                    if self.may_lack_inline.get() || matches!(peer, Peer::Unix) {
                        // An error means that it has failed already.
                        let _ = keep_urgent_data_inline(&fd);
                    }
                    return Some(Ok((Accepted(fd), peer)));
                }
                Err(Errno::AGAIN) => {
                    self.may_lack_inline.set(false);
                    return None;
                }
                // The connection died in the queue (accept(2), "Error handling"): the next one may be sound.
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

/// A socket of both families gives IPv4 clients as ::ffff:a.b.c.d; logs and rules use a.b.c.d.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
