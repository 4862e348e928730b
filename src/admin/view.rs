//! What the admin server sees of the running parts, and what it may ask of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::runtime::RuntimeMetrics;
use tokio::sync::{mpsc, oneshot};

use crate::access_log::AccessLog;
use crate::backends::{AdminState, BackendState, Pool};
use crate::lifecycle::{ConnectionLimit, DrainWatch, Phase};
use crate::telemetry::{ListenerStats, ListenerTotals};

use super::authorization::Guard;

/// The running parts that the admin server shows.
pub struct View {
    /// When the process started.
    pub started: Instant,
    /// Worker threads.
    pub workers: usize,
    /// Of each worker's runtime, once all of them run.
    pub runtimes: OnceLock<Vec<RuntimeMetrics>>,
    /// Client connections of the process.
    pub connections: Arc<ConnectionLimit>,
    /// How far the stop has come.
    pub drain: DrainWatch,
    /// What a reload changes.
    pub shown: ArcSwap<Shown>,
    /// The access log, unless it is off.
    pub access_log: Option<Arc<AccessLog>>,
    /// The configuration file, if there is one.
    pub config_file: Option<String>,
    /// How reloads went.
    pub reloads: Reloads,
    /// Who may change anything.
    pub guard: Guard,
    /// Whoever runs the process takes these.
    pub commands: mpsc::UnboundedSender<Command>,
}

/// Listeners and pools as they are configured now.
#[derive(Default)]
pub struct Shown {
    /// In the order of their names; last those that are gone and have connections still.
    pub listeners: Vec<ShownListener>,
    /// In the order of their names.
    pub pools: Vec<Arc<Pool>>,
}

/// One listener.
pub struct ShownListener {
    /// What the workers count of it.
    pub stats: Arc<ListenerStats>,
    /// Where it listens, with the ports that the kernel chose.
    pub addresses: Vec<String>,
    /// `tcp` or `http`.
    pub mode: &'static str,
    /// `None`: only routes have one.
    pub pool: Option<String>,
}

/// What a client of the API asks for. The main loop does it, one command after the other, reloads included.
pub enum Command {
    /// To read the configuration again; the answer is what has changed, or why nothing has.
    Reload(oneshot::Sender<Result<String, String>>),
    /// To let a backend serve, drain it or take it out.
    SetAdminState {
        /// The pool's name.
        pool: String,
        /// The backend's address, as it is shown.
        backend: String,
        admin_state: AdminState,
        /// The backend's state afterwards, or what there is not.
        answer: oneshot::Sender<Result<BackendState, String>>,
    },
    /// To drain and stop.
    Shutdown,
}

/// How reloads went.
#[derive(Debug, Default)]
pub struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last: Mutex<Option<LastReload>>,
}

/// The last one.
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
    /// A reload has taken it away, and its last connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.addresses.is_empty() && ListenerTotals::sum(&self.stats.counters).active() == 0
    }
}

impl View {
    pub(super) fn is_draining(&self) -> bool {
        self.drain.phase() > Phase::Running
    }

    /// Why no more traffic should come here; `None`: it should.
    pub(super) fn unready(&self) -> Option<String> {
        if self.is_draining() {
            return Some("draining".to_owned());
        }
        let shown = self.shown.load();
        let empty = shown.pools.iter().find(|pool| pool.backends().is_empty())?;
        Some(format!("pool {} has no backend: none of its names has resolved yet", empty.name()))
    }
}
