//! What one backend's connections add up to.
//!
//! Counts only; whether a number is bad is not decided here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::net::ConnectFailure;
use crate::telemetry::{Answer, BackendCounters, LatencyBuckets, PerWorker, Traffic};

use super::evidence::Evidence;
use super::unanswered::Unanswered;

/// Totals since the backend came into its pool.
#[derive(Debug)]
pub(super) struct Counts {
    connections: AtomicU64,
    connect_failures: [AtomicU64; ConnectFailure::ALL.len()],
    bad_ends: [AtomicU64; Evidence::ALL.len()],
    pub(super) unanswered: Unanswered,
    /// 0: none was made yet.
    last_connect_micros: AtomicU64,
    pub(super) first_byte: LatencyBuckets,
    workers: PerWorker<BackendCounters>,
}

impl Counts {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            connections: AtomicU64::default(),
            connect_failures: Default::default(),
            bad_ends: Default::default(),
            unanswered: Unanswered::default(),
            last_connect_micros: AtomicU64::default(),
            first_byte: LatencyBuckets::default(),
            workers: PerWorker::new(workers),
        }
    }

    pub(super) fn connected(&self, took: Duration) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.last_connect_micros.store(micros, Ordering::Relaxed);
    }

    pub(super) fn connect_failed(&self, failure: ConnectFailure) {
        self.connect_failures[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended_badly(&self, evidence: Evidence) {
        self.bad_ends[evidence as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer, by the worker that has it.
    pub(super) fn answered(&self, worker: usize, answer: Answer, took: Duration) {
        self.workers.worker(worker).answered(answer, took);
        self.first_byte.record(took);
    }

    pub(super) fn worker(&self, worker: usize) -> &BackendCounters {
        self.workers.worker(worker)
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn connect_failures(&self) -> [u64; ConnectFailure::ALL.len()] {
        self.connect_failures.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) fn bad_ends(&self) -> [u64; Evidence::ALL.len()] {
        self.bad_ends.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) fn last_connect(&self) -> Option<Duration> {
        let micros = self.last_connect_micros.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// By [`Answer`].
    pub(super) fn answers(&self) -> [u64; Answer::ALL.len()] {
        let add = |sums: [u64; Answer::ALL.len()], of_worker: [u64; Answer::ALL.len()]| {
            std::array::from_fn(|index| sums[index] + of_worker[index])
        };
        self.workers.iter().map(BackendCounters::answers).fold(Default::default(), add)
    }

    pub(super) fn waited(&self) -> Duration {
        self.workers.iter().map(BackendCounters::waited).sum()
    }

    pub(super) fn idle(&self) -> usize {
        self.workers.iter().map(|worker| worker.idle.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn bytes(&self) -> Traffic {
        self.workers.iter().map(|worker| worker.bytes.total()).sum()
    }
}
