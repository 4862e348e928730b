//! A connection to a client or a backend: the operations that relay, HTTP and preface need, whatever carries the bytes.
//!
//! The only connected-socket type that leaves `net`. Today every transport is a plain socket ([`Stream`]); TLS would be
//! a second variant here, and its users would not change. It gives no descriptor away: bytes received or sent past it
//! would be out of order with those that a TLS transport buffers.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use super::splice::Pipe;
use super::stream::{Hangup, Stream};

/// A connection, open in both directions. Dropping it closes it: cleanly, unless [`Transport::reset_on_close`] was
/// called.
///
/// The `poll_` methods take `&self`, as one direction of a relay receives from it while the other sends. Of those that
/// wait to receive, and of those that wait to send, only the task that polled last is woken.
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

    /// Reads received bytes without taking them. Ready when there are more than `known`; the error `UnexpectedEof`
    /// means that no more will come. `buffer` must be longer than `known`.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buffer: &mut [u8], known: usize) -> Poll<io::Result<usize>> {
        self.stream.poll_peek(cx, buffer, known)
    }

    /// Takes, and drops, bytes that [`Transport::poll_peek`] has read.
    ///
    /// # Errors
    /// The connection failed meanwhile.
    pub fn discard(&self, seen: usize) -> io::Result<()> {
        self.stream.discard(seen)
    }

    /// Fills the empty `pipe` with received bytes, `most` of them at most. 0 says nothing of the peer: there may be
    /// more bytes, none yet, or none ever, and only a receive tells.
    pub fn poll_splice_in(&self, cx: &mut Context<'_>, pipe: &mut Pipe, most: usize) -> Poll<io::Result<usize>> {
        pipe.poll_fill(cx, &self.stream, most)
    }

    /// While paused, arriving bytes wake no task; the peer's end and its reset do.
    pub fn pause_reads(&self, paused: bool) {
        self.stream.pause_reads(paused);
    }
}

/// Sending.
impl Transport {
    /// Sends as much of `bytes` as can be taken now; at least one byte. Few bytes may wait for the end of the worker's
    /// turn; what is done later on this connection comes after them. Before [`Transport::shutdown_write`] and a clean
    /// close, [`Transport::poll_all_taken`] has to be ready: a close makes a reset of what was not taken.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_send(cx, bytes)
    }

    /// Ready when what was sent in earlier turns was taken; until then, no more should be received for this connection.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_taken(cx)
    }

    /// Ready when all that was sent was taken.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_all_taken(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_all_taken(cx)
    }

    /// Sends all of `bytes` at once. They must be few, and the first of a connection, whose send buffer is empty then.
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

    /// How many bytes could be sent now, about; `None`: that is not known.
    pub fn send_room(&self) -> Option<usize> {
        self.stream.send_room()
    }

    /// Reports to the peer that no more bytes come (FIN).
    pub fn shutdown_write(&self) {
        self.stream.shutdown_write();
    }

    /// Makes the close a reset, so that the peer can't take what it has received for everything (RFC 9293, 3.10.4).
    pub fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }
}

/// The state of the connection and of its peer.
impl Transport {
    /// Waits until the peer has ended or is gone, or has sent something.
    pub fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<Hangup> {
        self.stream.poll_hangup(cx)
    }

    /// Waits until the peer has reset the connection or is gone, also while there are bytes to receive. Safe to cancel.
    pub fn reset_by_peer(&self) -> impl Future<Output = ()> {
        self.stream.reset_by_peer()
    }

    /// Waits until the peer has reset, or ended without a byte to receive: where none was received before, it can't
    /// wait for an answer then. One that ended after it had sent some may. Safe to cancel.
    pub fn closed_before_data(&self) -> impl Future<Output = ()> {
        self.stream.closed_before_data()
    }

    /// Whether there is nothing to receive: no byte, no end, no error.
    pub fn is_idle(&self) -> bool {
        self.stream.is_idle()
    }

    /// Nothing is sent for now: the peer, who may be the one to speak first, gets the acknowledgement of its handshake
    /// that the first bytes were to bring ([`Purpose::Data`](super::Purpose::Data)).
    pub fn acknowledge(&self) {
        self.stream.acknowledge();
    }

    /// Makes the kernel probe the peer after `idle` without a byte, to notice one that vanished (tcp(7)).
    pub fn keep_alive(&self, idle: Duration) {
        self.stream.keep_alive(idle);
    }

    /// The local address; `None` for a unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_address()
    }
}
