//! The account of one connection: whatever becomes of it, it is counted and logged exactly once.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::access_log::{Attempt, Entry};
use crate::backends::Backend;
use crate::lifecycle::Phase;
use crate::net::{ConnectFailure, Peer};
use crate::relay::Tally;
use crate::telemetry::{Cause, Rejection};

use super::service::{Service, Worker};

/// What is known of a connection so far. Dropped without a cause it was cut: by the drain, or by a bug of ours.
pub(super) struct Record<'a> {
    worker: &'a Worker,
    service: &'a Service,
    peer: Peer,
    accepted_at: Instant,
    failed_attempts: Vec<(Arc<Backend>, ConnectFailure)>,
    connected: Option<(Arc<Backend>, Duration)>,
    tally: &'a Tally,
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    Closed(Cause),
    Rejected(Rejection),
}

impl<'a> Record<'a> {
    pub(super) fn open(worker: &'a Worker, service: &'a Service, peer: Peer, tally: &'a Tally) -> Self {
        Self {
            worker,
            service,
            peer,
            accepted_at: Instant::now(),
            failed_attempts: Vec::new(),
            connected: None,
            tally,
            end: None,
        }
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn attempt_failed(&mut self, backend: &Arc<Backend>, failure: ConnectFailure) {
        self.failed_attempts.push((backend.clone(), failure));
    }

    /// The backend that was connected to ended before a byte went either way.
    pub(super) fn ended_at_once(&mut self) {
        if let Some((backend, _)) = self.connected.take() {
            self.failed_attempts.push((backend, ConnectFailure::Reset));
        }
    }

    pub(super) fn connected(&mut self, backend: &Arc<Backend>, took: Duration) {
        self.connected = Some((backend.clone(), took));
    }

    /// The connection ended.
    pub(super) fn close(mut self, cause: Cause) {
        self.end = Some(End::Closed(cause));
    }

    /// The connection was refused.
    pub(super) fn reject(mut self, reason: Rejection) {
        self.end = Some(End::Rejected(reason));
    }

    fn first_byte(&self) -> Option<Duration> {
        self.tally.first_byte().map(|at| at - self.accepted_at)
    }

    fn log(&self, duration: Duration, cause: Cause, reason: Option<Rejection>) {
        let Some(log) = &self.service.access_log else { return };
        let failed = self
            .failed_attempts
            .iter()
            .map(|(backend, failure)| Attempt { backend: backend.label(), outcome: failure.word() });
        let connected =
            self.connected.iter().map(|(backend, _)| Attempt { backend: backend.label(), outcome: "connected" });
        let attempts: Vec<Attempt<'_>> = failed.chain(connected).collect();
        log.log(&Entry {
            time: SystemTime::now(),
            listener: self.service.name(),
            client: &self.peer,
            pool: self.service.balancer.pool().name(),
            backend: self.connected.as_ref().map(|(backend, _)| backend.label()),
            attempts: &attempts,
            bytes_in: self.tally.bytes_in(),
            bytes_out: self.tally.bytes_out(),
            connect: self.connected.as_ref().map(|(_, took)| *took),
            first_byte: self.first_byte(),
            duration,
            cause: cause.word(),
            reason: reason.map(Rejection::word),
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let counters = self.service.counters(self.worker.id);
        let cut = if self.worker.drain.phase() >= Phase::Closing { Cause::DrainForced } else { Cause::Internal };
        let duration = self.accepted_at.elapsed();
        match self.end.unwrap_or(End::Closed(cut)) {
            End::Closed(cause) => {
                counters.closed(cause);
                self.service.duration.record(duration);
                if let Some(first_byte) = self.first_byte() {
                    self.service.pool_histograms.first_byte.record(first_byte);
                }
                self.log(duration, cause, None);
            }
            End::Rejected(reason) => {
                counters.rejected(reason);
                self.log(duration, Cause::Rejected, Some(reason));
            }
        }
    }
}
