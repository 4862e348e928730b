//! What a connection needs around it: its listener's parts, shared by the workers, and its worker's own.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use metrics::Histogram;

use crate::access_log::AccessLog;
use crate::config;
use crate::lifecycle::{ConnectionLimit, DrainWatch, IdleTimeouts, Phase};
use crate::relay::{Limits, RelayResources};
use crate::telemetry::metric;
use crate::telemetry::{Cause, ListenerCounters, ListenerStats, PerWorker};

use super::http::Http;
use super::idle_pool::IdlePool;
use super::preface::AccessRules;
use super::upstream::Upstream;
use super::workers::Workers;

/// A client that asks for nothing in this time, at a stop, is closed.
const QUIET: Duration = Duration::from_secs(1);
/// A worker tells its connections of the drain at this pace: 1,000 in a second, or all within 5 seconds.
const WOKEN_AT_ONCE: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);
const MOST_PAUSES: usize = 500;

/// What listeners have in common.
#[derive(Clone)]
pub struct ListenerDeps {
    /// The process's limit of connections.
    pub global_limit: Arc<ConnectionLimit>,
    /// `None`: it is off.
    pub access_log: Option<Arc<AccessLog>>,
    /// How many there are.
    pub workers: usize,
}

/// One listener as it is configured now, and all that serves its connections. ListenerDeps by all workers; a connection keeps the one that
/// it began with.
pub struct Frontend {
    pub(super) stats: Arc<ListenerStats>,
    /// Serves whoever has no route of its own; `None`: such a connection is refused.
    pub(super) upstream: Option<Arc<Upstream>>,
    pub(super) access_rules: AccessRules,
    idle: Duration,
    half_closed: Duration,
    /// In http mode.
    pub(super) http: Option<Http>,
    pub(super) global_limit: Arc<ConnectionLimit>,
    pub(super) own_limit: Arc<ConnectionLimit>,
    pub(super) access_log: Option<Arc<AccessLog>>,
    pub(super) duration: Histogram,
    /// A reload has put another in its place.
    is_replaced: AtomicBool,
}

impl Frontend {
    /// Puts a listener together. `before` is what a reload replaces: counts and limits go on.
    pub fn new(
        listener: &config::ListenerConfig,
        upstream_of: impl Fn(&str) -> Arc<Upstream>,
        deps: &ListenerDeps,
        before: Option<&Self>,
    ) -> Arc<Self> {
        let max = listener.max_connections.map_or(usize::MAX, NonZeroUsize::get);
        let stats = || ListenerStats { name: listener.name.clone(), counters: PerWorker::new(deps.workers) };
        let own_limit = before.map_or_else(|| ConnectionLimit::new(max), |before| before.own_limit.clone());
        own_limit.set_max(max);
        Arc::new(Self {
            stats: before.map_or_else(|| Arc::new(stats()), |before| before.stats.clone()),
            access_rules: AccessRules::new(listener, &upstream_of, before.map(|before| &before.access_rules)),
            upstream: listener.pool.as_deref().map(upstream_of),
            idle: listener.idle_timeout,
            half_closed: listener.half_closed_timeout,
            http: Http::new(listener),
            global_limit: deps.global_limit.clone(),
            own_limit,
            access_log: deps.access_log.clone().filter(|_| listener.access_log),
            duration: metric::connection_duration(&listener.name),
            is_replaced: AtomicBool::new(false),
        })
    }

    /// What the workers count of it.
    pub fn stats(&self) -> &Arc<ListenerStats> {
        &self.stats
    }

    /// A reload has put another in its place: clients that ask again are to come on another connection.
    pub fn mark_replaced(&self) {
        self.is_replaced.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// The listener's name.
    pub(super) fn name(&self) -> &str {
        &self.stats.name
    }

    /// What one worker counts of it.
    pub(super) fn counters(&self, worker: usize) -> &ListenerCounters {
        self.stats.counters.worker(worker)
    }

    /// How long its connections to `upstream` may be without a byte.
    pub(super) fn limits(&self, upstream: &Upstream) -> Limits {
        let keepalive = upstream.pool().settings().tcp.keepalive;
        Limits { idle: self.idle, half_closed: self.half_closed, keepalive }
    }
}

/// What the connections of one worker share; lives on that worker's thread.
pub struct Worker {
    /// Which worker this is, from 0.
    pub id: usize,
    /// Who is connected.
    pub idle_timeouts: Rc<IdleTimeouts>,
    /// How far the stop has come.
    pub drain: DrainWatch,
    /// All workers, this one among them.
    pub workers: Arc<Workers>,
    pub(super) resources: RelayResources,
    /// Connections to backends that wait for their next request.
    pub(super) idle_pool: IdlePool,
    /// Where heads are written; empty between two polls.
    pub(super) draft: RefCell<Vec<u8>>,
    /// The phase as this worker knows it: looked at for each request, so without the watch's lock.
    phase: Cell<Phase>,
}

impl Worker {
    /// A worker without connections; its listeners' limits are `shortest_limit` or longer.
    pub fn new(
        id: usize,
        shortest_limit: Duration,
        drain: DrainWatch,
        workers: Arc<Workers>,
        resources: RelayResources,
    ) -> Rc<Self> {
        let idle_timeouts = IdleTimeouts::new(shortest_limit, Instant::now());
        let (idle_pool, draft, phase) = (IdlePool::new(id), RefCell::default(), Cell::new(Phase::Running));
        Rc::new(Self { id, idle_timeouts, drain, workers, resources, idle_pool, draft, phase })
    }

    /// Has the connections that were idle for too long end.
    pub fn expire(&self, now: Instant) {
        self.idle_timeouts.expire(now);
        self.idle_pool.expire(now);
    }

    /// Follows the drain, and tells the connections that wait for a request.
    pub async fn follow_drain(&self) {
        let mut drain = self.drain.clone();
        drain.reached(Phase::Leaving).await;
        self.phase.set(Phase::Leaving);
        drain.reached(Phase::Closing).await;
        // Clients that ask again and again hear of it with an answer; closed now, they would lose the request that is on its way.
        tokio::time::sleep(QUIET).await;
        self.phase.set(Phase::Closing);
        let wakers = self.idle_timeouts.wakers();
        // Not all at once: whoever is sent away comes back elsewhere, and all of them would be a storm there.
        for some in wakers.chunks(WOKEN_AT_ONCE.max(wakers.len() / MOST_PAUSES)) {
            some.iter().for_each(Waker::wake_by_ref);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Why something was dropped before it had ended.
    pub(super) fn cause_of_a_cut(&self) -> Cause {
        if self.drain.phase() >= Phase::Closing { Cause::DrainForced } else { Cause::Internal }
    }

    /// Asked to stop: clients are told to come back on another connection.
    pub(super) fn is_leaving(&self) -> bool {
        self.phase.get() >= Phase::Leaving
    }

    /// Accepting no more: a client that has no request under way is to leave.
    pub(super) fn is_closing(&self) -> bool {
        self.phase.get() >= Phase::Closing
    }
}
