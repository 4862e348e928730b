//! How a [`Stream`] sends: few bytes with those of other connections, at the end of the worker's turn; many at once.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::net::sockopt;

use super::send_ring::{self, Refused};
use super::socket_option::send_room;
use super::stream::{NoDelay, Stream, reset_on_close};

impl Stream {
    /// Sends as much of `bytes` as the socket takes now, at least one byte. Few bytes are collected, and sent at the
    /// end of the turn.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.before_send();
        ready!(self.poll_taken(cx))?;
        ready!(self.fd.poll_write_ready(cx))?.retain_ready();
        if let Some(turn) = send_ring::collect(cx, &self.fd, bytes) {
            self.collected_in.set(turn);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_send_now(cx, bytes)
    }

    /// Ready when the socket has taken what was collected in earlier turns.
    pub(super) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn = self.collected_in.get();
        if turn == 0 {
            return Poll::Ready(Ok(()));
        }
        // First: while something is refused, nothing is collected.
        match send_ring::take_refused(&self.fd) {
            Some(Refused::Full(rest)) => self.poll_send_rest(cx, rest),
            Some(Refused::Failed(error)) => {
                send_ring::keep_refused(&self.fd, Refused::Failed(error));
                Poll::Ready(Err(error.into()))
            }
            None => {
                if !send_ring::is_turn(turn) {
                    self.collected_in.set(0);
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Why it has failed, if a collected send has told.
    pub(super) fn failed_send(&self) -> Option<io::Error> {
        if self.collected_in.get() == 0 {
            return None;
        }
        send_ring::failure_of(&self.fd).map(Into::into)
    }

    /// What was collected and refused is given up, and the close is a clean one all the same.
    pub(super) fn forgo_refused(&self) {
        if self.collected_in.get() != 0 {
            self.hand_over();
            drop(send_ring::take_refused(&self.fd));
            self.collected_in.set(0);
        }
    }

    fn poll_send_rest(&self, cx: &mut Context<'_>, mut rest: Vec<u8>) -> Poll<io::Result<()>> {
        while !rest.is_empty() {
            match self.poll_send_now(cx, &rest) {
                Poll::Ready(Ok(sent)) => drop(rest.drain(..sent)),
                Poll::Ready(Err(error)) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::CONNRESET);
                    send_ring::keep_refused(&self.fd, Refused::Failed(errno));
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    send_ring::keep_refused(&self.fd, Refused::Full(rest));
                    return Poll::Pending;
                }
            }
        }
        self.collected_in.set(0);
        Poll::Ready(Ok(()))
    }

    /// Ready when the socket has taken all that was sent.
    pub(super) fn poll_all_taken(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hand_over();
        self.poll_taken(cx)
    }

    /// What follows on this socket comes after what was collected.
    pub(super) fn hand_over(&self) {
        let turn = self.collected_in.get();
        if turn != 0 && send_ring::is_turn(turn) {
            send_ring::hand_over();
        }
    }

    fn poll_send_now(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    if sent < bytes.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(sent));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Without a wait: the empty send buffer of a fresh socket takes a few bytes at once.
    pub(super) fn send_first(&self, bytes: &[u8]) -> io::Result<()> {
        self.before_send();
        match rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// How many bytes the send buffer takes now, about; `None`: the kernel doesn't say.
    pub(super) fn send_room(&self) -> Option<usize> {
        send_room(&self.fd).ok()
    }

    pub(super) fn before_send(&self) {
        self.hand_over();
        match self.nodelay.get() {
            NoDelay::Settled => {}
            NoDelay::Wanted => self.nodelay.set(NoDelay::Due),
            NoDelay::Due => {
                self.nodelay.set(NoDelay::Settled);
                // An error means that it has failed already.
                let _ = sockopt::set_tcp_nodelay(&self.fd, true);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.collected_in.get() == 0 {
            return;
        }
        self.hand_over();
        if send_ring::take_refused(&self.fd).is_some() {
            // The peer must not take what it has for everything.
            reset_on_close(&self.fd);
        }
    }
}
