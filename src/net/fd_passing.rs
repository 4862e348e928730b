//! Passes listening sockets to another process: SCM_RIGHTS over a unix socket (unix(7)), each message for one address.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Sockets in one message; the kernel takes 253 at most (SCM_MAX_FD).
const MOST_SOCKETS: usize = 128;
/// An address as text, of which a unix socket's path has 108 bytes at most, or another name.
const MOST_ADDRESS_BYTES: usize = 512;
/// The last message. It is not empty: that would look like a closed socket.
const END: &[u8] = b"\n";

/// Sockets that listen on one address, received from another process.
#[derive(Debug)]
pub struct PassedSockets {
    /// The name under which they were sent: for a listener's, the address as the configuration writes it.
    pub address: String,
    /// At least one.
    pub sockets: Vec<OwnedFd>,
}

/// Sends all sockets with their addresses. `to` must be a seqpacket socket, which keeps messages apart. Blocks while
/// the receiver doesn't receive.
///
/// # Errors
/// The receiver is gone, or hasn't received them all by the `deadline`.
pub fn send_sockets<'a>(
    to: impl AsFd,
    all: impl Iterator<Item = (&'a str, &'a [OwnedFd])>,
    deadline: Instant,
) -> io::Result<()> {
    for (address, sockets) in all {
        for some in sockets.chunks(MOST_SOCKETS) {
            let borrowed: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            // No time at all would mean that there is no limit (socket(7), SO_SNDTIMEO).
            set_socket_timeout(&to, Timeout::Send, Some(left.max(Duration::from_millis(1))))?;
            send(&to, address.as_bytes(), &borrowed)?;
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

/// Receives what [`send_sockets`] sends.
///
/// # Errors
/// The sender is gone before it has sent them all, or this process has too few descriptors for them. It must not start
/// with fewer than were sent: connections in the queues of the missing ones would be lost.
pub fn receive_sockets(from: impl AsFd) -> io::Result<Vec<PassedSockets>> {
    let mut all: Vec<PassedSockets> = Vec::new();
    loop {
        let mut text = [0; MOST_ADDRESS_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&from, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        // The kernel leaves out descriptors beyond the limit of open files, and sets MSG_CTRUNC (unix(7), recvmsg(2)).
        // Those that came are closed when `ancillary` is dropped.
        if received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC) {
            return Err(io::Error::other("some of the sockets could not be received: too few open files are allowed"));
        }
        let address = match &text[..received.bytes] {
            [] => return Err(io::ErrorKind::UnexpectedEof.into()),
            END => return Ok(all),
            address => String::from_utf8_lossy(address).into_owned(),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                match all.iter_mut().find(|known| known.address == address) {
                    Some(known) => known.sockets.extend(sockets),
                    None => all.push(PassedSockets { address: address.clone(), sockets: sockets.collect() }),
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

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair")
    }

    fn listening(sockets: usize) -> Vec<OwnedFd> {
        (0..sockets).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port").into()).collect()
    }

    #[test]
    fn sockets_arrive_under_their_names() {
        let (ours, theirs) = pair();
        let (many, one) = (listening(200), listening(1));
        send_sockets(
            &ours,
            [("many", &many[..]), ("one", &one[..])].into_iter(),
            Instant::now() + Duration::from_secs(20),
        )
        .expect("it fits");
        let all = receive_sockets(&theirs).expect("all were sent");
        let counts: Vec<_> = all.iter().map(|passed| (passed.address.as_str(), passed.sockets.len())).collect();
        assert_eq!(counts, [("many", 200), ("one", 1)]);
        drop(ours);
        assert!(receive_sockets(&theirs).is_err());
    }

    /// Too few open files have the same effect as a message that is too large, but would hit other tests too.
    #[test]
    fn fewer_sockets_than_were_sent_are_an_error() {
        const TOO_MANY: usize = MOST_SOCKETS + MOST_SOCKETS / 2;
        let (ours, theirs) = pair();
        let sockets = listening(TOO_MANY);
        let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOO_MANY))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)));
        sendmsg(&ours, &[IoSlice::new(b"address")], &mut ancillary, SendFlags::NOSIGNAL).expect("it fits");
        send(&ours, END, &[]).expect("it fits");
        let error = receive_sockets(&theirs).expect_err("not all had room");
        assert_eq!(error.kind(), io::ErrorKind::Other);
    }
}
