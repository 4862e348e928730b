//! One direction of a relay: receive, send, and remember what a slow receiver has not taken yet.

use std::task::{Context, Poll};

use crate::lifecycle::Seat;
use crate::net::Stream;

use super::{Direction, Meter};

/// A direction gives the others a turn after this many bytes.
const BYTES_PER_TURN: usize = 256 * 1024;

/// How far a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More may come. Also once it is done: the end is told only once.
    Open,
    /// The sender has ended, and the receiver has taken every byte. Told once.
    Ended,
    /// The sender's socket failed.
    ReadFailed,
    /// The receiver's socket failed.
    WriteFailed,
}

#[derive(Debug)]
pub(super) struct Pump {
    direction: Direction,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// The receiver has not taken these bytes yet, from `start` on; nothing is received until it has.
    Blocked {
        bytes: Box<[u8]>,
        start: usize,
    },
    Done,
}

impl Pump {
    pub(super) fn new(direction: Direction) -> Self {
        Self { direction, state: State::Open }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Moves nothing any more.
    pub(super) fn abandon(&mut self) {
        self.state = State::Done;
    }

    /// Moves what can be moved now. While it answers [`Step::Open`], the task of `cx` is woken when there is more to do.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        scratch: &mut [u8],
        meter: &Meter<'_>,
        seat: &Seat,
    ) -> Step {
        let mut moved = 0;
        while moved < BYTES_PER_TURN {
            match &mut self.state {
                State::Done => return Step::Open,
                State::Blocked { bytes, start } => match to.poll_send(cx, &bytes[*start..]) {
                    Poll::Pending => return Step::Open,
                    Poll::Ready(Err(_)) => return Step::WriteFailed,
                    Poll::Ready(Ok(sent)) => {
                        *start += sent;
                        moved += sent;
                        meter.add(self.direction, sent);
                        seat.touch();
                        if *start == bytes.len() {
                            self.state = State::Open;
                        }
                    }
                },
                State::Open => {
                    let received = match from.poll_receive(cx, scratch) {
                        Poll::Pending => return Step::Open,
                        Poll::Ready(Err(_)) => return Step::ReadFailed,
                        Poll::Ready(Ok(0)) => {
                            self.state = State::Done;
                            return Step::Ended;
                        }
                        Poll::Ready(Ok(received)) => received,
                    };
                    seat.touch();
                    let sent = match to.poll_send(cx, &scratch[..received]) {
                        Poll::Pending => 0,
                        Poll::Ready(Err(_)) => return Step::WriteFailed,
                        Poll::Ready(Ok(sent)) => sent,
                    };
                    moved += sent;
                    if sent > 0 {
                        meter.add(self.direction, sent);
                    }
                    if sent < received {
                        self.state = State::Blocked { bytes: scratch[sent..received].into(), start: 0 };
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Step::Open
    }
}
