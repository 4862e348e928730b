//! The account of one connection: however it ends, it is counted exactly once and logged once (in http mode its
//! requests are logged instead).

use std::time::{Duration, SystemTime};

use tracing::Span;

use crate::access_log::Entry;
use crate::backends::Lease;
use crate::lifecycle::ConnectionId;
use crate::net::{Peer, Transport};
use crate::relay::{FirstByte, Tally};
use crate::telemetry::{Cause, ClientFailure, Rejection};

use super::arrival::Arrival;
use super::attempts::Attempts;
use super::client_facts::ClientFacts;
use super::upstream::Upstream;

/// What is known of a connection so far. Its drop counts and logs it, so that no path can leave that out; dropped
/// without an end, the connection was cut: by the drain, or by a bug of ours.
pub(super) struct Record<'a> {
    pub(super) arrival: &'a Arrival,
    /// Reset if the connection is cut; `None`: it has no task yet.
    pub(super) client: Option<&'a Transport>,
    /// Who the client is: the peer, or whom its PROXY header names.
    pub(super) peer: Peer,
    /// Boxed: few listeners learn of any.
    pub(super) facts: Option<Box<ClientFacts>>,
    /// The pool that serves it, once that is known.
    pub(super) upstream: Option<&'a Upstream>,
    pub(super) attempts: Attempts,
    pub(super) tally: &'a Tally,
    end: Option<ConnectionEnd>,
}

#[derive(Clone, Copy)]
enum ConnectionEnd {
    Closed(Cause),
    Rejected(Rejection),
}

/// The span of a connection's log lines: by its id they can be joined with the connection's line of the access log.
///
/// Made where something is about to be logged, not once a connection: nearly all log nothing, and a span of their own
/// would cost each an allocation and 40 bytes of its task.
pub(super) fn connection_span(id: ConnectionId, peer: Peer) -> Span {
    // At level error, so that the filter never drops the span of a line that it shows.
    tracing::error_span!("connection", %id, client = %peer)
}

impl<'a> Record<'a> {
    pub(super) fn open(arrival: &'a Arrival, tally: &'a Tally) -> Self {
        let (peer, attempts) = (arrival.peer, Attempts::default());
        Self { arrival, client: None, peer, facts: None, upstream: None, attempts, tally, end: None }
    }

    pub(super) fn close(mut self, cause: Cause) {
        self.end = Some(ConnectionEnd::Closed(cause));
    }

    pub(super) fn reject(mut self, reason: Rejection) {
        self.end = Some(ConnectionEnd::Rejected(reason));
    }

    /// From now on the backend has something to answer: it was connected to, or the client has sent a first byte.
    pub(super) fn backend_asked(&self) {
        self.tally.note_asked(self.arrival.accepted_at.elapsed());
    }

    /// The first byte of a side, in mode tcp.
    pub(super) fn note_first_byte(&self, first: FirstByte, lease: &Lease) {
        match first {
            FirstByte::OfClient => {
                self.backend_asked();
                lease.may_await_answer();
            }
            FirstByte::OfBackend(now) => {
                let since_accept = now.saturating_duration_since(self.arrival.accepted_at);
                let took = since_accept.saturating_sub(self.tally.asked_after());
                lease.first_byte(self.arrival.load.worker(), took);
                lease.record_success(now);
            }
        }
    }

    pub(super) fn span(&self) -> Span {
        connection_span(self.arrival.id, self.peer)
    }

    /// Mode http counts its requests.
    fn count_failure(&self, failure: Option<ClientFailure>) {
        let (Some(failure), None) = (failure, &self.arrival.frontend.http) else { return };
        self.arrival.frontend.counters(self.arrival.load.worker()).failed(failure);
        if let Some(upstream) = self.upstream {
            upstream.pool().failures().count(failure);
        }
    }

    fn first_byte(&self) -> Option<Duration> {
        self.tally.first_byte().map(|at| at - self.arrival.accepted_at)
    }

    fn log(&self, duration: Duration, cause: Cause, reason: Option<Rejection>) {
        let Some(log) = &self.arrival.frontend.access_log else { return };
        log.log(&Entry {
            time: SystemTime::now(),
            connection: self.arrival.id,
            listener: self.arrival.frontend.name(),
            client: &self.peer,
            pool: self.upstream.map(|upstream| upstream.pool().name()),
            backend: self.attempts.backend(),
            attempts: &self.attempts.list(),
            bytes_in: self.tally.bytes_in(),
            bytes_out: self.tally.bytes_out(),
            connect: self.attempts.connect_time(),
            first_byte: self.first_byte(),
            duration,
            cause: cause.as_str(),
            reason: reason.map(Rejection::as_str),
            http: None,
            tls: self.facts.as_ref().and_then(|facts| facts.tls_entry()),
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let Arrival { accepted_at, frontend, load, .. } = self.arrival;
        let counters = frontend.counters(load.worker());
        let duration = accepted_at.elapsed();
        if let (None, Some(client)) = (self.end, self.client) {
            client.reset_on_close();
        }
        match self.end.unwrap_or_else(|| ConnectionEnd::Closed(load.cause_of_cut())) {
            ConnectionEnd::Closed(cause) => {
                counters.closed(cause);
                self.count_failure(ClientFailure::of_end(cause));
                frontend.stats.connection_duration.record(duration);
                if let (Some(first_byte), Some(upstream)) = (self.first_byte(), self.upstream) {
                    upstream.pool().histograms().first_byte.record(first_byte);
                }
                // In http mode each request has its own line.
                if frontend.http.is_none() {
                    self.log(duration, cause, None);
                }
            }
            ConnectionEnd::Rejected(reason) => {
                counters.rejected(reason);
                self.count_failure(ClientFailure::of_rejection(reason));
                self.log(duration, Cause::Rejected, Some(reason));
            }
        }
    }
}
