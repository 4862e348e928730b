//! The client's side of a connection: head after head, and for each an answer.
//!
//! Bytes are received into the worker's scratch buffer. Between two requests only what the client has sent of the next
//! one already is kept: nothing, for most.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::lifecycle::IdleTimer;
use crate::protocol::http1::{Framing, RequestHead, Version};
use crate::relay::Limits;
use crate::telemetry::{Answerer, Cause};

use super::super::connect::ConnectContext;
use super::super::frontend::Frontend;
use super::super::http_settings::HttpSettings;
use super::super::worker::Worker;
use super::READ_AHEAD_BYTES;
use super::connection_variables::ConnectionVariables;
use super::failure::Failure;
use super::forwarder::{Forwarder, RequestOutcome};
use super::head_pace::HeadPace;
use super::reply;
use super::request::Request;
use super::request_record::RequestRecord;

/// Serves a client's requests, one after the other, and says why it ended. Dropped, it leaves both sides reset.
pub(in crate::proxy) async fn serve(
    worker: &Worker,
    frontend: &Frontend,
    http: &HttpSettings,
    context: ConnectContext<'_>,
) -> Cause {
    context.idle_timer.set_limit(http.client_header);
    let mut session = Session {
        worker,
        frontend,
        limits: frontend.limits(context.upstream),
        http,
        variables: ConnectionVariables::new(frontend, http, context),
        context,
        idle_timer: context.idle_timer,
        inbox: Vec::new(),
        pace: HeadPace::default(),
    };
    loop {
        let next = match poll_fn(|cx| session.poll_request(cx)).await {
            Received::Request(head) => session.answer(&head).await,
            Received::Refused { status, reason } => session.refuse(status, &reason).await,
            Received::Ended(cause) => {
                // The last answer may be waiting for the end of the turn, or for the client to take it.
                session.end().await;
                return cause;
            }
        };
        if let Next::Close(cause) = next {
            return cause;
        }
    }
}

struct Session<'a> {
    worker: &'a Worker,
    frontend: &'a Frontend,
    http: &'a HttpSettings,
    /// Who the client is, and which pool serves it.
    context: ConnectContext<'a>,
    limits: Limits,
    variables: ConnectionVariables<'a>,
    idle_timer: &'a IdleTimer,
    /// Received and not yet answered. Bounded by the head's limit and one read of `READ_AHEAD_BYTES`.
    inbox: Vec<u8>,
    /// Of the head under way.
    pace: HeadPace,
}

/// What waiting for a request gave.
enum Received {
    Request(RequestHead),
    Refused { status: u16, reason: String },
    Ended(Cause),
}

/// What follows an answer.
enum Next {
    Request,
    Close(Cause),
}

impl Session<'_> {
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        // A pipelined request was received together with the one before.
        if !self.pace.has_begun()
            && !self.inbox.is_empty()
            && let Some(arrival) = self.read_head(&[])
        {
            return Poll::Ready(arrival);
        }
        let Session { worker, context, .. } = *self;
        loop {
            let received =
                worker.resources.scratch.poll_receive_at_most(cx, context.client, READ_AHEAD_BYTES, |_, fresh| {
                    if fresh.is_empty() { Some(Received::Ended(Cause::ClientClosed)) } else { self.read_head(fresh) }
                });
            match received {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Poll::Ready(Received::Ended(Cause::ClientReset)),
                Poll::Ready(Ok(Some(arrival))) => return Poll::Ready(arrival),
                Poll::Ready(Ok(None)) => {}
            }
        }
        if self.inbox.is_empty() && self.worker.is_closing() {
            return Poll::Ready(Received::Ended(Cause::Drained));
        }
        if !self.idle_timer.poll_expired(cx) {
            return Poll::Pending;
        }
        if self.inbox.is_empty() {
            return Poll::Ready(Received::Ended(Cause::IdleTimeout));
        }
        let reason = "the request's head did not come in time".to_owned();
        Poll::Ready(Received::Refused { status: 408, reason })
    }

    /// Adds what came; `None`: the head isn't complete.
    fn read_head(&mut self, fresh: &[u8]) -> Option<Received> {
        let is_first = !self.pace.has_begun();
        self.inbox.extend_from_slice(fresh);
        // What was received together with the request before is as new as what comes now.
        let fresh = if is_first { self.inbox.len() } else { fresh.len() };
        if self.pace.is_due(&self.inbox, fresh, &self.http.limits) {
            match RequestHead::parse(&self.inbox, &self.http.limits) {
                Ok(Some(head)) => return Some(Received::Request(head)),
                Err(rejection) => {
                    let reason = rejection.to_string();
                    return Some(Received::Refused { status: rejection.status(), reason });
                }
                Ok(None) => {}
            }
        }
        if is_first {
            // The clock of a slow head runs from its first byte on.
            self.idle_timer.touch();
            self.idle_timer.set_limit(self.http.client_header);
        }
        None
    }

    fn open_record<'a>(&'a self, head: Option<(&RequestHead, &[u8])>) -> RequestRecord<'a> {
        RequestRecord::open(self.worker, self.frontend, self.context, head)
    }

    /// A head that can't be read is answered, and nothing after it.
    async fn refuse(&mut self, status: u16, reason: &str) -> Next {
        let record = self.open_record(None);
        let page = reply::page(status, reason, Version::Http11, false, false);
        self.reply(&record, status, &page).await;
        record.ended(Cause::Rejected);
        drop(record);
        self.leave(Cause::Rejected).await
    }

    /// Sends an answer of our own; `false`: the client did not take it.
    async fn reply(&self, record: &RequestRecord<'_>, status: u16, page: &[u8]) -> bool {
        record.answered(status, Answerer::Lb);
        self.idle_timer.touch();
        self.idle_timer.set_limit(self.http.client_header);
        let sent = reply::send(self.context.client, page, self.idle_timer).await;
        if sent {
            self.context.account.tally.answered_by_us(page.len());
            self.frontend.counters(self.worker.id).bytes.add_out(page.len() as u64);
        }
        sent
    }

    /// Finds a backend for the request, and passes on its answer.
    async fn answer(&mut self, head: &RequestHead) -> Next {
        let mut inbox = std::mem::take(&mut self.inbox);
        self.pace = HeadPace::default();
        if self.redirects(head, &inbox) {
            return self.redirect(head, inbox).await;
        }
        let mut record = self.open_record(Some((head, &inbox)));
        let (outcome, end, is_whole) = match Request::new(head, &inbox, &self.variables, self.http) {
            Ok(request) => {
                let outcome = self.forwarder().forward(&request, &mut record).await;
                self.context.use_backend(None);
                (outcome, request.end, request.body.is_done())
            }
            Err(error) => (RequestOutcome::Failed(Failure::new(400, error, Cause::Rejected)), inbox.len(), false),
        };
        match outcome {
            RequestOutcome::Answered { client_keeps, overrun } => {
                record.completed();
                drop(record);
                let mut rest = inbox.split_off(end);
                rest.extend_from_slice(&overrun);
                drop(inbox);
                self.go_on(head, rest, client_keeps).await
            }
            RequestOutcome::Failed(failure) => {
                let keeps = head.keep_alive && is_whole && failure.status >= 500 && self.asked_to_leave().is_none();
                let is_head = head.asked(&inbox).head;
                let page = reply::page(failure.status, &failure.reason, head.version, keeps, is_head);
                let sent = self.reply(&record, failure.status, &page).await;
                record.ended(failure.cause);
                drop(record);
                let rest = inbox.split_off(end);
                drop(inbox);
                if sent && keeps { self.go_on(head, rest, true).await } else { self.leave(failure.cause).await }
            }
            RequestOutcome::Cut(cause) => {
                record.ended(cause);
                Next::Close(cause)
            }
        }
    }

    /// Whether the request is to be made by https. One that a trusted proxy got by https would come again.
    fn redirects(&self, head: &RequestHead, inbox: &[u8]) -> bool {
        self.http.redirects_to_https && self.variables.scheme(head, inbox) != "https"
    }

    /// Tells the client where to ask. A body isn't waited for: the connection ends then.
    async fn redirect(&mut self, head: &RequestHead, mut inbox: Vec<u8>) -> Next {
        let Some(url) = head.https_url(&inbox) else {
            return self.refuse(400, "the request doesn't say of which host").await;
        };
        let record = self.open_record(Some((head, &inbox)));
        let keeps = head.keep_alive && matches!(head.framing, Framing::None) && self.asked_to_leave().is_none();
        let page = reply::redirect(&url, head.version, keeps, head.asked(&inbox).head);
        let sent = self.reply(&record, 308, &page).await;
        record.completed();
        drop(record);
        let rest = inbox.split_off(head.len);
        if sent && keeps {
            return self.go_on(head, rest, true).await;
        }
        self.leave(self.asked_to_leave().unwrap_or(Cause::ClientClosed)).await
    }

    fn forwarder(&self) -> Forwarder<'_> {
        let Session { worker, frontend, http, context, limits, idle_timer, .. } = *self;
        Forwarder { worker, frontend, http, context, limits, idle_timer }
    }

    /// Why the client is asked to close, though neither it nor the backend has; `None`: it may ask again here.
    fn asked_to_leave(&self) -> Option<Cause> {
        if self.worker.is_leaving() {
            Some(Cause::Drained)
        } else {
            self.frontend.is_replaced().then_some(Cause::Reloaded)
        }
    }

    /// Waits for the next request, or ends the connection.
    async fn go_on(&mut self, head: &RequestHead, rest: Vec<u8>, keeps: bool) -> Next {
        if keeps {
            self.inbox = rest;
            self.idle_timer.touch();
            self.idle_timer.set_limit(self.http.keep_alive);
            return Next::Request;
        }
        let cause =
            if head.keep_alive { self.asked_to_leave().unwrap_or(Cause::BackendClosed) } else { Cause::ClientClosed };
        let has_sent_more = !rest.is_empty() || !self.context.client.is_idle();
        let may_send_more = has_sent_more || !matches!(head.framing, Framing::None);
        if may_send_more {
            return self.leave(cause).await;
        }
        self.end().await;
        Next::Close(cause)
    }

    /// Waits until the close loses nothing.
    async fn end(&self) {
        poll_fn(|cx| match self.context.client.poll_end(cx) {
            Poll::Pending if self.idle_timer.poll_expired(cx) => Poll::Ready(()),
            poll => poll,
        })
        .await;
    }

    /// Ends the connection so that the client sees all that it was sent.
    async fn leave(&self, cause: Cause) -> Next {
        reply::linger(self.context.client, &self.worker.resources.scratch, self.idle_timer).await;
        Next::Close(cause)
    }
}
