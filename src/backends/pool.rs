//! A pool: its backends as they are known now, and what all of them share.
//!
//! Doesn't know where its backends come from, nor which of them is next.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

use crate::config;
use crate::lifecycle::{Cut, Cutter};
use crate::net::Target;
use crate::protocol::proxy_header;
use crate::telemetry::PoolHistograms;

use super::backend::Backend;
use super::endpoint::Endpoint;
use super::evidence::Evidence;
use super::lease::Lease;
use super::outlier::{BadEnd, Outliers};
use super::pool_events::PoolEvents;
use super::queue::QueueSlot;
use super::retry_budget::{BudgetShare, RetryBudget, RetryPermit};
use super::service::Service;

/// The backends that serve one thing, for as long as the configuration has a pool of this name: a reload changes its
/// settings and its backends, and what is known of those that stay is kept.
#[derive(Debug)]
pub struct Pool {
    name: String,
    settings: ArcSwap<config::PoolConfig>,
    workers: usize,
    backends: ArcSwap<Vec<Arc<Backend>>>,
    events: Arc<PoolEvents>,
    /// Signalled when the set of backends changed.
    replaced: Notify,
    budget: RetryBudget,
    retries: AtomicU64,
    outliers: Outliers,
    histograms: PoolHistograms,
}

impl Pool {
    /// Without a backend yet. `cutter` reaches the connections of clients.
    pub fn new(settings: config::PoolConfig, workers: usize, cutter: Cutter, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            workers,
            backends: ArcSwap::default(),
            events: Arc::new(PoolEvents::new(&settings.name, cutter, now)),
            replaced: Notify::new(),
            budget: RetryBudget::new(settings.retry_budget),
            retries: AtomicU64::new(0),
            outliers: Outliers::default(),
            histograms: PoolHistograms::default(),
            name: settings.name.clone(),
            settings: ArcSwap::from_pointee(settings),
        })
    }

    /// Continues under other settings; its backends are [`Pool::replace`]'s to change.
    pub fn reconfigure(&self, settings: config::PoolConfig, now: Instant) {
        self.budget.set_percent(settings.retry_budget);
        self.backends().iter().for_each(|backend| backend.health().reconfigure(&settings, now));
        self.settings.store(Arc::new(settings));
        self.events.changed(None);
        self.events.notify_all_waiters();
    }

    pub fn histograms(&self) -> &PoolHistograms {
        &self.histograms
    }

    /// Its name in logs and metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As configured now. Not to be held over an await: it would keep the settings of before a reload.
    pub fn settings(&self) -> Guard<Arc<config::PoolConfig>> {
        self.settings.load()
    }

    /// The version of the PROXY header that each connection to a backend begins with; `None`: without one.
    pub fn proxy_version(&self) -> Option<proxy_header::ProxyVersion> {
        self.settings().send_proxy
    }

    /// Every backend, whatever its state, in the order of the configuration.
    pub fn backends(&self) -> Arc<Vec<Arc<Backend>>> {
        self.backends.load_full()
    }

    /// How many backends get new connections, as long as they have room.
    pub fn usable(&self) -> usize {
        self.backends.load().iter().filter(|backend| backend.is_usable()).count()
    }

    /// What its clients get now.
    pub fn service(&self) -> Service {
        Service::of(&self.backends.load(), self.settings().when_all_down)
    }

    /// Makes `wanted` the pool's backends. Those that it had before keep their state and counts; connections to those
    /// that are gone stay open. Called by the pool's membership only.
    pub fn replace(&self, wanted: Vec<Endpoint>, now: Instant) {
        let before = self.backends();
        let known: HashMap<&Target, &Arc<Backend>> = before.iter().map(|backend| (backend.target(), backend)).collect();
        let mut is_changed = !before.iter().map(|backend| backend.target()).eq(wanted.iter().map(|one| &one.target));
        let mut take = |endpoint: Endpoint| match known.get(&endpoint.target) {
            Some(backend) => {
                is_changed |= backend.update_from(&endpoint);
                (*backend).clone()
            }
            None => Backend::new(&endpoint, &self.settings(), self.workers, self.events.clone(), now),
        };
        let backends: Vec<_> = wanted.into_iter().map(&mut take).collect();
        if !is_changed {
            return;
        }
        let staying: HashSet<_> = backends.iter().map(Arc::as_ptr).collect();
        before
            .iter()
            .filter(|backend| !staying.contains(&Arc::as_ptr(backend)))
            .for_each(|backend| backend.mark_removed());
        self.backends.store(Arc::new(backends));
        self.events.changed(None);
        self.events.notify_all_waiters();
        self.replaced.notify_waiters();
    }

    /// The configuration has it no more: connections of its clients stay open and may still need a backend, and nothing
    /// is kept for later ones.
    pub fn mark_removed(&self) {
        self.events.retire();
    }

    /// Whether another backend may be tried for a client for whom `tried` of them failed.
    pub fn may_retry_after(&self, tried: usize) -> bool {
        tried < self.settings().attempts.get() && tried < self.backends.load().len()
    }

    /// Waits until the set of backends changes. Safe to cancel.
    pub async fn replaced(&self) {
        self.replaced.notified().await;
    }

    /// Cuts the connections of these backends.
    pub(super) fn cut<'a>(&self, backends: impl IntoIterator<Item = &'a Arc<Backend>>, why: Cut) {
        self.events.cutter().cut(backends.into_iter().map(|backend| backend.id()).collect(), why);
    }

    /// Counts a client connection of this pool while the result lives.
    pub fn count_connection(&self) -> BudgetShare<'_> {
        self.budget.count_connection()
    }

    /// Waits for a retry within the budget, at most as long as a connect may take. Safe to cancel.
    pub async fn retry(&self) -> Option<RetryPermit<'_>> {
        let limit = self.settings().connect_timeout;
        let retry = self.budget.retry(limit).await?;
        self.retries.fetch_add(1, Ordering::Relaxed);
        Some(retry)
    }

    /// Retries so far.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Whether clients wait for room: one that comes now waits behind them.
    pub fn has_queue(&self) -> bool {
        self.events.waiting().load(Ordering::Acquire) > 0
    }

    /// A place in the queue for room; `None`: it is full.
    pub fn queue(&self) -> Option<QueueSlot<'_>> {
        QueueSlot::take(&self.events, self.settings().queue.length)
    }

    /// Clients that wait for room now.
    pub fn waiting(&self) -> usize {
        self.events.waiting().load(Ordering::Relaxed)
    }

    /// Changes whenever a backend's state or share does, or the set of them.
    pub fn generation(&self) -> u64 {
        self.events.generation()
    }

    /// Waits until the generation is another than `seen`, and gives it. Safe to cancel.
    pub async fn generation_after(&self, seen: u64) -> u64 {
        self.events.generation_after(seen).await
    }

    /// A connection ended in a way that may be its backend's fault: counts it, and where failure detection counts it
    /// too, ejects the backend if it stands out among its peers. `client`: `None` for a unix socket's.
    pub fn record_evidence(&self, lease: &Lease, evidence: Evidence, client: Option<IpAddr>, now: Instant) {
        let settings = self.settings();
        let counts = settings.failure_detection.as_ref().is_some_and(|detection| evidence.counts(detection));
        let backend = lease.backend();
        backend.counts().ended_badly(evidence);
        backend.health().note_error(evidence.describe());
        if counts && lease.settle() {
            let end = BadEnd { lease, evidence, client, now, now_millis: self.events.millis(now) };
            self.outliers.judge(&end, &settings, &self.backends.load());
        }
    }

    /// Does what the clock asks for, and gives the connection that is to probe a backend now, where one is due. One
    /// load when nothing is.
    pub fn due_probe(&self, now: Instant) -> Option<Lease> {
        if !self.events.take_due_event(now) {
            return None;
        }
        let backends = self.backends();
        backends.iter().for_each(|backend| backend.health().tick(now));
        let probe = backends.iter().find_map(|backend| Lease::take_probe(backend, now));
        backends.iter().for_each(|backend| self.events.look_again_at(backend.health().next_event(now)));
        probe
    }
}
