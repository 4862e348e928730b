//! The client's side of a connection: head after head, and for each an answer.
//!
//! Between two requests it owns no buffer: bytes are received into the worker's scratch buffer, and kept only while
//! the request they belong to is under way.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::backends::Lease;
use crate::lifecycle::Seat;
use crate::net::{ConnectFailure, Peer, Stream};
use crate::protocol::http1::{Framing, RequestHead, Version};
use crate::relay::{self, Early, Limits, Meter, Outcome, Shared, Start, Tally};
use crate::telemetry::{Cause, Rejection};

use super::super::connect::{self, Asker, Connected, Refusal};
use super::super::service::{Service, Worker};
use super::super::upstream::Upstream;
use super::exchange::{End, Exchange, Parties};
use super::record::RequestRecord;
use super::reply;
use super::request::{Origin, Request};
use super::settings::Http;

/// A head that comes in more pieces than this is only read on when a line is complete: reading it again for each byte
/// would let a client buy much work with little.
const PIECES_READ_AT_ONCE: u32 = 32;

/// Serves a client's requests, one after the other, and says why it is over. Dropped, it leaves both sides reset.
pub(in crate::proxy) async fn serve(
    worker: &Worker,
    service: &Service,
    upstream: &Upstream,
    http: &Http,
    client: &Stream,
    (peer, server): (Peer, Option<&SocketAddr>),
) -> Cause {
    let mut session = Session {
        worker,
        service,
        upstream,
        limits: service.limits(upstream),
        http,
        client,
        peer,
        server,
        origin: Origin::new(http, client, peer),
        seat: worker.roster.enter(http.client_header),
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
    service: &'a Service,
    upstream: &'a Upstream,
    limits: Limits,
    http: &'a Http,
    client: &'a Stream,
    peer: Peer,
    /// Where the client connected to, where a PROXY header says it.
    server: Option<&'a SocketAddr>,
    origin: Origin,
    seat: Seat,
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
            let received = worker.tools.scratch.poll_receive(cx, client, |_, fresh| {
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
        match self.seat.poll_overdue(cx) {
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
            self.seat.touch();
            self.seat.set_limit(self.http.client_header);
        }
        None
    }

    /// A head that can't be read is answered, and nothing after it.
    async fn refuse(&mut self, status: u16, reason: &str) -> Next {
        let tally = Tally::default();
        let record = RequestRecord::open(self.worker, self.service, self.upstream, self.http, self.peer, &tally, None);
        let page = reply::page(status, reason, Version::Http11, false, false);
        self.reply(&record, &tally, status, &page).await;
        record.ended(Cause::Rejected.word());
        drop(record);
        reply::linger(self.client, &self.worker.tools.scratch, &self.seat).await;
        Next::Close(Cause::Rejected)
    }

    /// Sends an answer of our own; `false`: the client did not take it.
    async fn reply(&self, record: &RequestRecord<'_>, tally: &Tally, status: u16, page: &[u8]) -> bool {
        record.answered(status);
        self.seat.touch();
        self.seat.set_limit(self.http.client_header);
        let sent = reply::send(self.client, page, &self.seat).await;
        if sent {
            tally.answered_by_us(page.len());
            self.service.counters(self.worker.id).bytes.add_out(page.len() as u64);
        }
        sent
    }

    /// Finds a backend for the request, and passes on its answer.
    async fn answer(&mut self, head: &RequestHead) -> Next {
        let tally = Tally::default();
        let mut inbox = std::mem::take(&mut self.inbox);
        self.pieces = 0;
        let about = Some((head, &inbox[..]));
        let mut record =
            RequestRecord::open(self.worker, self.service, self.upstream, self.http, self.peer, &tally, about);
        let (done, end, is_whole) = match Request::new(head, &inbox, &self.origin, self.http) {
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
                record.ended(failure.cause.word());
                drop(record);
                inbox.drain(..end);
                if sent && keeps { self.go_on(head, inbox, true).await } else { self.leave(failure.cause).await }
            }
            End::Upgraded(_) | End::NotSent | End::Unanswered(_) => unreachable!("`exchange` resolves these"),
            End::Cut(cause) => {
                record.ended(cause.word());
                Next::Close(cause)
            }
        }
    }

    /// Whether the client may ask again on this connection.
    fn may_stay(&self) -> bool {
        !self.worker.is_leaving() && !self.service.is_retired()
    }

    /// Waits for the next request, or ends the connection.
    async fn go_on(&mut self, head: &RequestHead, rest: Vec<u8>, keeps: bool) -> Next {
        if keeps {
            self.inbox = rest;
            self.seat.touch();
            self.seat.set_limit(self.http.keep_alive);
            return Next::Request;
        }
        let cause = if head.keep_alive { Cause::BackendClosed } else { Cause::ClientClosed };
        let may_send_more = !rest.is_empty() || !matches!(head.framing, Framing::None);
        if may_send_more { self.leave(cause).await } else { Next::Close(cause) }
    }

    /// Ends the connection so that the client sees all that it was sent.
    async fn leave(&self, cause: Cause) -> Next {
        reply::linger(self.client, &self.worker.tools.scratch, &self.seat).await;
        Next::Close(cause)
    }

    /// Tries backends until one has given the request an end that no other could better.
    async fn exchange(&self, request: &Request<'_>, record: &mut RequestRecord<'_>, tally: &Tally) -> Done {
        let Session { worker, upstream, client, peer, server, .. } = *self;
        let _member = upstream.pool().join();
        // A PROXY header names one client: its connection is of no use for another's.
        let kept = upstream.pool().proxy_version().is_none().then_some(&worker.kept);
        let asker = Asker { upstream, client, peer, server, kept };
        let mut may_replay = request.is_replayable();
        let mut connected = connect::to_backend(asker, &mut record.attempts).await;
        loop {
            let Connected { stream, lease, is_reused } = match connected {
                Ok(connected) => connected,
                Err(refusal) => return no_backend(refusal, record.attempts.failures()).into(),
            };
            let done = self.exchange_with(&stream, &lease, request, record, tally).await;
            connected = match done.end {
                End::NotSent if !is_reused => {
                    lease.ended_at_once(Instant::now());
                    record.attempts.failed(lease.backend(), ConnectFailure::Reset);
                    drop(lease);
                    connect::to_backend(asker, &mut record.attempts).await
                }
                // The backend had closed what was kept, as it may: that is no failure, and another connection helps.
                End::NotSent => connect::afresh(asker, lease, &mut record.attempts).await,
                End::Unanswered(_) if is_reused && may_replay => {
                    may_replay = false;
                    connect::afresh(asker, lease, &mut record.attempts).await
                }
                End::Unanswered(cause) => {
                    if !is_reused {
                        lease.closed_early(Instant::now());
                    }
                    return End::failed(502, "the backend closed without an answer", cause).into();
                }
                End::Answered { backend_keeps: true, .. } if !worker.is_closing() => {
                    if let Some(kept) = kept {
                        kept.put(lease.backend(), stream, self.http.backend_keep_alive, Instant::now());
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
        backend: &Stream,
        lease: &Lease,
        request: &Request<'_>,
        record: &RequestRecord<'_>,
        tally: &Tally,
    ) -> Done {
        let Session { worker, service, limits, http, client, ref seat, .. } = *self;
        let meter = Meter {
            tally,
            listener: &service.counters(worker.id).bytes,
            backend: &lease.backend().counters(worker.id).bytes,
            on_first_byte: &|_| {},
        };
        let shared = Shared::new(&worker.tools, &meter, seat);
        let mut unfinished = Unfinished { client, backend, is_cut: true };
        let shared = &shared;
        let parties = Parties { worker, service, limits, http, client, backend, lease, record, shared, seat };
        let mut exchange = Exchange::new(parties, request);
        let mut end = poll_fn(|cx| exchange.poll(cx)).await;
        unfinished.is_cut = matches!(end, End::Cut(_));
        let overrun = exchange.into_overrun();
        if let End::Upgraded(outward) = end {
            // What the client sent ahead was held back until now: before the 101 it was no business of the backend's.
            let early = Early { inward: [request.rest(), &overrun].concat(), outward };
            let start = Start::After(early);
            end = match relay::run(client, backend, &worker.tools, &meter, seat, &limits, start).await {
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
    client: &'a Stream,
    backend: &'a Stream,
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
