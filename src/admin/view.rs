//! What the admin server shows of the running balancer, and the commands that it sends to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::runtime::RuntimeMetrics;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::Level;

use crate::access_log::AccessLog;
use crate::backends::{Backend, Order, Pool, Refusal};
use crate::lifecycle::{ConnectionLimit, DrainWatch, FormerProcesses, OpenConnections, Phase};
use crate::relay::{Engine, Pipes};
use crate::telemetry::{ListenerStats, ListenerTotals};
use crate::tls;

use super::authorization::Guard;
use super::config_change::ReloadAnswer;
use super::history::{History, STEP};

pub struct View {
    pub started: Instant,
    /// Worker threads.
    pub workers: usize,
    /// Of each worker's runtime, once all of them run.
    pub runtimes: OnceLock<Vec<RuntimeMetrics>>,
    /// Client connections of the process.
    pub connections: Arc<ConnectionLimit>,
    /// What they are, asked of the workers.
    pub open_connections: OpenConnections,
    pub drain: DrainWatch,
    /// Replaced by a reload.
    pub shown: ArcSwap<Shown>,
    /// `None`: it is off.
    pub access_log: Option<Arc<AccessLog>>,
    /// Of all workers.
    pub pipes: Arc<Pipes>,
    pub engine: Arc<Engine>,
    /// `None`: flags and variables alone configure it.
    pub config_file: Option<String>,
    pub reloads: Reloads,
    pub guard: Guard,
    pub history: History,
    /// What upgrades have left behind.
    pub former_processes: FormerProcesses,
    /// To the main loop.
    pub commands: mpsc::UnboundedSender<Command>,
}

/// Listeners and pools as they are configured now.
#[derive(Default)]
pub struct Shown {
    /// In the order of their names; at the end removed ones that still have connections.
    pub listeners: Vec<ShownListener>,
    /// In the order of their names.
    pub pools: Vec<Arc<Pool>>,
}

pub struct ShownListener {
    pub stats: Arc<ListenerStats>,
    /// Where it listens, with the ports that the kernel chose; empty: a reload has removed it.
    pub addresses: Vec<String>,
    /// `tcp` or `http`.
    pub mode: &'static str,
    /// `None`: only its routes have pools.
    pub pool: Option<String>,
    /// `None`: it ends no TLS.
    pub tls: Option<tls::Server>,
}

/// The backends concerned, as they were found, or why nothing was done.
pub type Steered = oneshot::Sender<Result<Vec<Arc<Backend>>, Refusal>>;

/// A change that a client of the API wants. The main loop makes it, so that no two changes overlap.
pub enum Command {
    /// Read the configuration again; the answer is what has changed, or why nothing has.
    Reload {
        /// Only say what would change.
        dry_run: bool,
        answer: oneshot::Sender<Result<ReloadAnswer, String>>,
    },
    /// Show this level and more severe ones in the log, until a reload.
    SetLogLevel {
        level: Level,
        /// Who asked for it.
        by: String,
        answer: oneshot::Sender<()>,
    },
    /// Add an entry of `backends` to a pool. `by` says who wants it.
    Add { pool: String, entry: Value, by: String, answer: Steered },
    /// Change, drain, disable, enable or remove backends.
    Steer {
        /// `*`: all of them.
        pool: String,
        address: String,
        order: Order,
        by: String,
        answer: Steered,
    },
    /// Start the program anew and hand over to it; the answer is the new process's id once it accepts, or why not.
    Upgrade(oneshot::Sender<Result<u32, String>>),
    /// Drain and stop.
    Shutdown,
}

/// The results of reloads.
#[derive(Debug, Default)]
pub struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last: Mutex<Option<LastReload>>,
}

#[derive(Clone, Debug)]
pub struct LastReload {
    pub at: SystemTime,
    /// What it changed, or why it changed nothing.
    pub result: Result<String, String>,
}

impl Reloads {
    /// Counts one that ended now.
    pub fn ended(&self, result: Result<String, String>) {
        let count = if result.is_ok() { &self.succeeded } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        *self.lock() = Some(LastReload { at: SystemTime::now(), result });
    }

    pub(super) fn last(&self) -> Option<LastReload> {
        self.lock().clone()
    }

    pub(super) fn counts(&self) -> [(&'static str, u64); 2] {
        [("success", self.succeeded.load(Ordering::Relaxed)), ("failure", self.failed.load(Ordering::Relaxed))]
    }

    fn lock(&self) -> MutexGuard<'_, Option<LastReload>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ShownListener {
    pub(super) fn is_http(&self) -> bool {
        self.mode == "http"
    }

    /// Whether a reload has removed it, and its last connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.addresses.is_empty() && ListenerTotals::sum(&self.stats.counters).active() == 0
    }
}

impl View {
    /// Keeps what was, until dropped.
    pub async fn keep_history(&self) {
        let mut due = tokio::time::interval(STEP);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let shown = self.shown.load_full();
            let listeners: Vec<_> = shown.listeners.iter().map(|listener| &*listener.stats).collect();
            self.history.add_point(&listeners, &shown.pools);
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.phase() > Phase::Running
    }

    /// Why the balancer is not ready for traffic; `None`: it is.
    pub(super) fn unready(&self) -> Option<String> {
        if self.is_draining() {
            return Some("draining".to_owned());
        }
        let shown = self.shown.load();
        let empty = shown.pools.iter().find(|pool| pool.has_own_backends() && pool.backends().is_empty())?;
        Some(format!("pool {} has no backend: its names gave no address, or only removed ones", empty.name()))
    }
}
