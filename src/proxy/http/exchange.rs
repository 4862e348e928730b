//! One request on one backend connection: the request goes out, the response comes back, both bodies at once.
//!
//! Nothing is decided here about other backends or the client's next request; the session hears how it ended.

use std::fmt::Display;
use std::task::{Context, Poll};

use crate::backends::Lease;
use crate::lifecycle::IdleTimer;
use crate::net::{Hangup, Transport};
use crate::relay::{Direction, Limits, Pump, PumpContext, Step};
use crate::telemetry::Cause;

use super::super::frontend::{Frontend, Worker};
use super::framer::BodyFramer;
use super::record::RequestRecord;
use super::request::Request;
use super::response::Waiting;
use super::settings::Http;

/// What an exchange works with.
#[derive(Clone, Copy)]
pub(super) struct Parties<'a> {
    pub(super) worker: &'a Worker,
    pub(super) frontend: &'a Frontend,
    pub(super) limits: Limits,
    pub(super) http: &'a Http,
    pub(super) client: &'a Transport,
    pub(super) backend: &'a Transport,
    pub(super) lease: &'a Lease,
    pub(super) record: &'a RequestRecord<'a>,
    pub(super) context: &'a PumpContext<'a>,
    pub(super) idle_timer: &'a IdleTimer,
}

/// How an exchange ended.
pub(super) enum End {
    /// The client has the whole response.
    Answered {
        /// The backend's connection can serve another request.
        backend_keeps: bool,
        /// So can the client's.
        client_keeps: bool,
    },
    /// The backend agreed to another protocol; these bytes are for the client.
    Upgraded(Vec<u8>),
    /// The backend's socket took no byte of the request.
    NotSent,
    /// The backend ended before the first byte of a response.
    Unanswered(Cause),
    /// There is no response that could be passed on, and the client has no byte of one.
    Failed(Failure),
    /// The client has a part of the response, or is gone.
    Cut(Cause),
}

/// What the client is told in place of a response.
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) cause: Cause,
}

impl End {
    pub(super) fn failed(status: u16, reason: impl Display, cause: Cause) -> Self {
        Self::Failed(Failure { status, reason: reason.to_string(), cause })
    }
}

pub(super) struct Exchange<'a> {
    pub(super) parties: Parties<'a>,
    pub(super) request: &'a Request<'a>,
    /// `None`: nothing has been sent yet.
    up: Option<Pump<BodyFramer>>,
    pub(super) upload: Upload,
    pub(super) down: Down,
    client_has_ended: bool,
}

/// How far the request's way to the backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    Going,
    Whole,
    /// The backend takes no more of it, but may have answered.
    Refused,
}

/// How far the response's way to the client is.
pub(super) enum Down {
    /// Its head is still to come.
    Head(Waiting),
    /// The client is given the rest of the head and the body.
    Body { pump: Pump<BodyFramer>, backend_keeps: bool, client_keeps: bool },
}

impl<'a> Exchange<'a> {
    pub(super) fn new(parties: Parties<'a>, request: &'a Request<'a>) -> Self {
        let down = Down::Head(Waiting::default());
        Self { parties, request, up: None, upload: Upload::Going, down, client_has_ended: false }
    }

    /// What the client sent beyond the request, as far as it was received.
    pub(super) fn into_overrun(self) -> Vec<u8> {
        self.up.map(|up| up.into_framer().into_overrun()).unwrap_or_default()
    }

    /// Moves what can be moved now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.up.is_none() && !self.begin(cx) {
            return Poll::Ready(End::NotSent);
        }
        // Outward first: a backend that has answered or reset by now need not be given more.
        let end = self.poll_down(cx).or_else(|| self.poll_up(cx)).or_else(|| self.watch_client(cx));
        match end {
            Some(end) => Poll::Ready(end),
            None if self.parties.idle_timer.poll_expired(cx) => Poll::Ready(self.timed_out()),
            None => Poll::Pending,
        }
    }

    /// Sends the head and what of the body is at hand, in one call. `false`: the socket has failed.
    fn begin(&mut self, cx: &mut Context<'_>) -> bool {
        let Parties { worker, limits, http, backend, idle_timer, context, .. } = self.parties;
        let mut draft = worker.draft.borrow_mut();
        draft.clear();
        self.request.write(&mut draft);
        let sent = match backend.poll_send(cx, &draft) {
            Poll::Pending => 0,
            Poll::Ready(Err(_)) => return false,
            Poll::Ready(Ok(sent)) => sent,
        };
        let body = self.request.body.clone();
        idle_timer.set_limit(if body.is_done() { http.response_header } else { limits.idle });
        context.moved(Direction::ToBackend, sent);
        if sent == draft.len() && body.is_done() {
            self.upload = Upload::Whole;
        }
        let up = Pump::new(Direction::ToBackend, worker.resources.mode, BodyFramer::new(body));
        self.up = Some(up.after(&draft[sent..]));
        true
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let up = self.up.as_mut().filter(|_| self.upload == Upload::Going)?;
        let Parties { client, backend, context, http, idle_timer, .. } = self.parties;
        match up.poll(cx, client, backend, context) {
            Step::Open => None,
            Step::Ended if up.framer().is_whole() => {
                self.upload = Upload::Whole;
                if matches!(self.down, Down::Head(_)) {
                    idle_timer.set_limit(http.response_header);
                }
                None
            }
            Step::Ended => Some(End::Cut(Cause::ClientClosed)),
            Step::ReadFailed => Some(End::Cut(Cause::ClientReset)),
            Step::Malformed(error) if self.is_unanswered() => Some(End::failed(400, error, Cause::Rejected)),
            Step::Malformed(_) => Some(End::Cut(Cause::Rejected)),
            Step::WriteFailed => {
                // What it sent before is still to be read: it may have answered, and closed.
                self.upload = Upload::Refused;
                cx.waker().wake_by_ref();
                None
            }
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let Parties { client, backend, context, .. } = self.parties;
        if matches!(self.down, Down::Head(_))
            && let Some(end) = self.poll_head(cx)
        {
            return Some(end);
        }
        let Down::Body { pump, backend_keeps, client_keeps } = &mut self.down else { return None };
        match pump.poll(cx, backend, client, context) {
            Step::Open => None,
            Step::Ended if !pump.framer().is_whole() => Some(End::Cut(Cause::BackendClosed)),
            Step::Ended => {
                let is_whole = self.upload == Upload::Whole;
                Some(End::Answered {
                    backend_keeps: *backend_keeps && is_whole && !pump.framer().has_overrun(),
                    client_keeps: *client_keeps && is_whole,
                })
            }
            Step::Malformed(_) | Step::ReadFailed => Some(End::Cut(Cause::BackendReset)),
            Step::WriteFailed => Some(End::Cut(Cause::ClientReset)),
        }
    }

    /// Whether the client has no byte of an answer.
    fn is_unanswered(&self) -> bool {
        matches!(&self.down, Down::Head(waiting) if waiting.is_between_heads())
    }

    /// While only the backend is waited for, nothing is received from the client: its end must be looked for.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if self.upload != Upload::Whole || self.client_has_ended {
            return None;
        }
        let Parties { client, limits, idle_timer, .. } = self.parties;
        match client.poll_hangup(cx) {
            Poll::Pending => None,
            Poll::Ready(Hangup::Gone) => Some(End::Cut(Cause::ClientReset)),
            Poll::Ready(Hangup::Ended) => {
                // It may have closed only its own side, and wait for the answer; or it is gone, and nobody will tell.
                self.client_has_ended = true;
                idle_timer.lower_limit(limits.half_closed);
                None
            }
        }
    }

    /// What being silent for too long means: it depends on who was to speak.
    fn timed_out(&self) -> End {
        let client_stalls = self.upload == Upload::Going && !self.up.as_ref().is_some_and(Pump::is_blocked);
        match () {
            () if !self.is_unanswered() => End::Cut(Cause::IdleTimeout),
            () if client_stalls => End::failed(408, "the request's body did not come in time", Cause::IdleTimeout),
            () => End::failed(504, "the backend did not answer in time", Cause::IdleTimeout),
        }
    }
}
