//! TLS between a socket and those who use its transport: which bytes wait where, until they can go on.
//!
//! While bytes flow, they are in buffers that all connections of the thread use in turn: received records, which are
//! decrypted in place, and those that are to be sent. A connection keeps only what waits: a record that has not come
//! as a whole, plaintext that a receive had no room for, records that the socket didn't take. For an idle one that is
//! nothing. It knows no handshake from other traffic: rustls does.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::task::{Context, Poll, Waker, ready};

use crate::tls::{MAX_OVERHEAD_BYTES, MAX_PLAINTEXT_BYTES, Records, Session};

use super::stream::{Hangup, Stream};

/// What one receive brings in at most: as much as a relay moves at once.
const WIRE_BYTES: usize = 272 * 1024;
/// What one receive asks for at least: a record that is not whole can't be decrypted.
const LEAST_RECEIVE_BYTES: usize = MAX_PLAINTEXT_BYTES + MAX_OVERHEAD_BYTES;
/// What a peer may send before a handshake message is whole. rustls bounds the message by 64 KiB, but not the records,
/// of which each byte could have one of its own.
const MAX_HANDSHAKE_BYTES: usize = 96 * 1024;
/// What one send encrypts at most.
const MAX_RECORDS_AT_ONCE: usize = 16;
const OUTGOING_BYTES: usize = MAX_RECORDS_AT_ONCE * (MAX_PLAINTEXT_BYTES + MAX_OVERHEAD_BYTES);

thread_local! {
    /// Used within one call, by one connection after the other.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        wire: vec![0; WIRE_BYTES].into_boxed_slice(),
        outgoing: Records::with_capacity(OUTGOING_BYTES),
    });
}

struct Scratch {
    wire: Box<[u8]>,
    outgoing: Records,
}

/// What a connection has beside its socket once it speaks TLS.
pub(super) struct TlsLayer {
    session: Session,
    /// The beginning of what can't be decrypted yet: less than a record, or a handshake message in parts.
    incomplete: Vec<u8>,
    /// Plaintext that was received, and not asked for yet.
    unread: Unread,
    unsent: Unsent,
    end: End,
    /// The close is to be no clean end.
    is_cut: bool,
}

/// How far our side has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// That no more comes was written (close_notify), and the socket has not taken it yet.
    Written,
    /// The FIN went after it.
    Over,
}

#[derive(Default)]
struct Unread {
    bytes: Vec<u8>,
    taken: usize,
}

/// Records that the socket has not taken yet.
#[derive(Default)]
struct Unsent {
    records: Vec<u8>,
    taken: usize,
    /// So many of the bytes that the next send is given are in them already.
    plaintext: usize,
}

impl TlsLayer {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            incomplete: Vec::new(),
            unread: Unread::default(),
            unsent: Unsent::default(),
            end: End::Open,
            is_cut: false,
        }
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether plaintext waits to be asked for.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }
}

/// The handshake.
impl TlsLayer {
    /// Waits for bytes from the peer, and leaves them for [`TlsLayer::advance`]. `UnexpectedEof`: no more come.
    pub(super) fn poll_fill(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|Scratch { wire, .. }| {
            let received = ready!(stream.poll_receive(cx, &mut wire[..LEAST_RECEIVE_BYTES]))?;
            if received == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if self.incomplete.len() + received > MAX_HANDSHAKE_BYTES {
                return Poll::Ready(Err(io::Error::other("its handshake messages are too long")));
            }
            self.incomplete.extend_from_slice(&wire[..received]);
            Poll::Ready(Ok(()))
        })
    }

    /// What has come and is not dealt with yet.
    pub(super) fn filled(&self) -> &[u8] {
        &self.incomplete
    }

    /// Goes on with what has come; at the beginning, with nothing. `true`: the handshake is over.
    pub(super) fn advance(&mut self) -> Result<bool, rustls::Error> {
        SCRATCH.with_borrow_mut(|scratch| self.process(scratch, 0, &mut []).1)?;
        Ok(!self.session.state().is_handshaking())
    }
}

/// Receiving.
impl TlsLayer {
    pub(super) fn poll_receive(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.flush_meanwhile(stream, cx);
        loop {
            if !self.unread.is_empty() {
                return Poll::Ready(Ok(self.unread.take(buffer)));
            }
            if self.session.has_peer_ended() {
                return Poll::Ready(Ok(0));
            }
            let received = ready!(self.poll_decrypt(stream, cx, buffer))?;
            if received > 0 {
                return Poll::Ready(Ok(received));
            }
        }
    }

    pub(super) fn poll_peek(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        known: usize,
    ) -> Poll<io::Result<usize>> {
        self.flush_meanwhile(stream, cx);
        while self.unread.len() <= known {
            if self.session.has_peer_ended() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            // All of it becomes unread.
            ready!(self.poll_decrypt(stream, cx, &mut []))?;
        }
        Poll::Ready(Ok(self.unread.copy_to(buffer)))
    }

    /// Drops bytes that were peeked at.
    pub(super) fn discard(&mut self, seen: usize) {
        self.unread.skip(seen);
    }

    /// Looks at what has come, for only rustls can tell the peer's end from other records.
    pub(super) fn poll_hangup(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<Hangup> {
        self.flush_meanwhile(stream, cx);
        loop {
            if !self.unread.is_empty() {
                return Poll::Ready(Hangup::Hidden);
            }
            if self.session.has_peer_ended() {
                return Poll::Ready(Hangup::Ended);
            }
            if ready!(self.poll_decrypt(stream, cx, &mut [])).is_err() {
                return Poll::Ready(Hangup::Gone);
            }
        }
    }

    /// Receives once, and decrypts into `buffer`, which may be full then: the rest becomes unread. 0 bytes: those that
    /// came held no plaintext, or the peer's end.
    fn poll_decrypt(&mut self, stream: &Stream, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let kept = self.incomplete.len();
            let most = buffer.len().max(LEAST_RECEIVE_BYTES).min(scratch.wire.len() - kept);
            let received = ready!(stream.poll_receive(cx, &mut scratch.wire[kept..][..most]))?;
            if received == 0 {
                // The peer has not said that this is the end: it may be anyone's (RFC 8446, 6.1).
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let (filled, result) = self.process(scratch, received, buffer);
            self.flush_meanwhile(stream, cx);
            result.map_err(io::Error::other)?;
            Poll::Ready(Ok(filled))
        })
    }

    /// Takes in what waited and, behind its place in the wire buffer, `received` bytes more.
    fn process(
        &mut self,
        Scratch { wire, outgoing }: &mut Scratch,
        received: usize,
        buffer: &mut [u8],
    ) -> (usize, Result<(), rustls::Error>) {
        let kept = self.incomplete.len();
        wire[..kept].copy_from_slice(&self.incomplete);
        outgoing.clear();
        let (mut filled, unread) = (0, &mut self.unread);
        let mut take = |plaintext: &[u8]| {
            let now = plaintext.len().min(buffer.len() - filled);
            buffer[filled..][..now].copy_from_slice(&plaintext[..now]);
            filled += now;
            unread.add(&plaintext[now..]);
        };
        let all = &mut wire[..kept + received];
        let processed = self.session.process(all, &mut take, outgoing);
        let is_over = self.session.has_peer_ended() || processed.result.is_err();
        replace(&mut self.incomplete, if is_over { &[] } else { &all[processed.consumed..] });
        self.unsent.add(outgoing.bytes());
        (filled, processed.result)
    }
}

/// Sending.
impl TlsLayer {
    /// A send that took less than it was given has to be continued with the same bytes: some of them may be in records
    /// that the socket has not taken yet.
    pub(super) fn poll_send(&mut self, stream: &Stream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(stream, cx))?;
        let encrypted = std::mem::take(&mut self.unsent.plaintext);
        if encrypted > 0 {
            return Poll::Ready(Ok(encrypted.min(bytes.len())));
        }
        SCRATCH.with_borrow_mut(|Scratch { outgoing, .. }| self.poll_encrypt(stream, cx, bytes, outgoing))
    }

    fn poll_encrypt(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        bytes: &[u8],
        outgoing: &mut Records,
    ) -> Poll<io::Result<usize>> {
        outgoing.clear();
        // Where each record ends, and how much plaintext is in all up to there.
        let mut ends = [(0, 0); MAX_RECORDS_AT_ONCE];
        let mut encrypted = 0;
        for (plaintext, end) in bytes.chunks(MAX_PLAINTEXT_BYTES).zip(&mut ends) {
            self.session.encrypt(&mut self.incomplete, plaintext, outgoing)?;
            encrypted += plaintext.len();
            *end = (outgoing.bytes().len(), encrypted);
        }
        let records = outgoing.bytes();
        let taken = match stream.poll_send(cx, records) {
            Poll::Pending => 0,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(taken)) if taken == records.len() => return Poll::Ready(Ok(encrypted)),
            Poll::Ready(Ok(taken)) => taken,
        };
        let sent = ends.iter().filter(|(end, _)| *end <= taken).map(|(_, plaintext)| *plaintext).max().unwrap_or(0);
        self.unsent.add(&records[taken..]);
        self.unsent.plaintext = encrypted - sent;
        if sent > 0 {
            return Poll::Ready(Ok(sent));
        }
        // Registers the task, to be woken when there is room.
        ready!(self.poll_flush(stream, cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.unsent.plaintext)))
    }

    /// Says that no more comes, behind all that was taken.
    pub(super) fn shutdown_write(&mut self, stream: &Stream, cx: &mut Context<'_>) {
        // An error means that the peer is gone, which the next receive reports.
        let _ = self.poll_end(stream, cx);
    }

    /// The same, and ready when the socket has taken it.
    pub(super) fn poll_end(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end == End::Open {
            self.end = End::Written;
            SCRATCH.with_borrow_mut(|Scratch { outgoing, .. }| {
                outgoing.clear();
                self.session.end(&mut self.incomplete, outgoing)?;
                self.unsent.add(outgoing.bytes());
                io::Result::Ok(())
            })?;
        }
        ready!(self.poll_flush(stream, cx))?;
        ready!(stream.poll_all_taken(cx))?;
        if self.end == End::Written {
            self.end = End::Over;
            stream.shutdown_write();
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the socket has taken all that was written.
    pub(super) fn poll_flush(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.records.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.unsent.taken < self.unsent.records.len() {
            self.unsent.taken += ready!(stream.poll_send(cx, &self.unsent.records[self.unsent.taken..]))?;
        }
        self.unsent = Unsent { plaintext: self.unsent.plaintext, ..Unsent::default() };
        Poll::Ready(Ok(()))
    }

    /// Whatever a task waits for, what is left to send goes on as soon as it can.
    fn flush_meanwhile(&mut self, stream: &Stream, cx: &mut Context<'_>) {
        // An error is the next receive's or send's.
        let _ = if self.end == End::Written { self.poll_end(stream, cx) } else { self.poll_flush(stream, cx) };
    }

    /// The close is to be a reset.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The connection is about to be closed: says so as far as that goes without a wait.
    pub(super) fn close(&mut self, stream: &Stream) {
        if !self.is_cut && !self.session.state().is_handshaking() {
            self.shutdown_write(stream, &mut Context::from_waker(Waker::noop()));
        }
    }
}

impl fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLayer").finish_non_exhaustive()
    }
}

impl Unread {
    fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn copy_to(&self, buffer: &mut [u8]) -> usize {
        let length = self.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.bytes[self.taken..][..length]);
        length
    }

    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let length = self.copy_to(buffer);
        self.skip(length);
        length
    }

    fn skip(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

impl Unsent {
    fn add(&mut self, records: &[u8]) {
        self.records.extend_from_slice(records);
    }
}

/// Keeps no memory for nothing.
fn replace(bytes: &mut Vec<u8>, with: &[u8]) {
    if with.is_empty() {
        *bytes = Vec::new();
    } else {
        bytes.clear();
        bytes.extend_from_slice(with);
    }
}
