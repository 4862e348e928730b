//! Counters that workers add to without sharing a cache line, and their sums.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::cause::{AcceptError, Cause, Rejection};
use super::failures::{ClientFailure, FailureCounters, FailureTotals};
use super::handshakes::{HandshakeCounters, HandshakeTotals};
use super::histogram::Histogram;
use super::metric::{LATENCY_BUCKETS, LIFE_BUCKETS};

/// A value for each worker, each on cache lines of its own.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[OwnLine<T>]>);

/// 128 bytes: x86 fetches cache lines in pairs, and some ARM cores have lines of that length.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OwnLine<T>(T);

impl<T: Default> PerWorker<T> {
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| OwnLine::default()).collect())
    }

    pub fn worker(&self, worker: usize) -> &T {
        &self.0[worker].0
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|line| &line.0)
    }
}

/// Bytes by direction; metrics call the directions in (from clients) and out (to clients).
#[derive(Debug, Default)]
pub struct ByteCounters {
    to_backend: AtomicU64,
    to_client: AtomicU64,
}

impl ByteCounters {
    /// Adds bytes that came from the client and were taken by the backend.
    pub fn add_in(&self, bytes: u64) {
        self.to_backend.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes that came from the backend and were taken by the client.
    pub fn add_out(&self, bytes: u64) {
        self.to_client.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn total(&self) -> Traffic {
        Traffic {
            to_backend: self.to_backend.load(Ordering::Relaxed),
            to_client: self.to_client.load(Ordering::Relaxed),
        }
    }
}

/// A sum of bytes by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub to_backend: u64,
    pub to_client: u64,
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            to_backend: sum.to_backend + one.to_backend,
            to_client: sum.to_client + one.to_client,
        })
    }
}

labels! {
    /// What a backend gave first on a connection (mode tcp), or its answer to a request, by the status's first digit.
    Answer {
        /// Mode tcp: a first byte.
        Byte = "byte",
        /// 101: the request has become a tunnel.
        Informational = "1xx",
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        /// And statuses beyond those of HTTP.
        ServerError = "5xx",
    }
}

impl Answer {
    pub fn of_status(status: u16) -> Self {
        match status {
            ..200 => Self::Informational,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}

/// What one worker counts of one backend. Only that worker writes it.
#[derive(Debug, Default)]
pub struct BackendCounters {
    pub bytes: ByteCounters,
    /// Connections to it that wait in the idle pool for their next request: a gauge.
    pub idle: AtomicUsize,
    answers: [AtomicU64; Answer::ALL.len()],
    /// Until the first byte, of all answers together.
    waited_micros: AtomicU64,
}

impl BackendCounters {
    /// Counts an answer whose first byte came after this time.
    pub fn answered(&self, answer: Answer, took: Duration) {
        add_own(&self.answers[answer as usize], 1);
        add_own(&self.waited_micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn answers(&self) -> [u64; Answer::ALL.len()] {
        self.answers.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Until the first byte, of all answers together.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.waited_micros.load(Ordering::Relaxed))
    }
}

/// Adds to a counter that has no other writer: cheaper than an addition that keeps others out.
fn add_own(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// What one worker counts of one listener.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    accepted: AtomicU64,
    closed: [AtomicU64; Cause::ALL.len()],
    rejected: [AtomicU64; Rejection::ALL.len()],
    accept_errors: [AtomicU64; AcceptError::ALL.len()],
    failures: FailureCounters,
    /// By [`Answerer`], and by status from 100 to 999; allocated with the first, as only http mode has any.
    requests: [OnceLock<Box<[AtomicU64]>>; Answerer::ALL.len()],
    /// Allocated with the first one: few listeners end TLS.
    handshakes: OnceLock<Box<HandshakeCounters>>,
    pub bytes: ByteCounters,
}

labels! {
    /// Who gave a request its answer.
    Answerer {
        /// The balancer itself: no backend did.
        Lb = "lb",
        /// A backend.
        Backend = "backend",
    }
}

/// The statuses of HTTP (RFC 9110 section 15): three digits, the first from 1 on.
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 900;

/// A listener's name and what is counted of it.
#[derive(Debug)]
pub struct ListenerStats {
    pub name: String,
    pub counters: PerWorker<ListenerCounters>,
    /// The life of each connection.
    pub connection_duration: Histogram,
    /// Mode http: from each request's head to the end of its answer.
    pub request_duration: Histogram,
}

impl ListenerStats {
    pub fn new(name: String, workers: usize) -> Self {
        Self {
            name,
            counters: PerWorker::new(workers),
            connection_duration: Histogram::new(LIFE_BUCKETS),
            request_duration: Histogram::new(LATENCY_BUCKETS),
        }
    }
}

/// The histograms of one pool.
#[derive(Debug)]
pub struct PoolHistograms {
    /// Of each connect that worked.
    pub connect: Histogram,
    /// Of each connection, or request, whose backend sent something.
    pub first_byte: Histogram,
}

impl Default for PoolHistograms {
    fn default() -> Self {
        Self { connect: Histogram::new(LATENCY_BUCKETS), first_byte: Histogram::new(LATENCY_BUCKETS) }
    }
}

impl ListenerCounters {
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of an accepted connection. `Release`: a reader that sees it sees its `accepted` too.
    pub fn closed(&self, cause: Cause) {
        self.closed[cause as usize].fetch_add(1, Ordering::Release);
    }

    /// Counts the refusal of an accepted connection, ordered like its end.
    pub fn rejected(&self, reason: Rejection) {
        self.rejected[reason as usize].fetch_add(1, Ordering::Release);
    }

    /// Counts a client, or a request, that was not served.
    pub fn failed(&self, failure: ClientFailure) {
        self.failures.count(failure);
    }

    /// Counts an HTTP request by the status of its answer.
    pub fn request(&self, status: u16, answerer: Answerer) {
        let requests =
            self.requests[answerer as usize].get_or_init(|| (0..STATUSES).map(|_| AtomicU64::new(0)).collect());
        if let Some(counter) = requests.get(usize::from(status.wrapping_sub(FIRST_STATUS))) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Of its TLS clients.
    pub fn handshakes(&self) -> &HandshakeCounters {
        self.handshakes.get_or_init(Box::default)
    }

    pub fn accept_error(&self, reason: AcceptError) {
        self.accept_errors[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// A listener's counters, summed over the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTotals {
    pub accepted: u64,
    /// By [`Cause`].
    pub closed: [u64; Cause::ALL.len()],
    /// By [`Rejection`].
    pub rejected: [u64; Rejection::ALL.len()],
    /// By [`AcceptError`].
    pub accept_errors: [u64; AcceptError::ALL.len()],
    /// Clients, in mode http requests, that were not served.
    pub failures: FailureTotals,
    /// Answered HTTP requests by status and who answered, without those that never occurred.
    pub requests: BTreeMap<(u16, Answerer), u64>,
    /// `None`: there was no TLS handshake.
    pub handshakes: Option<HandshakeTotals>,
    pub bytes: Traffic,
}

impl ListenerTotals {
    /// Sums up while the workers count on. The ends are read before the beginnings: each end that is read has its
    /// beginning read too, so that [`ListenerTotals::active`] is never negative.
    pub fn sum(counters: &PerWorker<ListenerCounters>) -> Self {
        let closed = sums(counters, |worker| &worker.closed);
        let rejected = sums(counters, |worker| &worker.rejected);
        Self {
            closed,
            rejected,
            accepted: counters.iter().map(|worker| worker.accepted.load(Ordering::Relaxed)).sum(),
            accept_errors: sums(counters, |worker| &worker.accept_errors),
            failures: counters.iter().map(|worker| worker.failures.totals()).sum(),
            requests: requests(counters),
            handshakes: handshakes(counters),
            bytes: counters.iter().map(|worker| worker.bytes.total()).sum(),
        }
    }

    /// Connections that are open: accepted = closed + rejected + active holds by definition.
    pub fn active(&self) -> u64 {
        let ended: u64 = self.closed.iter().chain(&self.rejected).sum();
        self.accepted - ended
    }
}

fn requests(counters: &PerWorker<ListenerCounters>) -> BTreeMap<(u16, Answerer), u64> {
    let mut sums = BTreeMap::new();
    for answerer in Answerer::ALL {
        for of_worker in counters.iter().filter_map(|worker| worker.requests[*answerer as usize].get()) {
            for (status, counter) in (FIRST_STATUS..).zip(of_worker.iter()) {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    *sums.entry((status, *answerer)).or_default() += count;
                }
            }
        }
    }
    sums
}

fn handshakes(counters: &PerWorker<ListenerCounters>) -> Option<HandshakeTotals> {
    let mut sums = None;
    for of_worker in counters.iter().filter_map(|worker| worker.handshakes.get()) {
        sums.get_or_insert_with(HandshakeTotals::default).add(of_worker);
    }
    sums
}

fn sums<const N: usize>(
    counters: &PerWorker<ListenerCounters>,
    pick: impl Fn(&ListenerCounters) -> &[AtomicU64; N],
) -> [u64; N] {
    std::array::from_fn(|index| counters.iter().map(|worker| pick(worker)[index].load(Ordering::Acquire)).sum())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn active_is_never_negative_while_workers_count() {
        let counters = Arc::new(PerWorker::<ListenerCounters>::new(2));
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (counters, stop) = (counters.clone(), stop.clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        counters.worker(worker).accepted();
                        counters.worker(worker).closed(Cause::ClientClosed);
                    }
                })
            })
            .collect();
        for _ in 0..10_000 {
            let totals = ListenerTotals::sum(&counters);
            assert!(totals.active() < u64::MAX / 2, "{totals:?}");
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("the worker only counts");
        }
        assert_eq!(ListenerTotals::sum(&counters).active(), 0);
    }
}
