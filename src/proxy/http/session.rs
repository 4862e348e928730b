//! The client's side of a connection: head after head, and for each an answer.
//!
//! Between two requests it owns no buffer: bytes are received into the worker's scratch buffer, and kept only while
//! the request they belong to is under way.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::backends::{Evidence, Lease};
use crate::lifecycle::IdleTimer;
use crate::net::{ConnectFailure, Transport};
use crate::protocol::http1::{Framing, RequestHead, Version};
use crate::relay::{self, Early, Limits, Meter, Outcome, PumpContext, Start, Tally};
use crate::telemetry::{Cause, Rejection};

use super::super::connect::{self, ConnectContext, Connected};
use super::super::frontend::Frontend;
use super::super::http_settings::HttpSettings;
use super::super::refusal::Refusal;
use super::super::worker::Worker;
use super::exchange::{Exchange, ExchangeEnd, Parties};
use super::failure::Failure;
use super::record::RequestRecord;
use super::reply;
use super::request::{ForwardedFrom, Request};

/// A head that comes in more pieces than this is only read on when a line is complete: reading it again for each byte
/// would let a client buy much work with little.
const PIECES_READ_AT_ONCE: u32 = 32;

/// Serves a client's requests, one after the other, and says why it ended. Dropped, it leaves both sides reset.
pub(in crate::proxy) async fn serve(
    worker: &Worker,
    frontend: &Frontend,
    http: &HttpSettings,
    context: ConnectContext<'_>,
) -> Cause {
    let mut session = Session {
        worker,
        frontend,
        limits: frontend.limits(context.upstream),
        http,
        forwarded_from: ForwardedFrom::new(frontend, http, context.client, context.peer),
        context,
        idle_timer: worker.idle_timeouts.start(http.client_header),
        inbox: Vec::new(),
        pieces: 0,
    };
    loop {
        let next = match poll_fn(|cx| session.poll_request(cx)).await {
            Arrival::Request(head) => session.answer(&head).await,
            Arrival::Refused { status, reason } => session.refuse(status, &reason).await,
            Arrival::Ended(cause) => return cause,
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
    forwarded_from: ForwardedFrom,
    idle_timer: IdleTimer,
    /// Received and not yet answered. Bounded by the head's limit and one read.
    inbox: Vec<u8>,
    /// Reads that the head under way took so far.
    pieces: u32,
}

/// What waiting for a request gave.
enum Arrival {
    Request(RequestHead),
    Refused { status: u16, reason: String },
    Ended(Cause),
}

/// What follows an answer.
enum Next {
    Request,
    Close(Cause),
}

/// How a request ended, whatever backends were tried for it.
enum RequestOutcome {
    /// The client has the whole response.
    Answered {
        /// The client's connection can serve another request.
        client_keeps: bool,
        /// What the client sent beyond the request.
        overrun: Vec<u8>,
    },
    /// The client is to get an answer of our own.
    Failed(Failure),
    /// The client has a part of the response, or is gone, or its tunnel has ended.
    Cut(Cause),
}

impl Session<'_> {
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        // A pipelined request was received together with the one before.
        if self.pieces == 0
            && !self.inbox.is_empty()
            && let Some(arrival) = self.read_head(&[])
        {
            return Poll::Ready(arrival);
        }
        let Session { worker, context, .. } = *self;
        loop {
            let received = worker.resources.scratch.poll_receive(cx, context.client, |_, fresh| {
                if fresh.is_empty() { Some(Arrival::Ended(Cause::ClientClosed)) } else { self.read_head(fresh) }
            });
            match received {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Poll::Ready(Arrival::Ended(Cause::ClientReset)),
                Poll::Ready(Ok(Some(arrival))) => return Poll::Ready(arrival),
                Poll::Ready(Ok(None)) => {}
            }
        }
        if self.inbox.is_empty() && self.worker.is_closing() {
            return Poll::Ready(Arrival::Ended(Cause::ClientClosed));
        }
        if !self.idle_timer.poll_expired(cx) {
            return Poll::Pending;
        }
        if self.inbox.is_empty() {
            return Poll::Ready(Arrival::Ended(Cause::IdleTimeout));
        }
        let reason = "the request's head did not come in time".to_owned();
        Poll::Ready(Arrival::Refused { status: 408, reason })
    }

    /// Adds what came; `None`: the head isn't complete.
    fn read_head(&mut self, fresh: &[u8]) -> Option<Arrival> {
        let before = self.inbox.len();
        self.inbox.extend_from_slice(fresh);
        self.pieces += 1;
        let limits = &self.http.limits;
        let reaches = |limit: usize| before < limit && limit <= self.inbox.len();
        let is_due = self.pieces <= PIECES_READ_AT_ONCE
            || fresh.contains(&b'\n')
            || reaches(limits.max_line_bytes)
            || self.inbox.len() >= limits.max_head_bytes;
        if is_due {
            match RequestHead::parse(&self.inbox, limits) {
                Ok(Some(head)) => return Some(Arrival::Request(head)),
                Err(rejection) => {
                    let reason = rejection.to_string();
                    return Some(Arrival::Refused { status: rejection.status(), reason });
                }
                Ok(None) => {}
            }
        }
        if self.pieces == 1 {
            // The clock of a slow head runs from its first byte on.
            self.idle_timer.touch();
            self.idle_timer.set_limit(self.http.client_header);
        }
        None
    }

    fn open_record<'a>(&'a self, tally: &'a Tally, head: Option<(&RequestHead, &[u8])>) -> RequestRecord<'a> {
        RequestRecord::open(self.worker, self.frontend, self.http, self.context, tally, head)
    }

    /// A head that can't be read is answered, and nothing after it.
    async fn refuse(&mut self, status: u16, reason: &str) -> Next {
        let tally = Tally::default();
        let record = self.open_record(&tally, None);
        let page = reply::page(status, reason, Version::Http11, false, false);
        self.reply(&record, &tally, status, &page).await;
        record.ended(Cause::Rejected);
        drop(record);
        self.leave(Cause::Rejected).await
    }

    /// Sends an answer of our own; `false`: the client did not take it.
    async fn reply(&self, record: &RequestRecord<'_>, tally: &Tally, status: u16, page: &[u8]) -> bool {
        record.answered(status);
        self.idle_timer.touch();
        self.idle_timer.set_limit(self.http.client_header);
        let sent = reply::send(self.context.client, page, &self.idle_timer).await;
        if sent {
            tally.answered_by_us(page.len());
            self.frontend.counters(self.worker.id).bytes.add_out(page.len() as u64);
        }
        sent
    }

    /// Finds a backend for the request, and passes on its answer.
    async fn answer(&mut self, head: &RequestHead) -> Next {
        let tally = Tally::default();
        let mut inbox = std::mem::take(&mut self.inbox);
        self.pieces = 0;
        let mut record = self.open_record(&tally, Some((head, &inbox)));
        let (outcome, end, is_whole) = match Request::new(head, &inbox, &self.forwarded_from, self.http) {
            Ok(request) => {
                let outcome = self.exchange(&request, &mut record, &tally).await;
                (outcome, request.end, request.body.is_done())
            }
            Err(error) => (RequestOutcome::Failed(Failure::new(400, error, Cause::Rejected)), inbox.len(), false),
        };
        match outcome {
            RequestOutcome::Answered { client_keeps, overrun } => {
                record.completed();
                drop(record);
                inbox.drain(..end);
                inbox.extend_from_slice(&overrun);
                self.go_on(head, inbox, client_keeps).await
            }
            RequestOutcome::Failed(failure) => {
                let keeps = head.keep_alive && is_whole && failure.status >= 500 && self.may_stay();
                let is_head = head.asked(&inbox).head;
                let page = reply::page(failure.status, &failure.reason, head.version, keeps, is_head);
                let sent = self.reply(&record, &tally, failure.status, &page).await;
                record.ended(failure.cause);
                drop(record);
                inbox.drain(..end);
                if sent && keeps { self.go_on(head, inbox, true).await } else { self.leave(failure.cause).await }
            }
            RequestOutcome::Cut(cause) => {
                record.ended(cause);
                Next::Close(cause)
            }
        }
    }

    /// Whether the client may ask again on this connection.
    fn may_stay(&self) -> bool {
        !self.worker.is_leaving() && !self.frontend.is_replaced()
    }

    /// Waits for the next request, or ends the connection.
    async fn go_on(&mut self, head: &RequestHead, rest: Vec<u8>, keeps: bool) -> Next {
        if keeps {
            self.inbox = rest;
            self.idle_timer.touch();
            self.idle_timer.set_limit(self.http.keep_alive);
            return Next::Request;
        }
        let cause = if head.keep_alive { Cause::BackendClosed } else { Cause::ClientClosed };
        let may_send_more = !rest.is_empty() || !matches!(head.framing, Framing::None);
        if may_send_more { self.leave(cause).await } else { Next::Close(cause) }
    }

    /// Ends the connection so that the client sees all that it was sent.
    async fn leave(&self, cause: Cause) -> Next {
        reply::linger(self.context.client, &self.worker.resources.scratch, &self.idle_timer).await;
        Next::Close(cause)
    }

    /// Tries backends until one has given the request an end that no other could better.
    async fn exchange(&self, request: &Request<'_>, record: &mut RequestRecord<'_>, tally: &Tally) -> RequestOutcome {
        let Session { worker, mut context, .. } = *self;
        let pool = context.upstream.pool();
        let _share = pool.count_connection();
        // A PROXY header names one client: its connection is of no use for another's.
        context.idle_pool = pool.proxy_version().is_none().then_some(&worker.idle_pool);
        let mut may_replay = request.is_replayable();
        let mut connected = connect::to_backend(context, &mut record.attempts).await;
        loop {
            // The lease comes first: it is dropped last, so that the backend's place is given back once its socket is
            // closed.
            let Connected { lease, transport, is_reused } = match connected {
                Ok(connected) => connected,
                Err(refusal) => return no_backend(refusal, record.attempts.failures()),
            };
            let (end, overrun) = self.exchange_with(&transport, &lease, request, record, tally).await;
            connected = match end {
                ExchangeEnd::NotSent if !is_reused => {
                    drop(transport);
                    self.blame(record, &lease, Evidence::ImmediateClose);
                    record.attempts.failed(lease.backend(), ConnectFailure::Reset);
                    drop(lease);
                    connect::to_backend(context, &mut record.attempts).await
                }
                // The backend may close an idle connection at any time: that is no failure, and another one helps.
                ExchangeEnd::NotSent => {
                    drop(transport);
                    connect::reconnect(context, lease, &mut record.attempts).await
                }
                ExchangeEnd::Unanswered(_) if is_reused && may_replay => {
                    drop(transport);
                    may_replay = false;
                    connect::reconnect(context, lease, &mut record.attempts).await
                }
                ExchangeEnd::Unanswered(cause) => {
                    if !is_reused {
                        self.blame(record, &lease, Evidence::EarlyClose);
                    }
                    return RequestOutcome::Failed(Failure::new(502, "the backend closed without an answer", cause));
                }
                ExchangeEnd::Answered { status, backend_keeps, client_keeps } => {
                    self.judge_answer(record, &lease, status);
                    if let Some(idle_pool) = context.idle_pool.filter(|_| backend_keeps && !worker.is_closing()) {
                        idle_pool.put(lease.backend(), transport, self.http.backend_keep_alive, Instant::now());
                    }
                    return RequestOutcome::Answered { client_keeps, overrun };
                }
                ExchangeEnd::Upgraded(to_client) => {
                    lease.record_success(Instant::now());
                    // What the client sent ahead was held back: before the 101 the backend had no claim to it.
                    let early = Early { to_backend: [request.rest(), &overrun].concat(), to_client };
                    return RequestOutcome::Cut(self.tunnel(&transport, &lease, early, tally).await);
                }
                ExchangeEnd::Failed(failure) => {
                    if let Some(evidence) = failure.evidence {
                        self.blame(record, &lease, evidence);
                    }
                    return RequestOutcome::Failed(failure);
                }
                ExchangeEnd::Cut(cause, evidence) => {
                    if let Some(evidence) = evidence {
                        self.blame(record, &lease, evidence);
                    }
                    return RequestOutcome::Cut(cause);
                }
            };
        }
    }

    /// One exchange on one connection; gives also what the client sent beyond its request meanwhile.
    async fn exchange_with(
        &self,
        backend: &Transport,
        lease: &Lease,
        request: &Request<'_>,
        record: &RequestRecord<'_>,
        tally: &Tally,
    ) -> (ExchangeEnd, Vec<u8>) {
        let Session { worker, frontend, limits, http, context, ref idle_timer, .. } = *self;
        let client = context.client;
        let meter = self.meter(lease, tally);
        let pump_context = &PumpContext::new(&worker.resources, &meter, idle_timer);
        let mut unfinished = Unfinished { client, backend, is_cut: true };
        let parties =
            Parties { worker, frontend, limits, http, client, backend, lease, record, pump_context, idle_timer };
        let mut exchange = Exchange::new(parties, request);
        let end = poll_fn(|cx| exchange.poll(cx)).await;
        unfinished.is_cut = matches!(end, ExchangeEnd::Cut(..));
        (end, exchange.into_overrun())
    }

    /// After an upgrade: relays whatever protocol it is now to its end.
    async fn tunnel(&self, backend: &Transport, lease: &Lease, early: Early, tally: &Tally) -> Cause {
        let (meter, resources) = (self.meter(lease, tally), &self.worker.resources);
        let start = Start::After(early);
        match relay::run(self.context.client, backend, resources, &meter, &self.idle_timer, &self.limits, start).await {
            Outcome::Over(cause) => cause,
            Outcome::Untouched => Cause::BackendClosed,
        }
    }

    /// A whole answer is a success, but for the statuses by which a server says that it isn't well, where they count.
    fn judge_answer(&self, record: &RequestRecord<'_>, lease: &Lease, status: u16) {
        let detection = &self.context.upstream.pool().settings().failure_detection;
        let counts_5xx = detection.as_ref().is_some_and(|detection| detection.count_5xx);
        if counts_5xx && (502..=504).contains(&status) {
            self.blame(record, lease, Evidence::Status5xx);
        } else {
            lease.record_success(Instant::now());
        }
    }

    fn blame(&self, record: &RequestRecord<'_>, lease: &Lease, evidence: Evidence) {
        let (pool, client) = (self.context.upstream.pool(), self.context.peer.ip());
        record.span().in_scope(|| pool.record_evidence(lease, evidence, client, Instant::now()));
    }

    fn meter<'a>(&'a self, lease: &'a Lease, tally: &'a Tally) -> Meter<'a> {
        Meter {
            tally,
            listener: &self.frontend.counters(self.worker.id).bytes,
            backend: &lease.backend().counters(self.worker.id).bytes,
            on_first_byte: &|_| {},
        }
    }
}

/// Neither side may take a part for the whole: dropped while this stands, both are reset.
struct Unfinished<'a> {
    client: &'a Transport,
    backend: &'a Transport,
    is_cut: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.is_cut {
            self.client.reset_on_close();
            self.backend.reset_on_close();
        }
    }
}

/// What the client is answered when no backend could be connected to.
fn no_backend(refusal: Refusal, failures: &[ConnectFailure]) -> RequestOutcome {
    let failed = |status, reason, cause| RequestOutcome::Failed(Failure::new(status, reason, cause));
    let cause = match refusal {
        Refusal::Closed(cause) => cause,
        Refusal::Rejected(Rejection::LeftQueue) => return RequestOutcome::Cut(Cause::ClientClosed),
        Refusal::Rejected(_) => return failed(503, "all backends are busy", Cause::Rejected),
    };
    if !failures.is_empty() && failures.iter().all(|failure| *failure == ConnectFailure::Timeout) {
        return failed(504, "no backend accepted the connection in time", cause);
    }
    let reason = match cause {
        Cause::NoBackend => "there is no backend to try",
        Cause::Internal => "the balancer is out of resources",
        _ => "no backend could be connected to",
    };
    failed(503, reason, cause)
}
