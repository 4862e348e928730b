//! The copying mover: one receive into the worker's scratch buffer, one send from it. A direction owns a buffer only
//! while its receiver is slow.

use std::task::{Context, Poll};

use crate::net::Transport;

use super::framer::Framer;
use super::scratch::Scratch;
use super::step::{Move, Step, received, sent};

/// Bytes that the receiver has not taken yet.
#[derive(Debug)]
pub(super) struct Unsent {
    bytes: Box<[u8]>,
    /// How many of them it has taken since.
    taken: usize,
}

impl Unsent {
    /// A copy of `bytes`; `None`: there are none.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() { None } else { Some(Self { bytes: bytes.into(), taken: 0 }) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// Sends as much as the receiver takes now.
    pub(super) fn send<E>(&mut self, cx: &mut Context<'_>, to: &Transport) -> Move<E> {
        let sent = sent(to.poll_send(cx, &self.bytes[self.taken..]))?;
        self.taken += sent;
        Move::Continue(sent)
    }
}

/// What a copying move did.
pub(super) struct Copied {
    /// The receive filled the scratch buffer.
    pub(super) filled_buffer: bool,
    /// Bytes that the receiver took; `None`: nothing was to be sent.
    pub(super) sent: Option<usize>,
    /// What it did not take.
    pub(super) unsent: Option<Unsent>,
}

/// Receives once, and sends what `framer` lets through, as much as the receiver takes now.
pub(super) fn copy<F: Framer>(
    cx: &mut Context<'_>,
    from: &Transport,
    to: &Transport,
    scratch: &Scratch,
    framer: &mut F,
) -> Move<F::Error, Copied> {
    let mut scratch = scratch.borrow_mut();
    // Bytes beyond the framer's end are another message's: if their place is known, they are left in the socket.
    let most = usize::try_from(framer.receive_limit()).unwrap_or(usize::MAX).min(scratch.len());
    let received = received(from.poll_receive(cx, &mut scratch[..most]))?;
    let filled_buffer = received == scratch.len();
    let bytes = match framer.advance(&scratch[..received]) {
        Ok(bytes) => bytes,
        Err(error) => return Move::Break(Step::Malformed(error)),
    };
    if bytes.is_empty() {
        return Move::Continue(Copied { filled_buffer, sent: None, unsent: None });
    }
    // Sent at once: most receivers have room. `Pending` registers this task, to be woken when there is room again.
    let sent = match to.poll_send(cx, &bytes) {
        Poll::Pending => 0,
        ready => sent(ready)?,
    };
    // The rest is copied out of the scratch buffer, which the worker's next connection overwrites.
    Move::Continue(Copied { filled_buffer, sent: Some(sent), unsent: Unsent::new(&bytes[sent..]) })
}
