//! A pool: its backends, and the signs by which a balancer sees that something about them changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config;

use super::backend::{Backend, Lease};

/// What changed since a balancer last looked. Two loads on the hot path, no lock.
#[derive(Debug)]
pub(super) struct Changes {
    epoch: Instant,
    generation: AtomicU64,
    /// Milliseconds after `epoch` of the next probe that is due or to be settled; `u64::MAX`: none.
    next_event: AtomicU64,
}

impl Changes {
    fn new(epoch: Instant) -> Self {
        Self { epoch, generation: AtomicU64::new(0), next_event: AtomicU64::new(u64::MAX) }
    }

    /// A backend's state changed, and it asks to be looked at again at `next_event`.
    pub(super) fn changed(&self, next_event: Option<Instant>) {
        if let Some(at) = next_event {
            self.next_event.fetch_min(self.millis(at), Ordering::Release);
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The backends that serve one thing.
#[derive(Debug)]
pub struct Pool {
    settings: config::Pool,
    backends: Vec<Arc<Backend>>,
    changes: Arc<Changes>,
    retries: AtomicU64,
}

impl Pool {
    /// All backends start up.
    pub fn new(settings: config::Pool, workers: usize, now: Instant) -> Arc<Self> {
        let changes = Arc::new(Changes::new(now));
        let backends = settings
            .backends
            .iter()
            .map(|backend| Backend::new(backend, &settings, workers, changes.clone(), now))
            .collect();
        Arc::new(Self { settings, backends, changes, retries: AtomicU64::new(0) })
    }

    /// Its name in logs and metrics.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// As configured.
    pub fn settings(&self) -> &config::Pool {
        &self.settings
    }

    /// Every backend, whatever its state, in the order of the configuration.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// Counts a further backend tried for a client.
    pub fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Further backends tried so far.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Changes whenever a backend's state does.
    pub fn generation(&self) -> u64 {
        self.changes.generation.load(Ordering::Acquire)
    }

    /// The connection that is to probe a backend now, where one is due. One load when none is.
    pub fn due_probe(&self, now: Instant) -> Option<Lease> {
        let due = self.changes.next_event.load(Ordering::Acquire);
        if due == u64::MAX || due > self.changes.millis(now) {
            return None;
        }
        self.changes.next_event.store(u64::MAX, Ordering::Release);
        let mut probe = None;
        for backend in &self.backends {
            backend.settle_probe(now);
            if probe.is_none() {
                probe = backend.lease_probe(now, self.probe_settles_after());
            }
        }
        for at in self.backends.iter().filter_map(|backend| backend.next_event()) {
            self.changes.next_event.fetch_min(self.changes.millis(at), Ordering::Release);
        }
        probe
    }

    /// A probe without a failure for this long has shown that the backend is well, even if it has said nothing yet.
    fn probe_settles_after(&self) -> Duration {
        self.settings.connect_timeout.saturating_add(Duration::from_secs(1))
    }
}
