//! Socket options that neither rustix nor socket2 wraps.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// IP_BIND_ADDRESS_NO_PORT (ip(7)): bind chooses the address only; connect then chooses the port, which needs to be
/// unique only together with the backend's address.
pub(super) fn set_bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// IP_TRANSPARENT (ip(7)), of IPv6 IPV6_TRANSPARENT: the socket may be bound to an address of another machine. Needs
/// CAP_NET_ADMIN or CAP_NET_RAW.
pub(super) fn set_transparent(socket: impl AsFd, is_ipv4: bool) -> io::Result<()> {
    let (level, name) = match is_ipv4 {
        true => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        false => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    };
    set(socket, level, name, 1)
}

/// NETLINK_GET_STRICT_CHK (netlink(7)): what a request for a list says is wanted is all that comes.
pub(super) fn set_strict_route_dump(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1)
}

/// SO_RCVLOWAT (socket(7)): the socket counts as readable, and wakes, only with this many bytes.
pub(super) fn set_receive_low_watermark(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, c_int::try_from(bytes).unwrap_or(c_int::MAX))
}

/// How many bytes the socket's send buffer takes now, about: what its limit leaves beside what it holds (SO_MEMINFO,
/// Linux 4.12). The kernel counts its own structures, some hundredths of the bytes.
pub(super) fn send_room(socket: impl AsFd) -> io::Result<usize> {
    // Some of enum sk_meminfo_vars in linux/sock_diag.h: of TCP sockets, and of unix sockets.
    const SNDBUF: usize = 3;
    const WMEM_ALLOC: usize = 2;
    const WMEM_QUEUED: usize = 5;
    let mut info = [0_u32; 9];
    get_memory_info(socket, &mut info)?;
    Ok(info[SNDBUF].saturating_sub(info[WMEM_QUEUED].max(info[WMEM_ALLOC])) as usize)
}

#[allow(unsafe_code, reason = "SO_MEMINFO has no safe wrapper")]
fn get_memory_info(socket: impl AsFd, info: &mut [u32; 9]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(size_of_val(info)).expect("a few bytes");
    let to: *mut c_void = std::ptr::from_mut(info).cast();
    // SAFETY: `socket` is borrowed for the length of the call, so its descriptor is open; `to` points to `length`
    // writable bytes, of which the kernel fills at most that many, and any bytes are a valid u32; `length` is a
    // local, which the kernel sets to their number.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, to, &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
