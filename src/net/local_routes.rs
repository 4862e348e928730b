//! Whether the kernel has been told to keep packets that are addressed to others, which [`Source::Foreign`] needs for
//! the answers: a route of type `local` outside its own table of local addresses (ip-route(8), rtnetlink(7)).
//!
//! [`Source::Foreign`]: super::Source::Foreign

use std::io;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::socket_option::set_strict_route_dump;

// linux/netlink.h and linux/rtnetlink.h.
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTN_LOCAL: u8 = 2;
const RT_TABLE_LOCAL: u8 = 255;

/// nlmsghdr: length, type, flags, sequence, port.
const HEADER_BYTES: usize = 16;
/// rtmsg begins with it; its table and type are at these places.
const FAMILY: usize = HEADER_BYTES;
const TABLE: usize = HEADER_BYTES + 4;
const TYPE: usize = HEADER_BYTES + 7;
const ROUTE_BYTES: usize = 12;
/// The kernel fills no more at once (netlink(7) recommends 8 KiB; dumps use up to 32).
const PART_BYTES: usize = 32 * 1024;
/// A machine has a local route for each of its addresses. Of more, nobody reads all.
const MOST_PARTS: usize = 1_000;

/// Of the family. Other machines' routes are not read where the kernel can leave them out (from 4.20 on).
///
/// # Errors
/// It can't be found out: the process may not ask, say.
pub fn has_local_route(is_ipv4: bool) -> io::Result<bool> {
    let family = if is_ipv4 { AddressFamily::INET } else { AddressFamily::INET6 };
    // Without a protocol it is NETLINK_ROUTE.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let _ = set_strict_route_dump(&socket);
    let mut request = [0; HEADER_BYTES + ROUTE_BYTES];
    request[..4].copy_from_slice(&u32::try_from(HEADER_BYTES + ROUTE_BYTES).expect("a few bytes").to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request[FAMILY] = u8::try_from(family.as_raw()).expect("INET or INET6");
    request[TYPE] = RTN_LOCAL;
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut part = vec![0; PART_BYTES];
    for _ in 0..MOST_PARTS {
        let (_, length) = rustix::net::recv(&socket, &mut part[..], RecvFlags::empty())?;
        match look(&part[..length])? {
            Look::Found => return Ok(true),
            Look::Over => return Ok(false),
            Look::Further => {}
        }
    }
    Err(Errno::MSGSIZE.into())
}

enum Look {
    Found,
    Over,
    Further,
}

fn look(mut part: &[u8]) -> io::Result<Look> {
    while let Some((&[a, b, c, d, kind, kind2], _)) = part.split_first_chunk() {
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let Some(message) = part.get(..length).filter(|message| message.len() >= HEADER_BYTES) else { break };
        match u16::from_ne_bytes([kind, kind2]) {
            NLMSG_DONE => return Ok(Look::Over),
            NLMSG_ERROR => return Err(io::Error::other("the kernel doesn't list its routes")),
            RTM_NEWROUTE if is_wanted(message) => return Ok(Look::Found),
            _ => {}
        }
        // Messages begin at multiples of four bytes.
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Look::Further)
}

fn is_wanted(route: &[u8]) -> bool {
    route.get(TYPE) == Some(&RTN_LOCAL) && route.get(TABLE).is_some_and(|table| *table != RT_TABLE_LOCAL)
}
