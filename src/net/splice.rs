//! Moves bytes between sockets through a pipe, without copying them to user space: splice(2).
//!
//! EAGAIN of a splice into a pipe can mean that the socket is empty or that the pipe is full. So a pipe is filled only
//! when it is empty, and then emptied wholly: each EAGAIN has one meaning.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

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
    /// Opens a pipe of `capacity` bytes, a power of two of at least one page.
    ///
    /// # Errors
    /// No descriptors left (EMFILE), or the user's pipes have all the pages that pipe(7) allows them (EPERM).
    pub fn new(capacity: usize) -> io::Result<Self> {
        let (read_end, write_end) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        let capacity = fcntl_setpipe_size(&write_end, capacity)?;
        Ok(Self { read_end, write_end, capacity, held: 0 })
    }

    /// Whether it can be filled.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Fills the empty pipe with bytes that `from` received, `most` of them at most; 0 is the peer's end of stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Stream, most: u64) -> Poll<io::Result<usize>> {
        assert!(self.is_empty(), "only an empty pipe is filled: else EAGAIN could mean that the pipe is full");
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.capacity);
        loop {
            let mut guard = ready!(from.fd.poll_read_ready(cx))?;
            // Never SPLICE_F_MORE: it would hold back the last bytes of a message for up to 200 ms.
            match splice(&from.fd, None, &self.write_end, None, most, SpliceFlags::NONBLOCK) {
                Ok(received) => {
                    self.held = received;
                    return Poll::Ready(Ok(received));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Sends what the pipe holds, as much as `to` takes now; at least one byte.
    pub(super) fn poll_empty(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<usize>> {
        to.before_send();
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
