//! Moves bytes between sockets through a pipe, without copying them to user space: splice(2).
//!
//! EAGAIN of a splice into a pipe can mean that the socket is empty or that the pipe is full. So a pipe is filled only
//! when it is empty, and then emptied wholly. What a fill that gives nothing means is still not known: a splice stops
//! before urgent data, also with the peer's end behind it, and sees no byte of a socket in a BPF sockmap.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

use super::stream::Stream;

/// A pipe, and how many bytes it holds. Closing one that still holds bytes loses them.
#[derive(Debug)]
pub struct Pipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    capacity: usize,
    held: usize,
}

impl Pipe {
    /// Opens a pipe of `capacity` bytes, a power of two of at least one page; where the system refuses as much, of half
    /// as much, and so on down to `least`.
    ///
    /// # Errors
    /// No descriptors left (EMFILE), or the user's pipes have all the pages that pipe(7) allows them (EPERM).
    pub fn new(capacity: usize, least: usize) -> io::Result<Self> {
        let (read_end, write_end) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        let mut wanted = capacity;
        let capacity = loop {
            match fcntl_setpipe_size(&write_end, wanted) {
                Ok(granted) => break granted,
                Err(Errno::PERM) if wanted / 2 >= least => wanted /= 2,
                // It may have been opened with that many.
                Err(Errno::PERM) if fcntl_getpipe_size(&write_end)? >= least => break fcntl_getpipe_size(&write_end)?,
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Self { read_end, write_end, capacity, held: 0 })
    }

    /// How many bytes it takes at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether it can be filled.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes out what it holds.
    ///
    /// # Errors
    /// It doesn't hold what it should.
    pub fn take_rest(&mut self) -> io::Result<Box<[u8]>> {
        let mut rest = vec![0; self.held].into_boxed_slice();
        while self.held > 0 {
            let at = rest.len() - self.held;
            match rustix::io::read(&self.read_end, &mut rest[at..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.held -= read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rest)
    }

    /// Fills the empty pipe with bytes that `from` received, `most` of them at most. 0 means that a receive has to tell
    /// why: readiness is as it was.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Stream, most: usize) -> Poll<io::Result<usize>> {
        assert!(self.is_empty(), "only an empty pipe is filled: else EAGAIN could mean that the pipe is full");
        let most = most.min(self.capacity);
        if !from.has_peeked() {
            ready!(from.fd.poll_read_ready(cx))?.retain_ready();
        }
        loop {
            // Never SPLICE_F_MORE: it would hold back the last bytes of a message for up to 200 ms.
            match splice(&from.fd, None, &self.write_end, None, most, SpliceFlags::NONBLOCK) {
                Ok(received) => {
                    self.held = received;
                    return Poll::Ready(Ok(received));
                }
                Err(Errno::AGAIN) => return Poll::Ready(Ok(0)),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Sends what the pipe holds, as much as `to` takes now; at least one byte.
    pub(super) fn poll_empty(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<usize>> {
        to.before_send();
        // What was collected before it and refused just now goes first.
        ready!(to.poll_taken(cx))?;
        loop {
            let mut guard = ready!(to.fd.poll_write_ready(cx))?;
            match splice(&self.read_end, None, &to.fd, None, self.held, SpliceFlags::NONBLOCK) {
                Ok(sent) => {
                    self.held -= sent;
                    return Poll::Ready(Ok(sent));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

/// Whether splice(2) failed because this kernel doesn't have it for such sockets (ENOSYS, EINVAL), or something like a
/// seccomp filter forbids it (EPERM, EACCES): it moved no byte then, and never will.
pub fn is_splice_refused(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::ACCESS))
}
