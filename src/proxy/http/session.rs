//! The client's side of a connection: head after head, and for each an answer.
//!
//! Between two requests it owns no buffer: bytes are received into the worker's scratch buffer, and kept only while
//! the request they belong to is under way.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::backends::Lease;
use crate::lifecycle::{ConnectionId, IdleTimer};
use crate::net::{ConnectFailure, Peer, Transport};
use crate::protocol::http1::{Framing, RequestHead, Version};
use crate::relay::{self, Early, Limits, Meter, Outcome, PumpContext, Start, Tally};
use crate::telemetry::{Cause, Rejection};

use super::super::connect::{self, ConnectContext, Connected, Refusal};
use super::super::frontend::{Frontend, Worker};
use super::super::upstream::Upstream;
use super::exchange::{End, Exchange, Parties};
use super::record::RequestRecord;
use super::reply;
use super::request::{ForwardedFrom, Request};
use super::settings::Http;

/// A head that comes in more pieces than this is only read on when a line is complete: reading it again for each byte
/// would let a client buy much work with little.
const PIECES_READ_AT_ONCE: u32 = 32;

/// Serves a client's requests, one after the other, and says why it is over. Dropped, it leaves both sides reset.
pub(in crate::proxy) async fn serve(
    worker: &Worker,
    frontend: &Frontend,
    upstream: &Upstream,
    http: &Http,
    client: &Transport,
    connection: ConnectionId,
    (peer, server): (Peer, Option<&SocketAddr>),
) -> Cause {
    let mut session = Session {
        worker,
        frontend,
        upstream,
        limits: frontend.limits(upstream),
        http,
        client,
        connection,
        peer,
        server,
        forwarded_from: ForwardedFrom::new(http, client, peer),
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
    upstream: &'a Upstream,
    limits: Limits,
    http: &'a Http,
    client: &'a Transport,
    connection: ConnectionId,
    peer: Peer,
    /// Where the client connected to, where a PROXY header says it.
    server: Option<&'a SocketAddr>,
    forwarded_from: ForwardedFrom,
    idle_timer: IdleTimer,
    /// Received and not yet answered. Bounded by the head's limit and one read.
    inbox: Vec<u8>,
    /// Reads that the head under way took so far.
    pieces: u32,
}

/// What came of waiting for a request.
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

impl Session<'_> {
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        // What was sent ahead, in the pipelined manner.
        if self.pieces == 0
            && !self.inbox.is_empty()
            && let Some(arrival) = self.read_head(&[])
        {
            return Poll::Ready(arrival);
        }
        let Session { worker, client, .. } = *self;
        loop {
            let received = worker.resources.scratch.poll_receive(cx, client, |_, fresh| {
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
        match self.idle_timer.poll_expired(cx) {
            false => Poll::Pending,
            true if self.inbox.is_empty() => Poll::Ready(Arrival::Ended(Cause::IdleTimeout)),
            true => {
                let reason = "the request's head did not come in time".to_owned();
                Poll::Ready(Arrival::Refused { status: 408, reason })
            }
        }
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

    /// A head that can't be read is answered, and nothing after it.
    async fn refuse(&mut self, status: u16, reason: &str) -> Next {
        let tally = Tally::default();
        let record = self.open_record(&tally, None);
        let page = reply::page(status, reason, Version::Http11, false, false);
        self.reply(&record, &tally, status, &page).await;
        record.ended(Cause::Rejected.as_str());
        drop(record);
        reply::linger(self.client, &self.worker.resources.scratch, &self.idle_timer).await;
        Next::Close(Cause::Rejected)
    }

    fn open_record<'a>(&self, tally: &'a Tally, head: Option<(&RequestHead, &[u8])>) -> RequestRecord<'a>
    where
        Self: 'a,
    {
        let client = (self.connection, self.peer);
        RequestRecord::open(self.worker, self.frontend, self.upstream, self.http, client, tally, head)
    }

    /// Sends an answer of our own; `false`: the client did not take it.
    async fn reply(&self, record: &RequestRecord<'_>, tally: &Tally, status: u16, page: &[u8]) -> bool {
        record.answered(status);
        self.idle_timer.touch();
        self.idle_timer.set_limit(self.http.client_header);
        let sent = reply::send(self.client, page, &self.idle_timer).await;
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
        let about = Some((head, &inbox[..]));
        let mut record = self.open_record(&tally, about);
        let (done, end, is_whole) = match Request::new(head, &inbox, &self.forwarded_from, self.http) {
            Ok(request) => {
                let done = self.exchange(&request, &mut record, &tally).await;
                (done, request.end, request.body.is_done())
            }
            Err(error) => (End::failed(400, error, Cause::Rejected).into(), inbox.len(), false),
        };
        match done.end {
            End::Answered { client_keeps, .. } => {
                record.completed();
                drop(record);
                inbox.drain(..end);
                inbox.extend_from_slice(&done.overrun);
                self.go_on(head, inbox, client_keeps).await
            }
            End::Failed(failure) => {
                let keeps = head.keep_alive && is_whole && failure.status >= 500 && self.may_stay();
                let is_head = head.asked(&inbox).head;
                let page = reply::page(failure.status, &failure.reason, head.version, keeps, is_head);
                let sent = self.reply(&record, &tally, failure.status, &page).await;
                record.ended(failure.cause.as_str());
                drop(record);
                inbox.drain(..end);
                if sent && keeps { self.go_on(head, inbox, true).await } else { self.mark_removed(failure.cause).await }
            }
            End::Upgraded(_) | End::NotSent | End::Unanswered(_) => unreachable!("`exchange` resolves these"),
            End::Cut(cause) => {
                record.ended(cause.as_str());
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
        if may_send_more { self.mark_removed(cause).await } else { Next::Close(cause) }
    }

    /// Ends the connection so that the client sees all that it was sent.
    async fn mark_removed(&self, cause: Cause) -> Next {
        reply::linger(self.client, &self.worker.resources.scratch, &self.idle_timer).await;
        Next::Close(cause)
    }

    /// Tries backends until one has given the request an end that no other could better.
    async fn exchange(&self, request: &Request<'_>, record: &mut RequestRecord<'_>, tally: &Tally) -> Done {
        let Session { worker, upstream, client, peer, server, .. } = *self;
        let _share = upstream.pool().count_connection();
        // A PROXY header names one client: its connection is of no use for another's.
        let idle_pool = upstream.pool().proxy_version().is_none().then_some(&worker.idle_pool);
        let context = ConnectContext { upstream, client, peer, server, idle_pool };
        let mut may_replay = request.is_replayable();
        let mut connected = connect::to_backend(context, &mut record.attempts).await;
        loop {
            let Connected { stream, lease, is_reused } = match connected {
                Ok(connected) => connected,
                Err(refusal) => return no_backend(refusal, record.attempts.failures()).into(),
            };
            let done = self.exchange_with(&stream, &lease, request, record, tally).await;
            connected = match done.end {
                End::NotSent if !is_reused => {
                    lease.record_immediate_close(Instant::now());
                    record.attempts.failed(lease.backend(), ConnectFailure::Reset);
                    drop(lease);
                    connect::to_backend(context, &mut record.attempts).await
                }
                // The backend had closed what was kept, as it may: that is no failure, and another connection helps.
                End::NotSent => connect::reconnect(context, lease, &mut record.attempts).await,
                End::Unanswered(_) if is_reused && may_replay => {
                    may_replay = false;
                    connect::reconnect(context, lease, &mut record.attempts).await
                }
                End::Unanswered(cause) => {
                    if !is_reused {
                        lease.record_early_close(Instant::now());
                    }
                    return End::failed(502, "the backend closed without an answer", cause).into();
                }
                End::Answered { backend_keeps: true, .. } if !worker.is_closing() => {
                    if let Some(idle_pool) = idle_pool {
                        idle_pool.put(lease.backend(), stream, self.http.backend_keep_alive, Instant::now());
                    }
                    return done;
                }
                _ => return done,
            };
        }
    }

    /// One exchange on one connection; where it becomes a tunnel, to the tunnel's end.
    async fn exchange_with(
        &self,
        backend: &Transport,
        lease: &Lease,
        request: &Request<'_>,
        record: &RequestRecord<'_>,
        tally: &Tally,
    ) -> Done {
        let Session { worker, frontend, limits, http, client, ref idle_timer, .. } = *self;
        let meter = Meter {
            tally,
            listener: &frontend.counters(worker.id).bytes,
            backend: &lease.backend().counters(worker.id).bytes,
            on_first_byte: &|_| {},
        };
        let context = PumpContext::new(&worker.resources, &meter, idle_timer);
        let mut unfinished = Unfinished { client, backend, is_cut: true };
        let context = &context;
        let parties = Parties { worker, frontend, limits, http, client, backend, lease, record, context, idle_timer };
        let mut exchange = Exchange::new(parties, request);
        let mut end = poll_fn(|cx| exchange.poll(cx)).await;
        unfinished.is_cut = matches!(end, End::Cut(_));
        let overrun = exchange.into_overrun();
        if let End::Upgraded(to_client) = end {
            // What the client sent ahead was held back until now: before the 101 it was no business of the backend's.
            let early = Early { to_backend: [request.rest(), &overrun].concat(), to_client };
            let start = Start::After(early);
            end = match relay::run(client, backend, &worker.resources, &meter, idle_timer, &limits, start).await {
                Outcome::Over(cause) => End::Cut(cause),
                Outcome::Untouched => End::Cut(Cause::BackendClosed),
            };
        }
        Done { end, overrun }
    }
}

/// How an exchange ended, and what the client sent beyond its request meanwhile.
struct Done {
    end: End,
    overrun: Vec<u8>,
}

impl From<End> for Done {
    fn from(end: End) -> Self {
        Self { end, overrun: Vec::new() }
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

/// What the client is told when no backend could be connected to.
fn no_backend(refusal: Refusal, failures: &[ConnectFailure]) -> End {
    let cause = match refusal {
        Refusal::Closed(cause) => cause,
        Refusal::Rejected(Rejection::LeftQueue) => return End::Cut(Cause::ClientClosed),
        Refusal::Rejected(_) => return End::failed(503, "all backends are busy", Cause::Rejected),
    };
    if !failures.is_empty() && failures.iter().all(|failure| *failure == ConnectFailure::Timeout) {
        return End::failed(504, "no backend accepted the connection in time", cause);
    }
    let reason = match cause {
        Cause::NoBackend => "there is no backend to try",
        Cause::Internal => "the balancer is out of resources",
        _ => "no backend could be connected to",
    };
    End::failed(503, reason, cause)
}
