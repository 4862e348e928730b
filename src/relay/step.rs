//! What a move, or a poll of a pump, gives. Knows the sides of a direction, not causes: what an end or a failure means
//! for the connection is decided by the caller of the pump.

use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::task::Poll;

/// What a poll of a direction gives. `E` is how its bytes can break their framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<E = Infallible> {
    /// More may come. Also after the end, which is reported only once.
    Open,
    /// The framer's end was reached, or the sender has ended, and the receiver has taken every byte.
    Ended,
    /// The sender breaks the framing; the receiver has taken what came before.
    Malformed(E),
    /// The sender's socket failed.
    ReadFailed,
    /// The receiver's socket failed.
    WriteFailed,
}

/// The result of one move, after which another may follow at once; or the step to report instead.
pub(super) type Move<E, T = usize> = ControlFlow<Step<E>, T>;

/// The result of a receive: the number of bytes, at least one.
pub(super) fn received<E>(result: Poll<io::Result<usize>>) -> Move<E> {
    match finished(result, Step::ReadFailed)? {
        0 => Move::Break(Step::Ended),
        bytes => Move::Continue(bytes),
    }
}

/// The result of a wait until the receiver has taken what was sent before.
pub(super) fn taken<E>(result: Poll<io::Result<()>>) -> Move<E, ()> {
    finished(result, Step::WriteFailed)
}

/// The result of a send: the number of bytes that the receiver took.
pub(super) fn sent<E>(result: Poll<io::Result<usize>>) -> Move<E> {
    finished(result, Step::WriteFailed)
}

fn finished<E, T>(result: Poll<io::Result<T>>, failed: Step<E>) -> Move<E, T> {
    let Poll::Ready(result) = result else { return Move::Break(Step::Open) };
    result.map_or(Move::Break(failed), Move::Continue)
}
