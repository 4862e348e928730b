//! Both directions of one connection, and the rules: when it is over, what an end or a failure on one side means for
//! the other, whose fault it was, how long it may be idle. Sees no byte: the pumps move them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::lifecycle::{Cut, IdleTimer};
use crate::net::Transport;
use crate::telemetry::Cause;

use super::byte_meter::{Direction, Meter};
use super::framer::Unframed;
use super::pump::Pump;
use super::pump_context::PumpContext;
use super::relay_resources::RelayResources;
use super::step::Step;

/// How long a connection may be without a byte; [`Duration::MAX`]: for ever.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// While both sides are open.
    pub idle: Duration,
    /// Once one side has ended.
    pub half_closed: Duration,
    /// While the client has sent something and the backend has not answered with a byte, from the last byte on; `None`:
    /// no other limit.
    pub first_byte: Option<Duration>,
    /// Idle time before the kernel probes the backend.
    pub keepalive: Option<Duration>,
}

/// A backend that ends within this time of the connect, before a byte went either way, didn't want the connection:
/// another one may. After a longer silence it has seen enough of the client, and another one would see no more. Longer
/// than a round trip, and shorter than servers wait for a client's first byte.
const AT_ONCE: Duration = Duration::from_millis(150);

impl Limits {
    /// What a fresh connection's idle timer is to start with.
    ///
    /// Where keep-alive probes are wanted, the timer first finds out whether the connection stays at all: the probes
    /// are set up only then, which spares short connections three calls.
    pub fn first(&self) -> Duration {
        if self.keepalive.is_some() { self.idle.min(SETTLED_AFTER) } else { self.idle }
    }
}

/// A connection without a byte for this long is one that stays.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

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

/// How a relay ended.
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
    let pump = |direction, early: &[u8]| Pump::new(direction, resources.mode, Unframed).after(early, resources);
    Relay {
        client,
        backend,
        context: PumpContext::new(resources, meter, idle_timer),
        limits,
        to_backend: pump(Direction::ToBackend, &early.to_backend),
        to_client: pump(Direction::ToClient, &early.to_client),
        client_failed: None,
        is_settled: limits.keepalive.is_none(),
        may_retry,
        at_once_until: Instant::now() + AT_ONCE,
        awaits_first_byte: false,
        first_to_end: None,
        backend_is_gone: false,
        cut_short: true,
    }
}

/// A relay under way: a future by hand, since an async function would keep its arguments beside what it made of them,
/// for each idle connection.
pub struct Relay<'a> {
    client: &'a Transport,
    backend: &'a Transport,
    context: PumpContext<'a>,
    limits: &'a Limits,
    to_backend: Pump,
    to_client: Pump,
    /// Waits for the client's reset while nothing is received from it: the backend takes nothing, or the client has
    /// ended. Boxed: few connections need it.
    client_failed: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    /// It was idle once and has its keep-alive probes, or none are wanted.
    is_settled: bool,
    /// A backend that ends at once can be replaced.
    may_retry: bool,
    at_once_until: Instant,
    /// The timer runs for the backend's first byte.
    awaits_first_byte: bool,
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
        // First: not a byte more.
        if let Some(cut) = self.context.idle_timer.cut() {
            return Poll::Ready(Outcome::Over(cut.into()));
        }
        // To the client first: a backend that has ended or reset by now must not be given the client's bytes, which
        // another backend may still get.
        if let Some(outcome) = self.poll_to_client(cx).or_else(|| self.poll_to_backend(cx).map(Outcome::Over)) {
            return Poll::Ready(outcome);
        }
        if let Some(cause) = self.first_to_end
            && self.to_backend.is_done()
            && self.to_client.is_done()
            && self.have_both_their_end(cx)
        {
            return Poll::Ready(Outcome::Over(cause));
        }
        if self.has_client_failed(cx) {
            return Poll::Ready(Outcome::Over(Cause::ClientReset));
        }
        self.finish_half_close(cx);
        if let Some(first_byte) = self.limits.first_byte {
            self.limit_wait_for_first_byte(first_byte);
        }
        // Last: what could be moved was moved, and has restarted the timer.
        if self.is_expired(cx) {
            return Poll::Ready(Outcome::Over(self.timed_out()));
        }
        Poll::Pending
    }

    /// Whether closing the sockets would lose nothing: of TLS, something may still be to send.
    fn have_both_their_end(&self, cx: &mut Context<'_>) -> bool {
        let (client, backend) = (self.client.poll_end(cx), self.backend.poll_end(cx));
        client.is_ready() && backend.is_ready()
    }

    fn timed_out(&self) -> Cause {
        if self.awaits_first_byte {
            Cause::FirstByteTimeout
        } else if self.first_to_end.is_some() {
            Cause::HalfClosedTimeout
        } else {
            Cause::IdleTimeout
        }
    }

    fn poll_to_client(&mut self, cx: &mut Context<'_>) -> Option<Outcome> {
        let step = self.to_client.poll(cx, self.backend, self.client, &self.context);
        if matches!(step, Step::Ended | Step::ReadFailed) && self.is_at_once() {
            // Both sides are as they were before: whether it ended or failed, another backend can take its place.
            if self.may_retry && self.to_backend.holds_nothing() {
                return Some(Outcome::Untouched);
            }
            self.context.meter.tally.note_end_at_once();
        }
        match step {
            Step::Open => None,
            // It refused the client's bytes before: this is no clean end, however it looks.
            Step::Ended if self.backend_is_gone => Some(Outcome::Over(Cause::BackendReset)),
            Step::Ended => {
                self.half_closed(Cause::BackendClosed);
                // Passes the end on, and the client may still send. Where it has ended too, closing says it: one call
                // less.
                if !self.to_backend.is_done() {
                    self.client.shutdown_write(cx);
                }
                None
            }
            Step::ReadFailed => Some(Outcome::Over(Cause::BackendReset)),
            Step::WriteFailed => Some(Outcome::Over(Cause::ClientReset)),
        }
    }

    /// No side has taken a byte or ended, and an end now would be one without a long silence before.
    fn is_at_once(&self) -> bool {
        let tally = self.context.meter.tally;
        let is_untouched = tally.bytes_in() == 0 && tally.bytes_out() == 0 && self.first_to_end.is_none();
        is_untouched && Instant::now() < self.at_once_until
    }

    /// Gives the backend less time while the client has sent something and it has not answered with a byte, unless
    /// another limit is over sooner anyway.
    fn limit_wait_for_first_byte(&mut self, first_byte: Duration) {
        let limit = if self.first_to_end.is_some() { self.limits.half_closed } else { self.limits.idle };
        let tally = self.context.meter.tally;
        let is_asked = tally.bytes_in() > 0 && tally.bytes_out() == 0;
        let awaits = is_asked && !self.to_client.is_blocked() && !self.to_client.is_done() && first_byte < limit;
        if awaits != self.awaits_first_byte {
            self.awaits_first_byte = awaits;
            let settles = !self.is_settled && self.first_to_end.is_none();
            let without = if settles { self.limits.first() } else { limit };
            self.context.idle_timer.set_limit(if awaits { first_byte } else { without });
        }
    }

    fn poll_to_backend(&mut self, cx: &mut Context<'_>) -> Option<Cause> {
        match self.to_backend.poll(cx, self.client, self.backend, &self.context) {
            Step::Open => None,
            Step::Ended => {
                self.half_closed(Cause::ClientClosed);
                if !self.to_client.is_done() {
                    self.backend.shutdown_write(cx);
                }
                None
            }
            Step::ReadFailed => Some(Cause::ClientReset),
            Step::WriteFailed if self.to_client.is_done() => Some(Cause::BackendReset),
            Step::WriteFailed => {
                // Its reset may have overtaken bytes that it sent before: they are still to be read, in a poll of their
                // own, for the one to the client is over.
                self.backend_is_gone = true;
                self.to_backend.abandon();
                cx.waker().wake_by_ref();
                None
            }
        }
    }

    /// An end that a socket did not take at once (with TLS it has bytes) goes on, whatever the other direction does.
    fn finish_half_close(&mut self, cx: &mut Context<'_>) {
        if self.to_client.is_done() && !self.to_backend.is_done() {
            let _ = self.client.poll_end(cx);
        }
        if self.to_backend.is_done() && !self.to_client.is_done() && !self.backend_is_gone {
            let _ = self.backend.poll_end(cx);
        }
    }

    /// One side has ended. The other may take its time, but not for ever: it may be gone without a word.
    fn half_closed(&mut self, cause: Cause) {
        if self.first_to_end.is_none() {
            self.first_to_end = Some(cause);
            // The wait for a first byte is limited again, within the new limit.
            self.awaits_first_byte = false;
            self.context.idle_timer.set_limit(self.limits.half_closed);
        }
    }

    /// A receive would show it; where the backend's slowness keeps us from one, or the client's end has been received,
    /// the socket's state does.
    fn has_client_failed(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.to_backend.is_blocked() && !self.to_backend.is_done() {
            self.client_failed = None;
            return false;
        }
        let client = self.client;
        // Kept while the wait lasts: made anew in each poll, it would have forgotten whom to wake.
        self.client_failed.get_or_insert_with(|| Box::pin(client.reset_by_peer())).as_mut().poll(cx).is_ready()
    }

    fn is_expired(&mut self, cx: &Context<'_>) -> bool {
        let idle_timer = self.context.idle_timer;
        if !idle_timer.poll_expired(cx) {
            return false;
        }
        if self.is_settled || self.first_to_end.is_some() || self.awaits_first_byte {
            return true;
        }
        // Idle for the first time: it is a connection that stays.
        self.is_settled = true;
        if let Some(idle) = self.limits.keepalive {
            self.backend.keep_alive(idle);
        }
        idle_timer.set_limit(self.limits.idle);
        // Polled again, for the configured limit may be as short as the first.
        idle_timer.poll_expired(cx)
    }
}

impl From<Cut> for Cause {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::BackendDown => Self::BackendDown,
            Cut::BackupClosed => Self::BackupClosed,
            Cut::BackendRemoved => Self::BackendRemoved,
        }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        // Dropped under way, by the drain, it is cut short as well.
        if self.cut_short {
            self.client.reset_on_close();
            self.backend.reset_on_close();
        }
    }
}
