//! What a connection needs around it: its listener's parts, shared by the workers, and its worker's own.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics::Histogram;

use crate::access_log::AccessLog;
use crate::balancer::Balancer;
use crate::config;
use crate::lifecycle::{ConnectionLimit, DrainWatch, Phase, Roster};
use crate::net::{DialOptions, Target};
use crate::relay::{Limits, Tools};
use crate::telemetry::metric::{self, PoolHistograms};
use crate::telemetry::{ListenerCounters, ListenerStats, PerWorker};

use super::crew::Crew;
use super::http::{Http, Kept};

/// One listener and all that serves its connections. Shared by all workers.
pub struct Service {
    pub(super) stats: Arc<ListenerStats>,
    /// Whose turn it is among the pool's source addresses.
    next_source: AtomicUsize,
    pub(super) balancer: Arc<Balancer>,
    pub(super) limits: Limits,
    /// In http mode.
    pub(super) http: Option<Http>,
    pub(super) dial: DialOptions,
    pub(super) global_limit: Arc<ConnectionLimit>,
    pub(super) own_limit: Option<Arc<ConnectionLimit>>,
    pub(super) access_log: Option<Arc<AccessLog>>,
    pub(super) duration: Histogram,
    pub(super) pool_histograms: PoolHistograms,
}

impl Service {
    /// Puts a listener together.
    pub fn new(
        listener: &config::Listener,
        balancer: Arc<Balancer>,
        global_limit: Arc<ConnectionLimit>,
        access_log: Option<Arc<AccessLog>>,
        workers: usize,
    ) -> Arc<Self> {
        let pool = balancer.pool().settings();
        Arc::new(Self {
            stats: Arc::new(ListenerStats { name: listener.name.clone(), counters: PerWorker::new(workers) }),
            limits: Limits {
                idle: listener.idle_timeout,
                half_closed: listener.half_closed_timeout,
                keepalive: pool.tcp.keepalive,
            },
            http: Http::new(listener, pool),
            dial: DialOptions {
                timeout: pool.connect_timeout,
                nodelay: pool.tcp.nodelay,
                user_timeout: pool.tcp.user_timeout,
            },
            next_source: AtomicUsize::new(0),
            global_limit,
            own_limit: listener.max_connections.map(|max| ConnectionLimit::new(max.get())),
            access_log: access_log.filter(|_| listener.access_log),
            duration: metric::connection_duration(&listener.name),
            pool_histograms: PoolHistograms::new(&pool.name),
            balancer,
        })
    }

    /// What the workers count of it.
    pub fn stats(&self) -> &Arc<ListenerStats> {
        &self.stats
    }

    /// The address that the next connection to `target` comes from: the next one of its family. `None`: the kernel
    /// chooses.
    pub(super) fn next_source(&self, target: &Target) -> Option<IpAddr> {
        let sources = &self.balancer.pool().settings().source;
        let Target::Tcp(target) = target else { return None };
        if sources.is_empty() {
            return None;
        }
        let turn = self.next_source.fetch_add(1, Ordering::Relaxed);
        let fits = |source: &&IpAddr| source.is_ipv4() == target.is_ipv4();
        let count = sources.iter().filter(fits).count().max(1);
        sources.iter().filter(fits).nth(turn % count).copied()
    }

    /// The listener's name.
    pub(super) fn name(&self) -> &str {
        &self.stats.name
    }

    /// What one worker counts of it.
    pub(super) fn counters(&self, worker: usize) -> &ListenerCounters {
        self.stats.counters.of(worker)
    }
}

/// What the connections of one worker share; lives on that worker's thread.
pub struct Worker {
    /// Which worker this is, from 0.
    pub id: usize,
    /// Who is connected.
    pub roster: Rc<Roster>,
    /// How far the stop has come.
    pub drain: DrainWatch,
    /// All workers, this one among them.
    pub crew: Arc<Crew>,
    pub(super) tools: Tools,
    /// Connections to backends that wait for their next request.
    pub(super) kept: Kept,
    /// Where heads are written; empty between two polls.
    pub(super) draft: RefCell<Vec<u8>>,
    /// The phase as this worker knows it: looked at for each request, so without the watch's lock.
    phase: Cell<Phase>,
}

impl Worker {
    /// A worker without connections; its listeners' limits are `shortest_limit` or longer.
    pub fn new(id: usize, shortest_limit: Duration, drain: DrainWatch, crew: Arc<Crew>, tools: Tools) -> Rc<Self> {
        let roster = Roster::new(shortest_limit, Instant::now());
        let (kept, draft) = Default::default();
        Rc::new(Self { id, roster, drain, crew, tools, kept, draft, phase: Cell::new(Phase::Running) })
    }

    /// Has the connections that were idle for too long end.
    pub fn sweep(&self, now: Instant) {
        self.roster.sweep(now);
        self.kept.sweep(now);
    }

    /// Follows the drain to its end, and tells the connections that wait for a request.
    pub async fn follow_drain(&self) {
        let mut drain = self.drain.clone();
        for phase in [Phase::Leaving, Phase::Closing, Phase::Over] {
            drain.reached(phase).await;
            self.phase.set(phase);
            self.roster.wake_all();
        }
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
