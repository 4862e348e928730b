//! What a move leaves: a buffer for each of the few receivers that are slow, and a credit for large ones.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Context;

use crate::net::Transport;

use super::step::{Move, sent};

/// A buffer of this size is no loan: enough to keep a slow receiver busy.
pub(super) const SMALL_BYTES: usize = 16 * 1024;
/// All loans of one worker.
const CREDIT_BYTES: usize = 1024 * 1024;

/// How much one worker may hold for its slow receivers beside a small buffer for each. Receives are fitted to the room
/// that the kernel reports, so it is drawn on where the kernel then takes less: when its memory for sockets runs short.
#[derive(Debug, Default)]
pub struct Credit {
    drawn: Cell<usize>,
}

impl Credit {
    /// Whether receives must be small.
    pub(super) fn is_used_up(&self) -> bool {
        self.drawn.get() >= CREDIT_BYTES
    }
}

/// What a receive and the send after it did.
pub(super) struct Moved {
    /// Bytes that the sender gave.
    pub(super) received: usize,
    /// Bytes that the receiver took; `None`: nothing was to be sent.
    pub(super) sent: Option<usize>,
    /// What it did not take.
    pub(super) unsent: Option<Unsent>,
}

/// Bytes that the receiver has not taken yet.
#[derive(Debug)]
pub(super) struct Unsent {
    bytes: Box<[u8]>,
    /// How many of them it has taken since.
    taken: usize,
    credit: Rc<Credit>,
}

impl Unsent {
    /// `None`: there are no bytes.
    pub(super) fn new(bytes: Box<[u8]>, credit: &Rc<Credit>) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        credit.drawn.set(credit.drawn.get() + loan(&bytes));
        Some(Self { bytes, taken: 0, credit: credit.clone() })
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

impl Drop for Unsent {
    fn drop(&mut self) {
        self.credit.drawn.set(self.credit.drawn.get() - loan(&self.bytes));
    }
}

fn loan(bytes: &[u8]) -> usize {
    bytes.len().saturating_sub(SMALL_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_beyond_a_small_buffer_each_draws_on_the_credit_until_it_is_gone() {
        let credit = Rc::new(Credit::default());
        let hold = |bytes: usize| Unsent::new(vec![0; bytes].into(), &credit);
        let small: Vec<_> = (0..1_000).map(|_| hold(SMALL_BYTES)).collect();
        assert!(!credit.is_used_up() && hold(0).is_none());
        let large = [hold(CREDIT_BYTES / 2 + SMALL_BYTES), hold(CREDIT_BYTES / 2 + SMALL_BYTES)];
        assert!(credit.is_used_up());
        drop(large);
        assert_eq!(credit.drawn.get(), 0);
        drop(small);
    }
}
