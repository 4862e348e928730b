//! The end of one connection: however it comes, the connection is counted exactly once and logged once (in http mode
//! its requests are logged instead).

use std::time::{Duration, SystemTime};

use tracing::Span;

use crate::access_log::Entry;
use crate::backends::Lease;
use crate::lifecycle::ConnectionId;
use crate::net::{Peer, Transport};
use crate::relay::FirstByte;
use crate::telemetry::{Cause, ClientFailure, Rejection};

use super::account::Account;
use super::attempts::Attempts;
use super::client_facts::ClientFacts;

/// Accounts for a connection. Its drop counts and logs it, so that no path can leave that out; dropped without an end,
/// the connection was cut: by an operator, by the drain, or by a bug of ours.
pub(super) struct Record<'a> {
    pub(super) account: &'a Account,
    /// Reset if the connection is cut; `None`: it has no task yet.
    pub(super) client: Option<&'a Transport>,
    pub(super) attempts: Attempts,
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
    pub(super) fn open(account: &'a Account) -> Self {
        Self { account, client: None, attempts: Attempts::default(), end: None }
    }

    pub(super) fn close(mut self, cause: Cause) {
        self.end = Some(ConnectionEnd::Closed(cause));
    }

    pub(super) fn reject(mut self, reason: Rejection) {
        self.end = Some(ConnectionEnd::Rejected(reason));
    }

    /// From now on the backend has something to answer: it was connected to, or the client has sent a first byte.
    pub(super) fn backend_asked(&self) {
        self.account.tally.note_asked(self.account.accepted_at.elapsed());
    }

    /// The first byte of a side, in mode tcp.
    pub(super) fn note_first_byte(&self, first: FirstByte, lease: &Lease) {
        match first {
            FirstByte::OfClient => {
                self.backend_asked();
                lease.may_await_answer();
            }
            FirstByte::OfBackend(now) => {
                let since_accept = now.saturating_duration_since(self.account.accepted_at);
                let took = since_accept.saturating_sub(self.account.tally.asked_after());
                lease.first_byte(self.account.load.worker(), took);
                lease.record_success(now);
            }
        }
    }

    pub(super) fn span(&self) -> Span {
        connection_span(self.account.id, self.account.peer())
    }

    /// Mode http counts its requests.
    fn count_failure(&self, failure: Option<ClientFailure>) {
        let (Some(failure), None) = (failure, &self.account.frontend.http) else { return };
        self.account.frontend.counters(self.account.load.worker()).failed(failure);
        if let Some(upstream) = self.account.upstream() {
            upstream.pool().failures().count(failure);
        }
    }

    fn first_byte(&self) -> Option<Duration> {
        self.account.tally.first_byte().map(|at| at - self.account.accepted_at)
    }

    fn log(&self, duration: Duration, cause: Cause, reason: Option<Rejection>) {
        let Some(log) = &self.account.frontend.access_log else { return };
        log.log(&Entry {
            time: SystemTime::now(),
            connection: self.account.id,
            listener: self.account.frontend.name(),
            client: &self.account.peer(),
            pool: self.account.upstream().map(|upstream| upstream.pool().name()),
            backend: self.attempts.backend(),
            attempts: &self.attempts.list(),
            bytes_in: self.account.tally.bytes_in(),
            bytes_out: self.account.tally.bytes_out(),
            connect: self.attempts.connect_time(),
            first_byte: self.first_byte(),
            duration,
            cause: cause.as_str(),
            reason: reason.map(Rejection::as_str),
            http: None,
            server_name: self.account.facts().and_then(ClientFacts::server_name),
            tls: self.account.facts().and_then(ClientFacts::tls_entry),
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let Account { accepted_at, frontend, load, .. } = self.account;
        let counters = frontend.counters(load.worker());
        let duration = accepted_at.elapsed();
        if let (None, Some(client)) = (self.end, self.client) {
            client.reset_on_close();
        }
        match self.end.unwrap_or_else(|| ConnectionEnd::Closed(self.account.cause_of_cut())) {
            ConnectionEnd::Closed(cause) => {
                counters.closed(cause);
                self.count_failure(ClientFailure::of_end(cause));
                frontend.stats.connection_duration.record(duration);
                // In http mode each request has a first byte and a line of its own.
                if frontend.http.is_none() {
                    if let (Some(first_byte), Some(upstream)) = (self.first_byte(), self.account.upstream()) {
                        upstream.pool().histograms().first_byte.record(first_byte);
                    }
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
