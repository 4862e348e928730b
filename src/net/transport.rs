//! A connection to a client or a backend: the operations that relay, HTTP and preface need, whatever carries the bytes.
//!
//! The only connected-socket type that leaves `net`: a plain socket ([`Stream`]), and from [`Transport::start_tls`] on
//! one that speaks TLS ([`TlsLayer`]), which its users don't notice. It gives no descriptor away: bytes received or
//! sent past it would be out of order with those that TLS has in hand.

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustls::CommonState;
use tokio::task::unconstrained;

use crate::tls::Session;

use super::handshake::{self, HandshakeError, Look};
use super::splice::Pipe;
use super::stream::{Hangup, Stream};
use super::tls_layer::TlsLayer;

/// A connection, open in both directions. Dropping it closes it: cleanly, unless [`Transport::reset_on_close`] was
/// called.
///
/// The `poll_` methods take `&self`, as one direction of a relay receives from it while the other sends. Of those that
/// wait to receive, and of those that wait to send, only the task that polled last is woken.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
    /// Boxed: plain connections, which most are, would be as large.
    tls: OnceCell<Box<RefCell<TlsLayer>>>,
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Self {
        Self { stream, tls: OnceCell::new() }
    }
}

/// TLS.
impl Transport {
    /// Shakes hands; then all that is received and sent goes through TLS. `look` sees what the peer has sent of its
    /// next message, before that is acted on. Safe to cancel: the connection is good for nothing then.
    ///
    /// # Errors
    /// It did not work. The peer is told why, as far as TLS has a word for it.
    pub async fn start_tls(&self, session: Session, look: &mut Look<'_>) -> Result<(), HandshakeError> {
        let layer = handshake::run(&self.stream, session, look).await?;
        let is_first = self.tls.set(layer).is_ok();
        debug_assert!(is_first, "TLS within TLS");
        Ok(())
    }

    /// What the handshake has agreed on; `None`: it is plain.
    pub fn with_tls<T>(&self, look: impl FnOnce(&CommonState) -> T) -> Option<T> {
        self.tls.get().map(|tls| look(tls.borrow().session().state()))
    }
}

/// Receiving.
impl Transport {
    /// Receives into `buffer`; 0 is the peer's end of stream. With TLS that is what it has said (close_notify): a
    /// connection that ends without is the error `UnexpectedEof`.
    pub fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.tls.get() {
            None => self.stream.poll_receive(cx, buffer),
            Some(tls) => tls.borrow_mut().poll_receive(&self.stream, cx, buffer),
        }
    }

    /// Reads received bytes without taking them. Ready when there are more than `known`; the error `UnexpectedEof`
    /// means that no more will come. `buffer` must be longer than `known`.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buffer: &mut [u8], known: usize) -> Poll<io::Result<usize>> {
        match self.tls.get() {
            None => self.stream.poll_peek(cx, buffer, known),
            Some(tls) => tls.borrow_mut().poll_peek(&self.stream, cx, buffer, known),
        }
    }

    /// Takes, and drops, bytes that [`Transport::poll_peek`] has read.
    ///
    /// # Errors
    /// The connection failed meanwhile.
    pub fn discard(&self, seen: usize) -> io::Result<()> {
        match self.tls.get() {
            None => self.stream.discard(seen),
            Some(tls) => {
                tls.borrow_mut().discard(seen);
                Ok(())
            }
        }
    }

    /// Whether bytes can be spliced from it and to it: TLS has to see them.
    pub fn can_splice(&self) -> bool {
        self.tls.get().is_none()
    }

    /// Fills the empty `pipe` with received bytes, `most` of them at most. 0 says nothing of the peer: there may be
    /// more bytes, none yet, or none ever, and only a receive tells.
    pub fn poll_splice_in(&self, cx: &mut Context<'_>, pipe: &mut Pipe, most: usize) -> Poll<io::Result<usize>> {
        debug_assert!(self.can_splice());
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
    /// Those that were not taken must be the first of the next send: TLS may have encrypted some of them.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.tls.get() {
            None => self.stream.poll_send(cx, bytes),
            Some(tls) => tls.borrow_mut().poll_send(&self.stream, cx, bytes),
        }
    }

    /// Ready when what was sent in earlier turns was taken; until then, no more should be received for this connection.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = self.tls.get() {
            ready!(tls.borrow_mut().poll_flush(&self.stream, cx))?;
        }
        self.stream.poll_taken(cx)
    }

    /// Ready when all that was sent was taken.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_all_taken(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = self.tls.get() {
            ready!(tls.borrow_mut().poll_flush(&self.stream, cx))?;
        }
        self.stream.poll_all_taken(cx)
    }

    /// Sends all of `bytes` at once, before any TLS. They must be few, and the first of a connection, whose send buffer
    /// is empty then.
    ///
    /// # Errors
    /// The connection failed.
    pub fn send_first(&self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(self.tls.get().is_none());
        self.stream.send_first(bytes)
    }

    /// Sends what the `pipe` holds, as much as can be taken now; at least one byte.
    pub fn poll_splice_out(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        debug_assert!(self.can_splice());
        pipe.poll_empty(cx, &self.stream)
    }

    /// How many bytes could be sent now, about; `None`: that is not known.
    pub fn send_room(&self) -> Option<usize> {
        self.stream.send_room()
    }

    /// Reports to the peer that no more bytes come: by FIN, with TLS by close_notify before it. Where the socket can't
    /// take that now, it follows once the task of `cx`, which is woken then, waits for something of this connection.
    pub fn shutdown_write(&self, cx: &mut Context<'_>) {
        match self.tls.get() {
            None => self.stream.shutdown_write(),
            Some(tls) => tls.borrow_mut().shutdown_write(&self.stream, cx),
        }
    }

    /// Ready when it can be dropped without the loss of a byte: with TLS, when the socket has taken the close_notify.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error means that the peer is gone: nobody waits for it.
        match self.tls.get() {
            None => self.stream.poll_all_taken(cx).map(drop),
            Some(tls) => tls.borrow_mut().poll_end(&self.stream, cx).map(drop),
        }
    }

    /// Makes the close a reset, so that the peer can't take what it has received for everything (RFC 9293, 3.10.4).
    pub fn reset_on_close(&self) {
        if let Some(tls) = self.tls.get() {
            tls.borrow_mut().cut();
        }
        self.stream.reset_on_close();
    }
}

/// The state of the connection and of its peer.
impl Transport {
    /// Waits until the peer has ended or is gone, or has sent something.
    pub fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<Hangup> {
        match self.tls.get() {
            None => self.stream.poll_hangup(cx),
            Some(tls) => tls.borrow_mut().poll_hangup(&self.stream, cx),
        }
    }

    /// Waits until the peer has reset the connection or is gone, also while there are bytes to receive. Safe to cancel.
    pub fn reset_by_peer(&self) -> impl Future<Output = ()> {
        self.stream.reset_by_peer()
    }

    /// Waits until the peer has reset, or ended without a byte to receive: where none was received before, it can't
    /// wait for an answer then. One that ended after it had sent some may. Safe to cancel.
    pub async fn closed_before_data(&self) {
        if self.tls.get().is_none() {
            return self.stream.closed_before_data().await;
        }
        if poll_fn(|cx| self.poll_hangup(cx)).await == Hangup::Hidden {
            self.reset_by_peer().await;
        }
    }

    /// Whether the peer has sent something that was not received yet. With TLS that may be no byte for us.
    pub fn has_received(&self) -> bool {
        self.tls.get().is_some_and(|tls| tls.borrow().has_unread()) || self.stream.has_received()
    }

    /// Whether there is nothing to receive: no byte, no end, no error.
    pub fn is_idle(&self) -> bool {
        match self.tls.get() {
            None => self.stream.is_idle(),
            // Records without a byte for us, such as tickets, are taken in.
            Some(_) => {
                // Whatever else the task has done in its turn: "not now" would look idle.
                let hangup = pin!(unconstrained(poll_fn(|cx| self.poll_hangup(cx))));
                hangup.poll(&mut Context::from_waker(Waker::noop())).is_pending()
            }
        }
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

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(tls) = self.tls.get() {
            let mut tls = tls.borrow_mut();
            tls.close(&self.stream);
            if !tls.is_cut() {
                // A peer that lacks the close_notify knows that something is missing. A reset would take from it what
                // is on its way, too.
                self.stream.forgo_refused();
            }
        }
    }
}
