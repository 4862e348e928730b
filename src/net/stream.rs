//! One connected stream socket, TCP or unix, driven by the runtime's epoll. Nothing above `net` sees it: see
//! [`Transport`](super::Transport).
//!
//! Readiness is cleared on a short read or write, which saves the call that would only give EAGAIN: with edge-triggered
//! epoll a later byte is a new event (epoll(7), "Questions and answers", 9). A read that urgent data cut short is none:
//! see [`Stream::has_urgent_data_come`].

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{RecvFlags, Shutdown};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::send_ring::Turn;
use super::socket_option::set_receive_low_watermark;

/// A paused socket still wakes its task when it holds this much: it is to be read at once when reading is resumed.
const MAX_PAUSED_LOW_WATERMARK_BYTES: usize = 512 * 1024;
/// The mark is no more than one part in this many of the receive buffer. Of a higher one the kernel would take that the
/// buffer is to be enlarged for it, for good (tcp_set_rcvlowat); it reckons up to three quarters of it as overhead.
const SHARE_OF_RECEIVE_BUFFER: usize = 4;

/// The result of [`poll_hangup`](super::Transport::poll_hangup).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// No more bytes come from the peer, who may still receive.
    Ended,
    /// The peer has reset, or the connection failed.
    Gone,
    /// Unread bytes are before whatever comes: of the peer, only a reset can be noticed, by
    /// [`reset_by_peer`](super::Transport::reset_by_peer).
    Hidden,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) fd: AsyncFd<OwnedFd>,
    pub(super) nodelay: Cell<NoDelay>,
    /// When its last small send was collected ([`send_ring`]); 0: never, or the socket has taken all of it.
    pub(super) collected_in: Cell<Turn>,
    /// Bytes that were peeked at, and waited behind, may be there still: epoll does not report them again.
    has_peeked: Cell<bool>,
}

/// When TCP_NODELAY is set. Nagle's algorithm holds bytes back only while earlier ones are unacknowledged (RFC 9293,
/// 3.7.4): a connection that sends once never needs the option, and is spared the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoDelay {
    /// Not wanted, or set, or inherited from the listener.
    Settled,
    /// Wanted, but nothing has been sent: the first send needs no option.
    Wanted,
    /// To be set before the next send, which is the second.
    Due,
}

impl Stream {
    /// Registers a non-blocking socket with this thread's runtime.
    pub(super) fn register(fd: OwnedFd, nodelay: NoDelay) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        Ok(Self {
            fd: register(fd, interest)?,
            nodelay: Cell::new(nodelay),
            collected_in: Cell::new(0),
            has_peeked: Cell::new(false),
        })
    }

    /// Receives into `buffer`; 0 is the peer's end of stream.
    pub(super) fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(received) = self.receive_peeked(buffer) {
            return Poll::Ready(Ok(received));
        }
        loop {
            let mut guard = ready!(self.poll_read_ready(cx))?;
            match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Ok((_, 0)) if let Some(failure) = self.failed_send() => return Poll::Ready(Err(failure)),
                Ok((_, received)) => {
                    if 0 < received && received < buffer.len() && !self.has_urgent_data_come() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(received));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Receives bytes that were peeked at. `None`: there are none, and epoll reports whatever comes.
    fn receive_peeked(&self, buffer: &mut [u8]) -> Option<usize> {
        if !self.has_peeked.replace(false) {
            return None;
        }
        let (_, received) = rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT).ok()?;
        // A full buffer says nothing of what is behind.
        self.has_peeked.set(received == buffer.len());
        (received > 0).then_some(received)
    }

    /// Whether bytes may be there that epoll does not report again.
    pub(super) fn has_peeked(&self) -> bool {
        self.has_peeked.get()
    }

    /// Whether epoll has reported urgent data since the last call. A receive ends before such a byte, with more behind
    /// it for which there is no further event (tcp(7), SIOCATMARK).
    fn has_urgent_data_come(&self) -> bool {
        let mut has_come = false;
        // Called only if it was reported; the error makes the runtime forget it.
        let _ = self.fd.try_io(Interest::PRIORITY, |_| {
            has_come = true;
            io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())
        });
        has_come
    }

    /// Whoever waits for the peer has sent all it wants to say for now: this is when what the socket refused goes.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, OwnedFd>>> {
        // A failure is the next send's to report: bytes may have come before it.
        let _ = self.poll_taken(cx);
        self.fd.poll_read_ready(cx)
    }

    /// MSG_PEEK (recv(2)): ready when there are more than `known` bytes.
    pub(super) fn poll_peek(&self, cx: &mut Context<'_>, buffer: &mut [u8], known: usize) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.poll_read_ready(cx))?;
            match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::PEEK) {
                Ok((_, seen)) if seen > known => return Poll::Ready(Ok(seen)),
                // No more will come, by an end or by a reset: a peek gives the known bytes in both cases, and only the
                // socket's error tells them apart.
                Ok(_) if guard.ready().is_read_closed() => {
                    return Poll::Ready(Err(self.pending_error().unwrap_or(io::ErrorKind::UnexpectedEof.into())));
                }
                // More is a new event, and so is the end.
                Ok((_, seen)) => {
                    guard.clear_ready();
                    self.has_peeked.set(seen > 0);
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Receives and drops bytes that were peeked at, which therefore are in the socket's buffer: no wait is needed.
    pub(super) fn discard(&self, mut seen: usize) -> io::Result<()> {
        let mut bytes = [0; 512];
        while seen > 0 {
            let most = seen.min(bytes.len());
            match rustix::net::recv(&self.fd, &mut bytes[..most], RecvFlags::empty()) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, taken)) => seen -= taken,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether a byte waits to be received. Asks the kernel: epoll may not have reported it yet.
    pub(super) fn has_received(&self) -> bool {
        let peeked = rustix::net::recv(&self.fd, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Ok((_, 1)))
    }

    /// Whether nothing waits to be received. Costs a call only where epoll has reported something since the last one.
    pub(super) fn is_idle(&self) -> bool {
        let peeked = self.fd.try_io(Interest::READABLE, |fd| {
            rustix::net::recv(fd, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
            Ok(())
        });
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Unread bytes keep the socket readable: no task is woken for what comes behind them.
    pub(super) fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<Hangup> {
        if self.has_peeked() && self.has_received() {
            return Poll::Ready(Hangup::Hidden);
        }
        loop {
            let Ok(mut guard) = ready!(self.poll_read_ready(cx)) else { return Poll::Ready(Hangup::Gone) };
            // A reset closes the reading side as an end does; only the socket's error tells them apart.
            if guard.ready().is_read_closed() {
                return Poll::Ready(if self.pending_error().is_some() { Hangup::Gone } else { Hangup::Ended });
            }
            match rustix::net::recv(&self.fd, &mut [0u8; 1][..], RecvFlags::PEEK) {
                Ok((_, 0)) if self.failed_send().is_some() => return Poll::Ready(Hangup::Gone),
                Ok((_, 0)) => return Poll::Ready(Hangup::Ended),
                Ok(_) => return Poll::Ready(Hangup::Hidden),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(_) => return Poll::Ready(Hangup::Gone),
            }
        }
    }

    /// `None` for a unix socket.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        let address = rustix::net::getsockname(&self.fd).ok().and_then(|any| SocketAddr::try_from(any).ok())?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Ready when the connect has ended; `false`: it failed, and [`Stream::take_error`] has the reason.
    pub(super) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let guard = ready!(self.fd.poll_write_ready(cx))?;
        // A failed connect shows as EPOLLERR and EPOLLHUP (connect(2), EINPROGRESS), which saves a call for SO_ERROR.
        Poll::Ready(Ok(!guard.ready().is_write_closed()))
    }

    /// Takes the socket's pending error. A connection that failed without one was reset.
    pub(super) fn take_error(&self) -> io::Error {
        self.pending_error().unwrap_or(io::ErrorKind::ConnectionReset.into())
    }

    fn pending_error(&self) -> Option<io::Error> {
        self.failed_send().or_else(|| self.socket_error())
    }

    fn socket_error(&self) -> Option<io::Error> {
        match sockopt::socket_error(&self.fd) {
            Ok(Err(errno)) | Err(errno) => Some(errno.into()),
            Ok(Ok(())) => None,
        }
    }

    /// The first of: a reset, and an end without a byte before it.
    pub(super) async fn closed_before_data(&self) {
        tokio::select! {
            () = self.reset_by_peer() => {}
            () = self.ended_without_data() => {}
        }
    }

    /// Waits for the end of a peer that never sent a byte. One that sent some may only have finished its request.
    async fn ended_without_data(&self) {
        let Ok(guard) = self.fd.readable().await else { return std::future::pending().await };
        let mut first = [0];
        let is_end = guard.ready().is_read_closed()
            && matches!(rustix::net::recv(&self.fd, &mut first, RecvFlags::PEEK), Ok((_, 0)));
        if !is_end {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the socket has failed (EPOLLERR), which epoll reports also while nothing is received.
    pub(super) async fn reset_by_peer(&self) {
        // The runtime's own error ends the wait as well: it is going down.
        let _ = self.fd.ready(Interest::ERROR).await;
    }

    /// Raises the number of bytes with which the socket counts as readable (SO_RCVLOWAT). An end and a reset are
    /// reported with fewer, too.
    pub(super) fn pause_reads(&self, paused: bool) {
        // A unix socket doesn't have the option: it wakes its task for nothing, which costs some time only.
        let _ = set_receive_low_watermark(&self.fd, if paused { self.paused_low_watermark() } else { 1 });
    }

    fn paused_low_watermark(&self) -> usize {
        let buffer = sockopt::socket_recv_buffer_size(&self.fd).unwrap_or(0);
        (buffer / SHARE_OF_RECEIVE_BUFFER).min(MAX_PAUSED_LOW_WATERMARK_BYTES)
    }

    pub(super) fn shutdown_write(&self) {
        self.hand_over();
        // An error means that the peer is gone, which the next receive reports.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }

    /// TCP_KEEPIDLE and TCP_KEEPINTVL (tcp(7)).
    pub(super) fn keep_alive(&self, idle: Duration) {
        // An error means that it is a unix socket, or has failed already.
        let _ = sockopt::set_socket_keepalive(&self.fd, true)
            .and_then(|()| sockopt::set_tcp_keepidle(&self.fd, idle))
            .and_then(|()| sockopt::set_tcp_keepintvl(&self.fd, idle));
    }

    /// See [`reset_on_close`].
    pub(super) fn reset_on_close(&self) {
        self.hand_over();
        reset_on_close(&self.fd);
    }
}

/// SO_OOBINLINE (socket(7)): an urgent byte stays in its place among the others. Without it, a receive leaves it out.
pub(super) fn keep_urgent_data_inline(fd: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_oobinline(fd, true)?)
}

/// SO_LINGER with no time to linger: closing sends a reset, and no TIME_WAIT stays behind (socket(7)).
pub(super) fn reset_on_close(fd: impl AsFd) {
    // An error means that it has failed already.
    let _ = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
}

/// Registers a descriptor with this thread's runtime, which must be running.
#[allow(unsafe_code, reason = "net is where system interfaces without a safe wrapper are wrapped")]
pub(super) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor must be open, and stay the same one, for as long as the `AsyncFd` exists. `fd` is an
    // `OwnedFd`: open by its type's guarantee, moved into the `AsyncFd` here, and closed only when that drops it; no
    // method of ours takes it out or replaces it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(|error| {
        // Its peer must not take the close for an end.
        let (fd, cause) = error.into_parts();
        reset_on_close(&fd);
        cause
    })
}
