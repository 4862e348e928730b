//! A pool: its backends as they are known now, and what all of them share.
//!
//! Doesn't know where its backends come from, nor which of them is next.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use serde_json::Value;
use tokio::sync::Notify;

use crate::config;
use crate::lifecycle::{Cut, Cutter};
use crate::net::Target;
use crate::protocol::proxy_header;
use crate::telemetry::{FailureCounters, PoolHistograms};

use super::admin_state::AdminState;
use super::backend::Backend;
use super::carried::Expected;
use super::endpoint::{CheckPlace, Endpoint};
use super::evidence::Evidence;
use super::lease::Lease;
use super::named_hosts::NamedHosts;
use super::outlier::{BadEnd, Outliers};
use super::pool_events::PoolEvents;
use super::queue::QueueSlot;
use super::retry_budget::{BudgetShare, RetryBudget, RetryPermit};
use super::service::Service;

/// A backend that is due to be probed and can't be, because it is full or each client that waits has tried it, is not
/// looked at again sooner.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The backends that serve one thing, for as long as the configuration has a pool of this name: a reload changes its
/// settings and its backends, and what is known of those that stay is kept.
#[derive(Debug)]
pub struct Pool {
    name: String,
    settings: ArcSwap<config::PoolConfig>,
    workers: usize,
    backends: ArcSwap<Vec<Arc<Backend>>>,
    unresolved: ArcSwap<Vec<Unresolved>>,
    events: Arc<PoolEvents>,
    /// Signalled when the set of backends changed.
    replaced: Notify,
    budget: RetryBudget,
    retries: AtomicU64,
    outliers: Outliers,
    histograms: PoolHistograms,
    /// What an upgrade has carried on. `None`: this process was started by none.
    expected: Mutex<Option<Expected>>,
    failures: FailureCounters,
    outage: Mutex<Option<SystemTime>>,
    named: NamedHosts,
}

/// A name of the pool, or the target of a service, that doesn't resolve now. What it gave before is still used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    pub name: String,
    /// Why.
    pub error: String,
}

impl Pool {
    /// Without a backend yet. `cutter` reaches the connections of clients.
    pub fn new(settings: config::PoolConfig, workers: usize, cutter: Cutter, now: Instant) -> Arc<Self> {
        let events = Arc::new(PoolEvents::new(&settings.name, cutter, now));
        Arc::new(Self {
            workers,
            backends: ArcSwap::default(),
            unresolved: ArcSwap::default(),
            replaced: Notify::new(),
            budget: RetryBudget::new(settings.retry_budget, events.clone()),
            retries: AtomicU64::new(0),
            outliers: Outliers::default(),
            histograms: PoolHistograms::default(),
            expected: Mutex::default(),
            failures: FailureCounters::default(),
            outage: Mutex::default(),
            named: NamedHosts::default(),
            name: settings.name.clone(),
            settings: ArcSwap::from_pointee(settings),
            events,
        })
    }

    /// Continues under other settings; its backends are [`Pool::replace`]'s to change.
    pub fn reconfigure(&self, settings: config::PoolConfig, now: Instant) {
        self.budget.set_percent(settings.retry_budget);
        self.backends().iter().for_each(|backend| backend.health().reconfigure(&settings, now));
        self.settings.store(Arc::new(settings));
        self.events.changed(None);
        self.events.queue().call_all();
    }

    /// What an upgrade passes on of its backends, by address; those that are to go are gone in the new process.
    pub fn carried(&self, now: Instant) -> BTreeMap<String, Value> {
        let entry = |backend: &Arc<Backend>| {
            // Numbers, texts and lists: there is nothing that JSON can't hold.
            let entry = serde_json::to_value(backend.health().carried(now)).unwrap_or_default();
            (backend.label().to_owned(), entry)
        };
        self.backends().iter().filter(|backend| !backend.is_leaving()).map(entry).collect()
    }

    /// Takes what an upgrade has passed on: each backend has it from when it comes into the pool.
    pub fn carry_on(&self, backends: BTreeMap<String, Value>, now: Instant) {
        *self.expected() = Some(Expected::new(backends, now));
    }

    /// Backends that the old process had in this pool, and that are not in it so far.
    pub fn missing(&self) -> Vec<String> {
        self.expected().iter().flat_map(Expected::addresses).map(str::to_owned).collect()
    }

    pub fn histograms(&self) -> &PoolHistograms {
        &self.histograms
    }

    /// Its clients, in mode http requests, that were not served.
    pub fn failures(&self) -> &FailureCounters {
        &self.failures
    }

    /// Since when none of its backends is usable; `None`: one is.
    pub fn outage_since(&self) -> Option<SystemTime> {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by the one that follows the states.
    pub(super) fn set_outage_since(&self, since: Option<SystemTime>) {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = since;
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

    /// Whether a connection to a backend says nothing of its client, so that it can serve another one later.
    pub fn has_shared_connections(&self) -> bool {
        let settings = self.settings();
        settings.send_proxy.is_none() && settings.source != config::SourceAddress::Client
    }

    /// Whether it is to have backends; else its clients name theirs.
    pub fn has_own_backends(&self) -> bool {
        !self.settings().backends.is_empty()
    }

    /// Every backend, whatever its state, in the order of the configuration.
    pub fn backends(&self) -> Arc<Vec<Arc<Backend>>> {
        self.backends.load_full()
    }

    /// The names that don't resolve now.
    pub fn unresolved(&self) -> Arc<Vec<Unresolved>> {
        self.unresolved.load_full()
    }

    /// Called by the pool's membership only.
    pub(super) fn set_unresolved(&self, names: Vec<Unresolved>) {
        self.unresolved.store(Arc::new(names));
    }

    /// How many backends get new connections, as long as they have room.
    pub fn usable(&self) -> usize {
        self.backends.load().iter().filter(|backend| backend.is_usable()).count()
    }

    /// Whether it should get clients: a backend is usable, or is to be probed by the next client's connection. A
    /// balancer that gets no clients because all backends were ejected would else never find out that they are back.
    pub fn is_ready(&self, now: Instant) -> bool {
        !self.has_own_backends()
            || self.backends.load().iter().any(|backend| backend.is_usable() || backend.awaits_probe(now))
    }

    /// What its clients get now. Those who name their backends are served, whatever the pool has.
    pub fn service(&self) -> Service {
        if !self.has_own_backends() {
            return Service::Served;
        }
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
            None => self.add(&endpoint, now),
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
        self.events.queue().call_all();
        self.replaced.notify_waiters();
    }

    fn add(&self, endpoint: &Endpoint, now: Instant) -> Arc<Backend> {
        let backend = Backend::new(endpoint, &self.settings(), self.workers, self.events.clone(), now);
        let carried = self.expected().as_mut().and_then(|expected| expected.take(&self.name, backend.label(), now));
        if endpoint.admin_state != AdminState::Enable {
            backend.set_admin_state(endpoint.admin_state, now);
        }
        if let Some(carried) = carried {
            backend.health().carry_on(carried, now);
            if !backend.is_up() {
                let (pool, state) = (&*self.name, backend.state().as_str());
                tracing::info!(pool, backend = backend.label(), state, "its state is that of before the upgrade");
            }
        }
        backend
    }

    /// A thread that panicked while it held the lock left a whole value.
    fn expected(&self) -> MutexGuard<'_, Option<Expected>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hosts that clients name.
    pub(super) fn named(&self) -> &NamedHosts {
        &self.named
    }

    /// An address of a host that a client names: a backend that the pool doesn't have.
    pub(super) fn backend_by_name(&self, address: SocketAddr, host: String) -> Arc<Backend> {
        let check = CheckPlace { host: Some(host), address: None };
        let endpoint = Endpoint { check, ..Endpoint::new(Target::Tcp(address)) };
        let backend = Backend::new(&endpoint, &self.settings(), self.workers, self.events.clone(), Instant::now());
        backend.mark_removed();
        backend
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
        self.budget.retry(limit).await
    }

    /// Whether the budget has a retry to give. While it has none, the end of one calls a client of the queue.
    pub fn has_retry(&self) -> bool {
        self.budget.has_retry()
    }

    /// A retry within the budget, if there is one now.
    pub fn try_retry(&self) -> Option<RetryPermit<'_>> {
        self.budget.try_retry()
    }

    /// Another backend is tried for a client.
    pub fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Retries so far.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Whether a client that waits is about to look for room: one that comes now is to wait behind it.
    pub fn has_called(&self) -> bool {
        self.events.queue().has_called()
    }

    /// A place in the queue for room; `None`: it is full.
    pub fn queue(&self) -> Option<QueueSlot<'_>> {
        let slot = self.events.queue().take_place(self.settings().queue.length)?;
        if slot.is_first() && self.events.next_event().is_some() {
            self.events.watch_events();
        }
        Some(slot)
    }

    /// Clients that wait for room now.
    pub fn waiting(&self) -> usize {
        self.events.queue().waiting()
    }

    /// Has a client that waits look for room whenever the clock may have made some: else nobody would notice that a
    /// backend is due to be probed, as nobody picks. To be run by one task, until dropped.
    pub async fn call_at_events(&self) -> Infallible {
        loop {
            let due = async {
                match self.events.next_event().filter(|_| self.waiting() > 0) {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    self.events.queue().call_one();
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                () = self.events.event_moved() => {}
            }
        }
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
        if counts && !backend.is_removed() && lease.settle() {
            let end = BadEnd { lease, evidence, client, now, now_millis: self.events.millis(now) };
            self.outliers.judge(&end, &settings, &self.backends.load());
        } else {
            backend.health().note_error(evidence.describe());
        }
    }

    /// Does what the clock asks for, and gives the connection that is to probe a backend now, where one is due that
    /// `may_probe` allows. One load when nothing is.
    pub fn due_probe(&self, now: Instant, may_probe: impl Fn(&Arc<Backend>) -> bool) -> Option<Lease> {
        if !self.events.take_due_event(now) {
            return None;
        }
        let backends = self.backends();
        backends.iter().for_each(|backend| backend.health().tick(now));
        let probe = backends.iter().filter(|backend| may_probe(backend)).find_map(|one| Lease::take_probe(one, now));
        for backend in backends.iter() {
            let next = backend.health().next_event(now);
            let is_full = !backend.has_room();
            self.events.look_again_at(if is_full { next.map(|at| at.max(now + LOOK_AGAIN)) } else { next });
        }
        probe
    }
}
