//! One backend of a pool, shared by all workers: its address, its place in the pool, its connections.
//!
//! How it fares is in [`Health`], what it adds up to in [`Counts`]; which backend is next is not known here.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::config;
use crate::lifecycle::{BackendId, Cut};
use crate::net::Target;
use crate::telemetry::{BackendCounters, LatencyBuckets};
use crate::tls::ServerName;

use super::admin_state::AdminState;
use super::check_log::CheckLog;
use super::counts::Counts;
use super::endpoint::{CheckPlace, Endpoint, server_name};
use super::health::Health;
use super::pool_events::PoolEvents;
use super::rise_fall::CheckFinding;
use super::snapshot::BackendSnapshot;
use super::status::BackendState;

/// What is next for one that an operator removes.
const REMOVAL: &str = "removed once its connections have ended";

/// One server of a pool.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    target: Target,
    label: Arc<str>,
    weight: AtomicU16,
    rank: AtomicU8,
    /// 0: any number.
    max_connections: AtomicUsize,
    active: AtomicUsize,
    is_removed: AtomicBool,
    /// It drains, to be removed then.
    is_leaving: AtomicBool,
    gives_up_turn: AtomicBool,
    check_place: ArcSwap<CheckPlace>,
    check_log: CheckLog,
    health: Health,
    counts: Counts,
    events: Arc<PoolEvents>,
}

impl Backend {
    pub(super) fn new(
        endpoint: &Endpoint,
        settings: &config::PoolConfig,
        workers: usize,
        events: Arc<PoolEvents>,
        now: Instant,
    ) -> Arc<Self> {
        let label: Arc<str> = endpoint.target.to_string().into();
        let backend = Self {
            id: BackendId::unique(),
            target: endpoint.target.clone(),
            health: Health::new(label.clone(), events.clone(), settings, now),
            label,
            weight: AtomicU16::default(),
            rank: AtomicU8::default(),
            max_connections: AtomicUsize::default(),
            active: AtomicUsize::new(0),
            is_removed: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            gives_up_turn: AtomicBool::new(false),
            check_place: ArcSwap::default(),
            check_log: CheckLog::default(),
            counts: Counts::new(workers),
            events,
        };
        backend.update_from(endpoint);
        Arc::new(backend)
    }

    /// Takes on the weight, rank and limit of `endpoint`; true where something changed that picks go by.
    pub(super) fn update_from(&self, endpoint: &Endpoint) -> bool {
        if **self.check_place.load() != endpoint.check {
            self.check_place.store(Arc::new(endpoint.check.clone()));
        }
        let max = endpoint.max_connections.map_or(0, NonZeroUsize::get);
        let weight = self.weight.swap(endpoint.weight, Ordering::Relaxed);
        let rank = self.rank.swap(endpoint.rank, Ordering::Relaxed);
        let limit = self.max_connections.swap(max, Ordering::Relaxed);
        (weight, rank, limit) != (endpoint.weight, endpoint.rank, max)
    }

    /// By which its connections are known.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// Where it listens.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its address as text: its name in logs, metrics and the API.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its share of new connections, 0 to 256.
    pub fn weight(&self) -> u16 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Its weight in parts of its share: what it counts for while it starts slowly.
    pub fn effective_weight(&self) -> u32 {
        u32::from(self.weight()) * self.health.share()
    }

    /// 0: a primary. A backup is used only when no backend of a lower rank is usable.
    pub fn rank(&self) -> u8 {
        self.rank.load(Ordering::Relaxed)
    }

    /// Connections at once; `None`: any number.
    pub fn max_connections(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.max_connections.load(Ordering::Relaxed))
    }

    /// Open connections.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether one more connection would be within its limit.
    pub fn has_room(&self) -> bool {
        // SeqCst: a client in the queue looks by it, the other half of `Queue::take_place`.
        self.max_connections().is_none_or(|max| self.active.load(Ordering::SeqCst) < max.get())
    }

    /// The state now.
    pub fn state(&self) -> BackendState {
        self.health.state()
    }

    /// Whether its state is [`BackendState::Up`].
    pub fn is_up(&self) -> bool {
        self.state() == BackendState::Up
    }

    /// Whether it gets new connections, as long as it has room. True to the moment: tables of backends may be older.
    pub fn is_usable(&self) -> bool {
        self.is_up() && self.takes_part()
    }

    /// Whether an operator and the pool want it to serve, however it fares.
    pub fn is_in_service(&self) -> bool {
        !self.state().is_by_operator() && self.takes_part()
    }

    /// The same, and health checks let it pass.
    pub fn passes_checks(&self) -> bool {
        self.is_in_service() && !self.state().is_by_checks()
    }

    /// Whether its next connection decides if it comes back, or one is doing so.
    pub(super) fn awaits_probe(&self, now: Instant) -> bool {
        self.passes_checks() && self.health.awaits_probe(now)
    }

    /// Whether it failed within the detection's window: a retry has better chances elsewhere.
    pub fn is_suspect(&self, now: Instant) -> bool {
        self.health.is_suspect(now)
    }

    /// Whether a connection is worth keeping for later: the pool still has it, and no operator is emptying it.
    pub fn accepts_idle(&self) -> bool {
        !self.is_removed() && !self.events.is_retired() && !self.state().is_by_operator()
    }

    /// What one worker counts of it.
    pub fn counters(&self, worker: usize) -> &BackendCounters {
        self.counts.worker(worker)
    }

    /// Does what an operator wants; true where that is news.
    pub fn set_admin_state(&self, admin_state: AdminState, now: Instant) -> bool {
        self.health.set_admin_state(admin_state, now)
    }

    /// Takes the result of a health check.
    pub(super) fn record_check(&self, result: CheckFinding<'_>, now: Instant) {
        if self.health.record_check(result, now) {
            self.events.cutter().cut([self.id].into(), Cut::BackendDown);
        }
    }

    /// Its first-byte times.
    pub fn first_byte(&self) -> &LatencyBuckets {
        &self.counts.first_byte
    }

    /// What it is like now.
    pub fn snapshot(&self, now: Instant) -> BackendSnapshot {
        let (health, checks) = (self.health.snapshot(now), self.check_log.so_far());
        BackendSnapshot {
            state: health.state,
            since: health.since,
            next: if self.is_leaving() { Some(REMOVAL.to_owned()) } else { health.next },
            reason: health.reason,
            active: self.active(),
            idle: self.counts.idle(),
            total: self.counts.connections(),
            answers: self.counts.answers(),
            waited: self.counts.waited(),
            connect_failures: self.counts.connect_failures(),
            bad_ends: self.counts.bad_ends(),
            unanswered: self.counts.unanswered.total(),
            ejections: health.ejections,
            ejected_for: health.ejected_for,
            last_connect: self.counts.last_connect(),
            last_error: health.last_error,
            checks: checks.counts,
            last_check: checks.last,
            bytes: self.counts.bytes(),
        }
    }

    /// Whether it passes this turn on, which it does once for each turn that it gave up.
    pub fn passes_turn(&self) -> bool {
        self.gives_up_turn.load(Ordering::Relaxed) && self.gives_up_turn.swap(false, Ordering::Relaxed)
    }

    /// Lets its next turn be another's.
    pub(super) fn give_up_turn(&self) {
        self.gives_up_turn.store(true, Ordering::Relaxed);
    }

    /// Counts one more connection, unless it has as many as it may.
    pub(super) fn try_acquire(&self) -> bool {
        let Some(max) = self.max_connections() else {
            self.active.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        // Never above the limit, not even for a moment: another worker would take the backend for full. SeqCst: the
        // other half of `Queue::take_place`.
        let one_more = |active| (active < max.get()).then_some(active + 1);
        self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    /// Gives back what [`Backend::try_acquire`] gave.
    pub(super) fn release(&self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
        self.events.queue().call_one();
    }

    /// A client that had asked left before a byte of an answer.
    pub(super) fn client_left_unanswered(&self, now: Instant) {
        if let Some(in_a_row) = self.counts.unanswered.left(self.events.millis(now)) {
            let (pool, backend) = (self.events.pool(), &*self.label);
            tracing::warn!(pool, backend, in_a_row, "clients leave without an answer");
        }
    }

    /// Where its health check goes.
    /// What its certificate must be for, unless the pool says another name.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        server_name(self.check_place.load().host.as_deref(), &self.target)
    }

    pub(super) fn check_place(&self) -> Arc<CheckPlace> {
        self.check_place.load_full()
    }

    /// How its health checks went.
    pub(super) fn check_log(&self) -> &CheckLog {
        &self.check_log
    }

    /// It is in no pool any more; its connections stay open.
    pub(super) fn mark_removed(&self) {
        self.is_removed.store(true, Ordering::Relaxed);
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether it is to be removed once its connections have ended.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    pub(super) fn set_leaving(&self, is_leaving: bool) {
        self.is_leaving.store(is_leaving, Ordering::Relaxed);
    }

    /// Whether its pool has it.
    pub fn is_in_pool(&self) -> bool {
        !self.is_removed()
    }

    /// No pool has it, or not any more.
    pub(super) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Relaxed)
    }

    /// Its pool has it, and gives it a share.
    fn takes_part(&self) -> bool {
        !self.is_removed() && self.weight() > 0
    }
}
