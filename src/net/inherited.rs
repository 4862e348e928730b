//! Sockets that the process was started with: systemd's socket activation (sd_listen_fds(3)), or any parent's `fd@N`.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::sockopt;

/// Standard input, output and error are no sockets to listen on.
const FIRST: u32 = 3;

/// A duplicate of the listening socket that has this number; the number itself stays open, for the next reload, but no child gets it.
///
/// # Errors
/// There is no such descriptor, or it is no listening socket.
#[allow(unsafe_code, reason = "a number from the configuration is not known to be open")]
pub fn inherited(number: u32) -> io::Result<OwnedFd> {
    let raw = RawFd::try_from(number).ok().filter(|_| number >= FIRST).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: the borrowed descriptor is used by the three calls below alone, of which each fails with EBADF if it is not open, and
    // none closes it. Should another part of the process have opened it meanwhile, these calls read its type, and duplicate a
    // listening socket only.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    if !sockopt::socket_acceptconn(borrowed)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is a socket that doesn't listen"));
    }
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    let socket = fcntl_dupfd_cloexec(borrowed, 0)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}
