//! Listening sockets that the process was started with, by systemd's socket activation (sd_listen_fds(3)) or any other
//! parent. The configuration names them by their descriptors, as `fd@3`.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::net::sockopt;

/// Descriptors below are standard input, output and error.
const FIRST: u32 = 3;

/// A duplicate of the listening socket that has this number. The number itself stays open for later configurations, but
/// no child inherits it.
///
/// # Errors
/// No such descriptor is open, or it is no listening socket.
pub fn inherited_listen_socket(number: u32) -> io::Result<OwnedFd> {
    if number < FIRST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw = RawFd::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
    // Duplicated first, so that all but one of the calls below work on a descriptor that this process owns.
    let socket = duplicate(raw)?;
    if !sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is a socket that doesn't listen"));
    }
    close_on_exec(raw)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// A duplicate of `raw`, which need not be open.
#[allow(
    unsafe_code,
    reason = "a number from the configuration is not known to be open: no `BorrowedFd` may be made of it"
)]
fn duplicate(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) takes any number: one that is not open gives EBADF. F_DUPFD_CLOEXEC neither reads nor writes
    // memory of ours, and leaves the descriptor of that number as it was, whatever part of this process owns it.
    let duplicate = unsafe { libc::fcntl(raw, libc::F_DUPFD_CLOEXEC, 0) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor by this call: it is open, no other code knows its number, and
    // so nothing else closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Keeps children from inheriting `raw`, which need not be open.
#[allow(
    unsafe_code,
    reason = "a number from the configuration is not known to be open: no `BorrowedFd` may be made of it"
)]
fn close_on_exec(raw: RawFd) -> io::Result<()> {
    // SAFETY: fcntl(2) takes any number: one that is not open gives EBADF. F_SETFD touches no memory of ours. If some
    // other code has opened the number meanwhile, it has this flag already, as all that Rust opens.
    let result = unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

    use super::*;

    fn number_of(socket: &impl AsRawFd) -> u32 {
        u32::try_from(socket.as_raw_fd()).expect("an open descriptor")
    }

    #[test]
    fn duplicates_a_listening_socket_and_keeps_it_from_children() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        fcntl_setfd(&listener, FdFlags::empty()).expect("it is open");
        let socket = inherited_listen_socket(number_of(&listener)).expect("it listens");
        assert_eq!(TcpListener::from(socket).local_addr().ok(), listener.local_addr().ok());
        assert_eq!(fcntl_getfd(&listener), Ok(FdFlags::CLOEXEC));
    }

    #[test]
    fn refuses_what_is_no_listening_socket() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let connected = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let error = inherited_listen_socket(number_of(&connected)).expect_err("it doesn't listen");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let pipe = std::io::pipe().expect("two descriptors").0;
        let error = inherited_listen_socket(number_of(&pipe)).expect_err("it is no socket");
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NOTSOCK));
    }

    #[test]
    fn refuses_a_number_that_is_not_open() {
        let error = inherited_listen_socket(i32::MAX.cast_unsigned()).expect_err("it is not open");
        assert_eq!(Errno::from_io_error(&error), Some(Errno::BADF));
        assert!(inherited_listen_socket(0).is_err() && inherited_listen_socket(u32::MAX).is_err());
    }
}
