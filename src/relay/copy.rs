//! The copying mover: one receive into the worker's scratch buffer, one send from it. A direction owns a buffer only
//! while its receiver is slow.

use std::task::{Context, Poll};

use crate::net::Transport;

use super::framer::Framer;
use super::relay_resources::RelayResources;
use super::step::{Move, Step, received, sent};
use super::unsent::{Moved, Unsent};

/// Receives up to `most` bytes once, and sends what `framer` lets through, as much as the receiver takes now.
pub(super) fn copy<F: Framer>(
    cx: &mut Context<'_>,
    from: &Transport,
    to: &Transport,
    resources: &RelayResources,
    most: usize,
    framer: &mut F,
) -> Move<F::Error, Moved> {
    let mut scratch = resources.scratch.borrow_mut();
    let received = received(from.poll_receive(cx, &mut scratch[..most]))?;
    let bytes = match framer.advance(&scratch[..received]) {
        Ok(bytes) => bytes,
        Err(error) => return Move::Break(Step::Malformed(error)),
    };
    if bytes.is_empty() {
        return Move::Continue(Moved { received, sent: None, unsent: None });
    }
    // Sent at once: most receivers have room. `Pending` registers this task, to be woken when there is room again.
    let sent = match to.poll_send(cx, &bytes) {
        Poll::Pending => 0,
        ready => sent(ready)?,
    };
    // The rest is copied out of the scratch buffer, which the worker's next connection overwrites.
    Move::Continue(Moved { received, sent: Some(sent), unsent: Unsent::new(bytes[sent..].into(), &resources.credit) })
}
