//! Listening sockets, and accepting from them.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::stream::{NoDelay, Peer, Stream, register, reset_on_close};

/// Connections that the kernel holds for us; it lowers this to net.core.somaxconn by itself.
const BACKLOG: i32 = 65_535;

/// Where to listen.
#[derive(Clone, Debug)]
pub enum ListenAddress {
    /// One address and port.
    Tcp(SocketAddr),
    /// Every address of both families.
    Any(u16),
    /// A unix socket; a stale file of a dead process is replaced.
    Unix(PathBuf),
}

/// Options of a listening socket; accepted sockets inherit them, which saves the calls for each.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Send small writes at once.
    pub nodelay: bool,
    /// Idle time before the first keep-alive probe.
    pub keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

/// Opens `sockets` listening sockets on one address, one a worker: TCP shares the port by SO_REUSEPORT (socket(7)), a
/// unix socket is duplicated.
///
/// # Errors
/// What the kernel said: the address is taken, not ours, not permitted.
pub fn bind(address: &ListenAddress, options: &ListenOptions, sockets: usize) -> io::Result<Vec<OwnedFd>> {
    match address {
        ListenAddress::Unix(path) => {
            let first = bind_unix(path)?;
            let mut all = (1..sockets).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>()?;
            all.push(first);
            Ok(all.into_iter().map(OwnedFd::from).collect())
        }
        ListenAddress::Tcp(address) => bind_tcp(*address, false, options, sockets),
        ListenAddress::Any(port) => bind_tcp((Ipv6Addr::UNSPECIFIED, *port).into(), true, options, sockets),
    }
}

/// The address that a listening socket got, as text.
pub fn local_address(socket: &OwnedFd) -> String {
    let address = rustix::net::getsockname(socket).map(SocketAddr::try_from);
    match address {
        Ok(Ok(address)) => address.to_string(),
        _ => "unix socket".to_owned(),
    }
}

fn bind_tcp(
    address: SocketAddr,
    both_families: bool,
    options: &ListenOptions,
    sockets: usize,
) -> io::Result<Vec<OwnedFd>> {
    // SO_REUSEPORT would let a second process of the same user share the port unnoticed: this finds out, and frees it again.
    let probe = open_tcp(address, both_families)?;
    probe.bind(&address.into())?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..sockets)
        .map(|_| {
            let socket = open_tcp(address, both_families)?;
            socket.set_reuse_port(true)?;
            socket.set_tcp_nodelay(options.nodelay)?;
            if let Some(idle) = options.keepalive {
                socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(idle).with_interval(idle))?;
            }
            socket.set_tcp_user_timeout(options.user_timeout)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
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
    pub fn into_stream(self) -> io::Result<Stream> {
        Stream::register(self.0, NoDelay::Settled)
    }

    /// Closes it with a reset: nobody can take that for an empty answer, and no TIME_WAIT stays behind.
    pub fn refuse(self) {
        reset_on_close(&self.0);
    }
}

/// A listening socket, registered with one worker's runtime.
#[derive(Debug)]
pub struct Listener {
    fd: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Registers a listening socket with this thread's runtime.
    ///
    /// # Errors
    /// The runtime's epoll refused it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: register(fd, Interest::READABLE)? })
    }

    /// Accepts the next connection: one accept4(2), which also tells the peer and sets the flags. Safe to cancel.
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
