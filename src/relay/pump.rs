//! One direction of a relay: receive, send, and remember what a slow receiver has not taken yet.
//!
//! It copies through the worker's scratch buffer while messages are small, and splices through a pipe while they are
//! bulk: one copy less a byte, but two calls that each cost more than a receive or a send.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use crate::net::Stream;

use super::pipes::LentPipe;
use super::{Direction, Method, Shared};

/// A direction gives the others a turn after this many bytes: a quarter of a millisecond or so.
const BYTES_PER_TURN: usize = 1024 * 1024;
/// Full reads in a row that make a direction bulk, as HAProxy's splice-auto has it.
const FULL_READS_TO_SPLICE: u8 = 3;
/// A splice that moves less than this was not worth its calls.
const SMALL_SPLICE_BYTES: usize = 32 * 1024;
/// Small splices in a row that end the splicing.
const SMALL_SPLICES_TO_COPY: u8 = 3;

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
    splicing: bool,
    /// The sender is hushed while the receiver takes nothing: its bytes would only wake the worker in vain.
    is_hushed: bool,
    /// While copying: full reads in a row. While splicing: small splices in a row.
    run: u8,
}

/// What the receiver has not taken yet. Nothing is received until it has.
#[derive(Debug)]
enum State {
    Open,
    /// These bytes, from `start` on.
    Blocked {
        bytes: Box<[u8]>,
        start: usize,
    },
    /// What the pipe holds.
    Piped(LentPipe),
    /// Nothing, and nothing will come.
    Done,
}

/// One move of a pump.
enum Move {
    /// So many bytes were taken by the receiver; go on.
    Sent(usize),
    /// Return this.
    Return(Step),
}

impl Pump {
    pub(super) fn new(direction: Direction, method: Method) -> Self {
        Self { direction, state: State::Open, splicing: method == Method::Splice, is_hushed: false, run: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// It is open, and everything that was received was sent.
    pub(super) fn holds_nothing(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether it waits for the receiver, and receives nothing meanwhile.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.state, State::Blocked { .. } | State::Piped(_))
    }

    /// Moves nothing any more.
    pub(super) fn abandon(&mut self) {
        self.state = State::Done;
    }

    /// Moves what can be moved now. While it answers [`Step::Open`], the task of `cx` is woken when there is more to do.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, from: &Stream, to: &Stream, shared: &Shared<'_>) -> Step {
        let mut turn = 0;
        loop {
            let moved = match &self.state {
                State::Done => return Step::Open,
                State::Blocked { .. } => self.send_rest(cx, to, shared),
                State::Piped(_) => self.empty_pipe(cx, to, shared),
                State::Open if self.splicing => match shared.pipes.lend() {
                    Some(pipe) => self.fill_pipe(cx, from, pipe, shared),
                    None => self.copy(cx, from, to, shared),
                },
                State::Open => self.copy(cx, from, to, shared),
            };
            match moved {
                Move::Return(step) => {
                    self.hush(from, self.is_blocked());
                    return step;
                }
                Move::Sent(bytes) => turn += bytes,
            }
            if !self.is_blocked() {
                self.hush(from, false);
            }
            if turn >= BYTES_PER_TURN && !matches!(self.state, State::Piped(_)) {
                return yield_turn(cx);
            }
        }
    }

    fn hush(&mut self, from: &Stream, hushed: bool) {
        if self.is_hushed != hushed {
            self.is_hushed = hushed;
            from.hush(hushed);
        }
    }

    fn copy(&mut self, cx: &mut Context<'_>, from: &Stream, to: &Stream, shared: &Shared<'_>) -> Move {
        let mut scratch = shared.scratch.0.borrow_mut();
        let received = match from.poll_receive(cx, &mut scratch) {
            Poll::Pending => return Move::Return(Step::Open),
            Poll::Ready(Err(_)) => return Move::Return(Step::ReadFailed),
            Poll::Ready(Ok(0)) => {
                self.state = State::Done;
                return Move::Return(Step::Ended);
            }
            Poll::Ready(Ok(received)) => received,
        };
        self.note_read(received == scratch.len(), shared.method);
        let sent = match to.poll_send(cx, &scratch[..received]) {
            Poll::Pending => 0,
            Poll::Ready(Err(_)) => return Move::Return(Step::WriteFailed),
            Poll::Ready(Ok(sent)) => sent,
        };
        shared.moved(self.direction, sent);
        if sent < received {
            self.state = State::Blocked { bytes: scratch[sent..received].into(), start: 0 };
        }
        Move::Sent(sent)
    }

    fn send_rest(&mut self, cx: &mut Context<'_>, to: &Stream, shared: &Shared<'_>) -> Move {
        let State::Blocked { bytes, start } = &mut self.state else { return Move::Sent(0) };
        match to.poll_send(cx, &bytes[*start..]) {
            Poll::Pending => Move::Return(Step::Open),
            Poll::Ready(Err(_)) => Move::Return(Step::WriteFailed),
            Poll::Ready(Ok(sent)) => {
                *start += sent;
                if *start == bytes.len() {
                    self.state = State::Open;
                }
                shared.moved(self.direction, sent);
                Move::Sent(sent)
            }
        }
    }

    fn fill_pipe(&mut self, cx: &mut Context<'_>, from: &Stream, mut pipe: LentPipe, shared: &Shared<'_>) -> Move {
        match from.poll_splice_in(cx, &mut pipe) {
            Poll::Pending => Move::Return(Step::Open),
            Poll::Ready(Err(_)) => Move::Return(Step::ReadFailed),
            Poll::Ready(Ok(0)) => {
                self.state = State::Done;
                Move::Return(Step::Ended)
            }
            Poll::Ready(Ok(received)) => {
                self.note_splice(received, shared.method);
                self.state = State::Piped(pipe);
                Move::Sent(0)
            }
        }
    }

    fn empty_pipe(&mut self, cx: &mut Context<'_>, to: &Stream, shared: &Shared<'_>) -> Move {
        let State::Piped(pipe) = &mut self.state else { return Move::Sent(0) };
        match to.poll_splice_out(cx, pipe) {
            Poll::Pending => Move::Return(Step::Open),
            Poll::Ready(Err(_)) => Move::Return(Step::WriteFailed),
            Poll::Ready(Ok(sent)) => {
                if pipe.is_empty() {
                    self.state = State::Open;
                }
                shared.moved(self.direction, sent);
                Move::Sent(sent)
            }
        }
    }

    fn note_read(&mut self, is_full: bool, method: Method) {
        self.run = if is_full { self.run + 1 } else { 0 };
        if self.run >= FULL_READS_TO_SPLICE {
            self.run = 0;
            self.splicing = method != Method::Copy;
        }
    }

    fn note_splice(&mut self, bytes: usize, method: Method) {
        self.run = if bytes < SMALL_SPLICE_BYTES { self.run + 1 } else { 0 };
        if self.run >= SMALL_SPLICES_TO_COPY {
            self.run = 0;
            self.splicing = method == Method::Splice;
        }
    }
}

/// Goes to the back of the queue, behind what epoll has to tell: meanwhile the socket fills, and the next move is larger.
fn yield_turn(cx: &mut Context<'_>) -> Step {
    let yielded = pin!(tokio::task::yield_now()).poll(cx);
    debug_assert!(yielded.is_pending(), "its first poll always waits");
    Step::Open
}
