//! The splicing mover: from one socket into the worker's pipe, and from the pipe into the other, without a copy to user
//! space. It empties the pipe within the move: what the receiver doesn't take is read out of it.

use std::cell::RefMut;
use std::io;
use std::task::{Context, Poll};

use crate::net::{Pipe, Transport, is_splice_refused};

use super::relay_resources::RelayResources;
use super::step::{Move, Step};
use super::unsent::{Moved, Unsent};

/// Splices up to `most` bytes once. `None`: that moved nothing, and only a receive tells why: splice(2) gives EAGAIN,
/// and at the sender's end 0, also where bytes are waiting that it can't take.
pub(super) fn splice<E>(
    cx: &mut Context<'_>,
    from: &Transport,
    to: &Transport,
    resources: &RelayResources,
    most: usize,
) -> Move<E, Option<Moved>> {
    let worker_pipe = &resources.pipe;
    let Some(mut pipe) = worker_pipe.borrow() else { return Move::Continue(None) };
    let received = match from.poll_splice_in(cx, &mut pipe, most) {
        Poll::Pending => return Move::Break(Step::Open),
        Poll::Ready(Ok(0)) => return Move::Continue(None),
        Poll::Ready(Ok(received)) => received,
        Poll::Ready(Err(error)) if is_splice_refused(&error) => {
            drop(pipe);
            worker_pipe.give_up(&error);
            return Move::Continue(None);
        }
        Poll::Ready(Err(_)) => return Move::Break(Step::ReadFailed),
    };
    let emptied = empty(cx, to, &mut pipe);
    worker_pipe.give_back(pipe, received);
    match emptied {
        Ok(rest) => Move::Continue(Some(Moved {
            received,
            sent: Some(received - rest.len()),
            unsent: Unsent::new(rest, &resources.credit),
        })),
        Err(_) => Move::Break(Step::WriteFailed),
    }
}

/// Sends what the receiver takes now, and takes out the rest. With the error, the pipe may still hold bytes.
fn empty(cx: &mut Context<'_>, to: &Transport, pipe: &mut RefMut<'_, Pipe>) -> io::Result<Box<[u8]>> {
    while !pipe.is_empty() {
        match to.poll_splice_out(cx, pipe) {
            Poll::Pending => break,
            Poll::Ready(Ok(_)) => {}
            // As an ordinary send may work.
            Poll::Ready(Err(error)) if is_splice_refused(&error) => break,
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
    pipe.take_rest()
}
