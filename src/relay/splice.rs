//! The splicing mover: from one socket into a pipe, and from the pipe into the other, without a copy to user space.
//!
//! The pipe is lent by the worker, which has few.

use std::task::Context;

use crate::net::Transport;

use super::pipes::LentPipe;
use super::step::{Move, received, sent};

/// Fills the empty `pipe` with up to `most` received bytes; the result is their number.
pub(super) fn fill<E>(cx: &mut Context<'_>, from: &Transport, pipe: &mut LentPipe, most: u64) -> Move<E> {
    received(from.poll_splice_in(cx, pipe, most))
}

/// Sends what `pipe` holds, as much as the receiver takes now; the result is the number of bytes.
pub(super) fn empty<E>(cx: &mut Context<'_>, to: &Transport, pipe: &mut LentPipe) -> Move<E> {
    sent(to.poll_splice_out(cx, pipe))
}
