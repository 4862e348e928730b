//! The relay: bytes from one socket to the other, both ways, until both have ended.
//!
//! One task a connection and one poll for both directions. A direction owns a buffer only while its receiver is slow;
//! otherwise the bytes go through a scratch buffer that all connections of a worker share. Knows sockets, counters
//! and how bodies are framed, not listeners, backends or logs.

mod meter;
mod pipes;
mod pump;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::config::RelayMode;
use crate::lifecycle::IdleTimer;
use crate::net::Transport;
use crate::telemetry::Cause;

pub use meter::{Direction, Meter, Tally};
pub use pipes::{MAX_PIPES_PER_WORKER, Pipes};
pub use pump::{Pump, Step};

/// Size of the shared buffer. Measured: 64 KiB cost a fifth more on 64 KiB responses, whose last bytes then need a read and
/// a write of their own; 256 KiB still fit beside the rest in a core's L2 cache.
const SCRATCH_BYTES: usize = 256 * 1024;

/// The buffer that all connections of one worker share.
#[derive(Debug)]
pub struct Scratch(RefCell<Box<[u8]>>);

impl Scratch {
    /// Receives into it, and shows `look` the bytes; none are the peer's end of stream.
    pub fn poll_receive<T>(
        &self,
        cx: &mut Context<'_>,
        from: &Transport,
        look: impl FnOnce(&mut Context<'_>, &[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        let mut bytes = self.0.borrow_mut();
        let received = ready!(from.poll_receive(cx, &mut bytes))?;
        Poll::Ready(Ok(look(cx, &bytes[..received])))
    }

    /// Looks at up to `most` received bytes without taking them, once they are more than `known`.
    pub fn poll_peek<T>(
        &self,
        cx: &mut Context<'_>,
        from: &Transport,
        known: usize,
        most: usize,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        let mut bytes = self.0.borrow_mut();
        let seen = ready!(from.poll_peek(cx, &mut bytes[..most], known))?;
        Poll::Ready(Ok(look(&bytes[..seen])))
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()))
    }
}

/// How long a connection may be without a byte.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// While both sides are open.
    pub idle: Duration,
    /// Once one side has ended.
    pub half_closed: Duration,
    /// Idle time before the kernel probes the backend; set only once a connection is idle, which spares the short ones
    /// three calls.
    pub keepalive: Option<Duration>,
}

impl Limits {
    /// What a fresh connection's seat is to start with.
    pub fn first(&self) -> Duration {
        if self.keepalive.is_some() { self.idle.min(SETTLED_AFTER) } else { self.idle }
    }
}

/// A connection without a byte for this long is one that stays.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// What all connections of a worker use in turn.
#[derive(Clone, Debug)]
pub struct RelayResources {
    /// For what is copied.
    pub scratch: Rc<Scratch>,
    /// For what is spliced.
    pub pipes: Rc<Pipes>,
    /// Which of both.
    pub method: RelayMode,
}

/// What both directions of a connection use.
pub struct PumpContext<'a> {
    resources: &'a RelayResources,
    meter: &'a Meter<'a>,
    idle_timer: &'a IdleTimer,
}

impl<'a> PumpContext<'a> {
    /// The worker's tools, and where this connection counts.
    pub fn new(resources: &'a RelayResources, meter: &'a Meter<'a>, idle_timer: &'a IdleTimer) -> Self {
        Self { resources, meter, idle_timer }
    }

    /// Counts bytes that the receiver took.
    pub fn moved(&self, direction: Direction, bytes: usize) {
        self.idle_timer.touch();
        if bytes > 0 {
            self.meter.add(direction, bytes);
        }
    }
}

/// What one side sent before the relay began, and the other has not been given.
#[derive(Debug, Default)]
pub struct Early {
    /// For the backend.
    pub to_backend: Vec<u8>,
    /// For the client.
    pub to_client: Vec<u8>,
}

/// How a relay begins.
#[derive(Debug)]
pub enum Start {
    /// With nothing sent before.
    Fresh {
        /// A backend that ends at once is given up in place of the client.
        may_retry: bool,
    },
    /// With bytes that were received before it.
    After(Early),
}

/// What became of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both sides have ended, or were cut.
    Over(Cause),
    /// The backend ended before a byte went either way. The client's side is as it was.
    Untouched,
}

/// Relays until both sides have ended, and says why it is over. A reset is passed on as a reset; so is being cut short,
/// by a limit or by being dropped.
pub fn run<'a>(
    client: &'a Transport,
    backend: &'a Transport,
    resources: &'a RelayResources,
    meter: &'a Meter<'a>,
    idle_timer: &'a IdleTimer,
    limits: &'a Limits,
    start: Start,
) -> Relay<'a> {
    idle_timer.touch();
    idle_timer.set_limit(limits.first());
    let (may_retry, early) = match start {
        Start::Fresh { may_retry } => (may_retry, Early::default()),
        Start::After(early) => (false, early),
    };
    Relay {
        client,
        backend,
        context: PumpContext::new(resources, meter, idle_timer),
        limits,
        to_backend: Pump::new(Direction::ToBackend, resources.method).after(&early.to_backend),
        to_client: Pump::new(Direction::ToClient, resources.method).after(&early.to_client),
        client_failed: None,
        is_settled: limits.keepalive.is_none(),
        may_retry,
        first_to_end: None,
        backend_is_gone: false,
        cut_short: true,
    }
}

/// A relay under way: a future by hand, since an async function would keep its arguments beside what it made of them, for each idle
/// connection.
pub struct Relay<'a> {
    client: &'a Transport,
    backend: &'a Transport,
    context: PumpContext<'a>,
    limits: &'a Limits,
    to_backend: Pump,
    to_client: Pump,
    /// Waits for the client's reset while nothing is received from it: the backend takes nothing, or the client has ended.
    client_failed: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    /// It was idle once, or need not be known to be.
    is_settled: bool,
    /// A backend that ends at once can be replaced.
    may_retry: bool,
    /// The cause, if all goes well from here.
    first_to_end: Option<Cause>,
    /// The backend takes no more, but what it sent before may still be delivered.
    backend_is_gone: bool,
    /// Neither side may take what it has for all there is.
    cut_short: bool,
}

impl Future for Relay<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = ready!(self.step(cx));
        self.cut_short =
            !matches!(outcome, Outcome::Over(Cause::ClientClosed | Cause::BackendClosed) | Outcome::Untouched);
        Poll::Ready(outcome)
    }
}

impl Relay<'_> {
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        // Outward first: a backend that has reset by now must not be given the client's bytes.
        if let Some(outcome) = self.poll_to_client(cx).or_else(|| self.poll_to_backend(cx).map(Outcome::Over)) {
            return Poll::Ready(outcome);
        }
        match self.first_to_end {
            Some(cause) if self.to_backend.is_done() && self.to_client.is_done() => {
                return Poll::Ready(Outcome::Over(cause));
            }
            _ => {}
        }
        if self.has_client_failed(cx) {
            return Poll::Ready(Outcome::Over(Cause::ClientReset));
        }
        if self.is_expired(cx) {
            let half_closed = self.first_to_end.is_some();
            let cause = if half_closed { Cause::HalfClosedTimeout } else { Cause::IdleTimeout };
            return Poll::Ready(Outcome::Over(cause));
        }
        Poll::Pending
    }

    /// A receive would tell; where the backend's slowness keeps us from one, or the client's end has been received, the
    /// socket's state does.
    fn has_client_failed(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.to_backend.is_blocked() && !self.to_backend.is_done() {
            self.client_failed = None;
            return false;
        }
        let client = self.client;
        self.client_failed.get_or_insert_with(|| Box::pin(client.reset_by_peer())).as_mut().poll(cx).is_ready()
    }

    fn is_expired(&mut self, cx: &Context<'_>) -> bool {
        let idle_timer = self.context.idle_timer;
        if !idle_timer.poll_expired(cx) {
            return false;
        }
        if self.is_settled || self.first_to_end.is_some() {
            return true;
        }
        self.is_settled = true;
        if let Some(idle) = self.limits.keepalive {
            self.backend.keep_alive(idle);
        }
        idle_timer.set_limit(self.limits.idle);
        idle_timer.poll_expired(cx)
    }

    fn poll_to_client(&mut self, cx: &mut Context<'_>) -> Option<Outcome> {
        match self.to_client.poll(cx, self.backend, self.client, &self.context) {
            Step::Open => None,
            Step::Ended | Step::ReadFailed if self.may_retry && self.is_untouched() => Some(Outcome::Untouched),
            Step::Ended if self.backend_is_gone => Some(Outcome::Over(Cause::BackendReset)),
            Step::Ended => {
                self.ended(Cause::BackendClosed);
                // Where the other direction has ended too, closing says it: one call less.
                if !self.to_backend.is_done() {
                    self.client.shutdown_write();
                }
                None
            }
            // Nothing frames a relay's bytes.
            Step::Malformed(_) | Step::ReadFailed => Some(Outcome::Over(Cause::BackendReset)),
            Step::WriteFailed => Some(Outcome::Over(Cause::ClientReset)),
        }
    }

    /// Nothing of the client was taken, not even its end.
    fn is_untouched(&self) -> bool {
        let tally = self.context.meter.tally;
        tally.bytes_in() == 0 && tally.bytes_out() == 0 && self.to_backend.holds_nothing()
    }

    fn poll_to_backend(&mut self, cx: &mut Context<'_>) -> Option<Cause> {
        match self.to_backend.poll(cx, self.client, self.backend, &self.context) {
            Step::Open => None,
            Step::Ended => {
                self.ended(Cause::ClientClosed);
                if !self.to_client.is_done() {
                    self.backend.shutdown_write();
                }
                None
            }
            Step::Malformed(_) | Step::ReadFailed => Some(Cause::ClientReset),
            Step::WriteFailed if self.to_client.is_done() => Some(Cause::BackendReset),
            Step::WriteFailed => {
                // Its reset may have overtaken bytes that it sent before: they are still to be read.
                self.backend_is_gone = true;
                self.to_backend.abandon();
                cx.waker().wake_by_ref();
                None
            }
        }
    }

    fn ended(&mut self, cause: Cause) {
        if self.first_to_end.is_none() {
            self.first_to_end = Some(cause);
            self.context.idle_timer.set_limit(self.limits.half_closed);
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
