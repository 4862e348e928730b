//! The hold that one connection has on a backend: counted while it lasts. It may say once how the backend did; if it
//! doesn't, that shows nothing.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::DialError;
use crate::telemetry::Answer;

use super::backend::Backend;
use super::detection::Began;

/// A backend must hold a probe's connection for so long to be well: from the connect on, and where an answer is awaited
/// from its first byte on.
const PROBE_HOLDS: Duration = Duration::from_secs(1);

/// One connection's hold on a backend; in http mode, one request's.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
    began: Began,
    /// Whether it has said how the backend did: the first verdict counts.
    is_settled: Cell<bool>,
}

impl Lease {
    /// Takes a connection to `backend`, whatever its state; `None`: it has as many as it may.
    pub fn take(backend: &Arc<Backend>) -> Option<Self> {
        Self::take_as(backend, backend.health().begin())
    }

    /// Takes the one connection that may find out whether `backend` is well again, if that is due and it has room.
    pub(super) fn take_probe(backend: &Arc<Backend>, now: Instant) -> Option<Self> {
        if !backend.has_room() {
            return None;
        }
        let began = backend.health().begin_probe(now)?;
        let lease = Self::take_as(backend, began);
        if lease.is_none() {
            backend.health().probe_abandoned(now, began);
        }
        lease
    }

    fn take_as(backend: &Arc<Backend>, began: Began) -> Option<Self> {
        backend.try_acquire().then(|| Self { backend: backend.clone(), began, is_settled: Cell::new(false) })
    }

    /// The backend held.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The connection was made, in `took`.
    pub fn connected(&self, took: Duration, now: Instant) {
        self.backend.counts().connected(took);
        self.probe_holds(now);
    }

    /// The connection could not be made.
    pub fn connect_failed(self, error: impl Into<DialError>, now: Instant) {
        let error = error.into();
        let failure = error.failure;
        self.backend.counts().connect_failed(failure);
        self.backend.health().note_error(&error.summary());
        if failure.is_backends_fault() && !self.backend.is_removed() && self.settle() {
            self.backend.health().connect_failed(now, self.began, failure);
        }
    }

    /// The client has asked for something, and no backend that is well leaves it without an answer.
    pub fn awaits_answer(&self) {
        self.probe_awaits_answer(true);
    }

    /// The client has sent something, to which there may be no answer: only a backend that is out for how its
    /// connections ended has to give one.
    pub fn may_await_answer(&self) {
        self.probe_awaits_answer(false);
    }

    /// The backend has begun to answer a request, and may take long: whether all of it comes is another question.
    pub fn answer_began(&self, worker: usize, answer: Answer, took: Duration, now: Instant) {
        self.backend.counts().answered(worker, answer, took);
        self.probe_holds(now);
    }

    /// The first byte came so long after the client had asked, or after the connect where the backend speaks first.
    pub fn first_byte(&self, worker: usize, took: Duration) {
        self.backend.counts().answered(worker, Answer::Byte, took);
    }

    /// The backend answered, or took the client's bytes to their end. The first time it counts.
    pub fn record_success(&self, now: Instant) {
        self.backend.counts().unanswered.answered();
        if self.settle() {
            self.backend.health().record_success(now, self.began);
        }
    }

    /// The client had asked, and left before a byte of an answer: counted, and no evidence.
    pub fn client_left_unanswered(&self, now: Instant) {
        self.backend.client_left_unanswered(now);
    }

    /// Whether it is the first to say how the backend did.
    pub(super) fn settle(&self) -> bool {
        !self.is_settled.replace(true)
    }

    pub(super) fn began(&self) -> Began {
        self.began
    }

    fn probe_awaits_answer(&self, is_sure: bool) {
        if self.is_probe() {
            self.backend.health().probe_awaits_answer(self.began, is_sure);
        }
    }

    fn probe_holds(&self, now: Instant) {
        if self.is_probe() {
            self.backend.health().probe_lasts(now, self.began, now + PROBE_HOLDS);
        }
    }

    fn is_probe(&self) -> bool {
        matches!(self.began, Began::Probe(_))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_probe() && !self.is_settled.get() {
            self.backend.health().probe_abandoned(Instant::now(), self.began);
        }
        self.backend.release();
    }
}
