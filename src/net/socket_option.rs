//! Socket options that neither rustix nor socket2 wraps.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// IP_BIND_ADDRESS_NO_PORT (ip(7)): bind chooses the address only; connect then chooses the port, which needs to be
/// unique only together with the backend's address.
pub(super) fn set_bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// SO_RCVLOWAT (socket(7)): the socket counts as readable, and wakes, only with this many bytes.
pub(super) fn set_receive_low_watermark(socket: impl AsFd, bytes: c_int) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

#[allow(unsafe_code, reason = "the options above have no safe wrapper")]
fn set(socket: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("an int's size");
    // SAFETY: `socket` is borrowed for the length of the call, so its descriptor is open; `value` exists until the call
    // returns, and `length` is its size, so the kernel reads exactly that int.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
