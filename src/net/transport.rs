//! A connection to a client or a backend: what relay, HTTP and preface may do with it, and nothing of what carries it.
//!
//! The only connected-socket type that leaves `net`. Today every transport is a plain socket ([`Stream`]); an encrypted
//! one becomes a second variant here, and its users don't change. It gives no descriptor away: bytes that were received
//! or sent past it would break the order of those that it holds.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use super::splice::Pipe;
use super::stream::{Hangup, Stream};

/// A connection, open in both directions. Dropping it closes it: cleanly, unless [`Transport::reset_on_close`] was
/// called.
///
/// The `poll_` methods take `&self`: a relay reads it in one direction while it writes it in the other. Of each kind of
/// wait, for readable and for writable, only the task that polled last is woken.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Self {
        Self { stream }
    }
}

/// Receiving.
impl Transport {
    /// Receives into `buffer`; 0 is the peer's end of stream.
    pub fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_receive(cx, buffer)
    }

    /// Looks at what was received without taking it. Ready when that is more than `known` bytes; an error of the kind
    /// `UnexpectedEof` says that no more will come. `buffer` must be longer than `known`.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buffer: &mut [u8], known: usize) -> Poll<io::Result<usize>> {
        self.stream.poll_peek(cx, buffer, known)
    }

    /// Takes bytes that were seen by [`Transport::poll_peek`].
    ///
    /// # Errors
    /// The connection failed meanwhile.
    pub fn discard(&self, seen: usize) -> io::Result<()> {
        self.stream.discard(seen)
    }

    /// Fills the empty `pipe` with received bytes, `most` of them at most; 0 is the peer's end of stream.
    pub fn poll_splice_in(&self, cx: &mut Context<'_>, pipe: &mut Pipe, most: u64) -> Poll<io::Result<usize>> {
        pipe.poll_fill(cx, &self.stream, most)
    }

    /// While paused, arriving bytes don't wake the worker, which could do nothing with them; the peer's end and its
    /// reset do.
    pub fn pause_reads(&self, paused: bool) {
        self.stream.pause_reads(paused);
    }
}

/// Sending.
impl Transport {
    /// Sends as much of `bytes` as can be taken now; at least one byte.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_send(cx, bytes)
    }

    /// Sends all of `bytes`, which must be the first of a fresh connection, and few: it has room for them.
    ///
    /// # Errors
    /// The connection failed.
    pub fn send_first(&self, bytes: &[u8]) -> io::Result<()> {
        self.stream.send_first(bytes)
    }

    /// Sends what the `pipe` holds, as much as can be taken now; at least one byte.
    pub fn poll_splice_out(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        pipe.poll_empty(cx, &self.stream)
    }

    /// Tells the peer that no more bytes come (FIN). An error means that the peer is gone, which its reads will show.
    pub fn shutdown_write(&self) {
        self.stream.shutdown_write();
    }

    /// Makes closing send a reset, so that the peer can't take what it has for all there is (RFC 9293, 3.10.4).
    pub fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }
}

/// The state of the connection and of its peer.
impl Transport {
    /// Waits for a sign that the peer ended or vanished; bytes that wait to be received hide it.
    pub fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<Hangup> {
        self.stream.poll_hangup(cx)
    }

    /// Waits until the peer has reset the connection or is gone; notices it also while nothing is received. Safe to
    /// cancel.
    pub fn reset_by_peer(&self) -> impl Future<Output = ()> {
        self.stream.reset_by_peer()
    }

    /// Waits until the peer is surely gone: it has reset, or ended without having sent a byte. Safe to cancel.
    pub fn closed_before_data(&self) -> impl Future<Output = ()> {
        self.stream.closed_before_data()
    }

    /// Whether nothing waits to be received: no byte, no end, no error.
    pub fn is_idle(&self) -> bool {
        self.stream.is_idle()
    }

    /// Has the kernel probe the peer after `idle` without a byte, so that one that vanished is noticed (tcp(7)).
    pub fn keep_alive(&self, idle: Duration) {
        self.stream.keep_alive(idle);
    }

    /// The local address; `None` for a unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_address()
    }
}
