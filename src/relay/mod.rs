//! The relay: bytes from one socket to the other, both ways, until both have ended.
//!
//! One task a connection and one poll for both directions. A direction owns a buffer only while its receiver is slow;
//! otherwise the bytes go through a scratch buffer that all connections of a worker share. Knows sockets and counters,
//! not listeners, backends or logs.

mod pump;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::lifecycle::Seat;
use crate::net::Stream;
use crate::telemetry::{ByteCounters, Cause};

use pump::{Pump, Step};

/// Size of the shared buffer: large reads are cheaper a byte, and 64 KiB still fit a core's L2 cache.
const SCRATCH_BYTES: usize = 64 * 1024;

/// The buffer that all connections of one worker share.
#[derive(Debug)]
pub struct Scratch(RefCell<Box<[u8]>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()))
    }
}

/// What one connection moved, readable while it moves.
#[derive(Debug, Default)]
pub struct Tally {
    inward: Cell<u64>,
    outward: Cell<u64>,
    first_outward: Cell<Option<Instant>>,
}

impl Tally {
    /// Bytes that the backend took from the client.
    pub fn bytes_in(&self) -> u64 {
        self.inward.get()
    }

    /// Bytes that the client took from the backend.
    pub fn bytes_out(&self) -> u64 {
        self.outward.get()
    }

    /// When the backend's first byte was passed on.
    pub fn first_byte(&self) -> Option<Instant> {
        self.first_outward.get()
    }
}

/// Where the bytes of one connection are counted.
pub struct Meter<'a> {
    /// The connection's own.
    pub tally: &'a Tally,
    /// Those of its listener, on this worker.
    pub listener: &'a ByteCounters,
    /// Those of its backend, on this worker.
    pub backend: &'a ByteCounters,
    /// Told once, at the backend's first byte.
    pub on_first_byte: &'a dyn Fn(Instant),
}

impl Meter<'_> {
    fn add(&self, direction: Direction, bytes: usize) {
        let (tally, bytes) = (self.tally, bytes as u64);
        match direction {
            Direction::Inward => {
                tally.inward.set(tally.inward.get() + bytes);
                self.listener.add_in(bytes);
                self.backend.add_in(bytes);
            }
            Direction::Outward => {
                if tally.outward.get() == 0 {
                    let now = Instant::now();
                    tally.first_outward.set(Some(now));
                    (self.on_first_byte)(now);
                }
                tally.outward.set(tally.outward.get() + bytes);
                self.listener.add_out(bytes);
                self.backend.add_out(bytes);
            }
        }
    }
}

/// Inward: from the client to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Inward,
    Outward,
}

/// How long a connection may be without a byte.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// While both sides are open; the seat starts with this one.
    pub idle: Duration,
    /// Once one side has ended.
    pub half_closed: Duration,
}

/// Relays until both sides have ended, and says why it is over. A reset is passed on as a reset; so is being cut short,
/// by a limit or by being dropped.
pub async fn run(
    client: &Stream,
    backend: &Stream,
    scratch: &Scratch,
    meter: &Meter<'_>,
    seat: &Seat,
    limits: Limits,
) -> Cause {
    let mut relay = Relay {
        client,
        backend,
        scratch,
        meter,
        seat,
        limits,
        inward: Pump::new(Direction::Inward),
        outward: Pump::new(Direction::Outward),
        first_to_end: None,
        backend_is_gone: false,
        cut_short: true,
    };
    let cause = poll_fn(|cx| relay.poll(cx)).await;
    relay.cut_short = !matches!(cause, Cause::ClientClosed | Cause::BackendClosed);
    cause
}

struct Relay<'a> {
    client: &'a Stream,
    backend: &'a Stream,
    scratch: &'a Scratch,
    meter: &'a Meter<'a>,
    seat: &'a Seat,
    limits: Limits,
    inward: Pump,
    outward: Pump,
    /// The cause, if all goes well from here.
    first_to_end: Option<Cause>,
    /// The backend takes no more, but what it sent before may still be delivered.
    backend_is_gone: bool,
    /// Neither side may take what it has for all there is.
    cut_short: bool,
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        // Outward first: a backend that has reset by now must not be given the client's bytes.
        if let Some(cause) = self.poll_outward(cx).or_else(|| self.poll_inward(cx)) {
            return Poll::Ready(cause);
        }
        match self.first_to_end {
            Some(cause) if self.inward.is_done() && self.outward.is_done() => return Poll::Ready(cause),
            _ => {}
        }
        if self.seat.poll_overdue(cx) {
            let half_closed = self.first_to_end.is_some();
            return Poll::Ready(if half_closed { Cause::HalfClosedTimeout } else { Cause::IdleTimeout });
        }
        Poll::Pending
    }

    fn poll_outward(&mut self, cx: &mut Context<'_>) -> Option<Cause> {
        let mut scratch = self.scratch.0.borrow_mut();
        let step = self.outward.poll(cx, self.backend, self.client, &mut scratch, self.meter, self.seat);
        match step {
            Step::Open => None,
            Step::Ended if self.backend_is_gone => Some(Cause::BackendReset),
            Step::Ended => {
                self.ended(Cause::BackendClosed);
                // Where the other direction has ended too, closing says it: one call less.
                if !self.inward.is_done() {
                    self.client.finish();
                }
                None
            }
            Step::ReadFailed => Some(Cause::BackendReset),
            Step::WriteFailed => Some(Cause::ClientReset),
        }
    }

    fn poll_inward(&mut self, cx: &mut Context<'_>) -> Option<Cause> {
        let mut scratch = self.scratch.0.borrow_mut();
        let step = self.inward.poll(cx, self.client, self.backend, &mut scratch, self.meter, self.seat);
        match step {
            Step::Open => None,
            Step::Ended => {
                self.ended(Cause::ClientClosed);
                if !self.outward.is_done() {
                    self.backend.finish();
                }
                None
            }
            Step::ReadFailed => Some(Cause::ClientReset),
            Step::WriteFailed if self.outward.is_done() => Some(Cause::BackendReset),
            Step::WriteFailed => {
                // Its reset may have overtaken bytes that it sent before: they are still to be read.
                self.backend_is_gone = true;
                self.inward.abandon();
                cx.waker().wake_by_ref();
                None
            }
        }
    }

    fn ended(&mut self, cause: Cause) {
        if self.first_to_end.is_none() {
            self.first_to_end = Some(cause);
            self.seat.set_limit(self.limits.half_closed);
        }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        if self.cut_short {
            self.client.reset_on_close();
            self.backend.reset_on_close();
        }
    }
}
