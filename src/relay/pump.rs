//! One direction of a relay: receive, send, and remember what a slow receiver has not taken yet.
//!
//! It follows the framing of what it moves, where there is one, and stops where that ends: an HTTP body is moved like
//! any other bytes, and not one byte beyond it.
//!
//! It copies through the worker's scratch buffer while messages are small, and splices through a pipe while they are
//! bulk: one copy less a byte, but two calls that each cost more than a receive or a send.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use crate::config::RelayMode;
use crate::net::Transport;
use crate::protocol::http1::{Body, ChunkError, Framing, Progress};

use super::pipes::LentPipe;
use super::{Direction, PumpContext};

/// A direction gives the others a turn after this many bytes: a quarter of a millisecond or so.
const BYTES_PER_TURN: usize = 1024 * 1024;
/// Full reads in a row that make a direction bulk, as HAProxy's splice-auto has it.
const FULL_READS_TO_SPLICE: u8 = 3;
/// A splice that moves less than this was not worth its calls.
const SMALL_SPLICE_BYTES: u64 = 32 * 1024;
/// Small splices in a row that end the splicing.
const SMALL_SPLICES_TO_COPY: u8 = 3;

/// How far a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More may come. Also once it is done: the end is told only once.
    Open,
    /// What was to be moved is complete, or the sender has ended, and the receiver has taken every byte. Told once.
    Ended,
    /// The sender breaks the framing; the receiver has got what came before.
    Malformed(ChunkError),
    /// The sender's socket failed.
    ReadFailed,
    /// The receiver's socket failed.
    WriteFailed,
}

/// One direction of a relay.
#[derive(Debug)]
pub struct Pump {
    direction: Direction,
    state: PumpState,
    /// What is still to be moved.
    body: Body,
    /// Chunks are taken apart, and only their data is sent.
    strips_chunks: bool,
    /// What was received beyond the body's end.
    overrun: Vec<u8>,
    splicing: bool,
    /// The sender is hushed while the receiver takes nothing: its bytes would only wake the worker in vain.
    reads_paused: bool,
    /// While copying: full reads in a row. While splicing: small splices in a row.
    run: u8,
}

/// What the receiver has not taken yet. Nothing is received until it has.
#[derive(Debug)]
enum PumpState {
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
    /// Moves all that comes, to the sender's end.
    pub(super) fn new(direction: Direction, method: RelayMode) -> Self {
        Self::framed(direction, method, Body::new(Framing::UntilClose))
    }

    /// Moves one body.
    pub fn framed(direction: Direction, method: RelayMode, body: Body) -> Self {
        let state = PumpState::Open;
        let splicing = method == RelayMode::Splice;
        Self {
            direction,
            state,
            body,
            strips_chunks: false,
            overrun: Vec::new(),
            splicing,
            reads_paused: false,
            run: 0,
        }
    }

    /// Sends `bytes` first, which don't count towards the body.
    pub fn after(mut self, bytes: &[u8]) -> Self {
        if !bytes.is_empty() {
            self.state = PumpState::Blocked { bytes: bytes.into(), start: 0 };
        }
        self
    }

    /// Sends only the data of a chunked body, for a receiver that knows no chunks.
    pub fn stripping_chunks(mut self) -> Self {
        self.strips_chunks = true;
        self
    }

    /// It has told its end, or was abandoned.
    pub fn is_done(&self) -> bool {
        matches!(self.state, PumpState::Done)
    }

    /// It is open, and everything that was received was sent.
    pub(super) fn holds_nothing(&self) -> bool {
        matches!(self.state, PumpState::Open)
    }

    /// Once it has ended: whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.body.is_whole_at_close()
    }

    /// Whether it waits for the receiver, rather than for the sender.
    pub fn is_blocked(&self) -> bool {
        matches!(self.state, PumpState::Blocked { .. } | PumpState::Piped(_))
    }

    /// Whether anything was received beyond the body's end.
    pub fn has_overrun(&self) -> bool {
        !self.overrun.is_empty()
    }

    /// What was received beyond the body's end.
    pub fn into_overrun(self) -> Vec<u8> {
        self.overrun
    }

    /// Moves nothing any more.
    pub fn abandon(&mut self) {
        self.state = PumpState::Done;
    }

    /// Moves what can be moved now. While it answers [`Step::Open`], the task of `cx` is woken when there is more to do.
    pub fn poll(&mut self, cx: &mut Context<'_>, from: &Transport, to: &Transport, context: &PumpContext<'_>) -> Step {
        let mut turn = 0;
        loop {
            let moved = match &self.state {
                PumpState::Done => return Step::Open,
                PumpState::Blocked { .. } => self.send_rest(cx, to, context),
                PumpState::Piped(_) => self.empty_pipe(cx, to, context),
                PumpState::Open if self.body.is_done() => self.end(),
                PumpState::Open if self.splicing && self.body.data_remaining() >= SMALL_SPLICE_BYTES => {
                    match context.resources.pipes.lend() {
                        Some(pipe) => self.fill_pipe(cx, from, pipe, context),
                        None => self.copy(cx, from, to, context),
                    }
                }
                PumpState::Open => self.copy(cx, from, to, context),
            };
            match moved {
                Move::Return(step) => {
                    self.pause_reads(from, self.is_blocked());
                    return step;
                }
                Move::Sent(bytes) => turn += bytes,
            }
            if !self.is_blocked() {
                self.pause_reads(from, false);
            }
            if turn >= BYTES_PER_TURN && matches!(self.state, PumpState::Open | PumpState::Blocked { .. }) {
                return yield_turn(cx);
            }
        }
    }

    fn pause_reads(&mut self, from: &Transport, paused: bool) {
        if self.reads_paused != paused {
            self.reads_paused = paused;
            from.pause_reads(paused);
        }
    }

    fn end(&mut self) -> Move {
        self.state = PumpState::Done;
        Move::Return(Step::Ended)
    }

    fn copy(&mut self, cx: &mut Context<'_>, from: &Transport, to: &Transport, context: &PumpContext<'_>) -> Move {
        let mut scratch = context.resources.scratch.0.borrow_mut();
        let most = self.most_to_receive(scratch.len());
        let received = match from.poll_receive(cx, &mut scratch[..most]) {
            Poll::Pending => return Move::Return(Step::Open),
            Poll::Ready(Err(_)) => return Move::Return(Step::ReadFailed),
            Poll::Ready(Ok(0)) => return self.end(),
            Poll::Ready(Ok(received)) => received,
        };
        self.note_read(received == scratch.len(), context.resources.method);
        let mut stripped = Vec::new();
        let Progress { consumed, .. } = match self.follow(&scratch[..received], &mut stripped) {
            Ok(progress) => progress,
            Err(error) => return Move::Return(Step::Malformed(error)),
        };
        self.overrun.extend_from_slice(&scratch[consumed..received]);
        let bytes = if self.strips_chunks { &stripped } else { &scratch[..consumed] };
        if bytes.is_empty() {
            return Move::Sent(0);
        }
        let sent = match to.poll_send(cx, bytes) {
            Poll::Pending => 0,
            Poll::Ready(Err(_)) => return Move::Return(Step::WriteFailed),
            Poll::Ready(Ok(sent)) => sent,
        };
        context.moved(self.direction, sent);
        if sent < bytes.len() {
            self.state = PumpState::Blocked { bytes: bytes[sent..].into(), start: 0 };
        }
        Move::Sent(sent)
    }

    /// As much as fits, and where the length is known no byte beyond the body.
    fn most_to_receive(&self, room: usize) -> usize {
        match &self.body {
            Body::Length(remaining) => usize::try_from(*remaining).unwrap_or(usize::MAX).min(room),
            Body::Chunked(_) | Body::UntilClose => room,
        }
    }

    fn follow(&mut self, bytes: &[u8], stripped: &mut Vec<u8>) -> Result<Progress, ChunkError> {
        match &mut self.body {
            Body::Chunked(scanner) if self.strips_chunks => scanner.decode(bytes, stripped),
            body => body.advance(bytes),
        }
    }

    fn send_rest(&mut self, cx: &mut Context<'_>, to: &Transport, context: &PumpContext<'_>) -> Move {
        let PumpState::Blocked { bytes, start } = &mut self.state else { return Move::Sent(0) };
        match to.poll_send(cx, &bytes[*start..]) {
            Poll::Pending => Move::Return(Step::Open),
            Poll::Ready(Err(_)) => Move::Return(Step::WriteFailed),
            Poll::Ready(Ok(sent)) => {
                *start += sent;
                if *start == bytes.len() {
                    self.state = PumpState::Open;
                }
                context.moved(self.direction, sent);
                Move::Sent(sent)
            }
        }
    }

    fn fill_pipe(
        &mut self,
        cx: &mut Context<'_>,
        from: &Transport,
        mut pipe: LentPipe,
        context: &PumpContext<'_>,
    ) -> Move {
        match from.poll_splice_in(cx, &mut pipe, self.body.data_remaining()) {
            Poll::Pending => Move::Return(Step::Open),
            Poll::Ready(Err(_)) => Move::Return(Step::ReadFailed),
            Poll::Ready(Ok(0)) => self.end(),
            Poll::Ready(Ok(received)) => {
                self.body.skip_data(received as u64);
                self.note_splice(received, context.resources.method);
                self.state = PumpState::Piped(pipe);
                Move::Sent(0)
            }
        }
    }

    fn empty_pipe(&mut self, cx: &mut Context<'_>, to: &Transport, context: &PumpContext<'_>) -> Move {
        let PumpState::Piped(pipe) = &mut self.state else { return Move::Sent(0) };
        match to.poll_splice_out(cx, pipe) {
            Poll::Pending => Move::Return(Step::Open),
            Poll::Ready(Err(_)) => Move::Return(Step::WriteFailed),
            Poll::Ready(Ok(sent)) => {
                if pipe.is_empty() {
                    self.state = PumpState::Open;
                }
                context.moved(self.direction, sent);
                Move::Sent(sent)
            }
        }
    }

    fn note_read(&mut self, is_full: bool, method: RelayMode) {
        self.run = if is_full { self.run + 1 } else { 0 };
        if self.run >= FULL_READS_TO_SPLICE {
            self.run = 0;
            self.splicing = method != RelayMode::Copy;
        }
    }

    fn note_splice(&mut self, bytes: usize, method: RelayMode) {
        self.run = if (bytes as u64) < SMALL_SPLICE_BYTES { self.run + 1 } else { 0 };
        if self.run >= SMALL_SPLICES_TO_COPY {
            self.run = 0;
            self.splicing = method == RelayMode::Splice;
        }
    }
}

/// Goes to the back of the queue, behind what epoll has to tell: meanwhile the socket fills, and the next move is larger.
fn yield_turn(cx: &mut Context<'_>) -> Step {
    let yielded = pin!(tokio::task::yield_now()).poll(cx);
    debug_assert!(yielded.is_pending(), "its first poll always waits");
    Step::Open
}
