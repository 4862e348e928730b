//! The account of one connection: whatever becomes of it, it is counted exactly once, and logged (in http mode its requests are).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::access_log::{Attempt, Entry};
use crate::backends::Backend;
use crate::lifecycle::ConnectionId;
use crate::net::{ConnectFailure, Peer};
use crate::relay::Tally;
use crate::telemetry::{Cause, Rejection};

use super::frontend::{Frontend, Worker};
use super::upstream::Upstream;

/// The backends tried for one connection, or in http mode for one request.
#[derive(Default)]
pub(super) struct Attempts {
    /// Boxed: most connections have none, and idle ones would all be larger by it.
    failed: Option<Box<FailedAttempts>>,
    connected: Option<(Arc<Backend>, Option<Duration>)>,
}

#[derive(Default)]
struct FailedAttempts {
    backends: Vec<Arc<Backend>>,
    /// Why each of them failed.
    failures: Vec<ConnectFailure>,
}

impl Attempts {
    /// Those that failed; none is tried again.
    pub(super) fn tried(&self) -> &[Arc<Backend>] {
        self.failed.as_ref().map_or(&[], |failed| &failed.backends)
    }

    /// Why they failed, in the same order.
    pub(super) fn failures(&self) -> &[ConnectFailure] {
        self.failed.as_ref().map_or(&[], |failed| &failed.failures)
    }

    pub(super) fn failed(&mut self, backend: &Arc<Backend>, failure: ConnectFailure) {
        let failed = self.failed.get_or_insert_default();
        failed.backends.push(backend.clone());
        failed.failures.push(failure);
        self.connected = None;
    }

    /// Connected, in `took`; `None`: the connection was there already.
    pub(super) fn connected(&mut self, backend: &Arc<Backend>, took: Option<Duration>) {
        self.connected = Some((backend.clone(), took));
    }

    /// The one that serves.
    pub(super) fn backend(&self) -> Option<&str> {
        self.connected.as_ref().map(|(backend, _)| backend.label())
    }

    /// How long the connect that worked took.
    pub(super) fn connect_time(&self) -> Option<Duration> {
        self.connected.as_ref().and_then(|(_, took)| *took)
    }

    /// All of them, for the access log.
    pub(super) fn list(&self) -> Vec<Attempt<'_>> {
        let failed = self.tried().iter().zip(self.failures());
        let failed = failed.map(|(backend, failure)| Attempt { backend: backend.label(), outcome: failure.as_str() });
        let connected = self.connected.iter().map(|(backend, took)| Attempt {
            backend: backend.label(),
            outcome: if took.is_some() { Attempt::CONNECTED } else { Attempt::REUSED },
        });
        failed.chain(connected).collect()
    }
}

/// What is known of a connection so far. Dropped without a cause it was cut: by the drain, or by a bug of ours.
pub(super) struct Record<'a> {
    worker: &'a Worker,
    frontend: &'a Frontend,
    pub(super) id: ConnectionId,
    /// Who the client is: the peer, or whom its PROXY header names.
    pub(super) peer: Peer,
    accepted_at: Instant,
    /// The pool that serves it, once that is known.
    pub(super) upstream: Option<&'a Upstream>,
    pub(super) attempts: Attempts,
    tally: &'a Tally,
    end: Option<ConnectionEnd>,
}

#[derive(Clone, Copy)]
enum ConnectionEnd {
    Closed(Cause),
    Rejected(Rejection),
}

impl<'a> Record<'a> {
    pub(super) fn open(worker: &'a Worker, frontend: &'a Frontend, peer: Peer, tally: &'a Tally) -> Self {
        let (id, accepted_at, attempts) = (ConnectionId::next(), Instant::now(), Attempts::default());
        Self { worker, frontend, id, peer, accepted_at, upstream: None, attempts, tally, end: None }
    }

    /// The connection ended.
    pub(super) fn close(mut self, cause: Cause) {
        self.end = Some(ConnectionEnd::Closed(cause));
    }

    /// The connection was refused.
    pub(super) fn reject(mut self, reason: Rejection) {
        self.end = Some(ConnectionEnd::Rejected(reason));
    }

    fn first_byte(&self) -> Option<Duration> {
        self.tally.first_byte().map(|at| at - self.accepted_at)
    }

    fn log(&self, duration: Duration, cause: Cause, reason: Option<Rejection>) {
        let Some(log) = &self.frontend.access_log else { return };
        log.log(&Entry {
            time: SystemTime::now(),
            connection: self.id,
            listener: self.frontend.name(),
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
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let counters = self.frontend.counters(self.worker.id);
        let duration = self.accepted_at.elapsed();
        match self.end.unwrap_or_else(|| ConnectionEnd::Closed(self.worker.cause_of_a_cut())) {
            ConnectionEnd::Closed(cause) => {
                counters.closed(cause);
                self.frontend.duration.record(duration);
                if let (Some(first_byte), Some(upstream)) = (self.first_byte(), self.upstream) {
                    upstream.histograms.first_byte.record(first_byte);
                }
                // In http mode each request has its own line.
                if self.frontend.http.is_none() {
                    self.log(duration, cause, None);
                }
            }
            ConnectionEnd::Rejected(reason) => {
                counters.rejected(reason);
                self.log(duration, Cause::Rejected, Some(reason));
            }
        }
    }
}
