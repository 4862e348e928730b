//! How far one direction of a relay is, as the movers report it. Knows sides, not causes: what an end or a failure
//! means for the connection is up to those that poll a pump.

use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::task::Poll;

/// How far a direction is. `E` is how its bytes can break their framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<E = Infallible> {
    /// More may come. Also once it is done: the end is reported only once.
    Open,
    /// What was to be moved is complete, or the sender has ended, and the receiver has taken every byte. Reported once.
    Ended,
    /// The sender breaks the framing; the receiver has got what came before.
    Malformed(E),
    /// The sender's socket failed.
    ReadFailed,
    /// The receiver's socket failed.
    WriteFailed,
}

/// One move: its result, after which another may follow at once; or the step to report.
pub(super) type Move<E, T = usize> = ControlFlow<Step<E>, T>;

/// What a receive gave: bytes, at least one.
pub(super) fn received<E>(result: Poll<io::Result<usize>>) -> Move<E> {
    match finished(result, Step::ReadFailed)? {
        0 => Move::Break(Step::Ended),
        bytes => Move::Continue(bytes),
    }
}

/// What a send gave: bytes that the receiver took.
pub(super) fn sent<E>(result: Poll<io::Result<usize>>) -> Move<E> {
    finished(result, Step::WriteFailed)
}

fn finished<E>(result: Poll<io::Result<usize>>, failed: Step<E>) -> Move<E> {
    match result.map_err(|_| failed) {
        Poll::Pending => Move::Break(Step::Open),
        Poll::Ready(Err(step)) => Move::Break(step),
        Poll::Ready(Ok(bytes)) => Move::Continue(bytes),
    }
}
