//! One direction of a relay: chooses a mover for the bytes that come, and receives no more while the receiver is slow.
//!
//! Its framer says where it stops: not a byte beyond that is sent. It knows no protocol, and not what an end means for
//! the connection.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::task::Context;

use crate::config::RelayMode;
use crate::net::Transport;

use super::byte_meter::Direction;
use super::copy::copy;
use super::framer::{Framer, Unframed};
use super::mover_choice::{MoverChoice, SMALL_SPLICE_BYTES};
use super::pump_context::PumpContext;
use super::relay_resources::RelayResources;
use super::room::Room;
use super::scratch::SCRATCH_BYTES;
use super::splice::splice;
use super::step::{Move, Step, taken};
use super::unsent::{Moved, Unsent};

/// A direction gives the worker's other tasks a turn after this many bytes, about a quarter of a millisecond.
const BYTES_PER_TURN: usize = 1024 * 1024;

/// One direction of a relay.
#[derive(Debug)]
pub struct Pump<F = Unframed> {
    direction: Direction,
    framer: F,
    state: State,
    mover: MoverChoice,
    room: Room,
    /// While the receiver takes nothing, each segment from the sender would wake the task for nothing.
    reads_paused: bool,
}

/// What the receiver has not taken yet. Until it has, nothing more is received: TCP's flow control slows the sender.
#[derive(Debug)]
enum State {
    /// Nothing: all that was received was sent.
    Open,
    /// These bytes: few, as no more is received than the receiver's room.
    Unsent(Unsent),
    /// What its transport still holds.
    Held,
    /// The same, and nothing more will be received: the direction has ended.
    Ending,
    /// Nothing, and nothing more will be moved.
    Done,
}

impl<F: Framer> Pump<F> {
    /// Moves what `framer` passes on, until its end or the sender's.
    pub fn new(direction: Direction, mode: RelayMode, framer: F) -> Self {
        let (mover, room) = (MoverChoice::new(mode), Room::fresh());
        Self { direction, framer, state: State::Open, mover, room, reads_paused: false }
    }

    /// Sends `bytes` first, which the framer doesn't see.
    pub fn after(mut self, bytes: &[u8], resources: &RelayResources) -> Self {
        if let Some(unsent) = Unsent::new(bytes.into(), &resources.credit) {
            self.state = State::Unsent(unsent);
        }
        self
    }

    pub fn framer(&self) -> &F {
        &self.framer
    }

    pub fn into_framer(self) -> F {
        self.framer
    }

    /// It has reported its end, or was abandoned.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// It is open, and everything that was received was sent.
    pub(super) fn holds_nothing(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether it waits for the receiver, rather than for the sender.
    pub fn is_blocked(&self) -> bool {
        matches!(self.state, State::Unsent(_) | State::Held | State::Ending)
    }

    /// Moves nothing any more.
    pub fn abandon(&mut self) {
        self.state = State::Done;
    }

    /// Moves what can be moved now. With [`Step::Open`], the task of `cx` will be woken when more can be.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Transport,
        to: &Transport,
        context: &PumpContext<'_>,
    ) -> Step<F::Error> {
        let mut moved_in_turn = 0;
        loop {
            let moved = match self.state {
                State::Done => return Step::Open,
                State::Unsent(_) => self.send_rest(cx, to, context),
                State::Open | State::Held => self.receive(cx, from, to, context),
                State::Ending => end(cx, to),
            };
            match moved {
                ControlFlow::Continue(sent) => moved_in_turn += sent,
                ControlFlow::Break(Step::Ended) if !matches!(self.state, State::Ending) => self.state = State::Ending,
                ControlFlow::Break(step) => {
                    if matches!(step, Step::Ended) {
                        self.state = State::Done;
                    }
                    // The task waits from here on. If it waits for the receiver, the sender must not wake it.
                    self.pause_reads(from, self.is_blocked());
                    return step;
                }
            }
            // Resumed before the next receive: that may find nothing, and then the wait is for a single byte already.
            if !self.is_blocked() {
                self.pause_reads(from, false);
            }
            if moved_in_turn >= BYTES_PER_TURN {
                return yield_turn(cx);
            }
        }
    }

    /// A system call, so made only for a change.
    fn pause_reads(&mut self, from: &Transport, paused: bool) {
        if self.reads_paused != paused {
            self.reads_paused = paused;
            from.pause_reads(paused);
        }
    }

    /// Receives and sends once, by the mover that is chosen now.
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        from: &Transport,
        to: &Transport,
        context: &PumpContext<'_>,
    ) -> Move<F::Error> {
        self.state = State::Held;
        taken(to.poll_taken(cx))?;
        self.state = State::Open;
        if self.framer.is_complete() {
            return Move::Break(Step::Ended);
        }
        let moved = match self.splice(cx, from, to, context)? {
            Some(moved) => moved,
            // Also where a splice moved nothing: an end is believed, and waited for, by a receive alone.
            None => self.copy(cx, from, to, context)?,
        };
        if let Some(sent) = moved.sent {
            self.room.note_sent(sent, moved.unsent.is_some());
            context.moved(self.direction, sent);
        }
        if let Some(unsent) = moved.unsent {
            self.state = State::Unsent(unsent);
        }
        Move::Continue(moved.sent.unwrap_or(0))
    }

    /// `None`: this move is not to be a splice, or it moved nothing.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &Transport,
        to: &Transport,
        context: &PumpContext<'_>,
    ) -> Move<F::Error, Option<Moved>> {
        // Only bytes that the framer need not see can be spliced, and few of them are not worth it.
        let mode = mode(from, to, context);
        if !self.mover.next_splices()
            || mode == RelayMode::Copy
            || self.framer.data_remaining() < SMALL_SPLICE_BYTES as u64
        {
            return Move::Continue(None);
        }
        let resources = context.resources;
        let room = self.room.limit(to, self.mover.expected_bytes(), &resources.credit);
        let most = room.min(usize::try_from(self.framer.data_remaining()).unwrap_or(usize::MAX));
        let moved = splice(cx, from, to, resources, most)?;
        if let Some(Moved { received, .. }) = moved {
            self.framer.skip_data(received as u64);
            self.mover.note_splice(received, most, mode);
        }
        Move::Continue(moved)
    }

    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &Transport,
        to: &Transport,
        context: &PumpContext<'_>,
    ) -> Move<F::Error, Moved> {
        let resources = context.resources;
        let room = self.room.limit(to, self.mover.expected_bytes(), &resources.credit).min(SCRATCH_BYTES);
        // Bytes beyond the framer's end are another message's: if their place is known, they are left in the socket.
        let most = usize::try_from(self.framer.receive_limit()).unwrap_or(usize::MAX).min(room);
        let moved = copy(cx, from, to, resources, most, &mut self.framer)?;
        self.mover.note_receive(moved.received, mode(from, to, context));
        Move::Continue(moved)
    }

    /// Sends what the receiver has not taken yet; once it has all of it, the pump is open again.
    fn send_rest(&mut self, cx: &mut Context<'_>, to: &Transport, context: &PumpContext<'_>) -> Move<F::Error> {
        let State::Unsent(unsent) = &mut self.state else { return Move::Continue(0) };
        let sent = unsent.send(cx, to)?;
        if unsent.is_empty() {
            // Drops the buffer.
            self.state = State::Open;
        }
        context.moved(self.direction, sent);
        Move::Continue(sent)
    }
}

/// The direction has ended once the receiver has taken the last byte.
fn end<E>(cx: &mut Context<'_>, to: &Transport) -> Move<E> {
    taken(to.poll_all_taken(cx))?;
    Move::Break(Step::Ended)
}

/// TLS leaves only copying.
fn mode(from: &Transport, to: &Transport, context: &PumpContext<'_>) -> RelayMode {
    if from.can_splice() && to.can_splice() { context.resources.mode } else { RelayMode::Copy }
}

/// Wakes the task after all others that are ready, and after new events: meanwhile the socket fills, and the next move
/// is larger.
fn yield_turn<E>(cx: &mut Context<'_>) -> Step<E> {
    let yielded = pin!(tokio::task::yield_now()).poll(cx);
    debug_assert!(yielded.is_pending(), "its first poll always waits");
    Step::Open
}
