//! One request on one backend connection: the request goes out, the response comes back, both bodies at once.
//!
//! Nothing is decided here about other backends or the client's next request; the session is given the end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::backends::{Evidence, Lease};
use crate::lifecycle::IdleTimer;
use crate::net::{Hangup, Transport};
use crate::protocol::http1::{Body, ClientSide, Passes, ResponseHead, TrailerFilter, Version, write_response_head};
use crate::relay::{Direction, Framer, Limits, Pump, PumpContext, Step};
use crate::telemetry::{Answer, Answerer, Cause};

use super::super::frontend::Frontend;
use super::super::http_settings::HttpSettings;
use super::super::worker::Worker;
use super::exchange_end::ExchangeEnd;
use super::failure::Failure;
use super::framer::BodyFramer;
use super::request::Request;
use super::request_record::RequestRecord;
use super::response::ResponseReader;

/// What an exchange works with.
#[derive(Clone, Copy)]
pub(super) struct Parties<'a> {
    pub(super) worker: &'a Worker,
    pub(super) frontend: &'a Frontend,
    pub(super) limits: Limits,
    pub(super) http: &'a HttpSettings,
    pub(super) client: &'a Transport,
    pub(super) backend: &'a Transport,
    pub(super) lease: &'a Lease,
    pub(super) record: &'a RequestRecord<'a>,
    pub(super) pump_context: &'a PumpContext<'a>,
    pub(super) idle_timer: &'a IdleTimer,
}

pub(super) struct Exchange<'a> {
    parties: Parties<'a>,
    request: &'a Request<'a>,
    /// From when on the backend's time for its first byte counts.
    began: Instant,
    /// `None`: nothing has been sent yet.
    up: Option<Pump<BodyFramer<'a>>>,
    upload: Upload,
    down: Down,
    client_has_ended: bool,
    /// The wait for the client's reset, where more requests hide its end. Kept: made anew in each poll, it would have
    /// forgotten whom to wake.
    client_reset: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    /// The request's, on this hop.
    sent_version: Version,
    /// Of the answer, once its head has come.
    status: u16,
}

/// How far the request's way to the backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    Going,
    Whole,
    /// The backend takes no more of it, but may have answered.
    Refused,
}

/// How far the response's way to the client is.
enum Down {
    /// Its head is still to come.
    Head(AwaitedHead),
    /// The client is given the rest of the head and the body.
    Body { pump: Pump<BodyFramer<'static>>, backend_keeps: bool, client_keeps: bool },
}

/// What comes before the response's final head.
#[derive(Default)]
struct AwaitedHead {
    reader: ResponseReader,
    /// Interim responses that the client has not taken yet.
    unsent: Vec<u8>,
    /// The client has the first part of an interim response: no other head can follow it.
    is_within_interim: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(parties: Parties<'a>, request: &'a Request<'a>) -> Self {
        let down = Down::Head(AwaitedHead::default());
        Self {
            parties,
            request,
            began: Instant::now(),
            up: None,
            upload: Upload::Going,
            down,
            client_has_ended: false,
            client_reset: None,
            sent_version: Version::Http11,
            status: 0,
        }
    }

    /// What the client sent beyond the request, as far as it was received.
    pub(super) fn into_overrun(self) -> Vec<u8> {
        self.up.map(|up| up.into_framer().into_overrun()).unwrap_or_default()
    }

    /// Moves what can be moved now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeEnd> {
        if self.up.is_none() && !self.begin(cx) {
            return Poll::Ready(ExchangeEnd::NotSent);
        }
        // The response first: a backend that has answered or reset by now need not be given more.
        let end = self.poll_down(cx).or_else(|| self.poll_up(cx)).or_else(|| self.watch_client(cx));
        match end {
            Some(end) => Poll::Ready(end),
            None if self.parties.idle_timer.poll_expired(cx) => Poll::Ready(self.timed_out()),
            None => Poll::Pending,
        }
    }

    /// Sends the head and the received part of the body, in one call. `false`: the socket has failed.
    fn begin(&mut self, cx: &mut Context<'_>) -> bool {
        let Parties { worker, limits, http, backend, lease, idle_timer, pump_context, .. } = self.parties;
        let mut draft = worker.draft.borrow_mut();
        draft.clear();
        self.sent_version = self.request.write(&mut draft);
        let sent = match backend.poll_send(cx, &draft) {
            Poll::Pending => 0,
            Poll::Ready(Err(_)) => return false,
            Poll::Ready(Ok(sent)) => sent,
        };
        let body = self.request.body.clone();
        lease.awaits_answer();
        // From the request's last byte on, the backend's time for its answer runs.
        idle_timer.set_limit(if body.is_done() { http.response_header } else { limits.idle });
        pump_context.moved(Direction::ToBackend, sent);
        if sent == draft.len() && body.is_done() {
            self.upload = Upload::Whole;
        }
        let up = Pump::new(Direction::ToBackend, worker.resources.mode, BodyFramer::of_request(body));
        self.up = Some(up.after(&draft[sent..], &worker.resources));
        true
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Option<ExchangeEnd> {
        let up = self.up.as_mut().filter(|_| self.upload == Upload::Going)?;
        let Parties { client, backend, pump_context, http, idle_timer, .. } = self.parties;
        match up.poll(cx, client, backend, pump_context) {
            Step::Open => None,
            Step::Ended if up.framer().is_whole() => {
                self.upload = Upload::Whole;
                if matches!(self.down, Down::Head(_)) {
                    // How long the client took for its body is not the backend's time.
                    self.began = Instant::now();
                    idle_timer.set_limit(http.response_header);
                }
                None
            }
            Step::Ended => Some(ExchangeEnd::Cut(Cause::ClientClosed, None)),
            Step::ReadFailed => Some(ExchangeEnd::Cut(Cause::ClientReset, None)),
            Step::Malformed(error) if self.is_unanswered() => Some(ExchangeEnd::failed(400, error, Cause::Rejected)),
            Step::Malformed(_) => Some(ExchangeEnd::Cut(Cause::Rejected, None)),
            Step::WriteFailed => {
                // What it sent before is still to be read: it may have answered, and closed.
                self.upload = Upload::Refused;
                cx.waker().wake_by_ref();
                None
            }
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Option<ExchangeEnd> {
        let Parties { client, backend, pump_context, .. } = self.parties;
        if matches!(self.down, Down::Head(_))
            && let Some(end) = self.poll_head(cx)
        {
            return Some(end);
        }
        let Down::Body { pump, backend_keeps, client_keeps } = &mut self.down else { return None };
        match pump.poll(cx, backend, client, pump_context) {
            Step::Open => None,
            Step::Ended if !pump.framer().is_whole() => Some(ExchangeEnd::cut_by_backend(Cause::BackendClosed)),
            Step::Ended => {
                let is_whole = self.upload == Upload::Whole;
                Some(ExchangeEnd::Answered {
                    status: self.status,
                    // Bytes beyond the response are no answer to anything: such a connection is not to be trusted.
                    backend_keeps: *backend_keeps && is_whole && !pump.framer().has_overrun(),
                    client_keeps: *client_keeps && is_whole,
                })
            }
            Step::Malformed(_) | Step::ReadFailed => Some(ExchangeEnd::cut_by_backend(Cause::BackendReset)),
            Step::WriteFailed => Some(ExchangeEnd::Cut(Cause::ClientReset, None)),
        }
    }

    /// Reads towards the response's head, passing on interim ones. `None`: wait, or continue with the body.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Option<ExchangeEnd> {
        let Parties { worker, backend, .. } = self.parties;
        loop {
            if let Poll::Ready(Err(end)) = self.send_interims(cx) {
                return Some(end);
            }
            let Down::Head(awaited) = &self.down else { return None };
            if !awaited.unsent.is_empty() {
                // Backpressure: nothing is received while the client doesn't take what came before.
                return None;
            }
            let receive = |cx: &mut Context<'_>, fresh: &[u8]| self.take_response_bytes(cx, fresh);
            match worker.resources.scratch.poll_receive(cx, backend, receive) {
                Poll::Pending => return None,
                Poll::Ready(Err(_)) => return Some(self.ended_within_head(Cause::BackendReset)),
                Poll::Ready(Ok(Some(end))) => return Some(end),
                Poll::Ready(Ok(None)) => {}
            }
        }
    }

    /// The backend sent `fresh`, or with none of them its end.
    fn take_response_bytes(&mut self, cx: &mut Context<'_>, fresh: &[u8]) -> Option<ExchangeEnd> {
        if fresh.is_empty() {
            return Some(self.ended_within_head(Cause::BackendClosed));
        }
        let Down::Head(AwaitedHead { reader, unsent, .. }) = &mut self.down else { return None };
        let version = self.request.head.version;
        let facts = self.request.head.asked(self.request.bytes());
        let read = reader.read(fresh, facts, &self.parties.http.limits, |head, bytes| {
            // An HTTP/1.0 client knows no interim responses (RFC 9110 section 15.2).
            if version == Version::Http11 {
                write_response_head(unsent, bytes, head, ClientSide { version, close: false });
            }
        });
        match read {
            Ok(None) => None,
            Ok(Some(last)) => self.take_head(cx, &last.head, last.bytes()),
            Err(failure) => Some(ExchangeEnd::Failed(failure)),
        }
    }

    fn ended_within_head(&self, cause: Cause) -> ExchangeEnd {
        if matches!(&self.down, Down::Head(awaited) if awaited.reader.is_within_head()) {
            ExchangeEnd::invalid("the backend closed within the head of its response", cause)
        } else {
            ExchangeEnd::Unanswered(cause)
        }
    }

    fn send_interims(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeEnd>> {
        let Parties { client, pump_context, .. } = self.parties;
        let Down::Head(awaited) = &mut self.down else { return Poll::Ready(Ok(())) };
        // From here on: TLS may have taken some of it before it says so.
        awaited.is_within_interim = !awaited.unsent.is_empty();
        while !awaited.unsent.is_empty() {
            match client.poll_send(cx, &awaited.unsent) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(ExchangeEnd::Cut(Cause::ClientReset, None))),
                Poll::Ready(Ok(sent)) => {
                    awaited.unsent.drain(..sent);
                    awaited.is_within_interim = !awaited.unsent.is_empty();
                    pump_context.moved(Direction::ToClient, sent);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The final head is at the start of `bytes`: from here on the client gets the backend's answer.
    fn take_head(&mut self, cx: &mut Context<'_>, head: &ResponseHead, bytes: &[u8]) -> Option<ExchangeEnd> {
        let Down::Head(awaited) = &mut self.down else { return None };
        let mut unsent = std::mem::take(&mut awaited.unsent);
        let (now, answer) = (Instant::now(), Answer::of_status(head.status));
        self.parties.lease.answer_began(self.parties.worker.id, answer, now.duration_since(self.began), now);
        self.status = head.status;
        let version = self.request.head.version;
        if head.is_upgrade() {
            if self.upload != Upload::Whole {
                let reason = "the backend upgraded before the request's end";
                return Some(ExchangeEnd::invalid(reason, Cause::BackendClosed));
            }
            self.parties.record.answered(head.status, Answerer::Backend);
            write_response_head(&mut unsent, bytes, head, ClientSide { version, close: false });
            unsent.extend_from_slice(&bytes[head.len..]);
            return Some(ExchangeEnd::Upgraded(unsent));
        }
        self.begin_body(cx, head, bytes, &unsent)
    }

    /// Sends the head and the received part of the body, in one call.
    fn begin_body(
        &mut self,
        cx: &mut Context<'_>,
        head: &ResponseHead,
        bytes: &[u8],
        unsent: &[u8],
    ) -> Option<ExchangeEnd> {
        let Parties { worker, frontend, limits, client, record, pump_context, idle_timer, .. } = self.parties;
        let version = self.request.head.version;
        // Where the upload isn't through yet, it may never be: then only closing ends the exchange.
        let client_keeps = self.request.head.keep_alive
            && self.upload == Upload::Whole
            && !worker.is_leaving()
            && !frontend.is_replaced()
            && !head.ends_by_close(version);
        let mut draft = worker.draft.borrow_mut();
        draft.clear();
        draft.extend_from_slice(unsent);
        write_response_head(&mut draft, bytes, head, ClientSide { version, close: !client_keeps });
        let passes = if head.must_dechunk(version) {
            Passes::Data
        } else {
            Passes::ChunksAndTrailers(TrailerFilter::OfResponse)
        };
        let mut framer = BodyFramer::of_response(Body::new(head.framing, passes));
        match framer.advance(&bytes[head.len..]) {
            Err(error) => return Some(ExchangeEnd::invalid(error, Cause::BackendClosed)),
            Ok(data) => draft.extend_from_slice(&data),
        }
        record.answered(head.status, Answerer::Backend);
        let sent = match client.poll_send(cx, &draft) {
            Poll::Pending => 0,
            Poll::Ready(Err(_)) => return Some(ExchangeEnd::Cut(Cause::ClientReset, None)),
            Poll::Ready(Ok(sent)) => sent,
        };
        pump_context.moved(Direction::ToClient, sent);
        // After a request of HTTP/1.0 it closes, whatever its answer says.
        let backend_keeps = head.keep_alive && self.sent_version == Version::Http11 && !framer.has_overrun();
        let is_sent = sent == draft.len() && (client_keeps || client.poll_all_taken(cx).is_ready());
        if is_sent && framer.is_complete() && self.upload == Upload::Whole {
            return Some(ExchangeEnd::Answered { status: head.status, backend_keeps, client_keeps });
        }
        // A client that has ended its side may be gone.
        idle_timer.set_limit(if self.client_has_ended { limits.idle.min(limits.half_closed) } else { limits.idle });
        let pump =
            Pump::new(Direction::ToClient, worker.resources.mode, framer).after(&draft[sent..], &worker.resources);
        self.down = Down::Body { pump, backend_keeps, client_keeps };
        None
    }

    /// Whether the client has no byte of an answer.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(&self.down, Down::Head(awaited) if !awaited.is_within_interim)
    }

    /// While only the backend is waited for, nothing is received from the client: its end must be looked for.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Option<ExchangeEnd> {
        if self.upload != Upload::Whole || self.client_has_ended {
            return None;
        }
        let Parties { client, limits, idle_timer, .. } = self.parties;
        if let Some(client_reset) = &mut self.client_reset {
            let is_reset = client_reset.as_mut().poll(cx).is_ready();
            return is_reset.then_some(ExchangeEnd::Cut(Cause::ClientReset, None));
        }
        match client.poll_hangup(cx) {
            Poll::Pending => None,
            Poll::Ready(Hangup::Gone) => Some(ExchangeEnd::Cut(Cause::ClientReset, None)),
            Poll::Ready(Hangup::Ended) => {
                // It may have closed only its own side, and wait for the answer; or it is gone, and nothing will show
                // it.
                self.client_has_ended = true;
                idle_timer.lower_limit(limits.half_closed);
                None
            }
            Poll::Ready(Hangup::Hidden) => {
                self.client_reset = Some(Box::pin(client.reset_by_peer()));
                self.watch_client(cx)
            }
        }
    }

    /// What a silence that is too long means: it depends on which side was to speak.
    fn timed_out(&self) -> ExchangeEnd {
        let cause = Cause::IdleTimeout;
        match &self.down {
            // The client doesn't take what the backend has sent.
            Down::Body { pump, .. } if pump.is_blocked() => ExchangeEnd::Cut(cause, None),
            Down::Body { .. } if self.upload == Upload::Going => ExchangeEnd::Cut(cause, None),
            // A client that has ended its side may be gone, and the backend have noticed.
            Down::Body { .. } => ExchangeEnd::Cut(cause, (!self.client_has_ended).then_some(Evidence::NoAnswer)),
            Down::Head(awaited) if awaited.is_within_interim => ExchangeEnd::Cut(cause, None),
            Down::Head(_) if self.client_stalls() => {
                ExchangeEnd::failed(408, "the request's body did not come in time", cause)
            }
            Down::Head(_) => {
                let Parties { http, limits, .. } = self.parties;
                let had_its_time = !self.client_has_ended || http.response_header <= limits.half_closed;
                let failure = Failure::new(504, "the backend did not answer in time", cause);
                ExchangeEnd::Failed(Failure { evidence: had_its_time.then_some(Evidence::NoAnswer), ..failure })
            }
        }
    }

    /// The rest of the request is waited for, and the backend would take it.
    fn client_stalls(&self) -> bool {
        self.upload == Upload::Going && !self.up.as_ref().is_some_and(Pump::is_blocked)
    }
}
