//! Handing listening sockets to another process: SCM_RIGHTS over a unix socket (unix(7)), one address a message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Sockets in one message; the kernel takes 253 at most (SCM_MAX_FD).
const MOST_SOCKETS: usize = 128;
/// An address as text: a unix socket's path has 108 bytes at most.
const MOST_NAME_BYTES: usize = 512;
/// The last message: an empty one would be an end of file.
const END: &[u8] = b"\n";

/// Sockets that listen on one address, by the address as the configuration writes it.
pub type PassedSockets = (String, Vec<OwnedFd>);

/// Sends them all. `to` must be a seqpacket socket: each message arrives as one.
///
/// # Errors
/// The receiver is gone, or doesn't receive.
pub fn send_sockets<'a>(to: impl AsFd, all: impl Iterator<Item = (&'a str, &'a [OwnedFd])>) -> io::Result<()> {
    for (name, sockets) in all {
        for some in sockets.chunks(MOST_SOCKETS) {
            let borrowed: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
            send(&to, name.as_bytes(), &borrowed)?;
        }
    }
    send(&to, END, &[])
}

fn send(to: impl AsFd, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("more sockets than a message takes"));
    }
    sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives them all.
///
/// # Errors
/// The sender was gone before it had sent them all.
pub fn receive_sockets(from: impl AsFd) -> io::Result<Vec<PassedSockets>> {
    let mut all: Vec<PassedSockets> = Vec::new();
    loop {
        let mut name = [0; MOST_NAME_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&from, &mut [IoSliceMut::new(&mut name)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let name = match &name[..received.bytes] {
            [] => return Err(io::ErrorKind::UnexpectedEof.into()),
            END => return Ok(all),
            name => String::from_utf8_lossy(name).into_owned(),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                match all.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => known.extend(sockets),
                    None => all.push((name.clone(), sockets.collect())),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn sockets_arrive_under_their_names() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
        let listen = |_| OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let (many, one): (Vec<OwnedFd>, Vec<OwnedFd>) = ((0..200).map(listen).collect(), (0..1).map(listen).collect());
        send_sockets(&ours, [("many", &many[..]), ("one", &one[..])].into_iter()).expect("it fits");
        let all = receive_sockets(&theirs).expect("all were sent");
        let counts: Vec<_> = all.iter().map(|(name, sockets)| (name.as_str(), sockets.len())).collect();
        assert_eq!(counts, [("many", 200), ("one", 1)]);
        drop(ours);
        assert!(receive_sockets(&theirs).is_err());
    }
}
